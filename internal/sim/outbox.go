package sim

import (
	"context"
	"sync"
	"sync/atomic"
)

// outboxLimit bounds the waiting reports. A report beyond it is lost, and counted as an
// error.
const outboxLimit = 16

// outbox posts reports over HTTP in order, one at a time, while the agent continues. A
// report that fails is not retried.
type outbox struct {
	agent *Agent
	ctx   context.Context //nolint:containedctx // of the boot, which owns the outbox

	mu      sync.Mutex
	waiting []report
	posting bool
	posters sync.WaitGroup
}

// report is the body of a request, and the function that counts it once it is answered.
type report struct {
	route string
	body  map[string]any
	sent  *atomic.Int64
}

// add does not block.
func (o *outbox) add(r report) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.waiting) == outboxLimit {
		o.agent.counters.errors.add("http")
		return
	}
	o.waiting = append(o.waiting, r)
	if !o.posting {
		o.posting = true
		o.posters.Go(o.post)
	}
}

// next returns false when no report is waiting; then the caller must return.
func (o *outbox) next() (report, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.waiting) == 0 {
		o.posting = false
		return report{}, false
	}
	first := o.waiting[0]
	o.waiting = o.waiting[1:]
	return first, true
}

func (o *outbox) post() {
	c := o.agent.counters
	for r, ok := o.next(); ok; r, ok = o.next() {
		_, err := o.agent.post(o.ctx, r.route, r.body)
		switch {
		case err == nil:
			r.sent.Add(1)
			c.posts.Add(1)
		case o.ctx.Err() == nil:
			c.errors.add("http")
			o.agent.log.Debug("a report over HTTP failed", keyError, err)
		}
	}
}

// wait returns when no report is being sent. Nothing may be added meanwhile.
func (o *outbox) wait() { o.posters.Wait() }
