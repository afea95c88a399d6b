package audit

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/mig-controller/mig-controller/internal/auth"
	"github.com/mig-controller/mig-controller/internal/logkey"
)

// Recorder stores events. It is safe for concurrent use.
type Recorder interface {
	// RecordAudit stores events, all or none; they are durable when it returns nil.
	RecordAudit(ctx context.Context, events ...Event) error
}

const (
	// rejectionPeriod is the time for which the rejections of a source share an event.
	rejectionPeriod = time.Minute
	// maxSources is how many sources and reasons have events of their own in a period.
	maxSources = 1000
	// Over longer times the number of such events is limited to dailySources a day, after the
	// first burstSources, so that the size of the table is limited too.
	burstSources, dailySources = 5000, 10_000
	// otherSources is the source of the rejections that share the event of their reason.
	otherSources = "other"
	// recordTimeout limits how long events are waited for.
	recordTimeout = 10 * time.Second
)

// Rejections records requests that were rejected: one event for each source, reason and
// minute, so that callers without credentials can fill neither the disk nor the log. It is
// safe for concurrent use.
type Rejections struct {
	recorder Recorder
	clock    func() time.Time
	log      *slog.Logger
	budget   *rate.Limiter

	mu      sync.Mutex
	pending map[rejectionKey]*Event

	stop sync.Once
	quit chan struct{}
	done chan struct{}
}

// rejectionKey is what the rejections of an event have in common.
type rejectionKey struct{ source, reason string }

// NewRejections returns a Rejections that runs until Close. clock returns the time in UTC.
func NewRejections(r Recorder, clock func() time.Time, log *slog.Logger) *Rejections {
	all := &Rejections{
		recorder: r, clock: clock, log: log,
		budget:  rate.NewLimiter(rate.Limit(dailySources/(24*time.Hour).Seconds()), burstSources),
		pending: map[rejectionKey]*Event{},
		quit:    make(chan struct{}), done: make(chan struct{}),
	}
	go all.run()
	return all
}

// Record counts a rejection. It does not wait for the store.
func (r *Rejections) Record(x auth.Rejected) {
	reason := auth.ReasonOf(x.Err)
	e := Event{
		At: r.clock(), By: x.By, Address: Shorten(x.Source), Action: Shorten(x.Action), Detail: reason,
		Outcome: outcomeOf(x.Err), Error: Shorten(x.Err.Error()), Count: 1,
	}
	e.By.Role, e.By.Scope, e.By.Revoked, e.By.Holds = "", auth.Scope{}, nil, nil
	r.mu.Lock()
	first := r.add(rejectionKey{x.Source, reason}, e)
	r.mu.Unlock()
	if first != nil {
		Log(context.Background(), r.log, "requests rejected; others of this address and reason within a minute are only counted", *first)
	}
}

// outcomeOf returns the code of a rejection.
func outcomeOf(err error) string {
	switch {
	case errors.Is(err, auth.ErrForbidden):
		return "permission_denied"
	case errors.Is(err, auth.ErrTooMany):
		return "resource_exhausted"
	case errors.Is(err, auth.ErrUnavailable):
		return "unavailable"
	default:
		return "unauthenticated"
	}
}

// add adds e to the pending event of its key. It returns a copy of e if there was none.
func (r *Rejections) add(k rejectionKey, e Event) (first *Event) {
	if r.pending[k] == nil && (len(r.pending) >= maxSources || !r.budget.AllowN(e.At, 1)) {
		k.source, e.Address, e.By, e.Action = otherSources, otherSources, auth.Principal{}, ""
	}
	known := r.pending[k]
	if known == nil {
		pending := e
		r.pending[k] = &pending
		return &e
	}
	known.merge(e)
	return nil
}

// merge adds the rejections of another event. What differs is not known of their sum.
func (e *Event) merge(o Event) {
	e.Count += o.Count
	if e.Action != o.Action {
		e.Action = ""
	}
	if e.By.Name != o.By.Name || e.By.Method != o.By.Method || e.By.TokenID != o.By.TokenID {
		e.By = auth.Principal{}
	}
}

// run stores the events of each period.
func (r *Rejections) run() {
	defer close(r.done)
	ticker := time.NewTicker(rejectionPeriod)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			r.flush()
		case <-r.quit:
			r.flush()
			return
		}
	}
}

// flush stores the pending events. If that fails they are kept for the next time.
func (r *Rejections) flush() {
	r.mu.Lock()
	pending := r.pending
	r.pending = map[rejectionKey]*Event{}
	r.mu.Unlock()
	if len(pending) == 0 {
		return
	}
	events := make([]Event, 0, len(pending))
	for _, e := range pending {
		events = append(events, *e)
	}
	slices.SortFunc(events, func(a, b Event) int { return a.At.Compare(b.At) })
	ctx, cancel := context.WithTimeout(context.Background(), recordTimeout)
	defer cancel()
	if err := r.recorder.RecordAudit(ctx, events...); err != nil {
		r.log.Error("rejections not stored yet, trying again in a minute", logkey.Count, len(events), logkey.Error, err)
		r.restore(pending)
	}
}

// restore puts events back among those that are pending.
func (r *Rejections) restore(events map[rejectionKey]*Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	later := r.pending
	r.pending = events
	for _, k := range slices.SortedFunc(maps.Keys(later), func(a, b rejectionKey) int { return later[a].At.Compare(later[b].At) }) {
		r.add(k, *later[k])
	}
}

// Close stores what is pending. Rejections that are recorded after it are lost. Closing twice
// is not an error.
func (r *Rejections) Close() {
	r.stop.Do(func() { close(r.quit) })
	<-r.done
}
