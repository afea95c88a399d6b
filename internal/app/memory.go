package app

import (
	"os"
	"runtime/debug"
	"time"
)

// returnPeriod is how often memory is returned to the operating system.
const returnPeriod = 15 * time.Second

// returnMemory runs the garbage collector once in each returnPeriod and returns free memory to
// the operating system, until stop is closed. Otherwise the runtime keeps the memory that the
// connects of a fleet needed, up to twice that of an idle one, for minutes. It does nothing
// when the environment sets GOGC.
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
