// Package ratelimit owns rate limits per key: a token bucket for things and one for their
// bytes.
package ratelimit

import "time"

// Limit is the capacity of a token bucket and how fast it fills. The zero value means no
// limit.
type Limit struct {
	every time.Duration // time per token; zero without a limit
	fill  time.Duration // time to fill an empty bucket; zero or negative: no tokens
}

// NewLimit returns the limit of a bucket with capacity burst that gets perSecond tokens
// each second. If burst is zero or negative there are no tokens at all.
func NewLimit(burst int, perSecond float64) Limit {
	every := max(1, time.Duration(float64(time.Second)/perSecond))
	return Limit{every: every, fill: time.Duration(burst) * every}
}

// lacks returns the time until a bucket that will be full at fullAt has n tokens; zero if
// it has them.
func (l Limit) lacks(fullAt, now time.Duration, n int) time.Duration {
	if l.every == 0 {
		return 0
	}
	return max(0, max(0, fullAt-now)+time.Duration(n)*l.every-l.fill)
}

// spent returns when a bucket that will be full at fullAt is full after n more tokens are
// taken.
func (l Limit) spent(fullAt, now time.Duration, n int) time.Duration {
	if l.every == 0 {
		return fullAt
	}
	return max(fullAt, now) + time.Duration(n)*l.every
}

// sane returns when a bucket will be full, given the earlier result; if the clock was set
// back since, the bucket counts as empty.
func (l Limit) sane(fullAt, now time.Duration) time.Duration {
	return min(fullAt, now+max(0, l.fill))
}

// Buckets contains two buckets per key. Full buckets are dropped: the number of keys is
// bounded by those that spent something within twice the time to fill a bucket. It is not
// safe for concurrent use.
type Buckets[K comparable] struct {
	count, bytes Limit
	overdraft    bool      // and the clock is monotonic
	base         time.Time // the origin of durations
	// The buckets used since the last turn, and those used between the last two: turns are
	// at least the fill time apart, so the older ones are full by the next turn, except for
	// overdrafts.
	young, old map[K]level
	turnedAt   time.Duration
}

// level is when the buckets of a key will be full, and when the key was last refused.
type level struct {
	countFullAt, bytesFullAt, refusedAt time.Duration
	refused                             bool
}

// New returns buckets for things and for bytes that cannot be overdrawn. The clock may be
// set back.
func New[K comparable](count, bytes Limit) *Buckets[K] {
	return &Buckets[K]{count: count, bytes: bytes}
}

// NewOverdraft returns buckets that can be overdrawn. The clock must be monotonic, like
// that of time.Now.
func NewOverdraft[K comparable](count, bytes Limit) *Buckets[K] {
	return &Buckets[K]{count: count, bytes: bytes, overdraft: true}
}

// Verdict is the result of an attempt to spend.
type Verdict struct {
	// Wait is the time until there are enough tokens; zero if there are.
	Wait time.Duration
	// New is whether the key exceeds a limit for the first time after a minute within its
	// limits.
	New bool
}

// OK reports whether there were enough tokens.
func (v Verdict) OK() bool { return v.Wait == 0 }

// boutGap is how long a key must have stayed within its limits for the next excess to count
// as new.
const boutGap = time.Minute

// Has returns what Spend would return, and takes nothing.
func (b *Buckets[K]) Has(key K, size int, now time.Time) Verdict {
	v, _, _ := b.judge(key, 1, size, now)
	return v
}

// Spend takes the tokens for one thing of size bytes, if there are enough.
func (b *Buckets[K]) Spend(key K, size int, now time.Time) Verdict {
	v, l, at := b.judge(key, 1, size, now)
	return b.note(key, v, l, at, size, v.OK())
}

// Overdraw takes the tokens for one thing of size bytes in any case; it requires buckets of
// NewOverdraft. Its verdict has the time until the buckets are no longer negative.
func (b *Buckets[K]) Overdraw(key K, size int, now time.Time) Verdict {
	_, l, at := b.judge(key, 0, 0, now)
	l = b.spend(l, at, size)
	return b.note(key, b.verdict(l, at, 0, 0), l, at, size, false)
}

// Overdrawn returns the time until the buckets of a key are no longer negative; zero if
// they are not.
func (b *Buckets[K]) Overdrawn(key K, now time.Time) time.Duration {
	v, _, _ := b.judge(key, 0, 0, now)
	return v.Wait
}

// Len returns the number of keys.
func (b *Buckets[K]) Len() int { return len(b.young) + len(b.old) }

// judge returns whether there are tokens for this many things and bytes, and the level of
// the key.
func (b *Buckets[K]) judge(key K, things, size int, now time.Time) (Verdict, level, time.Duration) {
	if b.base.IsZero() {
		b.base = now
	}
	at := now.Sub(b.base)
	l, known := b.young[key]
	if !known {
		l, known = b.old[key]
	}
	if !known {
		l = level{countFullAt: at, bytesFullAt: at}
	}
	if !b.overdraft {
		l.countFullAt, l.bytesFullAt = b.count.sane(l.countFullAt, at), b.bytes.sane(l.bytesFullAt, at)
	}
	return b.verdict(l, at, things, size), l, at
}

func (b *Buckets[K]) verdict(l level, at time.Duration, things, size int) Verdict {
	return Verdict{Wait: max(b.count.lacks(l.countFullAt, at, things), b.bytes.lacks(l.bytesFullAt, at, size))}
}

func (b *Buckets[K]) spend(l level, at time.Duration, size int) level {
	l.countFullAt, l.bytesFullAt = b.count.spent(l.countFullAt, at, 1), b.bytes.spent(l.bytesFullAt, at, size)
	return l
}

// note stores the level of a key, after taking the tokens if take is set.
func (b *Buckets[K]) note(key K, v Verdict, l level, at time.Duration, size int, take bool) Verdict {
	if take {
		l = b.spend(l, at, size)
	}
	if !v.OK() {
		v.New = !l.refused || (at-l.refusedAt).Abs() > boutGap
		l.refused, l.refusedAt = true, at
	}
	b.turn(at)
	if l.countFullAt > at || l.bytesFullAt > at {
		b.young[key] = l
	}
	return v
}

// turn drops the buckets that are full.
func (b *Buckets[K]) turn(at time.Duration) {
	switch since := at - b.turnedAt; {
	case b.young == nil || since >= max(b.count.fill, b.bytes.fill):
		b.old, b.young = b.young, make(map[K]level)
		b.turnedAt = at
	case since < 0:
		b.turnedAt = at
	}
}
