package maintenance

import (
	"context"
	"log/slog"
	"time"

	"github.com/mig-controller/mig-controller/internal/logkey"
)

// service is a goroutine that runs between start and stop.
type service struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// start calls run in a goroutine, with a context that is done once stop is called.
func start(run func(ctx context.Context)) *service {
	ctx, cancel := context.WithCancel(context.Background())
	s := &service{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		run(ctx)
	}()
	return s
}

// stop returns when run has returned. It may be called more than once.
func (s *service) stop() {
	s.cancel()
	<-s.done
}

// every calls work at intervals until ctx is done. It logs the first of successive errors.
func every(ctx context.Context, interval time.Duration, log *slog.Logger, work func(context.Context) error) {
	repeat(ctx, interval, attempts(log, work))
}

// everyFromNow is every, with the first call immediately.
func everyFromNow(ctx context.Context, interval time.Duration, log *slog.Logger, work func(context.Context) error) {
	attempt := attempts(log, work)
	attempt(ctx)
	repeat(ctx, interval, attempt)
}

func repeat(ctx context.Context, interval time.Duration, attempt func(context.Context)) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		attempt(ctx)
	}
}

// attempts returns a function that calls work and logs the first of successive errors.
func attempts(log *slog.Logger, work func(context.Context) error) func(context.Context) {
	failing := false
	return func(ctx context.Context) {
		err := work(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			log.Error("maintenance failed, trying again", logkey.Error, err)
		}
		failing = err != nil
	}
}
