package e2e

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
)

// onlyCommand requires that the next command on the stream is one that is sent now: no
// other was in flight.
func (c *controller) onlyCommand(t *testing.T, a *agent) {
	t.Helper()
	id := c.send(t, a.vm, "set_log_level").GetCommand().GetId()
	a.expect(id)
	a.acked(id)
	c.awaitCommand(t, id, succeeded)
}

// startedOverHTTP reports vm_started as older agents do.
func (c *controller) startedOverHTTP(t *testing.T, vm string, at time.Time) {
	t.Helper()
	status, answer := c.call(t, http.MethodPost, c.httpAddr, "/api/v1/vms/"+vm+"/events",
		fmt.Sprintf(`{"type":"vm_started","vm_id":%q,"timestamp":%q}`, vm, at.Format(time.RFC3339)))
	require.Equal(t, http.StatusOK, status, string(answer))
	require.Contains(t, string(answer), `"acknowledged":true`)
}

// TestNetworkDropRegistersNobodyTwice defends a registered VM whose network dropped: it
// reconnects with a configured runner and is not registered again.
func TestNetworkDropRegistersNobodyTwice(t *testing.T) {
	t.Parallel()
	vm := newVM()
	a := shared.connectRegistered(t, vm)
	a.beat("idle", withRunner(true))
	for drop := range 3 {
		shared.awaitVM(t, vm, "idle", func(v *migcontrollerv1.VM) bool { return v.GetStatus() == "idle" })
		a.cut()
		shared.awaitVM(t, vm, "disconnected", isDisconnected)
		a = shared.connect(t, vm)
		a.beat("job_running", withRunner(true))
		shared.awaitVM(t, vm, "job_running", func(v *migcontrollerv1.VM) bool { return v.GetStatus() == "job_running" })
		shared.onlyCommand(t, a)
		v := shared.vm(t, vm)
		require.EqualValues(t, 2+drop, v.GetSessionEpoch())
		require.EqualValues(t, 1, v.GetBoot())
		require.True(t, isRegistered(v))
		a.beat("idle", withRunner(true))
	}
	require.Len(t, shared.registrations(t, vm), 1)
}

// TestDropWhileRegisteringRegistersOnce defends a VM whose network dropped between
// register_runner and the proof: the command is delivered again only if it was not acked.
func TestDropWhileRegisteringRegistersOnce(t *testing.T) {
	t.Parallel()
	vm := newVM()
	a := shared.connect(t, vm)
	id := a.expectCommand("register_runner").GetId()
	a.cut()
	shared.awaitVM(t, vm, "disconnected", isDisconnected)
	a = shared.connect(t, vm)
	a.expect(id)
	a.acked(id)
	require.EqualValues(t, 2, shared.awaitCommand(t, id, succeeded).GetAttempts())
	a.cut()
	shared.awaitVM(t, vm, "disconnected", isDisconnected)

	a = shared.connect(t, vm)
	a.beat("registering_runner", withRunner(false))
	shared.awaitVM(t, vm, "registering", func(v *migcontrollerv1.VM) bool { return v.GetStatus() == "registering_runner" })
	a.beat("idle", withRunner(true))
	shared.awaitVM(t, vm, "registered", isRegistered)
	shared.onlyCommand(t, a)
	require.Len(t, shared.registrations(t, vm), 1)
	require.EqualValues(t, 1, shared.vm(t, vm).GetBoot())
}

// TestRestartedAgentIsRegisteredAgain defends a VM that has lost its runner, as an
// unconfigured runner on a new session shows.
func TestRestartedAgentIsRegisteredAgain(t *testing.T) {
	t.Parallel()
	vm := newVM()
	a := shared.connectRegistered(t, vm)
	first := shared.registrations(t, vm)[0].GetCommand().GetId()
	a.beat("idle", withRunner(true))
	shared.awaitVM(t, vm, "idle", func(v *migcontrollerv1.VM) bool { return v.GetStatus() == "idle" })
	a.cut()
	a = shared.connect(t, vm)
	a.beat("ready", withRunner(false))
	second := a.register()
	require.NotEqual(t, first, second.GetId())
	require.NotEmpty(t, second.GetStringParams()["registration_token"])
	v := shared.awaitVM(t, vm, "registered", isRegistered)
	require.EqualValues(t, 2, v.GetBoot())
	require.Equal(t, second.GetId(), v.GetRegistration().GetCommandId())
	a.beat("idle", withRunner(true))
	shared.onlyCommand(t, a)
	require.Len(t, shared.registrations(t, vm), 2)
}

// TestUnconfiguredRunnerOnItsFirstSessionIsNoRestart defends a VM that was just sent
// register_runner: until it has registered, its runner is not configured.
func TestUnconfiguredRunnerOnItsFirstSessionIsNoRestart(t *testing.T) {
	t.Parallel()
	vm := newVM()
	a := shared.connect(t, vm)
	a.beat("ready", withRunner(false))
	cmd := a.expectCommand("register_runner")
	a.beat("ready", withRunner(false))
	a.acked(cmd.GetId())
	a.beat("registering_runner", withRunner(false))
	a.happened("runner_registered")
	a.beat("late", withRunner(false)) // it was created before
	shared.awaitVM(t, vm, "late", func(v *migcontrollerv1.VM) bool { return v.GetStatus() == "late" })
	a.beat("idle", withRunner(true))
	shared.awaitVM(t, vm, "idle", func(v *migcontrollerv1.VM) bool { return v.GetStatus() == "idle" && isRegistered(v) })
	shared.onlyCommand(t, a)
	require.Len(t, shared.registrations(t, vm), 1)
}

// TestConfiguredRunnerProvesRegistration defends the second proof: a heartbeat whose runner
// is configured, even if ack and event were lost.
func TestConfiguredRunnerProvesRegistration(t *testing.T) {
	t.Parallel()
	vm := newVM()
	a := shared.connect(t, vm)
	cmd := a.expectCommand("register_runner")
	a.beat("idle", withRunner(true))
	v := shared.awaitVM(t, vm, "registered", isRegistered)
	require.NotNil(t, v.GetRegistration().GetRegisteredAt())
	r := shared.awaitCommand(t, cmd.GetId(), succeeded)
	require.Nil(t, r.GetAck())
	require.Contains(t, r.GetReason(), "heartbeat")
	shared.onlyCommand(t, a)
}

// TestStartOverHTTPRegistersAgain defends a VM that reports a restart over HTTP while its
// old session still counts as live: the next session starts the new boot.
func TestStartOverHTTPRegistersAgain(t *testing.T) {
	t.Parallel()
	vm := newVM()
	a := shared.connectRegistered(t, vm)
	boot := time.Now()
	shared.startedOverHTTP(t, vm, boot)
	shared.onlyCommand(t, a)
	a = shared.connect(t, vm)
	a.register()
	v := shared.awaitVM(t, vm, "registered", isRegistered)
	require.EqualValues(t, 2, v.GetBoot())
	shared.startedOverHTTP(t, vm, boot) // the answer was lost, and the event is repeated
	shared.onlyCommand(t, a)
	require.Len(t, shared.registrations(t, vm), 2)
	require.EqualValues(t, 2, shared.vm(t, vm).GetBoot())
}

// TestOlderAgentIsRegisteredOnce defends agents that report vm_started over HTTP first and
// then open the stream: a single register_runner.
func TestOlderAgentIsRegisteredOnce(t *testing.T) {
	t.Parallel()
	vm := newVM()
	boot := time.Now().Add(-time.Minute)
	shared.startedOverHTTP(t, vm, boot)
	require.Empty(t, shared.registrations(t, vm), "it has neither connected nor polled")
	shared.startedOverHTTP(t, vm, boot)
	a := shared.connect(t, vm)
	a.happened("vm_started") // older agents report it on the stream as well
	a.register()
	shared.awaitVM(t, vm, "registered", isRegistered)
	shared.onlyCommand(t, a)
	require.Len(t, shared.registrations(t, vm), 1)
	require.Len(t, shared.events(t, vm, "vm_started"), 3)
	require.EqualValues(t, 1, shared.vm(t, vm).GetBoot())
}

// polled is the answer to a poll.
type polled struct {
	VMID     string `json:"vm_id"`
	Commands []struct {
		ID         string         `json:"id"`
		Type       string         `json:"type"`
		Parameters map[string]any `json:"parameters"`
		CreatedAt  string         `json:"created_at"`
	} `json:"commands"`
}

func (c *controller) poll(t *testing.T, vm string) polled {
	t.Helper()
	status, answer := c.call(t, http.MethodGet, c.httpAddr, "/api/v1/vms/"+vm+"/commands", "")
	require.Equal(t, http.StatusOK, status, string(answer))
	return decode[polled](t, answer)
}

func (c *controller) report(t *testing.T, vm, event string) {
	t.Helper()
	status, answer := c.call(t, http.MethodPost, c.httpAddr, "/api/v1/vms/"+vm+"/events", fmt.Sprintf(`{"type":%q}`, event))
	require.Equal(t, http.StatusOK, status, string(answer))
}

// TestPollingAgentIsRegisteredOnce defends agents without a stream: they get one
// register_runner per boot, and runner_registered counts as its ack.
func TestPollingAgentIsRegisteredOnce(t *testing.T) {
	t.Parallel()
	vm := newVM()
	shared.startedOverHTTP(t, vm, time.Now())
	next := shared.send(t, vm, "drain").GetCommand().GetId()
	require.Equal(t, next, shared.poll(t, vm).Commands[0].ID, "the order of acceptance")
	shared.cancelCommand(t, next) // as it will never be acked

	first := shared.poll(t, vm)
	require.Len(t, first.Commands, 1)
	require.Equal(t, "register_runner", first.Commands[0].Type)
	id := first.Commands[0].ID
	require.Empty(t, shared.poll(t, vm).Commands, "it was delivered")
	second := shared.send(t, vm, "drain").GetCommand().GetId()
	require.Empty(t, shared.poll(t, vm).Commands, "one at a time")
	shared.report(t, vm, "runner_registered")
	r := shared.command(t, id)
	require.Equal(t, succeeded, r.GetState())
	require.Nil(t, r.GetAck())
	require.True(t, isRegistered(shared.vm(t, vm)))
	require.Equal(t, second, shared.poll(t, vm).Commands[0].ID)

	shared.startedOverHTTP(t, vm, time.Now().Add(time.Hour))
	shared.cancelCommand(t, second)
	again := shared.poll(t, vm)
	require.Len(t, again.Commands, 1, "a new boot is registered again")
	require.Equal(t, "register_runner", again.Commands[0].Type)
	require.NotEqual(t, id, again.Commands[0].ID)
	require.Len(t, shared.registrations(t, vm), 2)
}

// TestPolledThenStreamedIsRegisteredOnce defends an agent that opens its stream after it
// has polled, and vice versa: during a live session a poll returns nothing.
func TestPolledThenStreamedIsRegisteredOnce(t *testing.T) {
	t.Parallel()
	vm := newVM()
	id := shared.poll(t, vm).Commands[0].ID
	a := shared.connect(t, vm)
	require.Empty(t, shared.poll(t, vm).Commands)
	queued := shared.send(t, vm, "drain").GetCommand().GetId()
	require.Empty(t, shared.poll(t, vm).Commands)
	a.happened("runner_registered")
	a.expect(queued)
	require.Empty(t, shared.poll(t, vm).Commands, "it is in flight on the stream")
	a.acked(queued)
	require.Equal(t, succeeded, shared.command(t, id).GetState())
	shared.awaitCommand(t, queued, succeeded)
	require.True(t, isRegistered(shared.vm(t, vm)))
	require.Len(t, shared.registrations(t, vm), 1)

	vm = newVM()
	a = shared.connect(t, vm)
	id = a.expectCommand("register_runner").GetId()
	a.cut()
	shared.awaitVM(t, vm, "disconnected", isDisconnected)
	require.Equal(t, id, shared.poll(t, vm).Commands[0].ID, "the command that was not acked on the stream")
	require.Len(t, shared.registrations(t, vm), 1)
}
