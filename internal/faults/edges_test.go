package faults

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
	"github.com/mig-controller/mig-controller/internal/loglimit"
)

// callTimeout is the maximum time for a request to arrive, and for each part of a response
// to be read.
const callTimeout = 30 * time.Second

const adminPath = "/" + migcontrollerv1connect.AdminServiceName + "/"

// testUnfinishedBodies leaves requests of every kind unfinished: each gets an answer and is
// released after its timeout, and calls that may take longer continue.
func testUnfinishedBodies(t *testing.T) {
	c := startController(t)
	a := c.connectRegistered(t, "vm-1")
	w := c.watch(t)
	before := c.goroutines(t)
	began := time.Now()
	answers := make(chan string)
	waiting, client := 0, &http.Client{Transport: newTransport(t)}
	for range 20 {
		for _, request := range []string{
			"POST " + adminPath + "SendCommand HTTP/1.1\r\nContent-Type: application/json",
			"POST " + adminPath + "WatchFleet HTTP/1.1\r\nContent-Type: application/connect+json",
			"POST /api/v1/vms/vm-1/events HTTP/1.1\r\nContent-Type: application/json",
			"POST /nowhere HTTP/1.1\r\nExpect: 100-continue",
			"OPTIONS * HTTP/1.1",
		} {
			conn := c.sendHTTP1(t, request+"\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
			go func() {
				all, _ := io.ReadAll(conn) // a reset may follow the answer
				answers <- string(all)
			}()
			waiting++
		}
		for path, contentType := range map[string]string{
			adminPath + "SendCommand":                                   "application/grpc",
			adminPath + "WatchFleet":                                    "application/connect+json",
			"/grpc.health.v1.Health/Watch":                              "application/grpc-web",
			"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": "application/grpc",
			"/api/v1/vms/vm-1/heartbeat":                                "application/json",
		} {
			resp := c.beginHTTP2(t, client, path, contentType)
			go func() { answers <- <-resp }()
			waiting++
		}
	}
	await(t, func() bool { return c.goroutines(t) > before+100 }, "they have not begun")
	for ; waiting > 0; waiting-- {
		select {
		case answer := <-answers:
			require.NotEmpty(t, answer, "no answer")
		case <-time.After(callTimeout + patience):
			require.FailNow(t, "a request continues", "%d of them, after %s", waiting, time.Since(began))
		}
	}
	require.Greater(t, time.Since(began), callTimeout-time.Second)
	require.Less(t, time.Since(began), callTimeout+15*time.Second)
	awaitFor(t, patience, func() bool { return c.goroutines(t) < before+20 }, "they are not released")

	requireSameSession(t, c, a)
	seen := w.count()
	c.send(t, "vm-1", "after")
	a.expect(t, "after")
	a.ack(t, "after")
	await(t, func() bool { return w.count() >= seen+3 }, "the watch has ended")
}

func (c *controller) goroutines(t *testing.T) int {
	t.Helper()
	info, err := c.admin.GetServerInfo(t.Context(), &migcontrollerv1.GetServerInfoRequest{})
	require.NoError(t, err)
	return int(info.GetGoroutines())
}

// sendHTTP1 sends bytes on a new connection.
func (c *controller) sendHTTP1(t *testing.T, request string) net.Conn {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", c.addr)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	_, err = io.WriteString(conn, request)
	require.NoError(t, err)
	return conn
}

// beginHTTP2 sends a request whose body does not end, and returns a channel for its status.
func (c *controller) beginHTTP2(t *testing.T, client *http.Client, path, contentType string) <-chan string {
	t.Helper()
	body, end := io.Pipe()
	t.Cleanup(func() { _ = end.Close() })
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+c.addr+path, body)
	require.NoError(t, err)
	req.Header.Set("Content-Type", contentType)
	answered := make(chan string, 1)
	go func() {
		resp, err := client.Do(req)
		if err != nil {
			answered <- ""
			return
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		answered <- resp.Status
	}()
	return answered
}

// testUnreadWatch leaves a watch and a list with full windows unread: both are ended after
// their timeout. A watch that is read gets all changes.
func testUnreadWatch(t *testing.T) {
	c := startController(t)
	w := c.watch(t)
	conn := dial(t, c.addr)
	connectOnce(t, conn, "vm-3") // its connection stays open
	c.awaitLine(t, ofMessage("agent disconnected"), ofVM("vm-3"))
	before, changes := c.goroutines(t), w.count()
	large := func(r *sendRequest) {
		r.Command.StringParams = map[string]string{"x": strings.Repeat("x", 10<<10)}
	}
	watching := callUnread(t, conn, "WatchFleet", &migcontrollerv1.WatchFleetRequest{})
	for i := range 100 { // 1 MB of commands, and twice the watch's window of changes
		c.send(t, "vm-1", fmt.Sprint("large-", i), large)
		for j := range 4 {
			c.send(t, "vm-2", fmt.Sprintf("%s-%d-%d", strings.Repeat("x", 100), i, j))
		}
	}
	listing := callUnread(t, conn, "ListCommands", &migcontrollerv1.ListCommandsRequest{VmId: "vm-1", PageSize: 100})
	began := time.Now()
	stays(t, callTimeout-10*time.Second, func() bool { return c.goroutines(t) > before }, "they end too soon")
	awaitFor(t, callTimeout, func() bool { return c.goroutines(t) <= before }, "they are not released")
	require.Less(t, time.Since(began), callTimeout+10*time.Second)
	for name, stream := range map[string]grpc.ClientStream{"watch": watching, "list": listing} {
		var err error
		for err == nil {
			err = stream.RecvMsg(new(migcontrollerv1.WatchFleetResponse))
		}
		require.Equal(t, codes.Internal, status.Code(err), "%s: %v", name, err)
	}
	await(t, func() bool { return w.count() >= changes+500 }, "the other watch lacks changes")
	c.send(t, "vm-1", "after")
	await(t, func() bool { return w.count() >= changes+501 }, "the other watch has ended")
}

// callUnread makes a call without reading its answers.
func callUnread(t *testing.T, conn *grpc.ClientConn, method string, request proto.Message) grpc.ClientStream {
	t.Helper()
	stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, adminPath+method)
	require.NoError(t, err)
	require.NoError(t, stream.SendMsg(request))
	require.NoError(t, stream.CloseSend())
	return stream
}

// testLogFlood repeats mistakes of callers and agents as fast as possible: the log has a
// limited number of lines of each kind.
func testLogFlood(t *testing.T) {
	c := startController(t, "--registration-token-file="+t.TempDir()+"/missing", "--runner-url=https://github.com/example/app")
	client := &http.Client{Transport: newTransport(t)}
	over := time.Now().Add(10 * time.Second)
	rounds := 0
	for ; rounds < 2*loglimit.Lines || rounds < 100 && time.Now().Before(over); rounds++ {
		c.post(t, client, adminPath+"WatchFleet", "application/connect+json", "{}")
		c.post(t, client, adminPath+"WatchFleet", "application/connect+json", "\x00"+string(binary.BigEndian.AppendUint32(nil, 2))+"[]")
		c.post(t, client, adminPath+"SendCommand", "application/json", "{}")
		c.post(t, client, adminPath+"Nothing", "application/json", "{}")
		c.post(t, client, "/api/v1/vms/vm-1/registration-token", "application/json", "{}")
		c.post(t, client, "/api/v1/vms/vm-1/events", "application/json", `{"type":"error"}`)
		conn := dial(t, c.addr)
		connectOnce(t, conn, "not an id")
		connectOnce(t, conn, "vm-2")
	}
	for _, message := range []string{"agent rejected", "agent connected", "agent disconnected", "event received", "call failed"} {
		require.Len(t, c.out.lines(ofMessage(message)), loglimit.Lines, message)
	}
	kinds := map[string]int{}
	for _, line := range c.out.lines(`"msg":"`) {
		_, rest, _ := strings.Cut(line, `"msg":"`)
		message, _, _ := strings.Cut(rest, `"`)
		kinds[message]++
	}
	for message, lines := range kinds {
		require.LessOrEqual(t, lines, loglimit.Lines, message)
	}
}

// post sends a request and ignores its answer.
func (c *controller) post(t *testing.T, client *http.Client, path, contentType, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+c.addr+path, strings.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Content-Type", contentType)
	resp, err := client.Do(req)
	require.NoError(t, err)
	_, err = io.Copy(io.Discard, resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
}

// connectOnce opens a stream, waits for its first message and cancels it.
func connectOnce(t *testing.T, conn *grpc.ClientConn, vm string) {
	t.Helper()
	a := open(t, conn, vm)
	go a.read()
	require.Equal(t, vm != "not an id", a.message(t).GetConnectAck().GetAccepted())
	a.reset()
}
