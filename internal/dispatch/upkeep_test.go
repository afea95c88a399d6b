package dispatch

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/engine"
	"github.com/mig-controller/mig-controller/internal/fleet"
)

// Every command ends when its time is up, with a VM there or without.
func TestSweep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		enqueue := func(vm fleet.VMID, id string, ttl, timeout time.Duration) {
			c, err := fleet.CommandRequest{ID: id, VM: string(vm), Type: "drain", TTL: ttl, AckTimeout: timeout}.Accept(defaults, clock())
			require.NoError(t, err)
			_, err = s.store.Accept(t.Context(), c)
			require.NoError(t, err)
		}
		enqueue("vm-offline", "never", 3*time.Second, 0)
		a := s.registered("vm-1")
		enqueue("vm-1", "unanswered", time.Minute, 2*time.Second)
		a.next()
		a.stir()
		time.Sleep(2*time.Second - time.Millisecond - 1) // fake clock
		synctest.Wait()
		require.Equal(t, fleet.Delivered, s.command("unanswered").State)
		time.Sleep(sweepEvery + 1) // fake clock
		synctest.Wait()
		require.Equal(t, fleet.TimedOut, s.command("unanswered").State)
		require.Equal(t, fleet.Pending, s.command("never").State)
		time.Sleep(time.Second) // fake clock
		synctest.Wait()
		require.Equal(t, fleet.Expired, s.command("never").State)
	})
}

// What is older than its retention goes, from the store and from the journal;
// what is younger stays.
func TestPurge(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, func(_ *system, o *Options) {
			o.Retention = engine.Retention{Events: time.Hour, Heartbeats: time.Hour}
		})
		a := s.registered("vm-1")
		s.report("vm-2", "old")
		a.event("old")
		a.beat("old")
		// That is the retention of the files as well.
		time.Sleep(time.Hour) // fake clock
		a.event("young")
		a.beat("young")
		time.Sleep(purgeEvery + 1) // fake clock
		synctest.Wait()
		require.Equal(t, []string{"young"}, s.events("vm-1"))
		require.Equal(t, []string{"young"}, s.beats("vm-1"))
		require.Len(t, s.files("vm-1"), 2)
		require.NoDirExists(t, s.dir+"/vm-2")
	})
}

// A store that cannot be purged does not keep the files from being removed.
func TestPurgeOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		s.store.down("Purge")
		s.report("vm-1", "old")
		time.Sleep(time.Hour + purgeEvery + 1) // fake clock
		synctest.Wait()
		require.Empty(t, s.files("vm-1"))
		require.Equal(t, 1, s.log.count("upkeep failed"))
	})
}
