package rpc

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
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

// Calls are counted by procedure and by the code that the caller gets, and timed.
func TestRequestsAreCounted(t *testing.T) {
	t.Parallel()
	metrics := prometheus.NewRegistry()
	fake := &fakeAgents{}
	c := config(fake)
	c.Requests = NewRequests(metrics)
	c.Options = []connect.HandlerOption{connect.WithInterceptors(NewErrorInterceptor(slog.New(slog.DiscardHandler), c.Requests))}
	url, h := "http://"+serve(t, NewHandler(c)), client(t, 1)
	series := testutil.CollectAndCount(metrics)
	changes := func(procedure, code string, calls, timed int, call func()) {
		t.Helper()
		before := c.Requests.of[procedure]
		require.NotNil(t, before)
		all, one, seconds := total(before.ended[:]...), total(before.ended[codeOf(t, code)]), samples(t, before)
		call()
		require.InDelta(t, one+float64(calls), total(before.ended[codeOf(t, code)]), 0)
		require.InDelta(t, all+float64(calls), total(before.ended[:]...), 0)
		require.Equal(t, seconds+timed, samples(t, before))
	}
	const admin, agent = "/migcontroller.v1.AdminService/", "/migcontroller.v1.AgentService/"
	changes(admin+"GetCommand", "ok", 1, 1, func() { post(t, h, url+admin+"GetCommand", `{}`) })
	changes(admin+"GetVM", "unimplemented", 1, 1, func() { post(t, h, url+admin+"GetVM", `{}`) })
	changes(admin+"GetVM", "ok", 0, 0, func() { post(t, h, url+admin+"NoMethod", `{}`) })
	changes(agent+"PollCommands", "ok", 1, 1, func() { do(t, h, http.MethodGet, url+"/api/v1/vms/vm-1/commands", "") })
	changes(agent+"PollCommands", "unimplemented", 1, 0, func() { post(t, h, url+"/api/v1/vms/vm-1/commands", "") })
	changes(agent+"ReportEvent", "invalid_argument", 4, 1, func() {
		for _, path := range []string{"vm-1", "not..one"} {
			post(t, h, url+"/api/v1/vms/"+path+"/events", `{`)
		}
		post(t, h, url+"/api/v1/vms/vm-1/events", `{"type":""}`)
		do(t, h, http.MethodPost, url+"/api/v1/vms/vm-1/events", "{}", "Content-Type", "text/plain")
	})
	changes(agent+"ReportEvent", "resource_exhausted", 1, 0, func() {
		post(t, h, url+"/api/v1/vms/vm-1/events", strings.Repeat(" ", maxBody+1))
	})
	fake.err = fleet.ErrUnavailable
	changes(agent+"ReportHeartbeat", "unavailable", 1, 1, func() { post(t, h, url+"/api/v1/vms/vm-1/heartbeat", `{}`) })
	fake.err = errors.New("a defect")
	changes(agent+"ReportHeartbeat", "internal", 1, 1, func() { post(t, h, url+"/api/v1/vms/vm-1/heartbeat", `{}`) })
	require.Equal(t, series, testutil.CollectAndCount(metrics))
}

// A stream counts when it ends, and is not timed.
func TestStreamsAreCounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := startStreams(t, time.Second)
		a := s.connect("vm-1")
		require.Zero(t, counted(t, s.metrics, "requests_total", "procedure")[streamPath])
		require.NoError(t, a.rpc.CloseRequest())
		require.ErrorIs(t, a.end(), io.EOF)
		require.InDelta(t, 1, counted(t, s.metrics, "requests_total", "code")["ok"], 0)
		s.post([]byte{0, 0, 0, 1, 0, 'x'})
		require.InDelta(t, 2, counted(t, s.metrics, "requests_total", "procedure")[streamPath], 0)
		require.NotContains(t, counted(t, s.metrics, "request_seconds", "procedure"), streamPath)
	})
}

// codeOf returns a code by its name.
func codeOf(t *testing.T, name string) connect.Code {
	t.Helper()
	for code := range connect.Code(numCodes) {
		if codeName(code) == name {
			return code
		}
	}
	require.Fail(t, name)
	return 0
}

func total(counters ...prometheus.Counter) (n float64) {
	for _, c := range counters {
		n += testutil.ToFloat64(c)
	}
	return n
}

// samples returns how many calls were timed.
func samples(t *testing.T, p *procedureMetrics) int {
	t.Helper()
	var m dto.Metric
	histogram, ok := p.seconds.(prometheus.Histogram)
	require.True(t, ok)
	require.NoError(t, histogram.Write(&m))
	return int(m.GetHistogram().GetSampleCount())
}
