package fleet

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A VM that polls and reboots each time does not have more delivered commands than a State
// holds: those in flight could be missed.
func TestDeliveredQueueIsBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.vm = vmWith(Registered)
	for i := range 2 * QueueDepth {
		c := drain(CommandID(strconv.Itoa(i)))
		c.MaxDeliveries = 1
		w.order, w.commands[c.ID] = append(w.order, c.ID), c
	}
	poll := func() error {
		w.now = w.now.Add(time.Millisecond)
		a := LeaseRequest{Via: HTTP, At: w.now}
		next, err := w.state("").Next(a)
		if err == nil {
			w.reduce(LeaseRequested{"vm", next.ID, a})
		}
		return err
	}
	for range QueueDepth {
		require.NoError(t, poll())
		require.ErrorIs(t, poll(), ErrNothingDue, "one is in flight")
		w.restart()
	}
	require.ErrorIs(t, poll(), ErrNothingDue, "too many are in flight")
	_, err := testRules.Reduce(w.state(""), LeaseRequested{"vm", "8", LeaseRequest{Via: HTTP, At: w.now}}, w.now)
	require.ErrorIs(t, err, ErrNotDue)
	w.reduce(SessionOpened{Hello{VM: "vm"}, ""})
	w.reduce(SessionClosed{"vm", 1, ""})
	w.reduce(CancelRequested{VM: "vm", Command: "3"})
	require.NoError(t, poll())
	require.Equal(t, Delivered, w.commands["8"].State)
	require.ErrorIs(t, poll(), ErrNothingDue)
}

// Any of the commands in the queue of delivered ones may be delivered again.
func TestDeliveredQueueIsDeliveredAgain(t *testing.T) {
	t.Parallel()
	s := stateOf(liveVM())
	for i := range QueueDepth {
		s.Commands = append(s.Commands, drain(CommandID(strconv.Itoa(i))).deliveredBy(Stream, 1, t0).stopped())
	}
	next, err := s.Next(LeaseRequest{Via: Stream, Epoch: 2, At: t1})
	require.NoError(t, err)
	require.Equal(t, s.Commands[0], next)
}

// reduce applies an input that must not fail.
func (w *world) reduce(in Input) {
	w.Helper()
	_, named := in.Subject()
	out, err := w.rules.Reduce(w.state(named), in, w.now)
	require.NoError(w, err)
	w.apply(out)
}

// restart has the VM reboot.
func (w *world) restart() {
	w.Helper()
	w.vm.Boot++ // whatever the evidence
	w.vm.Registration.State = Registered
}
