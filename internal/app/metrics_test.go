package app

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/config"
	"github.com/mig-controller/mig-controller/internal/metric"
)

// page returns what is served at a URL.
func page(t *testing.T, url string) (status int, body string) {
	t.Helper()
	answer, err := get(t, h1Client(t), url)
	require.NoError(t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	return answer.StatusCode, string(text)
}

// Both addresses serve the metrics, and with --metrics-addr only that does.
func TestMetricsAddresses(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		address string
		own     bool
	}{
		"beside the API": {}, "an address": {address: "127.0.0.1:0", own: true}, "a port": {address: ":0", own: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := testOptions(t)
			o.MetricsAddr = test.address
			a, err := New(t.Context(), o, quiet(), io.Discard)
			require.NoError(t, err)
			stop := startApp(t, a)
			for _, addr := range []string{a.HTTPAddr(), a.GRPCAddr()} {
				status, body := page(t, "http://"+addr+"/metrics")
				require.Equal(t, test.own, status == http.StatusNotFound)
				require.NotEqual(t, test.own, strings.Contains(body, "migcontroller_build_info{"))
			}
			if test.own {
				require.Contains(t, a.MetricsAddr(), "127.0.0.1:")
				_, body := page(t, "http://"+a.MetricsAddr()+"/metrics")
				require.Contains(t, body, "migcontroller_build_info{")
				status, body := page(t, "http://"+a.MetricsAddr()+"/health")
				require.Equal(t, http.StatusNotFound, status)
				require.Contains(t, body, "/metrics")
			}
			require.NoError(t, stop())
		})
	}
}

// The address for metrics must be one of its own.
func TestMetricsAddressRules(t *testing.T) {
	t.Parallel()
	for address, rule := range map[string]string{
		"127.0.0.1:8080":  "--metrics-addr must not be --http-addr or --grpc-addr",
		"127.0.0.1:50051": "--metrics-addr must not be --http-addr or --grpc-addr",
		"localhost":       "--metrics-addr must be HOST:PORT",
	} {
		o := testOptions(t)
		o.HTTPAddr, o.GRPCAddr, o.MetricsAddr = "127.0.0.1:8080", "127.0.0.1:50051", address
		_, err := newApp(t.Context(), o, quiet(), io.Discard, newFakeService().wiring())
		require.ErrorContains(t, err, rule)
	}
}

// everyMetric returns the registry of a controller that has all metrics.
func everyMetric(t *testing.T) *prometheus.Registry {
	t.Helper()
	o, _ := tlsOptions(t)
	o.RegistrationTokenFile = filepath.Join(o.DataDir, "token")
	require.NoError(t, os.WriteFile(o.RegistrationTokenFile, []byte("token\n"), 0o600))
	w := defaultWiring()
	var metrics *prometheus.Registry
	inner := w.newService
	w.newService = func(ctx context.Context, o config.Options, f front, log *slog.Logger, r *prometheus.Registry) (service, error) {
		metrics = r
		return inner(ctx, o, f, log, r)
	}
	a, err := newApp(t.Context(), o, quiet(), io.Discard, w)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, a.Close()) })
	return metrics
}

// The names, units and help texts follow Prometheus' conventions.
func TestMetricConventions(t *testing.T) {
	t.Parallel()
	problems, err := testutil.GatherAndLint(everyMetric(t))
	require.NoError(t, err)
	require.Empty(t, problems)
}

// Histograms have classic buckets, and native ones.
func TestHistogramsHaveBothForms(t *testing.T) {
	t.Parallel()
	families, err := everyMetric(t).Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetType() == dto.MetricType_HISTOGRAM && strings.HasPrefix(f.GetName(), metric.Namespace) {
			for _, m := range f.GetMetric() {
				require.NotEmpty(t, m.GetHistogram().GetBucket(), f.GetName())
				require.NotNil(t, m.GetHistogram().Schema, f.GetName())
			}
		}
	}
}

const (
	metricsBegin = "<!-- metrics -->\n"
	metricsEnd   = "<!-- /metrics -->"
)

// docs/metrics.md lists every metric, with its labels and their values.
func TestDocumentedMetrics(t *testing.T) {
	t.Parallel()
	path := filepath.Join("..", "..", "docs", "metrics.md")
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	before, rest, found := strings.Cut(string(content), metricsBegin)
	require.True(t, found)
	_, after, found := strings.Cut(rest, metricsEnd)
	require.True(t, found)
	families, err := everyMetric(t).Gather()
	require.NoError(t, err)
	want := before + metricsBegin + metricTable(families) + metricsEnd + after
	if os.Getenv("UPDATE_METRICS") == "1" {
		require.NoError(t, os.WriteFile(path, []byte(want), 0o644))
		return
	}
	require.Equal(t, want, string(content), "update it with: UPDATE_METRICS=1 go test ./internal/app -run TestDocumentedMetrics")
}

// metricTable returns the table of the families of this project.
func metricTable(families []*dto.MetricFamily) string {
	var b bytes.Buffer
	b.WriteString("| metric | type | labels | meaning |\n|---|---|---|---|\n")
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), metric.Namespace+"_") {
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n",
				f.GetName(), strings.ToLower(f.GetType().String()), labelsOf(f), f.GetHelp())
		}
	}
	return b.String()
}

// labelsOf returns the labels of a family, with their values where these are a closed set.
func labelsOf(f *dto.MetricFamily) string {
	var names []string
	values := map[string][]string{}
	for _, m := range f.GetMetric() {
		for _, l := range m.GetLabel() {
			if !slices.Contains(names, l.GetName()) {
				names = append(names, l.GetName())
			}
			if !slices.Contains(values[l.GetName()], l.GetValue()) {
				values[l.GetName()] = append(values[l.GetName()], l.GetValue())
			}
		}
	}
	open := map[string]string{
		"pool": "up to `--metrics-pools`, `other`, empty for none", "version": "", "revision": "", "goversion": "",
		"procedure": "each method of the services", "code": "`ok` or the code of Connect and gRPC",
	}
	var texts []string
	for _, name := range names {
		text, isOpen := open[name]
		if !isOpen {
			text = "`" + strings.Join(values[name], "` `") + "`"
		}
		texts = append(texts, strings.TrimSuffix("`"+name+"`: "+text, ": "))
	}
	return strings.Join(texts, "; ")
}
