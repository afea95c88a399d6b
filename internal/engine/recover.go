package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

const (
	// lookBack is how far back there may be heartbeats and acks that the row of a
	// connected VM lacks: a checkpoint lets it be three times rowEvery, and may be late.
	lookBack = 3*rowEvery + time.Minute
	// recoverBatch is how many rows are read, and how many VMs are written, at a time.
	recoverBatch = 500
)

// lastWord is what a VM last reported, as far as its row may lack it.
type lastWord struct {
	heartbeat *fleet.Heartbeat
	ackedAt   time.Time
}

// ResetSessions ends all sessions: those of a controller that is no more, whose VMs
// are brought up to date. It returns how many there were. It is for the start,
// before anything else.
func (e *Engine) ResetSessions(ctx context.Context, now time.Time) (int, error) {
	connected, err := e.connected(ctx)
	if err != nil {
		return 0, err
	}
	out, err := e.withDeliveries(ctx)
	if err != nil {
		return 0, err
	}
	words := map[fleet.VMID]lastWord{}
	if len(connected) > 0 {
		if words, err = e.lastWords(ctx); err != nil {
			return 0, err
		}
	}
	vms := append(slices.Clone(connected), out...)
	slices.Sort(vms)
	vms = slices.Compact(vms)
	for some := range slices.Chunk(vms, recoverBatch) {
		err := e.do(ctx, &op{vms: some, run: func(g *group) error {
			for _, vm := range some {
				g.entries[vm].catchUp(words[vm])
				if _, err := g.reduce(vm, fleet.ControllerRestarted{VM: vm}, now); err != nil {
					e.Log.Error("session of an earlier run not ended", keyVM, vm, keyError, err)
				}
			}
			return nil
		}})
		if err != nil {
			return 0, err
		}
	}
	return len(connected), nil
}

// connected returns the VMs that have a session.
func (e *Engine) connected(ctx context.Context) ([]fleet.VMID, error) {
	yes := true
	q := store.VMQuery{Connected: &yes}
	var vms []fleet.VMID
	for {
		rows, err := e.Driver.VMs(ctx, q, recoverBatch)
		if err != nil {
			return nil, unavailable(ctx, err)
		}
		for _, row := range rows {
			vms = append(vms, fleet.VMID(row.ID))
			q.After = row.ID
		}
		if len(rows) < recoverBatch {
			return vms, nil
		}
	}
}

// withDeliveries returns the VMs that have commands out.
func (e *Engine) withDeliveries(ctx context.Context) (vms []fleet.VMID, err error) {
	err = e.eachCommand(ctx, store.CommandQuery{States: []string{string(fleet.Delivered)}}, func(row store.CommandRow) {
		vms = append(vms, fleet.VMID(row.VM))
	})
	return vms, err
}

func (e *Engine) eachCommand(ctx context.Context, q store.CommandQuery, fn func(store.CommandRow)) error {
	for {
		rows, err := e.Driver.Commands(ctx, q, recoverBatch)
		if err != nil {
			return unavailable(ctx, err)
		}
		for _, row := range rows {
			fn(row)
			q.Before = row.Seq
		}
		if len(rows) < recoverBatch {
			return nil
		}
	}
}

// lastWords returns what VMs last reported, of those that did shortly before the end
// of the run before.
func (e *Engine) lastWords(ctx context.Context) (map[fleet.VMID]lastWord, error) {
	end, err := e.lastTime(ctx)
	if err != nil {
		return nil, err
	}
	words := map[fleet.VMID]lastWord{}
	q := store.HeartbeatQuery{}
	for {
		rows, err := e.Driver.Heartbeats(ctx, q, heartbeatRows)
		if err != nil {
			return nil, unavailable(ctx, err)
		}
		for _, row := range rows {
			if row.At.Before(end.Add(-lookBack)) {
				rows = nil
				break
			}
			e.lastOf(row, words)
			q.Before = row.At
		}
		if len(rows) < heartbeatRows {
			break
		}
	}
	states := []string{string(fleet.Succeeded), string(fleet.Failed)}
	err = e.eachCommand(ctx, store.CommandQuery{States: states, FinishedSince: end.Add(-lookBack)}, func(row store.CommandRow) {
		word := words[fleet.VMID(row.VM)]
		if row.FinishedAt.After(word.ackedAt) {
			if c, err := decodeCommand(row); err == nil && c.AckedAt.After(word.ackedAt) {
				word.ackedAt = c.AckedAt
				words[c.VM] = word
			}
		}
	})
	return words, err
}

// lastTime returns when the latest change or heartbeat was.
func (e *Engine) lastTime(ctx context.Context) (time.Time, error) {
	var at time.Time
	if last := e.feed.lastChange(); last > 0 {
		changes, err := e.Driver.Changes(ctx, store.ChangeQuery{After: last - 1}, 1)
		if err != nil {
			return at, unavailable(ctx, err)
		}
		if len(changes) > 0 {
			at = changes[0].At
		}
	}
	rows, err := e.Driver.Heartbeats(ctx, store.HeartbeatQuery{}, 1)
	if err == nil && len(rows) > 0 && rows[0].At.After(at) {
		at = rows[0].At
	}
	return at, unavailable(ctx, err)
}

// lastOf adds the last heartbeat in a row of each VM that has none later.
func (e *Engine) lastOf(row store.HeartbeatRow, words map[fleet.VMID]lastWord) {
	text, err := e.unpack(row.Doc)
	if err != nil {
		e.Log.Error("heartbeats left out", keyError, err)
		return
	}
	last := map[fleet.VMID][]byte{}
	for line := range bytes.Lines(text) {
		if vm := fleet.VMID(vmOf(line)); words[vm].heartbeat == nil {
			last[vm] = line
		}
	}
	for vm, line := range last {
		e.lastLine(vm, line, words)
	}
}

func (e *Engine) lastLine(vm fleet.VMID, line []byte, words map[fleet.VMID]lastWord) {
	h := new(fleet.Heartbeat)
	if err := json.Unmarshal(line, h); err != nil {
		e.Log.Error("heartbeat left out", keyVM, vm, keyError, err)
		return
	}
	words[vm] = lastWord{heartbeat: h}
}

// catchUp adds what a crash has kept from the VM's row: the load in its last
// heartbeat, and that it has acked a command since.
func (en *entry) catchUp(last lastWord) {
	if h := last.heartbeat; h != nil && h.ReceivedAt.After(en.vm.LastHeartbeatAt) {
		en.vm = en.vm.WithLoad(en.vm.Heartbeat(*h, false))
	}
	if last.ackedAt.After(en.vm.LastSeenAt) {
		en.vm.LastSeenAt = last.ackedAt
	}
	if last.ackedAt.After(en.vm.LastAckAt) {
		en.vm.LastAckAt = last.ackedAt
	}
}
