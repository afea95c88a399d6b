package app

import (
	"os"
	"runtime"
	"time"
)

// With more processors than it needs, the Go runtime wakes one up for each
// goroutine that becomes ready, to look for work that the processor that woke it
// does in the meantime. Where messages come one by one that is a sixth of what
// they cost. So one processor is used as long as a small part of it is enough.
const (
	processorsPeriod = 250 * time.Millisecond
	// busy is how much of a processor may be used before there are all again, and
	// calm how little for calmPeriods before there is one.
	busy        = 0.25
	calm        = 0.20
	calmPeriods = 8
)

// keepProcessors sees to that until stop is closed, for the whole process. It does
// nothing when the environment sets GOMAXPROCS, or where the time used is not
// known.
func keepProcessors(stop <-chan struct{}) {
	before, ok := processorTime()
	if !ok || os.Getenv("GOMAXPROCS") != "" {
		return
	}
	defer runtime.SetDefaultGOMAXPROCS()
	tick := time.NewTicker(processorsPeriod)
	defer tick.Stop()
	p, since := processors{all: true}, time.Now()
	for {
		select {
		case <-tick.C:
		case <-stop:
			return
		}
		used, _ := processorTime()
		now := time.Now()
		if p.changed(float64(used-before) / float64(now.Sub(since))) {
			if p.all {
				runtime.SetDefaultGOMAXPROCS()
			} else {
				runtime.GOMAXPROCS(1)
			}
		}
		before, since = used, now
	}
}

// processors is whether all are in use, or one.
type processors struct {
	all  bool
	calm int // for how many periods
}

// changed takes in how much of a processor was used in a period, and reports
// whether all has changed.
func (p *processors) changed(used float64) bool {
	if used < calm {
		p.calm++
	} else {
		p.calm = 0
	}
	switch {
	case p.all && p.calm >= calmPeriods:
		p.all = false
	case !p.all && used > busy:
		p.all = true
	default:
		return false
	}
	return true
}
