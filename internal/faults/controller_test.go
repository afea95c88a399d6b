package faults

import (
	"context"
	"encoding/json"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
)

const (
	pending   = migcontrollerv1.CommandState_COMMAND_STATE_PENDING
	delivered = migcontrollerv1.CommandState_COMMAND_STATE_DELIVERED
	succeeded = migcontrollerv1.CommandState_COMMAND_STATE_SUCCEEDED
	failed    = migcontrollerv1.CommandState_COMMAND_STATE_FAILED
	timedOut  = migcontrollerv1.CommandState_COMMAND_STATE_TIMED_OUT
	expired   = migcontrollerv1.CommandState_COMMAND_STATE_EXPIRED
)

type (
	record      = migcontrollerv1.CommandRecord
	sendRequest = migcontrollerv1.SendCommandRequest
)

// controller is the program with ports and a data directory of its own, and its log.
type controller struct {
	*child
	addr    string
	options []string
	admin   migcontrollerv1connect.AdminServiceClient
}

// startController starts a controller.
func startController(t *testing.T, options ...string) *controller {
	t.Helper()
	c := newController(t, options...)
	c.start(t)
	return c
}

// newController returns a controller that has not been started.
func newController(t *testing.T, options ...string) *controller {
	t.Helper()
	c := &controller{addr: freePorts(t, 1)[0]}
	c.options = append([]string{
		"--http-addr=" + c.addr, "--grpc-addr=" + c.addr, "--log-format=json",
		"--data-dir=" + filepath.Join(t.TempDir(), "data"),
	}, options...)
	c.admin = migcontrollerv1connect.NewAdminServiceClient(&http.Client{Transport: newTransport(t)}, "http://"+c.addr)
	return c
}

// start starts the controller, also after it was killed; its log is cleared.
func (c *controller) start(t *testing.T) {
	t.Helper()
	c.child = startChild(t, exec.CommandContext(t.Context(), program(t, "controller"), c.options...))
	c.awaitStart(t)
}

// awaitStart waits until the controller serves.
func (c *controller) awaitStart(t *testing.T) {
	t.Helper()
	awaitListener(t, c.addr, c.child)
	c.awaitLine(t, ofMessage("controller started"))
}

// startSim starts simulated agents.
func (c *controller) startSim(t *testing.T, options ...string) *child {
	t.Helper()
	return startChild(t, exec.CommandContext(t.Context(), program(t, "migletsim"),
		append([]string{"--controller=" + c.addr}, options...)...))
}

// send sends a set_log_level with this id.
func (c *controller) send(t *testing.T, vm, id string, change ...func(*sendRequest)) *record {
	t.Helper()
	r, err := c.trySend(t.Context(), vm, id, change...)
	require.NoError(t, err)
	return r
}

func (c *controller) trySend(ctx context.Context, vm, id string, change ...func(*sendRequest)) (*record, error) {
	r := &sendRequest{VmId: vm, Command: &commands.Command{Id: id, Type: "set_log_level"}}
	for _, f := range change {
		f(r)
	}
	answer, err := c.admin.SendCommand(ctx, r)
	return answer.GetCommand(), err
}

func withType(typ string) func(*sendRequest) {
	return func(r *sendRequest) { r.Command.Type = typ }
}

func withTTL(d time.Duration) func(*sendRequest) {
	return func(r *sendRequest) { r.Ttl = durationpb.New(d) }
}

func withAckTimeout(d time.Duration) func(*sendRequest) {
	return func(r *sendRequest) { r.AckTimeout = durationpb.New(d) }
}

func withMaxDeliveries(n int32) func(*sendRequest) {
	return func(r *sendRequest) { r.MaxDeliveries = n }
}

func (c *controller) command(t *testing.T, id string) *record {
	t.Helper()
	answer, err := c.admin.GetCommand(t.Context(), &migcontrollerv1.GetCommandRequest{CommandId: id})
	require.NoError(t, err)
	return answer.GetCommand()
}

func (c *controller) commands(t *testing.T, vm string) []*record {
	t.Helper()
	answer, err := c.admin.ListCommands(t.Context(), &migcontrollerv1.ListCommandsRequest{VmId: vm})
	require.NoError(t, err)
	return answer.GetCommands()
}

// registration returns the VM's latest register_runner.
func (c *controller) registration(t *testing.T, vm string) *record {
	t.Helper()
	return c.command(t, c.vm(t, vm).GetRegistration().GetCommandId())
}

func (c *controller) vm(t *testing.T, vm string) *migcontrollerv1.VM {
	t.Helper()
	answer, err := c.admin.GetVM(t.Context(), &migcontrollerv1.GetVMRequest{VmId: vm})
	require.NoError(t, err)
	return answer.GetVm()
}

func (c *controller) vms(t *testing.T) []*migcontrollerv1.VM {
	t.Helper()
	answer, err := c.admin.ListVMs(t.Context(), &migcontrollerv1.ListVMsRequest{})
	require.NoError(t, err)
	return answer.GetVms()
}

// awaitState waits until the command is in a state.
func (c *controller) awaitState(t *testing.T, id string, s migcontrollerv1.CommandState) *record {
	t.Helper()
	var r *record
	await(t, func() bool {
		r = c.command(t, id)
		return r.GetState() == s
	}, "%s does not become %s", id, s)
	return r
}

// awaitEnd waits until the command has ended, which must be in this state.
func (c *controller) awaitEnd(t *testing.T, id string, s migcontrollerv1.CommandState) *record {
	t.Helper()
	var r *record
	await(t, func() bool {
		r = c.command(t, id)
		return r.GetFinishedAt() != nil
	}, "%s does not end", id)
	require.Equal(t, s, r.GetState(), r)
	return r
}

// stays requires that a condition keeps holding for a while.
func stays(t *testing.T, d time.Duration, holds func() bool, otherwise string) {
	t.Helper()
	// As in awaitFor, on this goroutine.
	for over := time.After(d); ; {
		if !holds() {
			require.FailNow(t, "not for "+d.String(), otherwise)
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-over:
			return
		}
	}
}

// await waits until a condition holds.
func await(t *testing.T, holds func() bool, message string, args ...any) {
	t.Helper()
	awaitFor(t, patience, holds, message, args...)
}

func awaitFor(t *testing.T, d time.Duration, holds func() bool, message string, args ...any) {
	t.Helper()
	// Not require.Eventually: holds may use require, which must not be called on another
	// goroutine.
	deadline := time.After(d)
	for !holds() {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-deadline:
			require.FailNow(t, "not within "+d.String(), append([]any{message}, args...)...)
		}
	}
}

// awaitLine waits for a log line that contains these texts.
func (c *controller) awaitLine(t *testing.T, texts ...string) string {
	t.Helper()
	return c.awaitLineFor(t, patience, texts...)
}

func (c *controller) awaitLineFor(t *testing.T, d time.Duration, texts ...string) string {
	t.Helper()
	awaitFor(t, d, func() bool { return len(c.out.lines(texts...)) > 0 }, "no line with %q", texts)
	return c.out.lines(texts...)[0]
}

// The parts of log lines.
func ofMessage(text string) string { return `"msg":"` + text + `"` }
func ofVM(id string) string        { return `"vm_id":"` + id + `"` }
func ofCommand(id string) string   { return `"command_id":"` + id + `"` }
func ofCause(text string) string   { return `"cause":"` + text + `"` }

// timeOf returns the time of a log line.
func timeOf(t *testing.T, line string) time.Time {
	t.Helper()
	var fields struct {
		Time time.Time `json:"time"`
	}
	require.NoError(t, json.Unmarshal([]byte(line), &fields), line)
	return fields.Time
}

// life returns the log messages about a command, in order.
func (c *controller) life(id string) []string {
	var steps []string
	for _, line := range c.out.lines(ofCommand(id)) {
		_, rest, _ := strings.Cut(line, `"msg":"`)
		if step, _, _ := strings.Cut(rest, `"`); step != "audit" { // written by the call, at the same time
			steps = append(steps, step)
		}
	}
	return steps
}

// watch collects the changes of the fleet.
type watch struct {
	mu      sync.Mutex
	changes []*migcontrollerv1.WatchFleetResponse
}

// watch watches the fleet until the test ends.
func (c *controller) watch(t *testing.T) *watch {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := c.admin.WatchFleet(ctx, &migcontrollerv1.WatchFleetRequest{})
	require.NoError(t, err)
	require.True(t, stream.Receive(), "the first update: %v", stream.Err())
	w, ended := new(watch), make(chan struct{})
	go func() {
		defer close(ended)
		for stream.Receive() {
			if m := stream.Msg(); m.GetChange() != nil {
				w.mu.Lock()
				w.changes = append(w.changes, m)
				w.mu.Unlock()
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		_ = stream.Close() // it is cancelled
	})
	return w
}

func (w *watch) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.changes)
}

// waiting returns the VM's waiting reason according to its last change.
func (w *watch) waiting(vm string) (reason string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range w.changes {
		if m.GetVm().GetVmId() == vm {
			reason = m.GetVm().GetWaiting().GetReason()
		}
	}
	return reason
}

// deliveries returns when the command was delivered.
func (w *watch) deliveries(id string) []time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	attempts := int32(0)
	var at []time.Time
	for _, m := range w.changes {
		r := m.GetCommand()
		if r.GetCommand().GetId() != id || r.GetState() != delivered || r.GetAttempts() <= attempts {
			continue
		}
		attempts = r.GetAttempts()
		at = append(at, r.GetDeliveredAt().AsTime())
	}
	return at
}

// takenOver returns when the first session of the VM after a given time was opened.
func (w *watch) takenOver(vm string, after time.Time) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range w.changes {
		at := m.GetVm().GetConnectedAt().AsTime()
		if m.GetVm().GetVmId() == vm && at.After(after) {
			return at
		}
	}
	return time.Time{}
}
