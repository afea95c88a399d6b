// Package result owns what was measured: samples, their statistics, and the targets that
// they are compared with.
package result

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"time"
)

// Results are the measurements of one call of the bench.
type Results struct {
	Meta    Meta     `json:"meta"`
	Samples []Sample `json:"samples"`
}

// Meta describes how the samples were measured.
type Meta struct {
	Command   string    `json:"command"`
	Commit    string    `json:"commit"`
	GoVersion string    `json:"go_version"`
	Kernel    string    `json:"kernel"`
	CPUs      int       `json:"cpus"`
	CPUModel  string    `json:"cpu_model"`
	Began     time.Time `json:"began"`
	// Quick samples prove that the bench works and say nothing about speed.
	Quick bool `json:"quick,omitempty"`
}

// Sample is one run of one measure on one server.
type Sample struct {
	Measure string `json:"measure"`
	Server  string `json:"server"`
	Run     int    `json:"run"`
	// At is the size in a growth measure; 0 elsewhere.
	At     int                `json:"at,omitempty"`
	Values map[string]float64 `json:"values"`
}

// Of returns a value of a measure on a server, for each run in order.
func (r Results) Of(measure, server, value string, at int) []float64 {
	byRun := map[int]float64{}
	for _, s := range r.Samples {
		if v, ok := s.Values[value]; ok && s.Measure == measure && s.Server == server && s.At == at {
			byRun[s.Run] = v
		}
	}
	var all []float64
	for _, run := range r.runs() {
		if v, ok := byRun[run]; ok {
			all = append(all, v)
		}
	}
	return all
}

// Sizes returns the sizes of a growth measure, ascending.
func (r Results) Sizes(measure string) []int {
	var at []int
	for _, s := range r.Samples {
		if s.Measure == measure && !slices.Contains(at, s.At) {
			at = append(at, s.At)
		}
	}
	slices.Sort(at)
	return at
}

func (r Results) runs() []int {
	var runs []int
	for _, s := range r.Samples {
		if !slices.Contains(runs, s.Run) {
			runs = append(runs, s.Run)
		}
	}
	slices.Sort(runs)
	return runs
}

// ReadAll reads results of the same commit from several files. A measure that is in two of
// them is rejected: its runs would be mixed up.
func ReadAll(paths []string) (Results, error) {
	var all Results
	for i, path := range paths {
		r, err := Read(path)
		switch {
		case err != nil:
			return all, err
		case i == 0:
			all = r
			continue
		case r.Meta.Commit != all.Meta.Commit:
			return all, fmt.Errorf("%s: the commit must be that of %s, %s", path, paths[0], all.Meta.Commit)
		}
		for _, s := range r.Samples {
			if slices.ContainsFunc(all.Samples, func(other Sample) bool { return other.Measure == s.Measure }) {
				return all, fmt.Errorf("%s: the measure %s must not be in two files", path, s.Measure)
			}
		}
		all.Meta.Command += "`, `" + r.Meta.Command
		all.Meta.Quick = all.Meta.Quick || r.Meta.Quick
		all.Samples = append(all.Samples, r.Samples...)
	}
	return all, nil
}

// Read reads results from a file.
func Read(path string) (r Results, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return r, fmt.Errorf("read %s: %w", path, err)
	}
	return r, nil
}

// Write writes results to a file.
func (r Results) Write(path string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o600)
}
