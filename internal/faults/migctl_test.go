package faults

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
)

// The exit statuses of migctl.
const (
	exitUsage       = 2
	exitNotFound    = 3
	exitUnavailable = 4
	exitInterrupted = 130
)

// migctlResult is the output and the exit status of migctl.
type migctlResult struct {
	stdout, stderr string
	status         int
}

// migctlCommand is a migctl command for the controller at a URL, without contexts.
func migctlCommand(t *testing.T, address string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program(t, "migctl"), append([]string{"--address=" + address}, args...)...)
	cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+t.TempDir(), "MIGCTL_CONTEXT=")
	return cmd
}

// runMigctl runs a migctl command, which may fail.
func runMigctl(t *testing.T, address string, args ...string) migctlResult {
	t.Helper()
	cmd := migctlCommand(t, address, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		_, exited := errors.AsType[*exec.ExitError](err)
		require.True(t, exited, err)
	}
	return migctlResult{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// heldAnswers forwards requests to the controller, withholds the answers to those that send
// a command, and reports each.
func (c *controller) heldAnswers(t *testing.T) (address string, held <-chan struct{}) {
	t.Helper()
	to, err := url.Parse("http://" + c.addr)
	require.NoError(t, err)
	answers := make(chan struct{}, 10)
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) }}
	proxy.ModifyResponse = func(r *http.Response) error {
		if r.Request.URL.Path == migcontrollerv1connect.AdminServiceSendCommandProcedure {
			answers <- struct{}{}
			<-r.Request.Context().Done() // until the caller has gone
		}
		return nil
	}
	proxy.ErrorHandler = func(http.ResponseWriter, *http.Request, error) {} // the caller has gone
	server := httptest.NewServer(proxy)
	t.Cleanup(server.Close)
	return server.URL, answers
}

// An operator interrupts a drain when the controller has accepted it but the answer has not
// arrived. migctl does not claim that nothing was sent, and prints the ids to look up.
func testInterruptedDrain(t *testing.T) {
	c := startController(t)
	vms := []string{"vm-1", "vm-2"}
	address, held := c.heldAnswers(t)
	drain := startChild(t, migctlCommand(t, address, append([]string{"drain"}, vms...)...))
	for range vms {
		select {
		case <-held:
		case <-time.After(patience):
			require.FailNow(t, "no answer arrives")
		}
	}
	require.NoError(t, drain.cmd.Process.Signal(os.Interrupt))
	select {
	case <-drain.exited:
	case <-time.After(patience):
		require.FailNow(t, "migctl does not end")
	}
	require.Equal(t, exitInterrupted, drain.cmd.ProcessState.ExitCode())
	output := drain.out.String()
	require.NotContains(t, output, "Nothing was sent")
	require.Contains(t, output, "0 of 2 accepted, 2 unknown")
	for _, vm := range vms {
		accepted := c.commands(t, vm)
		require.Len(t, accepted, 1)
		require.Contains(t, output, fmt.Sprintf("%s: interrupted; %s may have been accepted", vm, accepted[0].GetCommand().GetId()))
	}
}

// A command type similar to a known one is not sent unless that is requested.
func testMistypedCommand(t *testing.T) {
	c := startController(t)
	address := "http://" + c.addr
	for _, args := range [][]string{{"send", "vm-1", "drian"}, {"broadcast", "drian", "--yes"}} {
		got := runMigctl(t, address, args...)
		require.Equal(t, exitUsage, got.status, got.stderr)
		require.Contains(t, got.stderr, "Did you mean drain? --any-type sends drian anyway.")
	}
	require.Empty(t, c.commands(t, ""))
	for _, typ := range []string{"drian", "collect_logs"} { // which is similar to none
		args := []string{"send", "vm-1", typ}
		if typ == "drian" {
			args = append(args, "--any-type")
		}
		got := runMigctl(t, address, args...)
		require.Zero(t, got.status, got.stderr)
		require.Equal(t, typ, c.commands(t, "vm-1")[0].GetCommand().GetType())
	}
}

// hostile contains characters that control terminals, forge lines, or have a meaning in
// JSON and YAML.
const hostile = "no\x1b[2J\x1b]0;owned\a\u009b31m\u0085\u202e\"'\\\r\n- a: [b\n---\n\x00\u007f{}#"

// What an agent reports is displayed safely: it controls neither terminals nor programs.
func testHostileText(t *testing.T) {
	c := startController(t)
	for vm, text := range map[string]string{"vm-1": hostile, "vm-2": "no"} {
		a := openVersion(t, dial(t, c.addr), vm, text).accepted(t)
		registration := a.next(t)
		a.send(t, ackOf(&commands.CommandAck{
			CommandId: registration.GetId(), Message: text, Result: map[string]string{text: text},
		}))
		beat := beatOf(vm)
		runner := beat.GetHeartbeat().GetRunnerState()
		runner.Configured, runner.RunnerName, runner.Labels = false, text, []string{text, "no"}
		beat.GetHeartbeat().MigletState = "ready"
		beat.GetHeartbeat().CurrentJob = &commands.JobInfo{JobId: text, Repository: text, Status: text}
		a.send(t, beat)
		a.report(t, "note", text)
		await(t, func() bool { return c.vm(t, vm).GetRunner().GetName() != "" && len(c.events(t, vm, "note")) > 0 }, "nothing of it is stored")
	}
	for _, args := range [][]string{{"vms"}, {"vm", "vm-1"}, {"events"}, {"commands"}, {"heartbeats", "vm-1"}} {
		shown := map[string]string{}
		for _, form := range []string{"wide", "json", "yaml"} {
			got := runMigctl(t, "http://"+c.addr, append(args, "-o", form)...)
			require.Zero(t, got.status, got.stderr)
			requireHarmless(t, got.stdout+got.stderr)
			shown[form] = got.stdout
		}
		var value any
		require.NoError(t, json.Unmarshal([]byte(shown["json"]), &value), args)
		require.NoError(t, yaml.Unmarshal([]byte(shown["yaml"]), &value), args)
		same, err := json.Marshal(value)
		require.NoError(t, err)
		require.JSONEq(t, shown["json"], string(same), args)
		require.True(t, has(value, hostile), "as it was reported: %s", args)
	}
	require.Contains(t, runMigctl(t, "http://"+c.addr, "vms", "-o", "yaml").stdout, `agentVersion: "no"`)
}

// requireHarmless fails if a character could control a terminal or mislead a reader.
func requireHarmless(t *testing.T, text string) {
	t.Helper()
	for _, r := range text {
		require.True(t, r == '\n' || unicode.IsPrint(r), "%U in %q", r, text)
	}
}

// has reports whether a value contains a text.
func has(value any, text string) bool {
	switch value := value.(type) {
	case []any:
		return slices.ContainsFunc(value, func(v any) bool { return has(v, text) })
	case map[string]any:
		return slices.ContainsFunc(slices.Collect(maps.Values(value)), func(v any) bool { return has(v, text) })
	default:
		return value == text
	}
}

// startGateway answers everything with a status and a body.
func startGateway(t *testing.T, status int, contentType, body string) (address string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body) // migctl may have ended
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// A gateway answers in place of a controller. migctl always reports an error, and reports
// that something does not exist only when a controller does.
func testForeignGateway(t *testing.T) {
	c := startController(t)
	lines := []string{"vms", "command c1", "send vm-1 drain", "watch"}
	for _, status := range []int{http.StatusNotFound, http.StatusServiceUnavailable} {
		for contentType, body := range map[string]string{
			"application/json": `{"error":"no route"}`, "text/html": "<html>no route</html>",
			"application/problem+json": `{"code":"not_found","message":"no route"}`,
		} {
			address := startGateway(t, status, contentType, body)
			for _, line := range lines {
				got := runMigctl(t, address, strings.Fields(line)...)
				what := fmt.Sprintf("%s after %d %s: %s", line, status, contentType, got.stderr)
				require.NotEmpty(t, strings.TrimSpace(got.stderr), what)
				require.NotContains(t, []int{0, exitNotFound}, got.status, what)
			}
		}
	}
	for _, line := range lines {
		got := runMigctl(t, "http://"+c.addr+"/foo", strings.Fields(line)...)
		require.Equal(t, exitUnavailable, got.status, line)
		require.NotContains(t, got.stderr, "may have been accepted", line)
	}
	require.Empty(t, c.commands(t, ""))
	for _, line := range []string{"vm vm-1", "command c1"} {
		require.Equal(t, exitNotFound, runMigctl(t, "http://"+c.addr, strings.Fields(line)...).status, line)
	}
}
