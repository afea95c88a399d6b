package journal

import (
	"maps"
	"time"

	"golang.org/x/time/rate"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/ratelimit"
)

// budget limits the heartbeat files of each VM, and of all VMs together.
//
// The Journal's mutex guards it.
type budget struct {
	each *ratelimit.Buckets[fleet.VMID]
	all  *rate.Limiter
}

func newBudget(each ratelimit.Limit, all *rate.Limiter) budget {
	return budget{ratelimit.New[fleet.VMID](each, ratelimit.Limit{}), all}
}

// spend takes a token from the VM's bucket and one from the shared bucket, and reports
// whether both had one; otherwise it takes neither.
func (b *budget) spend(vm fleet.VMID, now time.Time) bool {
	// In a large fleet the shared bucket refuses most files, so it is checked first.
	return b.all.TokensAt(now) >= 1 && b.each.Spend(vm, 0, now).OK() && b.all.AllowN(now, 1)
}

// eventBudget limits the number and size of the event files of each VM, by when the events
// were received: a file that is written late, after a crash or a pause, costs as much as
// one written in time.
//
// The Journal's mutex guards it.
type eventBudget struct {
	each    *ratelimit.Buckets[fleet.VMID]
	last    time.Time // when the latest event was received
	elapsed time.Duration
	// decided has the decisions on the events of the latest batch, by Seq: a retried event
	// is not charged again.
	decided map[int64]bool
}

func newEventBudget() eventBudget {
	return eventBudget{
		each: ratelimit.New[fleet.VMID](
			ratelimit.NewLimit(eventBurst, eventsPerSecond), ratelimit.NewLimit(eventByteBurst, eventBytesPerSecond)),
		decided: map[int64]bool{},
	}
}

// setBack is how much earlier than its predecessor an event must be received for the clock
// to have been set back; smaller differences occur between concurrent events.
const setBack = time.Minute

// at returns when an event was received, by a clock that is never set back.
func (b *eventBudget) at(received time.Time) time.Time {
	switch step := received.Sub(b.last); {
	case b.last.IsZero() || step < -setBack:
		b.last = received
	case step > 0:
		b.last = received
		b.elapsed += step
	}
	return time.Unix(0, 0).Add(b.elapsed)
}

// spend reports whether the file of an event may be written, and whether the VM has just
// exceeded its budget.
func (b *eventBudget) spend(e fleet.Event, size int, at time.Time) (ok, newlyOver bool) {
	if ok, decided := b.decided[e.Seq]; decided {
		return ok, false
	}
	v := b.each.Spend(e.VM, size, at)
	ok = v.OK()
	if e.Seq != 0 {
		b.decided[e.Seq] = ok
	}
	return ok, v.New
}

// begin drops the decisions on events before the first of a batch: they are not retried.
func (b *eventBudget) begin(first int64) {
	maps.DeleteFunc(b.decided, func(seq int64, _ bool) bool { return seq < first })
}
