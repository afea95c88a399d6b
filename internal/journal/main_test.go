package journal

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var start = time.Date(2026, 1, 2, 15, 4, 5, 123456789, time.UTC)

// open opens a journal that is closed at the end of the test.
func open(tb testing.TB, o Options) *Journal {
	tb.Helper()
	if o.Dir == "" {
		o.Dir = tb.TempDir()
	}
	j, err := Open(o)
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, j.Close()) })
	return j
}

// Stats are the outcomes of reports, as the metrics count them.
type Stats struct {
	Events, Heartbeats, OverBudget, EventsOverBudget, Paused, QueueFull, Failed, Unwritten uint64
	Queued                                                                                 int
}

// Stats returns the metrics.
func (j *Journal) Stats() Stats {
	value := func(c prometheus.Counter) uint64 { return uint64(testutil.ToFloat64(c)) }
	m := j.metrics
	return Stats{
		Events: value(m.events), Heartbeats: value(m.heartbeats),
		OverBudget: value(m.overBudget), EventsOverBudget: value(m.eventsOverBudget),
		Paused: value(m.paused), QueueFull: value(m.queueFull),
		Failed: value(m.failedEvents) + value(m.failedHeartbeats), Unwritten: value(m.unwritten), Queued: j.waiting(),
	}
}

// origin is that of the n-th report.
func origin(vm fleet.VMID, via fleet.Route, n int) fleet.Origin {
	return fleet.Origin{VM: vm, Via: via, ReceivedAt: start.Add(time.Duration(n))}
}

func event(vm fleet.VMID, n int) fleet.Event {
	return fleet.Event{
		Origin: origin(vm, fleet.Stream, n), Type: "job_started",
		Body: json.RawMessage(fmt.Sprintf(`{"type":"job_started","data":{"n":"%d"}}`, n)),
	}
}

// path is the path of the event's file.
func path(dir string, e fleet.Event) string {
	return filepath.Join(dir, string(e.VM), eventName(e))
}

// tree lists every file and directory under dir but dir itself.
func tree(tb testing.TB, dir string) []string {
	tb.Helper()
	found := []string{}
	require.NoError(tb, filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
		if rel, _ := filepath.Rel(dir, p); rel != "." {
			found = append(found, rel)
		}
		return err
	}))
	return found
}

func write(tb testing.TB, path, content string) {
	tb.Helper()
	require.NoError(tb, os.MkdirAll(filepath.Dir(path), 0o750))
	require.NoError(tb, os.WriteFile(path, []byte(content), 0o600))
}

func read(tb testing.TB, path string) string {
	tb.Helper()
	content, err := os.ReadFile(path)
	require.NoError(tb, err)
	return string(content)
}

func beat() ([]byte, error) { return []byte(`{"miglet_state":"idle"}`), nil }
