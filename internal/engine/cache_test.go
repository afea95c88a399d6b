package engine

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

func someVMs(from, to int, connected bool) map[fleet.VMID]*entry {
	some := map[fleet.VMID]*entry{}
	for i := from; i < to; i++ {
		v := fleet.VM{ID: fleet.VMID(strconv.Itoa(i)), Connected: connected}
		some[v.ID] = &entry{id: v.ID, vm: v, cached: cachedVM{version: 1, dirty: connected}}
	}
	return some
}

// The cache keeps within its bound, to which connected VMs do not count.
func TestCacheIsBounded(t *testing.T) {
	t.Parallel()
	c := newCache()
	c.put(someVMs(0, 5, true))
	c.put(someVMs(5, maxDisconnected+20, false))
	require.Len(t, c.vms, maxDisconnected+5)
	require.Len(t, c.dirtyBefore(endOfTime), 5)
	c.forget()
	require.Len(t, c.vms, 5)
	c.clear()
	require.Empty(t, c.vms)
}

// A VM that is no longer connected counts towards the bound again.
func TestCacheCountsDisconnected(t *testing.T) {
	t.Parallel()
	c := newCache()
	for _, connected := range []bool{false, true, true, false} {
		c.put(someVMs(0, 10, connected))
	}
	c.put(someVMs(10, maxDisconnected+10, false))
	require.Len(t, c.vms, maxDisconnected)
	require.Equal(t, maxDisconnected, c.disconnected)
}

// Unknown VMs are not cached.
func TestCacheHoldsNothingUnknown(t *testing.T) {
	t.Parallel()
	c := newCache()
	c.put(map[fleet.VMID]*entry{"unknown": {id: "unknown"}})
	require.Empty(t, c.vms)
}

// A VM that is not cached is loaded; a cached one is not.
func TestVMsAreCached(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	v := r.connect("vm", t0)
	before := r.db.loads.Load()
	for i := range 10 {
		r.record(beat(v, t0.Add(time.Duration(i+1)*time.Second), 1))
		r.accept(name(i), "vm")
		r.ack(fleet.CommandID(name(i)), v, t0.Add(time.Duration(i+1)*time.Second))
		r.vm("vm")
	}
	require.Equal(t, before, r.db.loads.Load())
	r.cache.clear()
	r.vm("vm")
	require.Equal(t, before+1, r.db.loads.Load())
}

// A purged VM is like one that was never seen.
func TestPurgedVMIsForgotten(t *testing.T) {
	t.Parallel()
	r, _ := onDisk(t)
	v := r.connect("vm", t0)
	r.apply(fleet.SessionClosed{VM: "vm", Epoch: v.Epoch}, t0)
	_, err := r.Purge(t.Context(), Retention{VMs: time.Minute}, t0.Add(time.Hour))
	require.NoError(t, err)
	_, err = r.VM(t.Context(), "vm")
	require.ErrorIs(t, err, fleet.ErrNotFound)
	require.EqualValues(t, 1, r.connect("vm", t0.Add(2*time.Hour)).Epoch)
}

// However many commands are queued for a VM, memory holds the first few of each queue, and
// the deliveries are the same.
func TestLongQueue(t *testing.T) {
	t.Parallel()
	const all = 3*fleet.QueueDepth + 1
	for _, reason := range []string{"small", strings.Repeat("x", maxCachedParams+1)} {
		r, _ := onDisk(t)
		bounded := func() {
			h, _ := r.cache.get("vm")
			require.LessOrEqual(t, len(h.commands), 2*fleet.QueueDepth)
			if len(reason) > maxCachedParams {
				require.Empty(t, h.commands, "a large command is not held")
			}
		}
		r.event("vm", t0)
		for i := range all {
			_, err := r.Accept(t.Context(), drainWith(t, name(i), "vm", reason))
			require.NoError(t, err)
			bounded()
		}
		v := r.apply(fleet.SessionOpened{Hello: fleet.Hello{VM: "vm"}}, t0).State.VM
		r.apply(fleet.CancelRequested{VM: "vm", Command: v.Registration.Command}, t0)
		// Far back in the queue, and never cached.
		r.apply(fleet.CancelRequested{VM: "vm", Command: fleet.CommandID(name(all - 2))}, t0)
		// A named command does not overtake those before it that are not cached.
		for _, invalidate := range []func(){func() {}, func() { r.cache.invalidate("vm") }} {
			invalidate()
			again, err := r.Accept(t.Context(), drainWith(t, name(all-1), "vm", reason))
			require.NoError(t, err)
			require.Equal(t, r.command(again.ID), again)
			bounded()
		}
		r.cache.invalidate("vm")
		_, err := r.Apply(t.Context(), fleet.AckReceived{VM: "vm", Epoch: v.Epoch, Ack: fleet.Ack{CommandID: fleet.CommandID(name(all - 3))}}, t0)
		require.ErrorIs(t, err, fleet.ErrNotDelivered)
		var written fleet.CommandID
		for i := range all {
			if i == all-2 {
				continue
			}
			now := t0.Add(time.Duration(i) * time.Second)
			got, err := r.next(v, written, now)
			require.NoError(t, err)
			require.EqualValues(t, name(i), got)
			written = got
			_, err = r.next(v, written, now)
			require.ErrorIs(t, err, fleet.ErrNothingDue, "one is in flight")
			for range 2 { // a late ack changes nothing
				r.ack(got, v, now)
			}
			bounded()
		}
		s, err := r.State(t.Context(), "vm")
		require.NoError(t, err)
		require.Empty(t, s.Commands)
		require.Len(t, reason, len(r.command("c000").Params.Strings["reason"]))
	}
}
