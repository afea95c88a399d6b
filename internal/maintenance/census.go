package maintenance

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/mig-controller/mig-controller/internal/engine"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/metric"
	"github.com/mig-controller/mig-controller/internal/store"
)

const (
	// countEvery is how often VMs and open commands are counted.
	countEvery = 15 * time.Second
	// countShare is how many times as long as a count takes the next one waits.
	countShare = 100
)

// census counts VMs and open commands for the metrics.
type census struct {
	Options
	metrics metrics
	// pools are the values of the label that have series.
	pools map[string]bool
	next  time.Time
	fault error // of the latest count
}

func newCensus(o Options, m metrics) *census {
	c := &census{Options: o, metrics: m, pools: map[string]bool{}}
	c.setVMs(nil) // all series of a fleet without pools
	return c
}

func (c *census) run(ctx context.Context) {
	everyFromNow(ctx, countEvery, c.Log.With(keyService, "count"), c.countDue)
}

// countDue counts, unless the last count took so long that it must not be repeated yet. After
// an error the metrics keep their values.
func (c *census) countDue(ctx context.Context) error {
	began := time.Now()
	if began.Before(c.next) {
		return c.fault
	}
	counts, err := c.Engine.Counts(ctx)
	c.fault, c.next = err, time.Now().Add(countShare*time.Since(began))
	if err == nil {
		c.set(counts)
	}
	return err
}

func (c *census) set(counts engine.Counts) {
	c.setVMs(counts.VMs)
	open := map[fleet.Queue]int64{}
	for _, q := range counts.Queues {
		open[fleet.Queue(q.Queue)] += q.N
	}
	for q, gauge := range c.metrics.open {
		gauge.Set(float64(open[q]))
	}
	c.metrics.oldestConnected.set(counts.OldestPending.Connected)
	c.metrics.oldestOffline.set(counts.OldestPending.Offline)
	c.metrics.counted.Set(float64(c.Clock().UnixMilli()) / 1000)
}

// setVMs sets the number of VMs of each pool and state, also those of pools that have none
// any more.
func (c *census) setVMs(counts []store.VMCount) {
	c.pools[""] = true
	// The largest pools first, so that they get names rather than small ones.
	slices.SortStableFunc(counts, func(a, b store.VMCount) int { return cmp.Compare(b.N, a.N) })
	type series struct{ pool, state string }
	sums := map[series]int64{}
	for _, n := range counts {
		s := series{c.Pools.Value(n.Pool), stateOf(n)}
		c.pools[s.pool] = true
		sums[s] += n.N
	}
	for pool := range c.pools {
		for _, state := range vmStates {
			c.metrics.vms.WithLabelValues(pool, state).Set(float64(sums[series{pool, state}]))
		}
	}
}

// stateOf returns the value of the label for the state of VMs.
func stateOf(n store.VMCount) string {
	switch {
	case !n.Connected:
		return stateOffline
	case n.Status == "":
		return stateUnknown
	default:
		return metric.OneOf(n.Status, fleet.Statuses)
	}
}
