package load

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// While the server does not answer, calls are made when they are due, and their times are
// measured from then. The calls that were made are waited for.
func TestOpenLoop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const every, first, stall = 50 * time.Millisecond, 20 * time.Millisecond, time.Second
		began := time.Now()
		var ms []float64
		l := openLoop{into: &ms, call: func(context.Context) error {
			time.Sleep(stall - time.Since(began)) // fake clock
			return nil
		}}
		ctx, cancel := context.WithTimeout(t.Context(), 10*every)
		defer cancel()
		l.run(ctx, every, first)
		require.NoError(t, l.err)
		require.Equal(t, stall, time.Since(began))
		require.Len(t, ms, 10)
		for i := range ms {
			require.Contains(t, ms, float64((stall-first-time.Duration(i)*every)/time.Millisecond))
		}
	})
}

// A failed call is an error of the measurement.
func TestFailedCalls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var ms []float64
		l := openLoop{into: &ms, call: func(context.Context) error { return errNoStream }}
		l.run(ctx, 100*time.Millisecond, 0)
		require.ErrorIs(t, l.err, errNoStream)
		require.Empty(t, ms)
	})
}

// VMs count the commands register_runner that they receive.
func TestRegistrations(t *testing.T) {
	t.Parallel()
	addr, _ := startPeer(t)
	f, err := NewFieldFleet(addr, nil, "vm", 3)
	require.NoError(t, err)
	t.Cleanup(f.Close)
	require.NoError(t, f.Connect(t.Context()))
	require.EqualValues(t, 3, f.Registrations())
}
