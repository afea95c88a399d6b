package crash

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
)

// stopLimit is the maximum duration of a stop.
const stopLimit = 10 * time.Second

// Promises 5 and 8. SIGTERM ends 200 streams, a watch and a call that waits, each in its
// own way, and the controller exits with 0 in time. Heartbeats that were read just before
// are stored, and all VMs reconnect to the next controller.
func TestStopLosesNothing(t *testing.T) {
	t.Parallel()
	const streams, waits = 200, 20
	dir := t.TempDir()
	c := start(t, dir)
	watch, first := openWatch(t, c)
	agents := connectAgents(t, c, streams)
	for _, a := range agents {
		a.register(t)
	}
	awaitIdle(t, c, streams)
	idle := waitFor(t, c, "nobody", "cmd-unheard")
	answers := make([]<-chan result, waits)
	for i, a := range agents[:waits] {
		answers[i] = waitFor(t, c, a.vm, fmt.Sprintf("cmd-%d", i))
	}
	for i, a := range agents[:waits] {
		require.Equal(t, fmt.Sprintf("cmd-%d", i), a.next(t).GetId())
		a.beat(t, "draining") // it is read before the ack, and so before the call returns
		a.ack(t, fmt.Sprintf("cmd-%d", i))
	}
	for _, answer := range answers {
		require.Equal(t, succeeded, await(t, answer, "a call that waits").record(t).GetState())
	}
	asked := time.Now()
	c.terminate(t)
	require.Zero(t, c.ended(t), "exit status")
	took := time.Since(asked)
	t.Logf("the stop took %v", took)
	require.Less(t, took, stopLimit)

	require.Equal(t, pending, await(t, idle, "a call that waits").record(t).GetState(), "a call that waits returns the current record")
	for watch.Receive() { // changes in progress
	}
	require.Equal(t, connect.CodeUnavailable, connect.CodeOf(watch.Err()))
	for _, a := range agents {
		await(t, a.ended, "the end of a stream")
		require.Equal(t, connect.CodeUnavailable, connect.CodeOf(a.end), "VM %s: %v", a.vm, a.end)
	}

	c = start(t, dir)
	for i, a := range agents {
		vm := c.vm(t, a.vm)
		require.False(t, vm.GetConnected())
		require.NotNil(t, vm.GetDisconnectedAt())
		require.NotNil(t, vm.GetLastHeartbeatAt())
		if i < waits {
			require.Equal(t, "draining", vm.GetStatus(), "the last heartbeat of %s", a.vm)
		}
	}
	require.Greater(t, len(replay(t, c.operator, first)), streams)
	for _, a := range connectAgents(t, c, streams) {
		require.True(t, c.vm(t, a.vm).GetConnected())
	}
	require.Len(t, c.commands(t, &migcontrollerv1.ListCommandsRequest{Type: registerRunner}), streams,
		"no runner is registered twice")
}

// Promise 5. A heartbeat over HTTP that was answered just before SIGTERM is stored.
func TestStopKeepsAnsweredHeartbeats(t *testing.T) {
	t.Parallel()
	const vms = 20
	dir := t.TempDir()
	c := start(t, dir)
	var posting sync.WaitGroup
	errs := make(chan error, vms)
	for i := range vms {
		posting.Go(func() {
			vm := fmt.Sprintf("vm-%d", i)
			status, answer, err := c.post(t.Context(), "/api/v1/vms/"+vm+"/heartbeat",
				`{"type":"job_heartbeat","vm_id":"`+vm+`","miglet_state":"idle"}`)
			if err != nil || status != http.StatusOK {
				errs <- fmt.Errorf("status %d, %s: %w", status, answer, err)
			}
		})
	}
	posting.Wait()
	c.terminate(t)
	require.Empty(t, errs)
	require.Zero(t, c.ended(t), "exit status")
	c = start(t, dir)
	for i := range vms {
		require.Equal(t, "idle", c.vm(t, fmt.Sprintf("vm-%d", i)).GetStatus())
	}
}

// Promise 8. A request that does not end delays the stop, but not beyond the limit, and
// nothing is lost by that.
func TestStopWithBlockedRequest(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := start(t, dir)
	c.mustSend(t, "vm-1", "cmd-1")
	block(t, c)
	asked := time.Now()
	c.terminate(t)
	require.Zero(t, c.ended(t), "exit status")
	t.Logf("the stop took %v", time.Since(asked))
	require.Less(t, time.Since(asked), stopLimit)
	c = start(t, dir)
	require.Equal(t, pending, c.command(t, "cmd-1").GetState())
}

// A second SIGTERM ends a slow stop with status 1. Everything that was acknowledged is
// kept.
func TestSecondSignalEndsStopAtOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := start(t, dir)
	c.mustSend(t, "vm-1", "cmd-1")
	block(t, c)
	stopping := c.log.await(`"stopping; another signal stops at once"`)
	c.terminate(t)
	await(t, stopping, "the beginning of the stop")
	require.False(t, c.hasExited(), "the stop ended too early")
	// A signal immediately after the first counts as a part of it.
	again := time.Now()
	eventually(t, func() bool {
		_ = c.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		return c.hasExited()
	}, "a second signal does not end it")
	require.Equal(t, 1, c.ended(t), "exit status")
	require.Less(t, time.Since(again), stopLimit-2*time.Second, "it ends before the stop would")
	c = start(t, dir)
	require.Equal(t, pending, c.command(t, "cmd-1").GetState())
}

// block makes a request whose body never arrives. It returns when the controller waits for
// the body.
func block(t *testing.T, c *controller) {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", c.http)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	_, err = fmt.Fprintf(conn, "POST /api/v1/vms/vm-1/events HTTP/1.1\r\nHost: %s\r\n"+
		"Content-Type: application/json\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n", c.http)
	require.NoError(t, err)
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(patience)))
	answer := make([]byte, 100)
	n, err := conn.Read(answer)
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(answer[:n]), "HTTP/1.1 100 "), "the handler reads the body: %s", answer[:n])
}

// openWatch watches the fleet from now on. It returns when the watch has begun.
func openWatch(t *testing.T, c *controller) (watch *connect.ServerStreamForClient[change], cursor string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	watch, err := c.admin.WatchFleet(ctx, &migcontrollerv1.WatchFleetRequest{})
	require.NoError(t, err)
	require.True(t, watch.Receive(), watch.Err())
	return watch, watch.Msg().GetCursor()
}

// connectAgents connects the agents of this many VMs.
func connectAgents(t *testing.T, c *controller, n int) []*agent {
	t.Helper()
	agents := make([]*agent, n)
	for i := range agents {
		agents[i] = connectAgent(t, c, fmt.Sprintf("vm-%03d", i))
	}
	return agents
}

// result is the answer to a long call.
type result struct {
	got *migcontrollerv1.CommandRecord
	err error
}

func (r result) record(t *testing.T) *migcontrollerv1.CommandRecord {
	t.Helper()
	require.NoError(t, r.err)
	return r.got
}

// waitFor sends a command with a call that waits for its end. It returns when the command
// is accepted.
func waitFor(t *testing.T, c *controller, vm, id string) <-chan result {
	t.Helper()
	answer := make(chan result, 1)
	go func() {
		record, err := c.send(t.Context(), id, &migcontrollerv1.SendCommandRequest{
			VmId: vm, Wait: durationpb.New(time.Minute),
		})
		answer <- result{record, err}
	}()
	eventually(t, func() bool {
		return slices.Contains(ids(c.commands(t, &migcontrollerv1.ListCommandsRequest{VmId: vm})), id)
	}, "command %s is not accepted", id)
	return answer
}
