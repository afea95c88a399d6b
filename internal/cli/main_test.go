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

var update = flag.Bool("update", false, "write the golden files anew")

// builtIn is the directory of the programs that tests run; empty when none did.
var builtIn string

func TestMain(m *testing.M) { goleak.VerifyTestMain(tidy{m}) }

// tidy removes the programs after the tests.
type tidy struct{ *testing.M }

func (m tidy) Run() int {
	defer func() {
		if builtIn != "" {
			_ = os.RemoveAll(builtIn)
		}
	}()
	return m.M.Run()
}

// epoch is when every test happens.
var epoch = time.Date(2026, 3, 1, 3, 0, 0, 0, time.UTC)

// desk is migctl at a controller of the test's own.
type desk struct {
	t       *testing.T
	fleet   *fakeFleet
	server  *httptest.Server
	program program
	ctx     context.Context //nolint:containedctx // the life of one test
}

// newDesk starts a fake controller; stdout is no terminal.
func newDesk(t *testing.T) *desk {
	t.Helper()
	fleet := newFakeFleet()
	mux := http.NewServeMux()
	mux.Handle(migcontrollerv1connect.NewAdminServiceHandler(fleet))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	ids := 0
	var lock sync.Mutex
	return &desk{
		t: t, fleet: fleet, server: server, ctx: t.Context(),
		program: program{
			environ: map[string]string{
				addressEnv: server.URL, configEnv: filepath.Join(t.TempDir(), "config", "config.yaml"),
			},
			stdin: strings.NewReader(""),
			width: func() int { return 0 }, noteWidth: func() int { return 0 },
			now: fleet.now,
			pause: func(ctx context.Context, d time.Duration) error {
				fleet.advance(d)
				return ctx.Err()
			},
			silence: migclient.Silence,
			newID: func() string {
				lock.Lock()
				defer lock.Unlock()
				ids++
				return fmt.Sprintf("ctl-%04d", ids)
			},
		},
	}
}

// terminal puts a terminal of this width in front of migctl, and an operator who
// types.
func (d *desk) terminal(width int, typed string) {
	d.program.width = func() int { return width }
	d.program.noteWidth = d.program.width
	d.program.asks, d.program.reports = true, true
	d.program.stdin = strings.NewReader(typed)
}

// run runs a command line. In what it says, the server's address is replaced.
func (d *desk) run(args ...string) (stdout, stderr string, code int) {
	d.t.Helper()
	var out, errs bytes.Buffer
	p := d.program
	p.stdout, p.stderr = &out, &errs
	code = p.run(d.ctx, args)
	names := strings.NewReplacer(d.server.URL, "http://controller:8080", runtime.GOOS+"/"+runtime.GOARCH, "linux/amd64")
	name := names.Replace
	return name(out.String()), name(errs.String()), code
}

// golden compares all that a command line says with testdata/name.golden.
func (d *desk) golden(name string, args ...string) {
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

// fakeFleet is AdminService over fixed data.
type fakeFleet struct {
	migcontrollerv1connect.UnimplementedAdminServiceHandler

	lock     sync.Mutex
	clock    time.Time
	vms      []*migcontrollerv1.VM
	commands []*migcontrollerv1.CommandRecord
	events   []*migcontrollerv1.Event
	// page is the largest page; 0 is no limit.
	page int
	// old leaves out what was added to the schema later.
	old bool
	// asked are the requests that came.
	asked []any
	// fail answers a request with an error; nil lets it through.
	fail func(request any) error
	// sending is called while a command is being accepted, if it is set.
	sending func()
	// becomes is the state of a command by VM, once it is waited for.
	becomes map[string]migcontrollerv1.CommandState
	// streams are what the watches send, one after the other.
	streams []func(*migcontrollerv1.WatchFleetRequest, *connect.ServerStream[migcontrollerv1.WatchFleetResponse]) error
}

// notFound is the error of the controller for what does not exist.
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

// arrive notes a request.
func (f *fakeFleet) arrive(request any) error {
	f.lock.Lock()
	defer f.lock.Unlock()
	f.asked = append(f.asked, request)
	if f.fail != nil {
		return f.fail(request)
	}
	return nil
}

// requestsOf returns the requests of one kind in the order in which they came.
func requestsOf[T any](f *fakeFleet) []T {
	f.lock.Lock()
	defer f.lock.Unlock()
	var all []T
	for _, request := range f.asked {
		if r, ok := request.(T); ok {
			all = append(all, r)
		}
	}
	return all
}

// cut returns a page of all and the token of the next.
func cut[T any](all []T, limit int, size int32, token string) (page []T, next string, err error) {
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
	if err := f.arrive(req); err != nil {
		return nil, err
	}
	return &migcontrollerv1.GetServerInfoResponse{Version: "v1.4.0", StartedAt: stamp(-26 * time.Hour), LiveSessions: 2}, nil
}

func (f *fakeFleet) ListVMs(_ context.Context, req *migcontrollerv1.ListVMsRequest) (*migcontrollerv1.ListVMsResponse, error) {
	if err := f.arrive(req); err != nil {
		return nil, err
	}
	var fitting []*migcontrollerv1.VM
	for _, v := range f.vms {
		if (req.PoolId == "" || v.PoolId == req.PoolId) && (req.OrgId == "" || v.OrgId == req.OrgId) &&
			(req.Status == "" || v.Status == req.Status) && (req.Connected == nil || v.Connected == *req.Connected) {
			fitting = append(fitting, v)
		}
	}
	page, next, err := cut(fitting, f.page, req.PageSize, req.PageToken)
	return &migcontrollerv1.ListVMsResponse{Vms: page, NextPageToken: next}, err
}

func (f *fakeFleet) GetVM(_ context.Context, req *migcontrollerv1.GetVMRequest) (*migcontrollerv1.GetVMResponse, error) {
	if err := f.arrive(req); err != nil {
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
	if err := f.arrive(req); err != nil {
		return nil, err
	}
	page, next, err := cut(f.commands, f.page, req.PageSize, req.PageToken)
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
	if err := f.arrive(req); err != nil {
		return nil, err
	}
	c, err := f.find(req.CommandId)
	return &migcontrollerv1.GetCommandResponse{Command: c}, err
}

func (f *fakeFleet) CancelCommand(
	_ context.Context, req *migcontrollerv1.CancelCommandRequest,
) (*migcontrollerv1.CancelCommandResponse, error) {
	if err := f.arrive(req); err != nil {
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

// SendCommand accepts every command. When it is waited for, the whole wait
// passes on the clock, and then it is what the VM's commands become.
func (f *fakeFleet) SendCommand(
	_ context.Context, req *migcontrollerv1.SendCommandRequest,
) (*migcontrollerv1.SendCommandResponse, error) {
	if err := f.arrive(req); err != nil {
		return nil, err
	}
	if f.sending != nil {
		f.sending()
	}
	record := &migcontrollerv1.CommandRecord{
		Command: req.Command, VmId: req.VmId, State: migcontrollerv1.CommandState_COMMAND_STATE_PENDING, AcceptedAt: stamp(0),
		ExpiresAt: stamp(time.Hour),
	}
	if req.Wait == nil {
		return &migcontrollerv1.SendCommandResponse{Command: record}, nil
	}
	if state, known := f.becomes[req.VmId]; known {
		record.State, record.Attempts, record.Reason = state, 1, "the agent acked it"
	} else {
		f.advance(req.Wait.AsDuration())
	}
	return &migcontrollerv1.SendCommandResponse{Command: record}, nil
}

func (f *fakeFleet) ListEvents(_ context.Context, req *migcontrollerv1.ListEventsRequest) (*migcontrollerv1.ListEventsResponse, error) {
	if err := f.arrive(req); err != nil {
		return nil, err
	}
	page, next, err := cut(f.events, f.page, req.PageSize, req.PageToken)
	return &migcontrollerv1.ListEventsResponse{Events: page, NextPageToken: next}, err
}

func (f *fakeFleet) ListHeartbeats(
	_ context.Context, req *migcontrollerv1.ListHeartbeatsRequest,
) (*migcontrollerv1.ListHeartbeatsResponse, error) {
	if err := f.arrive(req); err != nil {
		return nil, err
	}
	v, err := f.findVM(req.GetVmId())
	if err != nil {
		return nil, err
	}
	stream, http := migcontrollerv1.ReportSource_REPORT_SOURCE_STREAM, migcontrollerv1.ReportSource_REPORT_SOURCE_HTTP
	beats := []*migcontrollerv1.HeartbeatRecord{
		{
			VmId: v.GetVmId(), ReceivedAt: stamp(-3 * time.Second), SentAt: stamp(-4 * time.Second), Source: stream, SessionEpoch: 3,
			Status: v.GetStatus(), Runner: v.GetRunner(), CurrentJob: v.GetCurrentJob(), Health: v.GetHealth(),
		},
		{VmId: v.GetVmId(), ReceivedAt: stamp(-time.Hour), Source: http, Status: "ready", Runner: &migcontrollerv1.Runner{State: "idle"}},
	}
	page, next, err := cut(beats, f.page, req.PageSize, req.PageToken)
	return &migcontrollerv1.ListHeartbeatsResponse{Heartbeats: page, NextPageToken: next}, err
}

func (f *fakeFleet) WatchFleet(
	_ context.Context, req *migcontrollerv1.WatchFleetRequest, stream *connect.ServerStream[migcontrollerv1.WatchFleetResponse],
) error {
	if err := f.arrive(req); err != nil {
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
