package journal

import (
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// limit is how much a token bucket holds and how soon it fills. Of a bucket it is
// kept only when it will be full again; at the zero time it long has been.
type limit struct {
	every time.Duration // one token comes back
	fill  time.Duration // an empty bucket takes to fill; not above zero: no tokens
}

func newLimit(burst int, perSecond float64) limit {
	every := time.Duration(float64(time.Second) / perSecond)
	return limit{every: every, fill: time.Duration(burst) * every}
}

// spend takes a token from a bucket that will be full at fullAt. It returns when
// the bucket will be full after that, and whether there was a token.
func (l limit) spend(fullAt, now time.Time) (time.Time, bool) {
	switch ahead := fullAt.Sub(now); {
	case ahead > l.fill: // the clock was set back: the bucket is empty, no more
		return now.Add(l.fill), false
	case ahead > l.fill-l.every:
		return fullAt, false
	case ahead < 0:
		fullAt = now
	}
	return fullAt.Add(l.every), true
}

// budget is a token bucket for each VM and one for all of them. It forgets the
// VMs' buckets that are full: what it holds is bounded by the VMs that spent
// something within the last two times a bucket takes to fill.
//
// It is guarded by the Journal's mutex.
type budget struct {
	each, all limit
	allFullAt time.Time
	// Buckets spent from since the last turn, and since the one before: a turn
	// comes no sooner than a bucket's fill after the last, so the older ones are
	// full then.
	young, old map[fleet.VMID]time.Time
	turnedAt   time.Time
}

func newBudget(each, all limit) budget { return budget{each: each, all: all} }

// spend takes a token from the VM's bucket and one from that of all, and reports
// whether there were both; else it takes neither.
func (b *budget) spend(vm fleet.VMID, now time.Time) bool {
	// In a large fleet this is what refuses nearly all, so it comes first.
	allFullAt, ok := b.all.spend(b.allFullAt, now)
	if !ok {
		b.allFullAt = allFullAt
		return false
	}
	if !b.spendOwn(vm, now) {
		return false
	}
	b.allFullAt = allFullAt
	return true
}

func (b *budget) spendOwn(vm fleet.VMID, now time.Time) bool {
	if b.each.fill <= 0 {
		return false
	}
	b.turn(now)
	before, known := b.young[vm]
	if !known {
		before = b.old[vm]
	}
	fullAt, ok := b.each.spend(before, now)
	if !fullAt.Equal(before) {
		b.young[vm] = fullAt
	}
	return ok
}

func (b *budget) turn(now time.Time) {
	switch since := now.Sub(b.turnedAt); {
	case b.young == nil || since >= b.each.fill:
		b.old, b.young = b.young, make(map[fleet.VMID]time.Time)
		b.turnedAt = now
	case since < 0:
		b.turnedAt = now
	}
}
