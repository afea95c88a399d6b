package rpc

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
)

// shortly is the timeout of calls in these tests.
const shortly = 200 * time.Millisecond

// inTime is how long tests wait for what must happen soon after shortly.
const inTime = 20 * time.Second

// requests counts requests that are in a handler.
type requests struct {
	http.Handler
	open, ended atomic.Int64
}

func (h *requests) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.open.Add(1)
	defer func() { h.open.Add(-1); h.ended.Add(1) }()
	h.Handler.ServeHTTP(w, r)
}

func (h *requests) awaitEnd(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool { return h.ended.Load() > 0 && h.open.Load() == 0 }, inTime, 5*time.Millisecond)
}

// talkative sends as much as its callers accept, and a message of GetServerInfo or a watch
// when the test asks for it.
type talkative struct {
	migcontrollerv1connect.UnimplementedAdminServiceHandler
	say chan struct{} // one message of a watch
}

func (talkative) ListCommands(
	context.Context, *migcontrollerv1.ListCommandsRequest,
) (*migcontrollerv1.ListCommandsResponse, error) {
	return &migcontrollerv1.ListCommandsResponse{NextPageToken: strings.Repeat("x", 8<<20)}, nil
}

func (a talkative) GetServerInfo(
	ctx context.Context, _ *migcontrollerv1.GetServerInfoRequest,
) (*migcontrollerv1.GetServerInfoResponse, error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-a.say:
		return &migcontrollerv1.GetServerInfoResponse{}, nil
	}
}

func (a talkative) WatchFleet(
	ctx context.Context, r *migcontrollerv1.WatchFleetRequest, s *connect.ServerStream[migcontrollerv1.WatchFleetResponse],
) error {
	endless := r.GetVmId() == "endless"
	for {
		if !endless {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-a.say:
			}
		}
		if err := s.Send(&migcontrollerv1.WatchFleetResponse{Cursor: strings.Repeat("x", 10<<10)}); err != nil {
			return err
		}
	}
}

// serveTalkative serves the whole API with a short timeout.
func serveTalkative(t *testing.T) (base string, open *requests) {
	t.Helper()
	open, _ = newTalkative()
	return "http://" + serveWithin(t, open, shortly), open
}

func newTalkative() (open *requests, admin talkative) {
	admin = talkative{say: make(chan struct{})}
	c := config(&fakeAgents{})
	c.Admin = admin
	return &requests{Handler: NewHandler(c)}, admin
}

// unfinished returns a body that begins with some bytes and never ends. It repeats more from
// time to time, unless that is empty.
func unfinished(t *testing.T, begin, more string) io.Reader {
	t.Helper()
	r, w := io.Pipe()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		_, err := io.WriteString(w, begin)
		for err == nil {
			select {
			case <-stop:
				return
			case <-time.After(shortly / 10):
				_, err = io.WriteString(w, more)
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		_ = r.Close()
		<-stopped
	})
	return r
}

// envelope returns a message as framed by gRPC and Connect streaming.
func envelope(message string) string {
	return string(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))) + message
}

// A body that does not arrive in time ends its request, for every method: the caller gets an
// error that names the rule, in its own protocol, and other requests on the connection
// continue.
func TestUnfinishedRequests(t *testing.T) {
	t.Parallel()
	const admin, late = "/migcontroller.v1.AdminService/", "the request must arrive within 200ms"
	for name, test := range map[string]struct {
		path, contentType, begin, more string
		status                         int
		grpc                           string // grpc-status
		text                           string // in the body
	}{
		"route":           {"/api/v1/vms/vm-1/events", "application/json", `{"type":`, " ", 408, "", `"` + late + `"`},
		"Connect":         {admin + "GetCommand", "application/json", `{"commandId":`, " ", 504, "", `{"code":"deadline_exceeded","message":"` + late + `"}`},
		"Connect, agents": {"/migcontroller.v1.AgentService/ReportEvent", "application/json", `{"vmId":`, "", 504, "", late},
		"gRPC":            {admin + "GetCommand", "application/grpc", "\x00\x00\x00\x00\xffab", "c", 200, "4", ""},
		"gRPC, no end":    {admin + "GetCommand", "application/grpc", envelope(""), "", 200, "4", ""},
		"gRPC-Web":        {admin + "GetCommand", "application/grpc-web+proto", "\x00\x00", "", 200, "4", ""},
		"watch":           {admin + "WatchFleet", "application/connect+json", "\x00\x00\x00", "", 200, "", `{"error":{"code":"deadline_exceeded","message":"` + late + `"}}`},
		"watch, no end":   {admin + "WatchFleet", "application/connect+json", envelope("{}"), "", 200, "", late},
		"watch by gRPC":   {admin + "WatchFleet", "application/grpc", envelope(""), "", 200, "4", ""},
		"health":          {"/grpc.health.v1.Health/Check", "application/grpc", "\x00", "", 200, "4", ""},
		"watch of health": {"/grpc.health.v1.Health/Watch", "application/grpc", envelope(""), "", 200, "4", ""},
		"page":            {"/health", "", "x", "x", 405, "", "must be GET"},
		"nowhere":         {"/nowhere", "application/json", "{", " ", 404, "", "nothing at this path"},
		"no such method":  {admin + "Nothing", "application/json", "{", " ", 501, "", "no method"},
		"wrong type":      {admin + "GetCommand", "image/jpeg", "x", "x", 415, "", "Content-Type must be"},
		"no stream":       {"/miglet.commands.CommandService/StreamCommands", "text/plain", "x", "x", 415, "", "must be"},
	} {
		for version := 1; version <= 2; version++ {
			if name == "no stream" && version == 1 {
				continue // 505
			}
			t.Run(name+map[int]string{1: ", HTTP/1.1", 2: ", HTTP/2"}[version], func(t *testing.T) {
				t.Parallel()
				base, open := serveTalkative(t)
				send := client(t, version).Do
				if version == 1 {
					send = func(r *http.Request) (*http.Response, error) { return sendHTTP1(t, r) }
				}
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+test.path, unfinished(t, test.begin, test.more))
				require.NoError(t, err)
				req.Header.Set("Content-Type", test.contentType)
				resp, err := send(req)
				require.NoError(t, err)
				defer func() { _ = resp.Body.Close() }()
				body, err := io.ReadAll(resp.Body)
				require.NoError(t, err)
				require.Equal(t, test.status, resp.StatusCode)
				require.Contains(t, string(body), test.text)
				if test.grpc != "" {
					require.Equal(t, test.grpc, resp.Trailer.Get("Grpc-Status")+resp.Header.Get("Grpc-Status"))
					require.Equal(t, late, resp.Trailer.Get("Grpc-Message")+resp.Header.Get("Grpc-Message"))
				}
				open.awaitEnd(t)
			})
		}
	}
}

// sendHTTP1 sends a request that is answered before its end: what net/http's client returns
// then depends on which of the two it notices first.
func sendHTTP1(t *testing.T, r *http.Request) (*http.Response, error) {
	t.Helper()
	conn := dial(t, r.URL.Host)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_ = r.Write(conn)
	}()
	t.Cleanup(func() { // before the body ends
		_ = conn.Close()
		_ = r.Body.Close()
		<-sent
	})
	return http.ReadResponse(bufio.NewReader(conn), r)
}

// Other requests on the connection of an unfinished one continue.
func TestUnfinishedRequestAffectsNoOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := servePipes(t).client(t, 2)
		const events = inMemory + "/api/v1/vms/vm-1/events"
		resp, err := request(t, c, "POST", events, unfinished(t, "{", " "))
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, 408, resp.StatusCode)
		reused := false
		req, err := http.NewRequestWithContext(traced(t, &reused), http.MethodPost, events, strings.NewReader(`{"type":"x"}`))
		require.NoError(t, err)
		req.Header.Set("Content-Type", "application/json")
		resp, err = c.Do(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, 200, resp.StatusCode)
		require.True(t, reused)
	})
}

// traced records whether the connection of a request has been used before.
func traced(t *testing.T, reused *bool) context.Context {
	t.Helper()
	return httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) { *reused = info.Reused },
	})
}

// Reflection is limited like other requests: questions are answered until the timeout ends it.
func TestUnfinishedReflection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := servePipes(t)
		// list_services of ServerReflectionRequest.
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost,
			inMemory+"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", unfinished(t, envelope("\x3a\x01*"), ""))
		require.NoError(t, err)
		req.Header.Set("Content-Type", "application/grpc")
		resp, err := s.client(t, 2).Do(req)
		require.NoError(t, err)
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.Contains(t, string(body), "AdminService")
		require.Equal(t, "4", resp.Trailer.Get("Grpc-Status"))
		s.open.awaitEnd(t)
	})
}

// dial opens a connection for requests that HTTP clients do not send.
func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(address, "http://"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(inTime)))
	return conn
}

// With HTTP/1.1 a body that does not arrive ends the connection, without a wait after the
// response is written. That holds for responses by net/http and with Expect too.
func TestUnfinishedRequestsEndTheirConnection(t *testing.T) {
	t.Parallel()
	address := serveWithin(t, AllowOrigins(NewHandler(config(&fakeAgents{})), []string{"https://a.example"}), shortly)
	const rest = "Host: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n"
	for request, status := range map[string]int{
		"POST /api/v1/vms/vm-1/events HTTP/1.1\r\n" + rest + "\r\n{":                                                      408,
		"POST /api/v1/vms/vm-1/events HTTP/1.1\r\nExpect: 100-continue\r\n" + rest + "\r\n":                               408,
		"POST /nowhere HTTP/1.1\r\nExpect: 100-continue\r\n" + rest + "\r\n":                                              404,
		"GET /health HTTP/1.1\r\n" + rest + "\r\n":                                                                        200,
		"OPTIONS /health HTTP/1.1\r\nOrigin: https://a.example\r\nAccess-Control-Request-Method: GET\r\n" + rest + "\r\n": 204,
	} {
		t.Run(request, func(t *testing.T) {
			t.Parallel()
			conn := dial(t, address)
			_, err := io.WriteString(conn, request)
			require.NoError(t, err)
			reader := bufio.NewReader(conn)
			resp, err := http.ReadResponse(reader, nil)
			require.NoError(t, err)
			if resp.StatusCode == http.StatusContinue {
				resp, err = http.ReadResponse(reader, nil)
				require.NoError(t, err)
			}
			require.Equal(t, status, resp.StatusCode)
			_, err = io.Copy(io.Discard, reader)
			require.NoError(t, err, "the connection is closed")
			require.NoError(t, resp.Body.Close())
		})
	}
}

// narrow gives the connections of c small receive buffers.
func narrow(t *testing.T, c *http.Client) *http.Client {
	t.Helper()
	transport := transportOf(t, c)
	transport.DisableCompression = true
	transport.HTTP2 = &http.HTTP2Config{MaxReceiveBufferPerStream: 64 << 10}
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if tcp, ok := conn.(*net.TCPConn); ok {
			err = tcp.SetReadBuffer(256 << 10)
		}
		return conn, err
	}
	return c
}

func transportOf(t *testing.T, c *http.Client) *http.Transport {
	t.Helper()
	transport, ok := c.Transport.(*http.Transport)
	require.True(t, ok)
	return transport
}

func openHTTP2(t *testing.T, conn net.Conn, settings ...http2.Setting) *http2.Framer {
	t.Helper()
	_, err := io.WriteString(conn, http2.ClientPreface)
	require.NoError(t, err)
	framer := http2.NewFramer(conn, conn)
	require.NoError(t, framer.WriteSettings(settings...))
	return framer
}

// writes records the sizes of writes and their deadlines.
type writes struct {
	http.ResponseWriter
	sizes     []int
	deadlines []time.Time
}

func (w *writes) Header() http.Header { return http.Header{} }

func (w *writes) Write(p []byte) (int, error) {
	w.sizes = append(w.sizes, len(p))
	return len(p), nil
}

func (*writes) SetReadDeadline(time.Time) error { return nil }

func (w *writes) SetWriteDeadline(d time.Time) error {
	w.deadlines = append(w.deadlines, d)
	return nil
}

func request(t *testing.T, c *http.Client, method, url string, body io.Reader) (*http.Response, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	return c.Do(req)
}
