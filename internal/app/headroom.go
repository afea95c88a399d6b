package app

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// What the garbage collector may let pile up, on top of what is in use, before
// it collects: a share of it, and at least so much that a small heap is not
// collected all the time. Go's own measure, once as much again, would be half of
// what an idle fleet costs.
const (
	headroomShare = 12 // percent
	leastHeadroom = 32 << 20
)

// keepHeadroom sets that measure for the process after each collection, unless
// the environment sets GOGC.
func keepHeadroom() {
	if os.Getenv("GOGC") == "" {
		setHeadroom(new(collection))
	}
}

// collection is reachable until the next collection. It is not so small that
// others share its memory.
type collection [16]*byte

func setHeadroom(c *collection) {
	debug.SetGCPercent(headroomPercent(inUse()))
	runtime.AddCleanup(c, func(struct{}) { setHeadroom(new(collection)) }, struct{}{})
}

// headroomPercent is the headroom as the runtime wants it.
func headroomPercent(inUse uint64) int {
	return max(headroomShare, int(100*leastHeadroom/max(inUse, 1<<20)))
}

// inUse is what the runtime reckons the headroom by: what the latest collection
// left, the stacks and the global variables.
func inUse() uint64 {
	samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"}}
	metrics.Read(samples)
	var sum uint64
	for _, s := range samples {
		if s.Value.Kind() == metrics.KindUint64 { // else this runtime does not know it
			sum += s.Value.Uint64()
		}
	}
	return sum
}
