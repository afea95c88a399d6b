package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/config"
	"github.com/mig-controller/mig-controller/internal/sim"
)

func tokenInVMStarted(o *config.Options) { o.TokenInVMStarted = true }

// november runs an agent of 2025-11 until the test ends.
func (c *controller) november(t *testing.T, vm string) *sim.Agent {
	t.Helper()
	cfg := sim.DefaultConfig()
	cfg.Controller, cfg.VMID, cfg.Kind = c.httpAddr, vm, sim.Nov2025
	cfg.Timing.Register, cfg.Timing.Restart, cfg.Timing.JobEvery = 10*time.Millisecond, 10*time.Millisecond, 0
	a, err := sim.NewAgent(cfg)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	t.Cleanup(func() { cancel(); require.NoError(t, <-ended) })
	return a
}

// started reports vm_started over HTTP and returns the members of the answer.
func (c *controller) started(t *testing.T, vm string, at time.Time) map[string]any {
	t.Helper()
	status, answer := c.call(t, http.MethodPost, c.httpAddr, "/api/v1/vms/"+vm+"/events",
		fmt.Sprintf(`{"type":"vm_started","timestamp":%q}`, at.Format(time.RFC3339)))
	require.Equal(t, http.StatusOK, status, string(answer))
	return decode[map[string]any](t, answer)
}

// TestOldestAgentsRegister defends the oldest agents, which take their registration from
// the answer to vm_started: with the option on they register, once per boot.
func TestOldestAgentsRegister(t *testing.T) {
	t.Parallel()
	c := start(t, withRunners, tokenInVMStarted)
	vm := newVM()
	a := c.november(t, vm)
	c.awaitEvent(t, vm, "runner_registered")
	require.True(t, isRegistered(c.vm(t, vm)))
	require.Zero(t, a.Snapshot().Restarts)
	regs := c.registrations(t, vm)
	require.Len(t, regs, 1)
	require.Equal(t, succeeded, regs[0].GetState())
	require.EqualValues(t, 1, regs[0].GetAttempts())
	require.Equal(t, "proven by the event runner_registered", regs[0].GetReason())

	a.Restart()
	await(t, "the registration of the next boot",
		func() []*commandRecord { return c.registrations(t, vm) },
		func(all []*commandRecord) bool {
			return len(all) == 2 && all[0].GetState() == succeeded && all[1].GetState() == succeeded
		})
	require.EqualValues(t, 2, c.vm(t, vm).GetBoot())
	require.EqualValues(t, 1, a.Snapshot().Restarts)
}

// TestOldestAgentsExitWithoutTheOption defends the default: no token is returned for a
// vm_started, and no command is created for it.
func TestOldestAgentsExitWithoutTheOption(t *testing.T) {
	t.Parallel()
	c := start(t, withRunners)
	vm := newVM()
	a := c.november(t, vm)
	await(t, "exits", a.Snapshot, func(s sim.Snapshot) bool { return s.Restarts > 3 })
	require.Empty(t, c.registrations(t, vm))
	require.False(t, isRegistered(c.vm(t, vm)))

	answer := c.started(t, newVM(), time.Now())
	for _, name := range []string{"status", "acknowledged", "vm_id", "pool_id", "org_id", "message", "timestamp"} {
		require.Contains(t, answer, name)
	}
	require.Len(t, answer, 7)
}

// TestAnswerToVMStarted defends the content of the answer, that polls do not repeat it, and
// that an agent which opens a stream afterwards is registered there.
func TestAnswerToVMStarted(t *testing.T) {
	t.Parallel()
	c := start(t, withRunners, tokenInVMStarted)
	polling, streaming, boot := newVM(), newVM(), time.Now()
	answer := c.started(t, polling, boot)
	expires, err := time.Parse(time.RFC3339, fmt.Sprint(answer["expires_at"]))
	require.NoError(t, err)
	require.WithinDuration(t, time.Now().Add(time.Hour), expires, time.Minute)
	require.Equal(t, true, answer["acknowledged"])
	require.Equal(t, secretToken, answer["registration_token"])
	require.Equal(t, "https://github.example/org/repo", answer["runner_url"])
	require.Equal(t, "builders", answer["runner_group"])
	require.Equal(t, []any{"mig", "x64"}, answer["labels"])
	require.Empty(t, c.poll(t, polling).Commands)
	require.Equal(t, delivered, c.registrations(t, polling)[0].GetState())

	require.Contains(t, c.started(t, streaming, boot), "registration_token")
	a := c.connect(t, streaming)
	a.register()
	c.awaitVM(t, streaming, "registered", isRegistered)
	c.onlyCommand(t, a)
	require.NotContains(t, c.started(t, streaming, boot.Add(time.Minute)), "registration_token", "it has a session")
	c.connect(t, streaming).register()
	require.Len(t, c.registrations(t, streaming), 2)
	require.Len(t, c.log.lines("--token-in-vm-started: everyone who can reach"), 1)
}

// TestWhenATokenExpiresIsShownToAgentsOnly defends that the assumed expiry, an hour after
// the token file was written, is sent to agents and is neither shown to operators nor
// logged nor stored; the same holds for the token in an answer to vm_started. An old file
// causes a warning and is used.
func TestWhenATokenExpiresIsShownToAgentsOnly(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(file, []byte(secretToken), 0o600))
	written := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
	require.NoError(t, os.Chtimes(file, written, written))
	c := start(t, withRunners, tokenInVMStarted, func(o *config.Options) {
		o.RegistrationToken, o.RegistrationTokenFile = "", file
	})
	const guess = "2001-02-03T05:05:06Z"
	watch := c.watch(t, "", "")
	watch.next()
	started, polling := newVM(), newVM()
	require.Equal(t, guess, c.started(t, started, time.Now())["expires_at"])
	require.Equal(t, guess, c.poll(t, polling).Commands[0].Parameters["expires_at"])
	_, minted := c.call(t, http.MethodPost, c.httpAddr, "/api/v1/vms/"+polling+"/registration-token", "{}")
	require.Equal(t, guess, decode[map[string]any](t, minted)["expires_at"])
	c.report(t, started, "runner_registered")
	id := c.registrations(t, started)[0].GetCommand().GetId()

	shown := []string{}
	for method, body := range map[string]string{
		"GetVM": fmt.Sprintf(`{"vm_id":%q}`, started), "GetCommand": fmt.Sprintf(`{"command_id":%q}`, id),
		"ListVMs": "{}", "ListCommands": "{}", "ListEvents": "{}",
	} {
		status, answer := c.call(t, http.MethodPost, c.httpAddr, "/migcontroller.v1.AdminService/"+method, body)
		require.Equal(t, http.StatusOK, status, "%s: %s", method, answer)
		require.Contains(t, string(answer), started, method)
		shown = append(shown, string(answer))
	}
	for state := pending; state != succeeded; {
		m := watch.next()
		doc, err := json.Marshal(m)
		require.NoError(t, err)
		shown = append(shown, string(doc), m.String())
		if m.GetCommand().GetCommand().GetId() == id {
			state = m.GetCommand().GetState()
		}
	}
	await(t, "the warning", func() []string { return c.log.lines("the token file is old") },
		func(lines []string) bool { return len(lines) == 1 })
	require.NoError(t, c.end())
	for _, secret := range []string{secretToken, "2001-02-03T05:05", strconv.FormatInt(written.Add(time.Hour).Unix(), 10)} {
		for _, text := range shown {
			require.NotContains(t, text, secret)
		}
		require.Empty(t, c.log.lines(secret))
		require.Empty(t, c.filesWith(t, secret))
	}
	require.NotEmpty(t, c.filesWith(t, id), "the search works")
}
