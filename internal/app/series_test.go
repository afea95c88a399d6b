package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/auth"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/metric"
	"github.com/mig-controller/mig-controller/internal/registration"
	"github.com/mig-controller/mig-controller/internal/session"
)

// series returns the number of series without those of vms. A pool gets these when VMs are next
// counted, which can happen at any time of a test; maintenance tests their bound.
func series(t *testing.T, metrics prometheus.Gatherer) (n int) {
	t.Helper()
	families, err := metrics.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() != "migcontroller_vms" {
			n += len(f.GetMetric())
		}
	}
	return n
}

// The number of series does not depend on the number of VMs, nor on the names that agents and
// operators choose.
func TestSeriesDoNotGrow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := testOptions(t)
		o.Journal, o.RegistrationToken, o.MetricsPools = false, "token", 5
		metrics := metric.NewRegistry()
		svc, err := newService(t.Context(), o, front{}, quiet(), metrics, nil)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, svc.Close()) })
		c, ok := svc.(*controller)
		require.True(t, ok)
		const few, many = 20, 300
		c.runEphemeral(t, 0, few)
		const counted = time.Minute // enough for the VMs to be counted
		time.Sleep(counted)         // fake clock
		after := series(t, metrics)
		c.runEphemeral(t, few, many)
		time.Sleep(counted) // fake clock
		require.Equal(t, after, series(t, metrics))
		requireNoNames(t, metrics, o.MetricsPools)
	})
}

// The number of series does not depend on the number of VMs when there are 100,000 of them.
// Nothing is stored, which would take most of the time.
func TestSeriesOfALargeFleet(t *testing.T) {
	t.Parallel()
	metrics := metric.NewRegistry()
	registrar, err := registration.New(registration.Options{Source: registration.StaticToken("token", now), Metrics: metrics})
	require.NoError(t, err)
	sessions, err := session.Start(t.Context(), session.Options{
		Engine: &forgetful{}, Registrar: registrar, Clock: now, Log: quiet(), Metrics: metrics, Pools: metric.NewPools(5),
	})
	require.NoError(t, err)
	t.Cleanup(sessions.Close)
	run := func(n int) error {
		e := ephemeral{n: n}
		if _, err := sessions.Poll(t.Context(), fleet.VMID(e.name("other"))); err != nil {
			return err
		}
		s, err := sessions.Open(t.Context(), e.hello(), acceptingWire{})
		if err != nil {
			return err
		}
		defer s.Close(&session.EndError{Cause: session.EndClosed})
		return errors.Join(e.report(s), s.Ack(fleet.Ack{CommandID: "command"}))
	}
	few, many := 100, 100_000
	if testing.Short() {
		many = 10_000
	}
	runAll(t, 0, few, run)
	after := series(t, metrics)
	runAll(t, few, many, run)
	require.Equal(t, after, series(t, metrics))
	requireNoNames(t, metrics, 5)
	require.Zero(t, sessions.Stats().Sessions)
	require.Zero(t, sessions.Stats().Refused)
}

// forgetful is an engine that accepts everything and stores nothing.
type forgetful struct{ epoch atomic.Int64 }

func (*forgetful) Apply(_ context.Context, in fleet.Input, _ time.Time) (fleet.Outcome, error) {
	if e, ok := in.(fleet.EventReceived); ok {
		return fleet.Outcome{Event: &e.Event}, nil
	}
	return fleet.Outcome{}, nil
}

func (f *forgetful) ApplyLate(
	_ context.Context, vm fleet.VMID, _ fleet.CommandID, with func() (fleet.Input, time.Time),
) (fleet.Outcome, error) {
	with()
	return fleet.Outcome{State: fleet.State{VM: fleet.VM{ID: vm, Epoch: fleet.Epoch(f.epoch.Add(1))}}}, nil
}

func (*forgetful) RecordHeartbeats(context.Context, []fleet.Heartbeat) error { return nil }
func (*forgetful) ResetSessions(context.Context, time.Time) (int, error)     { return 0, nil }
func (*forgetful) OnReady(func(fleet.VMID, fleet.Ready)) (stop func())       { return func() {} }
func (*forgetful) State(context.Context, fleet.VMID) (fleet.State, error) {
	return fleet.State{}, fleet.ErrNothingDue
}

// runAll runs the VMs with these numbers, many of them concurrently.
func runAll(t *testing.T, from, to int, run func(n int) error) {
	t.Helper()
	var next atomic.Int64
	next.Store(int64(from))
	var agents sync.WaitGroup
	for range 100 {
		agents.Go(func() {
			for n := next.Add(1) - 1; n < int64(to); n = next.Add(1) - 1 {
				if err := run(int(n)); err != nil {
					t.Errorf("VM %d: %v", n, err)
					return
				}
			}
		})
	}
	agents.Wait()
}

func (c *controller) runEphemeral(t *testing.T, from, to int) {
	t.Helper()
	runAll(t, from, to, func(n int) error { return ephemeral{c, n}.run(t.Context()) })
}

// ephemeral is a VM that uses names which no other VM uses.
type ephemeral struct {
	*controller
	n int
}

func (e ephemeral) name(kind string) string { return fmt.Sprintf("invented-%s-%d", kind, e.n) }

func (e ephemeral) vm() fleet.VMID { return fleet.VMID(e.name("vm")) }

func (e ephemeral) hello() fleet.Hello {
	return fleet.Hello{VM: e.vm(), Pool: e.name("pool"), Org: e.name("org"), AgentVersion: e.name("version")}
}

// report sends a message of each kind.
func (e ephemeral) report(s *session.Session) error {
	s.Reported(e.name("code"), e.name("text"))
	return errors.Join(
		s.Heartbeat(fleet.Heartbeat{Status: e.name("state")}, func() ([]byte, error) { return []byte("{}"), nil }),
		s.Event(fleet.Event{Type: e.name("event"), Body: json.RawMessage(`{}`)}))
}

// run does what an agent can do, and sends it a command.
func (e ephemeral) run(ctx context.Context) error {
	agent := acceptingWire{make(chan fleet.CommandID, 10)}
	s, err := e.sessions.Open(ctx, e.hello(), agent)
	if err != nil {
		return err
	}
	defer s.Close(&session.EndError{Cause: session.EndClosed}) //nolint:contextcheck // a session has the context of its stream
	if err := e.report(s); err != nil {                        //nolint:contextcheck // as above
		return err
	}
	if err := s.Ack(fleet.Ack{CommandID: <-agent.got, Success: true, Message: e.name("message")}); err != nil { //nolint:contextcheck // as above
		return err
	}
	request := fleet.CommandRequest{ID: e.name("command"), VM: string(e.vm()), Type: e.name("type")}
	if _, err := e.control.Send(auth.With(ctx, auth.Anyone()), request, 0); err != nil {
		return err
	}
	return e.overHTTP(ctx)
}

// overHTTP reports and polls as an agent without a stream, also with requests that are refused,
// and calls what does not exist.
func (e ephemeral) overHTTP(ctx context.Context) error {
	base := "/api/v1/vms/" + e.name("other")
	for _, r := range []struct {
		method, path, body string
		status             int
	}{
		{http.MethodGet, base + "/commands", "", http.StatusOK},
		{http.MethodPost, base + "/events", `{"type":"` + e.name("event") + `","pool_id":"` + e.name("pool") + `"}`, http.StatusOK},
		{http.MethodPost, base + "/heartbeat", `{"miglet_state":"` + e.name("state") + `"}`, http.StatusOK},
		{http.MethodPost, base + "/registration-token", `{"runner_group":"` + e.name("group") + `"}`, http.StatusOK},
		{http.MethodPost, base + "/events", `{`, http.StatusBadRequest},
		{e.name("METHOD"), base + "/events", "", http.StatusMethodNotAllowed},
		{http.MethodPost, "/migcontroller.v1.AdminService/" + e.name("Method"), "{}", http.StatusNotImplemented},
		{http.MethodPost, "/migcontroller.v1.AdminService/GetVM", `{"vm_id":"` + e.name("unknown") + `"}`, http.StatusNotFound},
		{http.MethodGet, "/" + e.name("path"), "", http.StatusNotFound},
	} {
		request := httptest.NewRequestWithContext(ctx, r.method, r.path, strings.NewReader(r.body))
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("User-Agent", e.name("agent"))
		answer := httptest.NewRecorder()
		e.Handler().ServeHTTP(answer, request)
		if answer.Code != r.status {
			return fmt.Errorf("%s %s: %d %s", r.method, r.path, answer.Code, answer.Body)
		}
	}
	return nil
}

// acceptingWire is the stream of an agent. It receives the ids of commands.
type acceptingWire struct{ got chan fleet.CommandID }

func (acceptingWire) Accept() error { return nil }
func (acceptingWire) Peer() string  { return "" }
func (acceptingWire) Interrupt()    {}
func (acceptingWire) Abort()        {}

func (w acceptingWire) Deliver(c fleet.Command, _ fleet.Params) error {
	w.got <- c.ID
	return nil
}

// requireNoNames requires that no label has an invented name, except for the first pools.
func requireNoNames(t *testing.T, metrics prometheus.Gatherer, pools int) {
	t.Helper()
	families, err := metrics.Gather()
	require.NoError(t, err)
	named := map[string]bool{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if !strings.Contains(l.GetValue(), "invented") {
					continue
				}
				require.Equal(t, "pool", l.GetName(), f.GetName())
				named[l.GetValue()] = true
			}
		}
	}
	require.Len(t, named, pools)
}
