package e2e

import (
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
	"github.com/mig-controller/mig-controller/internal/testkit"
)

// TestStopEndsWhatIsLive defends a stop by SIGTERM under load: agents and watches get
// UNAVAILABLE, callers that wait for a command get its record, and nothing that was
// accepted is lost.
func TestStopEndsWhatIsLive(t *testing.T) {
	t.Parallel()
	c := start(t)
	var fleet []*agent
	for range 20 {
		fleet = append(fleet, c.connectRegistered(t, newVM()))
	}
	watching := c.watch(t, "", "")
	watching.next()
	vm := fleet[0].vm
	waiting := make(chan *commandRecord, 1)
	go func() {
		res, err := c.grpcAdmin.SendCommand(t.Context(), request(vm, "drain", withWait(time.Hour)))
		if err != nil {
			t.Error(err)
		}
		waiting <- res.GetCommand()
	}()
	fleet[0].expectCommand("drain")
	for _, a := range fleet {
		a.beat("job_running", withRunner(true))
		a.happened("job_started")
	}
	for _, a := range fleet {
		c.awaitEvent(t, a.vm, "job_started") // so the heartbeat before it has been read
	}
	began := time.Now()
	require.NoError(t, c.end())
	require.Less(t, time.Since(began), 5*time.Second, "nothing delays it")
	for _, a := range fleet {
		require.Equal(t, codes.Unavailable, a.expectEnd(), "%v", a.err)
	}
	for watching.answer.Receive() {
	}
	requireCode(t, watching.answer.Err(), connect.CodeUnavailable)
	require.Equal(t, delivered, receive(t, "the answer to SendCommand", waiting).GetState())

	c = c.restart(t)
	for _, a := range fleet {
		v := c.vm(t, a.vm)
		require.False(t, v.GetConnected())
		require.Equal(t, "job_running", v.GetStatus(), "a graceful stop loses no heartbeat")
		require.Len(t, c.files(t, a.vm, "grpc-event-job_started-"), 1)
		require.Len(t, c.files(t, a.vm, "grpc-heartbeat-"), 1)
	}
}

// TestNobodyHoldsUpOthersOrAStop defends the controller against agents that do not read,
// send nothing, or were rejected or superseded: others are served anyway, and a stop takes
// at most 10 s.
func TestNobodyHoldsUpOthersOrAStop(t *testing.T) {
	t.Parallel()
	c := start(t)
	live := c.connectRegistered(t, newVM())
	silent := openOver(t, live.conn, newVM()) // it never sends its ConnectRequest
	superseded := connectOver(t, live.conn, newVM())
	superseded.expectCommand("register_runner")
	connectOver(t, live.conn, superseded.vm).register()
	refused := openOver(t, live.conn, newVM(), grpc.ForceCodec(testkit.RawCodec{}))
	refused.send([]byte("\xff"))

	// On the live agent's connection, another agent that reads nothing.
	c.connectDeaf(t, live.conn, newVM())
	dead := newVM()
	c.connectDead(t, dead)
	c.requireLives(t, live)

	// The newest sessions of their VMs are served immediately, too.
	again := c.connect(t, dead)
	again.expectCommand("update_config")

	began := time.Now()
	require.NoError(t, c.end(), "after %s", time.Since(began))
	require.Equal(t, codes.Unavailable, live.expectEnd(), "%v", live.err)
	require.Equal(t, codes.Unavailable, again.expectEnd(), "%v", again.err)
	silent.expectEnd()
	superseded.expectEnd()
	refused.expectEnd()
	t.Logf("the stop took %s", time.Since(began))
}

// TestDeafAgentLosesItsStreamInTime defends the 10 s in which a superseded stream ends,
// even when a command is blocked on its way to an agent that does not read.
func TestDeafAgentLosesItsStreamInTime(t *testing.T) {
	t.Parallel()
	vm := newVM()
	shared.connectDeaf(t, dial(t, shared.grpcAddr), vm)
	replaced := time.Now()
	shared.connect(t, vm).expectCommand("update_config")
	await(t, "the old session to be gone",
		func() []string { return shared.log.lines("agent disconnected", "vm_id="+vm+" ", "session_epoch=1 ") },
		func(lines []string) bool { return len(lines) == 1 })
	require.Less(t, time.Since(replaced), longestHold)
	require.True(t, shared.vm(t, vm).GetConnected())
}

// connectDeaf opens a session of an agent that reads nothing, not even a command that is
// blocked on the stream.
func (c *controller) connectDeaf(t *testing.T, conn *grpc.ClientConn, vm string) {
	t.Helper()
	large := c.send(t, vm, "update_config", largeCommand).GetCommand().GetId()
	rpc, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, streamMethod)
	require.NoError(t, err)
	require.NoError(t, rpc.SendMsg(&commands.MIGletMessage{
		Message: &commands.MIGletMessage_Connect{Connect: &commands.ConnectRequest{VmId: vm}},
	}))
	c.awaitCommand(t, large, delivered)
}

// TestRestartBringsTheFleetBack defends what survives a stop: the VMs, their queues and
// their state; and that VMs are not connected until they reconnect, on a session with a
// higher epoch.
func TestRestartBringsTheFleetBack(t *testing.T) {
	t.Parallel()
	c := start(t)
	vm, offline := newVM(), newVM()
	a := c.connectRegistered(t, vm)
	var queue []string
	for _, typ := range []string{"drain", "set_log_level", "update_config", "shutdown"} {
		queue = append(queue, c.send(t, vm, typ).GetCommand().GetId())
	}
	parked := c.send(t, offline, "drain").GetCommand().GetId()
	a.expect(queue[0])
	a.acked(queue[0])
	a.expect(queue[1])
	before := c.vm(t, vm)

	c = c.restart(t)
	require.Equal(t, codes.Unavailable, a.expectEnd(), "%v", a.err)
	v := c.vm(t, vm)
	require.False(t, v.GetConnected())
	require.NotNil(t, v.GetDisconnectedAt())
	require.Equal(t, before.GetRegistration().String(), v.GetRegistration().String())
	require.Equal(t, before.GetFirstSeenAt().AsTime(), v.GetFirstSeenAt().AsTime())
	require.Len(t, c.events(t, vm, "runner_registered"), 1)
	var states []migcontrollerv1.CommandState
	for _, r := range c.commandsOf(t, vm, "") {
		states = append(states, r.GetState())
	}
	require.Equal(t, []migcontrollerv1.CommandState{succeeded, succeeded, delivered, pending, pending}, states)

	b := c.connect(t, vm)
	b.beat("idle", withRunner(true))
	for _, id := range queue[1:] {
		b.expect(id)
		b.acked(id)
	}
	c.awaitCommand(t, queue[3], succeeded)
	require.EqualValues(t, 2, c.command(t, queue[1]).GetAttempts())
	v = c.vm(t, vm)
	require.True(t, v.GetConnected())
	require.Greater(t, v.GetSessionEpoch(), before.GetSessionEpoch())
	require.Len(t, c.registrations(t, vm), 1, "a restart of the controller is not one of the VM")
	c.connect(t, offline).expect(parked)
}
