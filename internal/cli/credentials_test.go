package cli

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
)

// tokenScript returns a token_command that appends a line to the file runs, and prints the
// n-th of the tokens on its n-th run, and then the last.
func tokenScript(t *testing.T, tokens ...string) (command, runs string) {
	t.Helper()
	dir := t.TempDir()
	runs = filepath.Join(dir, "runs")
	list := filepath.Join(dir, "tokens")
	require.NoError(t, os.WriteFile(list, []byte(strings.Join(tokens, "\n")+"\n"), 0o600))
	return "echo run >> " + runs + "; head -n $(wc -l < " + runs + ") " + list + " | tail -n 1", runs
}

func runsOf(t *testing.T, runs string) int {
	t.Helper()
	content, err := os.ReadFile(runs)
	require.NoError(t, err)
	return strings.Count(string(content), "\n")
}

// requireToken makes the fake controller accept only what valid returns.
func (d *driver) requireToken(valid func() string) {
	handler := d.server.Config.Handler
	d.server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+valid() {
			err := denial(connect.CodeUnauthenticated, migcontrollerv1.ErrorReason_ERROR_REASON_UNAUTHENTICATED, "the credentials have expired")
			_ = connect.NewErrorWriter().Write(w, r, err)
			return
		}
		handler.ServeHTTP(w, r)
	})
}

// A token_command runs once, and once more when the controller refuses its token.
func TestTokenCommand(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		tokens []string
		code   int
		runs   int
	}{
		"accepted":        {[]string{"good"}, exitOK, 1},
		"expired":         {[]string{"old", "good"}, exitOK, 2},
		"the same again":  {[]string{"old"}, exitNotAllowed, 2},
		"never accepted":  {[]string{"old", "older", "oldest"}, exitNotAllowed, 2},
		"not a token":     {[]string{"two words"}, exitFailed, 1},
		"not a token now": {[]string{"old", "two words"}, exitFailed, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newContextDriver(t)
			d.program.environ["PATH"] = os.Getenv("PATH")
			command, runs := tokenScript(t, test.tokens...)
			d.requireToken(func() string { return "good" })
			d.mustRun("config", "set-context", "lab", "--address", d.server.URL, "--token-command", command)
			stdout, stderr, code := d.run("vms")
			require.Equal(t, test.code, code, stderr)
			require.Equal(t, test.runs, runsOf(t, runs))
			for _, token := range test.tokens {
				require.NotContains(t, stdout+stderr, token+"\n")
			}
		})
	}
}

// Many calls at once renew a token once, and a watch continues with a new one from its
// cursor.
func TestTokenCommandRenews(t *testing.T) {
	t.Parallel()
	d := newContextDriver(t)
	d.program.environ["PATH"] = os.Getenv("PATH")
	command, runs := tokenScript(t, "first", "second")
	calls := 0
	d.requireToken(func() string {
		d.fleet.lock.Lock()
		defer d.fleet.lock.Unlock()
		calls++
		if calls < 3 { // the list of VMs, and one command
			return "first"
		}
		return "second"
	})
	d.mustRun("config", "set-context", "lab", "--address", d.server.URL, "--token-command", command)
	require.Contains(t, d.mustRun("broadcast", "drain", "--yes"), "accepted")
	require.Equal(t, 2, runsOf(t, runs))
	require.Len(t, requestsOf[*migcontrollerv1.SendCommandRequest](d.fleet), len(d.fleet.vms))

	d = newContextDriver(t)
	d.program.environ["PATH"] = os.Getenv("PATH")
	command, runs = tokenScript(t, "first", "second")
	var streams atomic.Int32
	d.requireToken(func() string {
		if streams.Add(1) == 1 {
			return "first"
		}
		return "second"
	})
	d.mustRun("config", "set-context", "lab", "--address", d.server.URL, "--token-command", command)
	ctx, cancel := context.WithCancel(t.Context())
	d.ctx = ctx
	type stream = connect.ServerStream[migcontrollerv1.WatchFleetResponse]
	d.fleet.streams = []func(*migcontrollerv1.WatchFleetRequest, *stream) error{
		func(_ *migcontrollerv1.WatchFleetRequest, s *stream) error {
			_ = s.Send(&migcontrollerv1.WatchFleetResponse{Cursor: "c-1"})
			return denial(connect.CodeUnauthenticated, migcontrollerv1.ErrorReason_ERROR_REASON_UNAUTHENTICATED, "the credentials have expired or were revoked")
		},
		func(req *migcontrollerv1.WatchFleetRequest, s *stream) error {
			defer cancel()
			return s.Send(&migcontrollerv1.WatchFleetResponse{Cursor: req.GetCursor() + "-2"})
		},
	}
	_, stderr, code := d.run("watch")
	require.Zero(t, code, stderr)
	require.Equal(t, "c-1", requestsOf[*migcontrollerv1.WatchFleetRequest](d.fleet)[1].GetCursor())
	require.Equal(t, 2, runsOf(t, runs))
}

// A watch reads its token file again when the token was refused, as after a renewal.
func TestTokenFileRenewed(t *testing.T) {
	t.Parallel()
	d := newContextDriver(t)
	file := writeFile(t, "token", "first")
	d.program.environ[addressEnv] = d.server.URL
	var renewed atomic.Bool
	d.requireToken(func() string {
		if renewed.Load() {
			return "second"
		}
		return "first"
	})
	ctx, cancel := context.WithCancel(t.Context())
	d.ctx = ctx
	type stream = connect.ServerStream[migcontrollerv1.WatchFleetResponse]
	d.fleet.streams = []func(*migcontrollerv1.WatchFleetRequest, *stream) error{
		func(_ *migcontrollerv1.WatchFleetRequest, s *stream) error {
			_ = s.Send(&migcontrollerv1.WatchFleetResponse{Cursor: "c-1"})
			renewed.Store(true)
			_ = os.WriteFile(file, []byte("second\n"), 0o600)
			return denial(connect.CodeUnauthenticated, migcontrollerv1.ErrorReason_ERROR_REASON_UNAUTHENTICATED, "the credentials have expired or were revoked")
		},
		func(req *migcontrollerv1.WatchFleetRequest, s *stream) error {
			defer cancel()
			return s.Send(&migcontrollerv1.WatchFleetResponse{Cursor: req.GetCursor() + "-2"})
		},
	}
	_, stderr, code := d.run("watch", "--token-file", file)
	require.Zero(t, code, stderr)
	require.Equal(t, "c-1", requestsOf[*migcontrollerv1.WatchFleetRequest](d.fleet)[1].GetCursor())
}

// When a token_command fails, migctl shows what it printed to stderr, and not to stdout.
func TestTokenCommandFails(t *testing.T) {
	t.Parallel()
	d := newContextDriver(t)
	d.program.environ["PATH"] = os.Getenv("PATH")
	set := func(command string) {
		d.mustRun("config", "set-context", "lab", "--address", d.server.URL, "--token-command", command)
	}
	set("echo " + secret + "; echo 'no key in the agent' >&2; exit 3")
	d.mustFail(exitFailed, "context lab: token_command failed: exit status 3\n  no key in the agent\n", "vms")
	d.mustFail(exitFailed, "token_command failed", "watch")
	require.Empty(t, d.fleet.requests)
	set("true")
	d.mustFail(exitFailed, "context lab: token_command must print one token", "vms")
	d.program.tokenCommandTimeout = 50 * time.Millisecond
	set("sleep 60")
	d.mustFail(exitFailed, "context lab: token_command printed no token within 50ms", "vms")
}

// A context has one source of tokens: setting one removes the others. config view shows the
// command.
func TestTokenCommandInContext(t *testing.T) {
	t.Parallel()
	d := newContextDriver(t)
	d.program.stdin = strings.NewReader(secret + "\n")
	far := "controller.example"
	d.mustFail(exitUsage, "refusing to send the token", "config", "set-context", "lab", "--address", far, "--token-command", "echo x")
	d.mustRun("config", "set-context", "lab", "--address", "https://"+far, "--token-stdin")
	d.mustRun("config", "set-context", "lab", "--token-command", "print-token")
	require.NotContains(t, d.mustRun("config", "view"), "token: ")
	require.Contains(t, d.mustRun("config", "view"), "token_command: print-token\n")
	d.mustRun("config", "set-context", "lab", "--token-file", writeFile(t, "token", secret))
	require.NotContains(t, d.mustRun("config", "view"), "token_command")
	d.mustRun("config", "set-context", "lab", "--token-command", "print-token")
	require.NotContains(t, d.mustRun("config", "view"), "token_file")
	d.mustRun("config", "set-context", "lab", "--token-command=")
	require.NotContains(t, d.mustRun("config", "view"), "token")
}

// Over the control socket no credentials are sent, also not those of the environment: a lost
// or revoked token must not prevent the creation of another one.
func TestControlSocket(t *testing.T) {
	t.Parallel()
	d := newContextDriver(t)
	dir, err := os.MkdirTemp("", "s") //nolint:usetesting // the path of a socket must be short
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "s%20 #")
	listener, err := new(net.ListenConfig).Listen(t.Context(), "unix", path)
	require.NoError(t, err)
	sent := make(chan string, 1)
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent <- r.Header.Get("Authorization")
		d.server.Config.Handler.ServeHTTP(w, r)
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	d.program.environ[tokenEnv] = secret
	address := "unix://" + path
	require.Contains(t, d.mustRun("--address="+address, "token", "create", "ann", "--role", "admin"), fakeSecret)
	require.Empty(t, <-sent)
	d.mustFail(exitUsage, "must not be given with a unix address", "whoami", "--address", address, "--token-file", writeFile(t, "token", secret))
	d.mustFail(exitUsage, "must not be given without an https address", "whoami", "--address", address, "--ca-file", "ca.pem")
	d.mustFail(exitUsage, "--address must have the absolute path of a socket", "whoami", "--address", "unix://s")
	d.mustFail(exitUnavailable, "cannot reach the controller at unix:///nowhere/at/all", "whoami", "--address", "unix:///nowhere/at/all")
}
