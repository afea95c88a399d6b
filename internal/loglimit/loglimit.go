// Package loglimit owns the limit on log lines that an agent, a caller or a fault can cause
// endlessly.
package loglimit

import (
	"log/slog"
	"sync"
	"time"
)

// The limit for lines of one kind about one subject.
const (
	Lines  = 10
	Period = time.Minute
)

// KeySuppressed is the attribute with the number of suppressed lines.
const KeySuppressed = "suppressed"

const (
	// maxKnown is how many kinds and subjects are tracked separately. Beyond it those that
	// have been quiet for a period are dropped, and if there are none, all further subjects
	// of a kind share its lines.
	maxKnown = 100_000
	// forgetEvery is the minimum time between such attempts.
	forgetEvery = time.Second
)

// Limiter limits log lines and counts suppressed ones; the counts of dropped subjects are
// lost. The zero value is ready to use. It is safe for concurrent use.
type Limiter struct {
	mu        sync.Mutex
	known     map[key]*count
	forgotten time.Time // the last call of forget
}

type key struct{ kind, about string }

// others represents the subjects that are not tracked separately. It is not a valid id.
const others = "*"

type count struct {
	since      time.Time // when the period began
	lines      int       // written in it
	suppressed int       // suppressed since the last
}

// Limited returns log for one line of a kind about a subject, such as a VM; empty for none.
// If there were too many, it returns a log that discards the line. The next line that is
// written has the number of suppressed ones as KeySuppressed.
func (l *Limiter) Limited(log *slog.Logger, kind, about string, now time.Time) *slog.Logger {
	switch suppressed, ok := l.due(key{kind, about}, now); {
	case !ok:
		return slog.New(slog.DiscardHandler)
	case suppressed > 0:
		return log.With(KeySuppressed, suppressed)
	default:
		return log
	}
}

// due reports whether a line may be written now, and how many were suppressed since the
// last.
func (l *Limiter) due(k key, now time.Time) (suppressed int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.count(k, now)
	if c.over(now) {
		c.since, c.lines = now, 0
	}
	if c.lines == Lines {
		c.suppressed++
		return 0, false
	}
	c.lines++
	suppressed, c.suppressed = c.suppressed, 0
	return suppressed, true
}

func (l *Limiter) count(k key, now time.Time) *count {
	if c := l.known[k]; c != nil {
		return c
	}
	if len(l.known) >= maxKnown {
		l.forget(now)
	}
	if len(l.known) >= maxKnown && k.about != others {
		return l.count(key{k.kind, others}, now)
	}
	if l.known == nil {
		l.known = map[key]*count{}
	}
	c := &count{since: now}
	l.known[k] = c // there are as few others as kinds
	return c
}

// forget drops the counts that have been quiet for a period.
func (l *Limiter) forget(now time.Time) {
	if age := now.Sub(l.forgotten); age >= 0 && age < forgetEvery {
		return // the loop below examines all of them
	}
	l.forgotten = now
	for k, c := range l.known {
		if c.over(now) {
			delete(l.known, k)
		}
	}
}

// over reports whether the period has ended, or the clock was set back.
func (c *count) over(now time.Time) bool {
	age := now.Sub(c.since)
	return age < 0 || age >= Period
}
