package session

import (
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// large is the size of the events of a flood.
const large = 60 << 10

// charged is registered, with the ack accounted for.
func (s *system) charged(vm fleet.VMID) *agent {
	s.Helper()
	a := s.registered(vm)
	a.session.Charge(0)
	return a
}

// takes has the agent's reader take one large event as rpc does, and returns false when
// the stream is not to be read any more.
func (a *agent) takes() bool {
	going := true
	_ = a.say(func(s *Session) error {
		if going = s.Wait(); !going {
			return nil
		}
		body := json.RawMessage(`{"x":"` + strings.Repeat("x", large) + `"}`)
		err := s.Event(fleet.Event{Type: "flood", Body: body})
		s.Charge(large)
		return err
	})
	return going
}

// exhaust has the agent report as much as it may at once.
func (a *agent) exhaust() {
	a.Helper()
	for range (reportBurst*defaultReportRate)/(large+messageCost) + 1 {
		require.True(a, a.takes())
	}
	a.elapsed(0)
}

// An agent that reports without end is taken at once up to the burst and at the rate from
// then on. Nothing is lost, nobody else waits, and the log says so once.
func TestFloodIsThrottled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, withoutJournal)
		a, neighbour := s.charged("vm-1"), s.charged("vm-2")
		a.exhaust()
		const more = 60
		for range more {
			require.True(t, a.takes())
		}
		want := float64(more*(large+messageCost)) / defaultReportRate
		require.InDelta(t, want, time.Since(s.began).Seconds(), 2)
		s.began = time.Now()
		require.True(t, neighbour.takes())
		s.elapsed(0)
		require.Len(t, s.events("vm-1"), (reportBurst*defaultReportRate)/(large+messageCost)+1+more)
		require.Equal(t, 1, s.log.count("agent throttled"))
		require.Contains(t, s.log.String(), `"msg":"agent throttled","vm_id":"vm-1","via":"stream","rule":"65536 bytes a second, 4194304 at once"`)
		require.EqualValues(t, 1, s.Stats().Throttled)
		time.Sleep(2 * reportBurst * time.Second) // fake clock
		s.began = time.Now()
		a.exhaust()
		require.EqualValues(t, 2, s.Stats().Throttled, "another bout")
	})
}

// Small messages count as well, and a message that is refused.
func TestManySmallMessagesAreThrottled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, withoutJournal)
		a := s.charged("vm-1")
		for range (reportBurst * defaultReportRate) / messageCost {
			a.session.Charge(0)
		}
		require.False(t, a.session.Overdrawn())
		a.session.Charge(0)
		require.True(t, a.session.Overdrawn())
	})
}

// Heartbeats as agents send them cost nothing, however many; large ones do.
func TestUsualHeartbeatsAreFree(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, withoutJournal)
		a := s.charged("vm-1")
		for range 100_000 {
			a.session.ChargeHeartbeat(usualHeartbeat)
		}
		require.False(t, a.session.Overdrawn())
		a.session.ChargeHeartbeat(reportBurst * defaultReportRate)
		require.True(t, a.session.Overdrawn())
	})
}

// An agent that connects again has no more than before.
func TestReconnectingRefillsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, withoutJournal)
		a := s.charged("vm-1")
		a.exhaust()
		a.quit()
		a = s.connect("vm-1")
		a.takes()
		require.NotZero(t, time.Since(s.began))
	})
}

// What ends or stops a session ends the wait at once, and its agent gets nothing more
// taken; but what has arrived is when the controller stops.
func TestWaitEnds(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		end   func(s *system, a *agent)
		going bool
	}{
		"superseded": {func(s *system, _ *agent) { s.connect("vm-1") }, false},
		"gone":       {func(_ *system, a *agent) { a.leave() }, false},
		"stopping":   {func(s *system, _ *agent) { go s.EndSessions(s.Context()) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSystem(t, withoutJournal)
				a := s.charged("vm-1")
				a.exhaust()
				waited := make(chan bool, 1)
				go func() { waited <- a.session.Wait() }()
				synctest.Wait()
				require.Empty(t, waited)
				c.end(s, a)
				require.Equal(t, c.going, <-waited)
				s.elapsed(0)
				a.leave()
				<-a.ended
			})
		})
	}
}

// An ack that was asked for costs nothing, however many commands operators send; others
// do.
func TestAcksThatWereAskedForAreFree(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, withoutJournal)
		a := s.charged("vm-1")
		for i := range 2 {
			id := string(rune('a' + i))
			s.send("vm-1", id)
			a.next(true)
			a.session.Charge(10 * (reportBurst * defaultReportRate))
			require.False(t, a.session.Overdrawn())
		}
		a.ack("a", true)
		a.session.Charge(2 * (reportBurst * defaultReportRate))
		require.True(t, a.session.Overdrawn())
	})
}

// An ack that waits behind other messages is not late: what is read of a throttled stream
// arrived a while ago, and is no sign of life since.
func TestThrottledAcksAreNotLate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, withoutJournal)
		a := s.charged("vm-1")
		a.exhaust()
		require.True(t, a.takes()) // the bout begins
		times := defaults
		times.AckTimeout = time.Second
		s.sendWith("vm-1", "behind", times)
		a.next()
		for range 256 / 60 { // a window's worth of events are ahead of the ack
			require.True(t, a.takes())
		}
		require.Greater(t, time.Since(s.began), 2*time.Second)
		require.Equal(t, fleet.Delivered, s.command("behind").State)
		a.ack("behind", true)
		require.Equal(t, fleet.Succeeded, s.command("behind").State)

		s.sendWith("vm-1", "never", times)
		a.next()
		for range 3 * mostUnread / large { // more than can have been ahead of it
			require.True(t, a.takes())
		}
		require.Equal(t, fleet.TimedOut, s.command("never").State)
	})
}

// Once the stream is read without a pause again, a message shows that its agent is there.
func TestAckTimeoutAfterAFlood(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, withoutJournal)
		a := s.charged("vm-1")
		a.exhaust()
		require.True(t, a.takes())
		time.Sleep(10 * time.Second) // fake clock
		times := defaults
		times.AckTimeout = time.Second
		s.sendWith("vm-1", "unacked", times)
		a.next()
		a.stir()
		time.Sleep(2 * time.Second) // fake clock
		synctest.Wait()
		require.Equal(t, fleet.TimedOut, s.command("unacked").State)
	})
}

// Reports over HTTP count as those on the stream do, and are refused with when to try
// again: a caller can open as many requests as it likes.
func TestReportsOverHTTPAreThrottled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, withoutJournal)
		body := json.RawMessage(`{"x":"` + strings.Repeat("x", large) + `"}`)
		event := fleet.Event{Origin: fleet.Origin{VM: "vm-1"}, Type: "flood", Body: body}
		beat := fleet.Heartbeat{Origin: fleet.Origin{VM: "vm-1"}, Body: body}
		var err error
		taken := 0
		for ; err == nil; taken++ {
			if _, _, err = s.ReportEvent(t.Context(), event); err == nil {
				err = s.ReportHeartbeat(t.Context(), beat)
			}
		}
		require.InDelta(t, (reportBurst*defaultReportRate)/2/large, taken, 2)
		for range 10 {
			_, _, err = s.ReportEvent(t.Context(), event)
			require.ErrorIs(t, err, fleet.ErrThrottled)
		}
		var throttled *fleet.ThrottledError
		require.ErrorAs(t, s.ReportHeartbeat(t.Context(), beat), &throttled)
		require.LessOrEqual(t, throttled.After, 2*time.Second)
		require.Equal(t, 1, s.log.count("agent throttled"))
		s.report("vm-2", "vm_started")
		time.Sleep(throttled.After) // fake clock
		require.NoError(t, s.ReportHeartbeat(t.Context(), beat))
	})
}

// Without a limit nobody waits.
func TestWithoutReportRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, withoutJournal, func(_ *system, o *Options) { o.ReportRate = -1 })
		a := s.charged("vm-1")
		for range 1000 {
			a.session.Charge(1 << 30)
		}
		require.False(t, a.session.Overdrawn())
		s.report("vm-1", "vm_started")
		require.Zero(t, s.log.count("agent throttled"))
	})
}

// A session whose stream is not read is not silent, however long that takes.
func TestThrottledSessionIsNotSilent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, withoutJournal)
		a := s.charged("vm-1")
		a.beat("idle")
		time.Sleep(time.Second) // fake clock
		a.beat("idle")
		a.session.Charge((reportBurst + 300) * defaultReportRate)
		require.True(t, a.takes()) // five minutes later
		require.Greater(t, time.Since(s.began), 4*time.Minute)
		require.NoError(t, a.session.Cause())
		time.Sleep(time.Minute) // fake clock
		synctest.Wait()
		require.ErrorIs(t, a.session.Cause(), fleet.ErrSilent)
	})
}
