package engine

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
	"github.com/mig-controller/mig-controller/internal/wallclock"
)

// Times are shifted once, even if the commit that shifted them is in doubt, and while the
// database cannot be read.
func TestTimesAreShiftedOnce(t *testing.T) {
	t.Parallel()
	for name, made := range map[string]bool{"the commit was made": true, "it was not made": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := inMemory(t)
			r.connect("vm", t0)
			before := r.accept("old", "vm")
			connectedAt := r.vm("vm").ConnectedAt
			by := -time.Hour
			_, err := r.AdoptClock(t.Context(), func() wallclock.Jump { return wallclock.Jump{At: t0, By: by} })
			require.NoError(t, err)
			fail := func(w store.Writes, next commitFunc) (store.Committed, error) {
				if made {
					_, err := next(w)
					require.NoError(t, err)
				}
				return store.Committed{}, errDisk
			}
			r.db.onCommit(fail)
			require.ErrorIs(t, r.MoveDeadlines(t.Context()), errDisk)
			require.ErrorIs(t, r.MoveDeadlines(t.Context()), errDisk)
			_, err = r.Accept(t.Context(), drain(t, "young", "vm"))
			require.ErrorIs(t, err, errDisk)
			r.db.onCommit(nil)
			young := r.accept("young", "vm") // or it was accepted before
			require.NoError(t, r.MoveDeadlines(t.Context()))
			require.Equal(t, connectedAt.Add(by), r.vm("vm").ConnectedAt)
			for id, want := range map[fleet.CommandID]time.Time{"old": before.ExpiresAt.Add(by), "young": young.ExpiresAt} {
				c, err := r.Command(t.Context(), id)
				require.NoError(t, err)
				require.Equal(t, want, c.ExpiresAt, id)
			}
		})
	}
}

// MoveDeadlines does nothing without a jump, and is unavailable after Close.
func TestNoJump(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	r.connect("vm", t0)
	adopt := func() wallclock.Jump { return wallclock.Jump{At: t0} }
	before := r.LastChange()
	_, err := r.AdoptClock(t.Context(), adopt)
	require.NoError(t, err)
	require.NoError(t, r.MoveDeadlines(t.Context()))
	require.Equal(t, before, r.LastChange())
	require.NoError(t, r.Close())
	_, err = r.AdoptClock(t.Context(), adopt)
	require.ErrorIs(t, err, fleet.ErrUnavailable)
	require.ErrorIs(t, r.MoveDeadlines(t.Context()), fleet.ErrUnavailable)
}
