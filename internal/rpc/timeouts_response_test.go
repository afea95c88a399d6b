package rpc

import (
	"context"
	"io"
	"net/http"
	"strings"
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

// A response that is not accepted in time is cut off, and its handler ends: for a large list
// and for a watch.
func TestUnreadResponses(t *testing.T) {
	t.Parallel()
	for name, version := range httpVersions {
		for method, body := range map[string]string{"ListCommands": "{}", "WatchFleet": envelope(`{"vmId":"endless"}`)} {
			t.Run(method+", "+name, func(t *testing.T) {
				t.Parallel()
				base, open := serveTalkative(t)
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost,
					base+"/migcontroller.v1.AdminService/"+method, strings.NewReader(body))
				require.NoError(t, err)
				req.Header.Set("Content-Type", map[string]string{
					"ListCommands": "application/json", "WatchFleet": "application/connect+json",
				}[method])
				c := client(t, version)
				if method == "ListCommands" { // a finite response
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

// With HTTP/2 a closed window blocks even a short response, which is written after its handler
// has returned. Only the stream ends, not the connection.
func TestClosedWindow(t *testing.T) {
	t.Parallel()
	base, _ := serveTalkative(t)
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

// Slow calls that make progress are not ended: a handler that takes longer, with a body and
// without, and a body that arrives just in time.
func TestSlowExchanges(t *testing.T) {
	t.Parallel()
	const info = inMemory + "/migcontroller.v1.AdminService/GetServerInfo"
	for name, version := range httpVersions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := servePipes(t)
				for _, call := range []func() (*http.Response, error){
					func() (*http.Response, error) {
						return request(t, s.client(t, version), "POST", info, strings.NewReader("{}"))
					},
					func() (*http.Response, error) {
						return request(t, s.client(t, version), "GET", info+"?connect=v1&encoding=json&message={}", nil)
					},
					func() (*http.Response, error) {
						r, w := io.Pipe()
						go func() {
							_, _ = io.WriteString(w, "{")
							time.Sleep(shortly - 1) // fake clock
							_, _ = io.WriteString(w, "}")
							_ = w.Close()
						}()
						return request(t, s.client(t, version), "POST", info, r)
					},
				} {
					go s.sayAfter(t.Context(), 3*shortly)
					resp, err := call()
					require.NoError(t, err)
					require.Equal(t, 200, resp.StatusCode)
					require.NoError(t, resp.Body.Close())
				}
				s.open.awaitEnd(t)
			})
		})
	}
}

// A response that is read slowly is not ended, whatever its size: each part has its own
// deadline.
func TestSlowlyReadResponse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := servePipes(t)
		c := s.client(t, 2)
		transportOf(t, c).DisableCompression = true
		transportOf(t, c).HTTP2 = &http.HTTP2Config{MaxReceiveBufferPerStream: 64 << 10}
		resp, err := request(t, c, "POST", inMemory+"/migcontroller.v1.AdminService/ListCommands", strings.NewReader("{}"))
		require.NoError(t, err)
		defer func() { _ = resp.Body.Close() }()
		began, read := time.Now(), int64(0)
		for err == nil {
			var n int64
			n, err = io.CopyN(io.Discard, resp.Body, 256<<10)
			read += n
			time.Sleep(shortly / 8) // fake clock
		}
		require.ErrorIs(t, err, io.EOF)
		require.Greater(t, read, int64(8<<20))
		require.Greater(t, time.Since(began), 2*shortly)
		s.open.awaitEnd(t)
	})
}

// With HTTP/1.1 a write before the body has arrived has the time of both: the server reads the
// rest of the body first.
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

// A watch may pause for any time between its messages.
func TestIdleWatch(t *testing.T) {
	t.Parallel()
	for name, version := range httpVersions {
		for protocol, option := range map[string]connect.ClientOption{
			"Connect": connect.WithProtoJSON(), "gRPC-Web": connect.WithGRPCWeb(),
		} {
			t.Run(name+" "+protocol, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					s := servePipes(t)
					c := migcontrollerv1connect.NewAdminServiceClient(s.client(t, version), inMemory, option)
					go s.sayAfter(t.Context(), 2*shortly, 2*shortly, 2*shortly)
					stream, err := c.WatchFleet(t.Context(), &migcontrollerv1.WatchFleetRequest{})
					require.NoError(t, err)
					for range 3 {
						require.True(t, stream.Receive(), stream.Err())
					}
					require.NoError(t, stream.Close())
				})
			})
		}
	}
}

// A connection that was idle for longer than a request may take serves the next request, after
// requests with a body and without.
func TestReusedConnection(t *testing.T) {
	t.Parallel()
	for name, version := range httpVersions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := servePipes(t).client(t, version)
				for i := range 4 {
					var reused bool
					ctx := traced(t, &reused)
					req, err := http.NewRequestWithContext(ctx, http.MethodPost, inMemory+"/api/v1/vms/vm-1/events", strings.NewReader(`{"type":"x"}`))
					if i%2 == 1 {
						req, err = http.NewRequestWithContext(ctx, http.MethodGet, inMemory+"/health", http.NoBody)
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
					time.Sleep(2 * shortly) // fake clock
				}
			})
		})
	}
}

// An agent's stream has its own limits.
func TestStreamsAreNotTimed(t *testing.T) {
	t.Parallel()
	c := config(&fakeAgents{})
	c.Commands = fakeStreams(func(ctx context.Context, stream *bidiStream) error {
		a := newAgentStream(ctx, stream, "test")
		defer a.hangUp()
		for {
			if _, err := stream.Receive(); err != nil {
				return nil // its agent has ended it
			}
			if err := a.Accept(); err != nil {
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
