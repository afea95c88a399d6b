// Package session owns the live sessions of agents and all that passes between an agent
// and the controller: it opens, supersedes, holds and ends sessions, delivers commands, and
// receives acks, events and heartbeats. Agents that poll over HTTP are served here too.
//
// The engine notifies it of commands that can be sent, and nothing else does.
package session

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/journal"
	"github.com/mig-controller/mig-controller/internal/logkey"
	"github.com/mig-controller/mig-controller/internal/loglimit"
	"github.com/mig-controller/mig-controller/internal/metric"
	"github.com/mig-controller/mig-controller/internal/registration"
	"github.com/mig-controller/mig-controller/internal/tracing"
)

// The keys of log lines.
const (
	keyPool         = "pool_id"
	keyOrg          = "org_id"
	keyStatus       = "status"
	keyRegistration = "registration"
	keyWhat         = "what"
	keyMessage      = "message"
	keyLimit        = "limit_bytes"
	keyCause        = "cause" // why a session ended
	keyDelivered    = "delivered"
	keyLateAcks     = "late_acks"
	keyRefused      = "refused"
	keySuperseded   = "superseded"
	keyThrottled    = "throttled"
	keyRule         = "rule"
)

// Engine is what a Registry needs of an engine.Engine.
type Engine interface {
	Apply(ctx context.Context, in fleet.Input, now time.Time) (fleet.Outcome, error)
	ApplyLate(ctx context.Context, vm fleet.VMID, command fleet.CommandID,
		with func() (fleet.Input, time.Time)) (fleet.Outcome, error)
	RecordHeartbeats(ctx context.Context, hs []fleet.Heartbeat) error
	ResetSessions(ctx context.Context, now time.Time) (int, error)
	State(ctx context.Context, vm fleet.VMID) (fleet.State, error)
	OnReady(fn func(fleet.VMID, fleet.Ready)) (stop func())
}

// lastTries is how long heartbeats are still retried once the Registry stops.
const lastTries = 2 * time.Second

// Options are the parts and settings of a Registry.
type Options struct {
	Engine    Engine
	Registrar *registration.Registrar
	// Journal is nil when it is switched off.
	Journal *journal.Journal
	Clock   func() time.Time
	Log     *slog.Logger
	// TokenInVMStarted enables AnswerStarted.
	TokenInVMStarted bool
	// ReportRate is how much a VM may report in the long run, in bytes per second, with
	// bursts of 64 times as much; a VM that reports more has to wait. Zero is 64 KiB, and
	// a negative value is no limit.
	ReportRate int
	// HoldTime is how long a stream that is refused or superseded is held before it ends,
	// because agents reconnect at once. Zero is 5 s. It must stay under the 10 s within
	// which a superseded stream has to end.
	HoldTime time.Duration
	// MaxHeld is how many streams are held at a time; any beyond end at once. Zero is
	// 20,000: a held stream costs as much memory as a live one.
	MaxHeld int
	// Metrics registers the metrics; nil registers none. Pools has the values of their label
	// for pools; nil has none.
	Metrics prometheus.Registerer
	Pools   *metric.Pools
	// Traces makes the spans of deliveries and acks; nil makes none.
	Traces *tracing.Commands
}

// Registry holds the live sessions of this process and serves their agents. It is safe
// for concurrent use.
type Registry struct {
	Options
	sessions    sessionSet
	pendingEnds pendingEnds
	unstored    unstored
	pace        pace
	admission   admission
	beats       *heartbeats
	waker       *waker
	metrics     metrics
	delivered   atomic.Int64
	limiter     loglimit.Limiter
	holds       chan struct{}
	times       times
	// configuredAt is when the runner configuration last changed, or the start, in Unix
	// nanoseconds.
	configuredAt atomic.Int64

	stopping   chan struct{}
	stopOnce   sync.Once
	closeOnce  sync.Once
	background sync.WaitGroup
	unlisten   func()
}

// Start ends the sessions that an earlier controller left behind and returns a Registry
// that accepts sessions. Close stops it.
func Start(ctx context.Context, o Options) (*Registry, error) {
	o = o.withDefaults()
	n, err := o.Engine.ResetSessions(ctx, o.Clock())
	if err != nil {
		return nil, err
	}
	if n > 0 {
		o.Log.Info("sessions of an earlier run ended", logkey.Count, n)
	}
	r := &Registry{
		Options: o, holds: make(chan struct{}, o.MaxHeld), pace: newPace(o.ReportRate), stopping: make(chan struct{}),
		metrics: newMetrics(o.Metrics, o.Pools),
	}
	r.admission.open(openedAtOnce)
	r.configuredAt.Store(o.Clock().UnixNano())
	r.sessions.newest = map[fleet.VMID]*Session{}
	r.sessions.live = map[*Session]bool{}
	r.pendingEnds.sessions = map[fleet.VMID]ending{}
	r.beats = newHeartbeats(r)
	r.metrics.watch(o.Metrics, r.beats.waiting,
		func() float64 { return float64(len(r.holds)) },
		func() float64 { return float64(r.admission.waiting.Load()) })
	r.waker = newWaker(r.wakeSession)
	r.unlisten = o.Engine.OnReady(r.waker.add)
	r.background.Go(r.beats.flushLoop)
	r.background.Go(r.waker.run)
	return r, nil
}

func (o Options) withDefaults() Options {
	if o.HoldTime == 0 {
		o.HoldTime = 5 * time.Second
	}
	if o.MaxHeld == 0 {
		o.MaxHeld = 20_000
	}
	if o.ReportRate == 0 {
		o.ReportRate = defaultReportRate
	}
	if o.Pools == nil {
		o.Pools = metric.NewPools(0)
	}
	return o
}

// EndSessions ends all sessions and refuses new ones. It returns when the last has ended
// or ctx is done.
func (r *Registry) EndSessions(ctx context.Context) {
	r.stopOnce.Do(func() {
		close(r.stopping)
		r.admission.stop()
	})
	for _, s := range r.sessions.shut() {
		s.end(fleet.ErrStopping)
	}
	r.sessions.waitEmpty(ctx)
}

// Close ends the remaining sessions, stores the buffered heartbeats and stops. The engine
// and the journal stay open. It logs the Stats. Closing twice is not an error.
func (r *Registry) Close() {
	r.closeOnce.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), lastTries)
		defer cancel()
		r.EndSessions(ctx)
		r.beats.stop()
		r.unlisten()
		r.waker.stop()
		r.background.Wait()
		n := r.Stats()
		r.Log.Info("agents served", keyDelivered, n.Delivered, keyLateAcks, n.LateAcks,
			keyRefused, n.Refused, keySuperseded, n.Superseded, keyThrottled, n.Throttled)
	})
}

// Stopping returns a channel that is closed when the Registry begins to stop.
func (r *Registry) Stopping() <-chan struct{} { return r.stopping }

// wakeSession wakes the VM's session, if it has one.
func (r *Registry) wakeSession(vm fleet.VMID, prepare bool) {
	if s := r.sessions.of(vm); s != nil {
		s.wakeUp(prepare)
	}
}

// Hold waits for HoldTime, or until ctx is done or the Registry stops. It does not wait
// when too many streams are held already.
func (r *Registry) Hold(ctx context.Context) {
	if !r.takeHold() {
		return
	}
	defer r.releaseHold()
	t := time.NewTimer(r.HoldTime)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	case <-r.stopping:
	}
}

func (r *Registry) takeHold() bool {
	select {
	case r.holds <- struct{}{}:
		return true
	default:
		return false
	}
}

func (r *Registry) releaseHold() { <-r.holds }

// Stats counts what a Registry has seen since it started.
type Stats struct {
	// Sessions is how many are live now.
	Sessions int
	// Superseded is how many sessions ended because a newer one of their VM was opened.
	Superseded int64
	// Refused is how many messages violated a rule.
	Refused int64
	// LateAcks is how many acks arrived after their command had ended.
	LateAcks int64
	// Delivered is how many deliveries were made.
	Delivered int64
	// Throttled is how many times a VM began to report more than it may.
	Throttled int64
}

// Stats returns the counts as they are now.
func (r *Registry) Stats() Stats {
	return Stats{
		Sessions:   r.sessions.count(),
		Superseded: total(r.metrics.superseded.young, r.metrics.superseded.older),
		Refused:    total(slices.Collect(maps.Values(r.metrics.refused))...),
		LateAcks:   total(r.metrics.lateAcks),
		Delivered:  r.delivered.Load(),
		Throttled:  total(r.metrics.throttles),
	}
}

// LiveVMs returns the VMs that have a live session, in no order.
func (r *Registry) LiveVMs() []fleet.VMID {
	var vms []fleet.VMID
	for _, s := range r.sessions.all() {
		vms = append(vms, s.vm)
	}
	return vms
}
