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
	// lookBack is how far back heartbeats and acks may lie that the row of a connected VM
	// lacks: up to three times rowEvery between checkpoints, and those may be late.
	lookBack = 3*rowEvery + time.Minute
	// recoverBatch is how many rows are read, and how many VMs are written, at a time.
	recoverBatch = 500
)

// lastReport is what a VM last reported, as far as its row may lack it.
type lastReport struct {
	heartbeat *fleet.Heartbeat
	ackedAt   time.Time
}

// ResetSessions ends the sessions that an earlier run of the controller has left, after
// it has brought their VMs up to date. It returns how many there were. Call it at the
// start, before any input is applied.
func (e *Engine) ResetSessions(ctx context.Context, now time.Time) (int, error) {
	connected, err := e.connected(ctx)
	if err != nil {
		return 0, err
	}
	out, err := e.withDeliveries(ctx)
	if err != nil {
		return 0, err
	}
	reports := map[fleet.VMID]lastReport{}
	if len(connected) > 0 {
		if reports, err = e.lastReports(ctx); err != nil {
			return 0, err
		}
	}
	vms := append(slices.Clone(connected), out...)
	slices.Sort(vms)
	vms = slices.Compact(vms)
	for some := range slices.Chunk(vms, recoverBatch) {
		err := e.do(ctx, &op{vms: some, run: func(g *group) error {
			for _, vm := range some {
				last := reports[vm]
				in := fleet.ControllerRestarted{VM: vm, LastHeartbeat: last.heartbeat, LastAckAt: last.ackedAt}
				if _, err := g.reduce(vm, in, now); err != nil {
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
		rows, more, err := e.Driver.VMs(ctx, q, recoverBatch)
		if err != nil {
			return nil, unavailable(ctx, err)
		}
		for _, row := range rows {
			vms = append(vms, fleet.VMID(row.ID))
			q.After = row.ID
		}
		if !more {
			return vms, nil
		}
	}
}

// withDeliveries returns the VMs that have delivered commands.
func (e *Engine) withDeliveries(ctx context.Context) ([]fleet.VMID, error) {
	q := store.CommandQuery{States: []string{string(fleet.Delivered)}}
	var vms []fleet.VMID
	for {
		rows, more, err := e.Driver.Commands(ctx, q, recoverBatch)
		if err != nil {
			return nil, unavailable(ctx, err)
		}
		for _, row := range rows {
			vms = append(vms, fleet.VMID(row.VM))
			q.Before = row.Seq
		}
		if !more {
			return vms, nil
		}
	}
}

// lastReports returns what each VM that reported shortly before the end of the earlier
// run last reported.
func (e *Engine) lastReports(ctx context.Context) (map[fleet.VMID]lastReport, error) {
	end, err := e.lastTime(ctx)
	if err != nil {
		return nil, err
	}
	reports := map[fleet.VMID]lastReport{}
	if err := e.lastHeartbeats(ctx, end.Add(-lookBack), reports); err != nil {
		return nil, err
	}
	return reports, e.lastAcks(ctx, end.Add(-lookBack), reports)
}

// lastHeartbeats adds the last heartbeat of each VM since then.
func (e *Engine) lastHeartbeats(ctx context.Context, since time.Time, reports map[fleet.VMID]lastReport) error {
	q := store.HeartbeatQuery{}
	for {
		rows, more, err := e.Driver.Heartbeats(ctx, q, heartbeatRows)
		if err != nil {
			return unavailable(ctx, err)
		}
		for _, row := range rows {
			if row.At.Before(since) {
				return nil
			}
			e.lastOf(row, reports)
			q.Before = row.At
		}
		if !more {
			return nil
		}
	}
}

// lastAcks adds the last ack of each VM since then.
func (e *Engine) lastAcks(ctx context.Context, since time.Time, reports map[fleet.VMID]lastReport) error {
	q := store.FinishedQuery{States: []string{string(fleet.Succeeded), string(fleet.Failed)}, Since: since}
	for {
		rows, more, err := e.Driver.LastFinished(ctx, q, recoverBatch)
		if err != nil {
			return unavailable(ctx, err)
		}
		for _, row := range rows {
			q.After = row.VM
			if c, err := decodeCommand(row); err == nil {
				report := reports[c.VM]
				report.ackedAt = c.AckedAt // zero if it was only proven
				reports[c.VM] = report
			}
		}
		if !more {
			return nil
		}
	}
}

// lastTime returns when the latest change or heartbeat was.
func (e *Engine) lastTime(ctx context.Context) (time.Time, error) {
	var at time.Time
	if last := e.feed.lastChange(); last > 0 {
		changes, _, err := e.Driver.Changes(ctx, store.ChangeQuery{After: last - 1}, 1)
		if err != nil {
			return at, unavailable(ctx, err)
		}
		if len(changes) > 0 {
			at = changes[0].At
		}
	}
	rows, _, err := e.Driver.Heartbeats(ctx, store.HeartbeatQuery{}, 1)
	if err == nil && len(rows) > 0 && rows[0].At.After(at) {
		at = rows[0].At
	}
	return at, unavailable(ctx, err)
}

// lastOf adds each VM's last heartbeat in a row, unless a later row had one.
func (e *Engine) lastOf(row store.HeartbeatRow, reports map[fleet.VMID]lastReport) {
	text, err := e.unpack(row.Doc)
	if err != nil {
		e.Log.Error("heartbeats left out", keyError, err)
		return
	}
	last := map[fleet.VMID][]byte{}
	for line := range bytes.Lines(text) {
		if vm := fleet.VMID(vmOf(line)); reports[vm].heartbeat == nil {
			last[vm] = line
		}
	}
	for vm, line := range last {
		e.lastLine(vm, line, reports)
	}
}

func (e *Engine) lastLine(vm fleet.VMID, line []byte, reports map[fleet.VMID]lastReport) {
	h := new(fleet.Heartbeat)
	if err := json.Unmarshal(line, h); err != nil {
		e.Log.Error("heartbeat left out", keyVM, vm, keyError, err)
		return
	}
	reports[vm] = lastReport{heartbeat: h}
}
