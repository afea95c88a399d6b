package faults

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/internal/testkit"
)

// While no token is available the registration waits, with a reason. That causes no changes
// of the fleet, and other commands overtake it. When there is a token, it is delivered.
func testNoToken(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	c := startController(t, "--registration-token-file="+file, "--runner-url=https://github.com/example/app")
	w := c.watch(t)
	a := c.connect(t, "vm-1")
	await(t, func() bool { return strings.HasPrefix(w.waiting("vm-1"), "no registration token") }, "the VM does not wait for a token")
	registration := c.registration(t, "vm-1")
	const reason = `^no registration token \(token file ".+/token": no such file or directory\), next try in \d+ s$`
	require.Equal(t, pending, registration.GetState())
	require.Regexp(t, reason, registration.GetWaiting().GetReason())
	require.Regexp(t, reason, c.vm(t, "vm-1").GetWaiting().GetReason())

	changes := w.count()
	stays(t, 4*time.Second, func() bool { return w.count() == changes }, "waiting causes changes")
	since := c.vm(t, "vm-1").GetWaiting().GetSince().AsTime()
	require.WithinDuration(t, c.vm(t, "vm-1").GetConnectedAt().AsTime(), since, 2*time.Second)
	c.send(t, "vm-1", "drain", withType("drain"))
	a.expect(t, "drain")
	a.ack(t, "drain")
	c.awaitEnd(t, "drain", succeeded)

	require.NoError(t, os.WriteFile(file, []byte("A-TOKEN\n"), 0o600))
	began := time.Now()
	command := a.next(t)
	require.Less(t, time.Since(began), 16*time.Second)
	require.Equal(t, registration.GetCommand().GetId(), command.GetId())
	require.Equal(t, "A-TOKEN", command.GetStringParams()["registration_token"])
	a.ack(t, command.GetId())
	require.EqualValues(t, 1, c.awaitEnd(t, command.GetId(), succeeded).GetAttempts())
	require.Equal(t, "waits for its runner to register, by command "+command.GetId(), c.vm(t, "vm-1").GetWaiting().GetReason())
	a.report(t, "runner_registered", "")
	await(t, func() bool { return w.waiting("vm-1") == "" }, "no change shows that the wait is over")
	require.Nil(t, c.vm(t, "vm-1").GetWaiting())
	require.Empty(t, c.out.lines("A-TOKEN"))
}

// Every open command has a waiting reason.
func testOpenCommandsReasons(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	c := startController(t, "--registration-token-file="+file, "--runner-url=https://github.com/example/app")
	require.NoError(t, os.WriteFile(file, []byte("A-TOKEN"), 0o600))
	busy := c.connect(t, "vm-busy")
	busy.ack(t, busy.next(t).GetId())
	require.NoError(t, os.Remove(file))
	c.send(t, "vm-never", "never-seen")
	offline := c.connect(t, "vm-offline")
	c.connect(t, "vm-tokenless")
	await(t, func() bool {
		return strings.HasPrefix(c.vm(t, "vm-tokenless").GetWaiting().GetReason(), "no registration token")
	}, "no wait for a token")
	c.send(t, "vm-busy", "delivered")
	busy.expect(t, "delivered")
	c.send(t, "vm-busy", "queued")
	offline.hangUp()
	await(t, func() bool { return !c.vm(t, "vm-offline").GetConnected() }, "still connected")
	c.send(t, "vm-offline", "offline")

	expected := map[string]string{
		"never-seen": "^the VM has never been seen$",
		"offline":    "^VM offline since 20",
		"delivered":  "^waits for its ack until 20",
		"queued":     "^waits for command delivered$",
		c.vm(t, "vm-tokenless").GetRegistration().GetCommandId(): "^no registration token ",
	}
	open := 0
	for _, r := range c.commands(t, "") {
		if r.GetState() != pending && r.GetState() != delivered {
			continue
		}
		open++
		require.NotEmpty(t, r.GetWaiting().GetReason(), r)
		require.False(t, r.GetWaiting().GetSince().AsTime().After(time.Now()), r)
		if like := expected[r.GetCommand().GetId()]; like != "" {
			require.Regexp(t, like, r.GetWaiting().GetReason())
			delete(expected, r.GetCommand().GetId())
		}
		same := c.command(t, r.GetCommand().GetId())
		require.NotEmpty(t, same.GetWaiting().GetReason(), same)
	}
	require.Empty(t, expected)
	require.GreaterOrEqual(t, open, 5)
}

// The log contains the lifecycle of each command, once and in order.
func testLogLines(t *testing.T) {
	c := startController(t)
	a := c.connectRegistered(t, "vm-1")
	for _, id := range []string{"first", "second"} {
		c.send(t, "vm-1", id)
		c.send(t, "vm-1", id) // the same command again
		a.expect(t, id)
		c.send(t, "vm-1", id)
		a.ack(t, id)
		c.awaitEnd(t, id, succeeded)
		c.send(t, "vm-1", id)
		c.requireAckedLife(t, id)
	}
	c.requireAckedLife(t, c.registration(t, "vm-1").GetCommand().GetId())

	c.send(t, "vm-1", "unacked", withAckTimeout(time.Second))
	a.expect(t, "unacked")
	a.beatEvery(t, 500*time.Millisecond)
	c.awaitEnd(t, "unacked", timedOut)
	a.ack(t, "unacked")
	c.send(t, "vm-offline", "expired", withTTL(time.Second))
	c.send(t, "vm-offline", "cancelled")
	_, err := c.admin.CancelCommand(t.Context(), &migcontrollerv1.CancelCommandRequest{CommandId: "cancelled"})
	require.NoError(t, err)
	c.awaitEnd(t, "expired", expired)
	for id, life := range map[string][]string{
		"unacked":   {"command accepted", "command delivered", "command timed out", "command acked late: it had ended before"},
		"expired":   {"command accepted", "command expired"},
		"cancelled": {"command accepted", "command cancelled"},
	} {
		await(t, func() bool { return len(c.life(id)) >= len(life) }, "the log does not show the whole life of %s", id)
		require.Equal(t, life, c.life(id), id)
	}
}

// The log has the cause of the end of each session.
func testDisconnectCauses(t *testing.T) {
	c := startController(t)
	dead, cut := testkit.NewBlackhole(t, c.addr), testkit.NewBlackhole(t, c.addr)
	connectTo(t, dead.Addr, "vm-dead")
	dead.Swallow()
	connectTo(t, cut.Addr, "vm-cut")
	cut.Cut()
	require.NoError(t, c.connect(t, "vm-closed").stream.CloseSend())
	c.connect(t, "vm-reset").reset()
	c.connect(t, "vm-superseded")
	c.connect(t, "vm-superseded")
	for vm, cause := range map[string]string{
		"vm-dead":       "ping timeout",
		"vm-cut":        "connection closed by the peer",
		"vm-closed":     "closed by the agent",
		"vm-reset":      "reset by the agent",
		"vm-superseded": "superseded",
	} {
		require.Contains(t, c.awaitLine(t, ofMessage("agent disconnected"), ofVM(vm)), ofCause(cause), vm)
	}
	c.connect(t, "vm-stopped")
	c.terminate(t)
	require.Contains(t, c.awaitLine(t, ofMessage("agent disconnected"), ofVM("vm-stopped")), ofCause("controller stopping"))
	require.Len(t, c.out.lines(ofMessage("agent disconnected")), 7)
}

// Before sending, an operator is warned that an agent is likely to leave a command unread,
// and afterwards sees why it was not acked.
func testMigctlWarns(t *testing.T) {
	c := startController(t)
	a := c.connectRegistered(t, "vm-1")
	const warning = "Warning: the runner of vm-1 is registered, and its agent has acked nothing since"
	stderr := c.migctl(t, "send", "vm-1", "drain", "--id=unread", "--ack-timeout=1s")
	require.Contains(t, stderr, warning)
	a.beatEvery(t, 500*time.Millisecond)
	require.Contains(t, c.awaitEnd(t, "unread", timedOut).GetReason(), "such an agent usually reads no commands")

	stderr = c.migctl(t, "send", "vm-1", "drain", "--id=acked")
	require.Contains(t, stderr, warning)
	a.expect(t, "unread")
	a.expect(t, "acked")
	a.ack(t, "acked")
	c.awaitEnd(t, "acked", succeeded)
	stderr = c.migctl(t, "send", "vm-1", "drain", "--id=after")
	require.NotContains(t, stderr, "Warning", "it has acked a command since")
}

// migctl runs a migctl command, which must succeed, and returns its stderr.
func (c *controller) migctl(t *testing.T, args ...string) (stderr string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program(t, "migctl"), append([]string{"--address=http://" + c.addr}, args...)...)
	cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+t.TempDir(), "MIGCTL_CONTEXT=")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	require.NoError(t, cmd.Run(), "%s%s", &out, &errs)
	return errs.String()
}
