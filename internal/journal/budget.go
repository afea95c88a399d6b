package journal

import (
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// budget is a token bucket for each VM. Of a bucket it keeps only when it will
// be full again, and it forgets full ones: what it holds is bounded by the VMs
// that spent something within the last two times a bucket takes to fill.
//
// It is guarded by the Journal's mutex.
type budget struct {
	every time.Duration // one token comes back
	fill  time.Duration // an empty bucket takes to fill; not above zero: no tokens
	// Buckets spent from since the last turn, and since the one before: a turn
	// comes no sooner than fill after the last, so the older ones are full then.
	young, old map[fleet.VMID]time.Time
	turnedAt   time.Time
}

func newBudget(burst int, perSecond float64) budget {
	every := time.Duration(float64(time.Second) / perSecond)
	return budget{every: every, fill: time.Duration(burst) * every}
}

// spend takes a token from the VM's bucket and reports whether there was one.
func (b *budget) spend(vm fleet.VMID, now time.Time) bool {
	if b.fill <= 0 {
		return false
	}
	b.turn(now)
	fullAt, known := b.young[vm]
	if !known {
		fullAt = b.old[vm]
	}
	switch ahead := fullAt.Sub(now); {
	case ahead < 0:
		fullAt = now
	case ahead > b.fill: // the clock was set back: the bucket is empty, no more
		fullAt = now.Add(b.fill)
		b.young[vm] = fullAt
	}
	fullAt = fullAt.Add(b.every)
	if fullAt.Sub(now) > b.fill {
		return false
	}
	b.young[vm] = fullAt
	return true
}

func (b *budget) turn(now time.Time) {
	switch since := now.Sub(b.turnedAt); {
	case b.young == nil || since >= b.fill:
		b.old, b.young = b.young, make(map[fleet.VMID]time.Time)
		b.turnedAt = now
	case since < 0:
		b.turnedAt = now
	}
}
