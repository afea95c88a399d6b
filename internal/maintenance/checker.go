package maintenance

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mig-controller/mig-controller/internal/metric"
)

// checkEvery is how often the controller checks itself for the metrics.
const checkEvery = 15 * time.Second

// checker makes a check at intervals, and reports in the metrics whether it succeeds.
type checker struct {
	name  string
	check func(context.Context) error
	log   *slog.Logger

	ok    atomic.Bool               // the latest check succeeded
	began atomic.Pointer[time.Time] // the check in progress; nil for none
}

func newChecker(name string, check func(context.Context) error, log *slog.Logger, m metrics) *checker {
	c := &checker{name: name, check: check, log: log}
	m.with.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: metric.Namespace, Name: "check_ok", ConstLabels: prometheus.Labels{"check": name},
		Help: "Whether the latest check succeeded, which is made every 15 seconds: store writes to the database, journal writes a file. A check that takes longer than that has not succeeded.",
	}, c.value)
	return c
}

func (c *checker) run(ctx context.Context) {
	everyFromNow(ctx, checkEvery, c.log.With(keyService, "check "+c.name), func(ctx context.Context) error {
		now := time.Now()
		c.began.Store(&now)
		err := c.check(ctx)
		c.ok.Store(err == nil)
		c.began.Store(nil)
		return err
	})
}

// value is 1 if the latest check succeeded and none has been in progress for too long.
func (c *checker) value() float64 {
	if began := c.began.Load(); !c.ok.Load() || began != nil && time.Since(*began) > checkEvery {
		return 0
	}
	return 1
}
