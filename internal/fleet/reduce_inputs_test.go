package fleet

import (
	"fmt"
	"time"
)

// decide picks one of several values.
func decide[T any](w *world, from ...T) T { return from[w.below(len(from))] }

// epoch returns the VM's epoch, mostly.
func (w *world) epoch() Epoch {
	return max(0, w.vm.Epoch+decide(w, Epoch(0), 0, 0, 0, 0, 0, -1, 1))
}

// id returns the id of an open command, mostly.
func (w *world) id() CommandID {
	open := w.open(len(w.order))
	switch n := w.below(8); {
	case n == 0 && len(w.order) > 0:
		return decide(w, w.order...)
	case n == 1 || len(open) == 0:
		return "unknown"
	case n < 6:
		for _, c := range open {
			if c.State == Delivered {
				return c.ID
			}
		}
	}
	return decide(w, open...).ID
}

// input returns the next input.
func (w *world) input() Input {
	switch w.below(18) {
	case 0, 1, 2:
		return CommandAccepted{New: w.request()}
	case 3:
		return CancelRequested{VM: "vm", Command: w.id()}
	case 4:
		return SessionOpened{Hello{VM: "vm"}, w.id()}
	case 5:
		return SessionClosed{"vm", w.epoch(), w.id()}
	case 6:
		return decide[Input](w, ControllerRestarted{VM: "vm"}, Polled{"vm"}, Polled{"vm"})
	case 7, 8, 9, 10:
		return w.lease()
	case 11:
		return DeliveryFailed{"vm", w.id(), w.epoch()}
	case 12:
		return decide[Input](w, TokenUnavailable{"vm", "no file"}, TokenUnavailable{"vm", "no answer"}, RunnersConfigured{"vm", w.now})
	case 13, 14:
		return AckReceived{"vm", w.epoch(), Ack{CommandID: w.id(), Success: w.below(2) == 0}}
	case 15:
		return w.event()
	case 16:
		return w.heartbeat()
	default:
		return w.tick()
	}
}

func (w *world) request() Command {
	c := drain(CommandID(fmt.Sprint("c-", len(w.order))))
	c.Type = decide(w, "drain", "drain", RegisterRunner)
	c.AcceptedAt, c.ExpiresAt = w.now, w.now.Add(decide(w, 0, time.Second, time.Minute, time.Hour))
	c.DueAt, c.AckTimeout, c.MaxDeliveries = c.ExpiresAt, decide(w, time.Second, time.Minute), decide(w, 0, 1, 2)
	if w.below(8) == 0 {
		if known, ok := w.commands[w.id()]; ok {
			c.ID, c.Type = known.ID, decide(w, known.Type, c.Type)
		}
	}
	return c
}

// lease is mostly for the next command, and never for a session that has ended.
func (w *world) lease() Input {
	a := LeaseRequest{Via: Stream, Epoch: w.epoch(), Written: w.id(), WithoutToken: w.below(2) == 0, At: w.now}
	if w.below(3) == 0 || !w.vm.Connected && a.Epoch == w.vm.Epoch {
		a.Via, a.Started = HTTP, w.below(2) == 0
	}
	next, err := w.state("").Next(a)
	if err != nil || w.below(8) == 0 {
		next.ID = w.id()
	}
	return LeaseRequested{"vm", next.ID, a}
}

func (w *world) origin() Origin {
	o := Origin{VM: "vm", Via: Stream, Epoch: w.epoch(), ReceivedAt: w.now, Pool: decide(w, "", "p", "q")}
	if w.below(3) == 0 {
		o.Via, o.Epoch = HTTP, 0
	}
	return o
}

func (w *world) event() Input {
	e := Event{Origin: w.origin(), Type: decide(w, EventVMStarted, EventVMStarted, EventRunnerRegistered, EventRunnerCrashed, EventJobStarted, EventJobCompleted, "other")}
	e.SentAt = decide(w, w.now, w.vm.StartedAt, time.Time{})
	return EventReceived{e}
}

func (w *world) heartbeat() Input {
	h := &Heartbeat{Origin: w.origin(), Status: decide(w, "", "idle", StatusConnecting, StatusReady, StatusRegistering, StatusJobRunning, StatusError)}
	h.SentAt = decide(w, w.now, w.now.Add(-time.Minute), time.Time{})
	if w.below(4) == 0 {
		h.Job = &Job{JobID: decide(w, "job:", "1")}
	}
	if h.Via == HTTP {
		h.RunnerState = decide(w, "", "idle")
	} else if w.below(4) > 0 {
		h.Runner = &Runner{Configured: w.below(2) == 0}
	}
	return HeartbeatReceived{h}
}

// tick is mostly for what is due.
func (w *world) tick() Input {
	in := Tick{VM: "vm", Live: Live{w.epoch(), w.id(), w.now.Add(-decide(w, 0, time.Second, time.Hour))}}
	if w.below(4) == 0 {
		in.Command = w.id()
		return in
	}
	for _, c := range w.open(len(w.order)) {
		if !w.now.Before(c.DueAt) {
			in.Command = c.ID
			break
		}
	}
	return in
}
