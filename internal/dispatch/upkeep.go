package dispatch

import (
	"context"
	"errors"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/journal"
)

const (
	sweepEvery = 250 * time.Millisecond
	sweepBatch = 1000
	// silenceEvery is how often all sessions are looked at: 150 ns each.
	silenceEvery = time.Second
	purgeEvery   = 10 * time.Minute
	// purgePaused is how often what is past its retention is removed while the journal is
	// paused because too little space is free.
	purgePaused  = time.Minute
	journalBatch = 500
	journalRetry = 5 * time.Second
	journalRest  = 2 * time.Second
)

// sweepLoop ends the commands whose time is up, the sessions whose agents are
// gone, and the sessions whose end could not be stored before. First it has everything
// follow the clock.
func (d *Dispatcher) sweepLoop() {
	var g grace
	var looked time.Time
	d.every(sweepEvery, func(ctx context.Context) error {
		by, unmoved := d.followClock(ctx)
		g.move(by)
		looked = moved(looked, by)
		now := d.judgedAt(g.asOf(d.Clock()))
		if passed := now.Sub(looked); passed < 0 || passed >= silenceEvery {
			looked = now
			d.endSilent(now)
		}
		if unmoved != nil {
			return errors.Join(unmoved, d.recordEnds(ctx))
		}
		return errors.Join(d.recordEnds(ctx), d.sweep(ctx, now))
	}, "sweep")
}

// judgedAt returns the time as of which deadlines are judged at the time now: not
// later than anything arrived that was read and is not stored yet, since it may
// be the ack. What is behind it in its stream arrived later.
func (d *Dispatcher) judgedAt(now time.Time) time.Time {
	return d.beats.oldest(d.unstored.oldest(now))
}

func (d *Dispatcher) sweep(ctx context.Context, now time.Time) error {
	for {
		_, more, err := d.Engine.Tick(ctx, now, d.live, sweepBatch)
		if err != nil || !more {
			return err
		}
	}
}

// live returns what is known of the newest session of a VM, or the zero Live.
func (d *Dispatcher) live(vm fleet.VMID) fleet.Live {
	s := d.registry.session(vm)
	if s == nil {
		return fleet.Live{}
	}
	// The ack may be among what waits to be read: what was read last may have arrived
	// before it.
	arrived := s.alive.current().LastMessageAt.Add(-s.backlog.lag())
	return fleet.Live{Epoch: s.epoch, Written: s.lastWritten(), LastMessageAt: arrived}
}

// purgeLoop forgets what is older than the retention.
func (d *Dispatcher) purgeLoop() {
	purged, fault := time.Now(), error(nil)
	d.every(purgePaused, func(ctx context.Context) error {
		if paused := d.journalPaused(); paused || time.Since(purged) >= purgeEvery {
			purged = time.Now()
			fault = errors.Join(d.purgeRows(ctx, paused), d.pruneJournal(ctx))
		}
		return fault
	}, "purge")
}

// journalPaused reports whether no files are written because too little space is free.
func (d *Dispatcher) journalPaused() bool { return d.Journal != nil && d.Journal.Paused() }

// purgeRows removes events without a file as well while the journal is paused: they would
// take space from the database for as long as it is.
func (d *Dispatcher) purgeRows(ctx context.Context, paused bool) error {
	r := d.Retention
	r.Unjournaled = paused
	n, err := d.Engine.Purge(ctx, r, d.Clock())
	if n > 0 {
		d.Log.Info("rows past their retention forgotten", keyCount, n)
	}
	return err
}

func (d *Dispatcher) pruneJournal(ctx context.Context) error {
	if d.Journal == nil {
		return nil
	}
	asOf, notStored := d.Engine.PurgeTime(ctx, d.Clock())
	n, err := d.Journal.Prune(ctx, asOf)
	if n > 0 {
		d.Log.Info("files past their retention removed", keyCount, n)
	}
	return errors.Join(notStored, err)
}

// every calls work at intervals until the Dispatcher stops. It logs the first
// of a row of errors.
func (d *Dispatcher) every(interval time.Duration, work func(context.Context) error, name string) {
	ctx, cancel := d.until(d.stopping, 0)
	defer cancel()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-tick.C:
		case <-d.stopping:
			return
		}
		err := work(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			d.Log.Error("upkeep failed", keyWork, name, keyError, err)
		}
		failing = err != nil
	}
}

// until returns a context that ends some time after done is closed.
func (d *Dispatcher) until(done <-chan struct{}, grace time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	d.background.Go(func() {
		defer cancel()
		select {
		case <-done:
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(grace):
		case <-ctx.Done():
		}
	})
	return ctx, cancel
}

func (d *Dispatcher) wakeJournal() {
	select {
	case d.journaling <- struct{}{}:
	default:
	}
}

// journalLoop writes the file of every event that has none yet. The engine knows
// which those are, so that neither a crash nor a full disk loses one.
func (d *Dispatcher) journalLoop() {
	ctx, cancel := d.until(d.beats.stopped, lastTries)
	defer cancel()
	for {
		woken := d.journaling
		var retry <-chan time.Time
		if err := d.journalEvents(ctx); err != nil {
			if !errors.Is(err, journal.ErrPaused) { // which the journal logs
				d.limited(d.Log, troubleJournal, "").Error("events not written to the journal, trying again", keyError, err)
			}
			woken, retry = nil, time.After(journalRetry) // more events will not mend it
		}
		select {
		case <-woken:
		case <-retry:
		case <-d.beats.stopped: // the sessions are gone: no more events come
			if err := d.journalEvents(ctx); err != nil && !errors.Is(err, journal.ErrPaused) {
				d.Log.Error("events left for the next run to write to the journal", keyError, err)
			}
			return
		}
	}
}

// journalEvents writes and marks all that are unwritten. With the journal
// switched off they are only marked: switched on again, it begins with what
// comes then. An event that will not be written before a person has seen to its
// VM's directory is passed over: a file in the place of one VM's directory must
// not stop all others' files.
func (d *Dispatcher) journalEvents(ctx context.Context) error {
	for {
		if d.journalPaused() {
			return d.notePause(ctx)
		}
		began := time.Now()
		events, err := d.Engine.UnjournaledEvents(ctx, journalBatch)
		if err != nil || len(events) == 0 {
			return err
		}
		d.countLeftOut(events[0])
		n, fault := len(events), error(nil)
		if d.Journal != nil {
			n, fault = d.Journal.WriteEvents(ctx, events)
		}
		if journal.OfOneVM(fault) && d.Journal.Check() == nil {
			d.counters.unwritten.Add(1)
			d.limited(d.Log, troublePassedOver, events[n].VM).Error("event passed over by the journal",
				keyVM, events[n].VM, keyEventType, events[n].Type, keyError, fault)
			n, fault = n+1, nil
		}
		if n > 0 {
			if err := d.Engine.MarkJournaled(ctx, events[n-1].Seq); err != nil {
				return err
			}
		}
		if fault != nil {
			return fault
		}
		d.restJournal(time.Since(began))
	}
}

// notePause notes the first event that has no file because the journal is paused. It
// returns journal.ErrPaused.
func (d *Dispatcher) notePause(ctx context.Context) error {
	if d.pausedAt != 0 {
		return journal.ErrPaused
	}
	first, err := d.Engine.UnjournaledEvents(ctx, 1)
	if err != nil {
		return err
	}
	if len(first) > 0 {
		d.pausedAt = first[0].Seq
	}
	return journal.ErrPaused
}

// countLeftOut logs how many events before the first that has no file were removed while
// the journal was paused: they will not get one.
func (d *Dispatcher) countLeftOut(first fleet.Event) {
	if n := first.Seq - d.pausedAt; d.pausedAt != 0 && n > 0 {
		d.counters.unwritten.Add(n)
		d.Log.Warn("events removed while the journal was paused have no file", keyCount, n)
	}
	d.pausedAt = 0
}

// restJournal keeps the journal from taking more than a quarter of the disk's
// and a processor's time while many events come, as when a fleet connects; or
// more, where the disk is so slow that it would rest longer than journalRest. A
// stop ends the rest.
func (d *Dispatcher) restJournal(worked time.Duration) {
	select {
	case <-time.After(min(3*worked, journalRest)):
	case <-d.beats.stopped:
	}
}
