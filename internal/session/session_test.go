package session

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// A session is durable when Open returns, and so is its end when Close does.
func TestSession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a := s.connect("vm-1")
		v := s.vm("vm-1")
		require.True(t, v.Connected)
		require.Equal(t, a.session.Epoch(), v.Epoch)
		require.Equal(t, "pool", v.Pool)
		require.Equal(t, []fleet.VMID{"vm-1"}, s.LiveVMs())
		a.quit()
		require.NoError(t, a.session.Cause())
		require.False(t, s.vm("vm-1").Connected)
		require.Zero(t, s.Stats().Sessions)
		require.Empty(t, s.LiveVMs())
	})
}

// A session that cannot be opened leaves nothing that a stop would wait for.
func TestOpenFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		_, err := s.Open(t.Context(), fleet.Hello{VM: "../vm"}, newTransport())
		invalid, ok := errors.AsType[*fleet.FieldError](err)
		require.True(t, ok, err)
		require.Equal(t, "vm_id", invalid.Field)

		s.store.down("OpenSession")
		_, err = s.Open(t.Context(), fleet.Hello{VM: "vm-1"}, newTransport())
		require.ErrorIs(t, err, fleet.ErrUnavailable)
		s.store.up("OpenSession")

		refusing := newTransport()
		refusing.onAccept = func() error { return errors.New("gone") }
		_, err = s.Open(t.Context(), fleet.Hello{VM: "vm-1"}, refusing)
		require.ErrorContains(t, err, "gone")
		require.False(t, s.vm("vm-1").Connected)
		require.Empty(t, refusing.got)

		s.EndSessions(t.Context())
		s.elapsed(0)
	})
}

// The newest session of a VM wins at once: the old one gets nothing more, is held so that its
// agent does not reconnect at once, and its end does not affect the new one.
func TestSupersede(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, func(_ *system, o *Options) { o.HoldTime = 7 * time.Second })
		older := s.registered("vm-1")
		newer := s.connect("vm-1")
		require.ErrorIs(t, older.session.Cause(), fleet.ErrSuperseded)
		require.NoError(t, newer.session.Cause())
		s.send("vm-1", "a", "b")
		require.Equal(t, fleet.CommandID("a"), newer.next().ID)
		older.requireNothing()

		// Messages of the old agent are ignored.
		older.ack("a", true)
		older.beat("stale")
		older.event("late")
		require.Equal(t, fleet.Delivered, s.command("a").State)
		require.Equal(t, []string{"late"}, s.events("vm-1"))

		time.Sleep(7*time.Second - 1) // fake clock
		synctest.Wait()
		require.False(t, older.stream.isInterrupted())
		<-older.ended
		s.elapsed(7 * time.Second)
		require.True(t, s.vm("vm-1").Connected)
		require.Empty(t, s.beats("vm-1"))
		newer.ack("a", true)
		require.Equal(t, fleet.CommandID("b"), newer.next().ID)
		older.requireNothing()
		require.Equal(t, int64(1), s.Stats().Superseded)
		require.Equal(t, 1, s.Stats().Sessions)
	})
}

// The session that was stored second is the newest, whichever is added to the registry first.
func TestSupersededBeforeItBegan(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		var newer *agent
		s.store.on("after OpenSession", func() error {
			s.store.up("after OpenSession")
			newer = s.connect("vm-1")
			return nil
		})
		older := s.connect("vm-1")
		require.Less(t, older.session.Epoch(), newer.session.Epoch())
		require.ErrorIs(t, older.session.Cause(), fleet.ErrSuperseded)
		require.NoError(t, newer.session.Cause())
		require.Equal(t, fleet.RegisterRunner, newer.next(true).Type)
		older.requireNothing()
		s.send("vm-1", "a")
		require.Equal(t, fleet.CommandID("a"), newer.next().ID)
		older.requireNothing()
	})
}

// A session that was superseded by another controller detects that when it next looks for
// commands, and ends like any other.
func TestSupersededElsewhere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a := s.registered("vm-1")
		synctest.Wait()
		_, err := s.store.Engine.Apply(t.Context(), fleet.SessionOpened{Hello: fleet.Hello{VM: "vm-1"}}, clock())
		require.NoError(t, err)
		s.send("vm-1", "theirs")
		<-a.ended
		s.elapsed(5 * time.Second)
		require.ErrorIs(t, a.session.Cause(), fleet.ErrSuperseded)
		a.requireNothing()
		require.True(t, s.vm("vm-1").Connected)
		require.Equal(t, a.session.Epoch()+1, s.command("theirs").Last.Epoch)
	})
}

// At most MaxHeld streams are held, refused and superseded ones together; more end at once.
// None is held twice or forever.
func TestHolds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, func(_ *system, o *Options) { o.HoldTime, o.MaxHeld = 5*time.Second, 3 })
		go s.Hold(t.Context()) // a refused stream
		synctest.Wait()
		var older []*agent
		for _, vm := range []fleet.VMID{"vm-1", "vm-2", "vm-3", "vm-4"} {
			older = append(older, s.connect(vm))
			s.connect(vm)
		}
		synctest.Wait()
		for i, held := range []bool{true, true, false, false} {
			require.Equal(t, held, !older[i].stream.isInterrupted(), i)
		}
		require.Len(t, s.holds, 3)
		older[0].quit() // an agent that disconnects releases its hold
		require.Len(t, s.holds, 2)
		s.Hold(t.Context())
		s.elapsed(5 * time.Second)
		synctest.Wait()
		require.True(t, older[1].stream.isInterrupted())
		require.Empty(t, s.holds)

		gone, leave := context.WithCancel(t.Context())
		leave()
		s.Hold(gone)
		s.elapsed(0)
	})
}

// A session that is superseded while it ends is not held.
func TestSupersededWhileItEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		older := s.connectOn("vm-1", newBlockedTransport())
		synctest.Wait()
		older.disconnect()
		synctest.Wait()
		newer := s.connect("vm-1")
		require.Empty(t, s.holds)
		require.NoError(t, older.session.Cause())
		<-older.ended
		require.True(t, s.vm("vm-1").Connected)
		require.Equal(t, fleet.RegisterRunner, newer.next(true).Type)
	})
}

// Sessions may open, supersede each other and end in any order: finally every hold is
// released, every session is closed, and the registry and the store agree. The clock is real,
// so that holds end while sessions do.
func TestSessionsRace(t *testing.T) {
	t.Parallel()
	s := newSystem(t, withoutJournal, func(_ *system, o *Options) { o.HoldTime, o.MaxHeld = time.Millisecond, 2 })
	var openers sync.WaitGroup
	for range 4 {
		openers.Go(func() {
			for range 25 {
				transport := newTransport()
				ctx, leave := context.WithCancel(t.Context())
				session, err := s.Open(ctx, fleet.Hello{VM: "vm-1"}, transport)
				if err != nil {
					t.Error(err)
				}
				ended := time.AfterFunc(rand.N(2*time.Millisecond), leave)
				select {
				case <-ctx.Done():
				case <-transport.interrupted:
				}
				session.Close(nil)
				ended.Stop()
				leave()
			}
		})
	}
	openers.Wait()
	require.Eventually(t, func() bool { return len(s.holds) == 0 }, 30*time.Second, time.Millisecond)
	require.Zero(t, s.Stats().Sessions)
	require.False(t, s.vm("vm-1").Connected)
	require.Equal(t, fleet.Epoch(100), s.vm("vm-1").Epoch)
	require.Empty(t, s.sessions.live)
	s.EndSessions(t.Context()) // which would block if one were still counted

	last := s.vm("vm-1")
	require.Equal(t, fleet.Requested, last.Registration.State)
	require.False(t, s.command(last.Registration.Command).State.Terminal())
}

// When agents connect concurrently for one VM, the store and the registry agree on the newest
// session.
func TestRegistryAgreesWithStore(t *testing.T) {
	t.Parallel()
	s := newSystem(t, withoutJournal, func(_ *system, o *Options) { o.HoldTime = time.Hour })
	var mu sync.Mutex
	var newest *agent
	var openers sync.WaitGroup
	for range 2 {
		openers.Go(func() {
			for range 20 {
				a := s.connect("vm-1")
				mu.Lock()
				if newest == nil || newest.session.Epoch() < a.session.Epoch() {
					newest = a
				}
				mu.Unlock()
			}
		})
	}
	openers.Wait()
	require.Equal(t, s.vm("vm-1").Epoch, newest.session.Epoch())
	require.Same(t, newest.session, s.sessions.newest["vm-1"])
	require.NoError(t, newest.session.Cause())
	require.True(t, s.vm("vm-1").Connected)
	require.Equal(t, int64(39), s.Stats().Superseded)
	require.Equal(t, fleet.RegisterRunner, (<-newest.delivered).Command.Type)
}

// A superseded session ends in time even while its reader waits for the store.
func TestSupersededInAnOutage(t *testing.T) {
	t.Parallel()
	for what, say := range map[string]func(*Session) error{
		"event":     eventOf("error"),
		"heartbeat": beatOf("idle"),
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSystem(t)
				older := s.registered("vm-1")
				s.store.down("RecordEvent", "RecordHeartbeats")
				s.fillHeartbeats()
				go func() { _ = older.do(say) }()
				synctest.Wait()
				s.began = time.Now()
				s.connect("vm-1")
				<-older.ended
				s.elapsed(5 * time.Second)
				s.store.up("RecordEvent", "RecordHeartbeats")
			})
		})
	}
}

// fillHeartbeats fills the queue of heartbeats while none can be stored.
func (s *system) fillHeartbeats() {
	s.Helper()
	full, cancel := context.WithCancel(s.Context())
	time.AfterFunc(time.Second, cancel)
	for {
		h := fleet.Heartbeat{Origin: fleet.Origin{VM: "flood", ReceivedAt: s.receivedAt()}}
		if err := s.Registry.beats.add(full, h, noFile); err != nil {
			require.ErrorIs(s, err, context.Canceled)
			return
		}
	}
}
