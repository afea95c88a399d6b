package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/logkey"
	"github.com/mig-controller/mig-controller/internal/store"
)

const (
	// lookBack is how far back heartbeats and acks are read, from the end of the earlier
	// run: older ones are in the rows, which flushLoop, though it may be late, writes within
	// three times rowEvery.
	lookBack = 3*rowEvery + time.Minute
	// recoverBatch is how many rows are read, and how many VMs written, at a time.
	recoverBatch = 500
)

// lastReport is the part of a VM's last reports that its row may lack.
type lastReport struct {
	heartbeat *fleet.Heartbeat
	ackedAt   time.Time
}

// ResetSessions ends the sessions that an earlier run of the controller left open, after it
// has brought their VMs up to date. It returns how many there were. Call it at startup,
// before any input is applied.
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
					e.Log.Error("session of an earlier run not ended", logkey.VM, vm, logkey.Error, err)
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
	var ids []fleet.VMID
	for {
		vms, more, err := e.VMs(ctx, q, recoverBatch)
		if err != nil {
			return nil, err
		}
		for _, v := range vms {
			ids = append(ids, v.ID)
			q.After = string(v.ID)
		}
		if !more {
			return ids, nil
		}
	}
}

// withDeliveries returns the VMs that have delivered commands. It reads all open commands:
// a damaged one might never be read otherwise, and would not end.
func (e *Engine) withDeliveries(ctx context.Context) ([]fleet.VMID, error) {
	q := store.CommandQuery{States: []string{string(fleet.Pending), string(fleet.Delivered)}}
	var vms []fleet.VMID
	for {
		cs, more, err := e.Commands(ctx, q, recoverBatch)
		if err != nil {
			return nil, err
		}
		for _, c := range cs {
			if q.Before = c.Seq; c.State == fleet.Delivered {
				vms = append(vms, c.VM)
			}
		}
		if !more {
			return vms, nil
		}
	}
}

// lastReports returns the last reports of each VM that reported shortly before the end of
// the earlier run.
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
	return e.eachHeartbeatRow(ctx, store.HeartbeatQuery{}, func(row store.HeartbeatRow, text []byte) bool {
		if row.At.Before(since) {
			return false
		}
		e.lastOf(row, text, reports)
		return true
	})
}

// lastAcks adds the time of the last ack of each VM since then.
func (e *Engine) lastAcks(ctx context.Context, since time.Time, reports map[fleet.VMID]lastReport) error {
	q := store.FinishedQuery{States: []string{string(fleet.Succeeded), string(fleet.Failed)}, Since: since}
	for {
		var cs []fleet.Command
		var more bool
		err := e.undamaged(ctx, func() (err error) {
			var rows []store.CommandRow
			if rows, more, err = e.Driver.LastFinished(ctx, q, recoverBatch); err != nil {
				return err
			}
			cs, err = decoded(rows, placesOfCommand, decodeCommand)
			return err
		})
		if err != nil {
			return unavailable(ctx, err)
		}
		for _, c := range cs {
			q.After = string(c.VM)
			report := reports[c.VM]
			report.ackedAt = c.AckedAt // zero if it was only proven
			reports[c.VM] = report
		}
		if !more {
			return nil
		}
	}
}

// lastTime returns the time of the latest change or heartbeat, or now if there is none.
func (e *Engine) lastTime(ctx context.Context) (time.Time, error) {
	var changes []store.ChangeRow
	var beats []store.HeartbeatRow
	err := e.undamaged(ctx, func() (err error) {
		if last := e.feed.lastChange(); last > 0 {
			changes, _, err = e.Driver.Changes(ctx, store.ChangeQuery{After: last - 1}, 1)
			if err != nil && !errors.Is(err, store.ErrPurged) { // the latest was damaged
				return err
			}
		}
		beats, _, err = e.Driver.Heartbeats(ctx, store.HeartbeatQuery{}, 1)
		return err
	})
	var at time.Time
	if len(changes) > 0 {
		at = changes[0].At
	}
	if len(beats) > 0 {
		at = later(at, beats[0].At)
	}
	if at.IsZero() {
		at = e.Clock()
	}
	return at, unavailable(ctx, err)
}

// lastOf adds each VM's last heartbeat in a row, unless a later row contained one.
func (e *Engine) lastOf(row store.HeartbeatRow, text []byte, reports map[fleet.VMID]lastReport) {
	last := map[fleet.VMID][]byte{}
	for line := range bytes.Lines(text) {
		if vm := fleet.VMID(vmOf(line)); reports[vm].heartbeat == nil {
			last[vm] = line
		}
	}
	for vm, line := range last {
		h := new(fleet.Heartbeat)
		if err := json.Unmarshal(line, h); err != nil {
			e.logDamaged(row, vm, err)
			continue
		}
		reports[vm] = lastReport{heartbeat: h}
	}
}
