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

// An operation that fails does not affect others in the same commit.
func TestFailedOperationAffectsNoOther(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	fault := errors.New("fault")
	var refused, broken, damage error
	before := r.db.commits.Load()
	r.group(
		func() { refused = r.change(func(*group) error { return fault }) },
		func() { broken = r.change(func(*group) error { panic("at the disco") }) },
		func() {
			_, damage = r.ApplyLate(t.Context(), "vm", "", func() (fleet.Input, time.Time) { panic("too late") })
		},
		func() { r.accept("good", "vm") },
	)
	require.Equal(t, fault, refused)
	require.ErrorContains(t, broken, "at the disco")
	require.NotErrorIs(t, broken, fleet.ErrUnavailable, "a retry would be pointless")
	require.ErrorContains(t, damage, "too late")
	require.Equal(t, before+2, r.db.commits.Load(), "they share a commit")
	r.command("good")
}

// An ack that is committed between the read and the write of a tick is not overwritten.
func TestTickRespectsAck(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	v := r.connect("vm", t0)
	r.accept("first", "vm")
	late := t0.Add(2 * time.Minute) // after the ack timeout
	r.group(
		func() { require.False(t, r.ack("first", v, late).Late) },
		func() {
			_, _, err := r.Tick(t.Context(), late, alive(v.Epoch, "first", late), 10)
			require.NoError(t, err)
		},
	)
	require.Equal(t, fleet.Succeeded, r.command("first").State)
}

// An id may be in use by the same VM or another one, open or ended, or appear twice in a
// group: it belongs to the first command, and a repeated request gets that as its answer.
func TestAcceptedIDs(t *testing.T) {
	t.Parallel()
	for _, held := range []bool{true, false} {
		r := inMemory(t)
		r.accept("open", "a")
		r.accept("ended", "a")
		r.apply(fleet.CancelRequested{VM: "a", Command: "ended"}, t0)
		if !held {
			r.cache.clear()
		}
		var taken [4]error
		again := make([]fleet.Command, 4)
		accept := func(id string, vm fleet.VMID, i int) func() {
			return func() { again[i], _ = r.Accept(t.Context(), drain(t, id, vm)) }
		}
		refuse := func(id string, vm fleet.VMID, i int) func() {
			return func() { _, taken[i] = r.Accept(t.Context(), drain(t, id, vm)) }
		}
		r.group(
			accept("open", "a", 0), refuse("open", "b", 0),
			accept("ended", "a", 1), refuse("ended", "b", 1),
			accept("new", "a", 2), accept("new", "a", 3), refuse("new", "b", 2),
			func() {
				other := drainWith(t, "new", "a", "for another reason")
				_, taken[3] = r.Accept(t.Context(), other)
			},
			func() { r.accept("unharmed", "b") },
		)
		for i, err := range taken {
			require.ErrorIs(t, err, fleet.ErrIDTaken, i)
		}
		for i, id := range []fleet.CommandID{"open", "ended", "new", "new"} {
			require.Equal(t, r.command(id), again[i], id)
			require.EqualValues(t, "a", again[i].VM)
		}
		require.Equal(t, fleet.Cancelled, again[1].State)
		r.command("unharmed")
	}
}

// The same holds when the other VM is in the group and its whole state is in memory.
func TestAcceptedIDOfCachedVM(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	r.accept("open", "a")
	r.event("a", t0)
	var taken error
	r.group(
		func() { _, taken = r.Accept(t.Context(), drain(t, "open", "b")) },
		func() { r.event("a", t0.Add(time.Second)) },
	)
	require.ErrorIs(t, taken, fleet.ErrIDTaken)
}

// When a group has used up the commands of a queue in memory, operations that need more
// wait until the rest is loaded, and nothing is overtaken.
func TestGroupUsesUpQueue(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	const all = 3*fleet.QueueDepth + 2
	for i := range all {
		r.accept(name(i), "vm")
	}
	var v fleet.VM
	var ops []func()
	for i := range all - 1 {
		ops = append(ops, func() { r.apply(fleet.CancelRequested{VM: "vm", Command: fleet.CommandID(name(i))}, t0) })
	}
	ops = append(ops, func() { v = r.apply(fleet.SessionOpened{Hello: fleet.Hello{VM: "vm"}}, t0).State.VM })
	before := r.db.commits.Load()
	r.group(ops...)
	require.Greater(t, r.db.commits.Load(), before+2, "some of them had to wait")
	got, err := r.next(v, "", t0)
	require.NoError(t, err)
	require.EqualValues(t, name(all-1), got)
	s, err := r.State(t.Context(), "vm")
	require.NoError(t, err)
	require.Len(t, s.Commands, 2, "and the register_runner")
}

// insist retries operations that fail because of other writers.
func insist(t *testing.T, do func() error) {
	t.Helper()
	for range 1000 {
		err := do()
		if !errors.Is(err, fleet.ErrUnavailable) {
			require.NoError(t, err)
			return
		}
		require.ErrorContains(t, err, "other writers")
	}
	t.Error("conflicts with other writers never end")
}

// Conflicting writers lose nothing, and give every caller the right answer.
func TestConflictingWriters(t *testing.T) {
	t.Parallel()
	first, _ := onDisk(t)
	second := first.second()
	const callers, each = 8, 12
	var all sync.WaitGroup
	for i := range callers {
		r, vm := first, fleet.VMID(fmt.Sprintf("vm-%d", i%3))
		if i%2 == 1 {
			r = second
		}
		all.Go(func() {
			for j := range each {
				for _, id := range []string{fmt.Sprintf("own-%d-%d", i, j), fmt.Sprintf("all-%d", j)} {
					c := drain(t, id, vm)
					if id[0] == 'a' {
						c.VM = "vm-0"
					}
					insist(t, func() error { _, err := r.Accept(t.Context(), c); return err })
				}
				now := t0.Add(time.Duration(i*each+j) * time.Millisecond)
				insist(t, func() error {
					_, err := r.Apply(t.Context(), fleet.EventReceived{Event: fleet.Event{
						Origin: fleet.Origin{VM: vm, Via: fleet.HTTP, ReceivedAt: now}, Type: "error",
					}}, now)
					return err
				})
				insist(t, func() error {
					_, err := r.Apply(t.Context(), fleet.SessionOpened{Hello: fleet.Hello{VM: vm}}, now)
					return err
				})
			}
		})
	}
	all.Wait()
	cs, _, err := first.Commands(t.Context(), store.CommandQuery{Type: "drain"}, 1000)
	require.NoError(t, err)
	require.Equal(t, callers*each+each, len(cs)) //nolint:testifylint // The list would be too long to read.
	var sessions fleet.Epoch
	for i := range 3 {
		sessions += first.inRow(fleet.VMID(fmt.Sprintf("vm-%d", i))).Epoch
	}
	require.EqualValues(t, callers*each, sessions, "every session has an epoch of its own")
	es, _, err := second.Events(t.Context(), store.EventQuery{}, 1000)
	require.NoError(t, err)
	require.Equal(t, callers*each, len(es)) //nolint:testifylint // The same.
	require.Eventually(t, func() bool { return first.LastChange() == second.LastChange() }, 10*time.Second, time.Millisecond)
	for i := range 3 {
		vm := fleet.VMID(fmt.Sprintf("vm-%d", i))
		// The controllers' clocks decide which of them saw a VM last.
		require.Equal(t, first.vm(vm), second.vm(vm).WithLoad(first.vm(vm)))
	}
}

// A change of another writer is not missed because it is seen while a group is in progress.
func TestChangeIsSeenDuringGroup(t *testing.T) {
	t.Parallel()
	for _, known := range []bool{true, false} { // known to the first engine
		first := inMemory(t)
		second := first.second()
		if known {
			first.event("vm", t0)
		}
		_, err := first.ApplyLate(t.Context(), "vm", "", func() (fleet.Input, time.Time) {
			second.accept("others", "vm")
			require.Eventually(t, func() bool { return first.LastChange() == second.LastChange() }, 10*time.Second, time.Millisecond)
			return fleet.EventReceived{Event: fleet.Event{
				Origin: fleet.Origin{VM: "vm", Via: fleet.HTTP, ReceivedAt: t0}, Type: "error",
			}}, t0
		})
		require.NoError(t, err)
		s, err := first.State(t.Context(), "vm")
		require.NoError(t, err)
		require.Len(t, s.Commands, 1)
	}
}

// A writer that always conflicts gives up with an error.
func TestEndlessConflict(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	r.db.onCommit(func(store.Writes, commitFunc) (store.Committed, error) {
		return store.Committed{}, &store.ConflictError{VMs: []string{"vm"}}
	})
	_, err := r.Apply(t.Context(), fleet.Polled{VM: "vm"}, t0)
	require.ErrorIs(t, err, fleet.ErrUnavailable)
	require.ErrorContains(t, err, "other writers")
	require.EqualValues(t, maxTries, r.db.commits.Load())
	r.db.onCommit(nil)
	r.apply(fleet.Polled{VM: "vm"}, t0)
}
