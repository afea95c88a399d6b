package maintenance

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/mig-controller/mig-controller/internal/diskspace"
	"github.com/mig-controller/mig-controller/internal/engine"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/journal"
	"github.com/mig-controller/mig-controller/internal/metric"
	"github.com/mig-controller/mig-controller/internal/readiness"
	"github.com/mig-controller/mig-controller/internal/store"
	"github.com/mig-controller/mig-controller/internal/store/memory"
	"github.com/mig-controller/mig-controller/internal/testkit"
	"github.com/mig-controller/mig-controller/internal/wallclock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a Maintenance on a real engine and a real journal, which keeps files for as long
// as events, or an hour. It has no sessions, and its wall clock can be set.
type rig struct {
	*testing.T
	*engine.Engine
	*Maintenance
	checks  *readiness.Checks
	clock   *wallclock.Clock
	offset  atomic.Int64 // of the wall clock
	log     *lines
	metrics *prometheus.Registry
	dir     string // the journal's
	free    atomic.Uint64
	reports time.Duration // nanoseconds, so that no two have the same time of receipt

	mu     sync.Mutex
	broken map[string]error // by method
	calls  map[string]int
}

// newRig starts a rig on an empty database. It is stopped at the end.
func newRig(t *testing.T, r engine.Retention) *rig {
	t.Helper()
	return newRigOn(t, memory.New(), r)
}

// newRigOn is newRig on the data in driver.
func newRigOn(t *testing.T, driver store.Driver, r engine.Retention) *rig {
	t.Helper()
	s := &rig{T: t, dir: t.TempDir(), log: &lines{}, broken: map[string]error{}, calls: map[string]int{}}
	s.free.Store(1 << 40)
	s.start(driver, r)
	return s
}

// start starts everything on the data in driver. The clock starts at the wall clock's time.
func (s *rig) start(driver store.Driver, r engine.Retention) {
	s.Helper()
	began := time.Now()
	s.clock = wallclock.New(
		func() time.Time { return time.Now().UTC().Round(0).Add(time.Duration(s.offset.Load())) },
		func() time.Duration { return time.Since(began) })
	e, err := engine.Start(s.Context(), engine.Options{
		Driver: driver, Rules: fleet.Rules{NewID: fleet.NewRegistrationID}, Clock: s.clock.Now, Log: slog.New(slog.DiscardHandler),
	})
	require.NoError(s, err)
	log := slog.New(slog.NewJSONHandler(s.log, nil))
	j, err := journal.Open(journal.Options{
		Dir: s.dir, Retention: cmp.Or(r.Events, time.Hour), MinFree: 1000, Log: log,
		FreeSpace: func() (diskspace.Space, error) { return diskspace.Space{Free: s.free.Load()}, nil },
	})
	require.NoError(s, err)
	s.Engine, s.metrics = e, prometheus.NewRegistry()
	s.checks = readiness.New()
	m := Start(Options{
		Engine: s, Sessions: noSessions{}, Journal: j, Retention: r, Checks: s.checks,
		Clock: s.clock.Now, Follow: s.clock, Log: log, Metrics: s.metrics, Pools: metric.NewPools(2),
	})
	s.Maintenance = m
	s.Cleanup(func() {
		m.Stop()
		s.checks.Close()
		require.NoError(s, j.Close())
		require.NoError(s, e.Close())
	})
}

// report stores an event that arrived over HTTP.
func (s *rig) report(vm fleet.VMID, kind string) {
	s.Helper()
	s.reports++
	at := s.clock.Now().Add(s.reports)
	_, err := s.Apply(s.Context(), fleet.EventReceived{Event: fleet.Event{
		Origin: fleet.Origin{VM: vm, Via: fleet.HTTP, ReceivedAt: at}, Type: kind, Body: json.RawMessage(`{}`),
	}}, at)
	require.NoError(s, err)
}

// events returns the types of the events of vm-1.
func (s *rig) events() (types []string) {
	s.Helper()
	es, _, err := s.Events(s.Context(), store.EventQuery{VM: "vm-1"}, 1000)
	require.NoError(s, err)
	for _, e := range es {
		types = append(types, e.Type)
	}
	return types
}

// files returns the names of the journal's files of vm-1.
func (s *rig) files() (names []string) {
	s.Helper()
	entries, err := os.ReadDir(filepath.Join(s.dir, "vm-1"))
	if !errors.Is(err, os.ErrNotExist) {
		require.NoError(s, err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// fail makes a method return err; nil repairs it.
func (s *rig) fail(method string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken[method] = err
}

func (s *rig) called(method string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[method]
}

func (s *rig) call(method string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[method]++
	return s.broken[method]
}

func (s *rig) Tick(ctx context.Context, now time.Time, live func(fleet.VMID) fleet.Live, limit int) (int, bool, error) {
	if err := s.call("Tick"); err != nil {
		return 0, false, err
	}
	return s.Engine.Tick(ctx, now, live, limit)
}

func (s *rig) Purge(ctx context.Context, r engine.Retention, now time.Time) (int, error) {
	if err := s.call("Purge"); err != nil {
		return 0, err
	}
	return s.Engine.Purge(ctx, r, now)
}

func (s *rig) UnjournaledEvents(ctx context.Context, limit int) ([]fleet.Event, error) {
	if err := s.call("UnjournaledEvents"); err != nil {
		return nil, err
	}
	return s.Engine.UnjournaledEvents(ctx, limit)
}

// Check is the engine's.
func (s *rig) Check(ctx context.Context) error {
	if err := s.call("Check"); err != nil {
		return err
	}
	return s.Engine.Check(ctx)
}

// Counts is the engine's.
func (s *rig) Counts(ctx context.Context) (engine.Counts, error) {
	if err := s.call("Counts"); err != nil {
		return engine.Counts{}, err
	}
	return s.Engine.Counts(ctx)
}

// value returns the value of a metric.
func (s *rig) value(name string) float64 {
	s.Helper()
	all := testkit.Metrics(s.T, s.metrics)
	require.Contains(s, all, name)
	return all[name]
}

// noSessions is a controller without agents.
type noSessions struct{}

func (noSessions) Live(fleet.VMID) fleet.Live                           { return fleet.Live{} }
func (noSessions) OldestUnstored(now time.Time) time.Time               { return now }
func (noSessions) EndSilent(time.Time)                                  {}
func (noSessions) RecordEnds(context.Context) error                     { return nil }
func (noSessions) MoveClock(adopt func() wallclock.Jump) wallclock.Jump { return adopt() }

// lines is a log that can be read while it is being written.
type lines struct{ testkit.Buffer }

// count returns how many lines have the message.
func (l *lines) count(message string) int {
	return strings.Count(l.String(), `"msg":"`+message+`"`)
}
