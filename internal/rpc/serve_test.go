package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
	"github.com/mig-controller/mig-controller/internal/auth"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/readiness"
	"github.com/mig-controller/mig-controller/internal/registration"
	"github.com/mig-controller/mig-controller/internal/session"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeAgents records its calls, and returns what the test has set.
type fakeAgents struct {
	mu         sync.Mutex
	events     []fleet.Event
	heartbeats []fleet.Heartbeat
	polls      []fleet.VMID
	tokens     []tokenCall

	vm fleet.VM
	// started is the lease in the response to vm_started.
	started *session.Lease
	leases  []session.Lease
	runner  registration.Runner
	err     error
}

type tokenCall struct {
	vm     fleet.VMID
	group  string
	labels []string
}

// receivedAt is the time of receipt of all events of a fakeAgents.
var receivedAt = time.Date(2026, 1, 2, 3, 4, 5, 60_000_000, time.UTC)

func (f *fakeAgents) ReportEvent(_ context.Context, e fleet.Event) (fleet.VM, fleet.Event, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events = append(f.events, e)
	e.ReceivedAt = receivedAt
	return f.vm, e, f.err
}

func (f *fakeAgents) AnswerStarted(context.Context, fleet.VM) (*session.Lease, error) {
	return f.started, f.err
}

func (f *fakeAgents) ReportHeartbeat(_ context.Context, h fleet.Heartbeat) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.heartbeats = append(f.heartbeats, h)
	return f.err
}

func (f *fakeAgents) Poll(_ context.Context, vm fleet.VMID) ([]session.Lease, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.polls = append(f.polls, vm)
	return f.leases, f.err
}

func (f *fakeAgents) Token(_ context.Context, vm fleet.VMID, group string, labels []string) (registration.Runner, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tokens = append(f.tokens, tokenCall{vm, group, labels})
	return f.runner, f.err
}

// calls returns the number of calls.
func (f *fakeAgents) calls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.events) + len(f.heartbeats) + len(f.polls) + len(f.tokens)
}

// fakeStreams serves streams with a function.
type fakeStreams func(context.Context, *bidiStream) error

func (f fakeStreams) StreamCommands(ctx context.Context, stream *bidiStream) error {
	return f(ctx, stream)
}

// fakeAdmin answers GetCommand.
type fakeAdmin struct {
	migcontrollerv1connect.UnimplementedAdminServiceHandler
}

func (fakeAdmin) GetCommand(
	context.Context, *migcontrollerv1.GetCommandRequest,
) (*migcontrollerv1.GetCommandResponse, error) {
	return &migcontrollerv1.GetCommandResponse{}, nil
}

// anyone admits everyone.
type anyone struct{}

func (anyone) Admit(*http.Request, auth.Requirement) (auth.Principal, error) {
	return auth.Anyone(), nil
}

func (anyone) Required() bool { return false }

// config returns a Config of a controller that is ready.
func config(a *fakeAgents) Config {
	return Config{
		Agents: a,
		Commands: fakeStreams(func(context.Context, *bidiStream) error {
			return connect.NewError(connect.CodeUnimplemented, errors.New("there are no streams"))
		}),
		Admin:     fakeAdmin{},
		Access:    migcontrollerv1connect.UnimplementedAccessServiceHandler{},
		Operators: anyone{},
		Ready:     readiness.New(),
		Options:   []connect.HandlerOption{connect.WithInterceptors(NewErrorInterceptor(slog.New(slog.DiscardHandler), nil))},
	}
}

// serve serves h on a free port, like the controller, and returns the address.
func serve(tb testing.TB, h http.Handler) string {
	tb.Helper()
	return serveWithin(tb, h, CallTimeout)
}

// serveWithin is serve with another timeout of calls.
func serveWithin(tb testing.TB, h http.Handler, timeout time.Duration) string {
	tb.Helper()
	listener, err := (&net.ListenConfig{}).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	require.NoError(tb, err)
	serveOn(tb, listener, h, timeout)
	return listener.Addr().String()
}

// serveOn serves h until the end of the test.
func serveOn(tb testing.TB, listener net.Listener, h http.Handler, timeout time.Duration) {
	tb.Helper()
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	// The server delays the end of a connection with an unread request.
	var connections sync.WaitGroup
	server := &http.Server{
		Handler: WithTimeouts(h, timeout), Protocols: &protocols, ReadHeaderTimeout: 5 * time.Second,
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				connections.Add(1)
			case http.StateClosed:
				connections.Done()
			default:
			}
		},
	}
	var served sync.WaitGroup
	served.Go(func() { _ = server.Serve(listener) })
	tb.Cleanup(func() {
		_ = server.Close()
		served.Wait()
		connections.Wait()
	})
}

// client returns a client that speaks one version of HTTP in plaintext.
func client(tb testing.TB, version int) *http.Client {
	tb.Helper()
	var protocols http.Protocols
	protocols.SetHTTP1(version == 1)
	protocols.SetUnencryptedHTTP2(version == 2)
	transport := &http.Transport{Protocols: &protocols}
	tb.Cleanup(transport.CloseIdleConnections)
	return &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// answer is the response to a request.
type answer struct {
	status int
	header http.Header
	body   string
}

func do(t *testing.T, c *http.Client, method, url, body string, headers ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	require.NoError(t, err)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := c.Do(req)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	content, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return answer{resp.StatusCode, resp.Header, string(content)}
}

// httpVersions are the HTTP versions that are served.
var httpVersions = map[string]int{"HTTP/1.1": 1, "HTTP/2": 2}

// requireError requires an error in the usual form.
func requireError(t *testing.T, got answer) {
	t.Helper()
	require.Equal(t, "application/json", got.header.Get("Content-Type"))
	require.Equal(t, "nosniff", got.header.Get("X-Content-Type-Options"))
	dec := json.NewDecoder(strings.NewReader(got.body))
	dec.DisallowUnknownFields()
	var body errorBody
	require.NoError(t, dec.Decode(&body), got.body)
	require.NotEmpty(t, body.Code)
	require.NotEmpty(t, body.Message)
}

// post sends a JSON body.
func post(t *testing.T, c *http.Client, url, body string) answer {
	t.Helper()
	return do(t, c, http.MethodPost, url, body, "Content-Type", "application/json")
}
