package fleet

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A lease is granted for exactly the command that Next returns, unless it was leased
// before.
func TestLeaseRequested(t *testing.T) {
	t.Parallel()
	live, offline := liveVM(), offlineVM()
	stream := LeaseRequest{Via: Stream, Epoch: 2, At: t1}
	poll := LeaseRequest{Via: HTTP, At: t1}
	noToken := stream
	noToken.WithoutToken = true
	wrote := stream
	wrote.Written = "a"
	old := stream
	old.Epoch = 1
	c, r := drain("c"), register("r")
	out, polled := c.deliveredBy(Stream, 2, t1), c.deliveredBy(HTTP, 2, t1)
	waits := requestedVM().waiting(t1.Add(1))
	late := c
	late.ExpiresAt, late.DueAt = t1, t1
	exhausted := c.exhaustedOn(1).stopped()
	again := c.deliveredBy(Stream, 1, t0).stopped()
	for name, test := range map[string]struct {
		state State
		a     LeaseRequest
		lease CommandID
		vm    VM
		want  Command
		err   error // of the lease; that of Next is ErrNothingDue for ErrNotDue
	}{
		"on its session":                 {stateOf(live, c), stream, "c", VM{}, out, nil},
		"by a poll":                      {stateOf(offline, c), poll, "c", VM{}, polled, nil},
		"by a poll, with a live session": {stateOf(live, c), poll, "c", VM{}, Command{}, ErrNothingDue},
		"by a superseded session":        {stateOf(live, c), old, "c", VM{}, Command{}, ErrSuperseded},
		"while another is in flight":     {stateOf(live, drain("a").deliveredBy(Stream, 2, t0), c), wrote, "c", VM{}, Command{}, ErrNotDue},
		"of one delivered to a poll":     {stateOf(live, c.deliveredBy(HTTP, 2, t0)), stream, "c", VM{}, Command{}, ErrNotDue},
		"past its deadline":              {stateOf(live, late), stream, "c", VM{}, Command{}, ErrNotDue},
		"after its last delivery":        {stateOf(live, exhausted), stream, "c", VM{}, Command{}, ErrNotDue},
		"delivered again":                {stateOf(live, again), stream, "c", VM{}, again.deliveredBy(Stream, 2, t1), nil},
		"delivered again, by a poll":     {stateOf(offline, again), poll, "c", VM{}, again.deliveredBy(HTTP, 2, t1), nil},
		"with a token":                   {stateOf(waits, r, c), stream, "r", waits.waiting(noTime).withoutTokenWait(), r.deliveredBy(Stream, 2, t1), nil},
		"without a token":                {stateOf(waits, r, c), noToken, "c", VM{}, out, nil},
		"with a token, by a poll":        {stateOf(offline, r), poll, "r", VM{}, r.deliveredBy(HTTP, 2, t1), nil},
		"with no command":                {stateOf(live), stream, "c", VM{}, Command{}, ErrNotDue},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			next, err := test.state.Next(test.a)
			switch {
			case test.err == nil:
				require.NoError(t, err)
				require.Equal(t, test.lease, next.ID)
			case errors.Is(test.err, ErrNotDue):
				require.ErrorIs(t, err, ErrNothingDue)
			default:
				require.ErrorIs(t, err, test.err)
			}
			want := reduceCase{state: test.state, in: LeaseRequested{"vm", test.lease, test.a}, vm: test.vm, answer: test.want, err: test.err}
			wrong := reduceCase{state: test.state, in: LeaseRequested{"vm", "x", test.a}, err: test.err}
			if test.err == nil {
				want.changed, wrong.err = []Command{test.want}, ErrNotDue
			}
			testReduce(t, map[string]reduceCase{"the next": want, "another": wrong})
		})
	}
}

// A command that was leased to the session but not written to it is next, and needs no
// other lease.
func TestLeasedAndNotWritten(t *testing.T) {
	t.Parallel()
	s := stateOf(liveVM(), drain("c").deliveredBy(Stream, 2, t0), drain("d"))
	a := LeaseRequest{Via: Stream, Epoch: 2, At: t1}
	next, err := s.Next(a)
	require.NoError(t, err)
	require.Equal(t, s.Commands[0], next)
	testReduce(t, map[string]reduceCase{"leased": {state: s, in: LeaseRequested{"vm", "c", a}, err: ErrNotDue}})
	a.Written = "c"
	_, err = s.Next(a)
	require.ErrorIs(t, err, ErrNothingDue)
}

// withoutTokenWait is v when it does not wait for a token.
func (v VM) withoutTokenWait() VM {
	v.TokenWait = TokenWait{}
	return v
}

// The time of the next try to get a token is set while the VM has a session, and advances
// with each Tick. It is cleared when the session or the wait ends.
func TestTokenTimer(t *testing.T) {
	t.Parallel()
	v, now := requestedVM(), t0
	s := stateOf(v, register("r"))
	reduce := func(in Input) Outcome {
		out, err := testRules.Reduce(s, in, now)
		require.NoError(t, err)
		s = out.State
		return out
	}
	missing := TokenUnavailable{"vm", "no file"}
	reduce(missing)
	for i, seconds := range []int{1, 2, 4, 8, 15, 15} {
		due := s.VM.TokenWait.RetryAt
		require.Equal(t, now.Add(time.Duration(seconds)*time.Second), due, i)
		before := s
		now = due.Add(-1)
		require.Equal(t, Outcome{State: before}, reduce(Tick{VM: "vm"}), "not yet")
		now = due
		require.Equal(t, Ready{"r", true}, reduce(Tick{VM: "vm"}).Ready)
		require.True(t, s.VM.TokenWait.RetryAt.After(now))
		before = s
		require.Equal(t, Outcome{State: before}, reduce(Tick{VM: "vm"}), "once")
		require.Equal(t, Outcome{State: before}, reduce(missing), "repeating the reason makes no difference")
	}
	waiting := s
	for name, in := range map[string]Input{
		"leased":    LeaseRequested{"vm", "r", LeaseRequest{Via: Stream, Epoch: 2, At: now}},
		"cancelled": CancelRequested{VM: "vm", Command: "r"},
		"expired":   Tick{"vm", "r", Live{}},
		"closed":    SessionClosed{"vm", 2, ""},
		"opened":    SessionOpened{Hello{VM: "vm"}, ""},
		"restarted": ControllerRestarted{VM: "vm"},
	} {
		s, now = waiting, waiting.VM.TokenWait.RetryAt
		if name == "expired" {
			now = t0.Add(time.Hour)
		}
		reduce(in)
		require.Zero(t, s.VM.TokenWait.RetryAt, name)
		over := name == "closed" || name == "opened" || name == "restarted"
		require.Equal(t, over, s.VM.TokenWait != TokenWait{}, name)
	}
	s, now = waiting, waiting.VM.TokenWait.RetryAt
	reduce(SessionClosed{"vm", 2, ""})
	reduce(TokenUnavailable{"vm", "no answer"})
	require.Equal(t, TokenWait{Why: "no answer", Since: t0}, s.VM.TokenWait)
	require.Zero(t, s.VM.TokenWait.RetryAt, "a poll asks when it arrives")
}

// A missing token has no effect once no command waits for one.
func TestTokenUnavailableForNothing(t *testing.T) {
	t.Parallel()
	s := stateOf(liveVM(), drain("c"))
	out, err := testRules.Reduce(s, TokenUnavailable{"vm", "no file"}, t1)
	require.NoError(t, err)
	require.Equal(t, Outcome{State: s}, out)
}
