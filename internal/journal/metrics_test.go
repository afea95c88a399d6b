package journal

import (
	"errors"
	"math"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/diskspace"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/testkit"
)

// The outcomes of reports are counted by kind and reason, and the metrics show a pause.
func TestMetrics(t *testing.T) {
	t.Parallel()
	var d disk
	d.free.Store(1 << 30)
	metrics := prometheus.NewRegistry()
	j := open(t, Options{MinFree: 1000, FreeSpace: d.measure, HeartbeatBurst: 2, Metrics: metrics})
	require.True(t, math.IsNaN(testkit.Metrics(t, metrics)["journal_free_space_bytes"]), "not measured yet")
	_, err := j.WriteEvents(t.Context(), []fleet.Event{event("vm-1", 1), event("vm-1", 2)})
	require.NoError(t, err)
	for n := range 3 {
		j.Heartbeat(origin("vm-1", fleet.Stream, n), beat)
	}
	require.InDelta(t, 2, testkit.Metrics(t, metrics)["journal_files_waiting"], 0)
	require.NoError(t, j.Close())
	j.Heartbeat(origin("vm-1", fleet.Stream, 3), beat)
	d.free.Store(999)
	require.True(t, j.Paused())
	got := testkit.Metrics(t, metrics)
	require.Equal(t, map[string]float64{
		`journal_files_written_total{kind="event"}`:                         2,
		`journal_files_written_total{kind="heartbeat"}`:                     2,
		`journal_files_failed_total{kind="event"}`:                          0,
		`journal_files_failed_total{kind="heartbeat"}`:                      0,
		`journal_files_skipped_total{kind="event",reason="budget"}`:         0,
		`journal_files_skipped_total{kind="event",reason="gave_up"}`:        0,
		`journal_files_skipped_total{kind="heartbeat",reason="budget"}`:     1,
		`journal_files_skipped_total{kind="heartbeat",reason="paused"}`:     0,
		`journal_files_skipped_total{kind="heartbeat",reason="queue_full"}`: 1,
		`journal_files_waiting`:                                             0,
		`journal_paused`:                                                    1,
		`journal_free_space_bytes`:                                          999,
	}, got)
	d.free.Store(1 << 20)
	require.False(t, j.Paused())
	got = testkit.Metrics(t, metrics)
	require.Zero(t, got["journal_paused"])
	require.InDelta(t, 1<<20, got["journal_free_space_bytes"], 0)
}

// A scrape does not wait for a disk that hangs.
func TestMetricsOfAHangingDisk(t *testing.T) {
	t.Parallel()
	hang, measuring := make(chan struct{}), make(chan struct{})
	metrics := prometheus.NewRegistry()
	j := open(t, Options{MinFree: 1000, Metrics: metrics, FreeSpace: func() (diskspace.Space, error) {
		close(measuring)
		<-hang
		return diskspace.Space{}, errors.New("no answer")
	}})
	done := make(chan struct{})
	go func() {
		defer close(done)
		j.Paused()
	}()
	<-measuring
	require.Zero(t, testkit.Metrics(t, metrics)["journal_paused"])
	close(hang)
	<-done
}

// Without a limit the free space is measured as well.
func TestFreeSpaceWithoutLimit(t *testing.T) {
	t.Parallel()
	var d disk
	metrics := prometheus.NewRegistry()
	j := open(t, Options{FreeSpace: d.measure, Metrics: metrics})
	require.False(t, j.Paused())
	require.Zero(t, testkit.Metrics(t, metrics)["journal_free_space_bytes"])
}
