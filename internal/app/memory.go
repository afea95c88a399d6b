package app

import (
	"os"
	"runtime/debug"
	"time"
)

// returnPeriod is how often memory is returned to the operating system.
const returnPeriod = 15 * time.Second

// returnMemory has the collector run once in each returnPeriod, and returns what is free
// then to the operating system, until stop is closed. By itself the runtime keeps what a
// fleet that connected needed, up to twice what an idle one uses, for minutes. It does
// nothing when the environment sets GOGC.
func returnMemory(stop <-chan struct{}) {
	if os.Getenv("GOGC") != "" {
		return
	}
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
