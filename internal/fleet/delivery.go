package fleet

import (
	"fmt"
	"time"
)

// DefaultMaxDeliveries is how many deliveries a command may have unless its
// sender or an option says otherwise.
const DefaultMaxDeliveries = 5

// While nothing arrives on the session, the decision about an overdue ack is postponed by a
// share of the time since the delivery, within these bounds: commands that wait for long are
// checked less often.
const (
	minDeferral   = time.Second
	maxDeferral   = 15 * time.Second
	deferralShare = 16
)

// Route is how a message travels between an agent and the controller.
type Route string

// The routes between an agent and the controller.
const (
	Stream Route = "stream"
	HTTP   Route = "http"
)

// Delivery is one attempt to hand a command to its agent.
type Delivery struct {
	// Via is the route of the delivery.
	Via Route `json:"via,omitempty"`
	// Epoch is the session that it is sent on; over HTTP, the VM's newest.
	Epoch Epoch `json:"epoch,omitempty"`
	// Boot is the VM's boot at the time.
	Boot int64 `json:"boot,omitempty"`
	// At is the time of the delivery.
	At time.Time `json:"at,omitzero"`
	// Started is whether it is in the answer to a vm_started that came over HTTP.
	// Only a RegisterRunner can be. Older agents take it from there; those that open
	// a stream do not look at it.
	Started bool `json:"started,omitempty"`
}

// Deliverable reports whether d may be the next delivery of c: before its deadline, and
// at most MaxDeliveries times. A pending command may take any route. A delivered one may
// be delivered again on a newer session, or to a poll once the stream that it was
// delivered on has ended. A command that was handed to a poll is not delivered again in
// the same boot, and neither is one that was in the answer to a vm_started, with two
// exceptions: a newer session, whose agent may have ignored the answer, and a repeated
// vm_started, whose agent did not receive it.
func (c Command) Deliverable(d Delivery) bool {
	switch {
	case c.State.Terminal(), !d.At.Before(c.ExpiresAt), c.exhausted(), d.Started && c.Type != RegisterRunner:
		return false
	case c.State == Pending:
		return true
	case !d.At.Before(c.DueAt):
		return false
	}
	newer := d.Via == HTTP || d.Epoch > c.Last.Epoch
	return newer && (c.Last.Via == Stream || d.Boot > c.Last.Boot || c.Last.unused(d))
}

// unused reports whether d was in the answer to a vm_started that the agent has not used,
// as the next delivery shows: the agent has opened a session since, or repeats vm_started.
func (d Delivery) unused(next Delivery) bool {
	return d.Started && (next.Started || next.Via == Stream && next.Epoch > d.Epoch)
}

// InFlight reports whether c keeps d from delivering another command of its VM: c was
// delivered and its ack may still arrive. Agents send no ack twice, so the ack of a command
// that was delivered on an earlier session is lost.
func (c Command) InFlight(d Delivery) bool {
	switch {
	case c.State != Delivered:
		return false
	case c.Last.Via == HTTP:
		return c.Last.Boot == d.Boot && (d.Started || !c.Last.unused(d))
	default:
		return d.Via == Stream && c.Last.Epoch == d.Epoch
	}
}

// exhausted reports whether c has had all its deliveries.
func (c Command) exhausted() bool { return c.Attempts >= c.MaxDeliveriesOrDefault() }

// MaxDeliveriesOrDefault returns how many deliveries c may have.
func (c Command) MaxDeliveriesOrDefault() int {
	if c.MaxDeliveries == 0 {
		return DefaultMaxDeliveries
	}
	return c.MaxDeliveries
}

// MarkDelivered leases c for the delivery d, which is about to be made. It returns
// ErrNotDue when d is not permitted.
func (c Command) MarkDelivered(d Delivery) (Command, error) {
	if !c.Deliverable(d) {
		return c, ErrNotDue
	}
	c.State = Delivered
	c.Last = d
	c.Attempts++
	c.DueAt = d.At.Add(c.AckTimeout)
	return c, nil
}

// LeasedTo reports whether c is leased to the session with this epoch: delivered on it, or
// about to be.
func (c Command) LeasedTo(e Epoch) bool {
	return c.State == Delivered && c.Last.Via == Stream && c.Last.Epoch == e
}

// ReleaseLease takes back a delivery on the session with this epoch that was not written to
// the agent in full: it does not count, and c is not leased to that session any more.
// Without an earlier delivery c is pending again.
func (c Command) ReleaseLease(e Epoch) Command {
	if !c.LeasedTo(e) {
		return c
	}
	c.Attempts--
	c.DueAt = c.ExpiresAt
	c.Last.Epoch-- // at least the session of the delivery before
	if c.Attempts == 0 {
		c.State, c.Last = Pending, Delivery{}
	}
	return c
}

// EndSession applies the end of the sessions up to e, including one that a newer session
// superseded. The ack clock of a command that is leased to one of them stops: until a new
// session delivers it again, only its deadline counts. Otherwise a controller that was down
// for longer than the ack timeout would give up a command that it had leased but never
// sent. A command that has used up its deliveries ends.
func (c Command) EndSession(e Epoch, now time.Time) Command {
	if c.State != Delivered || c.Last.Via != Stream || c.Last.Epoch > e {
		return c
	}
	return c.stopAckClock(now)
}

// BeginSession applies the beginning of a newer session. It stops the ack clock, as
// EndSession does, of a command that was in the answer to a vm_started: that is due on the
// new session.
func (c Command) BeginSession(now time.Time) Command {
	if c.State != Delivered || !c.Last.Started {
		return c
	}
	return c.stopAckClock(now)
}

// stopAckClock returns c without an ack timeout, or ended if it has used up its deliveries.
func (c Command) stopAckClock(now time.Time) Command {
	if c.exhausted() {
		return c.end(TimedOut, fmt.Sprintf("delivered %d times and never acked: max_deliveries is reached", c.Attempts), now)
	}
	c.DueAt = c.ExpiresAt
	return c
}

// Expire ends c if its time is up: as Expired when it was never delivered before its
// deadline, as TimedOut when it was delivered and no ack arrived. v is the VM of c.
// lastMessageAt is when the latest message arrived on the session that c is leased to;
// zero if there is none, or if c was not written to that session. While that session is
// open and nothing has arrived on it since the delivery, c keeps waiting until its
// deadline: the link may be dead, and after the end of the session c is delivered again.
func (c Command) Expire(now, lastMessageAt time.Time, v VM) Command {
	switch {
	case c.State.Terminal() || now.Before(c.DueAt):
		return c
	case c.State == Pending:
		return c.end(Expired, "not delivered before its deadline", now)
	case v.Connected && c.LeasedTo(v.Epoch) && !lastMessageAt.After(c.Last.At) && now.Before(c.ExpiresAt):
		c.DueAt = now.Add(max(minDeferral, min(now.Sub(c.Last.At)/deferralShare, maxDeferral)))
		return c
	default:
		return c.end(TimedOut, c.unackedReason(now, v), now)
	}
}

// unackedReason returns why no ack arrived, as far as that is known.
func (c Command) unackedReason(now time.Time, v VM) string {
	reason := fmt.Sprintf("no ack within %s", c.AckTimeout)
	switch {
	case c.Last.Started:
		reason = "delivered in the answer to vm_started, but no runner_registered arrived"
	case c.Last.Via == HTTP:
		reason = "delivered to a poll, and agents that poll do not send acks"
	case !now.Before(c.ExpiresAt):
		reason = "delivered, but not acked before its deadline"
	}
	if v.ReadsNoCommands() {
		reason += "; the runner of the VM is registered, and such an agent usually reads no commands (nothing acked since)"
	}
	return reason
}

// NextDelivery returns which of the open commands of a VM, oldest first, d is to deliver:
// the first that may be delivered while no other is in flight. A command in flight is
// itself next in two cases: one that is leased to the session of d but not yet written to it
// (written is the latest command that was), and one that is delivered again in the answer
// to a repeated vm_started. withoutToken leaves out RegisterRunner, so that one that waits
// for a token blocks nothing. It returns ErrNothingDue when there is no such command.
func NextDelivery(open []Command, d Delivery, written CommandID, withoutToken bool) (Command, error) {
	for _, c := range open {
		switch {
		case !c.InFlight(d):
		case c.LeasedTo(d.Epoch) && c.ID != written && d.At.Before(c.ExpiresAt):
			return c, nil
		case d.Started && c.Deliverable(d) && !withoutToken:
			return c, nil
		default:
			return Command{}, ErrNothingDue
		}
	}
	for _, c := range open {
		if c.Deliverable(d) && (!withoutToken || c.Type != RegisterRunner) {
			return c, nil
		}
	}
	return Command{}, ErrNothingDue
}
