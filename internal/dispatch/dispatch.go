// Package dispatch owns the live sessions of agents and everything that passes
// between an agent and the controller: delivering commands, taking acks, events
// and heartbeats, ending what has run out of time, and writing the journal.
//
// Only the engine notifies it of new commands.
package dispatch

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mig-controller/mig-controller/internal/engine"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/journal"
	"github.com/mig-controller/mig-controller/internal/loglimit"
	"github.com/mig-controller/mig-controller/internal/registration"
	"github.com/mig-controller/mig-controller/internal/wallclock"
)

// The keys of log lines.
const (
	keyVM           = "vm_id"
	keyPool         = "pool_id"
	keyOrg          = "org_id"
	keyCommand      = "command_id"
	keyEpoch        = "session_epoch"
	keyCommandType  = "command_type"
	keyEventType    = "event_type"
	keyVia          = "via"
	keyAttempt      = "attempt"
	keyState        = "state"
	keyReason       = "reason"
	keyStatus       = "status"
	keySuccess      = "success"
	keyRegistration = "registration"
	keyFailures     = "failures"
	keyNextAttempt  = "next_attempt_at"
	keyBoot         = "boot"
	keyWhat         = "what"
	keyHint         = "hint"
	keyCode         = "code"
	keyMessage      = "message"
	keyWork         = "work"
	keyCount        = "count"
	keySize         = "size_bytes"
	keyLimit        = "limit_bytes"
	keySuppressed   = loglimit.KeySuppressed
	keyError        = "error"
	keyCause        = "cause" // why a session ended
	keyDelivered    = "delivered"
	keyLateAcks     = "late_acks"
	keyRefused      = "refused"
	keySuperseded   = "superseded"
	keyUnwritten    = "unwritten"
	keyThrottled    = "throttled"
	keyRule         = "rule"
	keyBy           = "by" // how far the clock jumped
	keyFrom         = "from"
	keyTo           = "to"
)

// Engine is what a Dispatcher needs of an engine.Engine.
type Engine interface { //nolint:interfacebloat // tests replace it as a whole
	Apply(ctx context.Context, in fleet.Input, now time.Time) (fleet.Outcome, error)
	ApplyLate(ctx context.Context, vm fleet.VMID, command fleet.CommandID,
		with func() (fleet.Input, time.Time)) (fleet.Outcome, error)
	RecordHeartbeats(ctx context.Context, hs []fleet.Heartbeat) error
	Tick(ctx context.Context, now time.Time, live func(fleet.VMID) fleet.Live, limit int) (n int, more bool, err error)
	ResetSessions(ctx context.Context, now time.Time) (int, error)
	State(ctx context.Context, vm fleet.VMID) (fleet.State, error)
	UnjournaledEvents(ctx context.Context, limit int) ([]fleet.Event, error)
	MarkJournaled(ctx context.Context, seq int64) error
	Listen(fn func([]fleet.Change)) (stop func())
	OnReady(fn func(fleet.VMID, fleet.Ready)) (stop func())
	OnNotice(fn func(fleet.Notice)) (stop func())
	Purge(ctx context.Context, r engine.Retention, now time.Time) (int, error)
	PurgeTime(ctx context.Context, now time.Time) (time.Time, error)
	AdoptClock(ctx context.Context, adopt func() wallclock.Jump) (wallclock.Jump, error)
	MoveDeadlines(ctx context.Context) error
}

// lastTries is how long, at the most, each kind of work is still tried once the
// Dispatcher stops.
const lastTries = 2 * time.Second

// Options are the parts and settings of a Dispatcher.
type Options struct {
	Engine    Engine
	Registrar *registration.Registrar
	// Journal is nil when it is switched off.
	Journal   *journal.Journal
	Retention engine.Retention
	Clock     func() time.Time
	// Follow is the clock that Clock reads, which the Dispatcher makes follow the wall
	// clock when that jumps. Nil is for a Clock that never does.
	Follow *wallclock.Clock
	Log    *slog.Logger
	// TokenInVMStarted makes AnswerStarted deliver.
	TokenInVMStarted bool
	// ReportRate is how much a VM may report in the long run, in bytes a second, and 64
	// times that at once; what is beyond it has to wait. Zero is 64 KiB, and below zero
	// there is no limit.
	ReportRate int
	// Hold is how long a stream that is refused or superseded is held before it
	// ends: agents reconnect at once. Zero is 5 s. It must stay under the 10 s
	// in which a superseded stream is to end.
	Hold time.Duration
	// MaxHeld is how many streams are held at a time; more end at once. Zero is
	// 20,000: a held stream costs what a live one does.
	MaxHeld int
}

// Dispatcher serves all agents of one controller. It is safe for concurrent
// use.
type Dispatcher struct {
	Options
	registry registry
	unended  unended
	unstored unstored
	pace     pace
	beats    *heartbeats
	counters counters
	limiter  loglimit.Limiter
	lifelog  *lifelog
	holds    chan struct{}
	// configuredAt is when what runners are registered with last changed, or the start, in
	// Unix nanoseconds.
	configuredAt atomic.Int64
	stamps       stamps
	unmoved      bool // not everything has moved with the clock; the sweeper's own
	// pausedAt is the Seq of the first event without a file since the journal was paused;
	// zero for none. The journal's loop alone uses it.
	pausedAt int64

	stopping   chan struct{}
	stopOnce   sync.Once
	closeOnce  sync.Once
	background sync.WaitGroup
	logging    sync.WaitGroup
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
		o.MaxHeld = 20_000
	}
	if o.ReportRate == 0 {
		o.ReportRate = defaultReportRate
	}
	n, err := o.Engine.ResetSessions(ctx, o.Clock())
	if err != nil {
		return nil, err
	}
	if n > 0 {
		o.Log.Info("sessions of an earlier run ended", keyCount, n)
	}
	d := &Dispatcher{
		Options: o, holds: make(chan struct{}, o.MaxHeld), pace: newPace(o.ReportRate),
		stopping: make(chan struct{}), journaling: make(chan struct{}, 1),
	}
	d.configuredAt.Store(o.Clock().UnixNano())
	d.registry.newest = map[fleet.VMID]*Session{}
	d.registry.live = map[*Session]bool{}
	d.unended.sessions = map[fleet.VMID]ending{}
	d.beats = newHeartbeats(d)
	d.lifelog = newLifelog(o.Log, d.writeNotice)
	ready, changes, notices := o.Engine.OnReady(d.ready), o.Engine.Listen(d.changed), o.Engine.OnNotice(d.lifelog.note)
	d.unlisten = func() { ready(); changes(); notices() }
	for _, work := range []func(){d.beats.flushLoop, d.sweepLoop, d.purgeLoop, d.journalLoop} {
		d.background.Go(work)
	}
	d.logging.Go(d.lifelog.run)
	return d, nil
}

// EndSessions ends all sessions and refuses new ones. It returns when the last
// has gone or ctx ends.
func (d *Dispatcher) EndSessions(ctx context.Context) {
	d.stopOnce.Do(func() { close(d.stopping) })
	for _, s := range d.registry.shut() {
		s.end(fleet.ErrStopping)
	}
	d.registry.waitEmpty(ctx)
}

// Close ends what sessions are left, writes what is buffered and stops. The
// engine and the journal stay open. It logs the Stats. Closing twice is not an error.
func (d *Dispatcher) Close() {
	d.closeOnce.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), lastTries)
		defer cancel()
		d.EndSessions(ctx)
		d.beats.stop()
		d.background.Wait()
		d.unlisten()
		d.lifelog.close()
		d.logging.Wait()
		n := d.Stats()
		d.Log.Info("agents served", keyDelivered, n.Delivered, keyLateAcks, n.LateAcks,
			keyRefused, n.Refused, keySuperseded, n.Superseded, keyUnwritten, n.Unwritten, keyThrottled, n.Throttled)
	})
}

// Stopping returns a channel that is closed when the Dispatcher begins to stop.
func (d *Dispatcher) Stopping() <-chan struct{} { return d.stopping }

// ready wakes the VM's session; the engine calls it when a command can be sent.
func (d *Dispatcher) ready(vm fleet.VMID, r fleet.Ready) {
	if s := d.registry.session(vm); s != nil {
		s.wakeUp(r.Prepare)
	}
}

// changed passes changes on to the log and the journal; the engine calls it after each
// commit that has any.
func (d *Dispatcher) changed(changes []fleet.Change) {
	d.lifelog.add(changes)
	if slices.ContainsFunc(changes, func(c fleet.Change) bool { return c.Event != nil }) {
		d.wakeJournal()
	}
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
	// Throttled is how many times a VM began to report more than it may.
	Throttled int64
}

type counters struct{ superseded, refused, lateAcks, delivered, unwritten, throttled atomic.Int64 }

// Stats returns the counts as they are now.
func (d *Dispatcher) Stats() Stats {
	return Stats{
		Sessions:   d.registry.count(),
		Superseded: d.counters.superseded.Load(),
		Refused:    d.counters.refused.Load(),
		LateAcks:   d.counters.lateAcks.Load(),
		Delivered:  d.counters.delivered.Load(),
		Unwritten:  d.counters.unwritten.Load(),
		Throttled:  d.counters.throttled.Load(),
	}
}
