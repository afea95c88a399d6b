package rpc

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/session"
)

// counted returns the counters of a family, by the value of one of its labels.
func counted(t *testing.T, from prometheus.Gatherer, name, label string) map[string]float64 {
	t.Helper()
	families, err := from.Gather()
	require.NoError(t, err)
	found := map[string]float64{}
	for _, f := range families {
		if f.GetName() != "migcontroller_"+name {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == label {
					found[l.GetValue()] += m.GetCounter().GetValue()
				}
			}
		}
	}
	return found
}

// A stream that ends before it has a session is counted by the reason.
func TestRejectedStreamsAreCounted(t *testing.T) {
	t.Parallel()
	for want, behave := range map[session.Rejection]func(s *streamSystem){
		session.RejectTimeout: func(s *streamSystem) { require.Error(s, s.open().end()) },
		session.RejectStopping: func(s *streamSystem) {
			a := s.open()
			a.send(beatMessage("idle"))
			synctest.Wait()
			s.registry.EndSessions(s.Context())
			require.Error(s, a.end())
		},
		session.RejectClosed: func(s *streamSystem) {
			require.Equal(s, "0", s.post(nil).Get("Grpc-Status"))
			a := s.open()
			a.send(beatMessage("idle"))
			synctest.Wait()
			a.reset()
		},
		session.RejectProtocol: func(s *streamSystem) {
			s.post([]byte{0, 0, 0, 1, 0, 'x'})
			s.post(frame(0, make([]byte, maxStreamMessage+1)))
		},
		session.RejectInvalid: func(s *streamSystem) {
			s.post(frame(0, []byte{0x0a, 3, 0x0a, 1, 0xff}))
			s.post(frame(0, make([]byte, maxAgentMessage+1)))
			s.post(marshalled(s.T, hello("not/one")))
		},
	} {
		t.Run(string(want), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := startStreams(t, time.Second)
				behave(s)
				synctest.Wait()
				for reason, n := range counted(t, s.metrics, "sessions_rejected_total", "reason") {
					require.Equal(t, reason == string(want), n > 0, "%s: %v", reason, n)
				}
			})
		})
	}
}
