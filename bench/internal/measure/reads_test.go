package measure

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/bench/internal/result"
)

// If the server hangs until the end, every call that was due by then is made anyway, with
// its time measured from when it was due.
func TestCallsThatWaitCount(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const warm, d, still = 10 * readEvery, 10 * readEvery, 5 * readEvery
		began := time.Now()
		c := newCalls()
		c.make(t.Context(), warm, d, func() error {
			if time.Since(began) == warm+d-2*readEvery { // two calls before the end
				time.Sleep(still) // fake clock
			}
			return nil
		})
		require.NoError(t, c.err)
		require.Len(t, c.ms, int(d/readEvery), "all calls after the warm-up count")
		require.InDelta(t, micros(still)/1e3, result.Percentile(c.ms, 100), 1e-9)
		require.InDelta(t, micros(still-readEvery)/1e3, c.ms[len(c.ms)-1], 1e-9, "the last one waited, too")
	})
}
