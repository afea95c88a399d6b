package fleet

import (
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// notShifted are the times that do not shift when the clock steps, each with the reason.
var notShifted = map[string]string{
	"VM.StartedAt":       "the agent's clock set it",
	"VM.Job.StartedAt":   "the agent's clock set it",
	"VM.FirstSeenAt":     "history: it is not compared with anything",
	"VM.HeartbeatSentAt": "the agent's clock set it",
	"VM.EvidenceSentAt":  "the agent's clock set it",

	"Command.CreatedAt":     "the caller's clock set it",
	"Command.FinishedAt":    "an open command has none",
	"Command.AckedAt":       "an open command has none",
	"Command.Waiting.Since": "derived when it is read, and never stored",
}

// times returns the time fields of a value by name. It first allocates every nil pointer to
// a struct.
func times(name string, v reflect.Value) map[string]*time.Time {
	found := map[string]*time.Time{}
	switch {
	case v.Type() == reflect.TypeFor[time.Time]():
		found[name], _ = reflect.TypeAssert[*time.Time](v.Addr())
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			maps.Copy(found, times(name+"."+v.Type().Field(i).Name, v.Field(i)))
		}
	case v.Kind() == reflect.Pointer && v.Type().Elem().Kind() == reflect.Struct:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		found = times(name, v.Elem())
	}
	return found
}

// filled sets all times of a value to distinct values, and returns them.
func filled(name string, v any) map[string]*time.Time {
	found := times(name, reflect.ValueOf(v).Elem())
	for i, name := range slices.Sorted(maps.Keys(found)) {
		*found[name] = t0.Add(time.Duration(i) * time.Minute)
	}
	return found
}

// requireShifted requires that all times have shifted except those in notShifted.
func requireShifted(t *testing.T, before, after map[string]*time.Time, by time.Duration) {
	t.Helper()
	require.NotEmpty(t, before)
	for name, was := range before {
		want := was.Add(by)
		if notShifted[name] != "" {
			want = *was
		}
		require.Equal(t, want, *after[name], "%s: move it in clockMoved, or give it a reason in notMoved", name)
	}
}

// Every time that is compared with the present shifts with the clock, including those that
// are added to these types later.
func TestClockMovedShiftsEveryTime(t *testing.T) {
	t.Parallel()
	for _, by := range []time.Duration{-time.Hour, 40 * 24 * time.Hour} {
		var v VM
		var c Command
		var l Liveness
		vm, command, liveness := filled("VM", &v), filled("Command", &c), filled("Liveness", &l)
		for name := range notShifted {
			require.True(t, vm[name] != nil || command[name] != nil, "%s is a time", name)
		}
		movedVM, movedCommand, movedLiveness := v.shiftTimes(by), c.shiftTimes(by), l.ShiftTimes(by)
		requireShifted(t, vm, times("VM", reflect.ValueOf(&movedVM).Elem()), by)
		requireShifted(t, command, times("Command", reflect.ValueOf(&movedCommand).Elem()), by)
		requireShifted(t, liveness, times("Liveness", reflect.ValueOf(&movedLiveness).Elem()), by)
	}
	require.Equal(t, VM{}, VM{}.shiftTimes(time.Hour), "zero times stay zero")
	require.Equal(t, Command{}, Command{}.shiftTimes(time.Hour))
}

// clockState is a VM with a command in flight and a pending one.
func clockState() (State, Command, Command) {
	out := Command{
		Seq: 1, ID: "out", VM: "vm", Type: "drain", State: Delivered, Attempts: 1, AcceptedAt: t0, ExpiresAt: t0.Add(time.Hour),
		Last: Delivery{Via: Stream, Epoch: 1, Boot: 1, At: t0.Add(time.Second)}, DueAt: t0.Add(time.Minute),
	}
	pending := Command{
		Seq: 2, ID: "pending", VM: "vm", Type: "drain", State: Pending,
		AcceptedAt: t0.Add(time.Second), ExpiresAt: t0.Add(time.Hour), DueAt: t0.Add(time.Hour),
	}
	v := NewVM("vm", t0)
	v.Connected, v.Epoch, v.ConnectedAt = true, 1, t0
	v.Registration.State = Registered
	return State{VM: v, Commands: []Command{out, pending}}, out, pending
}

// A step of the clock changes the VM, or the named command. It does not look like a
// transition of the command: that is not logged as accepted or delivered again.
func TestClockMoved(t *testing.T) {
	t.Parallel()
	s, out, pending := clockState()
	by := -time.Hour
	vm := s.VM.shiftTimes(by)
	moved := func(c Command) Command { return c.shiftTimes(by) }
	ended := Command{ID: "ended", VM: "vm", State: Succeeded, FinishedAt: t0}
	testReduce(t, map[string]reduceCase{
		"the VM": {state: s, in: ClockMoved{VM: "vm", By: by}, vm: vm},
		"a VM that was never seen": {
			state: State{Commands: s.Commands}, in: ClockMoved{VM: "vm", By: by},
		},
		"a command in flight": {
			state: s, in: ClockMoved{VM: "vm", Command: "out", By: by},
			changed: []Command{moved(out)}, log: []Change{},
		},
		"a pending one": {
			state: s, in: ClockMoved{VM: "vm", Command: "pending", By: by},
			changed: []Command{moved(pending)}, log: []Change{},
		},
		"one that is not among the first": {
			state: State{VM: s.VM, Commands: []Command{out}, Named: pending}, in: ClockMoved{VM: "vm", Command: "pending", By: by},
			changed: []Command{moved(pending)}, log: []Change{},
		},
		"one that has ended":            {state: State{VM: s.VM, Named: ended}, in: ClockMoved{VM: "vm", Command: "ended", By: by}},
		"one that the VM does not have": {state: s, in: ClockMoved{VM: "vm", Command: "other", By: by}, err: ErrNotFound},
	})
}

// What was not due before a step is not due right after it, and becomes due after the same
// time as without the step.
func TestTickAfterClockMoved(t *testing.T) {
	t.Parallel()
	for _, by := range []time.Duration{-time.Hour, 40 * 24 * time.Hour} {
		s, out, pending := clockState()
		now := t0.Add(30 * time.Second)
		for _, id := range []CommandID{"", "out", "pending"} {
			moved, err := testRules.Reduce(s, ClockMoved{VM: "vm", Command: id, By: by}, now.Add(by))
			require.NoError(t, err)
			s = moved.State
		}
		for _, c := range []Command{out, pending} {
			live := Live{Epoch: 1, Written: "out", LastMessageAt: now.Add(by)}
			early, err := testRules.Reduce(s, Tick{VM: "vm", Command: c.ID, Live: live}, c.DueAt.Add(by-1))
			require.NoError(t, err)
			require.Empty(t, early.Commands)
			due, err := testRules.Reduce(s, Tick{VM: "vm", Command: c.ID, Live: live}, c.DueAt.Add(by))
			require.NoError(t, err)
			require.True(t, due.Commands[0].State.Terminal())
		}
	}
}

// An input that was made before a clock step is reduced as if it had been made right after.
func TestShiftInput(t *testing.T) {
	t.Parallel()
	by := -time.Hour
	_, out, _ := clockState()
	require.Equal(t, CommandAccepted{New: out.shiftTimes(by)}, ShiftInput(CommandAccepted{New: out}, by))
	require.Equal(t,
		LeaseRequested{VM: "vm", Command: "out", Request: LeaseRequest{At: t0.Add(by)}},
		ShiftInput(LeaseRequested{VM: "vm", Command: "out", Request: LeaseRequest{At: t0}}, by))
	at := func(at time.Time) Origin { return Origin{VM: "vm", ReceivedAt: at, SentAt: t0} }
	require.Equal(t, EventReceived{Event{Origin: at(t0.Add(by))}}, ShiftInput(EventReceived{Event{Origin: at(t0)}}, by))
	h := &Heartbeat{Origin: at(t0)}
	require.Equal(t, HeartbeatReceived{&Heartbeat{Origin: at(t0.Add(by))}}, ShiftInput(HeartbeatReceived{h}, by))
	require.Equal(t, t0, h.ReceivedAt, "the sender's heartbeat is unchanged")
	require.Equal(t, Polled{"vm"}, ShiftInput(Polled{"vm"}, by))
}
