package engine

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

// beating has a connected VM send this many heartbeats, a second apart. It returns the
// VM as it was connected, and when the last was.
func (r *rig) beating(beats int) (fleet.VM, time.Time) {
	r.Helper()
	v, at := r.connect("vm", t0), t0
	for i := range beats {
		at = at.Add(time.Second)
		r.record(beat(v, at, float64(i)))
	}
	return v, at
}

// Heartbeats that say nothing new do not rewrite the VM's row, and yet readers get the
// last of them.
func TestLoadAheadOfRow(t *testing.T) {
	t.Parallel()
	r, crash := onDisk(t)
	_, last := r.beating(5)
	require.Equal(t, t0.Add(time.Second), r.inRow("vm").LastHeartbeatAt, "the first changed the status, the others nothing")

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

// A VM that is loaded again is still ahead of its row.
func TestReloadedVMIsAheadOfRow(t *testing.T) {
	t.Parallel()
	for _, outdated := range []bool{false, true} {
		r, crash := onDisk(t)
		v, last := r.beating(3)
		if outdated {
			r.cache.outdate("vm")
		}
		large := drainWith(t, "large", "vm", string(make([]byte, 2*maxHeldParams)))
		_, err := r.Accept(t.Context(), large)
		require.NoError(t, err)
		r.accept("other", "vm")
		require.Equal(t, last, r.vm("vm").LastSeenAt)
		written := r.inRow("vm").LastSeenAt
		if !outdated {
			r.record(beat(v, last.Add(time.Millisecond), 1))
			last = last.Add(time.Millisecond)
			require.Equal(t, written, r.inRow("vm").LastSeenAt, "and when that was written is known")
		}
		require.NoError(t, r.Close())
		require.Equal(t, last, crash().inRow("vm").LastSeenAt)
	}
}

// A row that is old is written although nothing but the load has changed.
func TestRowIsWrittenNowAndThen(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	_, last := r.beating(62)
	require.Equal(t, last.Add(-time.Second), r.inRow("vm").LastHeartbeatAt, "a minute after the first")
}

// lasting is v without the observed interval of its heartbeats, which a crash may set
// back by a minute.
func lasting(v fleet.VM) fleet.VM {
	v.BeatInterval = 0
	return v
}

// What a crash keeps from the rows is found in the heartbeats, also in one of
// several rows and several of a VM in one.
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
	require.Len(t, again.beats("vm"), 9, "the new ones follow those from before the crash")
}

// A heartbeat without load does not take with it the load of the one before.
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

// A VM is listed under what it last said of itself, whichever part that was.
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

// A VM without a session is in its row as it is: its row may be purged, and after a
// crash nothing looks for what the row lacks.
func TestRowOfPollingVMIsNotBehind(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	for i := range 3 {
		at := t0.Add(time.Duration(i) * time.Second)
		r.record(fleet.Heartbeat{Origin: fleet.Origin{VM: "vm", Via: fleet.HTTP, ReceivedAt: at}, Status: "idle"})
		require.Equal(t, at, r.inRow("vm").LastHeartbeatAt)
	}
}

// After a crash a VM is not taken back to its last heartbeat when it was seen since:
// by an event, by an ack, which no heartbeat says, also when the command had ended
// before, and by what proves its command.
func TestCrashAfterNewsOfVM(t *testing.T) {
	t.Parallel()
	for name, news := range map[string]func(*rig, fleet.VM, time.Time) time.Time{
		"event": func(r *rig, v fleet.VM, at time.Time) time.Time {
			r.event(v.ID, at)
			return at
		},
		"ack": func(r *rig, v fleet.VM, at time.Time) time.Time {
			r.accept("c", v.ID)
			r.ack("c", v, at)
			require.Less(r, r.inRow(v.ID).LastSeenAt, at, "the command says it")
			return at
		},
		"late ack": func(r *rig, v fleet.VM, at time.Time) time.Time {
			r.accept("c", v.ID)
			at = at.Add(2 * time.Minute)
			_, _, err := r.Tick(r.Context(), at, alive(v.Epoch, "c", at), 1)
			require.NoError(r, err)
			r.event(v.ID, at) // so that the row is young
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
			last = news(r, v, last.Add(time.Second))
			before := r.vm("vm")
			require.Equal(t, last, before.LastSeenAt)
			again := crash()
			again.reset(last.Add(time.Hour))
			require.Equal(t, lasting(before.CloseSession(v.Epoch, last.Add(time.Hour))), lasting(again.vm("vm")))
		})
	}
}

// After a crash what a row lacks is found although others were seen since.
func TestCrashAfterNewsOfOthers(t *testing.T) {
	t.Parallel()
	r, crash := onDisk(t)
	_, last := r.beating(5)
	r.record(fleet.Heartbeat{Origin: fleet.Origin{VM: "other", Via: fleet.HTTP, ReceivedAt: last.Add(rowEvery)}})
	again := crash()
	again.reset(last.Add(time.Hour))
	require.Equal(t, last, again.vm("vm").LastHeartbeatAt)
	require.Len(t, again.beats("vm"), 5)
}

// Heartbeats of a VM that is connected and silent are not too old to be found after
// a crash, whenever that is.
func TestSilentVMSurvivesCrash(t *testing.T) {
	t.Parallel()
	r, crash := onDisk(t)
	_, last := r.beating(5)
	other := r.connect("other", last)
	for at := last; at.Before(last.Add(2 * lookBack)); {
		at = at.Add(40 * time.Second)
		r.record(beat(other, at, 1))
		require.NoError(t, r.checkpoint(t.Context(), at.Add(-2*rowEvery)))
		before := r.vm("vm")
		again := crash()
		again.reset(at)
		require.Equal(t, lasting(before.CloseSession(before.Epoch, at)), lasting(again.vm("vm")), at.Sub(last))
		require.NoError(t, again.Close())
	}
}

// A fleet that falls silent is written whole, in steps that let others in between.
func TestSilentFleetIsWritten(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	const vms = 2*checkpointBatch + 1
	hs := make([]fleet.Heartbeat, vms)
	for i := range hs {
		v := r.apply(fleet.SessionOpened{Hello: fleet.Hello{VM: fleet.VMID("vm-" + strconv.Itoa(i))}}, t0).State.VM
		hs[i] = beat(v, t0, 1)
	}
	r.record(hs...)
	for i := range hs { // which says nothing new
		hs[i].ReceivedAt = t0.Add(1)
	}
	r.record(hs...)
	require.Len(t, r.cache.ahead(endOfTime), vms)
	require.NoError(t, r.checkpoint(t.Context(), t0))
	require.Len(t, r.cache.ahead(endOfTime), vms, "they are young")
	before, changes := r.db.commits.Load(), r.LastChange()
	require.NoError(t, r.checkpoint(t.Context(), t0.Add(1)))
	require.Empty(t, r.cache.ahead(endOfTime))
	require.Equal(t, before+3, r.db.commits.Load())
	require.Equal(t, changes, r.LastChange(), "watchers see no change")
}

// That a runner is registered proves no command but register_runner.
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
