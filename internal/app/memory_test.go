package app

import (
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Memory is returned in each period, by a collection that is forced.
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

// An operator who sets GOGC has the collector as it is set.
func TestMemoryIsLeftToGOGC(t *testing.T) {
	t.Setenv("GOGC", "50")
	returnMemory(nil) // it would not return
}
