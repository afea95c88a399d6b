package measure

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/mig-controller/mig-controller/bench/internal/load"
	"github.com/mig-controller/mig-controller/bench/internal/result"
	"github.com/mig-controller/mig-controller/bench/internal/target"
)

const (
	readPage = 100
	// readEvery is the time between two calls of one kind.
	readEvery = 20 * time.Millisecond
)

// reads measures how long operators wait for ListVMs and GetVM while heartbeats arrive.
func (b *Bench) reads(ctx context.Context, kind target.Kind, _ int) (Values, error) {
	return b.with(ctx, kind, b.Sizes.ReadVMs, func(ctx context.Context, s scene) (Values, error) {
		o, err := load.NewOperator(s.server.Addr, 1)
		if err != nil {
			return nil, err
		}
		defer o.Close()
		lists, gets := newCalls(), newCalls()
		token := ""
		go lists.make(ctx, b.Sizes.Warm, b.Sizes.ReadFor, func() (err error) {
			token, err = o.ListVMs(ctx, readPage, token)
			return err
		})
		go gets.make(ctx, b.Sizes.Warm, b.Sizes.ReadFor, func() error {
			return o.GetVM(ctx, s.fleet.ID(rand.IntN(b.Sizes.ReadVMs))) //nolint:gosec // any VM will do
		})
		v, err := b.beats(ctx, s, b.Sizes.ReadFor, func(ctx context.Context) { s.fleet.Pace(ctx, b.Sizes.ReadRate) })
		for _, c := range []*calls{lists, gets} {
			<-c.done
			if err == nil {
				err = c.err
			}
		}
		if err != nil {
			return nil, err
		}
		return Values{
			"per_second":  v["per_second"],
			"list_p50_ms": result.Percentile(lists.ms, 50), "list_p99_ms": result.Percentile(lists.ms, 99),
			"get_p50_ms": result.Percentile(gets.ms, 50), "get_p99_ms": result.Percentile(gets.ms, 99),
		}, nil
	})
}

// calls are calls of one kind at a steady pace.
type calls struct {
	done chan struct{}
	ms   []float64
	err  error
}

func newCalls() *calls { return &calls{done: make(chan struct{})} }

// make makes all calls that are due until d has passed after the warm-up. A late call
// delays later ones; all of them are measured.
func (c *calls) make(ctx context.Context, warm, d time.Duration, call func() error) {
	defer close(c.done)
	began := time.Now()
	for due := time.Duration(0); due < warm+d; due += readEvery {
		next := began.Add(due)
		if c.err = pause(ctx, time.Until(next)); c.err != nil {
			return
		}
		if c.err = call(); c.err != nil {
			return
		}
		if due >= warm {
			// From when it was due: waiting for the previous call counts.
			c.ms = append(c.ms, micros(time.Since(next))/1e3)
		}
	}
}
