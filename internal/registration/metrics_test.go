package registration_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/registration"
)

// Requests for tokens are counted by their outcome.
func TestTokenReadsAreCounted(t *testing.T) {
	t.Parallel()
	metrics := prometheus.NewRegistry()
	file := filepath.Join(t.TempDir(), "token")
	r, err := registration.New(registration.Options{Source: registration.TokenFile(file), Metrics: metrics})
	require.NoError(t, err)
	_, err = r.Runner(t.Context(), "", nil)
	require.Error(t, err)
	require.NoError(t, os.WriteFile(file, []byte("token"), 0o600))
	for range 2 {
		_, err = r.Runner(t.Context(), "", nil)
		require.NoError(t, err)
	}
	require.NoError(t, testutil.GatherAndCompare(metrics, strings.NewReader(`
		# HELP migcontroller_token_reads_total Registration tokens that were requested from the token source, by whether one was available.
		# TYPE migcontroller_token_reads_total counter
		migcontroller_token_reads_total{result="ok"} 2
		migcontroller_token_reads_total{result="unavailable"} 1
	`)))
}

// The metrics of the token file are those of the last check.
func TestTokenFileMetrics(t *testing.T) {
	t.Parallel()
	metrics := prometheus.NewRegistry()
	file := filepath.Join(t.TempDir(), "token")
	now := time.Now()
	w := registration.NewFileWatch(file, func() time.Time { return now }, slog.New(slog.DiscardHandler), metrics)
	check := func(valid, age float64) {
		t.Helper()
		w.Look(t.Context())
		families, err := metrics.Gather()
		require.NoError(t, err)
		require.Len(t, families, 2)
		require.InDelta(t, age, families[0].GetMetric()[0].GetGauge().GetValue(), .001, families[0].GetName())
		require.InDelta(t, valid, families[1].GetMetric()[0].GetGauge().GetValue(), 0, families[1].GetName())
	}
	check(0, 0)
	require.NoError(t, os.WriteFile(file, []byte("token"), 0o600))
	require.NoError(t, os.Chtimes(file, now, now))
	check(1, 0)
	now = now.Add(2 * time.Hour)
	check(1, 7200)
	require.NoError(t, os.WriteFile(file, []byte("two tokens"), 0o600))
	check(0, 0)
	require.NoError(t, os.Remove(file))
	check(0, 0)
}
