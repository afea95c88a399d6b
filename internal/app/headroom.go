package app

import (
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// What the garbage collector may let pile up on top of what is in use is as much
// as was allocated in the last headroomPeriod, so that it runs about once in
// that time; but at least a twentieth and leastHeadroom, and at most half of what is
// in use. By Go's own measure, which is all of that, a fleet would cost up to
// twice the memory.
const (
	headroomPeriod = 10 * time.Second
	leastHeadroom  = 32 << 20
)

// keepHeadroom sees to that until stop is closed, for the whole process. It does
// nothing when the environment sets GOGC.
func keepHeadroom(stop <-chan struct{}) {
	if os.Getenv("GOGC") != "" {
		return
	}
	tick := time.NewTicker(headroomPeriod)
	defer tick.Stop()
	_, before := heap()
	for percent := 100; ; {
		inUse, allocated := heap()
		next := headroomPercent(inUse, allocated-before)
		debug.SetGCPercent(next)
		if next < percent/2 {
			debug.FreeOSMemory() // the runtime would take minutes
		}
		percent, before = next, allocated
		select {
		case <-tick.C:
		case <-stop:
			return
		}
	}
}

// headroomPercent is the headroom as the runtime wants it: until the next period
// it goes by that also when the heap grows, so it is never more than twice the
// heap.
func headroomPercent(inUse, allocated uint64) int {
	inUse = max(inUse, 1<<20) // nothing is known before the first collection
	headroom := max(leastHeadroom, inUse/20, min(allocated, inUse/2))
	return int(100 * min(headroom, 2*inUse) / inUse)
}

// heap returns what the runtime reckons the headroom by, that is what the latest
// collection left, the stacks and the global variables; and how much was ever
// allocated. A runtime that does not know one of them says zero.
func heap() (inUse, allocated uint64) {
	samples := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"},
		{Name: "/gc/scan/stack:bytes"},
		{Name: "/gc/scan/globals:bytes"},
		{Name: "/gc/heap/allocs:bytes"},
	}
	metrics.Read(samples)
	values := make([]uint64, len(samples))
	for i, s := range samples {
		if s.Value.Kind() == metrics.KindUint64 {
			values[i] = s.Value.Uint64()
		}
	}
	return values[0] + values[1] + values[2], values[3]
}
