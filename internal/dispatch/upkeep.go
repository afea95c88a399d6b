package dispatch

import (
	"context"
	"time"

)

const (
	sweepEvery   = 250 * time.Millisecond
	sweepBatch   = 1000
	purgeEvery   = 10 * time.Minute
	journalBatch = 500
	journalRetry = 5 * time.Second
)

// sweepLoop ends the commands whose time is up.
func (d *Dispatcher) sweepLoop() {
	d.every(sweepEvery, func(ctx context.Context) error {
		for {
			n, err := d.Store.Sweep(ctx, d.Clock(), sweepBatch)
			if n > 0 {
				d.Log.Info("commands ended for want of time", "commands", n)
			}
			if err != nil || n < sweepBatch {
				return err
			}
		}
	}, "sweep")
}

// purgeLoop forgets what is older than the retention.
func (d *Dispatcher) purgeLoop() {
	d.every(purgeEvery, func(ctx context.Context) error {
		n, err := d.Store.Purge(ctx, d.Retention, d.Clock())
		if n > 0 {
			d.Log.Info("rows past their retention forgotten", "rows", n)
		}
		if err != nil || d.Journal == nil {
			return err
		}
		n, err = d.Journal.Prune(ctx, d.Clock())
		if n > 0 {
			d.Log.Info("files past their retention removed", "files", n)
		}
		return err
	}, "purge")
}

// every calls work at intervals until the Dispatcher stops. It logs the first
// of a row of errors.
func (d *Dispatcher) every(interval time.Duration, work func(context.Context) error, name string) {
	ctx, cancel := d.untilStopping()
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
			d.Log.Error("upkeep failed", "work", name, keyError, err)
		}
		failing = err != nil
	}
}

// untilStopping returns a context that ends when the Dispatcher stops.
func (d *Dispatcher) untilStopping() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	d.background.Go(func() {
		defer cancel()
		select {
		case <-d.stopping:
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

// journalLoop writes the file of every event that has none yet. The store knows
// which those are, so that neither a crash nor a full disk loses one.
func (d *Dispatcher) journalLoop() {
	for {
		var retry <-chan time.Time
		if err := d.journalEvents(context.Background()); err != nil {
			d.Log.Error("events not written to the journal, trying again", keyError, err)
			retry = time.After(journalRetry)
		}
		select {
		case <-d.journaling:
		case <-retry:
		case <-d.beats.stopped: // the sessions are gone: no more events come
			if err := d.journalEvents(context.Background()); err != nil {
				d.Log.Error("events left for the next run to write to the journal", keyError, err)
			}
			return
		}
	}
}

// journalEvents writes and marks all that are unwritten. With the journal
// switched off they are only marked: switched on again, it begins with what
// comes then. An event that cannot be written while others could is passed over:
// a file in the place of one VM's directory must not stop all others' files.
func (d *Dispatcher) journalEvents(ctx context.Context) error {
	for {
		events, err := d.Store.UnjournaledEvents(ctx, journalBatch)
		if err != nil || len(events) == 0 {
			return err
		}
		n, fault := len(events), error(nil)
		if d.Journal != nil {
			n, fault = d.Journal.WriteEvents(ctx, events)
		}
		if fault != nil && d.Journal.Check() == nil {
			d.counters.unwritten.Add(1)
			d.Log.Error("event passed over by the journal", keyVM, events[n].VM, keyType, events[n].Type, keyError, fault)
			n, fault = n+1, nil
		}
		if n > 0 {
			if err := d.Store.MarkJournaled(ctx, events[n-1].Seq); err != nil {
				return err
			}
		}
		if fault != nil {
			return fault
		}
	}
}
