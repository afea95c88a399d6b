package crash

import (
	"encoding/json"
	"io"
	"net/http"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	health "google.golang.org/grpc/health/grpc_health_v1"
)

// readyAnswer is a response of /ready.
type readyAnswer struct {
	status int
	Reason string `json:"reason"`
	Checks []struct {
		Name string `json:"name"`
		OK   bool   `json:"ok"`
	} `json:"checks"`
}

// ready returns the response of /ready?verbose.
func (c *controller) ready(t *testing.T) readyAnswer {
	t.Helper()
	status, text := c.read(t, "/ready?verbose")
	answer := readyAnswer{status: status}
	require.NoError(t, json.Unmarshal([]byte(text), &answer), text)
	return answer
}

// read returns the status and the body at a path.
func (c *controller) read(t *testing.T, path string) (status int, body string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.url+path, http.NoBody)
	require.NoError(t, err)
	answer, err := c.web.Do(request)
	require.NoError(t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	return answer.StatusCode, string(text)
}

// watchHealth watches the health of a service, which must be SERVING.
func (c *controller) watchHealth(t *testing.T, service string) *connect.ServerStreamForClient[health.HealthCheckResponse] {
	t.Helper()
	client := connect.NewClient[health.HealthCheckRequest, health.HealthCheckResponse](
		&http.Client{Transport: c.streams}, c.url+"/grpc.health.v1.Health/Watch", connect.WithGRPC())
	watch, err := client.CallServerStream(t.Context(), connect.NewRequest(&health.HealthCheckRequest{Service: service}))
	require.NoError(t, err)
	require.True(t, watch.Receive(), watch.Err())
	require.Equal(t, health.HealthCheckResponse_SERVING, watch.Msg().GetStatus())
	return watch
}

// A signal with a drain delay makes the controller unready at once, which probes and health
// watches report. It is alive and serves what exists and what is new, until a second signal
// begins the stop.
func TestDrainServesUntilTheStop(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := launch(t, dir, command(t, dir, "--drain-delay=5m"))
	a := connectAgent(t, c, "vm-1")
	a.register(t)
	awaitIdle(t, c, 1)
	watches := []*connect.ServerStreamForClient[health.HealthCheckResponse]{
		c.watchHealth(t, ""), c.watchHealth(t, "miglet.commands.CommandService"),
	}
	require.Equal(t, http.StatusOK, c.ready(t).status)

	draining, stopping := c.log.await(`"draining; another signal begins the stop"`), c.log.await(`"stopping; another signal stops at once"`)
	signalled := time.Now()
	c.terminate(t)
	for _, watch := range watches {
		require.True(t, watch.Receive(), watch.Err())
		require.Equal(t, health.HealthCheckResponse_NOT_SERVING, watch.Msg().GetStatus())
	}
	await(t, draining, "the drain")
	answer := c.ready(t)
	require.Equal(t, http.StatusServiceUnavailable, answer.status)
	require.Contains(t, answer.Reason, "draining: stops in ")
	for _, check := range answer.Checks {
		require.Equal(t, check.Name != "not_draining", check.OK, check.Name)
	}
	require.Len(t, answer.Checks, 4)
	status, _ := c.read(t, "/health")
	require.Equal(t, http.StatusOK, status)

	late := connectAgent(t, c, "vm-2")
	late.register(t)
	for _, agent := range []*agent{a, late} {
		id := "cmd-" + agent.vm
		result := waitFor(t, c, agent.vm, id)
		require.Equal(t, id, agent.next(t).GetId())
		agent.ack(t, id)
		require.Equal(t, succeeded, await(t, result, "a command").record(t).GetState())
	}

	eventually(t, func() bool { return time.Since(signalled) > time.Second }, "a signal within half a second counts as the same")
	stopped := time.Now()
	c.terminate(t)
	await(t, stopping, "the stop")
	require.Zero(t, c.ended(t), "exit status")
	require.Less(t, time.Since(stopped), stopLimit)
	await(t, a.ended, "the end of a stream")
	require.Equal(t, connect.CodeUnavailable, connect.CodeOf(a.end))
	for _, watch := range watches {
		require.False(t, watch.Receive())
		require.Equal(t, connect.CodeUnavailable, connect.CodeOf(watch.Err()))
	}
}

// The ten seconds for a stop begin after the delay: a stop that needs most of them succeeds.
func TestStopBeginsAfterTheDrain(t *testing.T) {
	t.Parallel()
	const delay = 5 * time.Second
	dir := t.TempDir()
	c := launch(t, dir, command(t, dir, "--drain-delay="+delay.String()))
	c.mustSend(t, "vm-1", "cmd-1")
	block(t, c)
	signalled := time.Now()
	c.terminate(t)
	require.Zero(t, c.ended(t), "exit status")
	took := time.Since(signalled)
	t.Logf("the stop took %v", took)
	require.Greater(t, took, stopLimit, "the blocked request gets its time")
	require.Less(t, took, delay+stopLimit)
	c = start(t, dir)
	require.Equal(t, pending, c.command(t, "cmd-1").GetState())
}

// A signal that is sent twice at once does not skip the delay.
func TestDoubledSignalsDrain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := launch(t, dir, command(t, dir, "--drain-delay=2s"))
	signalled := time.Now()
	c.terminate(t)
	c.terminate(t)
	require.Zero(t, c.ended(t), "exit status")
	require.Greater(t, time.Since(signalled), 2*time.Second)
}
