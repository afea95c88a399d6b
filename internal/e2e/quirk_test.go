package e2e

import (
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
)

func beatMessage(h *commands.Heartbeat) *commands.MIGletMessage {
	return &commands.MIGletMessage{Message: &commands.MIGletMessage_Heartbeat{Heartbeat: h}}
}

func eventMessage(e *commands.EventNotification) *commands.MIGletMessage {
	return &commands.MIGletMessage{Message: &commands.MIGletMessage_Event{Event: e}}
}

func ackMessage(a *commands.CommandAck) *commands.MIGletMessage {
	return &commands.MIGletMessage{Message: &commands.MIGletMessage_CommandAck{CommandAck: a}}
}

// TestOddMessageCostsItselfAtMost defends the session against anything that an agent may
// send: an invalid message is rejected and counted, and the session continues.
func TestOddMessageCostsItselfAtMost(t *testing.T) {
	t.Parallel()
	neighbour := newVM()
	theirs := shared.send(t, neighbour, "drain").GetCommand().GetId()
	for name, test := range map[string]struct {
		message *commands.MIGletMessage
		refused int
	}{
		"heartbeat without anything": {beatMessage(&commands.Heartbeat{}), 0},
		"heartbeat without health":   {beatMessage(&commands.Heartbeat{RunnerState: &commands.RunnerState{State: "idle", Configured: true}}), 0},
		"heartbeat without runner":   {beatMessage(&commands.Heartbeat{Health: &commands.VMHealth{CpuUsagePercent: 1}}), 0},
		"heartbeat with NaN and Inf": {beatMessage(&commands.Heartbeat{Health: &commands.VMHealth{CpuUsagePercent: math.NaN(), DiskUsagePercent: math.Inf(-1)}}), 0},
		"heartbeat of a wrong clock": {beatMessage(&commands.Heartbeat{Timestamp: math.MinInt64}), 0},
		"heartbeat of a placeholder job": {beatMessage(&commands.Heartbeat{
			CurrentJob: &commands.JobInfo{JobId: "unknown", StartedAt: math.MaxInt64},
		}), 0},
		"heartbeat with an invalid state": {beatMessage(&commands.Heartbeat{MigletState: "a/b"}), 1},
		"heartbeat with an invalid pool":  {beatMessage(&commands.Heartbeat{PoolId: "../p"}), 1},
		"event without a type":            {eventMessage(&commands.EventNotification{}), 1},
		"event that is a path":            {eventMessage(&commands.EventNotification{Type: "../x"}), 1},
		"event of a wrong clock":          {eventMessage(&commands.EventNotification{Type: "odd", Timestamp: math.MaxInt64}), 0},
		"ack without an id":               {ackMessage(&commands.CommandAck{}), 1},
		"ack of no command":               {ackMessage(&commands.CommandAck{CommandId: "never-sent"}), 1},
		"ack of another VM's command":     {ackMessage(&commands.CommandAck{CommandId: theirs, Success: true}), 1},
		"nothing in the message":          {&commands.MIGletMessage{}, 1},
		"second ConnectRequest": {&commands.MIGletMessage{
			Message: &commands.MIGletMessage_Connect{Connect: &commands.ConnectRequest{VmId: neighbour}},
		}, 1},
		"error": {&commands.MIGletMessage{Message: &commands.MIGletMessage_Error{
			Error: &commands.ErrorNotification{Code: "E1", Message: "something\nhappened"},
		}}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			vm := newVM()
			a := shared.connectRegistered(t, vm)
			a.send(test.message)
			shared.requireLives(t, a)
			require.Equal(t, test.refused, shared.log.refusals(vm))
			require.Len(t, shared.registrations(t, vm), 1)
			require.Equal(t, pending, shared.command(t, theirs).GetState())
		})
	}
}

// TestWhatOvertakesTheConnectRequestIsSkipped defends the session of an agent that sends
// messages too early: they are ignored.
func TestWhatOvertakesTheConnectRequestIsSkipped(t *testing.T) {
	t.Parallel()
	vm := newVM()
	a := openOver(t, dial(t, shared.grpcAddr), vm)
	a.beat("job_running")
	a.happened("too_early")
	a.acked("nobody-sent-this")
	a.send(&commands.MIGletMessage{})
	a.hello()
	a.register()
	v := shared.awaitVM(t, vm, "registered", isRegistered)
	require.Empty(t, v.GetStatus())
	require.Nil(t, v.GetLastHeartbeatAt())
	require.Empty(t, shared.events(t, vm, "too_early"))
	shared.requireLives(t, a)
}

// TestHeartbeatShowsWhatItHas defends heartbeats that lack parts or measurements: the rest
// is used, and what is missing is unset.
func TestHeartbeatShowsWhatItHas(t *testing.T) {
	t.Parallel()
	vm := newVM()
	a := shared.connectRegistered(t, vm)
	inState := func(state string) *migcontrollerv1.VM {
		return shared.awaitVM(t, vm, state, func(v *migcontrollerv1.VM) bool { return v.GetStatus() == state })
	}
	a.beat("ready")
	v := inState("ready")
	require.Nil(t, v.GetHealth())
	require.Nil(t, v.GetRunner())
	require.NotNil(t, v.GetLastHeartbeatAt())
	require.True(t, isRegistered(v), "a heartbeat without a runner is not a restart")

	a.beat("idle", withRunner(true), func(h *commands.Heartbeat) {
		h.Health = &commands.VMHealth{
			CpuUsagePercent: math.NaN(), MemoryUsagePercent: 12.5, DiskUsagePercent: math.Inf(1), MemoryTotalBytes: 1 << 40,
		}
	})
	v = inState("idle")
	require.True(t, proto.Equal(&migcontrollerv1.Health{
		MemoryUsagePercent: new(12.5), MemoryTotalBytes: 1 << 40,
	}, v.GetHealth()), "%v", v.GetHealth())
	require.True(t, v.GetRunner().GetConfigured())

	a.beat("job_running", func(h *commands.Heartbeat) {
		h.Timestamp = -5
		h.CurrentJob = &commands.JobInfo{JobId: "unknown", Repository: "o/r", StartedAt: -1}
	})
	v = inState("job_running")
	require.Equal(t, "o/r", v.GetCurrentJob().GetRepository())
	require.Nil(t, v.GetCurrentJob().GetStartedAt())
	require.EqualValues(t, 1<<40, v.GetHealth().GetMemoryTotalBytes())
	require.EqualValues(t, 1, v.GetBoot())
}

// TestUnknownEventTypeIsKept defends events of unknown types: they are stored like all
// others.
func TestUnknownEventTypeIsKept(t *testing.T) {
	t.Parallel()
	vm := newVM()
	a := shared.connectRegistered(t, vm)
	a.send(eventMessage(&commands.EventNotification{
		Type: "disk.almost-full_2", Data: map[string]string{"free": "3%"}, Timestamp: 1_700_000_000,
	}))
	e := shared.awaitEvent(t, vm, "disk.almost-full_2")
	require.Equal(t, "pool-a", e.GetPoolId(), "an event without a pool has that of its session")
	require.EqualValues(t, 1_700_000_000, e.GetOccurredAt().GetSeconds())
	require.Equal(t, "3%", e.GetBody().GetFields()["data"].GetStructValue().GetFields()["free"].GetStringValue())
	require.Contains(t, string(shared.awaitFile(t, vm, "grpc-event-disk.almost-full_2-")), `"free"`)
}

// TestEventTypeIsNoPath defends the disk: an event type never leads out of its VM's
// directory, and a rejected event leaves no trace.
func TestEventTypeIsNoPath(t *testing.T) {
	t.Parallel()
	c := start(t)
	vm := newVM()
	a := c.connectRegistered(t, vm)
	bad := []string{"../x", "/etc/x", "..", ".x", "a/b", "a b", "a\x00b", "ü"}
	for _, typ := range bad {
		a.send(eventMessage(&commands.EventNotification{Type: typ}))
	}
	a.happened("good")
	c.awaitEvent(t, vm, "good")
	c.awaitFile(t, vm, "grpc-event-good-")
	require.Equal(t, len(bad), c.log.refusals(vm))
	require.Len(t, c.events(t, vm, ""), 2)
	require.NoError(t, c.end())
	entries, err := os.ReadDir(c.options.DataDir)
	require.NoError(t, err)
	for _, e := range entries {
		require.Contains(t, []string{vm, "_state"}, e.Name())
	}
	own, err := filepath.Glob(filepath.Join(c.options.DataDir, vm, "*"))
	require.NoError(t, err)
	require.Len(t, own, 2, "%q", own)
}

// TestNoVMWritesAsAnother defends a VM against messages that other VMs send in its name.
func TestNoVMWritesAsAnother(t *testing.T) {
	t.Parallel()
	c := start(t)
	victim, liar := newVM(), newVM()
	theirs := c.connectRegistered(t, victim)
	out := c.send(t, victim, "drain").GetCommand().GetId()
	theirs.expect(out)
	theirs.beat("idle", withRunner(true))
	before := c.awaitVM(t, victim, "idle", func(v *migcontrollerv1.VM) bool { return v.GetStatus() == "idle" })

	a := c.connectRegistered(t, liar)
	unknown := newVM()
	a.send(beatMessage(&commands.Heartbeat{VmId: victim, MigletState: "error"}))
	a.send(beatMessage(&commands.Heartbeat{VmId: unknown, MigletState: "error"}))
	a.send(eventMessage(&commands.EventNotification{VmId: victim, Type: "vm_shutting_down"}))
	a.send(eventMessage(&commands.EventNotification{VmId: unknown, Type: "vm_started"}))
	a.send(ackMessage(&commands.CommandAck{CommandId: out, Success: true}))
	c.requireLives(t, a)
	require.Equal(t, 5, c.log.refusals(liar), "each message is counted")

	require.True(t, proto.Equal(before, c.vm(t, victim)), "the victim has not changed")
	require.Len(t, c.events(t, victim, ""), 1)
	require.Equal(t, delivered, c.command(t, out).GetState())
	require.Empty(t, c.events(t, liar, "vm_shutting_down"))
	_, err := c.admin.GetVM(t.Context(), &migcontrollerv1.GetVMRequest{VmId: unknown})
	requireCode(t, err, codeNotFound)
	require.Empty(t, c.files(t, unknown, ""))
}
