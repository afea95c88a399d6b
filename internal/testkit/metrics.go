package testkit

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
)

// Metrics returns the values of metrics by their names without the common prefix, with their
// labels as in name{label="value"}. A histogram has name_count and name_sum.
func Metrics(tb testing.TB, from prometheus.Gatherer) map[string]float64 {
	tb.Helper()
	families, err := from.Gather()
	require.NoError(tb, err)
	values := map[string]float64{}
	for _, family := range families {
		name := strings.TrimPrefix(family.GetName(), "migcontroller_")
		for _, m := range family.GetMetric() {
			var pairs []string
			for _, l := range m.GetLabel() {
				pairs = append(pairs, l.GetName()+`="`+l.GetValue()+`"`)
			}
			labels := ""
			if len(pairs) > 0 {
				labels = "{" + strings.Join(pairs, ",") + "}"
			}
			if h := m.GetHistogram(); h != nil {
				values[name+"_count"+labels], values[name+"_sum"+labels] = float64(h.GetSampleCount()), h.GetSampleSum()
				continue
			}
			values[name+labels] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return values
}
