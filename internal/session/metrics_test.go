package session

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// metric returns the series of a metric that has these values of labels, in the order of their
// names.
func (s *system) metric(name string, values ...string) *dto.Metric {
	s.Helper()
	families, err := s.metrics.Gather()
	require.NoError(s, err)
	for _, f := range families {
		if f.GetName() != "migcontroller_"+name {
			continue
		}
		for _, m := range f.GetMetric() {
			var found []string
			for _, l := range m.GetLabel() {
				found = append(found, l.GetValue())
			}
			if len(found) == len(values) && (len(found) == 0 || found[0] == values[0] && found[len(found)-1] == values[len(values)-1]) {
				return m
			}
		}
	}
	return nil
}

// requireMetric requires the value of a counter or a gauge.
func (s *system) requireMetric(want int, name string, values ...string) {
	s.Helper()
	m := s.metric(name, values...)
	require.NotNil(s, m, "%s %v", name, values)
	require.InDelta(s, want, m.GetCounter().GetValue()+m.GetGauge().GetValue(), 0, "%s %v", name, values)
}

// Sessions are counted by pool while they are the newest of their VM, and superseded ones by
// their age.
func TestSessionMetrics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		s.connect("vm-1")
		s.connect("vm-2")
		s.requireMetric(2, "sessions", "pool")
		s.requireMetric(2, "sessions_opened_total", "pool")
		s.requireMetric(0, "sessions_reopened_total")
		s.requireMetric(0, "sessions_superseded_total", "under_30s")
		s.requireMetric(0, "sessions_superseded_total", "older")

		time.Sleep(flapping) // fake clock
		second := s.connect("vm-1")
		s.requireMetric(1, "sessions_superseded_total", "older")
		s.requireMetric(1, "streams_held")
		time.Sleep(flapping - 1) // fake clock
		last := s.connect("vm-1")
		s.requireMetric(1, "sessions_superseded_total", "under_30s")
		s.requireMetric(2, "sessions_reopened_total")
		s.requireMetric(4, "sessions_opened_total", "pool")
		s.requireMetric(2, "sessions", "pool")
		s.requireMetric(1, "streams_held")
		s.requireMetric(1, "sessions_ended_total", "superseded")
		<-second.ended
		s.requireMetric(0, "streams_held")
		s.requireMetric(2, "sessions_ended_total", "superseded")
		s.requireMetric(2, "sessions", "pool")

		last.quit()
		s.requireMetric(1, "sessions_ended_total", "other")
		s.requireMetric(1, "sessions", "pool")
		s.EndSessions(t.Context())
		s.requireMetric(1, "sessions_ended_total", "stopping")
		s.requireMetric(0, "sessions", "pool")
	})
}

// Each cause of an end has a text of its own in the log and a label of its own.
func TestEndCauses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		texts := map[string]bool{}
		for cause := range EndCause(len(endCauses)) {
			label := endCauses[cause].label
			require.NotEmpty(t, label)
			require.False(t, texts[cause.String()], cause)
			texts[cause.String()] = true
			session, err := s.Open(t.Context(), fleet.Hello{VM: "vm-1", Pool: "pool"}, newTransport())
			require.NoError(t, err)
			session.Close(&EndError{Cause: cause})
			s.requireMetric(1, "sessions_ended_total", label)
		}
		s.requireMetric(len(endCauses), "sessions_opened_total", "pool")
		s.requireMetric(0, "sessions", "pool")
		for own, want := range map[error]EndCause{
			fleet.ErrSuperseded: endSuperseded, fleet.ErrSilent: endSilent, fleet.ErrStopping: endStopping, fleet.ErrDamaged: endDamaged,
		} {
			require.Equal(t, want, endOf(own, &EndError{Cause: EndReset}).Cause)
		}
	})
}

// While agents of two pools compete for VM ids, the number of sessions by pool is exactly that
// of the newest sessions, and each session that was opened ends once.
func TestSessionsByPoolAreExact(t *testing.T) {
	t.Parallel()
	s := newSystem(t, withoutJournal)
	var open []*Session
	var mu sync.Mutex
	var agents sync.WaitGroup
	for range 8 {
		agents.Go(func() {
			for range 50 {
				hello := fleet.Hello{VM: []fleet.VMID{"a", "b", "c"}[rand.N(3)], Pool: []string{"p", "q"}[rand.N(2)]}
				session, err := s.Open(s.Context(), hello, newTransport())
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				open = append(open, session)
				n := rand.N(len(open))
				old := open[n]
				if rand.N(2) == 0 {
					open = append(open[:n], open[n+1:]...)
				} else {
					old = nil
				}
				mu.Unlock()
				if old != nil {
					old.Close(nil)
				}
			}
		})
	}
	agents.Wait()
	live := map[string]int{}
	for _, session := range s.sessions.all() {
		live[session.pool]++
	}
	s.requireMetric(live["p"], "sessions", "p")
	s.requireMetric(live["q"], "sessions", "q")
	require.Equal(t, live["p"]+live["q"], s.Stats().Sessions)
	for _, session := range open {
		session.Close(nil)
	}
	s.requireMetric(0, "sessions", "p")
	s.requireMetric(0, "sessions", "q")
	require.EqualValues(t, 400, total(s.Registry.metrics.ended[:]...))
}

// A stream that Open rejects is counted by the reason.
func TestRejections(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		reject := func(want Rejection, vm fleet.VMID) {
			t.Helper()
			_, err := s.Open(t.Context(), fleet.Hello{VM: vm}, newTransport())
			require.Error(t, err)
			s.requireMetric(1, "sessions_rejected_total", string(want))
		}
		reject(RejectInvalid, "not/one")
		s.store.on("OpenSession", func() error { return context.Canceled })
		reject(RejectClosed, "vm-1")
		s.store.down("OpenSession")
		reject(rejectUnavailable, "vm-1")
		s.store.on("OpenSession", func() error { return errors.New("a defect") })
		reject(rejectOther, "vm-1")
		s.store.up("OpenSession")

		// A session whose agent does not accept the ack was opened.
		broken := newTransport()
		broken.onAccept = func() error { return &EndError{Cause: EndNotSent} }
		_, err := s.Open(t.Context(), fleet.Hello{VM: "vm-1"}, broken)
		require.Error(t, err)
		s.requireMetric(1, "sessions_ended_total", "not_sent")
		s.requireMetric(1, "sessions_opened_total", "")

		s.EndSessions(t.Context())
		reject(RejectStopping, "vm-1")
		s.requireMetric(1, "sessions_rejected_total", "other")
	})
}

// Messages are counted by kind, and those that are refused also as such.
func TestMessageMetrics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a := s.registered("vm-1")
		a.ack("unknown", true)
		a.event("job_started")
		a.event("not one")
		a.beat("idle")
		a.beat("not/one")
		require.NoError(t, a.do(func(s *Session) error {
			s.Reported("code", "text")
			s.Refuse(KindConnect, errors.New("must be sent once"))
			s.Refuse(KindOther, errors.New("must be set"))
			return nil
		}))
		for kind, counts := range map[MessageKind][2]int{
			KindAck: {2, 1}, KindEvent: {2, 1}, KindHeartbeat: {2, 1}, KindError: {1, 0}, KindConnect: {1, 1}, KindOther: {1, 1},
		} {
			s.requireMetric(counts[0], "messages_total", string(kind), "stream")
			s.requireMetric(counts[1], "messages_refused_total", string(kind))
		}
		require.EqualValues(t, 5, s.Stats().Refused)

		s.report("vm-2", "vm_started")
		require.NoError(t, s.ReportHeartbeat(t.Context(), fleet.Heartbeat{Origin: fleet.Origin{VM: "vm-2"}, Body: json.RawMessage(`{}`)}))
		_, err := s.Poll(t.Context(), "vm-2")
		require.NoError(t, err)
		_, err = s.Token(t.Context(), "vm-2", "", nil)
		require.NoError(t, err)
		for _, kind := range []MessageKind{KindEvent, KindHeartbeat, kindPoll, kindTokenRequest} {
			s.requireMetric(1, "messages_total", string(kind), "http")
		}
	})
}

// The gap between heartbeats is measured within a session.
func TestHeartbeatGaps(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a := s.registered("vm-1")
		a.beat("idle")
		require.Zero(t, s.metric("heartbeat_gap_seconds").GetHistogram().GetSampleCount())
		time.Sleep(15 * time.Second) // fake clock
		a.beat("idle")
		time.Sleep(time.Minute) // fake clock
		b := s.registered("vm-1")
		b.beat("idle")
		gaps := s.metric("heartbeat_gap_seconds").GetHistogram()
		require.EqualValues(t, 1, gaps.GetSampleCount())
		require.InDelta(t, 15, gaps.GetSampleSum(), .001)
	})
}

// Heartbeats wait until they are stored, and those that never are count as lost.
func TestWaitingHeartbeats(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a := s.registered("vm-1")
		s.requireMetric(0, "heartbeats_waiting")
		s.store.down("RecordHeartbeats")
		a.beat("first")
		time.Sleep(2 * beatWindow) // fake clock
		a.beat("second")
		s.requireMetric(2, "heartbeats_waiting")
		s.store.up("RecordHeartbeats")
		time.Sleep(10 * time.Second) // fake clock
		synctest.Wait()
		s.requireMetric(0, "heartbeats_waiting")
		s.requireMetric(0, "heartbeats_lost_total")

		s.store.on("RecordHeartbeats", func() error { return fleet.ErrNotFound })
		a.flood(3)
		time.Sleep(beatWindow) // fake clock
		synctest.Wait()
		s.requireMetric(3, "heartbeats_lost_total")
		s.store.down("RecordHeartbeats")
		a.flood(4)
		s.Close()
		s.requireMetric(7, "heartbeats_lost_total")
	})
}

// Pools beyond those that have names are counted together.
func TestSessionsOfManyPools(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		for _, pool := range []string{"p", "q", "r", "s", ""} {
			_, err := s.Open(t.Context(), fleet.Hello{VM: fleet.VMID("vm" + pool), Pool: pool}, newTransport())
			require.NoError(t, err)
		}
		for pool, want := range map[string]int{"p": 1, "q": 1, "other": 2, "": 1} {
			s.requireMetric(want, "sessions", pool)
			s.requireMetric(want, "sessions_opened_total", pool)
		}
		for _, session := range s.sessions.all() {
			session.Close(nil)
		}
		s.requireMetric(0, "sessions", "other")
	})
}
