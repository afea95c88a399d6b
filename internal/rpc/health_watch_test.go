package rpc

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"github.com/stretchr/testify/require"
	health "google.golang.org/grpc/health/grpc_health_v1"
)

// switchable is a readiness check that a test controls.
type switchable struct {
	down   atomic.Bool
	checks atomic.Int64
}

func (s *switchable) check(context.Context) error {
	s.checks.Add(1)
	if s.down.Load() {
		return errors.New("the store cannot be written")
	}
	return nil
}

// serveHealth serves w and returns a client of its Watch.
func serveHealth(t *testing.T, w *healthWatch) *connect.Client[health.HealthCheckRequest, health.HealthCheckResponse] {
	t.Helper()
	prefix, h := newHealthHandler(w)
	mux := http.NewServeMux()
	mux.Handle(prefix, h)
	return connect.NewClient[health.HealthCheckRequest, health.HealthCheckResponse](
		client(t, 2), "http://"+serve(t, mux)+prefix+"Watch", connect.WithGRPC())
}

// A watch receives the status at once, each change, and UNAVAILABLE when the controller stops.
// An unknown service is not an error, as gRPC clients expect.
func TestHealthWatch(t *testing.T) {
	t.Parallel()
	var ready switchable
	stopping := make(chan struct{})
	c := serveHealth(t, &healthWatch{ready: ready.check, interval: time.Millisecond, stopping: stopping})
	watch := func(service string) *connect.ServerStreamForClient[health.HealthCheckResponse] {
		stream, err := c.CallServerStream(t.Context(), connect.NewRequest(&health.HealthCheckRequest{Service: service}))
		require.NoError(t, err)
		return stream
	}
	next := func(stream *connect.ServerStreamForClient[health.HealthCheckResponse], want health.HealthCheckResponse_ServingStatus) {
		require.True(t, stream.Receive(), stream.Err())
		require.Equal(t, want, stream.Msg().GetStatus())
	}
	whole, admin, unknown := watch(""), watch(serviceNames[0]), watch("example.v1.Unknown")
	for _, stream := range []*connect.ServerStreamForClient[health.HealthCheckResponse]{whole, admin} {
		next(stream, health.HealthCheckResponse_SERVING)
	}
	next(unknown, health.HealthCheckResponse_SERVICE_UNKNOWN)
	ready.down.Store(true)
	next(whole, health.HealthCheckResponse_NOT_SERVING)
	next(admin, health.HealthCheckResponse_NOT_SERVING)
	next(watch(""), health.HealthCheckResponse_NOT_SERVING)
	ready.down.Store(false)
	next(whole, health.HealthCheckResponse_SERVING)
	next(admin, health.HealthCheckResponse_SERVING)

	close(stopping)
	for _, stream := range []*connect.ServerStreamForClient[health.HealthCheckResponse]{whole, admin, unknown, watch("")} {
		require.False(t, stream.Receive())
		require.Equal(t, connect.CodeUnavailable, connect.CodeOf(stream.Err()))
		require.NoError(t, stream.Close())
	}
}

// Readiness is checked once per interval for all watches, and not at all without any.
func TestHealthWatchSharesChecks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var ready switchable
		w := &healthWatch{ready: ready.check, interval: healthInterval}
		var stops []func()
		for range 10 {
			stop, err := w.Watch(t.Context(), &grpchealth.CheckRequest{}, func() {})
			require.NoError(t, err)
			stops = append(stops, stop)
		}
		ready.checks.Store(0)
		time.Sleep(10*healthInterval + time.Second) // fake clock
		require.Equal(t, int64(10), ready.checks.Load())
		for _, stop := range stops {
			stop()
		}
		time.Sleep(10 * healthInterval) // fake clock
		require.Equal(t, int64(10), ready.checks.Load())

		stop, err := w.Watch(t.Context(), &grpchealth.CheckRequest{}, func() {})
		require.NoError(t, err)
		time.Sleep(healthInterval + time.Second) // fake clock
		require.Equal(t, int64(12), ready.checks.Load(), "it starts again")
		stop()
	})
}

// A check that ends because its caller disconnects does not change the status.
func TestHealthWatchIgnoresAbandonedChecks(t *testing.T) {
	t.Parallel()
	w := &healthWatch{ready: func(ctx context.Context) error { return ctx.Err() }, interval: time.Hour}
	stop, err := w.Watch(t.Context(), &grpchealth.CheckRequest{}, func() {})
	require.NoError(t, err)
	defer stop()
	gone, leave := context.WithCancel(t.Context())
	leave()
	w.update(gone)
	got, err := w.Check(t.Context(), &grpchealth.CheckRequest{})
	require.NoError(t, err)
	require.Equal(t, grpchealth.StatusServing, got.Status)
}
