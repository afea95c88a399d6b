package engine

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

// beating has a connected VM send this many heartbeats, a second apart. It returns the VM
// as it was when it connected, and the time of the last heartbeat.
func (r *rig) beating(beats int) (fleet.VM, time.Time) {
	r.Helper()
	v, at := r.connect("vm", t0), t0
	for i := range beats {
		at = at.Add(time.Second)
		r.record(beat(v, at, float64(i)))
	}
	return v, at
}

// Heartbeats without changes do not rewrite the VM's row, but readers get the last of them.
func TestLoadAheadOfRow(t *testing.T) {
	t.Parallel()
	r, crash := onDisk(t)
	_, last := r.beating(5)
	require.Equal(t, t0.Add(time.Second), r.inRow("vm").LastHeartbeatAt, "only the first changed the status")

	one := r.vm("vm")
	list, _, err := r.VMs(t.Context(), store.VMQuery{}, 1)
	require.NoError(t, err)
	for _, v := range append(list, one) {
		require.Equal(t, last, v.LastHeartbeatAt)
		require.Equal(t, last, v.LastSeenAt)
		require.InDelta(t, 4, *v.Health.CPUPercent, 0)
	}
	require.Len(t, r.beats("vm"), 5)
	require.NoError(t, r.Close())
	require.Equal(t, one, crash().inRow("vm"), "a stop loses nothing")
}

// A VM that is loaded again is still newer than its row.
func TestReloadedVMIsAheadOfRow(t *testing.T) {
	t.Parallel()
	for _, outdated := range []bool{false, true} {
		r, crash := onDisk(t)
		v, last := r.beating(3)
		if outdated {
			r.cache.invalidate("vm")
		}
		large := drainWith(t, "large", "vm", string(make([]byte, 2*maxCachedParams)))
		_, err := r.Accept(t.Context(), large)
		require.NoError(t, err)
		r.accept("other", "vm")
		require.Equal(t, last, r.vm("vm").LastSeenAt)
		written := r.inRow("vm").LastSeenAt
		if !outdated {
			r.record(beat(v, last.Add(time.Millisecond), 1))
			last = last.Add(time.Millisecond)
			require.Equal(t, written, r.inRow("vm").LastSeenAt, "and the time of that write is known")
		}
		require.NoError(t, r.Close())
		require.Equal(t, last, crash().inRow("vm").LastSeenAt)
	}
}

// An old row is written although only the load has changed.
func TestRowIsWrittenNowAndThen(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	_, last := r.beating(62)
	require.Equal(t, last.Add(-time.Second), r.inRow("vm").LastHeartbeatAt, "a minute after the first")
}

// lasting returns v without the observed heartbeat interval, which a crash may set back by
// a minute.
func lasting(v fleet.VM) fleet.VM {
	v.HeartbeatInterval = 0
	return v
}

// After a crash, what rows lack is found in the heartbeats, whether a VM has several in one
// row or in several rows.
func TestLoadSurvivesCrash(t *testing.T) {
	t.Parallel()
	r, crash := onDisk(t)
	v, last := r.beating(5)
	other := r.connect("other", last)
	r.group(
		func() { r.record(beat(v, last.Add(1), 6), beat(other, last.Add(1), 1)) },
		func() { r.record(beat(v, last.Add(2), 7)) },
		func() { r.record(beat(other, last.Add(3), 2), beat(v, last.Add(3), 8)) },
	)
	last = last.Add(3)
	before := r.vm("vm")
	require.Equal(t, last, before.LastSeenAt)
	again := crash()
	n, err := again.ResetSessions(t.Context(), last.Add(time.Hour))
	require.NoError(t, err)
	require.Equal(t, 2, n)
	require.Equal(t, lasting(before.CloseSession(before.Epoch, last.Add(time.Hour))), lasting(again.vm("vm")))
	require.InDelta(t, 2, *again.vm("other").Health.CPUPercent, 0)
	require.Equal(t, again.vm("vm"), again.inRow("vm"))

	again.record(fleet.Heartbeat{Origin: fleet.Origin{VM: "vm", Via: fleet.HTTP, ReceivedAt: last.Add(2 * time.Hour)}})
	require.Len(t, again.beats("vm"), 9, "the new ones follow the old ones")
}

// A heartbeat without load does not erase the load of the one before.
func TestLoadOfHeartbeatBeforeSurvivesCrash(t *testing.T) {
	t.Parallel()
	r, crash := onDisk(t)
	v, last := r.beating(3)
	for range 2 {
		last = last.Add(time.Second)
		h := beat(v, last, 0)
		h.Health = nil
		r.record(h)
	}
	before := r.vm("vm")
	require.InDelta(t, 2, *before.Health.CPUPercent, 0)
	again := crash()
	again.reset(last)
	require.Equal(t, before.CloseSession(v.Epoch, last), again.vm("vm"))
}

// Lists use what a VM last reported, whichever field that was.
func TestListsFollowReports(t *testing.T) {
	t.Parallel()
	r, _ := onDisk(t)
	_, at := r.beating(1)
	say := fleet.Heartbeat{
		Origin: fleet.Origin{VM: "vm", Pool: "p", Org: "o", Via: fleet.Stream, Epoch: 1}, Status: "idle",
	}
	for _, change := range []func(*fleet.Heartbeat){
		func(*fleet.Heartbeat) {},
		func(h *fleet.Heartbeat) { h.Pool = "p2" },
		func(h *fleet.Heartbeat) { h.Org = "o2" },
		func(h *fleet.Heartbeat) { h.Status = "draining" },
	} {
		at = at.Add(time.Second)
		change(&say)
		say.ReceivedAt = at
		r.record(say)
		for _, q := range []store.VMQuery{{Pool: say.Pool}, {Org: say.Org}, {Status: say.Status}} {
			vms, _, err := r.VMs(t.Context(), q, 10)
			require.NoError(t, err)
			require.Len(t, vms, 1, "%+v", q)
		}
	}
}

// The row of a VM without a session is current: it may be purged, and after a crash nothing
// restores what it lacks.
func TestRowOfPollingVMIsCurrent(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	for i := range 3 {
		at := t0.Add(time.Duration(i) * time.Second)
		r.record(fleet.Heartbeat{Origin: fleet.Origin{VM: "vm", Via: fleet.HTTP, ReceivedAt: at}, Status: "idle"})
		require.Equal(t, at, r.inRow("vm").LastHeartbeatAt)
	}
}

// A crash does not reset a VM to its last heartbeat if it was seen since: by an event, by
// an ack, which no heartbeat contains, even if the command had already ended, or by the
// proof of its command.
func TestCrashAfterLaterReports(t *testing.T) {
	t.Parallel()
	for name, report := range map[string]func(*rig, fleet.VM, time.Time) time.Time{
		"event": func(r *rig, v fleet.VM, at time.Time) time.Time {
			r.event(v.ID, at)
			return at
		},
		"ack": func(r *rig, v fleet.VM, at time.Time) time.Time {
			r.accept("c", v.ID)
			r.ack("c", v, at)
			require.Less(r, r.inRow(v.ID).LastSeenAt, at, "the command has the time")
			return at
		},
		"late ack": func(r *rig, v fleet.VM, at time.Time) time.Time {
			r.accept("c", v.ID)
			at = at.Add(2 * time.Minute)
			_, _, err := r.Tick(r.Context(), at, alive(v.Epoch, "c", at), 1)
			require.NoError(r, err)
			r.event(v.ID, at) // so that the row is recent
			at = at.Add(time.Second)
			require.True(r, r.ack("c", v, at).Late)
			return at
		},
		"proof": func(r *rig, v fleet.VM, at time.Time) time.Time {
			c := drain(r.TB, "c", v.ID)
			c.Type = fleet.RegisterRunner
			_, err := r.Accept(r.Context(), c)
			require.NoError(r, err)
			_, err = r.next(v, "", at)
			require.NoError(r, err)
			r.apply(fleet.EventReceived{Event: fleet.Event{
				Origin: fleet.Origin{VM: v.ID, Via: fleet.Stream, Epoch: v.Epoch, ReceivedAt: at}, Type: fleet.EventRunnerRegistered,
			}}, at)
			require.Equal(r, fleet.Succeeded, r.command("c").State)
			return at
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, crash := onDisk(t)
			v, last := r.beating(3)
			last = report(r, v, last.Add(time.Second))
			before := r.vm("vm")
			require.Equal(t, last, before.LastSeenAt)
			again := crash()
			again.reset(last.Add(time.Hour))
			require.Equal(t, lasting(before.CloseSession(v.Epoch, last.Add(time.Hour))), lasting(again.vm("vm")))
		})
	}
}

// After a crash, what a row lacks is found even if other VMs were seen since.
func TestCrashAfterReportsOfOthers(t *testing.T) {
	t.Parallel()
	r, crash := onDisk(t)
	_, last := r.beating(5)
	r.record(fleet.Heartbeat{Origin: fleet.Origin{VM: "other", Via: fleet.HTTP, ReceivedAt: last.Add(rowEvery)}})
	again := crash()
	again.reset(last.Add(time.Hour))
	require.Equal(t, last, again.vm("vm").LastHeartbeatAt)
	require.Len(t, again.beats("vm"), 5)
}

// Heartbeats of a silent connected VM are never too old to be found after a crash.
func TestSilentVMSurvivesCrash(t *testing.T) {
	t.Parallel()
	r, crash := onDisk(t)
	_, last := r.beating(5)
	other := r.connect("other", last)
	for at := last; at.Before(last.Add(2 * lookBack)); {
		at = at.Add(40 * time.Second)
		r.record(beat(other, at, 1))
		require.NoError(t, r.flushRows(t.Context(), at.Add(-2*rowEvery)))
		before := r.vm("vm")
		again := crash()
		again.reset(at)
		require.Equal(t, lasting(before.CloseSession(before.Epoch, at)), lasting(again.vm("vm")), at.Sub(last))
		require.NoError(t, again.Close())
	}
}

// The rows of a fleet that falls silent are all written, in steps that let other operations
// in between.
func TestSilentFleetIsWritten(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	const vms = 2*flushBatch + 1
	hs := make([]fleet.Heartbeat, vms)
	for i := range hs {
		v := r.apply(fleet.SessionOpened{Hello: fleet.Hello{VM: fleet.VMID("vm-" + strconv.Itoa(i))}}, t0).State.VM
		hs[i] = beat(v, t0, 1)
	}
	r.record(hs...)
	for i := range hs { // with nothing new
		hs[i].ReceivedAt = t0.Add(1)
	}
	r.record(hs...)
	require.Len(t, r.cache.dirtyBefore(endOfTime), vms)
	require.NoError(t, r.flushRows(t.Context(), t0))
	require.Len(t, r.cache.dirtyBefore(endOfTime), vms, "the rows are recent")
	before, changes := r.db.commits.Load(), r.LastChange()
	require.NoError(t, r.flushRows(t.Context(), t0.Add(1)))
	require.Empty(t, r.cache.dirtyBefore(endOfTime))
	require.Equal(t, before+3, r.db.commits.Load())
	require.Equal(t, changes, r.LastChange(), "watchers see no change")
}

// A registered runner is proof of register_runner only.
func TestProofIsOfRegistrationOnly(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	v := r.connect("vm", t0)
	r.accept("first", "vm")
	h := beat(v, t0.Add(time.Second), 1)
	h.Runner = &fleet.Runner{State: "idle", Configured: true}
	r.record(h)
	require.Equal(t, fleet.Registered, r.vm("vm").Registration.State)
	require.Equal(t, fleet.Delivered, r.command("first").State)
}
