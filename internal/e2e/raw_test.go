package e2e

import (
	"bytes"
	"encoding/binary"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"

	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
)

// rawAgent writes HTTP/2 frames itself: it does what no library allows.
type rawAgent struct {
	*http2.Framer
	t    *testing.T
	conn *net.TCPConn
}

const rawStream = 1

// dialRaw connects with the largest flow-control windows, so that the peer only waits for
// the network.
func dialRaw(t *testing.T, addr string) *rawAgent {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(3*patience)))
	_, err = conn.Write([]byte(http2.ClientPreface))
	require.NoError(t, err)
	r := &rawAgent{Framer: http2.NewFramer(conn, conn), t: t, conn: conn.(*net.TCPConn)} //nolint:errcheck,forcetypeassert // a TCP connection
	require.NoError(t, r.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1}))
	require.NoError(t, r.WriteWindowUpdate(0, 1<<30))
	return r
}

// open opens the stream.
func (r *rawAgent) open() {
	r.t.Helper()
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, f := range [][2]string{
		{":method", "POST"},
		{":scheme", "http"},
		{":path", streamMethod},
		{":authority", "controller"},
		{"content-type", "application/grpc"},
		{"te", "trailers"},
	} {
		require.NoError(r.t, enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}))
	}
	require.NoError(r.t, r.WriteHeaders(http2.HeadersFrameParam{
		StreamID: rawStream, BlockFragment: block.Bytes(), EndHeaders: true,
	}))
}

// send sends a message.
func (r *rawAgent) send(m *commands.MIGletMessage) {
	r.t.Helper()
	body, err := proto.Marshal(m)
	require.NoError(r.t, err)
	frame := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(body)))
	require.NoError(r.t, r.WriteData(rawStream, false, append(frame, body...)))
}

func (r *rawAgent) hello(vm string) {
	r.t.Helper()
	r.send(&commands.MIGletMessage{Message: &commands.MIGletMessage_Connect{Connect: &commands.ConnectRequest{VmId: vm}}})
}

// pings sends n PINGs as fast as possible, and requires n answers and no GOAWAY.
func (r *rawAgent) pings(n int) {
	r.t.Helper()
	for i := range n {
		require.NoError(r.t, r.WritePing(false, [8]byte{byte(i >> 8), byte(i)}))
	}
	for answered := 0; answered < n; {
		f, err := r.ReadFrame()
		require.NoError(r.t, err)
		switch f := f.(type) {
		case *http2.GoAwayFrame, *http2.RSTStreamFrame:
			require.FailNow(r.t, "pings are not tolerated", "after %d answers: %v", answered, f)
		case *http2.PingFrame:
			require.True(r.t, f.IsAck())
			answered++
		}
	}
}

// message reads until a message arrives on the stream.
func (r *rawAgent) message() *commands.ControllerMessage {
	r.t.Helper()
	for {
		f, err := r.ReadFrame()
		require.NoError(r.t, err)
		data, ok := f.(*http2.DataFrame)
		if !ok || len(data.Data()) == 0 {
			continue
		}
		m := new(commands.ControllerMessage)
		require.NoError(r.t, proto.Unmarshal(data.Data()[5:], m))
		return m
	}
}

// TestPingsAreTolerated defends agents that ping, idle or not, however often: they get
// answers, not a GOAWAY.
func TestPingsAreTolerated(t *testing.T) {
	t.Parallel()
	for _, addr := range []string{shared.grpcAddr, shared.httpAddr} {
		vm := newVM()
		r := dialRaw(t, addr)
		r.pings(500)
		r.open()
		r.hello(vm)
		require.True(t, r.message().GetConnectAck().GetAccepted())
		require.Equal(t, "register_runner", r.message().GetCommand().GetType())
		r.pings(500)
		require.True(t, shared.vm(t, vm).GetConnected())
		id := shared.send(t, vm, "drain").GetCommand().GetId()
		r.send(ackMessage(&commands.CommandAck{CommandId: shared.registrations(t, vm)[0].GetCommand().GetId()}))
		require.Equal(t, id, r.message().GetCommand().GetId(), "the stream works as before")
	}
}

// largeCommand makes a command nearly as large as possible.
func largeCommand(r *sendRequest) {
	r.Command.StringParams = map[string]string{}
	for i := range 60 {
		r.Command.StringParams[strings.Repeat("p", i+1)] = strings.Repeat("x", 16<<10)
	}
}

// connectDead opens a session of an agent whose machine is dead: it reads nothing, and has
// been sent more than the network buffers.
func (c *controller) connectDead(t *testing.T, vm string) {
	t.Helper()
	r := dialRaw(t, c.grpcAddr)
	r.open()
	r.hello(vm)
	require.True(t, r.message().GetConnectAck().GetAccepted())
	out := r.message().GetCommand().GetId()
	for range 40 {
		r.send(ackMessage(&commands.CommandAck{CommandId: out, Success: true}))
		out = c.send(t, vm, "update_config", largeCommand, withAckTimeout(time.Hour)).GetCommand().GetId()
		if c.isBlocked(t, out) {
			return
		}
	}
	require.FailNow(t, "the network accepts everything")
}

// isBlocked reports whether the command is blocked on its way to an agent that does not
// read it: even for the largest command it is not sent in reasonable time.
func (c *controller) isBlocked(t *testing.T, id string) bool {
	t.Helper()
	const long = 2 * time.Second
	began := time.Now()
	blocked := await(t, id+" to be sent, or to be blocked", func() *bool {
		switch {
		case len(c.log.lines("command delivered", "command_id="+id+" ")) > 0:
			return new(false)
		case time.Since(began) > long:
			return new(true)
		default:
			return nil
		}
	}, func(blocked *bool) bool { return blocked != nil })
	return *blocked
}
