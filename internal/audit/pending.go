package audit

import (
	"cmp"
	"context"
	"sync"
)

// Pending is the event of a call that is in progress. It is safe for concurrent use, and a
// nil one does nothing.
//
// What makes the change stores the event with it, so that neither exists without the other,
// and then calls MarkRecorded. If nothing has, the event is stored when the call ends.
type Pending struct {
	mu       sync.Mutex
	event    Event
	recorded bool
	repeated bool
	announce func(Event) // nil once it was called
}

// NewPending returns a Pending with what is known of the event before the change. announce is
// called once with the event when it is durable and its outcome is known.
func NewPending(e Event, announce func(Event)) *Pending {
	return &Pending{event: e, announce: announce}
}

// Announce announces the event if it is durable and was not announced yet. What has stored it
// calls Announce when it may block.
func (p *Pending) Announce() {
	if p == nil {
		return
	}
	p.mu.Lock()
	announce, event := p.announce, p.event
	if !p.recorded || announce == nil {
		p.mu.Unlock()
		return
	}
	p.announce = nil
	p.mu.Unlock()
	announce(event)
}

// Concerns adds what the event is about to what is not known yet; empty texts add nothing.
func (p *Pending) Concerns(vm, command, detail string) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.event = p.event.about(vm, command, detail)
}

func (e Event) about(vm, command, detail string) Event {
	e.VM, e.Command, e.Detail = cmp.Or(e.VM, vm), cmp.Or(e.Command, command), cmp.Or(e.Detail, detail)
	return e
}

// Made returns the event with the outcome OK, and with what it is about.
func (p *Pending) Made(vm, command, detail string) Event {
	e := p.Event().about(vm, command, detail)
	e.Outcome = OK
	return e
}

// Event returns the event: as it was recorded, or without an outcome.
func (p *Pending) Event() Event {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.event
}

// MarkRecorded notes that the event is durable, as it was stored.
func (p *Pending) MarkRecorded(e Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.event, p.recorded = e, true
}

// Recorded reports whether the event is durable.
func (p *Pending) Recorded() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.recorded
}

// MarkRepeated notes that the call repeats an earlier one and has changed nothing.
func (p *Pending) MarkRepeated() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.repeated = true
}

// Repeated reports whether the call has changed nothing, because it repeats an earlier one.
func (p *Pending) Repeated() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.repeated
}

type pendingKey struct{}

// With returns a context for the call whose event is p.
func With(ctx context.Context, p *Pending) context.Context {
	return context.WithValue(ctx, pendingKey{}, p)
}

// From returns the event of the call that ctx belongs to; nil if there is none.
func From(ctx context.Context) *Pending {
	p, _ := ctx.Value(pendingKey{}).(*Pending)
	return p
}
