package maintenance

import (
	"context"
	"errors"
	"time"

	"github.com/mig-controller/mig-controller/internal/logkey"
)

const (
	purgeEvery = 10 * time.Minute
	// purgePaused is how often the purger runs while the journal is paused because too little
	// space is free.
	purgePaused = time.Minute
)

// purger deletes rows and files that are past their retention.
type purger struct {
	Options
	purged time.Time
	fault  error // of the latest purge
}

func newPurger(o Options) *purger { return &purger{Options: o, purged: time.Now()} }

func (p *purger) run(ctx context.Context) {
	every(ctx, purgePaused, p.Log.With(keyService, "purge"), p.purgeDue)
}

func (p *purger) purgeDue(ctx context.Context) error {
	paused := p.Journal != nil && p.Journal.Paused()
	if paused || time.Since(p.purged) >= purgeEvery {
		p.purged = time.Now()
		p.fault = errors.Join(p.purgeRows(ctx, paused), p.pruneFiles(ctx))
	}
	return p.fault
}

// purgeRows deletes rows. While the journal is paused it also deletes events without a file:
// otherwise they would take space from the database for as long as the pause lasts.
func (p *purger) purgeRows(ctx context.Context, paused bool) error {
	retention := p.Retention
	retention.Unjournaled = paused
	n, err := p.Engine.Purge(ctx, retention, p.Clock())
	if n > 0 {
		p.Log.Info("rows past their retention deleted", logkey.Count, n)
	}
	return err
}

func (p *purger) pruneFiles(ctx context.Context) error {
	if p.Journal == nil {
		return nil
	}
	asOf, notStored := p.Engine.PurgeTime(ctx, p.Clock())
	n, err := p.Journal.Prune(ctx, asOf)
	if n > 0 {
		p.Log.Info("files past their retention deleted", logkey.Count, n)
	}
	return errors.Join(notStored, err)
}
