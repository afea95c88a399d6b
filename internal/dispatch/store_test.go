package dispatch

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
	"github.com/mig-controller/mig-controller/internal/store/sqlstore"
)

// testStore is the real store, whose methods can be made to fail or to wait.
type testStore struct {
	*sqlstore.DB
	mu    sync.Mutex
	hooks map[string]func() error
	calls map[string]int
	// groups are the sizes of the groups of heartbeats that were stored.
	groups []int
	// broken is a VM of which no heartbeat can be stored.
	broken fleet.VMID
	// deaf keeps the store's changes from its listeners.
	deaf bool
	// idle is for tests in which much time passes and no command's is up.
	idle bool
}

// on calls hook before each call of a method, which fails when hook does.
func (s *testStore) on(method string, hook func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hooks == nil {
		s.hooks = map[string]func() error{}
	}
	s.hooks[method] = hook
}

// down makes methods fail, up lets them go on.
func (s *testStore) down(methods ...string) {
	for _, m := range methods {
		s.on(m, func() error { return fleet.ErrUnavailable })
	}
}

func (s *testStore) up(methods ...string) {
	for _, m := range methods {
		s.on(m, nil)
	}
}

func (s *testStore) called(method string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[method]
}

func (s *testStore) before(method string) error {
	s.mu.Lock()
	if s.calls == nil {
		s.calls = map[string]int{}
	}
	s.calls[method]++
	hook := s.hooks[method]
	s.mu.Unlock()
	if hook == nil {
		return nil
	}
	return hook()
}

func (s *testStore) Next(ctx context.Context, vm fleet.VMID, a store.Attempt) (fleet.Command, error) {
	if err := s.before("Next"); err != nil {
		return fleet.Command{}, err
	}
	c, err := s.DB.Next(ctx, vm, a)
	return c, cmp.Or(err, s.before("after Next"))
}

func (s *testStore) Lease(ctx context.Context, vm fleet.VMID, id fleet.CommandID, a store.Attempt) (fleet.Command, error) {
	if err := s.before("Lease"); err != nil {
		return fleet.Command{}, err
	}
	c, err := s.DB.Lease(ctx, vm, id, a)
	return c, cmp.Or(err, s.before("after Lease"))
}

func (s *testStore) Ack(
	ctx context.Context, vm fleet.VMID, e fleet.Epoch, a fleet.Ack, now time.Time,
) (fleet.Command, bool, error) {
	if err := s.before("Ack"); err != nil {
		return fleet.Command{}, false, err
	}
	return s.DB.Ack(ctx, vm, e, a, now)
}

func (s *testStore) Sweep(ctx context.Context, now time.Time, lastMessageAt store.LastMessageAt, limit int) (int, error) {
	if err := s.before("Sweep"); err != nil || s.idle {
		return 0, err
	}
	return s.DB.Sweep(ctx, now, lastMessageAt, limit)
}

func (s *testStore) OpenSession(
	ctx context.Context, h fleet.Hello, c fleet.Command, written func() fleet.CommandID, now time.Time,
) (fleet.VM, error) {
	if err := s.before("OpenSession"); err != nil {
		return fleet.VM{}, err
	}
	v, err := s.DB.OpenSession(ctx, h, c, func() fleet.CommandID {
		_ = s.before("within OpenSession") // fails for nobody
		return written()
	}, now)
	return v, cmp.Or(err, s.before("after OpenSession"))
}

func (s *testStore) CloseSession(
	ctx context.Context, vm fleet.VMID, e fleet.Epoch, written fleet.CommandID, now time.Time,
) error {
	if err := s.before("CloseSession"); err != nil {
		return err
	}
	return s.DB.CloseSession(ctx, vm, e, written, now)
}

func (s *testStore) ResetSessions(ctx context.Context, now time.Time) (int, error) {
	if err := s.before("ResetSessions"); err != nil {
		return 0, err
	}
	return s.DB.ResetSessions(ctx, now)
}

func (s *testStore) RequestRegistration(
	ctx context.Context, vm fleet.VMID, c fleet.Command, now time.Time,
) (fleet.VM, error) {
	if err := s.before("RequestRegistration"); err != nil {
		return fleet.VM{}, err
	}
	return s.DB.RequestRegistration(ctx, vm, c, now)
}

func (s *testStore) RecordEvent(ctx context.Context, e fleet.Event, c fleet.Command) (fleet.VM, fleet.Event, error) {
	if err := cmp.Or(s.before("RecordEvent"), ctx.Err()); err != nil {
		return fleet.VM{}, e, err
	}
	return s.DB.RecordEvent(ctx, e, c)
}

func (s *testStore) RecordHeartbeats(
	ctx context.Context, hs []fleet.Heartbeat, register func(fleet.VMID) fleet.Command,
) error {
	if err := s.before("RecordHeartbeats"); err != nil {
		return err
	}
	if slices.ContainsFunc(hs, func(h fleet.Heartbeat) bool { return h.VM == s.broken }) {
		return errors.New("the record of the VM cannot be read")
	}
	s.mu.Lock()
	s.groups = append(s.groups, len(hs))
	s.mu.Unlock()
	return s.DB.RecordHeartbeats(ctx, hs, register)
}

func (s *testStore) UnjournaledEvents(ctx context.Context, limit int) ([]fleet.Event, error) {
	if err := s.before("UnjournaledEvents"); err != nil {
		return nil, err
	}
	es, err := s.DB.UnjournaledEvents(ctx, limit)
	return es, cmp.Or(err, s.before("after UnjournaledEvents"))
}

func (s *testStore) MarkJournaled(ctx context.Context, seq int64) error {
	if err := s.before("MarkJournaled"); err != nil {
		return err
	}
	return s.DB.MarkJournaled(ctx, seq)
}

func (s *testStore) Purge(ctx context.Context, r store.Retention, now time.Time) (int, error) {
	if err := s.before("Purge"); err != nil {
		return 0, err
	}
	return s.DB.Purge(ctx, r, now)
}

func (s *testStore) ListenEarly(fn func([]fleet.Change)) (stop func()) {
	if s.deaf {
		return func() {}
	}
	return s.DB.ListenEarly(fn)
}
