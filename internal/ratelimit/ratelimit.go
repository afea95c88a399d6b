// Package ratelimit owns how much each of many may do in how long: a token bucket of
// things and one of their bytes for each key.
package ratelimit

import "time"

// Limit is how much a token bucket holds and how soon it fills. The zero value is no
// limit.
type Limit struct {
	every time.Duration // one token comes back; zero without a limit
	fill  time.Duration // an empty bucket takes to fill; not above zero: no tokens
}

// NewLimit returns the limit of a bucket that holds burst tokens and gets so many each
// second. A burst of zero or below is no tokens at all.
func NewLimit(burst int, perSecond float64) Limit {
	every := max(1, time.Duration(float64(time.Second)/perSecond))
	return Limit{every: every, fill: time.Duration(burst) * every}
}

// lacks returns how long it takes until a bucket that will be full at fullAt has n tokens;
// zero when it has them.
func (l Limit) lacks(fullAt, now time.Duration, n int) time.Duration {
	if l.every == 0 {
		return 0
	}
	return max(0, max(0, fullAt-now)+time.Duration(n)*l.every-l.fill)
}

// spent returns when a bucket that will be full at fullAt is full after n tokens more
// have been taken.
func (l Limit) spent(fullAt, now time.Duration, n int) time.Duration {
	if l.every == 0 {
		return fullAt
	}
	return max(fullAt, now) + time.Duration(n)*l.every
}

// sane returns when a bucket will be full, given when it was to be: if the clock was set
// back since, as of an empty one.
func (l Limit) sane(fullAt, now time.Duration) time.Duration {
	return min(fullAt, now+max(0, l.fill))
}

// Buckets are two buckets for each key. Those that are full are forgotten: what is held
// is bounded by the keys that spent something within the last two times a bucket takes
// to fill. They are not safe for concurrent use.
type Buckets[K comparable] struct {
	count, bytes Limit
	overdraft    bool      // and so the clock is steady
	base         time.Time // what times are counted from
	// Buckets spent from since the last turn, and since the one before: a turn
	// comes no sooner than a bucket's fill after the last, so the older ones are
	// full then, but for what they were below empty.
	young, old map[K]level
	turnedAt   time.Duration
}

// level is when the buckets of a key will be full, and when it was last refused.
type level struct {
	countFullAt, bytesFullAt, refusedAt time.Duration
	refused                             bool
}

// New returns buckets for things and for bytes that cannot be overdrawn. The clock may be
// set back.
func New[K comparable](count, bytes Limit) *Buckets[K] {
	return &Buckets[K]{count: count, bytes: bytes}
}

// NewOverdraft returns buckets that can be overdrawn. The clock must be steady, as that of
// time.Now is.
func NewOverdraft[K comparable](count, bytes Limit) *Buckets[K] {
	return &Buckets[K]{count: count, bytes: bytes, overdraft: true}
}

// Verdict is what became of an attempt to spend.
type Verdict struct {
	// Wait is how long it takes until there is enough; zero when there is.
	Wait time.Duration
	// New is whether the key exceeds a limit for the first time in a minute.
	New bool
}

// OK reports whether there was enough.
func (v Verdict) OK() bool { return v.Wait == 0 }

// boutGap is how long a key must have kept its limits to count as exceeding them anew.
const boutGap = time.Minute

// Has returns what Spend would, and takes nothing.
func (b *Buckets[K]) Has(key K, size int, now time.Time) Verdict {
	v, _, _ := b.judge(key, 1, size, now)
	return v
}

// Spend takes the tokens of one thing of so many bytes, if there are enough.
func (b *Buckets[K]) Spend(key K, size int, now time.Time) Verdict {
	v, l, at := b.judge(key, 1, size, now)
	return b.note(key, v, l, at, size, v.OK())
}

// Overdraw takes the tokens of one thing of so many bytes in any case; it is for buckets
// of NewOverdraft. Its verdict says how long it takes until they are no longer below empty.
func (b *Buckets[K]) Overdraw(key K, size int, now time.Time) Verdict {
	_, l, at := b.judge(key, 0, 0, now)
	l = b.spend(l, at, size)
	return b.note(key, b.verdict(l, at, 0, 0), l, at, size, false)
}

// Overdrawn returns how long it takes until the buckets of a key are no longer below
// empty; zero when they are not.
func (b *Buckets[K]) Overdrawn(key K, now time.Time) time.Duration {
	v, _, _ := b.judge(key, 0, 0, now)
	return v.Wait
}

// Len returns how many keys are held.
func (b *Buckets[K]) Len() int { return len(b.young) + len(b.old) }

// judge returns whether there are tokens for so many things and bytes, and the level of
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

// note keeps the level of a key, after the tokens were taken if that is to be done.
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

// turn forgets the buckets that are full by now.
func (b *Buckets[K]) turn(at time.Duration) {
	switch since := at - b.turnedAt; {
	case b.young == nil || since >= max(b.count.fill, b.bytes.fill):
		b.old, b.young = b.young, make(map[K]level)
		b.turnedAt = at
	case since < 0:
		b.turnedAt = at
	}
}
