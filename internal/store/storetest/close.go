package storetest

import (
	"errors"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/store"
)

func crashKeeps(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	d.commit(full())
	for range 3 {
		d.commit(store.Writes{
			VMs: []store.VMRow{d.vm("vm-1")}, Commands: []store.CommandRow{d.command("c-1")},
			Events: []store.EventRow{anEvent("vm-1", "more")}, Changes: []store.ChangeRow{aChangeOf("vm-1", 1)},
		})
	}
	before, queue := d.contents(), store.Keys{VMs: []string{"vm-1"}, Queues: []string{"normal"}, Depth: 1}
	queued, due := d.load(queue), sortedDue(d.due(at(9), all))
	for range 2 {
		d = opened(t, drivers.Crash(t, d.Driver))
		require.Equal(t, before, d.contents())
		require.Equal(t, queued, d.load(queue))
		require.Equal(t, due, sortedDue(d.due(at(9), all)))
	}
	require.EqualValues(t, 4, d.vm("vm-1").Version)
	stale := d.vm("vm-1")
	stale.Version--
	_ = d.conflict(store.Writes{VMs: []store.VMRow{stale}})
}

func crashContinues(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	w := store.Writes{
		Commands: []store.CommandRow{aCommand("before", "vm", "")}, Events: []store.EventRow{anEvent("vm", "")},
		Changes: []store.ChangeRow{aChange("vm", "1"), aChange("vm", "2")},
	}
	before := d.commit(w)
	d.purge(store.Cutoffs{Now: at(9), Changes: at(9), Events: at(9), EventsThrough: before.Events[0], Commands: at(9)}, all)
	d = opened(t, drivers.Crash(t, d.Driver))
	l := d.listen()
	after := d.commit(w)
	require.Greater(t, after.Commands[0], before.Commands[0], "no number is assigned again")
	require.Greater(t, after.Events[0], before.Events[0])
	require.EqualValues(t, 3, after.FirstChange)
	require.Equal(t, []int64{4}, l.await(4))
	require.EqualValues(t, 1, d.purgedChanges())
}

func databaseID(t *testing.T, drivers Drivers) {
	a, b := newDatabase(t, drivers), newDatabase(t, drivers)
	id := a.ID()
	require.NotEmpty(t, id)
	require.NotEqual(t, id, b.ID())
	require.Equal(t, id, opened(t, drivers.Crash(t, a.Driver)).ID(), "the id is kept")
}

func closedDriver(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	d.commit(full())
	id, stop := d.ID(), d.Listen(func(int64) {})
	require.NoError(t, d.Check(t.Context()))
	require.NoError(t, d.Close())
	for name, call := range d.calls() {
		require.ErrorIs(t, call(t.Context()), store.ErrClosed, name)
	}
	require.NoError(t, d.Close(), "closing twice")
	require.Equal(t, id, d.ID())
	stop()
	d.Listen(func(int64) {})()
}

func closeKeeps(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	d.commit(full())
	before, id := d.contents(), d.ID()
	require.NoError(t, d.Close())
	d = opened(t, drivers.Crash(t, d.Driver))
	require.Equal(t, before, d.contents())
	require.Equal(t, id, d.ID())
}

// A commit concurrent with Close either succeeds, and then is durable, or returns
// ErrClosed.
func closeAmidCommits(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	const writers = 4
	made := make([][]string, writers)
	errs := make([]error, writers)
	progress := make(chan struct{}, all)
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for n := 0; errs[i] == nil && n < all/writers; n++ {
				id := numbered(numbered("vm", i), n)
				_, errs[i] = d.Commit(t.Context(), store.Writes{VMs: []store.VMRow{aVM(id)}, Changes: []store.ChangeRow{aChange(id, id)}})
				if errs[i] == nil {
					made[i] = append(made[i], id)
				}
				progress <- struct{}{}
			}
		})
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		wg.Wait()
	}()
	for range 40 {
		select {
		case <-progress:
		case <-ended: // before Close: the writers have failed
		}
	}
	closing := d.Close()
	<-ended
	require.NoError(t, closing)
	for _, err := range errs {
		require.True(t, err == nil || errors.Is(err, store.ErrClosed), err)
	}
	d = opened(t, drivers.Crash(t, d.Driver))
	listed := ids(d.vms(store.VMQuery{}, all), vmID)
	logged := ids(d.changes(store.ChangeQuery{}, all), func(r store.ChangeRow) string { return r.VM })
	require.ElementsMatch(t, listed, logged, "a commit exists whole or not at all")
	for i := range writers {
		require.Subset(t, listed, made[i])
	}
}
