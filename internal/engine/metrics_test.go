package engine

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
	"github.com/mig-controller/mig-controller/internal/testkit"
)

// counted returns the metrics that are not zero, without those of commits.
func (r *rig) counted() map[string]float64 {
	r.Helper()
	all := testkit.Metrics(r.TB, r.metrics)
	for name, n := range all {
		if n == 0 || name == "commit_seconds_sum" || name == "commit_rows_sum" || name == "commit_seconds_count" || name == "commit_rows_count" {
			delete(all, name)
		}
	}
	return all
}

// Each step of a command, a registration and a report is counted by its type.
func TestStepsAreCounted(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	v := r.apply(fleet.SessionOpened{Hello: fleet.Hello{VM: "vm"}}, t0).State.VM
	register, err := r.next(v, "", t0.Add(2*time.Second))
	require.NoError(t, err)
	r.ack(register, v, t0.Add(5*time.Second))
	r.event("vm", t0.Add(6*time.Second)) // an error
	r.apply(fleet.EventReceived{Event: fleet.Event{
		Origin: fleet.Origin{VM: "vm", Via: fleet.Stream, Epoch: v.Epoch, ReceivedAt: t0.Add(7 * time.Second)}, Type: fleet.EventRunnerRegistered,
	}}, t0.Add(7*time.Second))
	c := drain(t, "own", "vm")
	c.Type = "own_type"
	_, err = r.Accept(t.Context(), c) // it is leased with its acceptance
	require.NoError(t, err)
	r.record(beat(v, t0.Add(8*time.Second), 1), beat(v, t0.Add(9*time.Second), 2))
	require.Equal(t, map[string]float64{
		`commands_accepted_total{type="register_runner"}`:                   1,
		`commands_delivered_total{type="register_runner"}`:                  1,
		`command_delivery_seconds_count{type="register_runner"}`:            1,
		`command_delivery_seconds_sum{type="register_runner"}`:              2,
		`command_ack_seconds_count{type="register_runner"}`:                 1,
		`command_ack_seconds_sum{type="register_runner"}`:                   3,
		`commands_finished_total{state="SUCCEEDED",type="register_runner"}`: 1,
		`registrations_total{outcome="registered"}`:                         1,
		`events_total{type="error"}`:                                        1,
		`events_total{type="runner_registered"}`:                            1,
		`commands_accepted_total{type="other"}`:                             1,
		`commands_delivered_total{type="other"}`:                            1,
		`command_delivery_seconds_count{type="other"}`:                      1,
		`heartbeats_stored_total`:                                           2,
		`vms_cached`:                                                        1,
	}, r.counted())

	old := beat(v, t0.Add(10*time.Second), 3)
	old.Epoch--
	r.record(old)
	require.InDelta(t, 2, r.counted()["heartbeats_stored_total"], 0, "those of superseded sessions are not stored")
	r.ack("own", v, t0.Add(time.Minute))
	r.ack("own", v, t0.Add(2*time.Minute))
	require.InDelta(t, 1, r.counted()[`command_ack_seconds_count{type="other"}`], 0, "once")
	require.InDelta(t, 1, r.counted()[`commands_finished_total{state="SUCCEEDED",type="other"}`], 0)
	_, err = r.Accept(t.Context(), c)
	require.NoError(t, err)
	require.InDelta(t, 1, r.counted()[`commands_accepted_total{type="other"}`], 0, "repeated sends are not counted")
	r.apply(fleet.EventReceived{Event: fleet.Event{Origin: fleet.Origin{VM: "vm", Via: fleet.HTTP, ReceivedAt: t0}, Type: "own"}}, t0)
	require.InDelta(t, 1, r.counted()[`events_total{type="other"}`], 0)
}

// A delivery that was not written and its repetition are two deliveries; a late ack is not
// measured.
func TestRepeatedDeliveriesAreCounted(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	v := r.connect("vm", t0)
	r.accept("c", "vm")
	r.apply(fleet.DeliveryFailed{VM: "vm", Command: "c", Epoch: v.Epoch}, t0)
	_, err := r.next(v, "", t0)
	require.NoError(t, err)
	_, _, err = r.Tick(t.Context(), t0.Add(time.Hour), alive(v.Epoch, "c", t0.Add(time.Hour)), 10)
	require.NoError(t, err)
	require.True(t, r.ack("c", v, t0.Add(time.Hour)).Late)
	counted := r.counted()
	require.InDelta(t, 2, counted[`commands_delivered_total{type="drain"}`], 0)
	require.InDelta(t, 1, counted[`commands_finished_total{state="TIMED_OUT",type="drain"}`], 0)
	require.NotContains(t, counted, `command_ack_seconds_count{type="drain"}`)
}

// What a failed commit contained is not counted, and what is committed after a conflict is
// counted once.
func TestOnlyDurableStepsAreCounted(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	v := r.connect("vm", t0)
	before := r.counted()
	r.db.onCommit(func(store.Writes, commitFunc) (store.Committed, error) { return store.Committed{}, errDisk })
	_, err := r.Accept(t.Context(), drain(t, "c", "vm"))
	require.ErrorIs(t, err, errDisk)
	require.ErrorIs(t, r.RecordHeartbeats(t.Context(), []fleet.Heartbeat{beat(v, t0, 1)}), errDisk)
	before["commits_failed_total"] = 2
	require.Equal(t, before, r.counted())

	conflicts := 0
	r.db.onCommit(func(w store.Writes, next commitFunc) (store.Committed, error) {
		conflicts++
		if conflicts < 3 {
			return store.Committed{}, &store.ConflictError{VMs: []string{"vm"}}
		}
		return next(w)
	})
	r.accept("c", "vm")
	require.Equal(t, 3, conflicts)
	before[`commands_accepted_total{type="drain"}`] = 1
	before[`commands_delivered_total{type="drain"}`] = 1
	before[`command_delivery_seconds_count{type="drain"}`] = 1
	require.Equal(t, before, r.counted())
}

// Commits are measured with their rows, and inputs count as waiting while one is in
// progress.
func TestCommitsAreMeasured(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	before := testkit.Metrics(t, r.metrics)
	r.event("vm", t0) // the VM, the event, and a change of each
	after := testkit.Metrics(t, r.metrics)
	require.InDelta(t, 1, after["commit_seconds_count"]-before["commit_seconds_count"], 0)
	require.InDelta(t, 4, after["commit_rows_sum"]-before["commit_rows_sum"], 0)
	require.Greater(t, after["commit_seconds_sum"], before["commit_seconds_sum"])
	r.whileCommitting(func(all *sync.WaitGroup) {
		all.Go(r.mark)
		r.queued(1)
		require.InDelta(t, 1, testkit.Metrics(t, r.metrics)["inputs_waiting"], 0)
	})
	require.Zero(t, testkit.Metrics(t, r.metrics)["inputs_waiting"])
}

// Damaged rows are counted by their class.
func TestDamagedRowsAreCounted(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	r.accept("c", "vm-1")
	r.event("vm-1", t0)
	r.damageVM("vm-1")
	r.damageCommands("c")
	_, err := r.VM(t.Context(), "vm-1")
	require.ErrorIs(t, err, fleet.ErrDamaged)
	require.InDelta(t, 1, r.counted()[`damaged_rows_total{class="vms"}`], 0)
	require.NotContains(t, r.counted(), `damaged_rows_total{class="commands"}`)
	_, err = r.Command(t.Context(), "c")
	require.ErrorIs(t, err, fleet.ErrDamaged)
	require.InDelta(t, 1, r.counted()[`damaged_rows_total{class="commands"}`], 0)
	_, err = r.Command(t.Context(), "c")
	require.ErrorIs(t, err, fleet.ErrDamaged)
	require.InDelta(t, 1, r.counted()[`damaged_rows_total{class="commands"}`], 0, "once")
}
