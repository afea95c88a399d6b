package soak

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/mig-controller/mig-controller/bench/internal/result"
)

// growth is how much more than in the first third of the last life something
// may be in its last third, and still count as flat.
const growth = 1.15

// leastSamples is how many samples a life must have to be judged.
const leastSamples = 9

// Verdict is how a soak ended.
type Verdict struct {
	Samples []Sample `json:"samples"`
	// Trends are what is watched, from the first to the last third of the last
	// life.
	Trends []Trend `json:"trends"`
	// Back is how long most VMs took to be back after each kill.
	Back []time.Duration `json:"back"`
	// Faults are why it did not pass; empty when it did.
	Faults []string `json:"faults"`
}

// Trend is how something went.
type Trend struct {
	Name  string  `json:"name"`
	First float64 `json:"first"`
	Last  float64 `json:"last"`
}

func (t Trend) flat() bool { return t.Last <= t.First*growth }

// judge looks at the samples of the last life.
func (r *run) judge() (Verdict, error) {
	v := Verdict{Samples: r.samples, Back: r.back}
	var last []Sample
	for _, s := range r.samples {
		if s.Life == r.life {
			last = append(last, s)
		}
	}
	if len(last) < leastSamples {
		return v, fmt.Errorf("the last life has %d samples, too few to judge: run longer or sample more often", len(last))
	}
	v.Trends = []Trend{
		trend("memory (MiB)", last, func(s Sample) float64 { return float64(s.RSS) / (1 << 20) }),
		trend("threads", last, func(s Sample) float64 { return float64(s.Threads) }),
		trend("open files", last, func(s Sample) float64 { return float64(s.Files) }),
	}
	for _, t := range v.Trends {
		if !t.flat() {
			v.Faults = append(v.Faults, fmt.Sprintf("%s grew from %.0f to %.0f", t.Name, t.First, t.Last))
		}
	}
	if n := r.failed.Load(); n > 0 {
		v.Faults = append(v.Faults, fmt.Sprintf("%d commands failed, the latest: %v", n, *r.fault.Load()))
	}
	if r.done.Load() == 0 && r.Commands > 0 {
		v.Faults = append(v.Faults, "no command was done")
	}
	return v, nil
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

// String is the verdict as Markdown.
func (v Verdict) String() string {
	var b strings.Builder
	b.WriteString("| in the last life | first third | last third | flat |\n|---|---|---|---|\n")
	for _, t := range v.Trends {
		fmt.Fprintf(&b, "| %s | %.0f | %.0f | %t |\n", t.Name, t.First, t.Last, t.flat())
	}
	end := v.Samples[len(v.Samples)-1]
	fmt.Fprintf(&b, "\n%d commands done, %d failed. Back after kills:", end.Done, end.Failed)
	for _, d := range v.Back {
		fmt.Fprintf(&b, " %.1f s", d.Seconds())
	}
	b.WriteString(".\n")
	return b.String()
}

// Err returns nil when the soak passed.
func (v Verdict) Err() error {
	if len(v.Faults) == 0 {
		return nil
	}
	return errors.New("the soak did not pass: " + strings.Join(v.Faults, "; "))
}
