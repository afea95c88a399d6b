package control_test

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/control"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

var start = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

// fakeStore keeps everything in memory. Each change is made and told as a
// backend does: readable first, told afterwards.
type fakeStore struct {
	id string
	// before is called when a method begins; its error is the method's.
	before func(method string) error
	// after is called when a command was enqueued, before Enqueue returns.
	after func(fleet.Command)

	// telling is held while a change is made and told, so that all are told in
	// their order.
	telling sync.Mutex

	mu        sync.Mutex
	commands  []fleet.Command
	vms       []fleet.VM
	events    []fleet.Event
	beats     []fleet.Heartbeat // the latest first
	changes   []fleet.Change
	seq       int64
	forgotten int64
	listeners map[int]func([]fleet.Change)
	listened  int
	readAfter int64 // where the latest read of changes began
}

func newFakeStore() *fakeStore {
	return &fakeStore{id: "store-1", listeners: make(map[int]func([]fleet.Change))}
}

func newControl(t *testing.T, s *fakeStore) *control.Control {
	t.Helper()
	c := control.New(control.Options{
		Store:    s,
		Defaults: fleet.CommandDefaults{TTL: time.Hour, AckTimeout: 30 * time.Second},
		Clock:    func() time.Time { return start },
		Log:      slog.New(slog.DiscardHandler),
	})
	t.Cleanup(c.Close)
	return c
}

func (s *fakeStore) ID() string { return s.id }

func (s *fakeStore) begin(ctx context.Context, method string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.before != nil {
		return s.before(method)
	}
	return nil
}

// make makes one change by calling fn, and tells everybody.
func (s *fakeStore) make(fn func() fleet.Change) {
	s.telling.Lock()
	defer s.telling.Unlock()
	s.mu.Lock()
	change := fn()
	s.seq++
	change.Seq, change.At = s.seq, start
	s.changes = append(s.changes, change)
	s.mu.Unlock()
	s.repeat()
}

// repeat tells everybody of the latest change.
func (s *fakeStore) repeat() {
	s.mu.Lock()
	latest := s.changes[len(s.changes)-1:]
	tell := slices.Collect(maps.Values(s.listeners))
	s.mu.Unlock()
	for _, fn := range tell {
		fn(latest)
	}
}

// mute makes the store tell nobody any more.
func (s *fakeStore) mute() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.listeners)
}

func commandChange(c fleet.Command) fleet.Change {
	c = c.Outline()
	return fleet.Change{Subject: c.VM, Command: &c}
}

func (s *fakeStore) Enqueue(
	ctx context.Context, c fleet.Command, _ func() time.Time,
) (fleet.Command, error) {
	if err := s.begin(ctx, "Enqueue"); err != nil {
		return fleet.Command{}, err
	}
	s.mu.Lock()
	known := slices.IndexFunc(s.commands, func(o fleet.Command) bool { return o.ID == c.ID })
	if known >= 0 {
		defer s.mu.Unlock()
		if kept := s.commands[known]; kept.SameRequest(c) {
			return kept, nil
		}
		return fleet.Command{}, fleet.ErrIDTaken
	}
	s.mu.Unlock()
	s.make(func() fleet.Change {
		c.Seq = s.seq + 1
		s.commands = append(s.commands, c)
		return commandChange(c)
	})
	if s.after != nil {
		s.after(c)
	}
	return c, nil
}

// move makes a command take a step; tests are the agent and the clock.
func (s *fakeStore) move(id fleet.CommandID, step func(fleet.Command) (fleet.Command, error)) (fleet.Command, error) {
	s.mu.Lock()
	i := slices.IndexFunc(s.commands, func(o fleet.Command) bool { return o.ID == id })
	if i < 0 {
		s.mu.Unlock()
		return fleet.Command{}, fleet.ErrNotFound
	}
	c, err := step(s.commands[i])
	s.mu.Unlock()
	if err != nil {
		return c, err
	}
	s.make(func() fleet.Change {
		s.commands[i] = c
		return commandChange(c)
	})
	return c, nil
}

func (s *fakeStore) deliver(id fleet.CommandID) {
	_, _ = s.move(id, func(c fleet.Command) (fleet.Command, error) {
		return c.Delivered(fleet.Delivery{Via: fleet.Stream, Epoch: 1, At: start})
	})
}

func (s *fakeStore) ack(id fleet.CommandID) {
	_, _ = s.move(id, func(c fleet.Command) (fleet.Command, error) {
		return c.Acked(fleet.Ack{CommandID: id, Success: true, Message: "done"}, start)
	})
}

// addEvent adds an event of vm, and putVM its record; each is one change.
func (s *fakeStore) addEvent(e fleet.Event) {
	s.make(func() fleet.Change {
		e.Seq = s.seq + 1
		s.events = append(s.events, e)
		return fleet.Change{Subject: e.VM, Event: &e}
	})
}

func (s *fakeStore) putVM(v fleet.VM) {
	s.make(func() fleet.Change {
		s.vms = slices.DeleteFunc(s.vms, func(o fleet.VM) bool { return o.ID == v.ID })
		s.vms = append(s.vms, v)
		return fleet.Change{Subject: v.ID, VM: &v}
	})
}

func (s *fakeStore) Cancel(ctx context.Context, id fleet.CommandID, now time.Time) (fleet.Command, error) {
	if err := s.begin(ctx, "Cancel"); err != nil {
		return fleet.Command{}, err
	}
	return s.move(id, func(c fleet.Command) (fleet.Command, error) { return c.Cancelled(now) })
}

func (s *fakeStore) Queue(ctx context.Context, vm fleet.VMID, _ time.Time) ([]fleet.Command, error) {
	if err := s.begin(ctx, "Queue"); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var open []fleet.Command
	for _, c := range s.commands {
		if c.VM == vm && !c.State.Terminal() {
			open = append(open, c)
		}
	}
	return open, nil
}

func (s *fakeStore) Command(ctx context.Context, id fleet.CommandID) (fleet.Command, error) {
	if err := s.begin(ctx, "Command"); err != nil {
		return fleet.Command{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.commands {
		if c.ID == id {
			return c, nil
		}
	}
	return fleet.Command{}, fleet.ErrNotFound
}

// falling returns those of rows that fit, the highest Seq first.
func falling[T any](rows []T, page store.Page, seq func(T) int64, fits func(T) bool) []T {
	var out []T
	for _, row := range slices.Backward(rows) {
		if len(out) < page.Size && fits(row) && (page.Before == 0 || seq(row) < page.Before) {
			out = append(out, row)
		}
	}
	return out
}

func (s *fakeStore) Commands(ctx context.Context, f store.CommandFilter, page store.Page) ([]fleet.Command, error) {
	if err := s.begin(ctx, "Commands"); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return falling(s.commands, page, func(c fleet.Command) int64 { return c.Seq }, func(c fleet.Command) bool {
		return (f.VM == "" || c.VM == f.VM) && (f.Type == "" || c.Type == f.Type) &&
			(len(f.States) == 0 || slices.Contains(f.States, c.State))
	}), nil
}

func (s *fakeStore) Events(ctx context.Context, f store.EventFilter, page store.Page) ([]fleet.Event, error) {
	if err := s.begin(ctx, "Events"); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return falling(s.events, page, func(e fleet.Event) int64 { return e.Seq }, func(e fleet.Event) bool {
		return (f.VM == "" || e.VM == f.VM) && (f.Type == "" || e.Type == f.Type) &&
			(f.Since.IsZero() || !e.ReceivedAt.Before(f.Since)) && (f.Until.IsZero() || e.ReceivedAt.Before(f.Until))
	}), nil
}

func (s *fakeStore) VM(ctx context.Context, id fleet.VMID) (fleet.VM, error) {
	if err := s.begin(ctx, "VM"); err != nil {
		return fleet.VM{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.vms {
		if v.ID == id {
			return v, nil
		}
	}
	return fleet.VM{}, fleet.ErrNotFound
}

func (s *fakeStore) VMs(ctx context.Context, f store.VMFilter, page store.Page) ([]fleet.VM, error) {
	if err := s.begin(ctx, "VMs"); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	rows := slices.Clone(s.vms)
	slices.SortFunc(rows, func(a, b fleet.VM) int { return cmp.Compare(a.ID, b.ID) })
	var out []fleet.VM
	for _, v := range rows {
		fits := (f.Pool == "" || v.Pool == f.Pool) && (f.Org == "" || v.Org == f.Org) &&
			(f.Status == "" || v.Status == f.Status) && (f.Connected == nil || v.Connected == *f.Connected)
		if fits && v.ID > page.After && len(out) < page.Size {
			out = append(out, v)
		}
	}
	return out, nil
}

func (s *fakeStore) Heartbeats(ctx context.Context, vm fleet.VMID, page store.Page) ([]fleet.Heartbeat, error) {
	if err := s.begin(ctx, "Heartbeats"); err != nil {
		return nil, err
	}
	var out []fleet.Heartbeat
	for _, h := range s.beats {
		at := h.ReceivedAt.UnixNano()
		if h.VM == vm && len(out) < page.Size && (page.Before == 0 || at < page.Before) {
			out = append(out, h)
		}
	}
	return out, nil
}

func (s *fakeStore) Changes(
	ctx context.Context, f store.ChangeFilter, after int64, limit int,
) ([]fleet.Change, error) {
	if err := s.begin(ctx, "Changes"); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readAfter = after
	if after < s.forgotten {
		return nil, fleet.ErrCursorExpired
	}
	var out []fleet.Change
	for _, c := range s.changes {
		if c.Seq > after && len(out) < limit && (f.VM == "" || c.Subject == f.VM) {
			out = append(out, c)
		}
	}
	return out, nil
}

func (s *fakeStore) LastChange(ctx context.Context) (int64, error) {
	if err := s.begin(ctx, "LastChange"); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seq, nil
}

func (s *fakeStore) Listen(fn func([]fleet.Change)) (stop func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listened++
	key := s.listened
	s.listeners[key] = fn
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.listeners, key)
	}
}

// forget drops the changes up to seq, as retention does.
func (s *fakeStore) forget(seq int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forgotten = seq
	s.changes = slices.DeleteFunc(s.changes, func(c fleet.Change) bool { return c.Seq <= seq })
}

func (s *fakeStore) listening() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.listeners)
}

// requireField requires an error that says that field breaks a rule.
func requireField(t *testing.T, err error, field string) {
	t.Helper()
	var wrong *fleet.FieldError
	require.ErrorAs(t, err, &wrong)
	require.Equal(t, field, wrong.Field, "rule: %s", wrong.Rule)
}
