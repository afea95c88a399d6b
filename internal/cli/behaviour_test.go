package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
)

// A list fetches all pages, and requests no more entries than its limit.
func TestPaging(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args  []string
		lines int
		sizes []int32
	}{
		{[]string{"vms", "--no-headers"}, 7, []int32{1000, 1000, 1000}},
		{[]string{"vms", "--no-headers", "--limit", "4"}, 4, []int32{4, 1}},
		{[]string{"vms", "--no-headers", "--limit", "3"}, 3, []int32{3}},
		{[]string{"vms", "--no-headers", "--limit", "99"}, 7, []int32{99, 96, 93}},
	} {
		d := newDriver(t)
		d.fleet.page, d.fleet.vms = 3, nil
		for i := range 7 {
			d.fleet.vms = append(d.fleet.vms, &migcontrollerv1.VM{VmId: fmt.Sprintf("vm-%d", i)})
		}
		stdout, stderr, code := d.run(test.args...)
		require.Zero(t, code, stderr)
		require.Equal(t, test.lines, strings.Count(stdout, "\n"))
		var sizes []int32
		for _, req := range requestsOf[*migcontrollerv1.ListVMsRequest](d.fleet) {
			sizes = append(sizes, req.GetPageSize())
		}
		require.Equal(t, test.sizes, sizes)
	}
}

// Every filter is sent to the controller.
func TestFilters(t *testing.T) {
	t.Parallel()
	d := newDriver(t)
	_, stderr, code := d.run("commands", "--vm", "vm-1", "--state", "timed-out,PENDING", "--state", "failed", "--type", "drain")
	require.Zero(t, code, stderr)
	commands := requestsOf[*migcontrollerv1.ListCommandsRequest](d.fleet)[0]
	require.Equal(t, []string{"TIMED_OUT", "PENDING", "FAILED"}, []string{
		stateName(commands.States[0]), stateName(commands.States[1]), stateName(commands.States[2]),
	})
	require.Equal(t, "vm-1", commands.VmId)
	require.Equal(t, "drain", commands.Type)
	require.Equal(t, int32(50), commands.PageSize)

	_, stderr, code = d.run("events", "--vm", "vm-1", "--type", "job_started", "--since", "2d", "--until", "2026-03-01T01:00:00Z")
	require.Zero(t, code, stderr)
	events := requestsOf[*migcontrollerv1.ListEventsRequest](d.fleet)[0]
	require.Equal(t, epoch.Add(-48*time.Hour), events.Since.AsTime())
	require.Equal(t, epoch.Add(-2*time.Hour), events.Until.AsTime())
	require.Equal(t, "vm-1 job_started", events.VmId+" "+events.Type)
}

// The request contains exactly the values from the command line.
func TestSendRequest(t *testing.T) {
	t.Parallel()
	d := newDriver(t)
	_, stderr, code := d.run("send", "vm-1", "update_config", "--param", "url=a=b;c,d", "--int", "n=-5", "--bool", "on=true",
		"--list", "x,y", "--list", "z", "--id", "mine", "--ttl", "2d", "--ack-timeout", "90s")
	require.Zero(t, code, stderr)
	sent := requestsOf[*migcontrollerv1.SendCommandRequest](d.fleet)
	require.Len(t, sent, 1)
	require.Equal(t, "mine", sent[0].Command.Id)
	require.Equal(t, "update_config", sent[0].Command.Type)
	require.Equal(t, map[string]string{"url": "a=b;c,d"}, sent[0].Command.StringParams)
	require.Equal(t, map[string]int64{"n": -5}, sent[0].Command.IntParams)
	require.Equal(t, map[string]bool{"on": true}, sent[0].Command.BoolParams)
	require.Equal(t, []string{"x", "y", "z"}, sent[0].Command.StringArrayParams)
	require.Equal(t, 48*time.Hour, sent[0].Ttl.AsDuration())
	require.Equal(t, 90*time.Second, sent[0].AckTimeout.AsDuration())
	require.Nil(t, sent[0].Wait)
}

// The exit status of a wait distinguishes success, failure and a timeout.
func TestSendWait(t *testing.T) {
	t.Parallel()
	for state, code := range map[migcontrollerv1.CommandState]int{
		migcontrollerv1.CommandState_COMMAND_STATE_SUCCEEDED: exitOK,
		migcontrollerv1.CommandState_COMMAND_STATE_FAILED:    exitFailed,
		migcontrollerv1.CommandState_COMMAND_STATE_TIMED_OUT: exitFailed,
	} {
		d := newDriver(t)
		d.fleet.results = map[string]migcontrollerv1.CommandState{"vm-1": state}
		_, stderr, got := d.run("send", "vm-1", "drain", "--wait", "50s")
		require.Equal(t, code, got, stderr)
		if code != exitOK {
			require.Contains(t, stderr, "ctl-0001 ended as "+stateName(state)+": the agent acked it")
		}
	}
	d := newDriver(t)
	d.golden("send-wait-over", "send", "vm-2", "drain", "--wait", "50s")
	var waits []time.Duration
	for _, req := range requestsOf[*migcontrollerv1.SendCommandRequest](d.fleet) {
		waits = append(waits, req.Wait.AsDuration())
		require.Equal(t, "ctl-0001", req.Command.Id, "retries use the same id")
	}
	require.Equal(t, []time.Duration{0, 20 * time.Second, 20 * time.Second, 10 * time.Second}, waits)
}

// A wait survives an outage of the controller once the command is accepted. If the
// controller was never reached, send fails with a hint.
func TestSendOutage(t *testing.T) {
	t.Parallel()
	unavailable := connect.NewError(connect.CodeUnavailable, errors.New("the controller is stopping"))
	d := newDriver(t)
	d.fleet.results = map[string]migcontrollerv1.CommandState{"vm-1": migcontrollerv1.CommandState_COMMAND_STATE_SUCCEEDED}
	calls := 0
	d.fleet.fail = func(req any) error {
		if _, look := req.(*migcontrollerv1.GetVMRequest); look {
			return nil
		}
		calls++
		if calls == 2 || calls == 3 {
			return unavailable
		}
		return nil
	}
	_, stderr, code := d.run("send", "vm-1", "drain", "--wait", "50s")
	require.Zero(t, code, stderr)
	require.Equal(t, 4, calls)

	d = newDriver(t)
	d.fleet.fail = func(any) error { return unavailable }
	d.golden("send-unavailable", "send", "vm-1", "drain", "--wait", "50s")
}

// Errors have a hint and the documented exit status.
func TestErrors(t *testing.T) {
	t.Parallel()
	for code, exit := range map[connect.Code]int{
		connect.CodeInvalidArgument:    exitUsage,
		connect.CodeNotFound:           exitNotFound,
		connect.CodeUnavailable:        exitUnavailable,
		connect.CodeDeadlineExceeded:   exitUnavailable,
		connect.CodeUnimplemented:      exitUnavailable,
		connect.CodeAlreadyExists:      exitFailed,
		connect.CodeFailedPrecondition: exitFailed,
		connect.CodeInternal:           exitFailed,
	} {
		t.Run(code.String(), func(t *testing.T) {
			t.Parallel()
			d := newDriver(t)
			d.fleet.fail = func(any) error {
				if code == connect.CodeNotFound {
					return notFound("command.type must be given")
				}
				return connect.NewError(code, errors.New("command.type must be given"))
			}
			d.golden("error-"+code.String(), "vm", "vm-1")
			_, _, got := d.run("vm", "vm-1")
			require.Equal(t, exit, got)
		})
	}
}

// If the address is unreachable or is not a controller, migctl reports the address and how
// to use another one.
func TestUnreachable(t *testing.T) {
	t.Parallel()
	d := newDriver(t)
	d.server.URL = "http://127.0.0.1:1" // nothing listens here
	d.program.environ[addressEnv] = d.server.URL
	for _, args := range [][]string{{"vms"}, {"watch"}, {"events", "-f"}, {"version"}, {"broadcast", "drain", "-y"}, {"drain", "vm-1"}} {
		_, stderr, code := d.run(args...)
		require.Equal(t, exitUnavailable, code, args)
		require.Contains(t, stderr, "connection refused", args)
	}
	_, stderr, _ := d.run("send", "vm-1", "drain")
	require.NotContains(t, stderr, "may have been accepted", "the request was never sent")
	_, stderr, _ = d.run("watch", "--cursor", "c1")
	require.NotContains(t, stderr, "To continue from here", "nothing was seen")
	_, stderr, _ = d.run("vms")
	require.Contains(t, stderr, "cannot reach the controller at http://controller:8080")
	require.Contains(t, stderr, "Is the controller running? To use another one: --address")

	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	_, stderr, code := d.run("vms", "--address", other.URL)
	require.Equal(t, exitUnavailable, code)
	require.Contains(t, stderr, "is not a controller")
}

// A request to a controller that does not respond times out after --timeout.
func TestTimeout(t *testing.T) {
	t.Parallel()
	d := newDriver(t)
	release := make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	defer slow.Close()
	defer close(release)
	for _, command := range []string{"vms", "watch"} {
		_, stderr, code := d.run(command, "--address", slow.URL, "--timeout", "50ms")
		require.Equal(t, exitUnavailable, code, command)
		require.Contains(t, stderr, "allow more time with --timeout", command)
	}
}

// An interrupted command exits with status 130, whatever its error was.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	d := newDriver(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	d.ctx = ctx
	for _, args := range [][]string{{"vms"}, {"send", "vm-1", "drain"}, {"cancel", "a", "b"}, {"drain", "vm-1", "vm-2"}} {
		_, _, code := d.run(args...)
		require.Equal(t, exitInterrupted, code, args)
	}
	require.Empty(t, requestsOf[*migcontrollerv1.SendCommandRequest](d.fleet))
}

// Contexts are stored in the config file, and the address is chosen in the documented
// order of precedence.
func TestContexts(t *testing.T) {
	t.Parallel()
	d := newDriver(t)
	_, stderr, code := d.run("config", "set-context", "here", "--address", strings.TrimPrefix(d.server.URL, "http://"))
	require.Zero(t, code, stderr)
	_, stderr, code = d.run("config", "set-context", "away", "--address", "https://controller.example/mig/")
	require.Zero(t, code, stderr)
	d.golden("config-get", "config", "get-contexts")
	d.golden("config-use", "config", "use-context", "away")

	address := func(args globals, env string) string {
		p := d.program
		p.environ = map[string]string{configEnv: d.program.environ[configEnv], addressEnv: env}
		got, err := newInvocation(p, args).findTarget()
		require.NoError(t, err)
		return got.Address
	}
	require.Equal(t, "http://flag:1", address(globals{Address: "flag:1", Context: "here"}, "env:1"))
	require.Equal(t, d.server.URL, address(globals{Context: "here"}, "env:1"))
	require.Equal(t, "http://env:1", address(globals{}, "env:1"))
	require.Equal(t, "https://controller.example/mig", address(globals{}, ""))

	path := d.program.environ[configEnv]
	require.NoError(t, os.WriteFile(path, []byte("contexts: {here: {url: x}}\n"), 0o600))
	delete(d.program.environ, addressEnv)
	_, stderr, code = d.run("vms")
	require.Equal(t, exitUsage, code)
	require.Contains(t, stderr, "url", "the error names an unknown field")

	require.NoError(t, os.Remove(path))
	require.Equal(t, defaultAddress, address(globals{}, ""))
}

// No line of a table is wider than the terminal.
func TestWidth(t *testing.T) {
	t.Parallel()
	colours := regexp.MustCompile("\x1b\\[\\d*m")
	for _, width := range []int{60, 70, 80, 200} {
		for _, args := range [][]string{{"vms"}, {"commands"}, {"events"}, {"vm", "vm-1"}, {"command", "ctl-aa02"}} {
			d := newDriver(t)
			d.terminal(width, "")
			stdout, _, code := d.run(args...)
			require.Zero(t, code)
			for line := range strings.Lines(colours.ReplaceAllString(stdout, "")) {
				require.LessOrEqual(t, utf8.RuneCountInString(strings.TrimSuffix(line, "\n")), width, line)
			}
		}
	}
}

// Relative times are rounded down to their largest unit.
func TestRelative(t *testing.T) {
	t.Parallel()
	for ago, want := range map[time.Duration]string{
		0: "now", 999 * time.Millisecond: "now", time.Second: "1s ago", 59 * time.Second: "59s ago", time.Minute: "1m ago",
		59*time.Minute + 59*time.Second: "59m ago", 47 * time.Hour: "47h ago", 48 * time.Hour: "2d ago", -90 * time.Second: "in 1m",
	} {
		require.Equal(t, want, relative(epoch, epoch.Add(-ago)))
	}
}

// version shows the versions of migctl and the controller. A controller too old to report
// its version counts as reachable.
func TestVersion(t *testing.T) {
	t.Parallel()
	d := newDriver(t)
	d.golden("version", "version")
	d.golden("version-json", "version", "-o", "json")
	d.fleet.old = true
	d.golden("version-old", "version")
	stdout, stderr, code := d.run("version", "-o", "json")
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, `"reachable": true`)
	require.NotContains(t, stdout, "server")
	d.server.Close()
	stdout, _, code = d.run("version")
	require.Equal(t, exitUnavailable, code)
	require.Contains(t, stdout, "http://controller:8080 does not answer\n")
	stdout, _, code = d.run("version", "--client")
	require.Zero(t, code)
	require.NotContains(t, stdout, "controller")
}

// A proxy that does not know the method is not reported as an old controller.
func TestVersionNotAController(t *testing.T) {
	t.Parallel()
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	_, stderr, code := newDriver(t).run("version", "--address", other.URL)
	require.Equal(t, exitUnavailable, code)
	require.Contains(t, stderr, "is not a controller")
}

// An output error sets the exit status, in every output format.
func TestOutputError(t *testing.T) {
	t.Parallel()
	for _, format := range []string{outTable, outWide, outJSON, outYAML} {
		d := newDriver(t)
		p := d.program
		var stderr bytes.Buffer
		p.stdout, p.stderr = brokenWriter{}, &stderr
		require.Equal(t, exitFailed, p.run(d.ctx, []string{"vms", "-o", format}), format)
		require.Contains(t, stderr.String(), "the disk is full", format)
	}
}

// brokenWriter always fails.
type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("the disk is full") }
