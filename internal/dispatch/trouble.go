package dispatch

import (
	"sync"
	"time"
)

// How many log lines trouble of one kind may write in how long.
const (
	troubleLines  = 10
	troublePeriod = time.Minute
)

// trouble rations the log lines of one kind, of which every session or every
// message may have one to write. What is left out is counted.
type trouble struct {
	mu     sync.Mutex
	since  time.Time // when the period began
	lines  int       // written in it
	untold int       // left out since the last
}

// troubles are the kinds that all sessions share.
type troubles struct{ held, putOff, unended, journal trouble }

// due reports whether a line may be written now, and how many were left out
// since the last.
func (t *trouble) due(now time.Time) (untold int, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if age := now.Sub(t.since); age < 0 || age >= troublePeriod {
		t.since, t.lines = now, 0
	}
	if t.lines == troubleLines {
		t.untold++
		return 0, false
	}
	t.lines++
	untold, t.untold = t.untold, 0
	return untold, true
}
