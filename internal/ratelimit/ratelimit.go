// Package ratelimit owns how much each of many may do in how long: a token bucket of
// things and one of their bytes for each key.
package ratelimit

import (
	"math"
	"time"

	"golang.org/x/time/rate"
)

// Limit is how much a token bucket holds and how soon it fills. The zero value is no
// limit.
type Limit struct {
	every time.Duration // one token comes back; zero without a limit
	burst int
}

// NewLimit returns the limit of a bucket that holds burst tokens and gets so many each
// second. A burst of zero or below is no tokens at all.
func NewLimit(burst int, perSecond float64) Limit {
	return Limit{max(1, time.Duration(float64(time.Second)/perSecond)), max(0, burst)}
}

func (l Limit) bucket() *rate.Limiter { return rate.NewLimiter(rate.Every(l.every), l.burst) }

// fill returns how long an empty bucket takes to fill.
func (l Limit) fill() time.Duration { return time.Duration(l.burst) * l.every }

// lacks returns how long it takes until a bucket has n tokens; zero when it has them. That
// is a whole number of nanoseconds, so rounding mends what floats lose.
func (l Limit) lacks(bucket *rate.Limiter, n int, now time.Time) time.Duration {
	return max(0, time.Duration(math.Round((float64(n)-bucket.TokensAt(now))*float64(l.every))))
}

// take takes n tokens, also below empty. A bucket gives at most its burst at once.
func (l Limit) take(bucket *rate.Limiter, n int, now time.Time) {
	for ; n > 0 && l.burst > 0; n -= l.burst {
		bucket.ReserveN(now, min(n, l.burst))
	}
}

// Buckets are two buckets for each key. Those that are full are forgotten: what is held
// is bounded by the keys that spent something within the last two times a bucket takes
// to fill. The clock must be steady, as that of time.Now is: a time before the latest
// counts as that. They are not safe for concurrent use.
type Buckets[K comparable] struct {
	count, bytes Limit
	// Buckets spent from since the last turn, and since the one before: a turn
	// comes no sooner than a bucket's fill after the last, so the older ones are
	// full then, but for what they were below empty.
	young, old       map[K]*pair
	turnedAt, latest time.Time
}

// pair is the buckets of a key, and when it was last refused.
type pair struct {
	count, bytes *rate.Limiter
	refusedAt    time.Time
}

// New returns buckets for things and for bytes.
func New[K comparable](count, bytes Limit) *Buckets[K] {
	return &Buckets[K]{count: count, bytes: bytes}
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

// Spend takes the tokens of one thing of so many bytes, if there are enough.
func (b *Buckets[K]) Spend(key K, size int, now time.Time) Verdict {
	p := b.of(key, now)
	wait := b.lacks(p, 1, size)
	if wait == 0 {
		b.take(p, size)
	}
	return b.note(key, p, wait)
}

// Overdraw takes the tokens of one thing of so many bytes in any case. Its verdict says how
// long it takes until the buckets are no longer below empty.
func (b *Buckets[K]) Overdraw(key K, size int, now time.Time) Verdict {
	p := b.of(key, now)
	b.take(p, size)
	return b.note(key, p, b.lacks(p, 0, 0))
}

// Overdrawn returns how long it takes until the buckets of a key are no longer below
// empty; zero when they are not.
func (b *Buckets[K]) Overdrawn(key K, now time.Time) time.Duration {
	return b.lacks(b.of(key, now), 0, 0)
}

// Len returns how many keys are held.
func (b *Buckets[K]) Len() int { return len(b.young) + len(b.old) }

// of returns the buckets of a key, full ones if none are held, and notes the time.
func (b *Buckets[K]) of(key K, now time.Time) *pair {
	if now.After(b.latest) {
		b.latest = now
	}
	if p := b.young[key]; p != nil {
		return p
	}
	if p := b.old[key]; p != nil {
		return p
	}
	return &pair{count: b.count.bucket(), bytes: b.bytes.bucket()}
}

// lacks returns how long it takes until there are tokens for so many things and bytes.
func (b *Buckets[K]) lacks(p *pair, things, size int) time.Duration {
	return max(b.count.lacks(p.count, things, b.latest), b.bytes.lacks(p.bytes, size, b.latest))
}

func (b *Buckets[K]) take(p *pair, size int) {
	b.count.take(p.count, 1, b.latest)
	b.bytes.take(p.bytes, size, b.latest)
}

// note keeps the buckets of a key unless they are full.
func (b *Buckets[K]) note(key K, p *pair, wait time.Duration) Verdict {
	v := Verdict{Wait: wait}
	if wait > 0 {
		v.New = b.latest.Sub(p.refusedAt) > boutGap
		p.refusedAt = b.latest
	}
	if b.young == nil || b.latest.Sub(b.turnedAt) >= max(b.count.fill(), b.bytes.fill()) {
		b.old, b.young, b.turnedAt = b.young, map[K]*pair{}, b.latest
	}
	if b.lacks(p, b.count.burst, b.bytes.burst) > 0 {
		b.young[key] = p
	}
	return v
}
