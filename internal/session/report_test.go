package session

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/loglimit"
)

// Messages that violate a rule are refused and counted, without other effects, and no VM can
// report as another.
func TestRefusals(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		other := s.registered("vm-2")
		s.send("vm-2", "theirs")
		other.next()
		a := s.registered("vm-1")
		s.send("vm-1", "out", "pending")
		a.next()
		event := func(e fleet.Event) func(*Session) error { return func(s *Session) error { return s.Event(e) } }
		beat := func(h fleet.Heartbeat) func(*Session) error {
			return func(s *Session) error { return s.Heartbeat(h, noFile) }
		}
		ack := func(id fleet.CommandID) func(*Session) error {
			return func(s *Session) error { return s.Ack(fleet.Ack{CommandID: id, Success: true}) }
		}
		theirs := fleet.Origin{VM: "vm-2"}
		for i, say := range []func(*Session) error{
			event(fleet.Event{}),
			event(fleet.Event{Type: "../SECRET-TOKEN"}),
			event(fleet.Event{Origin: theirs, Type: "error"}),
			event(fleet.Event{Origin: fleet.Origin{Pool: "a/b"}, Type: "error"}),
			beat(fleet.Heartbeat{Status: "in between"}),
			beat(fleet.Heartbeat{Origin: theirs, Status: "idle"}),
			beat(fleet.Heartbeat{Origin: fleet.Origin{Org: "a b"}}),
			ack(""),
			ack("unknown-id"),
			ack("theirs"),
			ack("pending"),
		} {
			require.NoError(t, a.do(say), i)
			require.Equal(t, int64(i+1), s.Stats().Refused)
		}
		require.Empty(t, s.events("vm-1"))
		require.Empty(t, s.events("vm-2"))
		require.Equal(t, fleet.Delivered, s.command("theirs").State)
		require.Equal(t, fleet.Pending, s.command("pending").State)
		a.event("error")
		require.Equal(t, []string{"error"}, s.events("vm-1"), "the session continues")
		time.Sleep(beatWindow) // fake clock
		synctest.Wait()
		require.Empty(t, s.beats("vm-1"))
		require.Empty(t, s.beats("vm-2"))
	})
}

// A report gets missing fields from its session.
func TestReportsBelongToTheirSession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a := s.connect("vm-1")
		sent := clock().Add(-time.Hour)
		require.NoError(t, a.do(func(s *Session) error {
			return s.Event(fleet.Event{
				Origin: fleet.Origin{VM: "vm-1", Org: "else", Epoch: 99, Via: fleet.HTTP, SentAt: sent},
				Type:   "error", Body: json.RawMessage(`{"a":1}`),
			})
		}))
		es, _, err := s.store.Events(t.Context(), allEvents, onePage)
		require.NoError(t, err)
		require.Equal(t, fleet.Origin{
			VM: "vm-1", Pool: "pool", Org: "else", Via: fleet.Stream, Epoch: 1, SentAt: sent, ReceivedAt: es[0].ReceivedAt,
		}, es[0].Origin)
		require.JSONEq(t, `{"a":1}`, string(es[0].Body))
		require.WithinDuration(t, clock(), es[0].ReceivedAt, time.Millisecond)
	})
}

// An ack that arrives after its command has ended is stored in the record, counted, and
// changes nothing.
func TestLateAck(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a := s.registered("vm-1")
		s.send("vm-1", "a")
		a.next()
		s.cancel("a")
		a.ack("a", true)
		require.Equal(t, fleet.Cancelled, s.command("a").State)
		require.NotNil(t, s.command("a").Ack)
		require.Equal(t, int64(1), s.Stats().LateAcks)
		require.Zero(t, s.Stats().Refused)
	})
}

// An agent cannot fill the log: its mistakes are logged at a limited rate, with truncated
// texts, and the rest are counted.
func TestLogIsLimited(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a := s.connect("vm-1")
		size := len(s.log.String())
		for range 500 {
			require.NoError(t, a.do(func(s *Session) error {
				s.Refuse("event", errors.New("must not"))
				s.Reported(strings.Repeat("c", 60<<10), strings.Repeat("m", 60<<10))
				return nil
			}))
		}
		require.Equal(t, loglimit.Lines, s.log.count("message refused"))
		require.Equal(t, loglimit.Lines, s.log.count("agent reported an error"))
		require.Less(t, len(s.log.String())-size, 20<<10)
		require.Equal(t, int64(500), s.Stats().Refused)
		time.Sleep(loglimit.Period) // fake clock
		require.NoError(t, a.do(func(s *Session) error { s.Refuse("event", errors.New("must not")); return nil }))
		require.Equal(t, loglimit.Lines+1, s.log.count("message refused"))
		require.Contains(t, s.log.String(), `"suppressed":490`)
	})
}

// Reconnects, events and token requests are limited too.
func TestLogOfRepeatableActionsIsLimited(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		for range 3 * loglimit.Lines {
			a := s.connect("vm-1")
			a.event("job_started")
			a.disconnect()
			<-a.ended
			_, err := s.Token(t.Context(), "vm-1", "", nil)
			require.NoError(t, err)
		}
		s.connect("vm-2")
		for message, want := range map[string]int{
			"agent connected": loglimit.Lines + 1, "agent disconnected": loglimit.Lines,
			"event received": loglimit.Lines, "registration token issued": loglimit.Lines,
		} {
			require.Equal(t, want, s.log.count(message), message)
		}
	})
}
