package fleet

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// t1 is when the inputs of these tests arrive, unless they say otherwise: long before any
// timer expires.
var t1 = t0.Add(30 * time.Second)

// cancelledOut is the reason of a command that was cancelled after its delivery.
const cancelledOut = "cancelled after it was delivered: the agent may have acted on it"

// testRules make commands with the id "reg".
var testRules = Rules{
	Defaults: CommandDefaults{TTL: time.Hour, AckTimeout: time.Minute, MaxDeliveries: 3},
	NewID:    func(VMID) CommandID { return "reg" },
}

// reduceCase is an input to a state, and its outcome.
type reduceCase struct {
	state State
	in    Input
	now   time.Time // zero for t1
	// vm is the VM afterwards; zero if it is unchanged.
	vm VM
	// changed are the changed commands, in order.
	changed []Command
	// log are the changes; nil for those of changed.
	log []Change
	// answer is the command that the input names.
	answer                Command
	ready                 Ready
	late, stale, recorded bool
	notices               []NoticeKind
	err                   error
}

// testReduce runs cases, each named after the promise it defends.
func testReduce(t *testing.T, cases map[string]reduceCase) {
	t.Helper()
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if c.now.IsZero() {
				c.now = t1
			}
			before := snapshot(t, c.state)
			out, err := testRules.Reduce(c.state, c.in, c.now)
			require.Equal(t, before, snapshot(t, c.state), "the argument is unchanged")
			require.ErrorIs(t, err, c.err)
			for i, n := range out.Notices {
				require.Equal(t, c.vm.ID, n.VM.ID)
				require.Equal(t, c.notices[i], n.Kind)
			}
			require.Len(t, out.Notices, len(c.notices))
			out.Notices = nil
			require.Equal(t, c.want(), out)
		})
	}
}

func (c reduceCase) want() Outcome {
	want := Outcome{
		State: c.state, Command: c.answer, Late: c.late, Stale: c.stale, Commands: c.changed, Changes: c.log,
		VMRecorded: c.recorded, Ready: c.ready,
	}
	if c.vm.ID != "" {
		want.State.VM = c.vm
	}
	if c.err == nil {
		want.State.VM.DueAt = want.State.VM.nextTickAt()
	}
	for _, m := range c.changed {
		if c.log == nil {
			at := c.now
			if _, ok := want.State.Command(m.ID); !ok {
				at = m.AcceptedAt
			}
			want.Changes = append(want.Changes, commandChange(m, at))
		}
		want.State = stateAfter(want.State, m)
	}
	if len(want.Changes) == 0 {
		want.Changes = nil
	} else {
		want.Event = want.Changes[0].Event
	}
	return want
}

func commandChange(c Command, at time.Time) Change { return Change{At: at, Subject: c.VM, Command: &c} }

// stateAfter is s after one of its commands was replaced by m, or m was accepted.
func stateAfter(s State, m Command) State {
	was, open := s.index(m.ID), !m.State.Terminal()
	switch {
	case was < 0 && (!open || s.Named.ID == m.ID):
		s.Named = m
	case was < 0:
		s.Commands = append(slices.Clone(s.Commands), m)
	case open:
		s.Commands = slices.Clone(s.Commands)
		s.Commands[was] = m
	case len(s.Commands) == 1:
		s.Commands = nil
	default:
		s.Commands = slices.Concat(s.Commands[:was], s.Commands[was+1:])
	}
	return s
}

// vmWith is a VM in its first boot, with a registration in this state.
func vmWith(s RegistrationState) VM {
	v := NewVM("vm", t0)
	v.Registration.State = s
	return v
}

// offlineVM is a registered VM whose second session is over.
func offlineVM() VM {
	v := liveVM().CloseSession(2, t0)
	return v
}

// liveVM is a registered VM on its second session.
func liveVM() VM {
	v := vmWith(Registered).OpenSession(Hello{VM: "vm", Pool: "p"}, t0).OpenSession(Hello{VM: "vm", Pool: "p"}, t0)
	v.Registration.ProvenAt, v.Registration.Epoch = t0, 2
	return v
}

// requestedVM is a live VM with a requested registration by the command "r".
func requestedVM() VM { return liveVM().RequestRegistration(register("r")) }

// drain is a pending command.
func drain(id CommandID) Command {
	return Command{
		ID: id, VM: "vm", Type: "drain", CreatedAt: t0, AcceptedAt: t0, ExpiresAt: t0.Add(time.Hour),
		AckTimeout: time.Minute, MaxDeliveries: 3, State: Pending, DueAt: t0.Add(time.Hour),
	}
}

// register is a pending register_runner.
func register(id CommandID) Command {
	c := drain(id)
	c.Type = RegisterRunner
	return c
}

// ownRegister is the register_runner that the controller creates at t1.
func ownRegister() Command {
	c := register("reg")
	c.CreatedAt, c.AcceptedAt, c.ExpiresAt = t1, t1, t1.Add(time.Hour)
	c.DueAt = c.ExpiresAt
	return c
}

// deliveredBy is c after one more delivery.
func (c Command) deliveredBy(via Route, e Epoch, at time.Time) Command {
	timeout := c.AckTimeout
	if via == HTTP && c.Type == RegisterRunner {
		timeout = DefaultRegistrationTimeout
	}
	c.State, c.Last, c.DueAt = Delivered, Delivery{Via: via, Epoch: e, Boot: 1, At: at}, at.Add(timeout)
	c.Attempts++
	return c
}

// endedAs is c after its end.
func (c Command) endedAs(s CommandState, reason string, at time.Time) Command {
	c.State, c.Reason, c.FinishedAt, c.DueAt = s, reason, at, time.Time{}
	return c
}

// waiting is v while it waits for a token since t0, with its next try at due.
func (v VM) waiting(due time.Time) VM {
	v.TokenWait = TokenWait{Why: "no file", Since: t0, RetryAt: due}
	v.DueAt = v.nextTickAt()
	return v
}

// requestedBy is v once its registration was requested by a command accepted at t1.
func (v VM) requestedBy(c Command) VM {
	v = v.RequestRegistration(c)
	v.Registration.CheckAt = t1.Add(DefaultRegistrationTimeout)
	return v
}

// failedBy is v after the attempt to register it by a command has failed at this time.
func (v VM) failedBy(id CommandID, reason string, at time.Time) VM {
	g := &v.Registration
	*g = Registration{
		State: RegFailed, Command: id, RequestedAt: g.RequestedAt, Epoch: g.Epoch, Failures: g.Failures + 1,
		LastFailure: RegistrationFailure{At: at, Command: id, Reason: reason}, NextAttemptAt: at,
	}
	return v
}

func stateOf(v VM, open ...Command) State { return State{VM: v, Commands: open} }

// A poll of a VM that was never seen is in its first boot.
func TestLeaseOfUnseenVM(t *testing.T) {
	t.Parallel()
	a := LeaseRequest{Via: HTTP, At: t1}
	c := drain("c").deliveredBy(HTTP, 0, t1)
	testReduce(t, map[string]reduceCase{
		"leased": {
			state: State{Commands: []Command{drain("c")}},
			in:    LeaseRequested{VM: "vm", Command: "c", Request: a}, changed: []Command{c}, answer: c,
		},
		"in flight": {
			state: State{Commands: []Command{c, drain("d")}},
			in:    LeaseRequested{VM: "vm", Command: "d", Request: a}, err: ErrNotDue,
		},
	})
	_, err := State{Commands: []Command{c, drain("d")}}.Next(a)
	require.ErrorIs(t, err, ErrNothingDue)
}

// A VM whose record was lost is new, but its epochs continue: its earlier sessions have
// ended, and with them the ack clocks of their deliveries.
func TestLostRecord(t *testing.T) {
	t.Parallel()
	out := Command{ID: "out", VM: "vm", State: Delivered, Attempts: 1, Last: Delivery{Via: Stream, Epoch: 7, At: t0}, ExpiresAt: t0.Add(time.Hour), DueAt: t0.Add(time.Minute)}
	lost := State{VM: VM{Epoch: 1000}, Commands: []Command{out}}
	_, err := lost.Next(LeaseRequest{Via: Stream, Epoch: 7, At: t1})
	require.ErrorIs(t, err, ErrNotFound, "no newer session has superseded it")
	require.Equal(t, "the VM has never been seen", Command{ID: "c", State: Pending}.Waits(lost.VM, nil, t1).Reason)

	e := Event{Origin: Origin{VM: "vm", Via: Stream, Epoch: 7, ReceivedAt: t1}, Type: "error"}
	reported, err := testRules.Reduce(lost, EventReceived{Event: e}, t1)
	require.NoError(t, err)
	require.True(t, reported.Stale)
	v := reported.State.VM
	require.Equal(t, t1, v.FirstSeenAt)
	require.False(t, v.Connected)
	require.Equal(t, out.ExpiresAt, reported.Commands[0].DueAt)
	require.Equal(t, "VM offline since "+t1.Format(time.RFC3339), Command{ID: "c", State: Pending}.Waits(v, nil, t1).Reason)
	_, err = reported.State.Next(LeaseRequest{Via: Stream, Epoch: 7, At: t1})
	require.ErrorIs(t, err, ErrNotFound)

	opened, err := testRules.Reduce(reported.State, SessionOpened{Hello: Hello{VM: "vm"}}, t1)
	require.NoError(t, err)
	require.EqualValues(t, 1001, opened.State.VM.Epoch)
	_, err = opened.State.Next(LeaseRequest{Via: Stream, Epoch: 7, At: t1})
	require.ErrorIs(t, err, ErrSuperseded)
}
