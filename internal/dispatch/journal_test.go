package dispatch

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/engine"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/journal"
	"github.com/mig-controller/mig-controller/internal/loglimit"
	"github.com/mig-controller/mig-controller/internal/store/memory"
)

// report keeps an event that came over HTTP.
func (s *system) report(vm fleet.VMID, kind string) {
	s.Helper()
	_, _, err := s.ReportEvent(s.Context(), fleet.Event{
		Origin: fleet.Origin{VM: vm}, Type: kind, Body: json.RawMessage(`{"type":"` + kind + `"}`),
	})
	require.NoError(s, err)
}

// hasFiles requires a VM to have one file for each of these kinds of events.
func (s *system) hasFiles(vm fleet.VMID, kinds ...string) {
	s.Helper()
	names := s.files(vm)
	require.Len(s, names, len(kinds), "%s", names)
	all := strings.Join(names, "\n")
	for _, kind := range kinds {
		require.Contains(s, all, "event-"+kind+"-")
	}
}

// crash ends the Dispatcher and the engine as a kill would, as far as the driver can
// tell: what is not committed by now never is. What the driver has and the files stay.
func (s *system) crash() {
	s.Helper()
	s.store.down("MarkJournaled", "CloseSession")
	s.Close()
	s.store.up("MarkJournaled", "CloseSession")
	db, ok := s.driver.(*memory.DB)
	require.True(s, ok)
	after := db.Crash()
	require.NoError(s, s.store.Close())
	s.open(after)
}

// Every event has its file as soon as it is stored.
func TestEventFiles(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a := s.connect("vm-1")
		a.event("job_started")
		a.event("job_completed")
		s.report("vm-2", "vm_started")
		synctest.Wait()
		s.elapsed(0)
		s.hasFiles("vm-1", "job_started", "job_completed")
		s.hasFiles("vm-2", "vm_started")
		unwritten, err := s.store.UnjournaledEvents(t.Context(), 10)
		require.NoError(t, err)
		require.Empty(t, unwritten)
	})
}

// What a crash left without a file gets it at the next start; what had one is
// not written twice.
func TestEventFilesAfterACrash(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		s.store.down("UnjournaledEvents")
		s.report("vm-1", "unwritten")
		s.crash()
		require.Empty(t, s.files("vm-1"))

		s.store.up("UnjournaledEvents")
		s.store.down("MarkJournaled")
		s.start()
		s.report("vm-1", "unmarked")
		time.Sleep(journalRetry) // fake clock
		synctest.Wait()
		s.hasFiles("vm-1", "unwritten", "unmarked")
		s.crash()

		s.start()
		synctest.Wait()
		s.hasFiles("vm-1", "unwritten", "unmarked")
		require.Zero(t, s.Dispatcher.Options.Journal.Stats().Events)
	})
}

// A disk fault keeps no event from its file: what could not be written is
// written once it can.
func TestEventFilesAfterADiskFault(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		require.NoError(t, os.RemoveAll(s.dir)) // no file can be made any more
		for i := range 20 {
			s.report("vm-1", fmt.Sprintf("kind-%d", i))
			time.Sleep(time.Second) // fake clock
		}
		require.Zero(t, s.Stats().Unwritten)
		require.LessOrEqual(t, s.store.called("UnjournaledEvents"), 10, "events do not hurry it")
		s.Close()
		require.Equal(t, 1, s.log.count("events left for the next run to write to the journal"))

		s.start()
		synctest.Wait()
		require.Len(t, s.files("vm-1"), 20)
	})
}

// A file in the place of one VM's directory costs that VM's files alone; while
// nothing can be written at all, nothing is passed over.
func TestEventFilesOfABlockedVM(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		blocker := filepath.Join(s.dir, "vm-2")
		require.NoError(t, os.WriteFile(blocker, nil, 0o600))
		// What the journal tries the disk with cannot be made either.
		disk := filepath.Join(s.dir, "_check")
		require.NoError(t, os.MkdirAll(filepath.Join(disk, "full"), 0o750))
		for i := range 30 {
			s.report(fleet.VMID(fmt.Sprintf("vm-%d", 1+i%3)), fmt.Sprintf("kind-%d", i))
		}
		time.Sleep(time.Minute) // fake clock
		synctest.Wait()
		require.Zero(t, s.Stats().Unwritten)

		require.NoError(t, os.RemoveAll(disk))
		time.Sleep(journalRetry) // fake clock
		synctest.Wait()
		require.Len(t, s.files("vm-1"), 10)
		require.Len(t, s.files("vm-3"), 10)
		require.Equal(t, int64(10), s.Stats().Unwritten)
		require.Equal(t, 10, s.log.count("event passed over by the journal"))

		require.NoError(t, os.Remove(blocker))
		s.report("vm-2", "after")
		synctest.Wait()
		s.hasFiles("vm-2", "after")
	})
}

// A VM whose events have no place is logged some times a minute, however many it reports;
// so is one whose heartbeats cannot be stored.
func TestLinesOfOneVMAreLimited(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		s.store.broken = "vm-9"
		require.NoError(t, os.WriteFile(filepath.Join(s.dir, "vm-2"), nil, 0o600))
		a := s.connect("vm-9")
		again := func(i int) {
			s.report("vm-2", fmt.Sprintf("kind-%d", i))
			a.beat("ready")
			time.Sleep(time.Second) // fake clock
		}
		for i := range 3 * loglimit.Lines {
			again(i)
		}
		require.Equal(t, loglimit.Lines, s.log.count("event passed over by the journal"))
		require.Equal(t, loglimit.Lines, s.log.count("heartbeats lost"))
		require.Equal(t, int64(3*loglimit.Lines), s.Stats().Unwritten, "all are counted")
		time.Sleep(loglimit.Period) // fake clock
		a = s.connect("vm-9")       // its session was silent
		again(0)
		require.Equal(t, 3, strings.Count(s.log.String(), `"suppressed":20`), "of event received as well")
	})
}

// While too little space is free events are stored without files, and what is past its
// retention does not wait for them. What is left gets its files when there is space.
func TestEventFilesAfterAPause(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var free atomic.Uint64
		s := newSystem(t, func(s *system, o *Options) {
			j, err := journal.Open(journal.Options{
				Dir: s.dir, Clock: clock, Retention: time.Hour, MinFree: 1000, Log: o.Log,
				FreeSpace: func() (journal.Space, error) { return journal.Space{Free: free.Load()}, nil },
			})
			require.NoError(s, err)
			s.Cleanup(func() { _ = j.Close() })
			o.Journal, o.Retention = j, engine.Retention{Events: 2 * time.Hour}
		})
		for i := range 3 {
			s.report("vm-1", fmt.Sprintf("early-%d", i))
		}
		time.Sleep(90 * time.Minute) // fake clock
		s.report("vm-1", "late")
		time.Sleep(31 * time.Minute) // fake clock
		synctest.Wait()
		require.Equal(t, []string{"late"}, s.events("vm-1"), "none waits for its file")
		require.Empty(t, s.files("vm-1"))
		require.Equal(t, 1, s.log.count("journal paused: too little space is free"))
		require.LessOrEqual(t, s.store.called("UnjournaledEvents"), 2, "the database is not read for nothing")

		free.Store(1 << 30)
		time.Sleep(journalRetry) // fake clock
		synctest.Wait()
		s.hasFiles("vm-1", "late")
		require.Equal(t, 1, s.log.count("journal resumed"))
		require.Contains(t, s.log.String(), `"msg":"events removed while the journal was paused have no file","count":3}`)
		require.EqualValues(t, 3, s.Stats().Unwritten)
		require.Zero(t, s.log.count("events not written to the journal, trying again"))
		s.report("vm-1", "after")
		synctest.Wait()
		s.hasFiles("vm-1", "late", "after")
		require.EqualValues(t, 3, s.Stats().Unwritten)
	})
}

// A pause during which nothing is removed costs nothing, and neither does a stop in it.
func TestStopDuringAPause(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var free atomic.Uint64
		paused := func(s *system, o *Options) {
			j, err := journal.Open(journal.Options{
				Dir: s.dir, Clock: clock, MinFree: 1000,
				FreeSpace: func() (journal.Space, error) { return journal.Space{Free: free.Load()}, nil },
			})
			require.NoError(s, err)
			s.Cleanup(func() { _ = j.Close() })
			o.Journal, o.Retention = j, engine.Retention{Events: time.Hour}
		}
		s := newSystem(t, paused)
		s.report("vm-1", "first")
		s.report("vm-1", "second")
		s.Close()
		require.Zero(t, s.log.count("events left for the next run to write to the journal"))
		s.start(paused)
		synctest.Wait()
		require.Empty(t, s.files("vm-1"))
		free.Store(1 << 30)
		time.Sleep(journalRetry) // fake clock
		synctest.Wait()
		s.hasFiles("vm-1", "first", "second")
		require.Zero(t, s.Stats().Unwritten)
	})
}

// With the journal switched off events are only marked: switched on again, it
// begins with what comes then.
func TestJournalOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, withoutJournal)
		a := s.connect("vm-1")
		a.event("before")
		a.beat("idle")
		synctest.Wait()
		s.Close()
		require.Equal(t, []string{"before"}, s.events("vm-1"))

		s.start()
		s.report("vm-1", "after")
		synctest.Wait()
		s.hasFiles("vm-1", "after")
		require.Zero(t, s.Stats().Unwritten)
	})
}

// However much is left to write, a stop does not wait for all of it. The next
// run goes on.
func TestCloseLeavesABacklog(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		backlog := true
		s.store.on("MarkJournaled", func() error {
			if backlog {
				// A slow disk.
				time.Sleep(time.Second) // fake clock
				s.report("vm-1", "another")
			}
			return nil
		})
		s.report("vm-1", "first")
		time.Sleep(time.Minute) // fake clock
		s.began = time.Now()
		s.Close()
		require.LessOrEqual(t, time.Since(s.began), lastTries+time.Second)
		backlog = false
		s.start()
		synctest.Wait()
		require.Len(t, s.files("vm-1"), len(s.events("vm-1")))
	})
}

// An event whose writing the end of a stop cuts short is not passed over.
func TestCloseWhileWriting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		synctest.Wait()
		s.store.on("after UnjournaledEvents", func() error {
			time.Sleep(time.Minute) // fake clock
			return nil
		})
		s.report("vm-1", "error")
		synctest.Wait()
		s.Close()
		require.Empty(t, s.files("vm-1"))
		require.Zero(t, s.Stats().Unwritten)
		s.store.up("after UnjournaledEvents")
		s.start()
		synctest.Wait()
		s.hasFiles("vm-1", "error")
	})
}

// The journal rests three times as long as a batch took it.
func TestJournalRests(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a := s.connect("vm-1")
		const work = 100 * time.Millisecond
		s.store.on("MarkJournaled", func() error {
			time.Sleep(work) // fake clock
			return nil
		})
		synctest.Wait()
		looks := s.store.called("UnjournaledEvents")
		a.event("error")
		synctest.Wait()
		require.Equal(t, looks+1, s.store.called("UnjournaledEvents"))
		a.event("error")
		time.Sleep(4*work - time.Millisecond) // fake clock
		synctest.Wait()
		require.Equal(t, looks+1, s.store.called("UnjournaledEvents"))
		time.Sleep(time.Millisecond) // fake clock
		synctest.Wait()
		require.Equal(t, looks+2, s.store.called("UnjournaledEvents"))
	})
}
