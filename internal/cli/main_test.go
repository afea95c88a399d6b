package cli

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/mig-controller/mig-controller/gen/go/migclient"
	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// binDir is the directory of the binaries that tests built, or empty.
var binDir string

func TestMain(m *testing.M) { goleak.VerifyTestMain(cleanup{m}) }

// cleanup removes the binaries after the tests.
type cleanup struct{ *testing.M }

func (m cleanup) Run() int {
	defer func() {
		if binDir != "" {
			_ = os.RemoveAll(binDir)
		}
	}()
	return m.M.Run()
}

// epoch is the current time in every test.
var epoch = time.Date(2026, 3, 1, 3, 0, 0, 0, time.UTC)

// driver runs migctl command lines against a fake controller.
type driver struct {
	t       *testing.T
	fleet   *fakeFleet
	server  *httptest.Server
	program program
	ctx     context.Context //nolint:containedctx // lives for one test
}

// newDriver starts a fake controller. stdout is not a terminal.
func newDriver(t *testing.T) *driver {
	t.Helper()
	fleet := newFakeFleet()
	mux := http.NewServeMux()
	mux.Handle(migcontrollerv1connect.NewAdminServiceHandler(fleet))
	mux.Handle(migcontrollerv1connect.NewAccessServiceHandler(&fakeAccess{fleet: fleet}))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	ids := 0
	var lock sync.Mutex
	return &driver{
		t: t, fleet: fleet, server: server, ctx: t.Context(),
		program: program{
			environ: map[string]string{
				addressEnv: server.URL, configEnv: filepath.Join(t.TempDir(), "config", "config.yaml"),
			},
			stdin: strings.NewReader(""),
			width: func() int { return 0 }, stderrWidth: func() int { return 0 },
			now: fleet.now,
			pause: func(ctx context.Context, d time.Duration) error {
				fleet.advance(d)
				return ctx.Err()
			},
			silence: migclient.Silence, tokenCommandTimeout: time.Minute,
			newID: func() string {
				lock.Lock()
				defer lock.Unlock()
				ids++
				return fmt.Sprintf("ctl-%04d", ids)
			},
		},
	}
}

// terminal makes stdin, stdout and stderr a terminal of this width with the typed input.
func (d *driver) terminal(width int, typed string) {
	d.program.width = func() int { return width }
	d.program.stderrWidth = d.program.width
	d.program.stdinTTY, d.program.stderrTTY = true, true
	d.program.stdin = strings.NewReader(typed)
}

// run runs a command line. In its output, the server's address and the platform are
// replaced by fixed values.
func (d *driver) run(args ...string) (stdout, stderr string, code int) {
	d.t.Helper()
	var out, errs bytes.Buffer
	p := d.program
	p.stdout, p.stderr = &out, &errs
	code = p.run(d.ctx, args)
	fixed := strings.NewReplacer(d.server.URL, "http://controller:8080", runtime.GOOS+"/"+runtime.GOARCH, "linux/amd64").Replace
	return fixed(out.String()), fixed(errs.String()), code
}

// golden compares the output and exit status of a command line with testdata/name.golden.
func (d *driver) golden(name string, args ...string) {
	d.t.Helper()
	stdout, stderr, code := d.run(args...)
	quoted := strings.Join(args, " ")
	got := fmt.Sprintf("$ migctl %s\n%s", quoted, stdout)
	if stderr != "" {
		got += "--- stderr\n" + stderr
	}
	got += fmt.Sprintf("--- exit status %d\n", code)
	file := filepath.Join("testdata", name+".golden")
	if *update {
		require.NoError(d.t, os.MkdirAll("testdata", 0o750))
		require.NoError(d.t, os.WriteFile(file, []byte(got), 0o600))
	}
	want, err := os.ReadFile(file)
	require.NoError(d.t, err)
	require.Equal(d.t, string(want), got)
}

// fakeFleet is an AdminService with fixed data.
type fakeFleet struct {
	migcontrollerv1connect.UnimplementedAdminServiceHandler

	lock     sync.Mutex
	clock    time.Time
	vms      []*migcontrollerv1.VM
	commands []*migcontrollerv1.CommandRecord
	events   []*migcontrollerv1.Event
	// page is the maximum page size; 0 is unlimited.
	page int
	// old is set for a controller without GetServerInfo.
	old bool
	// requests are the received requests.
	requests []any
	// fail returns the error for a request, or nil to execute it.
	fail func(request any) error
	// onSend, if set, is called during SendCommand.
	onSend func()
	// results maps VMs to the state of their commands after a wait.
	results map[string]migcontrollerv1.CommandState
	// streams serve the WatchFleet requests, one each.
	streams []func(*migcontrollerv1.WatchFleetRequest, *connect.ServerStream[migcontrollerv1.WatchFleetResponse]) error
}

// notFound returns a not-found error as the controller sends it.
func notFound(format string, args ...any) error {
	err := connect.NewError(connect.CodeNotFound, fmt.Errorf(format, args...))
	detail, bad := connect.NewErrorDetail(&migcontrollerv1.ErrorDetail{Reason: migcontrollerv1.ErrorReason_ERROR_REASON_NOT_FOUND})
	if bad != nil {
		panic(bad)
	}
	err.AddDetail(detail)
	return err
}

func (f *fakeFleet) now() time.Time {
	f.lock.Lock()
	defer f.lock.Unlock()
	return f.clock
}

func (f *fakeFleet) advance(d time.Duration) {
	f.lock.Lock()
	defer f.lock.Unlock()
	f.clock = f.clock.Add(d)
}

// receive records a request, and returns the error to respond with.
func (f *fakeFleet) receive(request any) error {
	f.lock.Lock()
	defer f.lock.Unlock()
	f.requests = append(f.requests, request)
	if f.fail != nil {
		return f.fail(request)
	}
	return nil
}

// requestsOf returns the received requests of one type in order.
func requestsOf[T any](f *fakeFleet) []T {
	f.lock.Lock()
	defer f.lock.Unlock()
	var all []T
	for _, request := range f.requests {
		if r, ok := request.(T); ok {
			all = append(all, r)
		}
	}
	return all
}

// paginate returns one page and the token of the next.
func paginate[T any](all []T, limit int, size int32, token string) (page []T, next string, err error) {
	from := 0
	if token != "" {
		if _, err := fmt.Sscanf(token, "at-%d", &from); err != nil {
			return nil, "", connect.NewError(connect.CodeInvalidArgument, err)
		}
	}
	n := int(size)
	if limit > 0 {
		n = min(n, limit)
	}
	to := min(from+n, len(all))
	if to < len(all) {
		next = fmt.Sprintf("at-%d", to)
	}
	return all[from:to], next, nil
}

// GetServerInfo implements AdminService; an older controller does not.
func (f *fakeFleet) GetServerInfo(
	ctx context.Context, req *migcontrollerv1.GetServerInfoRequest,
) (*migcontrollerv1.GetServerInfoResponse, error) {
	if f.old {
		return f.UnimplementedAdminServiceHandler.GetServerInfo(ctx, req)
	}
	if err := f.receive(req); err != nil {
		return nil, err
	}
	return &migcontrollerv1.GetServerInfoResponse{
		Version: "v1.4.0", StartedAt: stamp(-26 * time.Hour), LiveSessions: 2,
		LogLevel: migcontrollerv1.LogLevel_LOG_LEVEL_INFO, ConfiguredLogLevel: migcontrollerv1.LogLevel_LOG_LEVEL_INFO,
	}, nil
}

func (f *fakeFleet) ListVMs(_ context.Context, req *migcontrollerv1.ListVMsRequest) (*migcontrollerv1.ListVMsResponse, error) {
	if err := f.receive(req); err != nil {
		return nil, err
	}
	var matching []*migcontrollerv1.VM
	for _, v := range f.vms {
		if (req.PoolId == "" || v.PoolId == req.PoolId) && (req.OrgId == "" || v.OrgId == req.OrgId) &&
			(req.Status == "" || v.Status == req.Status) && (req.Connected == nil || v.Connected == *req.Connected) {
			matching = append(matching, v)
		}
	}
	page, next, err := paginate(matching, f.page, req.PageSize, req.PageToken)
	return &migcontrollerv1.ListVMsResponse{Vms: page, NextPageToken: next}, err
}

func (f *fakeFleet) GetVM(_ context.Context, req *migcontrollerv1.GetVMRequest) (*migcontrollerv1.GetVMResponse, error) {
	if err := f.receive(req); err != nil {
		return nil, err
	}
	v, err := f.findVM(req.VmId)
	return &migcontrollerv1.GetVMResponse{Vm: v}, err
}

func (f *fakeFleet) findVM(id string) (*migcontrollerv1.VM, error) {
	for _, v := range f.vms {
		if v.GetVmId() == id {
			return v, nil
		}
	}
	return nil, notFound("VM %q: not found", id)
}

func (f *fakeFleet) ListCommands(
	_ context.Context, req *migcontrollerv1.ListCommandsRequest,
) (*migcontrollerv1.ListCommandsResponse, error) {
	if err := f.receive(req); err != nil {
		return nil, err
	}
	page, next, err := paginate(f.commands, f.page, req.PageSize, req.PageToken)
	return &migcontrollerv1.ListCommandsResponse{Commands: page, NextPageToken: next}, err
}

func (f *fakeFleet) find(id string) (*migcontrollerv1.CommandRecord, error) {
	for _, c := range f.commands {
		if c.GetCommand().GetId() == id {
			return c, nil
		}
	}
	return nil, notFound("command %q: not found", id)
}

func (f *fakeFleet) GetCommand(
	_ context.Context, req *migcontrollerv1.GetCommandRequest,
) (*migcontrollerv1.GetCommandResponse, error) {
	if err := f.receive(req); err != nil {
		return nil, err
	}
	c, err := f.find(req.CommandId)
	return &migcontrollerv1.GetCommandResponse{Command: c}, err
}

func (f *fakeFleet) CancelCommand(
	_ context.Context, req *migcontrollerv1.CancelCommandRequest,
) (*migcontrollerv1.CancelCommandResponse, error) {
	if err := f.receive(req); err != nil {
		return nil, err
	}
	c, err := f.find(req.CommandId)
	if err == nil && ended(c) {
		return nil, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("command %q: the command has already ended", req.CommandId))
	}
	if err != nil {
		return nil, err
	}
	return &migcontrollerv1.CancelCommandResponse{Command: &migcontrollerv1.CommandRecord{
		Command: c.Command, VmId: c.VmId, AcceptedAt: c.AcceptedAt,
		State: migcontrollerv1.CommandState_COMMAND_STATE_CANCELLED, Reason: "cancelled by an operator",
	}}, nil
}

// SendCommand accepts every command. With a wait, the command gets the state that
// results has for the VM; if there is none, the clock advances by the wait.
func (f *fakeFleet) SendCommand(
	_ context.Context, req *migcontrollerv1.SendCommandRequest,
) (*migcontrollerv1.SendCommandResponse, error) {
	if err := f.receive(req); err != nil {
		return nil, err
	}
	if f.onSend != nil {
		f.onSend()
	}
	record := &migcontrollerv1.CommandRecord{
		Command: req.Command, VmId: req.VmId, State: migcontrollerv1.CommandState_COMMAND_STATE_PENDING, AcceptedAt: stamp(0),
		ExpiresAt: stamp(time.Hour),
	}
	if req.Wait == nil {
		return &migcontrollerv1.SendCommandResponse{Command: record}, nil
	}
	if state, known := f.results[req.VmId]; known {
		record.State, record.Attempts, record.Reason = state, 1, "the agent acked it"
	} else {
		f.advance(req.Wait.AsDuration())
	}
	return &migcontrollerv1.SendCommandResponse{Command: record}, nil
}

func (f *fakeFleet) ListEvents(_ context.Context, req *migcontrollerv1.ListEventsRequest) (*migcontrollerv1.ListEventsResponse, error) {
	if err := f.receive(req); err != nil {
		return nil, err
	}
	page, next, err := paginate(f.events, f.page, req.PageSize, req.PageToken)
	return &migcontrollerv1.ListEventsResponse{Events: page, NextPageToken: next}, err
}

func (f *fakeFleet) ListHeartbeats(
	_ context.Context, req *migcontrollerv1.ListHeartbeatsRequest,
) (*migcontrollerv1.ListHeartbeatsResponse, error) {
	if err := f.receive(req); err != nil {
		return nil, err
	}
	v, err := f.findVM(req.GetVmId())
	if err != nil {
		return nil, err
	}
	stream, http := migcontrollerv1.ReportSource_REPORT_SOURCE_STREAM, migcontrollerv1.ReportSource_REPORT_SOURCE_HTTP
	heartbeats := []*migcontrollerv1.HeartbeatRecord{
		{
			VmId: v.GetVmId(), ReceivedAt: stamp(-3 * time.Second), SentAt: stamp(-4 * time.Second), Source: stream, SessionEpoch: 3,
			Status: v.GetStatus(), Runner: v.GetRunner(), CurrentJob: v.GetCurrentJob(), Health: v.GetHealth(),
		},
		{VmId: v.GetVmId(), ReceivedAt: stamp(-time.Hour), Source: http, Status: "ready", Runner: &migcontrollerv1.Runner{State: "idle"}},
	}
	page, next, err := paginate(heartbeats, f.page, req.PageSize, req.PageToken)
	return &migcontrollerv1.ListHeartbeatsResponse{Heartbeats: page, NextPageToken: next}, err
}

func (f *fakeFleet) WatchFleet(
	_ context.Context, req *migcontrollerv1.WatchFleetRequest, stream *connect.ServerStream[migcontrollerv1.WatchFleetResponse],
) error {
	if err := f.receive(req); err != nil {
		return err
	}
	f.lock.Lock()
	if len(f.streams) == 0 {
		f.lock.Unlock()
		return connect.NewError(connect.CodeInternal, io.EOF)
	}
	next := f.streams[0]
	f.streams = f.streams[1:]
	f.lock.Unlock()
	return next(req, stream)
}
