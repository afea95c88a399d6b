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

// A VM that connects is sent register_runner by itself, with a token that is
// nowhere else; then its commands follow in the order of acceptance, one at a
// time, each as soon as the one before is answered.
func TestDelivery(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		s.send("vm-1", "a", "b")
		a := s.connect("vm-1")
		require.Equal(t, fleet.CommandID("a"), a.next().ID, "what was accepted first goes first")
		a.nothing()
		s.send("vm-1", "c")
		s.send("vm-2", "other")
		a.nothing()
		a.ack("a", true)
		require.Equal(t, fleet.CommandID("b"), a.next(false).ID)

		register := <-a.got
		require.Equal(t, fleet.RegisterRunner, register.Command.Type)
		require.Equal(t, secret, register.Params.Strings[fleet.RegistrationTokenParam])
		require.Empty(t, register.Command.Params, "the record has no token")
		require.Empty(t, s.command(register.Command.ID).Params)
		a.ack(register.Command.ID, true)

		require.Equal(t, fleet.CommandID("c"), a.next(true).ID)
		a.nothing()
		s.elapsed(0)
		require.Equal(t, fleet.Failed, s.command("b").State)
		require.Equal(t, fleet.Succeeded, s.command("c").State)
		require.Equal(t, fleet.Pending, s.command("other").State)
		require.Equal(t, int64(4), s.Stats().Delivered)
		require.Equal(t, 1, s.Stats().Sessions)
	})
}

// Nothing is sent before its delivery is durable: neither what is leased by a session
// nor what was leased for it as it was accepted.
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
		a.nothing()
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
		a.nothing()
		release()
		require.Equal(t, fleet.CommandID("a"), a.next().ID)
		<-accepted
		s.elapsed(0)
	})
}

// Whatever ends the command that is out lets the next one through, without
// waiting for more.
func TestNextOne(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		end   func(s *system, a *agent)
		state fleet.CommandState
		after time.Duration
	}{
		"acked":     {func(_ *system, a *agent) { a.ack("first", true) }, fleet.Succeeded, 0},
		"failed":    {func(_ *system, a *agent) { a.ack("first", false) }, fleet.Failed, 0},
		"cancelled": {func(s *system, _ *agent) { s.cancel("first") }, fleet.Cancelled, 0},
		"no answer": {func(_ *system, a *agent) { a.stir() }, fleet.TimedOut, defaults.AckTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSystem(t)
				a := s.registered("vm-1")
				s.send("vm-1", "first", "second")
				require.Equal(t, fleet.CommandID("first"), a.next().ID)
				a.nothing()
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
		a.nothing()
	})
}

// A command that is out when its session ends is sent again on the next one,
// and never twice on the same.
func TestRedelivery(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		first := s.registered("vm-1")
		first.beatRunner(true)
		s.send("vm-1", "a", "b")
		require.Equal(t, fleet.CommandID("a"), first.next().ID)
		time.Sleep(defaults.AckTimeout / 2) // fake clock
		first.nothing()
		first.quit()
		require.False(t, s.vm("vm-1").Connected)

		// Nobody could have answered.
		time.Sleep(10 * defaults.AckTimeout) // fake clock
		second := s.connect("vm-1")
		again := second.next()
		require.Equal(t, fleet.CommandID("a"), again.ID)
		require.Equal(t, 2, again.Attempts)
		second.ack("a", true)
		require.Equal(t, fleet.CommandID("b"), second.next(true).ID)
		second.nothing()
	})
}

// A command handed to a poll is not sent on the stream in the same boot, and is
// sent as soon as the VM is seen to have started anew.
func TestDueAgainInANewBoot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		leases, err := s.Poll(t.Context(), "vm-1")
		require.NoError(t, err)
		require.Len(t, leases, 1)
		a := s.connect("vm-1")
		a.nothing()
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

// A session that is woken after it has looked, and before it rests, looks again.
func TestWokenBeforeItsRest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a := s.registered("vm-1")
		synctest.Wait() // it rests
		looks := 0
		s.store.on("after State", func() error {
			looks++
			if looks == 2 { // once for what it sends, and now it is to rest
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

// A wake-up that is lost delays a command by a minute at the most.
func TestLostWakeUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, func(s *system, _ *Options) { s.store.deaf = true })
		a := s.registered("vm-1")
		a.nothing()
		s.send("vm-1", "a")
		a.nothing()
		require.Equal(t, fleet.CommandID("a"), a.next(true).ID)
		s.elapsed(time.Minute)
		a.nothing()
		s.sendWith("vm-1", "b", fleet.CommandDefaults{TTL: time.Hour, AckTimeout: 2 * lookAgain})
		time.Sleep(time.Minute) // fake clock
		synctest.Wait()
		require.Len(t, a.got, 1, "also the second time")
	})
}

// A command that comes while the session is being opened is sent after the agent
// has been told that it is open, and at once then.
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

// A session that has nothing to deliver runs nothing that would, and so costs no
// stack, before and after it has been woken.
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

// A stream that does not take a command ends its session; the command is sent
// on the next, and that is its first delivery.
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
		require.Equal(t, int64(1), s.Stats().Delivered)
		s.elapsed(0)
	})
}

// An agent that does not read holds up the end of its session for a second.
func TestSendHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		stuck := newTransport()
		stuck.onDeliver = func() error {
			<-stuck.aborted
			return errors.New("aborted")
		}
		a := s.connectOn("vm-1", stuck)
		synctest.Wait()
		a.quit()
		s.elapsed(abortAfter)
		require.False(t, s.vm("vm-1").Connected)
	})
}

// While the store is unavailable a session waits, and then goes on; a command is
// leased once.
func TestDeliveryOutage(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"State", "Lease"} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSystem(t)
				s.store.down(method)
				a := s.connect("vm-1")
				a.nothing()
				first := s.store.called(method)
				require.LessOrEqual(t, first, 2, "whether to wait for the runner, and what to send")
				time.Sleep(5 * time.Minute) // fake clock
				a.nothing()
				require.InDelta(t, 5*time.Minute/lastRetry, s.store.called(method)-first, 5)
				s.store.up(method)
				require.Equal(t, 1, a.next(true).Attempts)
				require.False(t, a.stream.isInterrupted())
			})
		})
	}
}

// A completed delivery counts although the store could not take the end of its
// session before the next one began.
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

// A session that was superseded between its lease and its message sends
// nothing: the newer one does.
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
		older.nothing()
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
			synctest.Wait() // the write is noted
			return nil
		})
		require.Equal(t, 2, s.connect("vm-1").next().Attempts)
	})
}
