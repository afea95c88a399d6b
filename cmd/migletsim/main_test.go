package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands/commandsconnect"
	"github.com/mig-controller/mig-controller/internal/sim"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// welcoming is a controller that accepts every VM and sends no commands.
type welcoming struct{}

func (welcoming) StreamCommands(
	ctx context.Context,
	stream *connect.BidiStream[commands.MIGletMessage, commands.ControllerMessage],
) error {
	err := stream.Send(&commands.ControllerMessage{Message: &commands.ControllerMessage_ConnectAck{
		ConnectAck: &commands.ConnectAck{Accepted: true},
	}})
	<-ctx.Done()
	return err
}

func startController(t *testing.T) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle(commandsconnect.NewCommandServiceHandler(welcoming{}))
	server := httptest.NewUnstartedServer(mux)
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

func TestRun_PlaysAFleet(t *testing.T) {
	t.Parallel()
	addr := startController(t)
	var out, errs bytes.Buffer
	code := run([]string{"--controller", addr, "--vms=2", "--duration=1s", "--summary-interval=200ms", "--seed=7"}, &out, &errs)
	require.Equal(t, exitOK, code, errs.String())
	require.Contains(t, out.String(), "2 agents against "+addr+", seed 7\n")
	require.Contains(t, out.String(), "connected 2/2")
	require.Regexp(t, `connects +2\n`, out.String())
	require.Empty(t, errs.String())
}

// If no VM connected, the exit code must show it.
func TestRun_NoVMConnected(t *testing.T) {
	t.Parallel()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := listener.Addr().String()
	require.NoError(t, listener.Close())
	var out, errs bytes.Buffer
	require.Equal(t, exitNoneCame, run([]string{"--controller", addr, "--duration=100ms"}, &out, &errs))
	require.Contains(t, out.String(), "No VM connected")
}

// Agents without streams count as connected.
func TestRun_AgentsWithoutStreams(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"status":"acknowledged","acknowledged":true}`)
	}))
	t.Cleanup(server.Close)
	var out, errs bytes.Buffer
	code := run([]string{"--controller", server.URL, "--vms=1", "--agent=2025-11", "--duration=500ms"}, &out, &errs)
	require.Equal(t, exitOK, code, out.String())
	require.Regexp(t, `vm_started over HTTP +1\n`, out.String())
	require.Contains(t, errs.String(), "contains no registration")
}

// An interrupt is a success once a VM has connected.
func TestPlay_Interrupted(t *testing.T) {
	t.Parallel()
	var out, errs bytes.Buffer
	opts, _, done := parse([]string{"--controller", startController(t)}, &out, &errs)
	require.False(t, done)
	cfg, err := opts.fleetConfig()
	require.NoError(t, err)
	connected := make(chan string, 10)
	cfg.Agent.Hooks.OnConnect = func(vmID string) { connected <- vmID }
	fleet, err := sim.NewFleet(cfg)
	require.NoError(t, err)

	ctx, interrupt := context.WithCancel(t.Context())
	code := make(chan int, 1)
	go func() { code <- play(ctx, fleet, opts, &out) }()
	for range 3 {
		<-connected
	}
	interrupt()
	require.Equal(t, exitOK, <-code)
	require.Contains(t, out.String(), "3 agents for")
}

func TestParse_Defaults(t *testing.T) {
	t.Parallel()
	opts, _, done := parse(nil, &bytes.Buffer{}, &bytes.Buffer{})
	require.False(t, done)
	require.NotZero(t, opts.Seed, "a seed is chosen, to be printed")
	got, err := opts.fleetConfig()
	require.NoError(t, err)
	want := sim.DefaultConfig()
	want.Seed, want.Version = opts.Seed, "migletsim-"+version
	want.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	require.Equal(t, sim.FleetConfig{Agent: want, VMs: 3, VMPrefix: "sim-vm-", StartRate: 100}, got)
}

// Every option sets its field.
func TestParse_Options(t *testing.T) {
	t.Parallel()
	token := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(token, []byte("bearer-secret\n"), 0o600))
	opts, _, done := parse(strings.Fields(`
		--vms 9 --controller https://c.example:443 --vm-prefix x- --pool p --org o --start-rate 5 --seed 8
		--heartbeat-interval 1s --register-time 2s --job-every 0 --job-length 4s --power-on-after 5s --backoff 6s
		--agent 2025-12 --replace-after 11s --drop-every 7s --restart-every 8s --reopen-every 9s --duplicate-ids 2 --lost-acks 1% --slow-acks 0.02
		--slow-ack-delay 10s --duplicate-acks 3% --heartbeat-first 4% --missing-health 5% --missing-runner-state 6%
		--nan 7% --foreign-ids 8% --garbage 9% --late-heartbeats 10% --failed-registrations 11%
		--first-registrations-fail 3 --restart-registered 12s --runner-crashes 13% --repeated-starts 14% --clock-1970 --insecure-skip-verify --token-file `+token),
		&bytes.Buffer{}, &bytes.Buffer{})
	require.False(t, done)
	got, err := opts.fleetConfig()
	require.NoError(t, err)
	require.True(t, got.Agent.TLS.InsecureSkipVerify)
	got.Agent.TLS = nil

	want := sim.FleetConfig{Agent: sim.DefaultConfig(), VMs: 9, VMPrefix: "x-", StartRate: 5, DuplicateIDs: 2}
	a := &want.Agent
	a.Controller, a.PoolID, a.OrgID, a.Token = "https://c.example:443", "p", "o", "bearer-secret"
	a.Seed, a.Version, a.Kind = 8, "migletsim-"+version, sim.Dec2025
	a.Timing.Heartbeat, a.Timing.Register = time.Second, 2*time.Second
	a.Timing.JobEvery, a.Timing.JobLength = 0, 4*time.Second
	a.Timing.PowerOn, a.Timing.Backoff = 5*time.Second, 6*time.Second
	a.Timing.ReplaceAfter = 11 * time.Second
	a.Quirks = sim.Quirks{
		DropEvery: 7 * time.Second, RestartEvery: 8 * time.Second, ReopenEvery: 9 * time.Second, ReopenBurst: 5,
		LostAcks: 0.01, SlowAcks: 0.02, SlowAckDelay: 10 * time.Second, DuplicateAcks: 0.03,
		HeartbeatFirst: 0.04, NoHealth: 0.05, NoRunnerState: 0.06, NaN: 0.07, ForeignIDs: 0.08, Garbage: 0.09,
		LateHeartbeats: 0.1, FailedRegistrations: 0.11, FirstRegistrationsFail: 3, RestartRegistered: 12 * time.Second,
		RunnerCrashes: 0.13, RepeatedStarts: 0.14, Clock1970: true,
	}
	require.Equal(t, want, got)
}

// An invalid option is named together with its rule.
func TestParse_WrongOptions(t *testing.T) {
	t.Parallel()
	for args, says := range map[string]string{
		"--vms=0":                   "--vms must be at least 1",
		"--vms=many":                "--vms",
		"--controller=nowhere":      "--controller must be host:port or a URL",
		"--vm-prefix=_x":            "--vm-prefix must make a valid id",
		"--pool=a/b":                "--pool must be 1 to 128",
		"--org=-":                   "--org must be 1 to 128",
		"--start-rate=0":            "--start-rate must be at least",
		"--duration=-1s":            "--duration must not be negative",
		"--duration=soon":           "--duration",
		"--summary-interval=0s":     "--summary-interval must be longer than 0",
		"--heartbeat-interval=0s":   "--heartbeat-interval must be longer than 0",
		"--job-every=-1s":           "--job-every must not be negative",
		"--replace-after=-1s":       "--replace-after must not be negative",
		"--agent=2026-01":           "--agent must be today, 2025-12, 2025-11 or ideal, not \"2026-01\"",
		"--lost-acks=101%":          "--lost-acks must be between 0 and 1",
		"--garbage=lots":            "--garbage: must be a number from 0 to 1 or a percentage",
		"--nan=nan":                 "--nan must be between 0 and 1",
		"--duplicate-ids=4":         "--duplicate-ids must be between 0 and the number of VMs",
		"--log-level=loud":          "--log-level must be one of",
		"--token-file=/nonexistent": "--token-file must be a readable file",
		"--ca-file=/nonexistent":    "--ca-file must be a readable file",
		"--no-such-option":          "--no-such-option",
		"stray":                     "stray",

		"--failed-registrations=2":      "--failed-registrations must be between 0 and 1",
		"--runner-crashes=2":            "--runner-crashes must be between 0 and 1",
		"--repeated-starts=2":           "--repeated-starts must be between 0 and 1",
		"--late-heartbeats=2":           "--late-heartbeats must be between 0 and 1",
		"--restart-registered=-1s":      "--restart-registered must not be negative",
		"--first-registrations-fail=-1": "--first-registrations-fail must not be negative",
	} {
		var out, errs bytes.Buffer
		require.Equal(t, exitBadOption, run([]string{args}, &out, &errs), args)
		require.Contains(t, errs.String(), says, args)
		require.Empty(t, out.String(), args)
	}
}

func TestParse_HelpAndVersion(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"--help"}, {"-h"}, {"--version"}, {"--version", "--vms=0"}} {
		var out, errs bytes.Buffer
		require.Equal(t, exitOK, run(args, &out, &errs))
		require.NotEmpty(t, out.String())
		require.Empty(t, errs.String())
	}
}

// Errors of sim name the option instead of the field, for every field that has an option.
func TestOptionNames_AreOptions(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	run([]string{"--help"}, &out, &bytes.Buffer{})
	for field, option := range optionNames {
		require.Regexp(t, option+`[ =\n]`, out.String(), field)
		value := reflect.ValueOf(sim.FleetConfig{})
		if found := value.FieldByName(field); found.IsValid() {
			continue
		}
		value = value.FieldByName("Agent")
		for name := range strings.SplitSeq(field, ".") {
			value = value.FieldByName(name)
			require.True(t, value.IsValid(), field)
		}
	}
}

func TestSummaryLine(t *testing.T) {
	t.Parallel()
	s := sim.Snapshot{Connected: 2, Registered: 1, Commands: map[string]int64{"drain": 3, "shutdown": 1}}
	require.Equal(t, "      5s  connected 2/3  registered 1  commands 4  acks 0  events 0  heartbeats 0",
		summaryLine(s, 3, 5*time.Second))
	s.Errors, s.RegisterRepeats = map[string]int64{"dial": 2}, 1
	require.Contains(t, summaryLine(s, 3, 0), "REPEATED REGISTRATIONS 1  errors 2")
	require.Contains(t, finalSummary(s, 3, 0), "4: drain 3, shutdown 1\n")
	s = sim.Snapshot{Posts: 4, Spent: 2, Replaced: 1, Unread: 3, RegisterFailures: 5, RunnerCrashes: 6}
	require.Contains(t, summaryLine(s, 3, 0),
		"over HTTP 4  spent 2  replaced 1  failed registrations 5  runner crashes 6  unread 3")
	require.Regexp(t, `failed registrations +5\n`, finalSummary(s, 3, 0))
	require.Regexp(t, `runner crashes +6\n`, finalSummary(s, 3, 0))
	require.Regexp(t, `spent VMs replaced +1\n`, finalSummary(s, 3, 0))
	require.Regexp(t, `never read +3\n`, finalSummary(s, 3, 0))
}
