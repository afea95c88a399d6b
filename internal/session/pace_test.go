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

// charged is registered, with the ack charged already.
func (s *system) charged(vm fleet.VMID) *agent {
	s.Helper()
	a := s.registered(vm)
	a.session.Charge(0)
	return a
}

// readLargeEvent makes the agent's reader apply one large event like package rpc, and returns
// false when the stream must not be read any more.
func (a *agent) readLargeEvent() bool {
	going := true
	_ = a.do(func(s *Session) error {
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

// exhaust makes the agent report as much as it may at once.
func (a *agent) exhaust() {
	a.Helper()
	for range (reportBurst*defaultReportRate)/(large+messageCost) + 1 {
		require.True(a, a.readLargeEvent())
	}
	a.elapsed(0)
}

// An agent that reports continuously is read up to the burst, and at the rate from then on.
// Nothing is lost, others do not wait, and it is logged once.
func TestFloodIsThrottled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, withoutJournal)
		a, other := s.charged("vm-1"), s.charged("vm-2")
		a.exhaust()
		const more = 60
		for range more {
			require.True(t, a.readLargeEvent())
		}
		want := float64(more*(large+messageCost)) / defaultReportRate
		require.InDelta(t, want, time.Since(s.began).Seconds(), 2)
		s.began = time.Now()
		require.True(t, other.readLargeEvent())
		s.elapsed(0)
		require.Len(t, s.events("vm-1"), (reportBurst*defaultReportRate)/(large+messageCost)+1+more)
		require.Equal(t, 1, s.log.count("agent throttled"))
		require.Contains(t, s.log.String(), `"msg":"agent throttled","vm_id":"vm-1","via":"stream","rule":"65536 bytes a second, 4194304 at once"`)
		require.EqualValues(t, 1, s.Stats().Throttled)
		time.Sleep(2 * reportBurst * time.Second) // fake clock
		s.began = time.Now()
		a.exhaust()
		require.EqualValues(t, 2, s.Stats().Throttled, "throttled again")
	})
}

// Small messages are charged too, and so are refused ones.
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

// Usual heartbeats are free in any number; large ones are charged.
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

// An agent that reconnects may not report more.
func TestReconnectingDoesNotRaiseTheLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, withoutJournal)
		a := s.charged("vm-1")
		a.exhaust()
		a.quit()
		a = s.connect("vm-1")
		a.readLargeEvent()
		require.NotZero(t, time.Since(s.began))
	})
}

// The end of a session ends the wait at once, and nothing more is read; when the controller
// stops, messages that have arrived are still read.
func TestWaitEnds(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		end   func(s *system, a *agent)
		going bool
	}{
		"superseded": {func(s *system, _ *agent) { s.connect("vm-1") }, false},
		"gone":       {func(_ *system, a *agent) { a.disconnect() }, false},
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
				a.disconnect()
				<-a.ended
			})
		})
	}
}

// The ack of a delivery is free, however many commands operators send; others are charged.
func TestExpectedAcksAreFree(t *testing.T) {
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

// An ack that waits behind other messages is not late: messages on a throttled stream arrived
// earlier than they are read, and do not show that the agent is still alive.
func TestThrottledAcksAreNotLate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, withoutJournal)
		a := s.charged("vm-1")
		a.exhaust()
		require.True(t, a.readLargeEvent()) // throttling begins
		times := defaults
		times.AckTimeout = time.Second
		s.sendWith("vm-1", "behind", times)
		a.next()
		for range 256 / 60 { // a window's worth of events are ahead of the ack
			require.True(t, a.readLargeEvent())
		}
		require.Greater(t, time.Since(s.began), 2*time.Second)
		require.Equal(t, fleet.Delivered, s.command("behind").State)
		a.ack("behind", true)
		require.Equal(t, fleet.Succeeded, s.command("behind").State)

		s.sendWith("vm-1", "never", times)
		a.next()
		for range 3 * mostUnread / large { // more than can have been ahead of it
			require.True(t, a.readLargeEvent())
		}
		require.Equal(t, fleet.TimedOut, s.command("never").State)
	})
}

// When the stream is read without pauses again, a message shows that its agent is alive.
func TestAckTimeoutAfterAFlood(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, withoutJournal)
		a := s.charged("vm-1")
		a.exhaust()
		require.True(t, a.readLargeEvent())
		time.Sleep(10 * time.Second) // fake clock
		times := defaults
		times.AckTimeout = time.Second
		s.sendWith("vm-1", "unacked", times)
		a.next()
		a.sendSignOfLife()
		time.Sleep(2 * time.Second) // fake clock
		synctest.Wait()
		require.Equal(t, fleet.TimedOut, s.command("unacked").State)
	})
}

// Reports over HTTP are charged like those on the stream, and refused with a time to retry,
// because a caller can make any number of requests.
func TestReportsOverHTTPAreThrottled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, withoutJournal)
		body := json.RawMessage(`{"x":"` + strings.Repeat("x", large) + `"}`)
		event := fleet.Event{Origin: fleet.Origin{VM: "vm-1"}, Type: "flood", Body: body}
		beat := fleet.Heartbeat{Origin: fleet.Origin{VM: "vm-1"}, Body: body}
		var err error
		accepted := 0
		for ; err == nil; accepted++ {
			if _, _, err = s.ReportEvent(t.Context(), event); err == nil {
				err = s.ReportHeartbeat(t.Context(), beat)
			}
		}
		require.InDelta(t, (reportBurst*defaultReportRate)/2/large, accepted, 2)
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

// Without a limit no agent waits.
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

// A session whose stream is not read does not count as silent, however long that takes.
func TestThrottledSessionIsNotSilent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, withoutJournal)
		a := s.charged("vm-1")
		a.beat("idle")
		time.Sleep(time.Second) // fake clock
		a.beat("idle")
		a.session.Charge((reportBurst + 300) * defaultReportRate)
		require.True(t, a.readLargeEvent()) // five minutes later
		require.Greater(t, time.Since(s.began), 4*time.Minute)
		require.NoError(t, a.session.Cause())
		time.Sleep(time.Minute) // fake clock
		synctest.Wait()
		require.ErrorIs(t, a.session.Cause(), fleet.ErrSilent)
	})
}
