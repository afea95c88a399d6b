package engine

import (
	"context"
	"slices"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/logkey"
)

// rowEvery is how often the row of a VM that sends only heartbeats is written. Until then
// its heartbeats and acks, which are durable, contain what the row lacks: ResetSessions
// restores it from them after a crash.
const rowEvery = time.Minute

// flushBatch is how many rows one group writes: when a whole fleet falls silent, other
// operations must not wait for all of them.
const flushBatch = 500

// flushLoop writes the rows of VMs that have been silent for so long that ResetSessions
// would soon no longer find what the rows lack.
func (e *Engine) flushLoop() {
	tick := time.NewTicker(rowEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-e.stopping:
			return
		}
		if err := e.flushRows(context.Background(), e.Clock().Add(-2*rowEvery)); err != nil {
			e.Log.Warn("rows of VMs not written, trying again", logkey.Error, err)
		}
	}
}

// flushRows writes the rows of dirty VMs that were last written before then.
func (e *Engine) flushRows(ctx context.Context, then time.Time) error {
	for some := range slices.Chunk(e.cache.dirtyBefore(then), flushBatch) {
		if err := e.do(ctx, writeRowsOp(some)); err != nil {
			return err
		}
	}
	return nil
}

// endOfTime is later than any row was written.
var endOfTime = time.Unix(1<<40, 0)

// flushAllRows writes the rows of all dirty VMs. The loop calls it before it returns.
func (e *Engine) flushAllRows() {
	dirty := e.cache.dirtyBefore(endOfTime)
	for some := range slices.Chunk(dirty, flushBatch) {
		o := writeRowsOp(some)
		o.done = make(chan struct{})
		e.runGroup([]*op{o})
		if o.err != nil {
			e.Log.Warn("rows of VMs not written, their heartbeats contain what is missing", logkey.Count, len(dirty), logkey.Error, o.err)
			return
		}
	}
}

// writeRowsOp returns an operation that writes the rows of VMs.
func writeRowsOp(vms []fleet.VMID) *op {
	return &op{vms: vms, run: func(g *group) error {
		for _, vm := range vms {
			if en := g.entries[vm]; en.vm.ID != "" {
				en.markDirty(g, en.vm.LastSeenAt)
			}
		}
		return nil
	}}
}
