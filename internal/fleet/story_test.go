package fleet

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// story is a VM with a sequence of inputs.
type story struct {
	*testing.T
	now     time.Time
	clock   time.Duration // how far the agent's clock is ahead
	state   State
	notices []NoticeKind
	ids     int
	rules   Rules
}

func newStory(t *testing.T) *story {
	t.Helper()
	s := &story{T: t, now: t0, rules: testRules}
	s.rules.NewID = func(VMID) CommandID {
		s.ids++
		return CommandID(fmt.Sprint("r", s.ids))
	}
	return s
}

func (s *story) input(in Input) {
	s.Helper()
	out, err := s.rules.Reduce(s.state, in, s.now)
	require.NoError(s, err)
	s.state = out.State
	for _, n := range out.Notices {
		s.notices = append(s.notices, n.Kind)
	}
}

// after advances the time, with a Tick whenever one is due.
func (s *story) after(d time.Duration) *story {
	s.Helper()
	for end := s.now.Add(d); ; {
		next, command := s.state.VM.DueAt, CommandID("")
		for _, c := range s.state.Commands {
			if next.IsZero() || c.DueAt.Before(next) {
				next, command = c.DueAt, c.ID
			}
		}
		if next.IsZero() || next.After(end) {
			s.now = end
			return s
		}
		s.now = later(s.now, next)
		s.input(Tick{VM: "vm", Command: command, Live: Live{Epoch: s.state.VM.Epoch, Written: command, LastMessageAt: s.now}})
	}
}

func (s *story) origin(via Route) Origin {
	s.now = s.now.Add(time.Second)
	o := Origin{VM: "vm", Via: via, ReceivedAt: s.now, SentAt: s.now.Add(s.clock).Truncate(time.Second)}
	if via == Stream {
		o.Epoch = s.state.VM.Epoch
	}
	return o
}

func (s *story) connect() *story {
	s.Helper()
	s.now = s.now.Add(time.Second)
	s.input(SessionOpened{Hello{VM: "vm"}, ""})
	return s
}

func (s *story) drop() *story {
	s.Helper()
	s.now = s.now.Add(time.Second)
	s.input(SessionClosed{"vm", s.state.VM.Epoch, "r1"})
	return s
}

// deliver sends the next command and returns its id.
func (s *story) deliver() CommandID {
	s.Helper()
	a := LeaseRequest{Via: Stream, Epoch: s.state.VM.Epoch, At: s.now}
	next, err := s.state.Next(a)
	require.NoError(s, err)
	s.input(LeaseRequested{"vm", next.ID, a})
	return next.ID
}

func (s *story) ack(success bool) *story {
	s.Helper()
	id := s.deliver()
	s.now = s.now.Add(time.Second)
	s.input(AckReceived{"vm", s.state.VM.Epoch, Ack{CommandID: id, Success: success, Message: "no"}})
	return s
}

// operator enqueues an operator's command of this type.
func (s *story) operator(id CommandID, kind string) *story {
	s.Helper()
	c := drain(id)
	c.Type, c.AcceptedAt, c.ExpiresAt = kind, s.now, s.now.Add(time.Hour)
	c.DueAt = c.ExpiresAt
	s.input(CommandAccepted{New: c})
	return s
}

// ackID has the agent ack a command that was leased when it was accepted.
func (s *story) ackID(id CommandID, success bool) *story {
	s.Helper()
	s.now = s.now.Add(time.Second)
	s.input(AckReceived{"vm", s.state.VM.Epoch, Ack{CommandID: id, Success: success}})
	return s
}

// contested has several VMs report their start with the same id, the last of them before
// anything is registered.
func (s *story) contested() *story {
	s.Helper()
	for range 2 {
		s.event(HTTP, EventVMStarted).beat(HTTP, StatusRegistering, false)
	}
	return s.event(HTTP, EventVMStarted)
}

// cancel has an operator cancel a command.
func (s *story) cancel(id CommandID) *story {
	s.Helper()
	s.input(CancelRequested{VM: "vm", Command: id})
	return s
}

// started has the oldest kind of agent report its start, and get what is due in the answer.
func (s *story) started() *story {
	s.Helper()
	s.event(HTTP, EventVMStarted).input(Polled{"vm"})
	a := LeaseRequest{Via: HTTP, Started: true, At: s.now}
	if next, err := s.state.Next(a); err == nil {
		s.input(LeaseRequested{"vm", next.ID, a})
	}
	return s
}

func (s *story) event(via Route, kind string) *story {
	s.Helper()
	s.input(EventReceived{Event{Origin: s.origin(via), Type: kind}})
	return s
}

// beat has the agent send a heartbeat in a state, on a stream also with its runner.
func (s *story) beat(via Route, status string, configured bool) *story {
	s.Helper()
	h := Heartbeat{Origin: s.origin(via), Status: status}
	if via == Stream {
		h.Runner = &Runner{Configured: configured}
	}
	s.input(HeartbeatReceived{&h})
	return s
}

// late has a heartbeat in state ready arrive that was sent some time ago.
func (s *story) late(via Route, ago time.Duration) *story {
	s.Helper()
	h := Heartbeat{Origin: s.origin(via), Status: StatusReady}
	h.SentAt = h.SentAt.Add(-ago)
	s.input(HeartbeatReceived{&h})
	return s
}

// registering has today's agent connect and ack its command.
func (s *story) registering() *story {
	s.Helper()
	return s.connect().beat(Stream, StatusReady, false).ack(true).beat(Stream, StatusRegistering, false)
}

// newer has the attempt fail, and the next one begin if it may.
func (s *story) newer() *story {
	s.Helper()
	if s.state.VM.Epoch == 0 {
		s.registering()
	}
	s.drop().beat(HTTP, StatusConnecting, false).connect()
	if s.state.VM.Registration.State == Requested {
		s.ack(true).beat(Stream, StatusRegistering, false)
	}
	return s
}

// registered has it prove that its runner is registered.
func (s *story) registered() *story {
	s.Helper()
	return s.registering().after(10*time.Second).event(Stream, EventRunnerRegistered).beat(Stream, "idle", true)
}
