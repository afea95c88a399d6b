package session

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/mig-controller/mig-controller/internal/engine"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

// testStore is the real engine, whose steps can be made to fail or to block: each method, and
// each input by its own name.
type testStore struct {
	*engine.Engine
	mu    sync.Mutex
	hooks map[string]func() error
	calls map[string]int
	// groups are the sizes of the groups of heartbeats that were stored.
	groups []int
	// broken is a VM whose heartbeats cannot be stored.
	broken fleet.VMID
	// dropReady drops the notifications of sendable commands.
	dropReady bool
}

// on makes hook run before each step with this name; the step fails if hook does.
func (s *testStore) on(step string, hook func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hooks == nil {
		s.hooks = map[string]func() error{}
	}
	s.hooks[step] = hook
}

// down makes steps fail, up makes them succeed again.
func (s *testStore) down(steps ...string) {
	for _, step := range steps {
		s.on(step, func() error { return fleet.ErrUnavailable })
	}
}

func (s *testStore) up(steps ...string) {
	for _, step := range steps {
		s.on(step, nil)
	}
}

func (s *testStore) called(step string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[step]
}

func (s *testStore) before(step string) error {
	s.mu.Lock()
	if s.calls == nil {
		s.calls = map[string]int{}
	}
	s.calls[step]++
	hook := s.hooks[step]
	s.mu.Unlock()
	if hook == nil {
		return nil
	}
	return hook()
}

// stepOf returns the name of the step that applies an input.
func stepOf(in fleet.Input) string {
	switch in.(type) {
	case fleet.AckReceived:
		return "Ack"
	case fleet.EventReceived:
		return "RecordEvent"
	case fleet.SessionClosed:
		return "CloseSession"
	case fleet.Polled:
		return "RequestRegistration"
	case fleet.LeaseRequested:
		return "Lease"
	case fleet.DeliveryFailed:
		return "NotWritten"
	case fleet.TokenUnavailable:
		return "TokenUnavailable"
	case fleet.RunnersConfigured:
		return "RunnersConfigured"
	default:
		panic("an input that the registry does not apply")
	}
}

func (s *testStore) Apply(ctx context.Context, in fleet.Input, now time.Time) (fleet.Outcome, error) {
	step := stepOf(in)
	if err := s.before(step); err != nil {
		return fleet.Outcome{}, err
	}
	if err := ctx.Err(); err != nil && step == "RecordEvent" {
		return fleet.Outcome{}, err
	}
	out, err := s.Engine.Apply(ctx, in, now)
	return out, cmp.Or(err, s.before("after "+step))
}

// ApplyLate opens sessions, and applies nothing else.
func (s *testStore) ApplyLate(
	ctx context.Context, vm fleet.VMID, command fleet.CommandID, with func() (fleet.Input, time.Time),
) (fleet.Outcome, error) {
	if err := s.before("OpenSession"); err != nil {
		return fleet.Outcome{}, err
	}
	out, err := s.Engine.ApplyLate(ctx, vm, command, func() (fleet.Input, time.Time) {
		_ = s.before("within OpenSession") // its hooks do not fail
		in, now := with()
		if _, ok := in.(fleet.SessionOpened); !ok {
			panic("an input that is not applied late")
		}
		return in, now
	})
	return out, cmp.Or(err, s.before("after OpenSession"))
}

func (s *testStore) State(ctx context.Context, vm fleet.VMID) (fleet.State, error) {
	if err := s.before("State"); err != nil {
		return fleet.State{}, err
	}
	state, err := s.Engine.State(ctx, vm)
	return state, cmp.Or(err, s.before("after State"))
}

func (s *testStore) Tick(ctx context.Context, now time.Time, live func(fleet.VMID) fleet.Live, limit int) (int, bool, error) {
	if err := s.before("Sweep"); err != nil {
		return 0, false, err
	}
	return s.Engine.Tick(ctx, now, live, limit)
}

func (s *testStore) ResetSessions(ctx context.Context, now time.Time) (int, error) {
	if err := s.before("ResetSessions"); err != nil {
		return 0, err
	}
	return s.Engine.ResetSessions(ctx, now)
}

func (s *testStore) RecordHeartbeats(ctx context.Context, hs []fleet.Heartbeat) error {
	if err := s.before("RecordHeartbeats"); err != nil {
		return err
	}
	if slices.ContainsFunc(hs, func(h fleet.Heartbeat) bool { return h.VM == s.broken }) {
		return errors.New("the record of the VM cannot be read")
	}
	s.mu.Lock()
	s.groups = append(s.groups, len(hs))
	s.mu.Unlock()
	return s.Engine.RecordHeartbeats(ctx, hs)
}

func (s *testStore) UnjournaledEvents(ctx context.Context, limit int) ([]fleet.Event, error) {
	if err := s.before("UnjournaledEvents"); err != nil {
		return nil, err
	}
	es, err := s.Engine.UnjournaledEvents(ctx, limit)
	return es, cmp.Or(err, s.before("after UnjournaledEvents"))
}

func (s *testStore) MarkJournaled(ctx context.Context, seq int64) error {
	if err := s.before("MarkJournaled"); err != nil {
		return err
	}
	return s.Engine.MarkJournaled(ctx, seq)
}

func (s *testStore) Purge(ctx context.Context, r engine.Retention, now time.Time) (int, error) {
	if err := s.before("Purge"); err != nil {
		return 0, err
	}
	return s.Engine.Purge(ctx, r, now)
}

func (s *testStore) MoveDeadlines(ctx context.Context) error {
	if err := s.before("MoveDeadlines"); err != nil {
		return err
	}
	return s.Engine.MoveDeadlines(ctx)
}

// slowDriver can block commits.
type slowDriver struct {
	store.Driver
	turn chan struct{} // capacity 1
}

// hold blocks commits until release is called.
func (d *slowDriver) hold() (release func()) {
	d.turn <- struct{}{}
	return sync.OnceFunc(func() { <-d.turn })
}

func (d *slowDriver) Commit(ctx context.Context, w store.Writes) (store.Committed, error) {
	d.turn <- struct{}{}
	defer func() { <-d.turn }()
	return d.Driver.Commit(ctx, w)
}

func (s *testStore) OnReady(fn func(fleet.VMID, fleet.Ready)) (stop func()) {
	if s.dropReady {
		return func() {}
	}
	return s.Engine.OnReady(fn)
}
