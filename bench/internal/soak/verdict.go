package soak

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/mig-controller/mig-controller/bench/internal/result"
)

// How much a value may grow from the first to the last third of the last run and still
// count as flat. Memory also depends on the garbage collector. Counts do not: in a large
// fleet they may grow only a little.
const (
	growth      = 0.15
	countGrowth = 0.03
	extraCount  = 20
	// extraMemory is in MiB. The controller returns memory every 15 s
	// (internal/app/memory.go), so that the memory of a small fleet varies by a few MiB.
	extraMemory = 8
)

const memory = "memory (MiB)"

// minSamples is how many samples a run must have to be evaluated.
const minSamples = 9

// Verdict is the result of a soak.
type Verdict struct {
	Meta result.Meta `json:"meta"`
	VMs  int         `json:"vms"`
	// For is its duration.
	For     time.Duration `json:"for"`
	Samples []Sample      `json:"samples"`
	// Trends are the observed values in the first and the last third of the last run.
	Trends []Trend `json:"trends"`
	// Back is how long most VMs took to reconnect after each kill.
	Back []time.Duration `json:"back"`
	// Faults are why the soak failed; empty if it passed.
	Faults []string `json:"faults"`
}

// Trend is the development of a value.
type Trend struct {
	Name  string  `json:"name"`
	First float64 `json:"first"`
	Last  float64 `json:"last"`
}

// Flat reports whether the value grew by no more than permitted.
func (t Trend) Flat() bool {
	most := t.First * growth
	if t.Name == memory {
		most = max(most, extraMemory)
	} else {
		most = min(most, t.First*countGrowth+extraCount)
	}
	return t.Last-t.First <= most
}

// seen returns the observations before they are evaluated.
func (r *run) seen() Verdict {
	return Verdict{VMs: r.VMs, For: r.For, Samples: r.samples, Back: r.back}
}

// judge evaluates the samples of the last run, and the totals of all operations.
func (r *run) judge() (Verdict, error) {
	v := r.seen()
	var last []Sample
	for _, s := range r.samples {
		if s.Life == r.life {
			last = append(last, s)
		}
	}
	if len(last) < minSamples {
		return v, fmt.Errorf("the last run has %d samples, too few to evaluate: run longer or sample more often", len(last))
	}
	v.Trends = []Trend{
		trend(memory, last, func(s Sample) float64 { return float64(s.RSS) / (1 << 20) }),
		trend("goroutines", last, func(s Sample) float64 { return float64(s.Goroutines) }),
		trend("threads", last, func(s Sample) float64 { return float64(s.Threads) }),
		trend("open files", last, func(s Sample) float64 { return float64(s.Files) }),
	}
	for _, t := range v.Trends {
		if !t.Flat() {
			v.Faults = append(v.Faults, fmt.Sprintf("%s grew from %.0f to %.0f", t.Name, t.First, t.Last))
		}
	}
	v.Faults = append(v.Faults, r.commands.faults("commands", "done", r.Commands)...)
	v.Faults = append(v.Faults, r.replaced.faults("VMs", "replaced", r.Replace)...)
	if there := r.VMs + int(r.replaced.done.Load()); r.known != there {
		v.Faults = append(v.Faults, fmt.Sprintf("the controller knows %d VMs, but there were %d", r.known, there))
	}
	return v, nil
}

// faults returns what is wrong with an operation that was to be done at this rate.
func (o *outcome) faults(what, done string, perSecond float64) (faults []string) {
	if n := o.failed.Load(); n > 0 {
		faults = append(faults, fmt.Sprintf("%d %s failed, the latest: %v", n, what, *o.fault.Load()))
	}
	if o.done.Load() == 0 && perSecond > 0 {
		faults = append(faults, fmt.Sprintf("no %s were %s", what, done))
	}
	return faults
}

// trend compares the medians of the first and the last third.
func trend(name string, samples []Sample, of func(Sample) float64) Trend {
	var values []float64
	for _, s := range samples {
		values = append(values, of(s))
	}
	third := len(values) / 3
	return Trend{
		name, result.SpreadOf(values[:third]).Median, result.SpreadOf(values[len(values)-third:]).Median,
	}
}

// Err returns nil if the soak passed.
func (v Verdict) Err() error {
	if len(v.Faults) == 0 {
		return nil
	}
	return errors.New("the soak did not pass: " + strings.Join(v.Faults, "; "))
}

// Read reads a verdict from a file. It returns an error if the file does not say how it was
// made.
func Read(path string) (v Verdict, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return v, err
	}
	if err := json.Unmarshal(text, &v); err != nil {
		return v, fmt.Errorf("read %s: %w", path, err)
	}
	switch {
	case v.Meta.Command == "":
		err = errors.New("meta.command must not be empty")
	case v.Meta.Commit == "":
		err = errors.New("meta.commit must not be empty")
	case len(v.Trends) == 0:
		err = errors.New("trends must not be empty: the soak did not complete")
	}
	if err != nil {
		err = fmt.Errorf("read %s: %w", path, err)
	}
	return v, err
}

// Write writes a verdict to a file.
func (v Verdict) Write(path string) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o600)
}
