// Package control owns what operators do: it accepts and cancels commands, waits for their
// end, lists the fleet and its history, and watches it change.
//
// It validates requests, and nothing else: the transitions are in package fleet, and the
// state is in the engine. A new command reaches its VM through the engine; control does not
// know sessions.
package control

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mig-controller/mig-controller/internal/auth"
	"github.com/mig-controller/mig-controller/internal/engine"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/loglimit"
	"github.com/mig-controller/mig-controller/internal/tracing"
)

// Options are the dependencies of a Control. Every field but Metrics and Traces is required.
type Options struct {
	Engine *engine.Engine
	// Tokens are those of operators.
	Tokens *auth.Tokens
	// Defaults are the limits of a command whose sender specified none.
	Defaults fleet.CommandDefaults
	// Clock returns the time in UTC, without a monotonic part.
	Clock func() time.Time
	Log   *slog.Logger
	// Metrics registers the metrics; nil registers none.
	Metrics prometheus.Registerer
	// Traces makes the spans of acceptances; nil makes none.
	Traces *tracing.Commands
}

// Control implements the operations for operators. It is safe for concurrent use.
//
// A wait and a watch each use one wake-up slot while they last, and a wait of a limited caller
// two; callers must bound their number.
//
// Every method is limited to the VMs that the caller, auth.From of its context, sees: a context
// without a caller sees nothing.
type Control struct {
	engine   *engine.Engine
	tokens   *auth.Tokens
	defaults fleet.CommandDefaults
	clock    func() time.Time
	log      *slog.Logger
	traces   *tracing.Commands
	limiter  loglimit.Limiter
	metrics  metrics

	// waits are woken with the outline of a command when it has ended.
	waits wakers[fleet.CommandID, fleet.Command]
	// watches are woken with the Seq of a change when their VM has changed; those with the
	// empty id, when anything has.
	watches wakers[fleet.VMID, int64]

	stopListening func()
	close         sync.Once
	closed        chan struct{}
}

// New returns a Control that listens to the engine until Close.
func New(o Options) *Control {
	c := &Control{
		engine: o.Engine, tokens: o.Tokens, defaults: o.Defaults, clock: o.Clock, log: o.Log, traces: o.Traces,
		closed: make(chan struct{}),
	}
	c.register(o.Metrics)
	c.stopListening = o.Engine.Listen(c.changed)
	return c
}

// Close ends all waits, which return the records that they have, and all watches, which
// return an error that wraps fleet.ErrUnavailable. It does not wait for the callers.
// Everything else works as long as the engine does.
func (c *Control) Close() {
	c.close.Do(func() {
		close(c.closed)
		c.stopListening()
	})
}

// changed wakes the waits and watches concerned. It does not block.
func (c *Control) changed(changes []fleet.Change) {
	for _, change := range changes {
		if change.Command != nil && change.Command.State.Terminal() {
			c.waits.wake(change.Command.ID, *change.Command)
		}
		if change.Subject != "" {
			c.watches.wake(change.Subject, change.Seq)
		}
	}
	c.watches.wake("", changes[0].Seq)
}

// named adds the subject to an error of the engine. An error that the caller can act on is
// reduced to its sentinel: the engine's details do not concern an operator.
func named(err error, what, id string) error {
	for _, known := range []error{fleet.ErrNotFound, fleet.ErrEnded, fleet.ErrIDTaken, fleet.ErrDamaged} {
		if errors.Is(err, known) {
			err = known
			break
		}
	}
	return fmt.Errorf("%s %q: %w", what, id, err)
}
