package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/heartbeatjson"
	"github.com/mig-controller/mig-controller/internal/store"
)

// RecordHeartbeats stores heartbeats, given oldest first, and applies them to their VMs.
// Heartbeats from superseded sessions are dropped.
func (e *Engine) RecordHeartbeats(ctx context.Context, hs []fleet.Heartbeat) error {
	order := make([]int, len(hs)) // by VM, in order of arrival
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int { return strings.Compare(string(hs[i].VM), string(hs[j].VM)) })
	var vms []fleet.VMID
	for _, i := range order {
		if n := len(vms); n == 0 || vms[n-1] != hs[i].VM {
			vms = append(vms, hs[i].VM)
		}
	}
	return e.do(ctx, &op{vms: vms, run: func(g *group) error {
		for _, i := range order {
			if err := g.heartbeat(&hs[i]); err != nil {
				return err
			}
		}
		return nil
	}})
}

// heartbeat adds a heartbeat.
func (g *group) heartbeat(h *fleet.Heartbeat) error {
	out, err := g.reduce(h.VM, fleet.HeartbeatReceived{Heartbeat: h}, h.ReceivedAt)
	if err != nil || out.Stale {
		return err
	}
	if g.heartbeats == nil {
		g.heartbeats = g.e.blocks.Get().(*block) //nolint:errcheck,forcetypeassert // there is nothing else in it
	}
	if err := g.heartbeats.add(h); err != nil {
		return err
	}
	g.tally.heartbeats++
	return nil
}

// block is a row of heartbeats: all that are committed together, those of each VM oldest
// first. Its document has one heartbeat per line, as JSON, in a Zstandard frame: the
// concatenated documents of several rows are valid input for zstd -d.
type block struct {
	text  []byte
	vms   []string
	since time.Time // when the first one was received
	doc   []byte    // compressed
}

func (b *block) add(h *fleet.Heartbeat) (err error) {
	if b.text, err = heartbeatjson.Append(b.text, h); err != nil {
		return fmt.Errorf("write heartbeat: %w", err)
	}
	b.text = append(b.text, '\n')
	if n := len(b.vms); n == 0 || b.vms[n-1] != string(h.VM) {
		b.vms = append(b.vms, string(h.VM))
	}
	if b.since.IsZero() || h.ReceivedAt.Before(b.since) {
		b.since = h.ReceivedAt
	}
	return nil
}

// row returns the row, with its document compressed.
func (b *block) row(packer *zstd.Encoder) store.HeartbeatRow {
	slices.Sort(b.vms)
	b.vms = slices.Compact(b.vms)
	b.doc = packer.EncodeAll(b.text, b.doc[:0])
	return store.HeartbeatRow{At: b.since, VMs: b.vms, Doc: b.doc}
}

// packedWindow is the size of the compression window. More would use memory for little
// gain: heartbeats resemble their neighbours.
const packedWindow = 256 << 10

// maxText is the maximum length of an uncompressed document, in bytes.
const maxText = 256 << 20

// openCodecs creates the encoder and the decoder, both safe for concurrent use.
func (e *Engine) openCodecs() (err error) {
	e.packer, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(packedWindow), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return err
	}
	e.unpacker, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderMaxMemory(maxText))
	return err
}

// unpack returns the uncompressed text of a document.
func (e *Engine) unpack(doc []byte) ([]byte, error) {
	text, err := e.unpacker.DecodeAll(doc, nil)
	if err != nil {
		return nil, fmt.Errorf("unpack heartbeats: %w", err)
	}
	return text, nil
}

// vmOf returns the VM of a line without decoding it: the first member "vm", which only a
// time of receipt may precede.
func vmOf(line []byte) (id []byte) {
	_, rest, _ := bytes.Cut(line, []byte(`"vm":"`))
	id, _, _ = bytes.Cut(rest, []byte{'"'})
	return id
}

// heartbeatsOf returns the heartbeats of a VM in the text of a row, oldest first.
func (e *Engine) heartbeatsOf(row store.HeartbeatRow, text []byte, vm fleet.VMID) (hs []fleet.Heartbeat) {
	for line := range bytes.Lines(text) {
		if string(vmOf(line)) != string(vm) {
			continue
		}
		var h fleet.Heartbeat
		if err := json.Unmarshal(line, &h); err != nil {
			e.logDamaged(row, vm, err)
			continue
		}
		hs = append(hs, h)
	}
	return hs
}

// heartbeatBatch is how many rows are read at a time.
const heartbeatBatch = 50

// heartbeatOverhead is the size of a heartbeat without its body, in bytes.
const heartbeatOverhead = 512

// eachHeartbeatRow calls fn with the rows of heartbeats and their texts, latest first, until
// fn returns false. It skips damaged rows.
func (e *Engine) eachHeartbeatRow(ctx context.Context, q store.HeartbeatQuery, fn func(store.HeartbeatRow, []byte) bool) error {
	for {
		var rows []store.HeartbeatRow
		var more bool
		err := e.undamaged(ctx, func() (err error) {
			rows, more, err = e.Driver.Heartbeats(ctx, q, heartbeatBatch)
			return err
		})
		if err != nil {
			return unavailable(ctx, err)
		}
		goOn := more
		var damage []store.Place
		for _, row := range rows {
			q.Before = row.At
			text, err := e.unpack(row.Doc)
			if err != nil {
				damage = append(damage, store.Place{Class: store.ClassHeartbeats, Row: row.Seq})
			} else if !fn(row, text) {
				goOn = false
				break
			}
		}
		if len(damage) > 0 {
			if _, err := e.setAside(ctx, damage); err != nil {
				return unavailable(ctx, err)
			}
		}
		if !goOn {
			return nil
		}
	}
}

// Heartbeats lists the stored heartbeats of a VM that were received before this time, zero
// for all, latest first, as VMs does. It stops reading at the first one beyond the limit.
func (e *Engine) Heartbeats(
	ctx context.Context, vm fleet.VMID, before time.Time, limit int,
) (hs []fleet.Heartbeat, more bool, err error) {
	var bound store.Bound
	err = e.eachHeartbeatRow(ctx, store.HeartbeatQuery{VM: string(vm), Before: before}, func(row store.HeartbeatRow, text []byte) bool {
		for _, h := range slices.Backward(e.heartbeatsOf(row, text, vm)) {
			if !before.IsZero() && !h.ReceivedAt.Before(before) {
				continue
			}
			if more = !bound.Takes(limit, heartbeatOverhead+len(h.Body)); more {
				return false
			}
			hs = append(hs, h)
		}
		return true
	})
	if err != nil {
		return nil, false, err
	}
	return hs, more, nil
}
