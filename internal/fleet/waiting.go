package fleet

import (
	"fmt"
	"time"
)

// Waiting is what an open command waits for, as text for people, and since when.
type Waiting struct {
	Reason string
	Since  time.Time
}

// TokenWait is why a register_runner has no token. The zero value means that none waits.
type TokenWait struct {
	// Why is the reason.
	Why string `json:"why"`
	// Since is when the first attempt to get one failed.
	Since time.Time `json:"since"`
	// RetryAt is when the session asks again; zero while another input triggers that.
	RetryAt time.Time `json:"retry_at,omitzero"`
}

// The first attempt to get a token is made at Since, the next ones after one second, two
// more, four, eight, and then every fifteen.
const (
	firstTokenRetry = time.Second
	lastTokenRetry  = 15 * time.Second
)

// NextTry returns when a token is requested next.
func (w TokenWait) NextTry(now time.Time) time.Time {
	at, wait := w.Since, firstTokenRetry
	for ; wait < lastTokenRetry; wait *= 2 {
		if at = at.Add(wait); at.After(now) {
			return at
		}
	}
	return at.Add(max(0, now.Sub(at).Truncate(lastTokenRetry)) + lastTokenRetry)
}

// Fail records that no token was available. If the clock was set back to before the first
// attempt, the schedule starts over.
func (w TokenWait) Fail(why string, now time.Time) TokenWait {
	if w.Since.IsZero() || now.Before(w.Since) {
		w.Since = now
	}
	w.Why = why
	return w
}

// Waiting returns what the registration of v waits for; the zero value when no registration
// is requested.
func (v VM) Waiting(now time.Time) Waiting {
	r := v.Registration
	switch {
	case r.State == RegFailed && !r.NextAttemptAt.IsZero():
		return Waiting{"waits to retry at " + r.Next().Format(time.RFC3339) + ": " + r.LastFailure.Reason, r.LastFailure.At}
	case r.State != Requested:
		return Waiting{}
	case !v.Connected && v.Epoch > 0:
		return v.offline(r.RequestedAt)
	case !v.AwaitsRunnerUntil.IsZero():
		return Waiting{"waits for its agent to report whether the runner is already registered", v.ConnectedAt}
	case v.TokenWait != TokenWait{}:
		return v.waitingForToken(r.RequestedAt, now)
	default:
		return Waiting{"waits for its runner to register, by command " + string(r.Command), r.RequestedAt}
	}
}

func (v VM) offline(since time.Time) Waiting {
	return Waiting{"VM offline since " + v.DisconnectedAt.Format(time.RFC3339), later(since, v.DisconnectedAt)}
}

func (v VM) waitingForToken(since, now time.Time) Waiting {
	next := "when the VM polls"
	if v.Connected {
		in := v.TokenWait.NextTry(now).Sub(now)
		next = fmt.Sprintf("in %d s", int64((in+time.Second-1)/time.Second))
	}
	return Waiting{
		fmt.Sprintf("no registration token (%s), next try %s", v.TokenWait.Why, next),
		later(since, v.TokenWait.Since),
	}
}

// Waits returns what c waits for; the zero value when it has ended. v is the VM
// of c, the zero value when it was never seen, and open the commands of its State.
func (c Command) Waits(v VM, open []Command, now time.Time) Waiting {
	d := Delivery{Via: HTTP, Epoch: v.Epoch, Boot: v.Boot, At: now}
	if v.Connected {
		d.Via = Stream
	}
	switch {
	case c.State.Terminal():
		return Waiting{}
	case c.InFlight(d):
		return c.waitingForAck(v)
	}
	for _, o := range open {
		if o.InFlight(d) {
			return c.waitsFor(o, o.Last.At)
		}
	}
	switch {
	case v.ID == "":
		return Waiting{"the VM has never been seen", c.AcceptedAt}
	case v.Epoch == 0:
		return Waiting{"the VM has no session yet", c.AcceptedAt}
	case !v.Connected:
		return v.offline(c.AcceptedAt)
	case !v.AwaitsRunnerUntil.IsZero() && c.repeatsRegistration():
		return Waiting{"waits for the agent to report whether its runner is already registered", v.ConnectedAt}
	case c.NeedsToken() && v.TokenWait != TokenWait{}:
		return v.waitingForToken(c.AcceptedAt, now)
	}
	next, err := NextDelivery(open, d, "", v.TokenWait != TokenWait{})
	if err == nil && next.Seq < c.Seq {
		return c.waitsFor(next, c.AcceptedAt)
	}
	return Waiting{"about to be delivered", later(c.AcceptedAt, v.ConnectedAt)}
}

// WaitsAlone is Waits without knowledge of the VM and the other commands.
func (c Command) WaitsAlone() Waiting {
	switch {
	case c.State.Terminal():
		return Waiting{}
	case c.State == Pending:
		return Waiting{"waits to be delivered", c.AcceptedAt}
	case (c.Last.Via == Stream || c.Last.Started) && c.DueAt.Equal(c.ExpiresAt): // its session has ended, or one has begun since
		return Waiting{"waits to be delivered again", c.Last.At}
	default:
		return c.waitingForAck(VM{})
	}
}

func (c Command) waitsFor(o Command, since time.Time) Waiting {
	return Waiting{"waits for command " + string(o.ID), later(c.AcceptedAt, since)}
}

func (c Command) waitingForAck(v VM) Waiting {
	until := " until " + c.DueAt.Format(time.RFC3339)
	switch {
	case c.Last.Started:
		return Waiting{"delivered in the answer to vm_started, waits for evidence of its result" + until, c.Last.At}
	case c.Last.Via == HTTP:
		return Waiting{"delivered to a poll, waits for evidence of its result" + until, c.Last.At}
	case c.DueAt.After(c.Last.At.Add(c.AckTimeout)):
		return Waiting{"waits for its ack; nothing has arrived on its session since the delivery", c.Last.At}
	case v.ReadsNoCommands():
		return Waiting{"waits for its ack" + until + "; the runner is registered, and such an agent usually reads no commands", c.Last.At}
	default:
		return Waiting{"waits for its ack" + until, c.Last.At}
	}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
