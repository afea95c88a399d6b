package fleet

import (
	"fmt"
	"time"
)

// DefaultMaxDeliveries is how many deliveries a command may have unless its
// sender or an option says otherwise.
const DefaultMaxDeliveries = 5

// The decision about an overdue ack is postponed, while nothing arrives on the
// session, by a share of the time since the delivery, within these bounds: many
// commands may wait like this at once, each for long.
const (
	leastDeferral = time.Second
	mostDeferral  = 15 * time.Second
	deferralShare = 16
)

// Route is the way something passes between an agent and the controller.
type Route string

// The ways between an agent and the controller.
const (
	Stream Route = "stream"
	HTTP   Route = "http"
)

// Delivery is one attempt to hand a command to its agent.
type Delivery struct {
	// Via is the route it takes.
	Via Route `json:"via,omitempty"`
	// Epoch is the session it is sent on; over HTTP, the VM's newest.
	Epoch Epoch `json:"epoch,omitempty"`
	// Boot is the boot of the VM it is sent to.
	Boot int64 `json:"boot,omitempty"`
	// At is when.
	At time.Time `json:"at,omitzero"`
	// Started is whether it is in the answer to a vm_started that came over HTTP.
	// Only a RegisterRunner can be. Older agents take it from there; those that open
	// a stream do not look at it.
	Started bool `json:"started,omitempty"`
}

// Deliverable reports whether d may be the next delivery of c: before its
// deadline, and at most MaxDeliveries times. A pending command may go any way.
// One that is out goes out again on a newer session, or to a poll once the stream
// it went out on is over; what was handed to a poll is not handed out again in
// that boot. Neither is what was in an answer to vm_started, except on a newer
// session, whose agent may have ignored the answer, and when vm_started is repeated,
// whose agent did not get it.
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

// unused reports whether d was in an answer to vm_started that the agent has not used, as
// far as the next delivery shows: it opened a session since, or repeats vm_started.
func (d Delivery) unused(next Delivery) bool {
	return d.Started && (next.Started || next.Via == Stream && next.Epoch > d.Epoch)
}

// InFlight reports whether c keeps d from delivering another command of its VM:
// it was delivered and its ack may still come. A command that went out on a
// session before has lost its ack, since agents send none twice.
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

// Delivered claims c for a delivery that is about to be made. It returns
// ErrNotDue when c may not be delivered so.
func (c Command) Delivered(d Delivery) (Command, error) {
	if !c.Deliverable(d) {
		return c, ErrNotDue
	}
	c.State = Delivered
	c.Last = d
	c.Attempts++
	c.DueAt = d.At.Add(c.AckTimeout)
	return c, nil
}

// Out reports whether c is out on the session with this epoch.
func (c Command) Out(e Epoch) bool {
	return c.State == Delivered && c.Last.Via == Stream && c.Last.Epoch == e
}

// NotWritten takes back a delivery on the session with this epoch that was not
// written to the agent in full: it does not count, and c is out on that session no
// more. A command that has had no other is pending again.
func (c Command) NotWritten(e Epoch) Command {
	if !c.Out(e) {
		return c
	}
	c.Attempts--
	c.DueAt = c.ExpiresAt
	c.Last.Epoch-- // the delivery before was not on a later one
	if c.Attempts == 0 {
		c.State, c.Last = Pending, Delivery{}
	}
	return c
}

// SessionEnded takes the end of the sessions up to e, also by a newer one. The
// ack clock of a command that is out on one of them stops: until a new session
// delivers it again, only its deadline counts. Else a controller that was down
// for longer than the ack timeout would give up a command that it had claimed and
// never sent. A command that has had all its deliveries ends.
func (c Command) SessionEnded(e Epoch, now time.Time) Command {
	if c.State != Delivered || c.Last.Via != Stream || c.Last.Epoch > e {
		return c
	}
	return c.unclocked(now)
}

// SessionBegan takes the beginning of a newer session. Of a command that was in an answer
// to vm_started the ack clock stops as in SessionEnded: it is due on that session.
func (c Command) SessionBegan(now time.Time) Command {
	if c.State != Delivered || !c.Last.Started {
		return c
	}
	return c.unclocked(now)
}

// unclocked is c with its ack clock stopped; if it has had all its deliveries, it ends.
func (c Command) unclocked(now time.Time) Command {
	if c.exhausted() {
		return c.ended(TimedOut, fmt.Sprintf("delivered %d times and never acked: max_deliveries is reached", c.Attempts), now)
	}
	c.DueAt = c.ExpiresAt
	return c
}

// Lapsed ends c if its time is up: Expired when it was never delivered before
// its deadline, TimedOut when it was and no ack came. v is the VM of c, and
// lastMessageAt when the latest message arrived on the session that c is out on, zero
// for none, and as long as c was not written to it. While that session is not over
// and nothing has arrived on it since the delivery, c is not given up before its
// deadline: the link may be dead, and the end of the session has c delivered
// again.
func (c Command) Lapsed(now, lastMessageAt time.Time, v VM) Command {
	switch {
	case c.State.Terminal() || now.Before(c.DueAt):
		return c
	case c.State == Pending:
		return c.ended(Expired, "not delivered before its deadline", now)
	case v.Connected && c.Out(v.Epoch) && !lastMessageAt.After(c.Last.At) && now.Before(c.ExpiresAt):
		c.DueAt = now.Add(max(leastDeferral, min(now.Sub(c.Last.At)/deferralShare, mostDeferral)))
		return c
	default:
		return c.ended(TimedOut, c.unackedReason(now, v), now)
	}
}

// unackedReason says why no ack came, as far as that is known.
func (c Command) unackedReason(now time.Time, v VM) string {
	reason := fmt.Sprintf("no ack within %s", c.AckTimeout)
	switch {
	case c.Last.Started:
		reason = "handed out in the answer to vm_started, and no runner_registered came"
	case c.Last.Via == HTTP:
		reason = "handed to a poll, and agents that poll send no acks"
	case !now.Before(c.ExpiresAt):
		reason = "delivered, but not acked before its deadline"
	}
	if v.ReadsNoCommands() {
		reason += "; the runner of the VM is registered, and such an agent reads no commands as a rule (nothing acked since)"
	}
	return reason
}

// NextDelivery returns which of the open commands of a VM, oldest first, d is to
// deliver, or ErrNothingDue: none while another is in flight, else the first that
// may be delivered. That is also the one that is claimed for the session of d
// already and was not written to it yet; written is the latest command that was; and
// the one that goes out again in the answer to a repeated vm_started. withoutToken
// leaves RegisterRunner out, so that one that waits for a token blocks nothing.
func NextDelivery(open []Command, d Delivery, written CommandID, withoutToken bool) (Command, error) {
	for _, c := range open {
		switch {
		case !c.InFlight(d):
		case c.Out(d.Epoch) && c.ID != written && d.At.Before(c.ExpiresAt):
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
