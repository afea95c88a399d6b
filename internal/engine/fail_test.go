package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

var errDisk = errors.New("the disk is gone")

// While the driver fails, callers get its error and their inputs have no effect. Afterwards
// everything is as before.
func TestFailedCommit(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	f := follow(r)
	v, at := r.beating(2)
	r.accept("c", "vm")
	before, seen := r.vm("vm"), f.all()
	r.db.onCommit(func(store.Writes, commitFunc) (store.Committed, error) { return store.Committed{}, errDisk })
	at = at.Add(time.Second)
	for name, do := range map[string]func() error{
		"accept": func() error { _, err := r.Accept(t.Context(), drain(t, "new", "vm")); return err },
		"open": func() error {
			_, err := r.Apply(t.Context(), fleet.SessionOpened{Hello: fleet.Hello{VM: "vm"}}, at)
			return err
		},
		"heartbeat": func() error { return r.RecordHeartbeats(t.Context(), []fleet.Heartbeat{beat(v, at, 7)}) },
		"mark":      func() error { return r.MarkJournaled(t.Context(), 1) },
		"tick": func() error {
			_, _, err := r.Tick(t.Context(), t0.Add(time.Hour), alive(v.Epoch, "c", t0.Add(time.Hour)), 10)
			return err
		},
		"reset": func() error { _, err := r.ResetSessions(t.Context(), at); return err },
		"flush": func() error {
			return r.flushRows(t.Context(), endOfTime)
		},
	} {
		err := do()
		require.ErrorIs(t, err, fleet.ErrUnavailable, name)
		require.ErrorIs(t, err, errDisk, name)
	}
	r.db.onCommit(nil)
	require.Equal(t, before, r.vm("vm"))
	require.Equal(t, seen, f.all())
	require.Len(t, r.beats("vm"), 2)
	_, err := r.Command(t.Context(), "new")
	require.ErrorIs(t, err, fleet.ErrNotFound)
	require.False(t, r.ack("c", v, at).Late)
	require.Equal(t, fleet.Delivered, r.accept("new", "vm").State)
	require.Len(t, f.all(), len(seen)+3)
}

// The same holds when reads fail.
func TestFailedLoad(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	r.event("vm", t0)
	r.cache.clear()
	r.db.onLoad(func(store.Keys, loadFunc) (store.Rows, error) { return store.Rows{}, errDisk })
	for name, do := range map[string]func() error{
		"apply":   func() error { _, err := r.Apply(t.Context(), fleet.Polled{VM: "vm"}, t0); return err },
		"state":   func() error { _, err := r.State(t.Context(), "vm"); return err },
		"vm":      func() error { _, err := r.VM(t.Context(), "vm"); return err },
		"command": func() error { _, err := r.Command(t.Context(), "c"); return err },
	} {
		err := do()
		require.ErrorIs(t, err, fleet.ErrUnavailable, name)
		require.ErrorIs(t, err, errDisk, name)
	}
	r.db.onLoad(nil)
	r.apply(fleet.Polled{VM: "vm"}, t0)
}

// A commit that was made although the driver returned an error is detected: by callers that
// retry, by listeners, and by later inputs, even while changes cannot be read.
func TestCommitInDoubt(t *testing.T) {
	t.Parallel()
	for _, blind := range []bool{false, true} {
		r := inMemory(t)
		f := follow(r)
		v := r.connect("vm", t0)
		r.db.onCommit(func(w store.Writes, next commitFunc) (store.Committed, error) {
			_, err := next(w)
			return store.Committed{}, errors.Join(err, errDisk)
		})
		if blind {
			r.db.with(func(d *hooked) { d.changes = errDisk })
		}
		_, err := r.Accept(t.Context(), drain(t, "c", "vm"))
		require.ErrorIs(t, err, errDisk)
		r.db.onCommit(nil)
		require.Equal(t, fleet.Pending, r.accept("d", "vm").State, "one at a time")
		r.db.with(func(d *hooked) { d.changes = nil })
		again := r.accept("c", "vm")
		require.Equal(t, fleet.Delivered, again.State)
		require.Equal(t, r.command("c"), again)
		r.ack("c", v, t0)
		got, err := r.next(v, "", t0)
		require.NoError(t, err)
		require.EqualValues(t, "d", got)
		r.event("vm", t0)
		stored, _, err := r.second().Changes(t.Context(), store.ChangeQuery{}, 100)
		require.NoError(t, err)
		require.Equal(t, stored, f.all())
	}
}

// A session, a heartbeat and an event that are in doubt are found if they were stored.
func TestReportsInDoubt(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	v, at := r.beating(1)
	at = at.Add(time.Second)
	for i, do := range []func() error{
		func() error { return r.RecordHeartbeats(t.Context(), []fleet.Heartbeat{beat(v, at, 9)}) },
		func() error { _, err := r.Apply(t.Context(), fleet.Polled{VM: "vm"}, at.Add(time.Second)); return err },
		func() error {
			_, err := r.Apply(t.Context(), fleet.SessionOpened{Hello: fleet.Hello{VM: "vm"}}, at.Add(2*time.Second))
			return err
		},
	} {
		r.db.onCommit(func(w store.Writes, next commitFunc) (store.Committed, error) {
			_, err := next(w)
			return store.Committed{}, errors.Join(err, errDisk)
		})
		require.ErrorIs(t, do(), fleet.ErrUnavailable, i)
		r.db.onCommit(nil)
		require.Equal(t, r.inRow("vm"), r.vm("vm"), i)
		require.NoError(t, do())
	}
	require.EqualValues(t, 3, r.vm("vm").Epoch)
	require.Len(t, r.beats("vm"), 3, "one of them is stored twice")
}

// A caller that stops waiting for its answer neither undoes its operation nor blocks
// others.
func TestContexts(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	ended, end := context.WithCancel(t.Context())
	r.db.onCommit(func(w store.Writes, next commitFunc) (store.Committed, error) {
		end()
		return next(w)
	})
	_, err := r.Accept(ended, drain(t, "c", "vm"))
	require.NoError(t, err)
	r.db.onCommit(nil)
	r.command("c")
	r.cache.clear()
	_, err = r.VM(ended, "vm")
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, fleet.ErrUnavailable)

	// The queue is full and the driver does not return.
	r.whileCommitting(func(all *sync.WaitGroup) {
		for range cap(r.ops) {
			all.Go(r.mark)
		}
		r.queued(cap(r.ops))
		_, err = r.Accept(ended, drain(t, "d", "vm"))
		require.ErrorIs(t, err, context.Canceled)
	})
	_, err = r.Command(t.Context(), "d")
	require.ErrorIs(t, err, fleet.ErrNotFound)
}

// A graceful stop loses no acknowledged change, and answers every caller.
func TestCloseCommitsWhatIsQueued(t *testing.T) {
	t.Parallel()
	r, crash := onDisk(t)
	var all sync.WaitGroup
	const callers = 100
	answers := make([]error, callers)
	for i := range callers {
		c := drain(t, name(i), "vm")
		all.Go(func() { _, answers[i] = r.Accept(t.Context(), c) })
	}
	require.Eventually(t, func() bool { return r.db.commits.Load() > 0 }, 10*time.Second, time.Microsecond)
	for range 3 { // several concurrent calls
		all.Go(func() { require.NoError(t, r.Close()) })
	}
	all.Wait()
	again := crash()
	for i, err := range answers {
		_, found := again.Command(t.Context(), fleet.CommandID(name(i)))
		if err != nil {
			require.ErrorIs(t, err, fleet.ErrUnavailable)
			require.ErrorIs(t, found, fleet.ErrNotFound, "a command whose caller got an error does not exist")
			continue
		}
		require.NoError(t, found)
	}
}

// Operations that are queued when the stop begins are committed.
func TestCloseWaitsForCommit(t *testing.T) {
	t.Parallel()
	r, crash := onDisk(t)
	var closed sync.WaitGroup
	r.group(
		func() { r.accept("a", "vm") },
		func() { r.accept("b", "vm") },
		func() {
			closed.Go(func() { require.NoError(t, r.Close()) })
			<-r.stopping
			r.ops <- &op{run: func(*group) error { return nil }, done: make(chan struct{})}
		},
	)
	closed.Wait()
	again := crash()
	again.command("a")
	again.command("b")
}

// A closed engine returns no data, not even from memory. Closing it twice is not an error.
func TestClosed(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	v, _ := r.beating(1)
	require.NoError(t, r.Close())
	require.NoError(t, r.Close())
	for name, do := range map[string]func() error{
		"accept":    func() error { _, err := r.Accept(t.Context(), drain(t, "new", "vm")); return err },
		"apply":     func() error { _, err := r.Apply(t.Context(), fleet.Polled{VM: "vm"}, t0); return err },
		"heartbeat": func() error { return r.RecordHeartbeats(t.Context(), []fleet.Heartbeat{beat(v, t0, 7)}) },
		"mark":      func() error { return r.MarkJournaled(t.Context(), 1) },
		"tick":      func() error { _, _, err := r.Tick(t.Context(), t0, alive(0, "", t0), 1); return err },
		"reset":     func() error { _, err := r.ResetSessions(t.Context(), t0); return err },
		"purge":     func() error { _, err := r.Purge(t.Context(), Retention{Events: time.Hour}, t0); return err },
		"check":     func() error { return r.Check(t.Context()) },
		"state":     func() error { _, err := r.State(t.Context(), "vm"); return err },
		"vm":        func() error { _, err := r.VM(t.Context(), "vm"); return err },
		"vms":       func() error { _, _, err := r.VMs(t.Context(), store.VMQuery{}, 1); return err },
		"command":   func() error { _, err := r.Command(t.Context(), "c"); return err },
		"commands":  func() error { _, _, err := r.Commands(t.Context(), store.CommandQuery{}, 1); return err },
		"events":    func() error { _, _, err := r.Events(t.Context(), store.EventQuery{}, 1); return err },
		"unjournaled": func() error {
			_, err := r.UnjournaledEvents(t.Context(), 1)
			return err
		},
		"heartbeats": func() error { _, _, err := r.Heartbeats(t.Context(), "vm", time.Time{}, 1); return err },
	} {
		err := do()
		require.ErrorIs(t, err, fleet.ErrUnavailable, name)
		require.ErrorIs(t, err, store.ErrClosed, name)
	}
}

// An engine does not start on a database that cannot be read.
func TestStartFails(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	require.NoError(t, r.db.Driver.Close())
	_, err := Start(t.Context(), Options{Driver: r.db.Driver})
	require.ErrorIs(t, err, store.ErrClosed)
}

// Readers see consistent states while groups are committed.
func TestReadersOfState(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	v := r.connect("vm", t0)
	done := make(chan struct{})
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() {
			for {
				s, err := r.State(t.Context(), "vm")
				require.NoError(t, err)
				for _, c := range s.Commands {
					require.NotZero(t, c.Seq)
					require.Equal(t, v.ID, c.VM)
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for i := range 200 {
		id := fmt.Sprintf("c-%d", i)
		r.accept(id, "vm")
		if i%3 == 0 {
			r.apply(fleet.CancelRequested{VM: "vm", Command: fleet.CommandID(id)}, t0)
		}
	}
	close(done)
	all.Wait()
}

// After a commit in doubt, sessions look for commands again: the commit may have been made.
func TestLookAfterDoubt(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	r.connect("vm", t0)
	var looks []fleet.VMID
	r.OnReady(func(vm fleet.VMID, _ fleet.Ready) { looks = append(looks, vm) })
	r.db.onCommit(func(w store.Writes, next commitFunc) (store.Committed, error) {
		r.db.onCommit(nil)
		_, err := next(w)
		require.NoError(t, err)
		return store.Committed{}, errors.New("lost")
	})
	_, err := r.Accept(t.Context(), drain(t, "a", "vm"))
	require.ErrorIs(t, err, fleet.ErrUnavailable)
	require.Equal(t, []fleet.VMID{"vm"}, looks)
	require.Equal(t, fleet.Delivered, r.command("a").State)
}

// An event that cannot be written fails alone.
func TestEventThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	var bad, good error
	r.group(
		func() {
			e := fleet.Event{Origin: fleet.Origin{VM: "bad", Via: fleet.HTTP, ReceivedAt: t0}, Type: "error", Body: []byte("{")}
			_, bad = r.Apply(t.Context(), fleet.EventReceived{Event: e}, t0)
		},
		func() { _, good = r.Accept(t.Context(), drain(t, "a", "vm")) },
	)
	require.Error(t, bad)
	require.NotErrorIs(t, bad, fleet.ErrUnavailable, "a retry would be pointless")
	require.NoError(t, good)
	_, err := r.VM(t.Context(), "bad")
	require.ErrorIs(t, err, fleet.ErrNotFound)
}
