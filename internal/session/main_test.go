package session

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/mig-controller/mig-controller/internal/engine"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/journal"
	"github.com/mig-controller/mig-controller/internal/maintenance"
	"github.com/mig-controller/mig-controller/internal/metric"
	"github.com/mig-controller/mig-controller/internal/registration"
	"github.com/mig-controller/mig-controller/internal/store"
	"github.com/mig-controller/mig-controller/internal/store/memory"
	"github.com/mig-controller/mig-controller/internal/testkit"
	"github.com/mig-controller/mig-controller/internal/wallclock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// secret is the token that agents are sent.
const secret = "SECRET-TOKEN"

var defaults = fleet.CommandDefaults{TTL: time.Hour, AckTimeout: 30 * time.Second, MaxDeliveries: fleet.DefaultMaxDeliveries}

// clock returns the time. In most tests it is that of a bubble, which moves only when all
// goroutines are blocked: what happens without a move of the clock needed no timer.
func clock() time.Time { return time.Now().UTC().Round(0) }

// The intervals of package maintenance.
const (
	sweepEvery   = 250 * time.Millisecond
	silenceEvery = time.Second
)

// system is a Registry on a real engine and a real journal, with its maintenance.
type system struct {
	*testing.T
	*Registry
	maintenance *maintenance.Maintenance
	// follow is the clock that maintenance makes follow the wall clock; nil in most tests.
	follow *wallclock.Clock
	driver store.Driver
	store  *testStore
	tokens *testTokens
	log    *lines
	dir    string // the journal's
	began  time.Time

	metrics *prometheus.Registry // of the Registry
}

// with changes the options of a system.
type with func(*system, *Options)

func withoutJournal(_ *system, o *Options) { o.Journal = nil }

// newSystem starts a system in an empty directory. It is closed at the end.
func newSystem(t *testing.T, change ...with) *system {
	t.Helper()
	return newSystemOn(t, memory.New(), change...)
}

// newSystemOn is newSystem on the data in driver.
func newSystemOn(t *testing.T, driver store.Driver, change ...with) *system {
	t.Helper()
	s := &system{T: t, tokens: &testTokens{}, log: &lines{}, dir: t.TempDir(), store: &testStore{}}
	s.open(driver)
	t.Cleanup(func() { require.NoError(t, s.store.Close()) })
	s.start(change...)
	return s
}

// open starts an engine on a driver, in place of the previous one.
func (s *system) open(driver store.Driver) {
	s.Helper()
	e, err := engine.Start(s.Context(), engine.Options{
		Driver: driver, Rules: fleet.Rules{Defaults: defaults, NewID: fleet.NewRegistrationID},
		Clock: clock, Log: slog.New(slog.DiscardHandler),
	})
	require.NoError(s, err)
	s.driver, s.store.Engine = driver, e
}

// start starts the Registry and its maintenance, or replaces them.
func (s *system) start(change ...with) {
	s.Helper()
	registrar, err := registration.New(registration.Options{Source: s.tokens})
	require.NoError(s, err)
	s.metrics = prometheus.NewRegistry()
	o := Options{
		Metrics: s.metrics, Pools: metric.NewPools(2),
		Engine: s.store, Registrar: registrar, Journal: s.openJournal(),
		Clock: clock, Log: slog.New(slog.NewJSONHandler(s.log, nil)),
	}
	for _, c := range change {
		c(s, &o)
	}
	r, err := Start(s.Context(), o)
	require.NoError(s, err)
	upkeep := maintenance.Start(maintenance.Options{
		Engine: s.store, Sessions: r, Journal: o.Journal, Clock: o.Clock, Follow: s.follow, Log: o.Log,
	})
	s.Registry, s.maintenance = r, upkeep
	s.Cleanup(func() {
		stop(r, upkeep)
		require.Empty(s, r.holds, "held streams that were never released")
		require.NotContains(s, s.log.String(), secret)
	})
	s.began = time.Now()
}

// Close stops the system in the same order as a controller.
func (s *system) Close() { stop(s.Registry, s.maintenance) }

func stop(r *Registry, m *maintenance.Maintenance) {
	m.Quiesce()
	r.Close()
	m.Stop()
}

func (s *system) openJournal() *journal.Journal {
	s.Helper()
	j, err := journal.Open(journal.Options{Dir: s.dir, Retention: time.Hour})
	require.NoError(s, err)
	s.Cleanup(func() { _ = j.Close() })
	return j
}

// elapsed requires that this time has passed since its last call.
func (s *system) elapsed(d time.Duration) {
	s.Helper()
	require.Equal(s, d, time.Since(s.began))
	s.began = time.Now()
}

// send accepts commands, like an operator; all are of the type drain.
func (s *system) send(vm fleet.VMID, ids ...string) {
	s.Helper()
	for _, id := range ids {
		s.sendWith(vm, id, defaults)
	}
}

func (s *system) sendWith(vm fleet.VMID, id string, times fleet.CommandDefaults) {
	s.Helper()
	c, err := fleet.CommandRequest{ID: id, VM: string(vm), Type: "drain"}.Accept(times, clock())
	require.NoError(s, err)
	_, err = s.store.Accept(s.Context(), c)
	require.NoError(s, err)
}

func (s *system) command(id fleet.CommandID) fleet.Command {
	s.Helper()
	c, err := s.store.Command(s.Context(), id)
	require.NoError(s, err)
	return c
}

func (s *system) vm(id fleet.VMID) fleet.VM {
	s.Helper()
	v, err := s.store.VM(s.Context(), id)
	require.NoError(s, err)
	return v
}

// events returns the types of a VM's events, oldest first.
func (s *system) events(vm fleet.VMID) []string {
	s.Helper()
	var types []string
	q := store.EventQuery{VM: string(vm), After: new(int64)}
	for more := true; more; {
		var es []fleet.Event
		var err error
		es, more, err = s.store.Events(s.Context(), q, 1000)
		require.NoError(s, err)
		for _, e := range es {
			types = append(types, e.Type)
			q.After = &e.Seq
		}
	}
	return types
}

// beats returns the states in a VM's heartbeats, oldest first.
func (s *system) beats(vm fleet.VMID) []string {
	s.Helper()
	var states []string
	for before, more := (time.Time{}), true; more; {
		var hs []fleet.Heartbeat
		var err error
		hs, more, err = s.store.Heartbeats(s.Context(), vm, before, 10_000)
		require.NoError(s, err)
		for _, h := range hs {
			states, before = append(states, h.Status), h.ReceivedAt
		}
	}
	slices.Reverse(states)
	return states
}

// files returns the journal's files of a VM.
func (s *system) files(vm fleet.VMID) []string {
	s.Helper()
	entries, err := os.ReadDir(filepath.Join(s.dir, string(vm)))
	if !errors.Is(err, os.ErrNotExist) {
		require.NoError(s, err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// testTokens is a source of one token, which can be made to fail.
type testTokens struct {
	mu   sync.Mutex
	hook func() error
}

func (s *testTokens) on(hook func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hook = hook
}

func (s *testTokens) Token(context.Context) (string, time.Time, error) {
	s.mu.Lock()
	hook := s.hook
	s.mu.Unlock()
	if hook != nil {
		if err := hook(); err != nil {
			return "", time.Time{}, err
		}
	}
	return secret, clock().Add(time.Hour), nil
}

func (*testTokens) String() string { return "a test's tokens" }

// lines is a log that can be read while it is being written.
type lines struct{ testkit.Buffer }

// about returns the lines about a command.
func (l *lines) about(id string) (found []map[string]any) {
	for line := range strings.Lines(l.String()) {
		var fields map[string]any
		if json.Unmarshal([]byte(line), &fields) == nil && fields["command_id"] == id {
			found = append(found, fields)
		}
	}
	return found
}

// count returns how many lines have the message.
func (l *lines) count(message string) int {
	return strings.Count(l.String(), `"msg":"`+message+`"`)
}

// report stores an event that arrived over HTTP.
func (s *system) report(vm fleet.VMID, kind string) {
	s.Helper()
	_, _, err := s.ReportEvent(s.Context(), fleet.Event{
		Origin: fleet.Origin{VM: vm}, Type: kind, Body: json.RawMessage(`{"type":"` + kind + `"}`),
	})
	require.NoError(s, err)
}

// crash ends the system and the engine as if the process were killed: what is not committed by
// now never is. The data in the driver and the files remain.
func (s *system) crash() {
	s.Helper()
	s.store.down("MarkJournaled", "CloseSession")
	s.Close()
	s.store.up("MarkJournaled", "CloseSession")
	db, ok := s.driver.(*memory.DB)
	require.True(s, ok)
	after := db.Crash()
	require.NoError(s, s.store.Close())
	s.open(after)
}
