package journal

import (
	"maps"
	"time"

	"golang.org/x/time/rate"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/ratelimit"
)

// budget is how many heartbeat files each VM, and all VMs together, may have written.
//
// It is guarded by the Journal's mutex.
type budget struct {
	each *ratelimit.Buckets[fleet.VMID]
	all  *rate.Limiter
}

func newBudget(each ratelimit.Limit, all *rate.Limiter) budget {
	return budget{ratelimit.New[fleet.VMID](each, ratelimit.Limit{}), all}
}

// spend takes a token from the VM's bucket and one from that of all, and reports
// whether there were both; else it takes neither.
func (b *budget) spend(vm fleet.VMID, now time.Time) bool {
	// In a large fleet that of all is what refuses nearly all, so it comes first.
	return b.all.TokensAt(now) >= 1 && b.each.Spend(vm, 0, now).OK() && b.all.AllowN(now, 1)
}

// eventBudget is how many event files each VM may have written, and how large, by when
// its events were received: what is written late, after a crash or a pause, costs as much
// as it would have in time.
//
// It is guarded by the Journal's mutex.
type eventBudget struct {
	each    *ratelimit.Buckets[fleet.VMID]
	last    time.Time // when the latest event was received
	elapsed time.Duration
	// decided is what became of the events of the latest batch, by their Seq: one that is
	// tried again is not charged again.
	decided map[int64]bool
}

func newEventBudget() eventBudget {
	return eventBudget{
		each: ratelimit.New[fleet.VMID](
			ratelimit.NewLimit(eventBurst, eventsPerSecond), ratelimit.NewLimit(eventByteBurst, eventBytesPerSecond)),
		decided: map[int64]bool{},
	}
}

// setBack is how much earlier than one before an event is received when the clock was
// set back, and not only because two were received at the same time.
const setBack = time.Minute

// at returns when an event was received, on a clock that is never set back.
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

// spend reports whether the file of an event may be written, and whether that it may not
// is news of its VM.
func (b *eventBudget) spend(e fleet.Event, size int, at time.Time) (ok, news bool) {
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

// begin forgets what was decided of events before the first of a batch: they are not tried
// again.
func (b *eventBudget) begin(first int64) {
	maps.DeleteFunc(b.decided, func(seq int64, _ bool) bool { return seq < first })
}
