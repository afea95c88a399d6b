package engine_test

import (
	"fmt"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/engine"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

func testStaleEvent(f *fixture) {
	t := f.T
	old := f.connect("vm")
	now := f.connect("vm")
	v := f.event("vm", fleet.EventRunnerRegistered, fleet.Stream, old.Epoch, time.Time{})
	require.Equal(t, fleet.Requested, v.Registration.State)
	require.Equal(t, now.Registration, f.vm("vm").Registration)
	es, _, err := f.Events(f.Context(), store.EventQuery{VM: "vm"}, 10)
	require.NoError(t, err)
	require.Len(t, es, 1, "it is stored anyway")
}

func testJournalMark(f *fixture) {
	t := f.T
	for range 3 {
		f.event("vm", "job_started", fleet.HTTP, 0, time.Time{})
		f.later(time.Second)
	}
	es, err := f.UnjournaledEvents(f.Context(), 2)
	require.NoError(t, err)
	require.Len(t, es, 2)
	require.NoError(t, f.MarkJournaled(f.Context(), es[1].Seq))
	f.crash()
	es, err = f.UnjournaledEvents(f.Context(), 10)
	require.NoError(t, err)
	require.Len(t, es, 1)
	require.Equal(t, start.Add(2*time.Second), es[0].ReceivedAt)
	require.JSONEq(t, `{"type":"job_started"}`, string(es[0].Body))
}

func testHeartbeats(f *fixture) {
	t := f.T
	v := f.connect("vm")
	half := 0.5
	var hs []fleet.Heartbeat
	for i := range 3 {
		hs = append(hs, fleet.Heartbeat{
			Origin: fleet.Origin{VM: "vm", Pool: "p", Via: fleet.Stream, Epoch: v.Epoch, ReceivedAt: f.later(time.Second)},
			Status: fmt.Sprintf("s%d", i), Health: &fleet.Health{CPUPercent: &half},
			Runner: &fleet.Runner{State: "running", Configured: true, Name: "r", Labels: []string{"a"}},
			Job:    &fleet.Job{JobID: "1", Repository: "o/r"},
		})
	}
	require.NoError(t, f.RecordHeartbeats(f.Context(), hs[:2]))
	require.NoError(t, f.RecordHeartbeats(f.Context(), hs[2:]))
	got, _, err := f.Heartbeats(f.Context(), "vm", time.Time{}, 10)
	require.NoError(t, err)
	require.Equal(t, []fleet.Heartbeat{hs[2], hs[1], hs[0]}, got)
	got, _, err = f.Heartbeats(f.Context(), "vm", time.Time{}, 2)
	require.NoError(t, err)
	require.Equal(t, []fleet.Heartbeat{hs[2], hs[1]}, got)
	got, _, err = f.Heartbeats(f.Context(), "vm", hs[1].ReceivedAt, 10)
	require.NoError(t, err)
	require.Equal(t, []fleet.Heartbeat{hs[0]}, got)
	v = f.vm("vm")
	require.Equal(t, "s2", v.Status)
	require.Equal(t, hs[2].Runner, v.Runner)
	require.Equal(t, hs[2].Job, v.Job)
	require.Equal(t, hs[2].Health, v.Health)
	require.Equal(t, f.now, v.LastHeartbeatAt)

	// Over HTTP an agent reports its runner's state, but not whether it is registered.
	require.NoError(t, f.RecordHeartbeats(f.Context(), []fleet.Heartbeat{{
		Origin:      fleet.Origin{VM: "vm", Via: fleet.HTTP, ReceivedAt: f.later(time.Second)},
		RunnerState: "idle", Body: []byte(`{"unknown":[1]}`),
	}}))
	v = f.vm("vm")
	require.Equal(t, "idle", v.Runner.State)
	require.True(t, v.Runner.Configured)
	require.Nil(t, v.Job)
	require.Equal(t, fleet.Registered, v.Registration.State)
	require.NoError(t, f.RecordHeartbeats(f.Context(), []fleet.Heartbeat{{
		Origin: fleet.Origin{VM: "new", Via: fleet.HTTP, ReceivedAt: f.now}, Status: "idle",
	}}))
	require.Equal(t, "idle", f.vm("new").Status)
}

func testLists(f *fixture) {
	t := f.T
	for i := range 25 {
		vm := fmt.Sprintf("vm-%02d", i)
		f.later(time.Second)
		f.open(fleet.Hello{VM: fleet.VMID(vm), Pool: fmt.Sprintf("p%d", i%2), Org: "o"})
	}
	var ids []fleet.VMID
	for q := (store.VMQuery{Pool: "p1", Org: "o"}); ; {
		vs, _, err := f.VMs(f.Context(), q, 5)
		require.NoError(t, err)
		if len(vs) == 0 {
			break
		}
		for _, v := range vs {
			ids = append(ids, v.ID)
		}
		q.After = string(vs[len(vs)-1].ID)
	}
	require.Len(t, ids, 12)
	require.IsIncreasing(t, ids)
	offline := false
	f.drop("vm-03", 1)
	vs, _, err := f.VMs(f.Context(), store.VMQuery{Connected: &offline}, 5)
	require.NoError(t, err)
	require.Len(t, vs, 1)

	f.send("a", "vm-01")
	f.send("b", "vm-01")
	cs, _, err := f.Commands(f.Context(), store.CommandQuery{
		VM: "vm-01", Type: "drain", States: []string{string(fleet.Failed), string(fleet.Pending)},
	}, 10)
	require.NoError(t, err)
	require.Len(t, cs, 2)
	require.Equal(t, "b", string(cs[0].ID), "the latest first")
	older, _, err := f.Commands(f.Context(), store.CommandQuery{VM: "vm-01", Type: "drain", Before: cs[0].Seq}, 10)
	require.NoError(t, err)
	require.Equal(t, []fleet.Command{cs[1]}, older)

	for range 4 {
		f.event("vm-01", "job_started", fleet.HTTP, 0, time.Time{})
		f.event("vm-02", "job_completed", fleet.HTTP, 0, time.Time{})
		f.later(time.Second)
	}
	es, _, err := f.Events(f.Context(), store.EventQuery{
		VM: "vm-01", Type: "job_started", Since: f.now.Add(-3 * time.Second), Until: f.now.Add(-time.Second),
	}, 10)
	require.NoError(t, err)
	require.Len(t, es, 2)
	require.Greater(t, es[0].Seq, es[1].Seq, "the latest first")
}

func testChanges(f *fixture) {
	t := f.T
	notified := make(chan int64, 100)
	stop := f.Listen(func(cs []fleet.Change) {
		for _, c := range cs {
			notified <- c.Seq
		}
	})
	defer stop()
	v := f.registered("vm")
	f.beat("vm", v.Epoch, "idle", true)
	f.beat("vm", v.Epoch, "idle", true) // nothing new
	cs, _, err := f.Changes(f.Context(), store.ChangeQuery{After: 0}, 100)
	require.NoError(t, err)
	last := f.LastChange()
	require.Equal(t, last, cs[len(cs)-1].Seq)
	var seen []string
	for i, c := range cs {
		require.Equal(t, c.Seq, <-notified, "listeners get the same, in order")
		if i > 0 {
			require.Greater(t, c.Seq, cs[i-1].Seq)
		}
		switch {
		case c.Command != nil:
			seen = append(seen, "command "+string(c.Command.State))
			require.Empty(t, c.Command.Params)
		case c.Event != nil:
			seen = append(seen, "event "+c.Event.Type)
		default:
			require.NotNil(t, c.VM)
		}
	}
	require.Equal(t, []string{
		"command PENDING", "command DELIVERED", "command SUCCEEDED", "event runner_registered",
	}, seen)
	require.Equal(t, "idle", cs[len(cs)-1].VM.Status)
	resumed, _, err := f.Changes(f.Context(), store.ChangeQuery{VM: "vm", After: cs[2].Seq}, 2)
	require.NoError(t, err)
	require.Equal(t, cs[3:5], resumed)
	none, _, err := f.Changes(f.Context(), store.ChangeQuery{VM: "other", After: 0}, 10)
	require.NoError(t, err)
	require.Empty(t, none)
}

func testPurge(f *fixture) {
	t := f.T
	v := f.registered("vm")
	f.beat("vm", v.Epoch, "idle", true)
	f.send("waiting", "vm")
	gone := f.registered("gone")
	f.drop("gone", gone.Epoch)
	before := f.LastChange()
	r := engine.Retention{
		Events: time.Hour, Heartbeats: time.Hour, Commands: time.Hour, VMs: time.Hour, Changes: time.Hour,
	}
	n, err := f.Purge(f.Context(), r, f.now)
	require.NoError(t, err)
	require.Zero(t, n)
	f.later(2 * time.Hour)
	n, err = f.Purge(f.Context(), engine.Retention{}, f.now)
	require.NoError(t, err)
	require.Zero(t, n, "zero keeps forever")
	_, err = f.Purge(f.Context(), r, f.now)
	require.NoError(t, err)

	es, _, err := f.Events(f.Context(), store.EventQuery{}, 10)
	require.NoError(t, err)
	require.Len(t, es, 2, "events wait for their files")
	require.NoError(t, f.MarkJournaled(f.Context(), es[1].Seq))
	_, err = f.Purge(f.Context(), r, f.now)
	require.NoError(t, err)
	es, _, err = f.Events(f.Context(), store.EventQuery{}, 10)
	require.NoError(t, err)
	require.Len(t, es, 1, "one of them still waits")
	r.Unjournaled = true
	_, err = f.Purge(f.Context(), r, f.now)
	require.NoError(t, err)
	es, _, err = f.Events(f.Context(), store.EventQuery{}, 10)
	require.NoError(t, err)
	require.Empty(t, es)
	hs, _, err := f.Heartbeats(f.Context(), "vm", time.Time{}, 10)
	require.NoError(t, err)
	require.Empty(t, hs)
	cs, _, err := f.Commands(f.Context(), store.CommandQuery{}, 10)
	require.NoError(t, err)
	require.Len(t, cs, 1, "open commands are kept")
	_, err = f.VM(f.Context(), "gone")
	require.ErrorIs(t, err, fleet.ErrNotFound)
	require.True(t, f.vm("vm").Connected, "a connected VM is kept")
	f.crash() // what the engine has in memory is not purged
	_, _, err = f.Changes(f.Context(), store.ChangeQuery{After: before - 2}, 10)
	require.ErrorIs(t, err, fleet.ErrCursorExpired)
	_, _, err = f.Changes(f.Context(), store.ChangeQuery{After: before}, 10)
	require.NoError(t, err)
}

func testCrash(f *fixture) {
	t := f.T
	v := f.registered("vm")
	f.beat("vm", v.Epoch, "idle", true)
	c := f.send("a", "vm")
	id := f.ID()
	want := f.vm("vm")
	f.crash()
	require.Equal(t, id, f.ID())
	require.Equal(t, want, f.vm("vm"))
	require.Equal(t, c, f.command("a"))
	_, err := f.ResetSessions(f.Context(), f.now)
	require.NoError(t, err)
	require.False(t, f.vm("vm").Connected)
	v = f.connect("vm")
	require.Greater(t, v.Epoch, want.Epoch)
	require.Equal(t, "a", string(f.mustDeliver("vm", v.Epoch).ID))
}

func testConcurrency(f *fixture) {
	t := f.T
	const vms, each = 20, 10
	var wg sync.WaitGroup
	errs := make(chan error, vms)
	for i := range vms {
		vm := fleet.VMID(fmt.Sprintf("vm-%d", i))
		wg.Go(func() {
			for j := range each {
				c := f.request(fmt.Sprintf("%s-%d", vm, j), string(vm), "drain")
				if _, err := f.enqueue(c); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
	for i := range vms {
		cs, _, err := f.Commands(f.Context(), store.CommandQuery{VM: fmt.Sprintf("vm-%d", i)}, 100)
		require.NoError(t, err)
		require.Len(t, cs, each)
		for j, c := range cs {
			require.Equal(t, fmt.Sprintf("vm-%d-%d", i, each-1-j), string(c.ID), "each caller's order is kept")
		}
	}
}

func testClosed(f *fixture) {
	t := f.T
	require.NoError(t, f.Check(f.Context()))
	require.NoError(t, f.Close())
	_, err := f.enqueue(f.request("a", "vm", "drain"))
	require.ErrorIs(t, err, fleet.ErrUnavailable)
	_, err = f.VM(f.Context(), "vm")
	require.ErrorIs(t, err, fleet.ErrUnavailable)
	require.ErrorIs(t, f.Check(f.Context()), fleet.ErrUnavailable)
}
