package fleet

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	ackedReason     = "the agent acked it"
	exhaustedReason = "delivered 3 times and never acked: max_deliveries is reached"
	expiredReason   = "not delivered before its deadline"
)

// stopped is c after the end of its session, with its ack clock stopped.
func (c Command) stopped() Command {
	c.DueAt = c.ExpiresAt
	return c
}

// exhaustedOn is c in flight on the session with this epoch, with its last permitted delivery.
func (c Command) exhaustedOn(e Epoch) Command {
	c = c.deliveredBy(Stream, e, t0)
	c.Attempts = 3
	return c
}

func TestCommandAccepted(t *testing.T) {
	t.Parallel()
	c, r := drain("c"), register("r")
	leased := c.deliveredBy(Stream, 2, t1)
	both := []Change{commandChange(c, t0), commandChange(leased, t1)}
	other := c
	other.Type = "shutdown"
	elsewhere := c
	elsewhere.VM = "vm-2"
	late := c
	late.ExpiresAt, late.DueAt = t1, t1
	ended := c.endedAs(Cancelled, "", t0)
	accept := CommandAccepted{New: c}
	testReduce(t, map[string]reduceCase{
		"a VM never seen":                  {in: accept, changed: []Command{c}, answer: c},
		"a VM offline":                     {state: stateOf(offlineVM()), in: accept, changed: []Command{c}, answer: c},
		"leased at once":                   {state: stateOf(liveVM()), in: accept, changed: []Command{leased}, log: both, answer: leased, ready: Ready{"c", false}},
		"past its deadline":                {state: stateOf(liveVM()), in: CommandAccepted{New: late}, changed: []Command{late}, answer: late},
		"behind one in flight":             {state: stateOf(liveVM(), drain("a").deliveredBy(Stream, 2, t0)), in: accept, changed: []Command{c}, answer: c},
		"behind one of an earlier session": {state: stateOf(liveVM(), drain("a").deliveredBy(Stream, 1, t0).stopped()), in: accept, changed: []Command{c}, answer: c, ready: Ready{"a", false}},
		"behind one delivered to a poll":   {state: stateOf(liveVM(), drain("a").deliveredBy(HTTP, 2, t0)), in: accept, changed: []Command{c}, answer: c},
		"behind one that is pending":       {state: stateOf(liveVM(), drain("a")), in: accept, changed: []Command{c}, answer: c, ready: Ready{"a", false}},
		"register_runner":                  {state: stateOf(liveVM()), in: CommandAccepted{New: r}, changed: []Command{r}, answer: r, ready: Ready{"r", true}},
		"register_runner without a token":  {state: stateOf(liveVM().waiting(t1.Add(1))), in: CommandAccepted{New: r}, changed: []Command{r}, answer: r},
		"behind register_runner":           {state: stateOf(requestedVM(), r), in: accept, changed: []Command{c}, answer: c, ready: Ready{"r", true}},
		"ahead of one without a token":     {state: stateOf(requestedVM().waiting(t1.Add(1)), r), in: accept, changed: []Command{c}, answer: c, ready: Ready{"c", false}},
		"repeated":                         {state: stateOf(liveVM(), leased), in: accept, answer: leased},
		"repeated after its end":           {state: State{VM: liveVM(), Named: ended}, in: accept, answer: ended},
		"repeated with another body":       {state: stateOf(liveVM(), leased), in: CommandAccepted{New: other}, err: ErrIDTaken},
		"repeated for another VM":          {state: State{VM: liveVM(), Named: elsewhere}, in: accept, err: ErrIDTaken},
	})
}

func TestCancelRequested(t *testing.T) {
	t.Parallel()
	in := CancelRequested{VM: "vm", Command: "c"}
	pending := drain("c").endedAs(Cancelled, "cancelled before it was delivered", t1)
	out := drain("c").deliveredBy(Stream, 2, t0)
	ended := out.endedAs(Cancelled, cancelledOut, t1)
	r := register("r").endedAs(Cancelled, "cancelled before it was delivered", t1)
	failed := requestedVM()
	failed.Registration.State = RegFailed
	failed.Registration.LastFailure = RegistrationFailure{At: t1, Command: "r", Reason: "an operator cancelled it"}
	elsewhere := drain("c")
	elsewhere.VM = "vm-2"
	cases := map[string]reduceCase{
		"pending":               {state: stateOf(liveVM(), drain("c")), in: in, changed: []Command{pending}, answer: pending},
		"of a VM never seen":    {state: stateOf(VM{}, drain("c")), in: in, changed: []Command{pending}, answer: pending},
		"far back in the queue": {state: State{VM: liveVM(), Commands: []Command{drain("a")}, Named: drain("c")}, in: in, changed: []Command{pending}, answer: pending, ready: Ready{"a", false}},
		"in flight":             {state: stateOf(liveVM(), out, drain("d")), in: in, changed: []Command{ended}, answer: ended, ready: Ready{"d", false}},
		"register_runner": {
			state: stateOf(requestedVM().waiting(t1.Add(1)), register("r")), in: CancelRequested{VM: "vm", Command: "r"},
			vm: failed, changed: []Command{r}, answer: r,
		},
		"another register_runner": {
			state: stateOf(requestedVM().RequestRegistration(register("q")), register("r")), in: CancelRequested{VM: "vm", Command: "r"},
			changed: []Command{r}, answer: r,
		},
		"unknown":       {state: stateOf(liveVM()), in: in, err: ErrNotFound},
		"of another VM": {state: State{VM: liveVM(), Named: elsewhere}, in: in, err: ErrNotFound},
		"cancelled":     {state: State{VM: liveVM(), Named: ended}, in: in, answer: ended},
	}
	for _, s := range []CommandState{Succeeded, Failed, TimedOut, Expired} {
		c := out.endedAs(s, "", t0)
		cases[string(s)] = reduceCase{state: State{VM: liveVM(), Named: c}, in: in, answer: c, err: ErrEnded}
	}
	testReduce(t, cases)
}

// opened is v on its next session, opened at t1.
func (v VM) opened(h Hello) VM {
	v = v.OpenSession(h, t1)
	if v.Registration.State == Registered {
		v.Registration.ProbeAt = t1.Add(30 * time.Second)
	}
	return v
}

func TestSessionOpened(t *testing.T) {
	t.Parallel()
	hello := Hello{VM: "vm", Pool: "p"}
	in := SessionOpened{Hello: hello}
	out, r := drain("c").deliveredBy(Stream, 2, t0), register("r")
	opened := liveVM().opened(hello)
	reg := ownRegister()
	exhausted := r.exhaustedOn(2).endedAs(TimedOut, exhaustedReason, t1)
	unregistered := liveVM().RequestRegistration(r)
	unregistered.Registration.State = Unregistered
	fresh := NewVM("vm", t1).opened(hello)
	cases := map[string]reduceCase{
		"a VM never seen": {in: in, vm: fresh.requestedBy(reg), changed: []Command{reg}, ready: Ready{"reg", true}},
		"a VM never seen, with a register_runner": {
			state: State{Commands: []Command{drain("c"), r}}, in: in,
			vm: fresh.requestedBy(r), ready: Ready{"c", false},
		},
		"no command": {state: stateOf(offlineVM()), in: in, vm: offlineVM().opened(hello)},
		"pending": {
			state: stateOf(offlineVM(), drain("c")), in: in, vm: offlineVM().opened(hello), ready: Ready{"c", false},
		},
		"delivered on an earlier session": {
			state: stateOf(offlineVM(), out.stopped()), in: in, vm: offlineVM().opened(hello), ready: Ready{"c", false},
		},
		"delivered to a poll": {
			state: stateOf(offlineVM(), drain("c").deliveredBy(HTTP, 2, t0), drain("d")), in: in, vm: offlineVM().opened(hello),
		},
		"the session before has written it": {
			state: stateOf(liveVM(), out, drain("d")), in: SessionOpened{hello, "c"}, vm: opened,
			changed: []Command{out.stopped()}, ready: Ready{"c", false},
		},
		"the session before has not written it": {
			state: stateOf(liveVM(), out, drain("d")), in: in, vm: opened, changed: []Command{drain("c")}, ready: Ready{"c", false},
		},
		"its last delivery was on the session before": {
			state: stateOf(liveVM(), drain("c").exhaustedOn(2), drain("d")), in: SessionOpened{hello, "c"}, vm: opened,
			changed: []Command{drain("c").exhaustedOn(2).endedAs(TimedOut, exhaustedReason, t1)}, ready: Ready{"d", false},
		},
		"the last delivery of register_runner was on the session before": {
			state: stateOf(requestedVM(), r.exhaustedOn(2)), in: SessionOpened{hello, "r"},
			vm: requestedVM().failedBy("r", exhaustedReason, t1).opened(hello).requestedBy(reg), changed: []Command{exhausted, reg}, ready: Ready{"reg", true},
			notices: []NoticeKind{NoticeRegistrationFailed},
		},
		"register_runner was delivered on the session before": {
			state: stateOf(requestedVM(), r.deliveredBy(Stream, 2, t0)), in: SessionOpened{hello, "r"},
			vm: awaiting(requestedVM().opened(hello)), changed: []Command{r.deliveredBy(Stream, 2, t0).stopped()},
		},
		"unregistered": {
			state: stateOf(unregistered), in: in, vm: opened.requestedBy(reg), changed: []Command{reg}, ready: Ready{"reg", true},
		},
	}
	for _, s := range []RegistrationState{Requested, Registered, RegFailed} {
		v := vmWith(s)
		cases[string(s)] = reduceCase{state: stateOf(v), in: in, vm: v.opened(hello)}
		if s == Requested { // by an earlier version, which did not check it again
			opened := v.opened(hello)
			opened.Registration.CheckAt = t1.Add(DefaultRegistrationTimeout)
			cases[string(s)] = reduceCase{state: stateOf(v), in: in, vm: opened}
		}
		if s == RegFailed { // by an earlier version, which did not retry
			cases[string(s)] = reduceCase{
				state: stateOf(v), in: in, vm: v.opened(hello).requestedBy(reg), changed: []Command{reg}, ready: Ready{"reg", true},
			}
			v.Registration.LastFailure.At = t0
			cases["cancelled"] = reduceCase{state: stateOf(v), in: in, vm: v.opened(hello)}
		}
	}
	testReduce(t, cases)
}

func TestSessionClosed(t *testing.T) {
	t.Parallel()
	closed := liveVM().CloseSession(2, t1)
	out := drain("c").deliveredBy(Stream, 2, t0)
	waits := requestedVM().waiting(t1.Add(1))
	testReduce(t, map[string]reduceCase{
		"a VM never seen":                  {in: SessionClosed{"vm", 1, ""}, err: ErrNotFound},
		"the newest":                       {state: stateOf(liveVM(), drain("c")), in: SessionClosed{"vm", 2, ""}, vm: closed},
		"superseded":                       {state: stateOf(liveVM(), out), in: SessionClosed{"vm", 1, ""}},
		"already closed":                   {state: stateOf(offlineVM(), out), in: SessionClosed{"vm", 2, ""}},
		"after it wrote the command":       {state: stateOf(liveVM(), out), in: SessionClosed{"vm", 2, "c"}, vm: closed, changed: []Command{out.stopped()}},
		"after it wrote the last delivery": {state: stateOf(liveVM(), drain("c").exhaustedOn(2)), in: SessionClosed{"vm", 2, "c"}, vm: closed, changed: []Command{drain("c").exhaustedOn(2).endedAs(TimedOut, exhaustedReason, t1)}},
		"before it wrote the command":      {state: stateOf(liveVM(), out), in: SessionClosed{"vm", 2, "b"}, vm: closed, changed: []Command{drain("c")}},
		"while it waits for a token":       {state: stateOf(waits, register("r")), in: SessionClosed{"vm", 2, ""}, vm: waits.waiting(noTime).CloseSession(2, t1)},
	})
}

func TestControllerRestarted(t *testing.T) {
	t.Parallel()
	in := ControllerRestarted{VM: "vm"}
	out, old := drain("c").deliveredBy(Stream, 2, t0), drain("b").deliveredBy(Stream, 1, t0)
	testReduce(t, map[string]reduceCase{
		"a VM never seen":     {in: in},
		"live":                {state: stateOf(liveVM(), old.stopped(), out), in: in, vm: liveVM().CloseSession(2, t1), changed: []Command{out.stopped()}},
		"offline":             {state: stateOf(offlineVM(), out), in: in, changed: []Command{out.stopped()}},
		"the last delivery":   {state: stateOf(liveVM(), drain("c").exhaustedOn(2)), in: in, vm: liveVM().CloseSession(2, t1), changed: []Command{drain("c").exhaustedOn(2).endedAs(TimedOut, exhaustedReason, t1)}},
		"delivered to a poll": {state: stateOf(offlineVM(), drain("c").deliveredBy(HTTP, 2, t0)), in: in},
	})
}

func TestPolled(t *testing.T) {
	t.Parallel()
	in, reg := Polled{"vm"}, ownRegister()
	cases := map[string]reduceCase{
		"never seen": {in: in, vm: NewVM("vm", t1).requestedBy(reg), changed: []Command{reg}},
	}
	for _, s := range []RegistrationState{Unregistered, Requested, Registered, RegFailed} {
		v := vmWith(s)
		v.LastSeenAt = t1
		c := reduceCase{state: stateOf(vmWith(s)), in: in, vm: v}
		if s == Unregistered {
			c.vm, c.changed = v.requestedBy(reg), []Command{reg}
			on := c
			on.state, on.vm, on.changed = stateOf(vmWith(s), register("r").deliveredBy(HTTP, 0, t0)), v.requestedBy(register("r")), nil
			cases["its command is on its way"] = on
		}
		cases[string(s)] = c
	}
	testReduce(t, cases)
}

func TestDeliveryFailed(t *testing.T) {
	t.Parallel()
	out := drain("c").deliveredBy(Stream, 2, t0)
	second := drain("c").exhaustedOn(2)
	back := second.stopped()
	back.Attempts, back.Last.Epoch = 2, 1
	ended := out.endedAs(Succeeded, ackedReason, t0)
	testReduce(t, map[string]reduceCase{
		"the first":       {state: stateOf(liveVM(), out), in: DeliveryFailed{"vm", "c", 2}, changed: []Command{drain("c")}, ready: Ready{"c", false}},
		"a later one":     {state: stateOf(liveVM(), second), in: DeliveryFailed{"vm", "c", 2}, changed: []Command{back}, ready: Ready{"c", false}},
		"session is over": {state: stateOf(offlineVM(), out), in: DeliveryFailed{"vm", "c", 2}, changed: []Command{drain("c")}},
		"another session": {state: stateOf(liveVM(), out), in: DeliveryFailed{"vm", "c", 1}},
		"pending":         {state: stateOf(liveVM(), drain("c")), in: DeliveryFailed{"vm", "c", 2}},
		"ended":           {state: State{VM: liveVM(), Named: ended}, in: DeliveryFailed{"vm", "c", 2}},
		"polled":          {state: stateOf(liveVM(), drain("c").deliveredBy(HTTP, 2, t0)), in: DeliveryFailed{"vm", "c", 2}},
		"unknown":         {state: stateOf(liveVM()), in: DeliveryFailed{"vm", "c", 2}, err: ErrNotFound},
	})
}

func TestTick(t *testing.T) {
	t.Parallel()
	at := t0.Add(time.Hour) // the deadline
	out := drain("c").deliveredBy(Stream, 2, t0)
	ackDue := out.DueAt
	overdue := out.endedAs(TimedOut, "no ack within 1m0s", ackDue)
	deferred := out
	deferred.DueAt = ackDue.Add(time.Minute / 16)
	expired := drain("c").endedAs(Expired, expiredReason, at)
	r := register("r").endedAs(Expired, expiredReason, at)
	reg := register("reg")
	reg.CreatedAt, reg.AcceptedAt, reg.ExpiresAt, reg.DueAt = at, at, at.Add(time.Hour), at.Add(time.Hour)
	again := requestedVM().RequestRegistration(reg)
	again.Registration.CheckAt = at.Add(DefaultRegistrationTimeout)
	seen := Live{Epoch: 2, Written: "c", LastMessageAt: t0.Add(time.Second)}
	in := Tick{"vm", "c", Live{}}
	live := liveVM()
	live.Registration.State = RegFailed // its agent reads commands
	testReduce(t, map[string]reduceCase{
		"a VM with nothing due":        {state: stateOf(liveVM()), in: Tick{VM: "vm"}},
		"a VM never seen":              {in: Tick{VM: "vm"}},
		"a VM before its time":         {state: stateOf(requestedVM().waiting(t1.Add(1)), register("r")), in: Tick{VM: "vm"}},
		"no longer waiting":            {state: stateOf(func() VM { v := liveVM(); v.DueAt = t1; return v }()), in: Tick{VM: "vm"}, vm: liveVM()},
		"offline":                      {state: stateOf(offlineVM().waiting(t1), register("r")), in: Tick{VM: "vm"}, vm: offlineVM().waiting(noTime)},
		"an unknown command":           {state: stateOf(liveVM()), in: in, err: ErrNotFound},
		"before the deadline":          {state: stateOf(liveVM(), drain("c"), drain("d")), in: in, now: at.Add(-1)},
		"at the deadline":              {state: stateOf(live, drain("c")), in: in, now: at, changed: []Command{expired}},
		"of a VM never seen":           {state: stateOf(VM{}, drain("c")), in: in, now: at, changed: []Command{expired}},
		"of its register_runner":       {state: stateOf(requestedVM(), register("r")), in: Tick{"vm", "r", Live{}}, now: at, vm: again, changed: []Command{r, reg}, ready: Ready{"reg", true}},
		"ended":                        {state: State{VM: liveVM(), Named: overdue}, in: in, now: at},
		"before an ack is due":         {state: stateOf(live, out), in: Tick{"vm", "c", seen}, now: ackDue.Add(-1)},
		"an ack is overdue":            {state: stateOf(live, out, drain("d")), in: Tick{"vm", "c", seen}, now: ackDue, changed: []Command{overdue}, ready: Ready{"d", false}},
		"on a silent session":          {state: stateOf(live, out), in: in, now: ackDue, changed: []Command{deferred}, log: []Change{}},
		"not written on that session":  {state: stateOf(live, out), in: Tick{"vm", "c", Live{2, "b", seen.LastMessageAt}}, now: ackDue, changed: []Command{deferred}, log: []Change{}},
		"a message on another session": {state: stateOf(live, out), in: Tick{"vm", "c", Live{1, "c", seen.LastMessageAt}}, now: ackDue, changed: []Command{deferred}, log: []Change{}},
		"the session was over":         {state: stateOf(offlineVM(), out.stopped()), in: in, now: ackDue},
		"silent at the deadline":       {state: stateOf(live, out), in: in, now: at, changed: []Command{out.endedAs(TimedOut, "delivered, but not acked before its deadline", at)}},
		"delivered to a poll": {
			state: stateOf(vmWith(RegFailed), drain("c").deliveredBy(HTTP, 0, t0)), in: in, now: ackDue,
			changed: []Command{drain("c").deliveredBy(HTTP, 0, t0).endedAs(TimedOut, "delivered to a poll, and agents that poll do not send acks", ackDue)},
		},
	})
}

// What a VM's record lacks after a crash is restored where it is newer.
func TestRestartedAfterACrash(t *testing.T) {
	t.Parallel()
	cpu := 12.5
	last := &Heartbeat{Origin: Origin{VM: "vm", Via: Stream, Epoch: 2, ReceivedAt: t1}, Status: "draining", Health: &Health{CPUPercent: &cpu}}
	now := t1.Add(time.Hour)
	out, err := testRules.Reduce(stateOf(liveVM()), ControllerRestarted{VM: "vm", LastHeartbeat: last, LastAckAt: t1.Add(1)}, now)
	require.NoError(t, err)
	want := liveVM().CloseSession(2, now)
	want.LastHeartbeatAt, want.LastSeenAt, want.LastAckAt, want.Health = t1, t1.Add(1), t1.Add(1), last.Health
	require.Equal(t, want, out.State.VM, "the load and the times, nothing else")

	known := liveVM()
	known.LastHeartbeatAt, known.LastSeenAt, known.LastAckAt = now, now, now
	out, err = testRules.Reduce(stateOf(known), ControllerRestarted{VM: "vm", LastHeartbeat: last, LastAckAt: t1}, now)
	require.NoError(t, err)
	require.Equal(t, known.CloseSession(2, now), out.State.VM)
}
