// Package ratelimit owns rate limits per key: a token bucket for things and one for their
// bytes.
package ratelimit

import (
	"math"
	"time"

	"golang.org/x/time/rate"
)

// Limit is the capacity of a token bucket and how fast it fills. The zero value means no
// limit.
type Limit struct {
	every time.Duration // the time in which a bucket gains a token; zero without a limit
	burst int
}

// NewLimit returns the limit of a bucket with capacity burst that gets perSecond tokens
// each second. If burst is zero or negative there are no tokens at all.
func NewLimit(burst int, perSecond float64) Limit {
	return Limit{max(1, time.Duration(float64(time.Second)/perSecond)), max(0, burst)}
}

func (l Limit) bucket() *rate.Limiter { return rate.NewLimiter(rate.Every(l.every), l.burst) }

// fill returns how long an empty bucket takes to fill.
func (l Limit) fill() time.Duration { return time.Duration(l.burst) * l.every }

// lacks returns the time until a bucket has n tokens; zero if it has them. It is a whole
// number of nanoseconds, so rounding corrects the errors of floating point.
func (l Limit) lacks(bucket *rate.Limiter, n int, now time.Time) time.Duration {
	return max(0, time.Duration(math.Round((float64(n)-bucket.TokensAt(now))*float64(l.every))))
}

// take takes n tokens, even if the bucket has fewer. One reservation takes at most the burst.
func (l Limit) take(bucket *rate.Limiter, n int, now time.Time) {
	for ; n > 0 && l.burst > 0; n -= l.burst {
		bucket.ReserveN(now, min(n, l.burst))
	}
}

// Buckets contains two buckets per key. Full buckets are dropped: the number of keys is
// bounded by those that spent something within twice the time to fill a bucket. The clock
// must be monotonic, like that of time.Now: a time before the latest one counts as the
// latest. It is not safe for concurrent use.
type Buckets[K comparable] struct {
	count, bytes Limit
	// The buckets used since the last turn, and those used between the last two: turns are
	// at least the fill time apart, so the older ones are full by the next turn, except for
	// overdrafts.
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

// Spend takes the tokens for one thing of size bytes, if there are enough.
func (b *Buckets[K]) Spend(key K, size int, now time.Time) Verdict {
	p := b.of(key, now)
	wait := b.lacks(p, 1, size)
	if wait == 0 {
		b.take(p, size)
	}
	return b.note(key, p, wait)
}

// Overdraw takes the tokens for one thing of size bytes in any case. Its verdict has the time
// until the buckets are no longer negative.
func (b *Buckets[K]) Overdraw(key K, size int, now time.Time) Verdict {
	p := b.of(key, now)
	b.take(p, size)
	return b.note(key, p, b.lacks(p, 0, 0))
}

// Overdrawn returns the time until the buckets of a key are no longer negative; zero if
// they are not.
func (b *Buckets[K]) Overdrawn(key K, now time.Time) time.Duration {
	return b.lacks(b.of(key, now), 0, 0)
}

// Len returns the number of keys.
func (b *Buckets[K]) Len() int { return len(b.young) + len(b.old) }

// of returns the buckets of a key, full ones if it has none, and records the time.
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

// lacks returns the time until there are tokens for this many things and bytes.
func (b *Buckets[K]) lacks(p *pair, things, size int) time.Duration {
	return max(b.count.lacks(p.count, things, b.latest), b.bytes.lacks(p.bytes, size, b.latest))
}

func (b *Buckets[K]) take(p *pair, size int) {
	b.count.take(p.count, 1, b.latest)
	b.bytes.take(p.bytes, size, b.latest)
}

// note stores the buckets of a key unless they are full.
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
