package maintenance

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mig-controller/mig-controller/internal/logkey"
	"github.com/mig-controller/mig-controller/internal/metric"
	"github.com/mig-controller/mig-controller/internal/readiness"
)

// checkEvery is how often the controller checks itself for the metrics.
const checkEvery = 15 * time.Second

// checker makes the checks of readiness at intervals and reports their results in the metrics.
type checker struct {
	checks *readiness.Checks
	log    *slog.Logger
	desc   *prometheus.Desc

	mu     sync.Mutex
	passed map[string]bool // as of the latest results
}

func newChecker(o Options) *checker {
	c := &checker{
		checks: o.Checks, log: o.Log.With(keyService, "checks"), passed: map[string]bool{},
		desc: prometheus.NewDesc(prometheus.BuildFQName(metric.Namespace, "", "check_ok"),
			"Whether each check of readiness passed when it was last made, which is every 15 seconds: see docs/operations.md. A check that blocks has not passed.",
			[]string{"check"}, nil),
	}
	if o.Metrics != nil {
		o.Metrics.MustRegister(c)
	}
	return c
}

// RepeatChecks makes the checks of readiness at intervals until ctx ends, and exports their
// results. It is to be called once everything that is checked has started.
func (m *Maintenance) RepeatChecks(ctx context.Context) {
	if m.checker != nil {
		m.checker.run(ctx)
	}
}

func (c *checker) run(ctx context.Context) {
	everyFromNow(ctx, checkEvery, c.log, func(ctx context.Context) error {
		if results := c.checks.Run(ctx); ctx.Err() == nil {
			c.record(results)
		}
		return nil
	})
}

// record stores the results, and logs those that differ from the last ones.
func (c *checker) record(results readiness.Results) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range results {
		before, known := c.passed[r.Name]
		c.passed[r.Name] = r.Err == nil
		switch {
		case r.Name == readiness.NotDraining, known && before == (r.Err == nil):
		case r.Err != nil:
			c.log.Error("readiness check failed", keyCheck, r.Name, logkey.Error, r.Err)
		case known:
			c.log.Info("readiness check passed again", keyCheck, r.Name)
		}
	}
}

// Describe implements prometheus.Collector.
func (c *checker) Describe(all chan<- *prometheus.Desc) { all <- c.desc }

// Collect implements prometheus.Collector. Until the first results, no check has passed.
func (c *checker) Collect(all chan<- prometheus.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range c.checks.Names() {
		value := 0.
		if c.passed[name] {
			value = 1
		}
		all <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, value, name)
	}
}
