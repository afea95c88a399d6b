package app

import (
	"os"
	"runtime/debug"
	"time"
)

// gcPercent is the default of GOGC. Between two returnPeriods garbage may amount to that
// percentage of the memory in use: with Go's 100, small heaps are collected all the time.
const gcPercent = 300

// returnPeriod is how often memory is returned to the operating system.
const returnPeriod = 15 * time.Second

// returnMemory runs the garbage collector once in each returnPeriod and returns free memory to
// the operating system, until stop is closed. Otherwise the runtime keeps the memory that the
// connects of a fleet needed for minutes. It does nothing when the environment sets GOGC.
func returnMemory(stop <-chan struct{}) {
	if os.Getenv("GOGC") != "" {
		return
	}
	debug.SetGCPercent(gcPercent)
	tick := time.NewTicker(returnPeriod)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			debug.FreeOSMemory()
		case <-stop:
			return
		}
	}
}
