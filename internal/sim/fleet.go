package sim

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/time/rate"
)

const minStartRate = 0.01

// FleetConfig describes a fleet. Agent is the configuration of each of its agents, except
// that the fleet sets VMID and Seed.
type FleetConfig struct {
	Agent Config
	VMs   int // at a time
	// Place, if not nil, changes the configuration of the i-th VM, counted from 0, and of
	// those that replace it.
	Place func(i int, c *Config)
	// VMPrefix is the prefix of the VM ids: <prefix>0001, <prefix>0002, … A VM that
	// replaces a spent one has the number of that one plus VMs.
	VMPrefix  string
	StartRate float64 // VMs started per second
	// DuplicateIDs is how many VMs have two agents: the additional agents use the ids of
	// the first ones and start after all others.
	DuplicateIDs int
}

// Validate returns a *ConfigError for the first invalid field.
func (c FleetConfig) Validate() error {
	switch {
	case c.VMs < 1:
		return &ConfigError{"VMs", "must be at least 1"}
	case !(c.StartRate >= minStartRate):
		return &ConfigError{"StartRate", "must be at least 0.01"}
	case c.DuplicateIDs < 0 || c.DuplicateIDs > c.VMs:
		return &ConfigError{"DuplicateIDs", "must be between 0 and the number of VMs"}
	}
	return c.Agent.Validate()
}

// Fleet runs many agents with one set of counters.
type Fleet struct {
	cfg      FleetConfig
	counters counters
	agents   []*Agent
}

// NewFleet returns a fleet that does nothing until Run. It returns a
// *ConfigError.
func NewFleet(cfg FleetConfig) (*Fleet, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	f := &Fleet{cfg: cfg}
	for i := range cfg.VMs + cfg.DuplicateIDs {
		a, err := f.newAgent(i, 0)
		if err != nil {
			return nil, err
		}
		f.agents = append(f.agents, a)
	}
	return f, nil
}

// newAgent returns the agent of place i after this many replacements.
func (f *Fleet) newAgent(i, replaced int) (*Agent, error) {
	vm, base := i%f.cfg.VMs, replaced*f.cfg.VMs
	cfg := f.cfg.Agent
	if f.cfg.Place != nil {
		f.cfg.Place(vm, &cfg)
	}
	cfg.VMID = vmID(f.cfg.VMPrefix, base+vm)
	cfg.Seed = agentSeed(cfg.Seed, i+replaced*(f.cfg.VMs+f.cfg.DuplicateIDs))
	a, err := newAgent(cfg, &f.counters)
	if err != nil {
		return nil, err
	}
	a.contested = vm < f.cfg.DuplicateIDs
	if f.cfg.VMs > 1 {
		a.foreignID = vmID(f.cfg.VMPrefix, base+(vm+1)%f.cfg.VMs)
	}
	return a, nil
}

func vmID(prefix string, i int) string { return fmt.Sprintf("%s%04d", prefix, i+1) }

// agentSeed returns a different seed for every agent.
func agentSeed(seed uint64, i int) uint64 {
	const odd = 0x9e3779b97f4a7c15 // 2^64 / golden ratio: spreads consecutive numbers
	return seed ^ (uint64(i)+1)*odd
}

// Agents returns the agents in the order in which they start, without replacements. The
// slice must not be changed.
func (f *Fleet) Agents() []*Agent { return f.agents }

// Snapshot returns what all agents counted so far.
func (f *Fleet) Snapshot() Snapshot { return f.counters.snapshot() }

// Run starts the agents at the start rate and blocks until ctx has ended and all of them
// have returned. Agents that the controller refused do not reconnect. It may be called
// once.
func (f *Fleet) Run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	// Timers are late: what is due within 10 ms may start at once.
	starts := rate.NewLimiter(rate.Limit(f.cfg.StartRate), 1+int(min(f.cfg.StartRate/100, 100)))
	for i := range f.agents {
		if starts.Wait(ctx) != nil {
			break
		}
		running.Go(func() { f.play(ctx, i) })
	}
	<-ctx.Done()
}

// play runs the agent of place i, and its replacements, until ctx ends or the controller
// refuses one of them, which is counted.
func (f *Fleet) play(ctx context.Context, i int) {
	a := f.agents[i]
	for replaced := 1; errors.Is(a.Run(ctx), ErrReplaced); replaced++ {
		next, err := f.newAgent(i, replaced)
		if err != nil { // impossible after Validate
			return
		}
		f.counters.replaced.Add(1)
		a = next
	}
}
