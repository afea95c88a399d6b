package rpc

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// healthInterval is how often readiness is checked while there are watches.
const healthInterval = 5 * time.Second

// statusServiceUnknown is sent to watches of an unknown service, which may become known later;
// grpchealth has no name for it.
const statusServiceUnknown grpchealth.Status = 3

// newHealthHandler returns the handler of grpc.health.v1.Health. Check runs a readiness check;
// Watch reports the latest result.
func newHealthHandler(w *healthWatch, options ...connect.HandlerOption) (prefix string, h http.Handler) {
	prefix, check := grpchealth.NewHandler(w.ready, options...)
	_, watch := grpchealth.NewHandler(w, options...)
	mux := http.NewServeMux()
	mux.Handle(prefix, check)
	mux.Handle(prefix+"Watch", watch)
	return prefix, mux
}

// healthWatch checks readiness for all watches together: when a watch begins, then once per
// interval, and not at all when there are no watches. It is safe for concurrent use.
type healthWatch struct {
	ready    readyFunc
	interval time.Duration
	draining <-chan struct{} // from then on nothing is ready; nil means never
	stopping <-chan struct{} // ends all watches; nil means never

	checking sync.Mutex // held during a check, so that an older result cannot replace a newer one

	mu       sync.Mutex
	last     grpchealth.Status
	watchers map[*func()]bool // what to call after a change
	poll     *healthPoll      // nil while there are none
}

// healthPoll is a goroutine that keeps healthWatch.last up to date.
type healthPoll struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// Check implements grpchealth.Checker for watches, which call it when they begin and after
// each change.
func (w *healthWatch) Check(_ context.Context, req *grpchealth.CheckRequest) (*grpchealth.CheckResponse, error) {
	select {
	case <-w.stopping:
		return nil, toConnect(fleet.ErrStopping)
	default:
	}
	if req.Service != "" && !slices.Contains(serviceNames, req.Service) {
		return &grpchealth.CheckResponse{Status: statusServiceUnknown}, nil
	}
	return &grpchealth.CheckResponse{Status: w.status()}, nil
}

// status returns the latest status. It does not wait for a check when the controller is drained,
// because a check can take seconds.
func (w *healthWatch) status() grpchealth.Status {
	select {
	case <-w.draining:
		return grpchealth.StatusNotServing
	default:
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

// Watch implements grpchealth.Watcher. Once stop has returned for the last watch, no
// goroutine is left.
func (w *healthWatch) Watch(ctx context.Context, _ *grpchealth.CheckRequest, changed func()) (stop func(), err error) {
	w.update(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.watchers == nil {
		w.watchers = map[*func()]bool{}
	}
	w.watchers[&changed] = true
	if w.poll == nil {
		// It continues for others when this watch has ended.
		polling, cancel := context.WithCancel(context.WithoutCancel(ctx))
		w.poll = &healthPoll{cancel, make(chan struct{})}
		go w.run(polling, w.poll.done)
	}
	return func() { w.remove(&changed) }, nil
}

func (w *healthWatch) remove(changed *func()) {
	w.mu.Lock()
	delete(w.watchers, changed)
	poll := w.poll
	if len(w.watchers) > 0 {
		poll = nil
	}
	if poll != nil {
		w.poll = nil
	}
	w.mu.Unlock()
	if poll != nil {
		poll.cancel()
		<-poll.done
	}
}

// run checks until ctx ends.
func (w *healthWatch) run(ctx context.Context, done chan<- struct{}) {
	defer close(done)
	var announcing sync.WaitGroup
	defer announcing.Wait()
	announcing.Go(func() { w.announce(ctx) }) // also during a check, which can take seconds
	ticker := time.NewTicker(w.interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			w.update(ctx)
		}
	}
}

// announce notifies the watches when the controller is drained and when it stops, until ctx
// ends.
func (w *healthWatch) announce(ctx context.Context) {
	draining, stopping := w.draining, w.stopping
	for {
		select {
		case <-ctx.Done():
			return
		case <-draining:
			draining = nil
		case <-stopping:
			stopping = nil
		}
		w.notify()
	}
}

// update checks readiness, and notifies the watches if it has changed. The result is ignored
// if ctx has ended.
func (w *healthWatch) update(ctx context.Context) {
	w.checking.Lock()
	defer w.checking.Unlock()
	status := w.ready.status(ctx)
	if ctx.Err() != nil {
		return
	}
	w.mu.Lock()
	same := status == w.last
	w.last = status
	w.mu.Unlock()
	if !same {
		w.notify()
	}
}

func (w *healthWatch) notify() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for changed := range w.watchers {
		(*changed)() // returns at once
	}
}
