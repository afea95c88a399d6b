package engine

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

// follower is a listener that collects the changes.
type follower struct {
	mu   sync.Mutex
	seen []fleet.Change
}

func follow(r *rig) *follower {
	f := new(follower)
	r.Listen(func(cs []fleet.Change) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.seen = append(f.seen, cs...)
	})
	return f
}

func (f *follower) all() []fleet.Change {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]fleet.Change(nil), f.seen...)
}

// Every listener gets all changes in one order without gaps, whichever engine made them;
// and the changes in memory equal those in the database.
func TestFeedOfTwoWriters(t *testing.T) {
	t.Parallel()
	first, _ := onDisk(t)
	second := first.second()
	followers := []*follower{follow(first), follow(second)}
	var all sync.WaitGroup
	for i := range 12 {
		r := first
		if i%2 == 1 {
			r = second
		}
		all.Go(func() {
			vm := fleet.VMID(fmt.Sprintf("vm-%d", i))
			for j := range 10 {
				id := fmt.Sprintf("%s-%d", vm, j)
				r.accept(id, vm)
				r.event(vm, t0.Add(time.Duration(j)*time.Second))
				r.apply(fleet.CancelRequested{VM: vm, Command: fleet.CommandID(id)}, t0)
			}
		})
	}
	all.Wait()
	last, err := first.db.Driver.LastChange(t.Context())
	require.NoError(t, err)
	require.Eventually(t, func() bool { return first.LastChange() == last && second.LastChange() == last }, 10*time.Second, time.Millisecond)
	fresh := first.second() // with an empty cache
	want, _, err := fresh.Changes(t.Context(), store.ChangeQuery{}, 10_000)
	require.NoError(t, err)
	require.Equal(t, last, want[len(want)-1].Seq)
	for i, c := range want {
		require.EqualValues(t, i+1, c.Seq)
	}
	for i, r := range []*rig{first, second} {
		got, _, err := r.Changes(t.Context(), store.ChangeQuery{}, 10_000)
		require.NoError(t, err)
		require.Equal(t, want, got)
		require.Equal(t, want, followers[i].all())
	}
}

// Listeners are not called, and callers get no answer, before a change is durable.
func TestListenersAreCalledAfterCommit(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	f := follow(r)
	ready := make(chan fleet.Ready, 9)
	stop := r.OnReady(func(_ fleet.VMID, next fleet.Ready) { ready <- next })
	r.connect("vm", t0)
	for len(ready) > 0 {
		<-ready
	}
	before := len(f.all())
	entered, release := make(chan struct{}), make(chan struct{})
	r.db.onCommit(func(w store.Writes, next commitFunc) (store.Committed, error) {
		done, err := next(w)
		close(entered)
		<-release
		return done, err
	})
	c, answered := drain(t, "c", "vm"), make(chan error, 1)
	go func() {
		_, err := r.Accept(t.Context(), c)
		answered <- err
	}()
	<-entered
	require.Len(t, f.all(), before)
	require.Empty(t, answered)
	require.Empty(t, ready)
	v := r.vm("vm")
	require.True(t, v.Connected, "readers do not wait")
	close(release)
	require.NoError(t, <-answered)
	require.Equal(t, fleet.Ready{Command: "c"}, <-ready)
	require.Len(t, f.all(), before+2)
	r.db.onCommit(nil)
	stop()
	r.ack("c", v, t0)
	r.accept("d", "vm")
	require.Empty(t, ready, "it was removed")
}

// A slow reader gets all changes: those that are no longer in memory from the database.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	const all = 3*feedLength + 10
	for range all / 10 {
		require.NoError(t, r.change(func(g *group) error {
			for range 10 {
				if _, err := g.reduce("vm", fleet.EventReceived{Event: fleet.Event{
					Origin: fleet.Origin{VM: "vm", Via: fleet.HTTP, ReceivedAt: t0}, Type: "error",
				}}, t0); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	_, _, ok := r.feed.since(store.ChangeQuery{After: 1}, 1)
	require.False(t, ok, "memory is bounded")
	require.LessOrEqual(t, len(r.feed.recent), 2*feedLength)
	last := int64(0)
	for last < r.LastChange() {
		some, _, err := r.Changes(t.Context(), store.ChangeQuery{After: last}, 100)
		require.NoError(t, err)
		require.NotEmpty(t, some)
		for _, c := range some {
			require.Equal(t, last+1, c.Seq)
			last = c.Seq
		}
	}
	none, _, err := r.Changes(t.Context(), store.ChangeQuery{After: last}, 100)
	require.NoError(t, err)
	require.Empty(t, none)
}

// However much is purged, the latest change is kept, and up-to-date readers can continue.
func TestPurgeKeepsLatestChange(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	r.connect("vm", t0)
	last := r.LastChange()
	n, err := r.Purge(t.Context(), Retention{Changes: time.Hour}, t0.Add(24*time.Hour))
	require.NoError(t, err)
	require.EqualValues(t, last-1, n)
	again := r.second()
	require.Equal(t, last, again.LastChange())
	changes, _, err := again.Changes(t.Context(), store.ChangeQuery{After: last}, 10)
	require.NoError(t, err)
	require.Empty(t, changes)
	_, _, err = again.Changes(t.Context(), store.ChangeQuery{}, 10)
	require.ErrorIs(t, err, fleet.ErrCursorExpired)
}

// Several steps of a command in one commit are seen and stored individually.
func TestStepsOfOneCommit(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	v := r.connect("vm", t0)
	f := follow(r)
	c := drain(t, "c", "vm")
	c.Params = fleet.Params{} // so that the change equals the record
	_, err := r.Accept(t.Context(), c)
	require.NoError(t, err)
	require.NoError(t, r.change(func(g *group) error {
		for i, in := range []fleet.Input{
			fleet.SessionOpened{Hello: fleet.Hello{VM: "vm"}, Written: "c"},
			fleet.LeaseRequested{VM: "vm", Command: "c", Request: fleet.LeaseRequest{
				Via: fleet.Stream, Epoch: v.Epoch + 1, At: t0.Add(time.Second),
			}},
			fleet.DeliveryFailed{VM: "vm", Command: "c", Epoch: v.Epoch + 1},
		} {
			if _, err := g.reduce("vm", in, t0.Add(time.Duration(i)*time.Second)); err != nil {
				return err
			}
		}
		return nil
	}))
	seen := f.all()
	stored, _, err := r.second().Changes(t.Context(), store.ChangeQuery{After: seen[0].Seq - 1}, 100)
	require.NoError(t, err)
	require.Equal(t, seen, stored)
}

// Changes of other writers whose read failed are read with the next ones.
func TestFeedRecovers(t *testing.T) {
	t.Parallel()
	first := inMemory(t)
	second := first.second()
	first.db.with(func(d *hooked) { d.changes = errors.New("no disk") })
	second.accept("a", "vm")
	first.accept("b", "vm2")
	require.Zero(t, first.LastChange(), "no change without its predecessors")
	first.db.with(func(d *hooked) { d.changes = nil })
	second.accept("c", "vm")
	require.Eventually(t, func() bool { return first.LastChange() == 3 }, 10*time.Second, time.Millisecond)
}

// Changes that were purged before the feed has read them are skipped, and the feed
// continues.
func TestFeedContinuesAfterPurge(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	r.event("vm", t0)
	r.db.onCommit(func(w store.Writes, next commitFunc) (store.Committed, error) {
		r.db.onCommit(nil)
		r.db.with(func(d *hooked) { d.changes = errors.New("disk") })
		_, err := next(w)
		require.NoError(t, err)
		return store.Committed{}, errors.New("lost")
	})
	for i := range 3 { // in doubt, and not read yet
		e := fleet.Event{Origin: fleet.Origin{VM: fleet.VMID(fmt.Sprint("vm", i)), Via: fleet.HTTP, ReceivedAt: t0}, Type: "error"}
		_, _ = r.Apply(t.Context(), fleet.EventReceived{Event: e}, t0)
	}
	_, err := r.Purge(t.Context(), Retention{Changes: time.Hour}, t0.Add(2*time.Hour))
	require.NoError(t, err)
	r.db.with(func(d *hooked) { d.changes = nil })
	for range 3 {
		r.event("vm", t0)
	}
	last, err := r.db.LastChange(t.Context())
	require.NoError(t, err)
	require.Equal(t, last, r.LastChange())
	_, _, err = r.Changes(t.Context(), store.ChangeQuery{After: 1}, 10)
	require.ErrorIs(t, err, fleet.ErrCursorExpired)
}
