package session

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store/memory"
)

// A VM that connects is sent register_runner, with a token that is stored nowhere; then its
// commands follow in the order of acceptance, one at a time, each as soon as the previous one
// is acked.
func TestDelivery(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		s.send("vm-1", "a", "b")
		a := s.connect("vm-1")
		require.Equal(t, fleet.CommandID("a"), a.next().ID, "the first accepted is delivered first")
		a.requireNothing()
		s.send("vm-1", "c")
		s.send("vm-2", "other")
		a.requireNothing()
		a.ack("a", true)
		require.Equal(t, fleet.CommandID("b"), a.next(false).ID)

		register := <-a.delivered
		require.Equal(t, fleet.RegisterRunner, register.Command.Type)
		require.Equal(t, secret, register.Params.Strings[fleet.RegistrationTokenParam])
		require.Empty(t, register.Command.Params, "the record has no token")
		require.Empty(t, s.command(register.Command.ID).Params)
		a.ack(register.Command.ID, true)

		require.Equal(t, fleet.CommandID("c"), a.next(true).ID)
		a.requireNothing()
		s.elapsed(0)
		require.Equal(t, fleet.Failed, s.command("b").State)
		require.Equal(t, fleet.Succeeded, s.command("c").State)
		require.Equal(t, fleet.Pending, s.command("other").State)
		require.Equal(t, int64(4), s.Stats().Delivered)
		require.Equal(t, 1, s.Stats().Sessions)
	})
}

// Nothing is sent before its delivery is durable: neither a command that a session leases nor
// one that was leased for it when it was accepted.
func TestDeliveriesAreDurable(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		driver := &slowDriver{memory.New(), make(chan struct{}, 1)}
		s := newSystemOn(t, driver)
		release := func() {}
		s.store.on("Lease", func() error {
			s.store.up("Lease")
			release = driver.hold()
			return nil
		})
		a := s.connect("vm-1")
		synctest.Wait()
		defer release()
		require.Len(t, driver.turn, 1)
		a.requireNothing()
		release()
		a.next(true)
		synctest.Wait()

		release = driver.hold()
		defer release()
		accepted := make(chan struct{})
		go func() {
			defer close(accepted)
			s.send("vm-1", "a")
		}()
		a.requireNothing()
		release()
		require.Equal(t, fleet.CommandID("a"), a.next().ID)
		<-accepted
		s.elapsed(0)
	})
}

// Whatever ends the command in flight, the next one is delivered at once.
func TestNextCommandFollowsAnyEnd(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		end   func(s *system, a *agent)
		state fleet.CommandState
		after time.Duration
	}{
		"acked":     {func(_ *system, a *agent) { a.ack("first", true) }, fleet.Succeeded, 0},
		"failed":    {func(_ *system, a *agent) { a.ack("first", false) }, fleet.Failed, 0},
		"cancelled": {func(s *system, _ *agent) { s.cancel("first") }, fleet.Cancelled, 0},
		"no ack":    {func(_ *system, a *agent) { a.sendSignOfLife() }, fleet.TimedOut, defaults.AckTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSystem(t)
				a := s.registered("vm-1")
				s.send("vm-1", "first", "second")
				require.Equal(t, fleet.CommandID("first"), a.next().ID)
				a.requireNothing()
				test.end(s, a)
				require.Equal(t, fleet.CommandID("second"), a.next().ID)
				require.Equal(t, test.state, s.command("first").State)
				s.elapsed(test.after)
			})
		})
	}
}

func (s *system) cancel(id fleet.CommandID) {
	s.Helper()
	_, err := s.store.Engine.Apply(s.Context(), fleet.CancelRequested{VM: s.command(id).VM, Command: id}, clock())
	require.NoError(s, err)
}

// A command that is cancelled while its token is being minted is not sent, and
// the next one is.
func TestCancelledBeforeItsLease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		s.tokens.on(func() error {
			all, _, err := s.store.Commands(t.Context(), allCommands, onePage)
			if err == nil && len(all) > 0 {
				s.cancel(all[len(all)-1].ID)
			}
			s.send("vm-1", "next")
			return err
		})
		a := s.connect("vm-1")
		require.Equal(t, fleet.CommandID("next"), a.next().ID)
		a.requireNothing()
	})
}

// A command in flight when its session ends is sent again on the next one, and never twice on
// the same.
func TestRedelivery(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		first := s.registered("vm-1")
		first.beatRunner(true)
		s.send("vm-1", "a", "b")
		require.Equal(t, fleet.CommandID("a"), first.next().ID)
		time.Sleep(defaults.AckTimeout / 2) // fake clock
		first.requireNothing()
		first.quit()
		require.False(t, s.vm("vm-1").Connected)

		// No agent could have acked.
		time.Sleep(10 * defaults.AckTimeout) // fake clock
		second := s.connect("vm-1")
		again := second.next()
		require.Equal(t, fleet.CommandID("a"), again.ID)
		require.Equal(t, 2, again.Attempts)
		second.ack("a", true)
		require.Equal(t, fleet.CommandID("b"), second.next(true).ID)
		second.requireNothing()
	})
}

// A command that a poll received is not sent on the stream in the same boot, and is sent as
// soon as a new boot of the VM is detected.
func TestDueAgainInANewBoot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		leases, err := s.Poll(t.Context(), "vm-1")
		require.NoError(t, err)
		require.Len(t, leases, 1)
		a := s.connect("vm-1")
		a.requireNothing()
		_, _, err = s.ReportEvent(t.Context(), fleet.Event{
			Origin: fleet.Origin{VM: "vm-1", SentAt: clock()}, Type: fleet.EventVMStarted,
		})
		require.NoError(t, err)
		_, _, err = s.ReportEvent(t.Context(), fleet.Event{
			Origin: fleet.Origin{VM: "vm-1", SentAt: clock().Add(time.Second)}, Type: fleet.EventVMStarted,
		})
		require.NoError(t, err)
		require.Equal(t, leases[0].Command.ID, a.next().ID)
		s.elapsed(0)
	})
}

// A session that is woken after it looked for commands, and before its deliveries stop, looks
// again.
func TestWokenBeforeItsRest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a := s.registered("vm-1")
		synctest.Wait() // its deliveries have stopped
		looks := 0
		s.store.on("after State", func() error {
			looks++
			if looks == 2 { // the first was for the command it sends, and now it is about to stop
				s.store.up("after State")
				s.cancel("first")
			}
			return nil
		})
		s.send("vm-1", "first", "second")
		require.Equal(t, fleet.CommandID("first"), a.next().ID)
		require.Equal(t, fleet.CommandID("second"), a.next().ID)
		s.elapsed(0)
	})
}

// A wake-up that is lost delays a command by a minute at most.
func TestLostWakeUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, func(s *system, _ *Options) { s.store.dropReady = true })
		a := s.registered("vm-1")
		a.requireNothing()
		s.send("vm-1", "a")
		a.requireNothing()
		require.Equal(t, fleet.CommandID("a"), a.next(true).ID)
		s.elapsed(time.Minute)
		a.requireNothing()
		s.sendWith("vm-1", "b", fleet.CommandDefaults{TTL: time.Hour, AckTimeout: 2 * lookAgain})
		time.Sleep(time.Minute) // fake clock
		synctest.Wait()
		require.Len(t, a.delivered, 1, "the second time too")
	})
}

// A command that is accepted while the session is being opened is sent at once after the agent
// has received the ack of the session.
func TestWakeUpBeforeAccept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		early := newTransport()
		early.onAccept = func() error {
			s.send("vm-1", "a")
			synctest.Wait()
			require.Empty(t, early.got)
			return nil
		}
		a := s.connectOn("vm-1", early)
		require.Equal(t, fleet.RegisterRunner, a.next(true).Type)
		require.Equal(t, fleet.CommandID("a"), a.next(true).ID)
		s.elapsed(0)
	})
}

// A session with nothing to deliver has no goroutine for deliveries, before and after it has
// been woken.
func TestIdleSessionDeliversNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a := s.registered("vm-1")
		delivering := func() bool {
			a.session.mu.Lock()
			defer a.session.mu.Unlock()
			return a.session.cancel != nil
		}
		synctest.Wait()
		require.False(t, delivering())
		s.send("vm-1", "a")
		a.next(true)
		synctest.Wait()
		require.False(t, delivering())
		time.Sleep(lookAgain) // fake clock
		synctest.Wait()
		require.False(t, delivering())
	})
}

// A stream on which a command cannot be written ends its session; the command is sent on the
// next one, and that is its first delivery.
func TestSendFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		broken := newTransport()
		broken.onDeliver = func() error { return errors.New("reset") }
		a := s.connectOn("vm-1", broken)
		<-a.ended
		require.NoError(t, a.session.Cause())
		require.False(t, s.vm("vm-1").Connected)
		require.Equal(t, 1, s.connect("vm-1").next().Attempts)
		synctest.Wait() // until the session knows that it was written in full
		require.Equal(t, int64(1), s.Stats().Delivered)
		s.elapsed(0)
	})
}

// An agent that does not read delays the end of its session by at most a second.
func TestSendBlocks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a := s.connectOn("vm-1", newBlockedTransport())
		synctest.Wait()
		a.quit()
		s.elapsed(abortAfter)
		require.False(t, s.vm("vm-1").Connected)
	})
}

// While the store is unavailable a session waits, and then continues; a command is leased
// once.
func TestDeliveryOutage(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"State", "Lease"} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSystem(t)
				s.store.down(method)
				a := s.connect("vm-1")
				a.requireNothing()
				first := s.store.called(method)
				require.LessOrEqual(t, first, 2, "whether to wait for the runner, and what to send")
				time.Sleep(5 * time.Minute) // fake clock
				a.requireNothing()
				require.InDelta(t, 5*time.Minute/lastRetry, s.store.called(method)-first, 5)
				s.store.up(method)
				require.Equal(t, 1, a.next(true).Attempts)
				require.False(t, a.stream.isInterrupted())
			})
		})
	}
}

// A completed delivery counts even if the end of its session could not be stored before the
// next one began.
func TestDeliveryCountsThroughAnOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a := s.registered("vm-1")
		s.send("vm-1", "a")
		require.Equal(t, 1, a.next().Attempts)
		s.store.down("CloseSession")
		a.quit()
		require.Equal(t, 2, s.connect("vm-1").next().Attempts)
	})
}

// A session that is superseded between lease and write sends nothing: the newer one does.
func TestSupersededAfterItsLease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		newer := make(chan *agent, 1)
		s.store.on("after Lease", func() error {
			s.store.up("after Lease")
			newer <- s.connect("vm-1")
			return nil
		})
		older := s.connect("vm-1")
		require.Equal(t, 1, (<-newer).next(true).Attempts)
		older.requireNothing()
	})
}

// A write that is completed while the next session is being opened counts.
func TestWrittenWhileTheNextSessionOpens(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		slow := newTransport()
		older := s.connectOn("vm-1", slow)
		older.next(true)
		writing, write := make(chan struct{}), make(chan struct{})
		slow.onDeliver = func() error {
			close(writing)
			<-write
			return nil
		}
		s.send("vm-1", "a")
		<-writing
		s.store.on("within OpenSession", func() error {
			s.store.up("within OpenSession")
			close(write)
			older.next()
			synctest.Wait() // the write is recorded
			return nil
		})
		require.Equal(t, 2, s.connect("vm-1").next().Attempts)
	})
}
