package control

import (
	"math"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/mig-controller/mig-controller/internal/metric"
)

// metrics are the metrics of a Control.
type metrics struct {
	waits     prometheus.Gauge
	positions positions
}

// register registers the metrics.
func (c *Control) register(r prometheus.Registerer) {
	with := promauto.With(r)
	opts := func(name, help string) prometheus.GaugeOpts {
		return prometheus.GaugeOpts{Namespace: metric.Namespace, Name: name, Help: help}
	}
	c.metrics.waits = with.NewGauge(opts("command_waits", "Calls that wait for the end of a command."))
	with.NewGaugeFunc(opts("watches", "Watches of operators that are open."),
		func() float64 { return float64(c.metrics.positions.count()) })
	with.NewGaugeFunc(opts("watch_lag_changes",
		"Changes after the position of the slowest watch; 0 if all have been sent. A watcher that is this far behind does not read fast enough. Its watch fails once these changes are past their retention (--retain-changes)."),
		func() float64 { return float64(c.metrics.positions.lag(c.engine.LastChange())) })
}

// position is the Seq up to which a watch has sent or skipped everything, or caughtUp.
type position struct{ atomic.Int64 }

// caughtUp is the position of a watch that waits for the next change.
const caughtUp = math.MaxInt64

// positions are those of the open watches. The zero value is ready to use.
type positions struct {
	mu  sync.Mutex
	all map[*position]bool
}

// add adds a position until remove is called.
func (p *positions) add(one *position) (remove func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all == nil {
		p.all = map[*position]bool{}
	}
	p.all[one] = true
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.all, one)
	}
}

func (p *positions) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.all)
}

// lag returns how far the slowest watch is behind the last change.
func (p *positions) lag(last int64) (most int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for one := range p.all {
		most = max(most, last-one.Load())
	}
	return most
}
