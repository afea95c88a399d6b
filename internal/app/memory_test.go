package app

import (
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Memory is returned once per period, by a forced collection.
func TestMemoryIsReturned(t *testing.T) {
	t.Setenv("GOGC", "")
	forced := func() uint32 {
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.NumForcedGC
	}
	synctest.Test(t, func(t *testing.T) {
		stop, ended := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(ended)
			returnMemory(stop)
		}()
		before := forced()
		time.Sleep(2*returnPeriod + time.Second) // fake clock
		synctest.Wait()
		require.Equal(t, uint32(2), forced()-before)
		close(stop)
		<-ended
	})
}

// With GOGC set there is no forced collection.
func TestGOGCDisablesTheForcedCollection(t *testing.T) {
	t.Setenv("GOGC", "50")
	returnMemory(nil) // otherwise it would not return
}
