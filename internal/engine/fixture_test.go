package engine_test

import (
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/engine"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

// start is the time at which every history begins.
var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

var defaults = fleet.CommandDefaults{TTL: time.Hour, AckTimeout: 30 * time.Second, MaxDeliveries: 5}

// fixture drives an engine the way the controller does.
type fixture struct {
	*testing.T
	*engine.Engine
	kind driverKind
	// driver is the database; other, if not nil, is a second engine on it.
	driver store.Driver
	other  *engine.Engine
	rules  fleet.Rules
	now    time.Time
	clock  atomic.Int64 // the engine's time, in Unix nanoseconds
	// written is the latest command that was written on a session.
	written map[fleet.VMID]written
	// silent are the VMs from which no message arrives.
	silent map[fleet.VMID]bool
	// metrics are those of all engines so far.
	metrics prometheus.Gatherers
}

type written struct {
	epoch fleet.Epoch
	id    fleet.CommandID
}

func open(t *testing.T, kind driverKind) *fixture {
	t.Helper()
	return openWith(t, kind, fleet.Rules{Defaults: defaults, NewID: fleet.NewRegistrationID})
}

func openWith(t *testing.T, kind driverKind, r fleet.Rules) *fixture {
	t.Helper()
	f := &fixture{T: t, kind: kind, rules: r, now: start, written: map[fleet.VMID]written{}, silent: map[fleet.VMID]bool{}}
	f.serve(kind.New(t))
	return f
}

// serve makes the fixture use an engine on a database.
func (f *fixture) serve(d store.Driver) {
	f.Helper()
	f.driver, f.Engine, f.other = d, f.start(d), nil
}

func (f *fixture) start(d store.Driver) *engine.Engine {
	f.Helper()
	metrics := prometheus.NewRegistry()
	f.metrics = append(f.metrics, metrics)
	e, err := engine.Start(f.Context(), engine.Options{
		Driver: d, Rules: f.rules, Log: slog.New(slog.DiscardHandler), Metrics: metrics,
		Clock: func() time.Time { return time.Unix(0, f.clock.Load()).UTC() },
	})
	require.NoError(f, err)
	f.Cleanup(func() { _ = e.Close() })
	return e
}

// crash continues with what a kill would leave.
func (f *fixture) crash() {
	f.Helper()
	left := f.kind.Crash(f.T, f.driver)
	// Later commits are not part of what is left.
	if f.other != nil {
		_ = f.other.Close()
	}
	_ = f.Close()
	_ = f.driver.Close()
	f.serve(left)
}

// shared is a database used by several engines.
type shared struct{ store.Driver }

// Close leaves it open for the other engines.
func (shared) Close() error { return nil }

// pair starts a second engine on the database.
func (f *fixture) pair() { f.other = f.start(shared{f.driver}) }

// swap makes the fixture use its other engine, once that has seen all changes.
func (f *fixture) swap() {
	f.Helper()
	f.Engine, f.other = f.other, f.Engine
	require.Eventually(f, func() bool { return f.LastChange() == f.other.LastChange() }, 10*time.Second, time.Millisecond)
}

func (f *fixture) later(d time.Duration) time.Time {
	f.now = f.now.Add(d)
	return f.now
}

func (f *fixture) request(id, vm, kind string) fleet.Command {
	f.Helper()
	c, err := fleet.CommandRequest{ID: id, VM: vm, Type: kind}.Accept(defaults, f.now)
	require.NoError(f, err)
	return c
}

func (f *fixture) send(id, vm string) fleet.Command {
	f.Helper()
	c, err := f.enqueue(f.request(id, vm, "drain"))
	require.NoError(f, err)
	return c
}

func (f *fixture) enqueue(c fleet.Command) (fleet.Command, error) {
	f.clock.Store(f.now.UnixNano())
	return f.Accept(f.Context(), c)
}

// apply reduces an input that must succeed.
func (f *fixture) apply(in fleet.Input) fleet.Outcome {
	f.Helper()
	out, err := f.Apply(f.Context(), in, f.now)
	require.NoError(f, err)
	return out
}

func (f *fixture) cancel(id fleet.CommandID, now time.Time) (fleet.Command, error) {
	f.Helper()
	c, err := f.Command(f.Context(), id)
	if err != nil {
		return c, err
	}
	out, err := f.Apply(f.Context(), fleet.CancelRequested{VM: c.VM, Command: id}, now)
	return out.Command, err
}

func (f *fixture) open(h fleet.Hello) fleet.VM {
	f.Helper()
	out, err := f.ApplyLate(f.Context(), h.VM, "", func() (fleet.Input, time.Time) {
		return fleet.SessionOpened{Hello: h, Written: f.written[h.VM].id}, f.now
	})
	require.NoError(f, err)
	return out.State.VM
}

func (f *fixture) connect(vm string) fleet.VM {
	f.Helper()
	return f.open(fleet.Hello{VM: fleet.VMID(vm), Pool: "p"})
}

// deliver gets the next command as a session does.
func (f *fixture) deliver(vm string, e fleet.Epoch) (fleet.Command, error) {
	f.Helper()
	return f.deliverBy(vm, fleet.LeaseRequest{Via: fleet.Stream, Epoch: e, At: f.now})
}

// poll polls for the VM "vm".
func (f *fixture) poll() (fleet.Command, error) {
	f.Helper()
	f.apply(fleet.Polled{VM: "vm"})
	return f.deliverBy("vm", fleet.LeaseRequest{Via: fleet.HTTP, At: f.now})
}

// deliverBy delivers the next command for a request.
func (f *fixture) deliverBy(vm string, a fleet.LeaseRequest) (fleet.Command, error) {
	f.Helper()
	id := fleet.VMID(vm)
	if w := f.written[id]; a.Via == fleet.Stream && w.epoch == a.Epoch {
		a.Written = w.id
	}
	s, err := f.State(f.Context(), id)
	require.NoError(f, err)
	c, err := s.Next(a)
	if err == nil && !c.LeasedTo(a.Epoch) {
		c, err = f.lease(vm, c.ID, a)
	}
	if err == nil {
		f.written[id] = written{a.Epoch, c.ID}
	}
	return c, err
}

// lease leases a command, which must be the next one, for a request.
func (f *fixture) lease(vm string, id fleet.CommandID, a fleet.LeaseRequest) (fleet.Command, error) {
	out, err := f.Apply(f.Context(), fleet.LeaseRequested{VM: fleet.VMID(vm), Command: id, Request: a}, a.At)
	return out.Command, err
}

// deliverWithoutToken is deliver while no token is available.
func (f *fixture) deliverWithoutToken(vm string, e fleet.Epoch) (fleet.Command, error) {
	f.Helper()
	return f.deliverBy(vm, fleet.LeaseRequest{Via: fleet.Stream, Epoch: e, WithoutToken: true, At: f.now})
}

// leaseOnly is deliver by a session that ends before it writes the command.
func (f *fixture) leaseOnly(vm string, e fleet.Epoch) (fleet.Command, error) {
	f.Helper()
	before := f.written[fleet.VMID(vm)]
	defer func() { f.written[fleet.VMID(vm)] = before }()
	return f.deliver(vm, e)
}

// notWritten releases the lease of a command of the VM "vm".
func (f *fixture) notWritten(id fleet.CommandID, e fleet.Epoch, now time.Time) error {
	_, err := f.Apply(f.Context(), fleet.DeliveryFailed{VM: "vm", Command: id, Epoch: e}, now)
	return err
}

func (f *fixture) mustDeliver(vm string, e fleet.Epoch) fleet.Command {
	f.Helper()
	c, err := f.deliver(vm, e)
	require.NoError(f, err)
	return c
}

func (f *fixture) nothingDue(vm string, e fleet.Epoch) {
	f.Helper()
	c, err := f.deliver(vm, e)
	require.ErrorIs(f, err, fleet.ErrNothingDue, "%s was delivered", c.ID)
}

// answer applies an agent's ack, and returns the record and whether the ack was late.
func (f *fixture) answer(vm fleet.VMID, e fleet.Epoch, a fleet.Ack, now time.Time) (fleet.Command, bool, error) {
	out, err := f.Apply(f.Context(), fleet.AckReceived{VM: vm, Epoch: e, Ack: a}, now)
	return out.Command, out.Late, err
}

func (f *fixture) ack(c fleet.Command, e fleet.Epoch, success bool) {
	f.Helper()
	_, _, err := f.answer(c.VM, e, fleet.Ack{CommandID: c.ID, Success: success}, f.now)
	require.NoError(f, err)
}

func (f *fixture) command(id fleet.CommandID) fleet.Command {
	f.Helper()
	c, err := f.Command(f.Context(), id)
	require.NoError(f, err)
	return c
}

func (f *fixture) vm(id string) fleet.VM {
	f.Helper()
	v, err := f.VM(f.Context(), fleet.VMID(id))
	require.NoError(f, err)
	return v
}

func (f *fixture) event(vm, kind string, via fleet.Route, e fleet.Epoch, sent time.Time) fleet.VM {
	f.Helper()
	return f.apply(fleet.EventReceived{Event: fleet.Event{
		Origin: fleet.Origin{VM: fleet.VMID(vm), Via: via, Epoch: e, ReceivedAt: f.now, SentAt: sent},
		Type:   kind, Body: []byte(`{"type":"` + kind + `"}`),
	}}).State.VM
}

func (f *fixture) beat(vm string, e fleet.Epoch, status string, configured bool) fleet.VM {
	f.Helper()
	require.NoError(f, f.RecordHeartbeats(f.Context(), []fleet.Heartbeat{{
		Origin: fleet.Origin{VM: fleet.VMID(vm), Via: fleet.Stream, Epoch: e, ReceivedAt: f.now},
		Status: status, Runner: &fleet.Runner{State: "idle", Configured: configured},
	}}))
	return f.vm(vm)
}

// registered brings a VM to a live session with a registered runner.
func (f *fixture) registered(vm string) fleet.VM {
	f.Helper()
	v := f.connect(vm)
	f.ack(f.mustDeliver(vm, v.Epoch), v.Epoch, true)
	v = f.event(vm, fleet.EventRunnerRegistered, fleet.Stream, v.Epoch, time.Time{})
	require.Equal(f, fleet.Registered, v.Registration.State)
	return v
}

func (f *fixture) registrations(vm string) int {
	f.Helper()
	cs, _, err := f.Commands(f.Context(), store.CommandQuery{VM: vm, Type: fleet.RegisterRunner}, 100)
	require.NoError(f, err)
	return len(cs)
}

func (f *fixture) drop(vm string, e fleet.Epoch) {
	f.Helper()
	id := fleet.VMID(vm)
	f.apply(fleet.SessionClosed{VM: id, Epoch: e, Written: f.written[id].id})
}

// reconnect is connect without a report about the runner.
func (f *fixture) reconnect(vm string) fleet.VM {
	f.Helper()
	v := f.connect(vm)
	f.later(time.Second)
	f.sweep(100)
	return v
}

// sweep ticks what is due. Messages arrive all the time, unless the VM is silent.
func (f *fixture) sweep(limit int) int {
	f.Helper()
	n, _, err := f.Tick(f.Context(), f.now, f.live, limit)
	require.NoError(f, err)
	return n
}

func (f *fixture) live(vm fleet.VMID) fleet.Live {
	l := fleet.Live{Epoch: f.written[vm].epoch, Written: f.written[vm].id, LastMessageAt: f.now}
	if f.silent[vm] {
		l.LastMessageAt = time.Time{}
	}
	return l
}
