package control_test

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/auth"
	"github.com/mig-controller/mig-controller/internal/control"
	"github.com/mig-controller/mig-controller/internal/engine"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
	"github.com/mig-controller/mig-controller/internal/store/memory"
)

var start = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

var defaults = fleet.CommandDefaults{TTL: time.Hour, AckTimeout: 30 * time.Second}

// anyone is the context of a caller who is not limited.
func anyone(t *testing.T) context.Context {
	t.Helper()
	return auth.With(t.Context(), auth.Anyone())
}

// driver is an in-memory database whose calls a test can observe and fail.
type driver struct {
	*memory.DB
	// id, if not empty, is the driver's ID.
	id string
	// before is called when one of the methods below begins; its error is returned. A Load
	// of VMs is called LoadVMs, and one of commands alone LoadCommands.
	before func(method string) error
	// committed is called when a commit is durable, before Commit returns.
	committed func()

	// read is how many bytes of documents the lists have returned.
	read atomic.Int64

	mu    sync.Mutex
	muted bool // notifications are withheld
	fns   []func(int64)
}

func (d *driver) begin(method string) error {
	if d.before == nil {
		return nil
	}
	return d.before(method)
}

// ID identifies the database.
func (d *driver) ID() string {
	if d.id != "" {
		return d.id
	}
	return d.DB.ID()
}

// Load returns the rows that k names.
func (d *driver) Load(ctx context.Context, k store.Keys) (store.Rows, error) {
	method := "LoadCommands"
	if len(k.VMs) > 0 {
		method = "LoadVMs"
	}
	if err := d.begin(method); err != nil {
		return store.Rows{}, err
	}
	return d.DB.Load(ctx, k)
}

// Commit makes all of the writes.
func (d *driver) Commit(ctx context.Context, w store.Writes) (store.Committed, error) {
	if err := d.begin("Commit"); err != nil {
		return store.Committed{}, err
	}
	done, err := d.DB.Commit(ctx, w)
	if d.committed != nil {
		d.committed()
	}
	return done, err
}

// count counts the bytes that a list returns.
func count[R interface{ Size() int }](d *driver, rows []R, more bool, err error) ([]R, bool, error) {
	for _, row := range rows {
		d.read.Add(int64(row.Size()))
	}
	return rows, more, err
}

// VMs lists VMs.
func (d *driver) VMs(ctx context.Context, q store.VMQuery, limit int) ([]store.VMRow, bool, error) {
	if err := d.begin("VMs"); err != nil {
		return nil, false, err
	}
	rows, more, err := d.DB.VMs(ctx, q, limit)
	return count(d, rows, more, err)
}

// Commands lists commands.
func (d *driver) Commands(ctx context.Context, q store.CommandQuery, limit int) ([]store.CommandRow, bool, error) {
	if err := d.begin("Commands"); err != nil {
		return nil, false, err
	}
	rows, more, err := d.DB.Commands(ctx, q, limit)
	return count(d, rows, more, err)
}

// Events lists events.
func (d *driver) Events(ctx context.Context, q store.EventQuery, limit int) ([]store.EventRow, bool, error) {
	if err := d.begin("Events"); err != nil {
		return nil, false, err
	}
	rows, more, err := d.DB.Events(ctx, q, limit)
	return count(d, rows, more, err)
}

// Changes lists changes.
func (d *driver) Changes(ctx context.Context, q store.ChangeQuery, limit int) ([]store.ChangeRow, bool, error) {
	if err := d.begin("Changes"); err != nil {
		return nil, false, err
	}
	rows, more, err := d.DB.Changes(ctx, q, limit)
	return count(d, rows, more, err)
}

// Listen calls fn after commits, except while the driver is muted.
func (d *driver) Listen(fn func(last int64)) (stop func()) {
	d.mu.Lock()
	d.fns = append(d.fns, fn)
	d.mu.Unlock()
	return d.DB.Listen(func(last int64) {
		d.mu.Lock()
		muted := d.muted
		d.mu.Unlock()
		if !muted {
			fn(last)
		}
	})
}

// mute suppresses notifications until repeat is called.
func (d *driver) mute() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.muted = true
}

// repeat reports the latest change, even if it was reported before.
func (d *driver) repeat() {
	last, _ := d.LastChange(context.Background())
	d.mu.Lock()
	d.muted = false
	fns := d.fns
	d.mu.Unlock()
	for _, fn := range fns {
		fn(last)
	}
}

// world is a running engine; tests act as the agents of its VMs.
type world struct {
	*engine.Engine
	t      *testing.T
	driver *driver
	// metrics are those of the latest Control.
	metrics *prometheus.Registry
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return openWorld(t, &driver{DB: memory.New()})
}

func openWorld(t *testing.T, d *driver) *world {
	t.Helper()
	e, err := engine.Start(t.Context(), engine.Options{
		Driver: d,
		Rules:  fleet.Rules{Defaults: defaults, NewID: fleet.NewRegistrationID},
		Clock:  func() time.Time { return start },
		Log:    slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = e.Close() })
	return &world{Engine: e, t: t, driver: d}
}

// another returns a second engine on the same database, with an empty cache.
func (w *world) another() *world {
	w.t.Helper()
	return openWorld(w.t, &driver{DB: w.driver.DB, id: w.driver.id})
}

func newControl(t *testing.T, w *world) *control.Control {
	t.Helper()
	w.metrics = prometheus.NewRegistry()
	c := control.New(control.Options{
		Engine:   w.Engine,
		Defaults: defaults,
		Clock:    func() time.Time { return start },
		Log:      slog.New(slog.DiscardHandler),
		Metrics:  w.metrics,
	})
	t.Cleanup(c.Close)
	return c
}

// apply applies an input. It may be called from any goroutine.
func (w *world) apply(in fleet.Input, at time.Time) {
	w.t.Helper()
	if _, err := w.Apply(context.Background(), in, at); err != nil {
		w.t.Errorf("%T: %v", in, err)
	}
}

// know creates VMs whose runners are registered: one change each.
func (w *world) know(vms ...fleet.VMID) {
	w.t.Helper()
	for _, vm := range vms {
		w.heartbeat(fleet.Heartbeat{
			Origin: fleet.Origin{VM: vm, ReceivedAt: start}, Runner: &fleet.Runner{Configured: true},
		})
	}
}

func (w *world) heartbeat(hs ...fleet.Heartbeat) {
	w.t.Helper()
	if err := w.RecordHeartbeats(context.Background(), hs); err != nil {
		w.t.Error(err)
	}
}

// open gives a VM a new session, and end ends its newest.
func (w *world) open(hello fleet.Hello) {
	w.t.Helper()
	w.apply(fleet.SessionOpened{Hello: hello}, start)
}

func (w *world) end(vm fleet.VMID, at time.Time) {
	w.t.Helper()
	w.apply(fleet.SessionClosed{VM: vm, Epoch: w.epoch(vm)}, at)
}

func (w *world) epoch(vm fleet.VMID) fleet.Epoch {
	w.t.Helper()
	v, err := w.VM(context.Background(), vm)
	if err != nil {
		w.t.Error(err)
	}
	return v.Epoch
}

// deliver delivers a command on the session of its VM, which is opened if necessary.
func (w *world) deliver(id fleet.CommandID) {
	w.t.Helper()
	c, err := w.Command(context.Background(), id)
	if err != nil {
		w.t.Error(err)
		return
	}
	if v, err := w.VM(context.Background(), c.VM); err != nil || !v.Connected {
		w.open(fleet.Hello{VM: c.VM, Pool: v.Pool, Org: v.Org})
	}
	w.apply(fleet.LeaseRequested{VM: c.VM, Command: id, Request: fleet.LeaseRequest{
		Via: fleet.Stream, Epoch: w.epoch(c.VM), WithoutToken: c.Type != fleet.RegisterRunner, At: start,
	}}, start)
}

// ack acks a command on the session of its VM.
func (w *world) ack(id fleet.CommandID) {
	w.t.Helper()
	c, err := w.Command(context.Background(), id)
	if err != nil {
		w.t.Error(err)
		return
	}
	ack := fleet.Ack{CommandID: id, Success: true, Message: "done"}
	w.apply(fleet.AckReceived{VM: c.VM, Epoch: w.epoch(c.VM), Ack: ack}, start)
}

// addEvent adds an event: one change, if its VM is known.
func (w *world) addEvent(e fleet.Event) {
	w.t.Helper()
	w.apply(fleet.EventReceived{Event: e}, e.ReceivedAt)
}

// forget purges all changes but the latest.
func (w *world) forget() {
	w.t.Helper()
	if _, err := w.Purge(context.Background(), engine.Retention{Changes: time.Hour}, start.Add(2*time.Hour)); err != nil {
		w.t.Error(err)
	}
}

// requireField requires a FieldError for field.
func requireField(t *testing.T, err error, field string) {
	t.Helper()
	var wrong *fleet.FieldError
	require.ErrorAs(t, err, &wrong)
	require.Equal(t, field, wrong.Field, "rule: %s", wrong.Rule)
}
