package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	health "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/mig-controller/mig-controller/internal/readiness"
)

// checksOf returns the checks of a controller with only this one.
func checksOf(run func(context.Context) error) *readiness.Checks {
	return readiness.New(readiness.Check{Name: "store", Run: run})
}

// probe returns the response of the readiness probe.
func probe(t *testing.T, checks *readiness.Checks, query string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	operators{admitter: anyone{}}.ready(checks, nil)(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/ready"+query, http.NoBody))
	return w
}

// A verbose response shows each check with its reason and its times, in a form that people can
// read. A blocked check delays it by the timeout at most.
func TestVerboseReady(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		checks := readiness.New(
			readiness.Check{Name: "store", Run: func(context.Context) error { <-release; return nil }},
			readiness.Check{Name: "journal", Run: func(context.Context) error { return errors.New("the files cannot be written") }},
			readiness.Check{Name: "listeners", Run: func(context.Context) error {
				time.Sleep(4 * time.Millisecond) // fake clock
				return nil
			}},
		)
		got := probe(t, checks, "?verbose")
		require.Equal(t, http.StatusServiceUnavailable, got.Code)
		require.Equal(t, "application/json", got.Header().Get("Content-Type"))
		require.Equal(t, "no-store", got.Header().Get("Cache-Control"))
		//nolint:testifylint // people read it, so its form counts
		require.Equal(t, `{
  "status": "not ready",
  "reason": "store: no result after 3s; the files cannot be written",
  "checks": [
    {
      "name": "store",
      "ok": false,
      "reason": "store: no result after 3s",
      "duration": "3.000s",
      "checked_at": "2000-01-01T00:00:00.000Z"
    },
    {
      "name": "journal",
      "ok": false,
      "reason": "the files cannot be written",
      "duration": "0.000s",
      "checked_at": "2000-01-01T00:00:00.000Z"
    },
    {
      "name": "listeners",
      "ok": true,
      "duration": "0.004s",
      "checked_at": "2000-01-01T00:00:00.000Z"
    },
    {
      "name": "not_draining",
      "ok": true,
      "duration": "0.000s",
      "checked_at": "2000-01-01T00:00:03.000Z"
    }
  ]
}
`, got.Body.String())
		close(release)
	})
}

// Any query is answered: verbose with any value except false lists the checks.
func TestReadyQueries(t *testing.T) {
	t.Parallel()
	checks := checksOf(func(context.Context) error { return nil })
	for query, verbose := range map[string]bool{
		"": false, "?": false, "?verbose": true, "?verbose=": true, "?verbose=1": true, "?verbose=true": true,
		"?verbose=True": true, "?verbose=much": true, "?verbose=0": false, "?verbose=false": false,
		"?VERBOSE": false, "?quiet": false, "?verbose=%zz": false, "?%": false, "?verbose;quiet": false,
		"?verbose&a=%zz": true, "?a=" + strings.Repeat("b", 10_000): false,
	} {
		got := probe(t, checks, query)
		require.Equal(t, http.StatusOK, got.Code, query)
		var body probeBody
		require.NoError(t, json.Unmarshal(got.Body.Bytes(), &body), query)
		require.Equal(t, "ready", body.Status, query)
		require.Equal(t, verbose, len(body.Checks) == 2, query)
	}
}

// While the controller is drained it is alive but not ready.
func TestDrainingProbes(t *testing.T) {
	t.Parallel()
	c := config(&fakeAgents{})
	base := "http://" + serve(t, NewHandler(c))
	c.Ready.Drain(time.Now().Add(time.Hour))
	got := do(t, client(t, 1), "GET", base+"/ready", "")
	require.Equal(t, 503, got.status)
	require.JSONEq(t, `{"status":"not ready","reason":"draining: stops in 1h0m0s"}`, got.body)
	require.Equal(t, 200, do(t, client(t, 1), "GET", base+"/health", "").status)
}

// Watches receive NOT_SERVING as soon as the controller is drained, even while a check is
// blocked, and stay open until it stops.
func TestHealthWatchWhileDraining(t *testing.T) {
	t.Parallel()
	release, blocked := make(chan struct{}), make(chan struct{}, 1)
	end := sync.OnceFunc(func() { close(release) })
	defer end()
	var block atomic.Bool
	ready := func(context.Context) error {
		if block.Load() {
			select {
			case blocked <- struct{}{}:
			default:
			}
			<-release
		}
		return nil
	}
	draining, stopping := make(chan struct{}), make(chan struct{})
	c := serveHealth(t, &healthWatch{ready: ready, interval: time.Millisecond, draining: draining, stopping: stopping})
	var watches []*connect.ServerStreamForClient[health.HealthCheckResponse]
	for _, service := range []string{"", serviceNames[0]} {
		stream, err := c.CallServerStream(t.Context(), connect.NewRequest(&health.HealthCheckRequest{Service: service}))
		require.NoError(t, err)
		watches = append(watches, stream)
	}
	receive := func(want health.HealthCheckResponse_ServingStatus) {
		for _, stream := range watches {
			require.True(t, stream.Receive(), stream.Err())
			require.Equal(t, want, stream.Msg().GetStatus())
		}
	}
	receive(health.HealthCheckResponse_SERVING)
	block.Store(true)
	<-blocked
	close(draining)
	receive(health.HealthCheckResponse_NOT_SERVING)
	close(stopping)
	end()
	for _, stream := range watches {
		require.False(t, stream.Receive())
		require.Equal(t, connect.CodeUnavailable, connect.CodeOf(stream.Err()))
		require.NoError(t, stream.Close())
	}
}
