package journal

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/logkey"
	"github.com/mig-controller/mig-controller/internal/loglimit"
)

const (
	catchUpBatch = 500
	catchUpRetry = 5 * time.Second
	catchUpRest  = 2 * time.Second
	// catchUpGrace is how long a CatchUp still writes once it is stopped.
	catchUpGrace = 2 * time.Second
)

// Events is the store of events as a CatchUp needs it.
type Events interface {
	// UnjournaledEvents returns the first events that are not marked, oldest first.
	UnjournaledEvents(ctx context.Context, limit int) ([]fleet.Event, error)
	// MarkJournaled marks the events up to this Seq.
	MarkJournaled(ctx context.Context, seq int64) error
	// Listen calls fn with the changes of each commit until stop is called.
	Listen(fn func([]fleet.Change)) (stop func())
}

// CatchUp writes the file of every event that has none yet. The store knows which those
// are, so neither a crash nor a full disk loses one.
type CatchUp struct {
	journal *Journal // nil when it is switched off
	events  Events
	log     *slog.Logger
	limiter loglimit.Limiter
	wake    chan struct{} // holds one: an event was stored
	// pausedAt is the Seq of the first event without a file since the journal was paused;
	// zero while it is not.
	pausedAt int64
}

// NewCatchUp returns a CatchUp; call its Run once. With j nil, events are only marked: a
// journal that is switched on later begins with the events that are stored then.
func NewCatchUp(j *Journal, events Events, log *slog.Logger) *CatchUp {
	return &CatchUp{journal: j, events: events, log: log, wake: make(chan struct{}, 1)}
}

// Run writes files until ctx is done and no events are left, or catchUpGrace later.
func (c *CatchUp) Run(ctx context.Context) {
	defer c.events.Listen(c.changed)()
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	context.AfterFunc(ctx, func() { time.AfterFunc(catchUpGrace, cancel) })
	for {
		woken := c.wake
		var retry <-chan time.Time
		if err := c.writeAll(work, ctx.Done()); err != nil {
			if !errors.Is(err, ErrPaused) { // which the journal logs
				c.limited("not written", "").Error("events not written to the journal, trying again", logkey.Error, err)
			}
			woken, retry = nil, time.After(catchUpRetry) // another event does not help
		}
		select {
		case <-woken:
		case <-retry:
		case <-ctx.Done():
			if err := c.writeAll(work, ctx.Done()); err != nil && !errors.Is(err, ErrPaused) {
				c.log.Error("events left for the next run to write to the journal", logkey.Error, err)
			}
			return
		}
	}
}

// changed wakes Run when an event was stored. It does not block.
func (c *CatchUp) changed(changes []fleet.Change) {
	if !slices.ContainsFunc(changes, func(ch fleet.Change) bool { return ch.Event != nil }) {
		return
	}
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// writeAll writes and marks all events that are not marked. An event that cannot be written
// until somebody repairs the directory of its VM is skipped: a file in the place of one
// VM's directory must not block the files of the others.
func (c *CatchUp) writeAll(ctx context.Context, stopped <-chan struct{}) error {
	for {
		if c.journal != nil && c.journal.Paused() {
			return c.notePause(ctx)
		}
		began := time.Now()
		events, err := c.events.UnjournaledEvents(ctx, catchUpBatch)
		if err != nil || len(events) == 0 {
			return err
		}
		c.countRemoved(events[0])
		n, fault := c.write(ctx, events)
		if n > 0 {
			if err := c.events.MarkJournaled(ctx, events[n-1].Seq); err != nil {
				return err
			}
		}
		if fault != nil {
			return fault
		}
		rest(time.Since(began), stopped)
	}
}

// write writes events in their order and returns how many are done: written or skipped.
func (c *CatchUp) write(ctx context.Context, events []fleet.Event) (int, error) {
	if c.journal == nil {
		return len(events), nil
	}
	n, err := c.journal.WriteEvents(ctx, events)
	if !ofOneVM(err) || c.journal.Check() != nil {
		return n, err
	}
	skipped := events[n]
	c.journal.metrics.unwritten.Inc()
	c.limited("skipped", skipped.VM).Error("event skipped by the journal",
		logkey.VM, skipped.VM, logkey.EventType, skipped.Type, logkey.Error, err)
	return n + 1, nil
}

// notePause notes the first event that has no file because the journal is paused. It
// returns ErrPaused.
func (c *CatchUp) notePause(ctx context.Context) error {
	if c.pausedAt != 0 {
		return ErrPaused
	}
	first, err := c.events.UnjournaledEvents(ctx, 1)
	if err != nil {
		return err
	}
	if len(first) > 0 {
		c.pausedAt = first[0].Seq
	}
	return ErrPaused
}

// countRemoved logs how many events before the first one without a file were removed while
// the journal was paused: they will never get a file.
func (c *CatchUp) countRemoved(first fleet.Event) {
	if n := first.Seq - c.pausedAt; c.pausedAt != 0 && n > 0 {
		c.journal.metrics.unwritten.Add(float64(n))
		c.log.Warn("events removed while the journal was paused have no file", logkey.Count, n)
	}
	c.pausedAt = 0
}

// limited returns the log for one line of a kind about a VM, or one that discards it when
// there were too many.
func (c *CatchUp) limited(kind string, vm fleet.VMID) *slog.Logger {
	return c.limiter.Limited(c.log, kind, string(vm), time.Now())
}

// rest waits three times as long as a batch took, so that the journal takes at most a
// quarter of the disk's and a processor's time while many events arrive, as when a fleet
// connects; but no longer than catchUpRest, which matters only on a very slow disk.
func rest(worked time.Duration, stopped <-chan struct{}) {
	select {
	case <-time.After(min(3*worked, catchUpRest)):
	case <-stopped:
	}
}
