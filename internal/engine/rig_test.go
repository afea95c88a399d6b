package engine

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
	"github.com/mig-controller/mig-controller/internal/store/memory"
	"github.com/mig-controller/mig-controller/internal/store/sqlite"
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

type (
	commitFunc func(store.Writes) (store.Committed, error)
	loadFunc   func(store.Keys) (store.Rows, error)
)

// hooked is a driver with hooks for commits and loads.
type hooked struct {
	store.Driver
	mu      sync.Mutex
	commit  func(store.Writes, commitFunc) (store.Committed, error)
	load    func(store.Keys, loadFunc) (store.Rows, error)
	changes error // of Changes, if it is not nil
	commits atomic.Int64
	loads   atomic.Int64
}

// with sets the hooks.
func (d *hooked) with(fn func(*hooked)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fn(d)
}

func (d *hooked) onCommit(fn func(store.Writes, commitFunc) (store.Committed, error)) {
	d.with(func(d *hooked) { d.commit = fn })
}

func (d *hooked) onLoad(fn func(store.Keys, loadFunc) (store.Rows, error)) {
	d.with(func(d *hooked) { d.load = fn })
}

func (d *hooked) Commit(ctx context.Context, w store.Writes) (store.Committed, error) {
	d.commits.Add(1)
	next := func(w store.Writes) (store.Committed, error) { return d.Driver.Commit(ctx, w) }
	d.mu.Lock()
	hook := d.commit
	d.mu.Unlock()
	if hook != nil {
		return hook(w, next)
	}
	return next(w)
}

func (d *hooked) Load(ctx context.Context, k store.Keys) (store.Rows, error) {
	d.loads.Add(1)
	next := func(k store.Keys) (store.Rows, error) { return d.Driver.Load(ctx, k) }
	d.mu.Lock()
	hook := d.load
	d.mu.Unlock()
	if hook != nil {
		return hook(k, next)
	}
	return next(k)
}

func (d *hooked) Changes(ctx context.Context, q store.ChangeQuery, limit int) ([]store.ChangeRow, bool, error) {
	d.mu.Lock()
	err := d.changes
	d.mu.Unlock()
	if err != nil {
		return nil, false, err
	}
	return d.Driver.Changes(ctx, q, limit)
}

// rig is an engine on a hooked driver.
type rig struct {
	testing.TB
	*Engine
	db      *hooked
	metrics *prometheus.Registry
}

func newRig(tb testing.TB, d store.Driver) *rig {
	tb.Helper()
	h, metrics := &hooked{Driver: d}, prometheus.NewRegistry()
	e, err := Start(tb.Context(), Options{
		Driver: h, Log: slog.New(slog.DiscardHandler), Clock: func() time.Time { return t0 }, Metrics: metrics,
		Rules: fleet.Rules{
			Defaults: fleet.CommandDefaults{TTL: time.Hour, AckTimeout: time.Minute, MaxDeliveries: 5},
			NewID:    fleet.NewRegistrationID,
		},
	})
	require.NoError(tb, err)
	tb.Cleanup(func() { _ = e.Close() })
	h.commits.Store(0) // commits of the start do not count
	return &rig{TB: tb, Engine: e, db: h, metrics: metrics}
}

func inMemory(tb testing.TB) *rig {
	tb.Helper()
	return newRig(tb, memory.New())
}

// shared is a database used by several engines.
type shared struct{ store.Driver }

func (shared) Close() error { return nil }

// second returns another engine on the same database.
func (r *rig) second() *rig {
	r.Helper()
	return newRig(r.TB, shared{r.db.Driver})
}

func openFile(tb testing.TB, path string) *rig {
	tb.Helper()
	db, err := sqlite.Open(tb.Context(), path, slog.New(slog.DiscardHandler), nil)
	require.NoError(tb, err)
	return newRig(tb, db)
}

// onDisk returns an engine on a new file; crash opens what a kill would leave of it.
func onDisk(tb testing.TB) (r *rig, crash func() *rig) {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "controller.db")
	return openFile(tb, path), func() *rig {
		tb.Helper()
		return openFile(tb, CopyFile(tb, path))
	}
}

// whileCommitting runs fn while the driver blocks a commit, so that other operations queue
// up.
func (r *rig) whileCommitting(fn func(all *sync.WaitGroup)) {
	r.Helper()
	entered, release := make(chan struct{}), make(chan struct{})
	r.db.onCommit(func(w store.Writes, next commitFunc) (store.Committed, error) {
		r.db.onCommit(nil)
		close(entered)
		<-release
		return next(w)
	})
	var all sync.WaitGroup
	all.Go(r.mark)
	<-entered
	defer all.Wait()
	defer close(release)
	fn(&all)
}

// mark is an operation that needs no VM.
func (r *rig) mark() { _ = r.MarkJournaled(r.Context(), 1) }

// queued waits until this many operations are queued.
func (r *rig) queued(n int) {
	r.Helper()
	require.Eventually(r, func() bool { return len(r.ops) == n }, 10*time.Second, time.Millisecond)
}

// group commits operations together, in this order.
func (r *rig) group(ops ...func()) {
	r.Helper()
	r.whileCommitting(func(all *sync.WaitGroup) {
		for i, op := range ops {
			all.Go(op)
			r.queued(i + 1)
		}
	})
}

// change runs an operation with the VM "vm".
func (r *rig) change(fn func(*group) error) error {
	return r.do(r.Context(), &op{vms: []fleet.VMID{"vm"}, run: fn})
}

func (r *rig) apply(in fleet.Input, now time.Time) fleet.Outcome {
	r.Helper()
	out, err := r.Apply(r.Context(), in, now)
	require.NoError(r, err)
	return out
}

// drain returns a command that is accepted at t0.
func drain(tb testing.TB, id string, vm fleet.VMID) fleet.Command {
	tb.Helper()
	return drainWith(tb, id, vm, "at the end of the job")
}

func drainWith(tb testing.TB, id string, vm fleet.VMID, reason string) fleet.Command {
	tb.Helper()
	c, err := fleet.CommandRequest{ID: id, VM: string(vm), Type: "drain", Params: fleet.Params{
		Strings: map[string]string{"reason": reason},
	}}.Accept(fleet.CommandDefaults{TTL: time.Hour, AckTimeout: time.Minute, MaxDeliveries: 5}, t0)
	require.NoError(tb, err)
	return c
}

func (r *rig) accept(id string, vm fleet.VMID) fleet.Command {
	r.Helper()
	c, err := r.Accept(r.Context(), drain(r.TB, id, vm))
	require.NoError(r, err)
	return c
}

// connect opens a session whose register_runner does not interfere.
func (r *rig) connect(vm fleet.VMID, now time.Time) fleet.VM {
	r.Helper()
	v := r.apply(fleet.SessionOpened{Hello: fleet.Hello{VM: vm}}, now).State.VM
	if id := v.Registration.Command; v.Registration.State == fleet.Requested {
		v = r.apply(fleet.CancelRequested{VM: vm, Command: id}, now).State.VM
	}
	return v
}

func (r *rig) record(hs ...fleet.Heartbeat) {
	r.Helper()
	require.NoError(r, r.RecordHeartbeats(r.Context(), hs))
}

func beat(v fleet.VM, at time.Time, load float64) fleet.Heartbeat {
	return fleet.Heartbeat{
		Origin: fleet.Origin{VM: v.ID, Via: fleet.Stream, Epoch: v.Epoch, ReceivedAt: at},
		Status: "idle", Health: &fleet.Health{CPUPercent: &load},
	}
}

func (r *rig) ack(c fleet.CommandID, v fleet.VM, at time.Time) fleet.Outcome {
	r.Helper()
	return r.apply(fleet.AckReceived{VM: v.ID, Epoch: v.Epoch, Ack: fleet.Ack{CommandID: c, Success: true}}, at)
}

func (r *rig) event(vm fleet.VMID, at time.Time) {
	r.Helper()
	r.apply(fleet.EventReceived{Event: fleet.Event{
		Origin: fleet.Origin{VM: vm, Via: fleet.HTTP, ReceivedAt: at}, Type: "error",
	}}, at)
}

// next delivers the next command on the VM's session.
func (r *rig) next(v fleet.VM, written fleet.CommandID, at time.Time) (fleet.CommandID, error) {
	r.Helper()
	s, err := r.State(r.Context(), v.ID)
	require.NoError(r, err)
	a := fleet.LeaseRequest{Via: fleet.Stream, Epoch: v.Epoch, Written: written, At: at}
	c, err := s.Next(a)
	if err == nil && !c.LeasedTo(v.Epoch) {
		r.apply(fleet.LeaseRequested{VM: v.ID, Command: c.ID, Request: a}, at)
	}
	return c.ID, err
}

// inRow returns a VM as stored in its row.
func (r *rig) inRow(vm fleet.VMID) fleet.VM {
	r.Helper()
	rows, err := r.db.Driver.Load(r.Context(), store.Keys{VMs: []string{string(vm)}})
	require.NoError(r, err)
	require.Len(r, rows.VMs, 1)
	v, err := decodeVM(rows.VMs[0])
	require.NoError(r, err)
	return v
}

func (r *rig) vm(id fleet.VMID) fleet.VM {
	r.Helper()
	v, err := r.VM(r.Context(), id)
	require.NoError(r, err)
	return v
}

func (r *rig) command(id fleet.CommandID) fleet.Command {
	r.Helper()
	c, err := r.Command(r.Context(), id)
	require.NoError(r, err)
	return c
}

func (r *rig) beats(vm fleet.VMID) []fleet.Heartbeat {
	r.Helper()
	hs, _, err := r.Heartbeats(r.Context(), vm, time.Time{}, 100)
	require.NoError(r, err)
	return hs
}

// reset ends the sessions of the previous run.
func (r *rig) reset(now time.Time) {
	r.Helper()
	_, err := r.ResetSessions(r.Context(), now)
	require.NoError(r, err)
}

// alive is a session on which messages arrive all the time after a command was written.
func alive(epoch fleet.Epoch, written fleet.CommandID, at time.Time) func(fleet.VMID) fleet.Live {
	return func(fleet.VMID) fleet.Live {
		return fleet.Live{Epoch: epoch, Written: written, LastMessageAt: at}
	}
}

func name(i int) string { return fmt.Sprintf("c%03d", i) }
