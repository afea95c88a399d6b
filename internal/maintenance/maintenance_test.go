package maintenance

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/engine"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/readiness"
	"github.com/mig-controller/mig-controller/internal/store/memory"
)

const day = 24 * time.Hour

// Rows and files that are older than their retention are deleted; younger ones stay.
func TestPurge(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newRig(t, engine.Retention{Events: time.Hour})
		s.report("vm-1", "old")
		s.report("vm-2", "old")
		// This is also the retention of the files.
		time.Sleep(time.Hour) // fake clock
		s.report("vm-1", "young")
		time.Sleep(purgeEvery + 1) // fake clock
		synctest.Wait()
		require.Equal(t, []string{"young"}, s.events())
		require.Len(t, s.files(), 1)
		require.NoDirExists(t, s.dir+"/vm-2")
	})
}

// Files are deleted even if the store cannot be purged.
func TestPurgeOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newRig(t, engine.Retention{})
		s.fail("Purge", fleet.ErrUnavailable)
		s.report("vm-1", "old")
		time.Sleep(time.Hour + purgeEvery + 1) // fake clock
		synctest.Wait()
		require.Empty(t, s.files())
		require.Equal(t, 1, s.log.count("maintenance failed, trying again"))
	})
}

// A service continues after an error, and logs the first of successive ones.
func TestServicesContinueAfterErrors(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newRig(t, engine.Retention{})
		time.Sleep(sweepEvery / 2) // fake clock
		for range 2 {
			s.fail("Tick", errors.New("the disk failed"))
			time.Sleep(10 * sweepEvery) // fake clock
			s.fail("Tick", nil)
			time.Sleep(sweepEvery) // fake clock
		}
		synctest.Wait()
		require.Equal(t, 2, s.log.count("maintenance failed, trying again"))
		require.Contains(t, s.log.String(), `"service":"sweep","error":"the disk failed"`)
	})
}

// After Quiesce nothing is swept or purged; files are still written until Stop.
func TestQuiesce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newRig(t, engine.Retention{})
		time.Sleep(time.Hour) // fake clock
		s.Quiesce()
		synctest.Wait()
		sweeps, purges := s.called("Tick"), s.called("Purge")
		require.Positive(t, sweeps)
		require.Positive(t, purges)
		time.Sleep(time.Hour) // fake clock
		require.Equal(t, sweeps, s.called("Tick"))
		require.Equal(t, purges, s.called("Purge"))
		s.report("vm-1", "last")
		s.Stop()
		require.Len(t, s.files(), 1)
	})
}

// While too little space is free, events are stored without files, and those past their
// retention are deleted without. The rest get their files when there is space again.
func TestPauseOfTheJournal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newRig(t, engine.Retention{Events: 2 * time.Hour})
		s.free.Store(0)
		for i := range 3 {
			s.report("vm-1", fmt.Sprintf("early-%d", i))
		}
		time.Sleep(90 * time.Minute) // fake clock
		s.report("vm-1", "late")
		time.Sleep(31 * time.Minute) // fake clock
		synctest.Wait()
		require.Equal(t, []string{"late"}, s.events(), "none waits for its file")
		require.Empty(t, s.files())
		require.Equal(t, 1, s.log.count("journal paused: too little space is free"))
		require.LessOrEqual(t, s.called("UnjournaledEvents"), 3, "the database is not read without need")

		s.free.Store(1 << 30)
		// The catch-up retries.
		time.Sleep(5 * time.Second) // fake clock
		synctest.Wait()
		require.Len(t, s.files(), 1)
		require.Equal(t, 1, s.log.count("journal resumed"))
		require.Contains(t, s.log.String(), `"msg":"events removed while the journal was paused have no file","count":3}`)
		require.Zero(t, s.log.count("events not written to the journal, trying again"))
		s.report("vm-1", "after")
		synctest.Wait()
		require.Len(t, s.files(), 2)
	})
}

// A jump of 40 days deletes no rows and no files early, even if the controller is restarted,
// and everything in the end.
func TestJumpAndPurge(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		kept := engine.Retention{Events: 30 * day, Commands: 30 * day, Changes: 30 * day, VMs: 30 * day}
		db := memory.New()
		s := newRigOn(t, db, kept)
		s.report("vm-1", "old")
		time.Sleep(purgeEvery + 1) // fake clock
		synctest.Wait()
		s.offset.Add(int64(40 * day))
		require.Len(t, s.files(), 1)
		time.Sleep(purgeEvery) // fake clock
		synctest.Wait()
		require.Equal(t, []string{"old"}, s.events())
		require.Len(t, s.files(), 1)

		s.Stop()
		require.NoError(t, s.Engine.Close())
		s.start(db.Crash(), kept)
		s.sweeper.stop()           // too many ticks
		s.census.stop()            // as well
		time.Sleep(28 * time.Hour) // fake clock
		synctest.Wait()
		require.Equal(t, []string{"old"}, s.events())
		time.Sleep(4 * time.Hour) // fake clock
		synctest.Wait()
		require.Empty(t, s.events())
		require.Empty(t, s.files())
	})
}

// A slow command log blocks nothing; lines that do not fit are counted.
func TestCommandLogIsBounded(t *testing.T) {
	t.Parallel()
	log := &lines{}
	dropped := prometheus.NewCounter(prometheus.CounterOpts{Name: "dropped_total", Help: "Dropped lines."})
	l := newCommandLog(slog.New(slog.NewJSONHandler(log, nil)), time.Now, dropped)
	accepted := fleet.Change{Command: &fleet.Command{State: fleet.Pending}}
	for range maxUnlogged + 7 {
		l.add([]fleet.Change{accepted})
	}
	start(l.run).stop()
	require.Equal(t, maxUnlogged, log.count("command accepted"))
	require.Contains(t, log.String(), `"suppressed":7`)
	require.InDelta(t, 7, testutil.ToFloat64(dropped), 0)
}

// The controller is ready while its store and its journal can be written. Each has a check of
// its own.
func TestChecks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newRig(t, engine.Retention{})
		failures := func() map[string]error {
			failed := map[string]error{}
			for _, r := range s.checks.Run(t.Context()) {
				if r.Err != nil {
					failed[r.Name] = r.Err
				}
			}
			return failed
		}
		require.Empty(t, failures())
		s.fail("Check", fleet.ErrUnavailable)
		require.Len(t, failures(), 1)
		require.ErrorIs(t, failures()["store"], fleet.ErrUnavailable)
		s.fail("Check", nil)
		require.NoError(t, os.RemoveAll(s.dir))
		require.Len(t, failures(), 1)
		require.ErrorContains(t, failures()["journal"], "the JSON files cannot be written")
	})
}

// Without a journal there is no check of it.
func TestChecksWithoutJournal(t *testing.T) {
	t.Parallel()
	checks := readiness.New()
	addChecks(Options{Engine: &rig{broken: map[string]error{"Check": fleet.ErrUnavailable}, calls: map[string]int{}}, Checks: checks})
	var names []string
	for _, r := range checks.Run(t.Context()) {
		names = append(names, r.Name)
	}
	require.Equal(t, []string{"store", readiness.NotDraining}, names)
}
