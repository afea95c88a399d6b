package measure

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mig-controller/mig-controller/bench/internal/proc"
	"github.com/mig-controller/mig-controller/bench/internal/target"
)

// errNothing occurs when nothing was done that could be measured.
var errNothing = errors.New("the server did nothing during the measurement")

// span is a period of a server's work.
type span struct {
	server *target.Server
	began  time.Time
	cpu    time.Duration
	mark   target.Mark
}

// work is the work of a server in a span.
type work struct {
	took, cpu time.Duration
	beats     float64
}

func begin(ctx context.Context, s *target.Server) (sp span, err error) {
	sp = span{server: s}
	if sp.mark, err = s.Mark(ctx); err != nil {
		return sp, err
	}
	sp.began = time.Now()
	sp.cpu, err = proc.CPU(s.PID())
	return sp, err
}

// end ends the span immediately; count counts its work later.
func (sp span) end(ctx context.Context) (w work, count func() (work, error), err error) {
	now, err := begin(ctx, sp.server)
	w = work{took: now.began.Sub(sp.began), cpu: now.cpu - sp.cpu}
	return w, func() (work, error) {
		n, err := sp.server.Between(ctx, sp.mark, now.mark)
		if err == nil && n == 0 {
			err = errNothing
		}
		w.beats = float64(n)
		return w, err
	}, err
}

// pause waits, or returns early with the cause of the context.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// await calls done until it returns true.
func await(ctx context.Context, what string, within, every time.Duration, done func() (bool, error)) error {
	deadline := time.Now().Add(within)
	for {
		ok, err := done()
		if err != nil || ok {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: not within %s", what, within)
		}
		if err := pause(ctx, every); err != nil {
			return err
		}
	}
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
