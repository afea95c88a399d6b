// Package control owns what operators do: it accepts commands and takes them
// back, waits for their end, lists what the fleet is and was, and watches it
// change.
//
// It decides what a request must look like, and nothing else: the transitions
// are package fleet's, and what is true is with the engine. A new command reaches
// its VM through the engine; control knows nothing of sessions.
package control

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/mig-controller/mig-controller/internal/engine"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/loglimit"
)

// Options are what a Control is made of. Every field is required.
type Options struct {
	Engine *engine.Engine
	// Defaults are the times of a command whose sender named none.
	Defaults fleet.CommandDefaults
	// Clock tells the time in UTC, without a monotonic part.
	Clock func() time.Time
	Log   *slog.Logger
}

// Control does what operators ask for. All its methods may be called
// concurrently.
//
// A wait and a watch each cost one wake-up slot while they are under way, so
// their number is bounded by whoever calls.
type Control struct {
	engine   *engine.Engine
	defaults fleet.CommandDefaults
	clock    func() time.Time
	log      *slog.Logger
	limiter  loglimit.Limiter

	// waits are woken when their command has ended, with its outline.
	waits wakers[fleet.CommandID, fleet.Command]
	// watches are woken when their VM has changed, with the Seq of the change;
	// those of the empty id, when anything has.
	watches wakers[fleet.VMID, int64]

	stopListening func()
	close         sync.Once
	closed        chan struct{}
}

// New returns a Control that listens to the engine until Close.
func New(o Options) *Control {
	c := &Control{
		engine: o.Engine, defaults: o.Defaults, clock: o.Clock, log: o.Log,
		closed: make(chan struct{}),
	}
	c.stopListening = o.Engine.Listen(c.changed)
	return c
}

// Close ends all waits, which answer what they have, and all watches, which
// return an error that wraps fleet.ErrUnavailable. It does not wait for those
// who called them. Everything else goes on for as long as the engine does.
func (c *Control) Close() {
	c.close.Do(func() {
		close(c.closed)
		c.stopListening()
	})
}

// changed wakes those who wait for one of the changes. It does not block.
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

// named adds to an error of the engine what it is about. An error that the caller can
// act on is reduced to its sentinel: what the engine was doing at the time does not
// concern an operator.
func named(err error, what, id string) error {
	for _, known := range []error{fleet.ErrNotFound, fleet.ErrEnded, fleet.ErrIDTaken, fleet.ErrDamaged} {
		if errors.Is(err, known) {
			err = known
			break
		}
	}
	return fmt.Errorf("%s %q: %w", what, id, err)
}
