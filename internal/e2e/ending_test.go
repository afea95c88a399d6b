package e2e

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
	"github.com/mig-controller/mig-controller/internal/testkit"
)

// endings returns the log lines which say that the VM's sessions ended for this cause.
func (c *controller) endings(vm, cause string) []string {
	if strings.Contains(cause, " ") {
		cause = fmt.Sprintf("%q", cause)
	}
	return c.log.lines("agent disconnected", "vm_id="+vm+" ", "cause="+cause)
}

func (c *controller) awaitEnding(t *testing.T, vm, cause string) string {
	t.Helper()
	return await(t, "the end of "+vm+": "+cause,
		func() []string { return c.log.lines("agent disconnected", "vm_id="+vm+" ") },
		func(lines []string) bool { return len(lines) > 0 && len(c.endings(vm, cause)) == len(lines) })[0]
}

// TestLogSaysWhyAnAgentDisconnected defends that the log has the cause of each disconnect.
func TestLogSaysWhyAnAgentDisconnected(t *testing.T) {
	t.Parallel()
	for cause, leave := range map[string]func(t *testing.T, c *controller, vm string){
		"closed by the agent": func(t *testing.T, c *controller, vm string) {
			t.Helper()
			require.NoError(t, c.connect(t, vm).rpc.CloseSend())
		},
		"reset by the agent": func(t *testing.T, c *controller, vm string) {
			t.Helper()
			c.connect(t, vm).end()
		},
		"connection closed by the peer": func(t *testing.T, c *controller, vm string) {
			t.Helper()
			require.NoError(t, c.connectThrough(t, vm).CloseWrite())
		},
		"connection reset": func(t *testing.T, c *controller, vm string) {
			t.Helper()
			link := c.connectThrough(t, vm)
			require.NoError(t, link.SetLinger(0))
			require.NoError(t, link.Close())
		},
		"message too large": func(t *testing.T, c *controller, vm string) {
			t.Helper()
			a := c.connect(t, vm)
			_ = a.rpc.SendMsg(eventMessage(&commands.EventNotification{Type: strings.Repeat("x", 1<<20)})) // it may end during the call
		},
	} {
		t.Run(cause, func(t *testing.T) {
			t.Parallel()
			vm := newVM()
			leave(t, shared, vm)
			line := shared.awaitEnding(t, vm, cause)
			require.Contains(t, line, "level=INFO")
			if cause == "message too large" {
				require.Regexp(t, `message size 10\d+ is larger than configured max 1048576`, line)
			}
		})
	}
	t.Run("superseded", func(t *testing.T) {
		t.Parallel()
		vm := newVM()
		shared.connect(t, vm)
		shared.connect(t, vm)
		await(t, "the old session to end", func() []string { return shared.endings(vm, "superseded") }, isOne)
	})
	t.Run("controller stopping", func(t *testing.T) {
		t.Parallel()
		c := start(t)
		vm := newVM()
		c.connect(t, vm)
		require.NoError(t, c.end())
		require.Len(t, c.endings(vm, "controller stopping"), 1)
	})
}

func isOne(lines []string) bool { return len(lines) == 1 }

// connectThrough opens a session on a raw TCP connection and returns that.
func (c *controller) connectThrough(t *testing.T, vm string) *net.TCPConn {
	t.Helper()
	r := dialRaw(t, c.grpcAddr)
	r.open()
	r.hello(vm)
	require.True(t, r.message().GetConnectAck().GetAccepted())
	return r.conn
}

// TestDeadLinkIsNamed defends that the session of a dead link ends within 15 s, and that
// the log says that no ping was answered.
func TestDeadLinkIsNamed(t *testing.T) {
	t.Parallel()
	hole := testkit.NewBlackhole(t, shared.grpcAddr)
	conn, err := grpc.NewClient(hole.Addr, grpc.WithTransportCredentials(insecure.NewCredentials())) // it does not send pings
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	vm := newVM()
	connectOver(t, conn, vm)
	swallowed := time.Now()
	hole.Swallow()
	shared.awaitEnding(t, vm, "ping timeout")
	require.Greater(t, time.Since(swallowed), 13*time.Second)
	require.False(t, shared.vm(t, vm).GetConnected())
}

// TestAgentThatTakesNothingIsCutOff defends the queue and the ConnectAck against an agent
// that is alive but reads nothing.
func TestAgentThatTakesNothingIsCutOff(t *testing.T) {
	t.Parallel()
	vm := newVM()
	r := dialRaw(t, shared.grpcAddr)
	require.NoError(t, r.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}))
	r.open()
	began := time.Now()
	r.hello(vm)
	for {
		f, err := r.ReadFrame()
		require.NoError(t, err)
		if ping, ok := f.(*http2.PingFrame); ok && !ping.IsAck() {
			require.NoError(t, r.WritePing(true, ping.Data))
		}
		if _, ok := f.(*http2.RSTStreamFrame); ok {
			break
		}
	}
	require.InDelta(t, 10, time.Since(began).Seconds(), 3)
	require.Contains(t, shared.awaitEnding(t, vm, "write timeout"), "the agent did not accept a message within 10s")
}

// TestOversizedAckEndsItsCommand defends the queue of an agent that sends too much: its ack
// counts, and the next command is delivered on the same session.
func TestOversizedAckEndsItsCommand(t *testing.T) {
	t.Parallel()
	vm := newVM()
	a := shared.connectRegistered(t, vm)
	for success, state := range map[bool]string{true: "SUCCEEDED", false: "FAILED"} {
		id := shared.send(t, vm, "drain").GetCommand().GetId()
		a.expect(id)
		require.NoError(t, a.ack(&commands.CommandAck{
			CommandId: id, Success: success, Message: strings.Repeat("x", 512<<10), Result: map[string]string{"k": strings.Repeat("y", 256<<10)},
		}))
		r := await(t, "the end of "+id, func() *commandRecord { return shared.command(t, id) },
			func(r *commandRecord) bool { return strings.HasSuffix(r.GetState().String(), state) })
		require.Len(t, r.GetAck().GetMessage(), 4<<10)
		require.Len(t, r.GetAck().GetResult()["k"], 4<<10)
		require.Len(t, shared.log.lines("level=WARN", "ack truncated", "vm_id="+vm+" ", "command_id="+id+" ", "size_bytes=7", "limit_bytes=65536"), 1)
	}
	shared.requireLives(t, a)
}
