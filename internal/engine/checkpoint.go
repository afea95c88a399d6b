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

// checkpointBatch is how many VMs one group of a checkpoint writes: when a whole fleet
// falls silent, other operations must not wait for all of them.
const checkpointBatch = 500

// checkpointLoop writes the rows of VMs that have been silent for so long that
// ResetSessions would soon no longer find what the rows lack.
func (e *Engine) checkpointLoop() {
	tick := time.NewTicker(rowEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-e.stopping:
			return
		}
		if err := e.checkpoint(context.Background(), e.Clock().Add(-2*rowEvery)); err != nil {
			e.Log.Warn("rows of VMs not written, trying again", logkey.Error, err)
		}
	}
}

// checkpoint writes the rows that are behind and were last written before then.
func (e *Engine) checkpoint(ctx context.Context, then time.Time) error {
	for some := range slices.Chunk(e.cache.ahead(then), checkpointBatch) {
		if err := e.do(ctx, rowsOf(some)); err != nil {
			return err
		}
	}
	return nil
}

// endOfTime is later than any row was written.
var endOfTime = time.Unix(1<<40, 0)

// writeAllRows writes all rows that are behind. The loop calls it before it returns.
func (e *Engine) writeAllRows() {
	ahead := e.cache.ahead(endOfTime)
	for some := range slices.Chunk(ahead, checkpointBatch) {
		o := rowsOf(some)
		o.done = make(chan struct{})
		e.runGroup([]*op{o})
		if o.err != nil {
			e.Log.Warn("rows of VMs not written, their heartbeats contain what is missing", logkey.Count, len(ahead), logkey.Error, o.err)
			return
		}
	}
}

// rowsOf returns an operation that writes the rows of VMs.
func rowsOf(vms []fleet.VMID) *op {
	return &op{vms: vms, run: func(g *group) error {
		for _, vm := range vms {
			if en := g.entries[vm]; en.vm.ID != "" {
				en.touch(g, en.vm.LastSeenAt)
			}
		}
		return nil
	}}
}
