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
	"golang.org/x/net/http2/hpack"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands/commandsconnect"
)

// shortly is the time that callers have in these tests.
const shortly = 200 * time.Millisecond

// inTime bounds what must happen soon after shortly.
const inTime = 20 * time.Second

// requests counts those that are in a handler.
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

// talkative sends as much as its callers take, and says when it is told to.
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

// serveTalkative serves everything to callers that have little time.
func serveTalkative(t *testing.T) (base string, open *requests, admin talkative) {
	t.Helper()
	admin = talkative{say: make(chan struct{})}
	c := config(&fakeAgents{})
	c.Admin = admin
	open = &requests{Handler: NewHandler(c)}
	return "http://" + serveWithin(t, open, shortly), open, admin
}

// unfinished is a body that begins with some bytes and never ends. Meanwhile more comes
// now and then, if there is more.
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

// envelope is a message as gRPC and the streams of Connect frame it.
func envelope(message string) string {
	return string(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))) + message
}

// A body that does not arrive in time ends its request, whatever it is for: the caller
// gets an answer that names the rule, in its own protocol, and other requests on the
// connection go on.
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
				base, open, _ := serveTalkative(t)
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

// sendHTTP1 sends a request whose answer comes before its end: what the client of net/http
// returns then depends on which of the two it notices first.
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

// Other requests on the connection of one that is not finished go on.
func TestUnfinishedRequestsAreAlone(t *testing.T) {
	t.Parallel()
	base, _, _ := serveTalkative(t)
	c := client(t, 2)
	resp, err := request(t, c, "POST", base+"/api/v1/vms/vm-1/events", unfinished(t, "{", " "))
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, 408, resp.StatusCode)
	reused := false
	req, err := http.NewRequestWithContext(traced(t, &reused), http.MethodPost, base+"/api/v1/vms/vm-1/events", strings.NewReader(`{"type":"x"}`))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	resp, err = c.Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, 200, resp.StatusCode)
	require.True(t, reused)
}

// traced notes whether the connection of a request has been used before.
func traced(t *testing.T, reused *bool) context.Context {
	t.Helper()
	return httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) { *reused = info.Reused },
	})
}

// Reflection is a request like the others: what is asked within its time is answered, and
// then it ends.
func TestUnfinishedReflection(t *testing.T) {
	t.Parallel()
	base, open, _ := serveTalkative(t)
	// list_services of ServerReflectionRequest.
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost,
		base+"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", unfinished(t, envelope("\x3a\x01*"), ""))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/grpc")
	resp, err := client(t, 2).Do(req)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Contains(t, string(body), "AdminService")
	require.Equal(t, "4", resp.Trailer.Get("Grpc-Status"))
	open.awaitEnd(t)
}

// dial opens a connection for what no client of HTTP does.
func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(address, "http://"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(inTime)))
	return conn
}

// In HTTP/1.1 a body that does not come costs the connection; nothing waits for the rest
// once the answer is written. That is so for answers that nobody here writes, and for one
// that is announced by Expect, as well.
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

// Who does not take an answer in time gets no more of it, and nothing waits for them:
// neither for a large list nor for a watch.
func TestUnreadResponses(t *testing.T) {
	t.Parallel()
	for name, version := range httpVersions {
		for method, body := range map[string]string{"ListCommands": "{}", "WatchFleet": envelope(`{"vmId":"endless"}`)} {
			t.Run(method+", "+name, func(t *testing.T) {
				t.Parallel()
				base, open, _ := serveTalkative(t)
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost,
					base+"/migcontroller.v1.AdminService/"+method, strings.NewReader(body))
				require.NoError(t, err)
				req.Header.Set("Content-Type", map[string]string{
					"ListCommands": "application/json", "WatchFleet": "application/connect+json",
				}[method])
				c := client(t, version)
				if method == "ListCommands" { // which is not endless
					narrow(t, c)
				}
				resp, err := c.Do(req)
				require.NoError(t, err)
				open.awaitEnd(t)
				_, err = io.Copy(io.Discard, resp.Body)
				require.Error(t, err, "it is cut off")
				require.NoError(t, resp.Body.Close())
			})
		}
	}
}

// narrow makes the connections of c keep little of what is not read.
func narrow(t *testing.T, c *http.Client) *http.Client {
	t.Helper()
	transport, ok := c.Transport.(*http.Transport)
	require.True(t, ok)
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

// In HTTP/2 a window that stays shut holds up even a short answer, which is written after
// its handler has returned. Only the stream ends, not the connection.
func TestShutWindow(t *testing.T) {
	t.Parallel()
	base, _, _ := serveTalkative(t)
	conn := dial(t, base)
	framer := openHTTP2(t, conn, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	var header strings.Builder
	encoder := hpack.NewEncoder(&header)
	for _, f := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "x"}, {":path", "/health"}} {
		require.NoError(t, encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}))
	}
	require.NoError(t, framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID: 1, BlockFragment: []byte(header.String()), EndStream: true, EndHeaders: true,
	}))
	for {
		frame, err := framer.ReadFrame()
		require.NoError(t, err)
		if reset, ok := frame.(*http2.RSTStreamFrame); ok {
			require.EqualValues(t, 1, reset.StreamID)
			break
		}
	}
	require.NoError(t, framer.WritePing(false, [8]byte{1}))
	for {
		frame, err := framer.ReadFrame()
		require.NoError(t, err)
		if ping, ok := frame.(*http2.PingFrame); ok && ping.IsAck() {
			break
		}
	}
}

func openHTTP2(t *testing.T, conn net.Conn, settings ...http2.Setting) *http2.Framer {
	t.Helper()
	_, err := io.WriteString(conn, http2.ClientPreface)
	require.NoError(t, err)
	framer := http2.NewFramer(conn, conn)
	require.NoError(t, framer.WriteSettings(settings...))
	return framer
}

// What takes its time and gets on is left alone: a handler that works for longer, with a
// body and without, and a body that arrives just in time.
func TestSlowExchanges(t *testing.T) {
	t.Parallel()
	const info = "/migcontroller.v1.AdminService/GetServerInfo"
	for name, version := range httpVersions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base, open, admin := serveTalkative(t)
			for _, call := range []func() (*http.Response, error){
				func() (*http.Response, error) {
					return request(t, client(t, version), "POST", base+info, strings.NewReader("{}"))
				},
				func() (*http.Response, error) {
					return request(t, client(t, version), "GET", base+info+"?connect=v1&encoding=json&message={}", nil)
				},
				func() (*http.Response, error) {
					r, w := io.Pipe()
					go func() {
						<-time.After(shortly / 4)
						_, _ = io.WriteString(w, "{}")
						_ = w.Close()
					}()
					return request(t, client(t, version), "POST", base+info, r)
				},
			} {
				go func() {
					<-time.After(3 * shortly)
					admin.say <- struct{}{}
				}()
				resp, err := call()
				require.NoError(t, err)
				require.Equal(t, 200, resp.StatusCode)
				require.NoError(t, resp.Body.Close())
			}
			open.awaitEnd(t)
		})
	}
}

// A response that is read slowly is left alone, however large it is: each part of it has
// its own time.
func TestSlowlyReadResponse(t *testing.T) {
	t.Parallel()
	base, open, _ := serveTalkative(t)
	resp, err := request(t, narrow(t, client(t, 2)), "POST", base+"/migcontroller.v1.AdminService/ListCommands", strings.NewReader("{}"))
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	began, read := time.Now(), int64(0)
	for err == nil {
		var n int64
		n, err = io.CopyN(io.Discard, resp.Body, 256<<10)
		read += n
		<-time.After(shortly / 8)
	}
	require.ErrorIs(t, err, io.EOF)
	require.Greater(t, read, int64(8<<20))
	require.Greater(t, time.Since(began), 2*shortly)
	open.awaitEnd(t)
}

// writes notes what is written, and until when it must have been.
type writes struct {
	http.ResponseWriter
	sizes     []int
	deadlines []time.Time
}

func (w *writes) Write(p []byte) (int, error) {
	w.sizes = append(w.sizes, len(p))
	return len(p), nil
}

func (*writes) SetReadDeadline(time.Time) error { return nil }

func (w *writes) SetWriteDeadline(d time.Time) error {
	w.deadlines = append(w.deadlines, d)
	return nil
}

// The same in HTTP/1.1, where what is written before the body has arrived has the time of
// both: the server reads the rest of it first.
func TestTimeOfWrites(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began, w := time.Now(), new(writes)
		var written int
		var failed error
		h := WithTimeouts(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Second) // fake clock
			_, _ = w.Write(make([]byte, maxWrite))
			_, _ = io.ReadAll(r.Body)
			written, failed = w.Write(make([]byte, 2*maxWrite+1))
		}), time.Minute)
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://example", strings.NewReader("x"))
		require.NoError(t, err)
		h.ServeHTTP(w, r)
		require.NoError(t, failed)
		require.Equal(t, 2*maxWrite+1, written)
		require.Equal(t, []int{maxWrite, maxWrite, maxWrite, 1}, w.sizes)
		both, alone := began.Add(2*time.Minute), began.Add(time.Second+time.Minute)
		require.Equal(t, []time.Time{both, both, alone, alone, alone, alone}, w.deadlines)
	})
}

func request(t *testing.T, c *http.Client, method, url string, body io.Reader) (*http.Response, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	return c.Do(req)
}

// A watch may be silent for any time between its messages.
func TestIdleWatch(t *testing.T) {
	t.Parallel()
	for name, version := range httpVersions {
		for protocol, option := range map[string]connect.ClientOption{
			"Connect": connect.WithProtoJSON(), "gRPC-Web": connect.WithGRPCWeb(),
		} {
			t.Run(name+" "+protocol, func(t *testing.T) {
				t.Parallel()
				base, _, admin := serveTalkative(t)
				c := migcontrollerv1connect.NewAdminServiceClient(client(t, version), base, option)
				go func() {
					for range 3 {
						<-time.After(2 * shortly)
						admin.say <- struct{}{}
					}
				}()
				stream, err := c.WatchFleet(t.Context(), &migcontrollerv1.WatchFleetRequest{})
				require.NoError(t, err)
				for range 3 {
					require.True(t, stream.Receive(), stream.Err())
				}
				require.NoError(t, stream.Close())
			})
		}
	}
}

// A connection that has been idle for longer than a request may take serves the next one,
// after requests with a body and without.
func TestReusedConnection(t *testing.T) {
	t.Parallel()
	for name, version := range httpVersions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base, _, _ := serveTalkative(t)
			c := client(t, version)
			for i := range 4 {
				var reused bool
				ctx := traced(t, &reused)
				req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/api/v1/vms/vm-1/events", strings.NewReader(`{"type":"x"}`))
				if i%2 == 1 {
					req, err = http.NewRequestWithContext(ctx, http.MethodGet, base+"/health", http.NoBody)
				}
				require.NoError(t, err)
				req.Header.Set("Content-Type", "application/json")
				resp, err := c.Do(req)
				require.NoError(t, err)
				_, err = io.Copy(io.Discard, resp.Body)
				require.NoError(t, err)
				require.NoError(t, resp.Body.Close())
				require.Equal(t, 200, resp.StatusCode)
				require.Equal(t, i > 0, reused)
				<-time.After(2 * shortly)
			}
		})
	}
}

// An agent's stream has times of its own.
func TestStreamsAreNotTimed(t *testing.T) {
	t.Parallel()
	c := config(&fakeAgents{})
	c.Commands = fakeStreams(func(ctx context.Context, stream *agentStream) error {
		l := newLine(ctx, stream, "test")
		defer l.hangUp()
		for {
			if _, err := stream.Receive(); err != nil {
				return nil // its agent has ended it
			}
			if err := l.Accept(); err != nil {
				return err
			}
		}
	})
	open := &requests{Handler: NewHandler(c)}
	base := "http://" + serveWithin(t, open, shortly)
	for _, option := range []connect.ClientOption{connect.WithGRPC(), connect.WithProtoJSON()} {
		stream, err := commandsconnect.NewCommandServiceClient(client(t, 2), base, option).StreamCommands(t.Context())
		require.NoError(t, err)
		for range 3 {
			require.NoError(t, stream.Send(&commands.MIGletMessage{Message: &commands.MIGletMessage_Heartbeat{}}))
			_, err := stream.Receive()
			require.NoError(t, err)
			<-time.After(2 * shortly)
		}
		require.NoError(t, stream.CloseRequest())
		_, err = stream.Receive()
		require.ErrorIs(t, err, io.EOF)
		require.NoError(t, stream.CloseResponse())
		open.awaitEnd(t)
	}
}
