// Package maintenance owns the background work: ending commands that have timed out and
// sessions whose agents are gone, deleting data past its retention, writing the journal's
// files of events, and logging the life of commands. Each is a service with a common base,
// which starts and stops it.
package maintenance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mig-controller/mig-controller/internal/engine"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/journal"
	"github.com/mig-controller/mig-controller/internal/loglimit"
	"github.com/mig-controller/mig-controller/internal/metric"
	"github.com/mig-controller/mig-controller/internal/readiness"
	"github.com/mig-controller/mig-controller/internal/wallclock"
)

// The keys of log attributes.
const (
	keyCommandType = "command_type"
	keyAttempt     = "attempt"
	keyState       = "state"
	keySuccess     = "success"
	keyFailures    = "failures"
	keyNextAttempt = "next_attempt_at"
	keyBoot        = "boot"
	keyService     = "service"
	keyCheck       = "check"
	keySuppressed  = loglimit.KeySuppressed
	keyBy          = "by" // how far the clock jumped
	keyFrom        = "from"
	keyTo          = "to"
)

// Engine is what maintenance needs from an engine.Engine.
type Engine interface {
	journal.Events
	Tick(ctx context.Context, now time.Time, live func(fleet.VMID) fleet.Live, limit int) (n int, more bool, err error)
	OnNotice(fn func(fleet.Notice)) (stop func())
	Purge(ctx context.Context, r engine.Retention, now time.Time) (int, error)
	PurgeTime(ctx context.Context, now time.Time) (time.Time, error)
	AdoptClock(ctx context.Context, adopt func() wallclock.Jump) (wallclock.Jump, error)
	MoveDeadlines(ctx context.Context) error
	Observed
}

// Observed is what maintenance observes of an engine.Engine.
type Observed interface {
	Check(ctx context.Context) error
	Counts(ctx context.Context) (engine.Counts, error)
}

// Sessions is what maintenance needs from the live sessions.
type Sessions interface {
	// Live returns what is known of the newest session of a VM; the zero Live when it has
	// none.
	Live(vm fleet.VMID) fleet.Live
	// OldestUnstored returns when the oldest report arrived that is not stored yet, or now if
	// there is none.
	OldestUnstored(now time.Time) time.Time
	// EndSilent ends the sessions whose agents are gone as of now.
	EndSilent(now time.Time)
	// RecordEnds records the ends of sessions that could not be stored before.
	RecordEnds(ctx context.Context) error
	// MoveClock calls adopt, and moves the times of the sessions by its result.
	MoveClock(adopt func() wallclock.Jump) wallclock.Jump
}

// Options are the parts and settings of a Maintenance.
type Options struct {
	Engine   Engine
	Sessions Sessions
	// Journal is nil when it is switched off.
	Journal   *journal.Journal
	Retention engine.Retention
	// Checks get the checks of the store and of the journal; nil means that nobody asks for
	// them.
	Checks *readiness.Checks
	Clock  func() time.Time
	// Follow is the clock behind Clock; the sweeper makes it follow jumps of the wall clock.
	// Nil means that Clock never jumps.
	Follow *wallclock.Clock
	Log    *slog.Logger
	// Metrics registers the metrics; nil registers none. Pools bounds the label for pools; nil
	// means that no pool has a value of its own.
	Metrics prometheus.Registerer
	Pools   *metric.Pools
}

// Maintenance runs the services of one controller.
type Maintenance struct {
	sweeper, purger, catchUp, commands *service
	census                             *service
	checker                            *checker // nil without checks

	unlisten func()
}

// Start starts all services, and adds to the checks of readiness. Stop stops the services; the
// checks are to be closed before the engine and the journal.
func Start(o Options) *Maintenance {
	if o.Pools == nil {
		o.Pools = metric.NewPools(0)
	}
	metrics := newMetrics(o.Metrics, o.Clock)
	commands := newCommandLog(o.Log, o.Clock, metrics.logsDropped)
	changes, notices := o.Engine.Listen(commands.add), o.Engine.OnNotice(commands.note)
	if o.Checks != nil {
		addChecks(o)
	}
	m := &Maintenance{
		sweeper:  start(newSweeper(o).run),
		purger:   start(newPurger(o).run),
		catchUp:  start(journal.NewCatchUp(o.Journal, o.Engine, o.Log).Run),
		commands: start(commands.run),
		census:   start(newCensus(o, metrics).run),
		unlisten: func() { changes(); notices() },
	}
	if o.Checks != nil {
		m.checker = newChecker(o)
	}
	return m
}

// Quiesce stops the services that change the fleet, without waiting for them: no sweep and no
// purge begins afterwards. It is called before the sessions end, so that no command times out
// whose ack has not been read.
func (m *Maintenance) Quiesce() {
	m.sweeper.cancel()
	m.purger.cancel()
	m.census.cancel()
}

// Stop stops all services after they have written the files and log lines of everything
// stored, or have tried for two seconds. It is called after the sessions have ended. Stopping
// twice is not an error.
func (m *Maintenance) Stop() {
	m.sweeper.stop()
	m.purger.stop()
	m.census.stop()
	m.catchUp.stop()
	m.unlisten()
	m.commands.stop()
}

// addChecks adds the checks of what the controller needs: store writes to the store and, unless
// the journal is switched off, journal writes a file.
func addChecks(o Options) {
	o.Checks.Add(readiness.Check{Name: "store", Run: func(ctx context.Context) error {
		err := o.Engine.Check(ctx)
		if errors.Is(err, fleet.ErrDatabaseRemoved) {
			return fleet.ErrDatabaseRemoved // without the path, which is not for everyone
		}
		return err
	}})
	if o.Journal == nil {
		return
	}
	o.Checks.Add(readiness.Check{Name: "journal", Run: func(context.Context) error {
		if err := o.Journal.Check(); err != nil {
			return fmt.Errorf("the JSON files cannot be written: %w", err)
		}
		return nil
	}})
}
