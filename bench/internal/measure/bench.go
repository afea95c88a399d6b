// Package measure owns what is measured, and how: each measure has its own file.
package measure

import (
	"context"
	"fmt"
	"maps"
	"os"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/mig-controller/mig-controller/bench/internal/load"
	"github.com/mig-controller/mig-controller/bench/internal/proc"
	"github.com/mig-controller/mig-controller/bench/internal/result"
	"github.com/mig-controller/mig-controller/bench/internal/target"
)

// Values are the results of one run of a measure, by name.
type Values map[string]float64

// Bench runs measures.
type Bench struct {
	Programs target.Programs
	Sizes    Sizes
	// Runs is how often each measure is run; 0 means its usual number.
	Runs int
	// Only names the measures to run; empty for all.
	Only []string
	// Progress is called for each run.
	Progress func(format string, args ...any)

	dir    string                // for the servers of the current measure
	stored map[storedSize]string // directories of filled databases
	fleets int                   // created on filled databases
}

// measure is one measure.
type measure struct {
	name    string
	servers []target.Kind
	// runs is how often it is usually run.
	runs int
	// at returns the sizes of a growth measure.
	at  func(Sizes) []int
	run func(b *Bench, ctx context.Context, kind target.Kind, at int) (Values, error)
}

var (
	withBare  = []target.Kind{target.Bare, target.Controller}
	alone     = []target.Kind{target.Controller}
	withTLS   = []target.Kind{target.Controller, target.TLS}
	notGrowth = func(Sizes) []int { return []int{0} }
)

// The number of runs: twice as many for the most variable ratio.
const (
	usual = 5
	often = 2 * usual
)

var measures = []measure{
	{"paced", withBare, often, notGrowth, (*Bench).paced},
	{"idle", withBare, usual, notGrowth, (*Bench).idle},
	{"connect", withBare, usual, notGrowth, (*Bench).connect},
	{"round-trip", withBare, usual, notGrowth, (*Bench).roundTrip},
	{"commands", withBare, usual, notGrowth, (*Bench).commands},
	{"reconnect", alone, usual, notGrowth, (*Bench).reconnect},
	{"storm", alone, usual, func(s Sizes) []int { return s.StormVMs }, (*Bench).storm},
	{"reads", alone, usual, notGrowth, (*Bench).reads},
	{"start", alone, usual, notGrowth, (*Bench).start},
	{"growth-vms", withBare, usual, func(s Sizes) []int { return s.GrowthVMs }, (*Bench).growthVMs},
	{"growth-stored", alone, usual, func(s Sizes) []int { return s.GrowthStored }, (*Bench).growthStored},
	{"multiplexed", alone, usual, notGrowth, (*Bench).multiplexed},
	{"tls", withTLS, usual, notGrowth, (*Bench).tls},
	{"flood", withBare, usual, notGrowth, (*Bench).flood},
}

// memoryLimit is how much memory the VMs and operators may use before garbage is collected.
const memoryLimit = 4 << 30

// Names returns the names of all measures.
func Names() []string {
	var names []string
	for _, m := range measures {
		names = append(names, m.name)
	}
	return names
}

// runs returns how often a measure is run.
func (b *Bench) runs(m measure) int {
	if b.Runs > 0 {
		return b.Runs
	}
	return m.runs
}

// Run runs the measures: each on all of its servers in turn, as many times as there are
// runs. It returns its results so far even with an error.
//
// The caller removes what the servers wrote: after removing many files, creating new ones
// is expensive for minutes (ext4 examines each inode that was freed recently).
func (b *Bench) Run(ctx context.Context) ([]result.Sample, error) {
	for _, name := range b.Only {
		if !slices.Contains(Names(), name) {
			return nil, fmt.Errorf("unknown measure %q; available are %v", name, Names())
		}
	}
	if err := proc.NeedConnections(b.Sizes.most(b.chosen)); err != nil {
		return nil, err
	}
	// The servers need the processors more than this process needs to save memory.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(memoryLimit))
	b.stored = map[storedSize]string{}
	var samples []result.Sample
	for _, m := range measures {
		if !b.chosen(m.name) {
			continue
		}
		got, err := b.interleave(ctx, m)
		samples = append(samples, got...)
		if err != nil {
			return samples, err
		}
	}
	return samples, nil
}

func (b *Bench) chosen(name string) bool { return len(b.Only) == 0 || slices.Contains(b.Only, name) }

func (b *Bench) interleave(ctx context.Context, m measure) (samples []result.Sample, err error) {
	if b.dir, err = os.MkdirTemp(b.Programs.Dir, m.name+"-"); err != nil {
		return nil, err
	}
	runs := b.runs(m)
	for run := range runs {
		for _, at := range m.at(b.Sizes) {
			for _, kind := range m.servers {
				debug.FreeOSMemory() // release the memory of the previous run
				proc.SyncDisks()     // so that the next server does not wait for it
				v, err := m.run(b, ctx, kind, at)
				if err != nil {
					return samples, fmt.Errorf("%s on %s, run %d: %w", m.name, kind, run+1, err)
				}
				s := result.Sample{Measure: m.name, Server: string(kind), Run: run + 1, At: at, Values: v}
				samples = append(samples, s)
				b.Progress("%s", describe(s, runs))
			}
		}
	}
	return samples, nil
}

func describe(s result.Sample, runs int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-13s run %d/%d  %-10s", s.Measure, s.Run, runs, s.Server)
	if s.At > 0 {
		fmt.Fprintf(&b, "  at %d", s.At)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Values)) {
		fmt.Fprintf(&b, "  %s %.4g", name, s.Values[name])
	}
	return b.String()
}

// fleetName is the prefix of the VM ids on a fresh server.
const fleetName = "bench-vm"

// scene is a server with VMs.
type scene struct {
	server *target.Server
	fleet  *load.Fleet
}

// fresh starts a server with a fresh directory.
func (b *Bench) fresh(ctx context.Context, kind target.Kind) (*target.Server, error) {
	p := b.Programs
	p.Dir = b.dir
	return p.Start(ctx, kind)
}

// with runs fn on a fresh server with this many VMs.
func (b *Bench) with(
	ctx context.Context, kind target.Kind, vms int, fn func(context.Context, scene) (Values, error),
) (Values, error) {
	s, err := b.fresh(ctx, kind)
	if err != nil {
		return nil, err
	}
	defer s.Kill()
	return b.on(ctx, s, fleetName, vms, fn)
}

// on is with on a running server that knows no VM with this name.
func (b *Bench) on(
	ctx context.Context, s *target.Server, name string, vms int, fn func(context.Context, scene) (Values, error),
) (Values, error) {
	return before(ctx, s, name, vms, func(ctx context.Context, at scene) (Values, error) {
		if err := connectAll(ctx, s, at.fleet); err != nil {
			return nil, err
		}
		if err := caughtUp(ctx, s); err != nil {
			return nil, err
		}
		return fn(ctx, at)
	})
}

// before is on with VMs that have not connected yet.
func before(
	ctx context.Context, s *target.Server, name string, vms int, fn func(context.Context, scene) (Values, error),
) (Values, error) {
	return of(ctx, s, func() (*load.Fleet, error) { return load.NewFleet(s.Addr, s.TLS, name, vms) }, fn)
}

// of runs fn on a server and a fleet that it creates and closes. The run fails if the
// server or a stream ends.
func of(
	ctx context.Context, s *target.Server, fleet func() (*load.Fleet, error), fn func(context.Context, scene) (Values, error),
) (v Values, err error) {
	ctx, stop := s.Watch(ctx)
	defer stop()
	defer func() {
		if err != nil && ctx.Err() != nil {
			err = fmt.Errorf("%w (%w)", context.Cause(ctx), err)
		}
	}()
	f, err := fleet()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if v, err = fn(ctx, scene{s, f}); err != nil {
		return nil, err
	}
	if n, cause := f.Ends(); n > 0 {
		return nil, fmt.Errorf("%d streams ended, the latest: %w", n, cause)
	}
	return v, nil
}
