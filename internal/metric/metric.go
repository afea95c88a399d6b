// Package metric owns what the metrics of all packages have in common: the prefix of their
// names, the bounds of their labels, the buckets of their histograms, and the page that
// Prometheus reads.
//
// A package that has metrics registers them itself, with the prometheus.Registerer in its
// options; nil registers none of them. The number of their series does not depend on the
// number of VMs: a label has values of a closed set, or those that Pools returns.
package metric

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Namespace is the prefix of all names.
const Namespace = "migcontroller"

// Other is the value of a label for everything that is not in its set.
const Other = "other"

// OneOf returns value if it is one of known, and otherwise Other.
func OneOf(value string, known []string) string {
	if slices.Contains(known, value) {
		return value
	}
	return Other
}

// Durations are the upper bounds in seconds of the classic buckets for waits between
// milliseconds and hours: acks, deliveries, gaps between heartbeats.
var Durations = []float64{.005, .025, .1, .25, .5, 1, 2.5, 5, 15, 30, 60, 300, 1800, 7200}

// Latencies are the upper bounds in seconds of the classic buckets for work of the
// controller itself: requests and commits.
var Latencies = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10}

// Histogram returns the options of a histogram with classic buckets, for every Prometheus,
// and native ones, which are exact to a tenth, for those that are configured to scrape them.
func Histogram(name, help string, buckets []float64) prometheus.HistogramOpts {
	return prometheus.HistogramOpts{
		Namespace: Namespace, Name: name, Help: help, Buckets: buckets,
		NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100,
		NativeHistogramMinResetDuration: time.Hour,
	}
}
