package rpc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands/commandsconnect"
	"github.com/mig-controller/mig-controller/internal/auth"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/loglimit"
)

// callLog keeps the log, one JSON record per line.
type callLog struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *callLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *callLog) logger() *slog.Logger {
	return slog.New(slog.NewJSONHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// records returns the log records with this message.
func (l *callLog) records(t *testing.T, msg string) (out []map[string]any) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range bytes.Lines(l.buf.Bytes()) {
		var r map[string]any
		require.NoError(t, json.Unmarshal(line, &r))
		if r["msg"] == msg {
			out = append(out, r)
		}
	}
	return out
}

// serveAdmin serves svc over h2c and HTTP/1.1 with an errorInterceptor, like the controller.
func serveAdmin(t *testing.T, svc migcontrollerv1connect.AdminServiceHandler, log *slog.Logger) (url string) {
	t.Helper()
	return serveAdminAs(t, auth.Anyone(), svc, log)
}

// serveAdminAs is serveAdmin for callers who are this principal.
func serveAdminAs(
	t *testing.T, p auth.Principal, svc migcontrollerv1connect.AdminServiceHandler, log *slog.Logger,
) (url string) {
	t.Helper()
	mux := http.NewServeMux()
	prefix, admin := migcontrollerv1connect.NewAdminServiceHandler(svc, connect.WithInterceptors(NewErrorInterceptor(log, nil)))
	mux.HandleFunc(prefix, func(w http.ResponseWriter, r *http.Request) {
		admin.ServeHTTP(w, r.WithContext(auth.With(r.Context(), p)))
	})
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Handler: mux, Protocols: protocols, ReadHeaderTimeout: time.Minute}
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		require.NoError(t, server.Close())
		require.ErrorIs(t, <-served, http.ErrServerClosed)
	})
	return "http://" + listener.Addr().String()
}

// adminProtocols are those that callers use.
var adminProtocols = []string{"gRPC", "Connect JSON"}

// adminClients returns clients of url, one for each of adminProtocols.
func adminClients(t *testing.T, url string) map[string]migcontrollerv1connect.AdminServiceClient {
	t.Helper()
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	h2c := &http.Transport{Protocols: protocols}
	http1 := &http.Transport{}
	t.Cleanup(h2c.CloseIdleConnections)
	t.Cleanup(http1.CloseIdleConnections)
	return map[string]migcontrollerv1connect.AdminServiceClient{
		"gRPC": migcontrollerv1connect.NewAdminServiceClient(
			&http.Client{Transport: h2c}, url, connect.WithGRPC()),
		"Connect JSON": migcontrollerv1connect.NewAdminServiceClient(
			&http.Client{Transport: http1}, url, connect.WithProtoJSON()),
	}
}

// failingAdmin calls fail in GetVM and WatchFleet.
type failingAdmin struct {
	migcontrollerv1connect.UnimplementedAdminServiceHandler
	fail func(context.Context) error
}

func (f failingAdmin) GetVM(
	ctx context.Context, _ *migcontrollerv1.GetVMRequest,
) (*migcontrollerv1.GetVMResponse, error) {
	return &migcontrollerv1.GetVMResponse{}, f.fail(ctx)
}

func (f failingAdmin) WatchFleet(
	ctx context.Context, _ *migcontrollerv1.WatchFleetRequest, _ *connect.ServerStream[migcontrollerv1.WatchFleetResponse],
) error {
	return f.fail(ctx)
}

// failures are calls of both kinds, which return the error that they get.
var failures = map[string]func(context.Context, migcontrollerv1connect.AdminServiceClient) error{
	migcontrollerv1connect.AdminServiceGetVMProcedure: func(ctx context.Context, c migcontrollerv1connect.AdminServiceClient) error {
		_, err := c.GetVM(ctx, &migcontrollerv1.GetVMRequest{})
		return err
	},
	migcontrollerv1connect.AdminServiceWatchFleetProcedure: func(ctx context.Context, c migcontrollerv1connect.AdminServiceClient) error {
		stream, err := c.WatchFleet(ctx, &migcontrollerv1.WatchFleetRequest{})
		if err != nil {
			return err
		}
		defer stream.Close()
		if stream.Receive() {
			return errors.New("something was sent")
		}
		return stream.Err()
	},
}

// Unary calls and streams return the errors of the table in every protocol, and each failure
// is logged once, at its level, with its cause.
func TestErrorInterceptor(t *testing.T) {
	t.Parallel()
	disk := errors.New("disk full")
	tests := []struct {
		err   error
		code  connect.Code
		level string
	}{
		{fleet.Invalid("vm_id", "must be an id"), connect.CodeInvalidArgument, "DEBUG"},
		{fleet.ErrNotFound, connect.CodeNotFound, "DEBUG"},
		{fmt.Errorf("%w: %w", fleet.ErrUnavailable, disk), connect.CodeUnavailable, "WARN"},
		{disk, connect.CodeInternal, "ERROR"},
	}
	for _, test := range tests {
		t.Run(test.code.String(), func(t *testing.T) {
			t.Parallel()
			for procedure, fail := range failures {
				log := new(callLog)
				url := serveAdmin(t, failingAdmin{fail: func(context.Context) error { return test.err }}, log.logger())
				for name, client := range adminClients(t, url) {
					log.mu.Lock()
					log.buf.Reset()
					log.mu.Unlock()
					err := fail(t.Context(), client)
					var got *connect.Error
					require.ErrorAs(t, err, &got, name)
					require.Equal(t, test.code, got.Code(), name)
					require.NotContains(t, got.Message(), "disk", name)

					logged := log.records(t, "call failed")
					require.Len(t, logged, 1, name)
					require.Equal(t, test.level, logged[0]["level"], name)
					require.Equal(t, procedure, logged[0]["procedure"], name)
					require.Equal(t, test.code.String(), logged[0]["code"], name)
					require.Equal(t, test.err.Error(), logged[0]["error"], name)
					require.Contains(t, logged[0], "duration", name)
				}
			}
		})
	}
}

// A call that succeeds is not logged.
func TestSuccessIsNotLogged(t *testing.T) {
	t.Parallel()
	log := new(callLog)
	url := serveAdmin(t, failingAdmin{fail: func(context.Context) error { return nil }}, log.logger())
	for _, fail := range failures {
		require.NoError(t, fail(t.Context(), adminClients(t, url)["gRPC"]))
	}
	require.Empty(t, log.buf.String())
}

// A panic of a handler fails only its own call: the caller gets Internal, the stack is logged,
// and the next call is served.
func TestErrorInterceptorRecovers(t *testing.T) {
	t.Parallel()
	for _, fail := range failures {
		log := new(callLog)
		url := serveAdmin(t, failingAdmin{fail: func(context.Context) error { panic("bug in a handler") }}, log.logger())
		client := adminClients(t, url)["gRPC"]
		for range 2 {
			err := fail(t.Context(), client)
			require.Equal(t, connect.CodeInternal, connect.CodeOf(err))
			require.NotContains(t, err.Error(), "bug")
		}
		logged := log.records(t, "call panicked")
		require.Len(t, logged, 2)
		require.Equal(t, "ERROR", logged[0]["level"])
		require.Equal(t, "bug in a handler", logged[0]["panic"])
		require.Contains(t, logged[0]["stack"], "failingAdmin")
		require.Empty(t, log.records(t, "call failed"), "logged once")
	}
}

// Errors that callers can repeat at will are logged a limited number of times a minute for
// each procedure and code, with the number of suppressed lines.
func TestErrorInterceptorLimitsLines(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log, next := new(callLog), error(nil)
		call := NewErrorInterceptor(log.logger(), nil).WrapUnary(func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) {
			if next == nil {
				panic("bug in a handler")
			}
			return nil, next
		})
		all := []error{fleet.ErrUnavailable, errors.New("disk full"), nil}
		for range 3 * loglimit.Lines {
			for _, next = range all {
				_, err := call(t.Context(), connect.NewRequest(&migcontrollerv1.GetVMRequest{}))
				require.Error(t, err)
			}
		}
		require.Len(t, log.records(t, "call failed"), 2*loglimit.Lines)
		require.Len(t, log.records(t, "call panicked"), loglimit.Lines)
		time.Sleep(loglimit.Period) // fake clock
		for _, next = range all {
			_, err := call(t.Context(), connect.NewRequest(&migcontrollerv1.GetVMRequest{}))
			require.Error(t, err)
		}
		lines := slices.Concat(log.records(t, "call failed")[2*loglimit.Lines:], log.records(t, "call panicked")[loglimit.Lines:])
		require.Len(t, lines, len(all))
		for _, line := range lines {
			require.EqualValues(t, 2*loglimit.Lines, line[loglimit.KeySuppressed])
		}
	})
}

// http.ErrAbortHandler, with which a handler makes net/http close the connection, is passed
// on.
func TestErrorInterceptorLetsAbortThrough(t *testing.T) {
	t.Parallel()
	call := NewErrorInterceptor(slog.New(slog.DiscardHandler), nil).WrapUnary(
		func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) { panic(http.ErrAbortHandler) })
	require.PanicsWithValue(t, http.ErrAbortHandler, func() {
		_, _ = call(t.Context(), connect.NewRequest(&migcontrollerv1.GetVMRequest{}))
	})
}

// A failure after the caller has disconnected is logged at debug level, whatever the error.
func TestCallLevelOfAbandonedCalls(t *testing.T) {
	t.Parallel()
	gone, leave := context.WithCancel(t.Context())
	leave()
	require.Equal(t, slog.LevelDebug, callLevel(gone, fleet.ErrUnavailable, connect.CodeUnavailable))
	require.Equal(t, slog.LevelWarn, callLevel(t.Context(), fleet.ErrUnavailable, connect.CodeUnavailable))
	require.Equal(t, slog.LevelDebug, callLevel(t.Context(), fleet.ErrStopping, connect.CodeUnavailable))
	require.Equal(t, slog.LevelDebug, callLevel(t.Context(), context.Canceled, connect.CodeCanceled))
	require.Equal(t, slog.LevelError, callLevel(gone, errInternal, connect.CodeInternal))
}

// Malformed requests, which callers can repeat at will, are logged at debug level, on every
// stream and in every protocol, whatever code connect-go gives them.
func TestMalformedRequestsAreLoggedAtDebug(t *testing.T) {
	t.Parallel()
	for _, path := range []string{
		migcontrollerv1connect.AdminServiceWatchFleetProcedure,
		commandsconnect.CommandServiceStreamCommandsProcedure,
		"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
	} {
		for _, contentType := range []string{"application/connect+json", "application/grpc", "application/grpc-web+proto"} {
			for name, body := range map[string]string{
				"no envelope":    "{}",
				"cut short":      "\x00\x00\x00\x00\x09{}",
				"not compressed": "\x01\x00\x00\x00\x02{}",
				"malformed":      "\x00\x00\x00\x00\x02{\xff",
				"other flags":    "\x40\x00\x00\x00\x02{}",
			} {
				log := new(callLog)
				c := config(&fakeAgents{})
				c.Commands = fakeStreams(func(_ context.Context, stream *bidiStream) error {
					_, err := stream.Receive()
					return err
				})
				c.Admin = failingAdmin{fail: func(context.Context) error { return fleet.ErrNotFound }}
				c.Options = []connect.HandlerOption{connect.WithInterceptors(NewErrorInterceptor(log.logger(), nil))}
				url := "http://" + serve(t, NewHandler(c)) + path
				do(t, client(t, 2), http.MethodPost, url, body, "Content-Type", contentType)
				for _, r := range log.records(t, "call failed") {
					require.Equal(t, "DEBUG", r["level"], "%s %s %s: %v", path, contentType, name, r)
				}
			}
		}
	}
}

// A message that the controller cannot encode is logged as an error.
func TestUnencodableMessageIsLoggedAsError(t *testing.T) {
	t.Parallel()
	log := new(callLog)
	url := serveAdmin(t, unencodable{}, log.logger())
	stream, err := adminClients(t, url)["gRPC"].WatchFleet(t.Context(), &migcontrollerv1.WatchFleetRequest{})
	require.NoError(t, err)
	defer stream.Close()
	require.False(t, stream.Receive())
	require.Equal(t, connect.CodeInternal, connect.CodeOf(stream.Err()))
	logged := log.records(t, "call failed")
	require.Len(t, logged, 1)
	require.Equal(t, "ERROR", logged[0]["level"])
}

// unencodable sends a string that is not UTF-8.
type unencodable struct {
	migcontrollerv1connect.UnimplementedAdminServiceHandler
}

func (unencodable) WatchFleet(
	_ context.Context, _ *migcontrollerv1.WatchFleetRequest, stream *connect.ServerStream[migcontrollerv1.WatchFleetResponse],
) error {
	return stream.Send(&migcontrollerv1.WatchFleetResponse{Cursor: "\xff"})
}
