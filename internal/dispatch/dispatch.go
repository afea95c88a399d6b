// Package dispatch owns the live sessions of agents and everything that passes
// between an agent and the controller: delivering commands, taking acks, events
// and heartbeats, ending what has run out of time, and writing the journal.
//
// It learns of new commands from the store alone.
package dispatch

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/journal"
	"github.com/mig-controller/mig-controller/internal/registration"
	"github.com/mig-controller/mig-controller/internal/store"
)

// The keys of log lines.
const (
	keyVM      = "vm_id"
	keyCommand = "command_id"
	keyEpoch   = "session_epoch"
	keyType    = "type"
	keyError   = "error"
)

// Store is what a Dispatcher needs of the store.
type Store interface {
	store.Deliveries
	store.Sessions
	store.Reports
	Purge(ctx context.Context, r store.Retention, now time.Time) (int, error)
	Listen(fn func([]fleet.Change)) (stop func())
}

// Options are the parts and settings of a Dispatcher.
type Options struct {
	Store     Store
	Registrar *registration.Registrar
	// Journal is nil when it is switched off.
	Journal   *journal.Journal
	Defaults  fleet.CommandDefaults
	Retention store.Retention
	Clock     func() time.Time
	Log       *slog.Logger
	// Hold is how long a stream that is refused or superseded is held before it
	// ends: agents reconnect at once. Zero is 5 s. It must stay under the 10 s
	// in which a superseded stream is to end.
	Hold time.Duration
	// MaxHeld is how many streams are held at a time; more end at once. Zero is
	// 1000.
	MaxHeld int
}

// Dispatcher serves all agents of one controller. It is safe for concurrent
// use.
type Dispatcher struct {
	Options
	registry registry
	beats    *heartbeats
	counters counters
	holds    chan struct{}
	lastSeen atomic.Int64 // the latest receive time, in Unix nanoseconds

	stopping   chan struct{}
	stopOnce   sync.Once
	background sync.WaitGroup
	journaling chan struct{} // an event was stored; holds one
	unlisten   func()
}

// Start ends the sessions that a controller before this one left behind and
// returns a Dispatcher at work. Close stops it.
func Start(ctx context.Context, o Options) (*Dispatcher, error) {
	if o.Hold == 0 {
		o.Hold = 5 * time.Second
	}
	if o.MaxHeld == 0 {
		o.MaxHeld = 1000
	}
	n, err := o.Store.ResetSessions(ctx, o.Clock())
	if err != nil {
		return nil, err
	}
	if n > 0 {
		o.Log.Info("sessions of an earlier run ended", "sessions", n)
	}
	d := &Dispatcher{
		Options: o, holds: make(chan struct{}, o.MaxHeld),
		stopping: make(chan struct{}), journaling: make(chan struct{}, 1),
	}
	d.registry.sessions = map[fleet.VMID]*Session{}
	d.beats = newHeartbeats(d)
	d.unlisten = o.Store.Listen(d.changed)
	d.wakeJournal() // what an earlier run left unwritten
	for _, work := range []func(){d.beats.flushLoop, d.sweepLoop, d.purgeLoop, d.journalLoop} {
		d.background.Go(work)
	}
	return d, nil
}

// EndSessions ends all sessions and refuses new ones. It returns when the last
// has gone or ctx ends.
func (d *Dispatcher) EndSessions(ctx context.Context) {
	d.stopOnce.Do(func() { close(d.stopping) })
	for _, s := range d.registry.all() {
		s.end(errStopping)
	}
	d.registry.waitEmpty(ctx)
}

// Close ends what sessions are left, writes what is buffered and stops. The
// store and the journal stay open.
func (d *Dispatcher) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	d.EndSessions(ctx)
	d.beats.stop()
	d.background.Wait()
	d.unlisten()
}

// changed is called by the store after each commit.
func (d *Dispatcher) changed(changes []fleet.Change) {
	for _, c := range changes {
		switch {
		case c.Command != nil && c.Command.State != fleet.Delivered:
			d.registry.wake(c.Subject)
		case c.Event != nil:
			d.wakeJournal()
		}
	}
}

// receivedAt is the time now, later than every time it gave before: the receive
// time of a report identifies it.
func (d *Dispatcher) receivedAt() time.Time {
	now := d.Clock().UnixNano()
	for {
		last := d.lastSeen.Load()
		next := max(now, last+1)
		if d.lastSeen.CompareAndSwap(last, next) {
			return time.Unix(0, next).UTC()
		}
	}
}

func (d *Dispatcher) registerCommand(vm fleet.VMID) fleet.Command {
	return registration.Command(vm, d.Defaults, d.Clock())
}

// Hold waits for as long as a refused stream is held, or until ctx ends or the
// Dispatcher stops. It does not wait when too many streams are held already.
func (d *Dispatcher) Hold(ctx context.Context) {
	if !d.takeHold() {
		return
	}
	defer d.releaseHold()
	t := time.NewTimer(d.Options.Hold)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	case <-d.stopping:
	}
}

func (d *Dispatcher) takeHold() bool {
	select {
	case d.holds <- struct{}{}:
		return true
	default:
		return false
	}
}

func (d *Dispatcher) releaseHold() { <-d.holds }

// persist writes what an agent said until the store takes it or the stream is
// over: agents say nothing twice. The stream is not read meanwhile. A write that
// has begun goes on when the stream ends.
func (d *Dispatcher) persist(stream context.Context, what string, write func(context.Context) error) error {
	ctx := context.WithoutCancel(stream)
	for wait := time.Second; ; wait = min(2*wait, 15*time.Second) {
		err := write(ctx)
		if !errors.Is(err, fleet.ErrUnavailable) {
			return err
		}
		d.Log.Warn("store unavailable, holding back", "what", what, keyError, err)
		select {
		case <-time.After(wait):
		case <-stream.Done():
			return err
		case <-d.stopping:
			return err
		}
	}
}

// Stats counts what a Dispatcher has seen since it started.
type Stats struct {
	// Sessions is how many are live now.
	Sessions int
	// Superseded is how many sessions ended because a newer one came.
	Superseded int64
	// Refused is how many messages broke a rule.
	Refused int64
	// LateAcks is how many acks came after their command had ended.
	LateAcks int64
	// Delivered is how many deliveries were made.
	Delivered int64
	// Unwritten is how many events the journal could not write.
	Unwritten int64
}

type counters struct{ superseded, refused, lateAcks, delivered, unwritten atomic.Int64 }

// Stats returns the counts as they are now.
func (d *Dispatcher) Stats() Stats {
	return Stats{
		Sessions:   d.registry.count(),
		Superseded: d.counters.superseded.Load(),
		Refused:    d.counters.refused.Load(),
		LateAcks:   d.counters.lateAcks.Load(),
		Delivered:  d.counters.delivered.Load(),
		Unwritten:  d.counters.unwritten.Load(),
	}
}
