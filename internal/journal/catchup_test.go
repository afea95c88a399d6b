package journal

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/diskspace"
	"github.com/mig-controller/mig-controller/internal/engine"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/loglimit"
	"github.com/mig-controller/mig-controller/internal/store/memory"
)

// catchUpRig is a CatchUp that runs on a real engine, whose methods can be made to fail or to
// wait.
type catchUpRig struct {
	*testing.T
	*engine.Engine
	dir     string
	free    atomic.Uint64
	log     strings.Builder
	journal *Journal
	reports time.Duration // so that no two have the same time of receipt
	end     func()        // ends Run and waits for it; the engine and the database stay

	mu    sync.Mutex
	hooks map[string]func() error
	calls map[string]int
}

// newCatchUpRig starts a CatchUp. It is stopped at the end.
func newCatchUpRig(t *testing.T) *catchUpRig {
	t.Helper()
	c := &catchUpRig{T: t, dir: t.TempDir(), hooks: map[string]func() error{}, calls: map[string]int{}}
	e, err := engine.Start(t.Context(), engine.Options{
		Driver: memory.New(), Rules: fleet.Rules{NewID: fleet.NewRegistrationID}, Clock: systemTime, Log: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	c.Engine = e
	c.free.Store(1 << 40)
	t.Cleanup(func() { require.NoError(t, e.Close()) })
	c.start()
	return c
}

func systemTime() time.Time { return time.Now().UTC().Round(0) }

// start starts a CatchUp with a journal; the one before must have ended.
func (c *catchUpRig) start() {
	c.Helper()
	j, err := Open(Options{
		Dir: c.dir, MinFree: 1000, FreeSpace: func() (diskspace.Space, error) { return diskspace.Space{Free: c.free.Load()}, nil },
	})
	require.NoError(c, err)
	c.run(j)
}

// run starts a CatchUp with j; nil is a journal that is switched off.
func (c *catchUpRig) run(j *Journal) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		NewCatchUp(j, c, slog.New(slog.NewJSONHandler(&c.log, nil))).Run(ctx)
	}()
	c.journal = j
	c.end = sync.OnceFunc(func() {
		cancel()
		<-ended
		if j != nil {
			_ = j.Close() // its directory may be gone
		}
	})
	c.Cleanup(c.end)
}

// report stores an event that arrived over HTTP.
func (c *catchUpRig) report(vm fleet.VMID, kind string) {
	c.Helper()
	c.reports++
	at := systemTime().Add(c.reports)
	_, err := c.Apply(c.Context(), fleet.EventReceived{Event: fleet.Event{
		Origin: fleet.Origin{VM: vm, Via: fleet.HTTP, ReceivedAt: at}, Type: kind, Body: json.RawMessage(`{}`),
	}}, at)
	require.NoError(c, err)
}

// hasFiles requires a VM to have one file for each of these kinds of events, once everything
// waits.
func (c *catchUpRig) hasFiles(vm fleet.VMID, kinds ...string) {
	c.Helper()
	synctest.Wait()
	found, err := filepath.Glob(filepath.Join(c.dir, string(vm), "event-*"))
	require.NoError(c, err)
	require.Len(c, found, len(kinds), "%s", found)
	all := strings.Join(found, "\n")
	for _, kind := range kinds {
		require.Contains(c, all, "event-"+kind+"-")
	}
}

func (c *catchUpRig) files(vm fleet.VMID) int {
	c.Helper()
	synctest.Wait()
	found, err := filepath.Glob(filepath.Join(c.dir, string(vm), "event-*"))
	require.NoError(c, err)
	return len(found)
}

// on calls hook after each call of a method, which fails when hook does.
func (c *catchUpRig) on(method string, hook func() error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hooks[method] = hook
}

// reads returns how often the unjournaled events were read.
func (c *catchUpRig) reads() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls["UnjournaledEvents"]
}

func (c *catchUpRig) after(method string) error {
	c.mu.Lock()
	c.calls[method]++
	hook := c.hooks[method]
	c.mu.Unlock()
	if hook == nil {
		return nil
	}
	return hook()
}

func (c *catchUpRig) UnjournaledEvents(ctx context.Context, limit int) ([]fleet.Event, error) {
	es, err := c.Engine.UnjournaledEvents(ctx, limit)
	if failed := c.after("UnjournaledEvents"); failed != nil {
		return nil, failed
	}
	return es, err
}

// MarkJournaled marks nothing when it fails.
func (c *catchUpRig) MarkJournaled(ctx context.Context, seq int64) error {
	if err := c.after("MarkJournaled"); err != nil {
		return err
	}
	return c.Engine.MarkJournaled(ctx, seq)
}

func (c *catchUpRig) logged(message string) int {
	return strings.Count(c.log.String(), `"msg":"`+message+`"`)
}

func outage() error { return fleet.ErrUnavailable }

// Every event has its file as soon as it is stored, and is marked.
func TestCatchUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCatchUpRig(t)
		began := time.Now()
		c.report("vm-1", "job_started")
		c.report("vm-2", "vm_started")
		c.hasFiles("vm-1", "job_started")
		c.hasFiles("vm-2", "vm_started")
		unmarked, err := c.Engine.UnjournaledEvents(t.Context(), 10)
		require.NoError(t, err)
		require.Empty(t, unmarked)
		require.Zero(t, time.Since(began))
	})
}

// Events that a stopped process has left without a file get it at the next start; an event
// that had its file but was not marked is not written twice.
func TestCatchUpAfterACrash(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCatchUpRig(t)
		c.on("UnjournaledEvents", outage)
		c.report("vm-1", "unwritten")
		c.hasFiles("vm-1")
		c.end()

		c.on("UnjournaledEvents", nil)
		c.on("MarkJournaled", outage)
		c.start()
		c.report("vm-1", "unmarked")
		time.Sleep(catchUpRetry) // fake clock
		c.hasFiles("vm-1", "unwritten", "unmarked")
		c.end()

		c.on("MarkJournaled", nil)
		c.start()
		c.hasFiles("vm-1", "unwritten", "unmarked")
		require.Zero(t, c.journal.Stats().Events)
	})
}

// A disk fault costs no event its file: it is written once that is possible. Further events
// do not make it retry sooner.
func TestCatchUpAfterADiskFault(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCatchUpRig(t)
		require.NoError(t, os.RemoveAll(c.dir)) // no file can be created any more
		for i := range 20 {
			c.report("vm-1", fmt.Sprintf("kind-%d", i))
			time.Sleep(time.Second) // fake clock
		}
		require.Zero(t, c.journal.Stats().Unwritten)
		require.LessOrEqual(t, c.reads(), 10)
		c.end()
		require.Equal(t, 1, c.logged("events left for the next run to write to the journal"))

		c.start()
		require.Equal(t, 20, c.files("vm-1"))
	})
}

// A database that cannot be read for ten minutes is logged some times a minute at most.
func TestCatchUpDuringAnOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCatchUpRig(t)
		c.on("UnjournaledEvents", outage)
		c.report("vm-1", "error")
		const minutes = 10
		time.Sleep(minutes * time.Minute) // fake clock
		synctest.Wait()
		require.LessOrEqual(t, c.reads(), minutes*int(time.Minute/catchUpRetry)+2)
		require.LessOrEqual(t, c.logged("events not written to the journal, trying again"), (minutes+1)*loglimit.Lines)
		require.Positive(t, c.logged("events not written to the journal, trying again"))
		c.on("UnjournaledEvents", nil)
		time.Sleep(catchUpRetry) // fake clock
		c.hasFiles("vm-1", "error")
	})
}

// A file in the place of one VM's directory costs only that VM its files, and some log lines
// a minute; while nothing can be written at all, nothing is skipped.
func TestCatchUpOfABlockedVM(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCatchUpRig(t)
		blocker := filepath.Join(c.dir, "vm-2")
		require.NoError(t, os.WriteFile(blocker, nil, 0o600))
		// The file with which the journal tries the disk cannot be created either.
		disk := filepath.Join(c.dir, checkName)
		require.NoError(t, os.MkdirAll(filepath.Join(disk, "full"), 0o750))
		const each = 3 * loglimit.Lines
		for i := range 3 * each {
			c.report(fleet.VMID(fmt.Sprintf("vm-%d", 1+i%3)), fmt.Sprintf("kind-%d", i))
		}
		time.Sleep(time.Minute) // fake clock
		synctest.Wait()
		require.Zero(t, c.journal.Stats().Unwritten)

		require.NoError(t, os.RemoveAll(disk))
		time.Sleep(catchUpRetry) // fake clock
		require.Equal(t, each, c.files("vm-1"))
		require.Equal(t, each, c.files("vm-3"))
		require.EqualValues(t, each, c.journal.Stats().Unwritten, "all are counted")
		require.Equal(t, loglimit.Lines, c.logged("event skipped by the journal"))

		require.NoError(t, os.Remove(blocker))
		c.report("vm-2", "after")
		c.hasFiles("vm-2", "after")
	})
}

// A stop while too little space is free loses nothing and is not logged as an error.
func TestStopDuringAPause(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCatchUpRig(t)
		synctest.Wait()
		c.free.Store(0)
		c.report("vm-1", "first")
		c.report("vm-1", "second")
		synctest.Wait()
		c.end()
		require.Zero(t, c.logged("events left for the next run to write to the journal"))
		c.start()
		c.hasFiles("vm-1")
		c.free.Store(1 << 30)
		time.Sleep(catchUpRetry) // fake clock
		c.hasFiles("vm-1", "first", "second")
		require.Zero(t, c.journal.Stats().Unwritten)
	})
}

// With the journal switched off events are only marked: when it is switched on again, it
// begins with the events that are stored then.
func TestCatchUpWithoutAJournal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCatchUpRig(t)
		c.end()
		c.run(nil)
		c.report("vm-1", "before")
		synctest.Wait()
		c.end()
		c.start()
		c.report("vm-1", "after")
		c.hasFiles("vm-1", "after")
		require.Zero(t, c.journal.Stats().Unwritten)
	})
}

// However much is left to write, a stop does not wait for all of it. The next run continues.
func TestStopLeavesABacklog(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCatchUpRig(t)
		var others atomic.Int64
		c.on("MarkJournaled", func() error {
			// The disk is slow.
			time.Sleep(time.Second) // fake clock
			c.report("vm-1", "another")
			others.Add(1)
			return nil
		})
		c.report("vm-1", "first")
		time.Sleep(time.Minute) // fake clock
		began := time.Now()
		c.end()
		require.LessOrEqual(t, time.Since(began), catchUpGrace+time.Second)
		c.on("MarkJournaled", nil)
		c.start()
		require.EqualValues(t, others.Load()+1, c.files("vm-1"))
	})
}

// An event whose writing a stop has cut short is not skipped.
func TestStopWhileWriting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCatchUpRig(t)
		synctest.Wait()
		c.on("UnjournaledEvents", func() error {
			time.Sleep(time.Minute) // fake clock
			return nil
		})
		c.report("vm-1", "error")
		synctest.Wait()
		c.end()
		c.hasFiles("vm-1")
		require.Zero(t, c.journal.Stats().Unwritten)
		c.on("UnjournaledEvents", nil)
		c.start()
		c.hasFiles("vm-1", "error")
	})
}

// After a batch the journal rests three times as long as the batch took.
func TestCatchUpRests(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCatchUpRig(t)
		const work = 100 * time.Millisecond
		c.on("MarkJournaled", func() error {
			time.Sleep(work) // fake clock
			return nil
		})
		synctest.Wait()
		reads := c.reads()
		c.report("vm-1", "error")
		synctest.Wait()
		require.Equal(t, reads+1, c.reads())
		c.report("vm-1", "error")
		time.Sleep(4*work - time.Millisecond) // fake clock
		synctest.Wait()
		require.Equal(t, reads+1, c.reads())
		time.Sleep(time.Millisecond) // fake clock
		synctest.Wait()
		require.Equal(t, reads+2, c.reads())
	})
}
