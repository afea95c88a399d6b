package rpc

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/session"
)

// Invalid messages are refused, and the stream continues.
func TestStreamRefusesMessages(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := startStreams(t, 0)
		a := s.connect("vm-1")
		lie := eventMessage("error")
		lie.GetEvent().VmId = "vm-2"
		for _, m := range []*commands.MIGletMessage{
			{}, hello("vm-1"), hello("vm-2"), ackOf("unknown"), ackOf("../.."), eventMessage("no type"), lie, beatMessage("not/one"),
		} {
			a.send(m)
		}
		a.send(eventMessage("error"))
		synctest.Wait()
		require.Equal(t, int64(8), s.registry.Stats().Refused)
		require.Len(t, s.events("vm-1"), 1)
		require.Empty(t, s.events("vm-2"))
		_, err := s.store.VM(t.Context(), "vm-2")
		require.ErrorIs(t, err, fleet.ErrNotFound)
	})
}

// Malformed framing, or a message above maxStreamMessage, ends only its own stream: others on
// the same connection continue. The cause is logged.
func TestStreamOfGarbage(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		body  []byte
		code  string
		cause session.EndCause
	}{
		"cut short":          {[]byte{0, 0, 0, 1, 0, 'x'}, "13", session.EndProtocol},
		"too large":          {frame(0, make([]byte, maxStreamMessage+1)), "8", session.EndTooLarge},
		"claims to be large": {[]byte{0, 0xff, 0xff, 0xff, 0xff}, "8", session.EndTooLarge},
		"not compressed":     {frame(1, []byte("x")), "13", session.EndProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := startStreams(t, time.Second)
				bystander := s.connect("vm-2")
				trailer := s.post(append(marshalled(t, hello("vm-1")), test.body...))
				require.Equal(t, test.code, trailer.Get("Grpc-Status"), trailer)
				require.False(t, s.vm("vm-1").Connected)
				require.Equal(t, []any{test.cause.String()}, s.causes())
				if test.cause == session.EndTooLarge {
					require.Contains(t, s.log.records(t, "agent disconnected")[0]["error"], "1048576")
				}

				bystander.receive()
				bystander.send(beatMessage("idle"))
				require.True(t, s.vm("vm-2").Connected)
			})
		})
	}
}

// A message that is malformed or too large is refused alone. It ends its stream if it is, or
// may be, a ConnectRequest.
func TestStreamRefusesMalformedMessages(t *testing.T) {
	t.Parallel()
	large := eventMessage("large")
	large.GetEvent().Data["x"] = strings.Repeat("x", maxAgentMessage)
	largeBeat := beatMessage("idle")
	largeBeat.GetHeartbeat().RunnerState.RunnerName = strings.Repeat("x", maxAgentMessage)
	for name, test := range map[string]struct {
		body     []byte
		what     string
		early    string // the status if it is sent before the ConnectRequest
		errorHas string
	}{
		"no protobuf":       {body: frame(0, []byte{0xff, 0xff, 0xff}), what: "other", early: "3", errorHas: "parse"},
		"text not UTF-8":    {body: frame(0, []byte{0x1a, 3, 0x0a, 1, 0xff}), what: "event", early: "0", errorHas: "UTF-8"},
		"beat not UTF-8":    {body: frame(0, []byte{0x22, 3, 0x0a, 1, 0xff}), what: "heartbeat", early: "0", errorHas: "UTF-8"},
		"connect not UTF-8": {body: frame(0, []byte{0x0a, 3, 0x0a, 1, 0xff}), what: "connect", early: "3", errorHas: "UTF-8"},
		"large event":       {body: marshalled(t, large), what: "event", early: "0", errorHas: fmt.Sprintf("its size of %d bytes exceeds the limit of 65536 bytes", proto.Size(large))},
		"large heartbeat":   {body: marshalled(t, largeBeat), what: "heartbeat", early: "0", errorHas: "exceeds the limit of 65536 bytes"},
		"large nothing":     {body: frame(0, make([]byte, maxAgentMessage+1)), what: "other", early: "8", errorHas: "exceeds the limit of 65536 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := startStreams(t, time.Second)
				first := marshalled(t, hello("vm-1"))
				trailer := s.post(append(append(bytes.Clone(first), test.body...), marshalled(t, eventMessage("after"))...))
				require.Equal(t, "0", trailer.Get("Grpc-Status"), trailer)
				require.Len(t, s.events("vm-1"), 1)
				require.Equal(t, []any{session.EndClosed.String()}, s.causes())
				refused := s.log.records(t, "message refused")
				require.Len(t, refused, 1)
				require.Equal(t, test.what, refused[0]["what"])
				require.Contains(t, refused[0]["error"], test.errorHas)

				trailer = s.post(append(test.body, first...))
				require.Equal(t, test.early, trailer.Get("Grpc-Status"), trailer)
			})
		})
	}
}

// Large messages are refused in JSON too.
func TestStreamRefusesLargeJSON(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := startStreams(t, 0)
		a := s.open(connect.WithGRPC(), connect.WithProtoJSON())
		a.send(hello("vm-1"))
		require.True(t, a.receive().GetConnectAck().GetAccepted())
		large := eventMessage("large")
		large.GetEvent().Data["x"] = strings.Repeat("x", maxAgentMessage)
		a.send(large)
		a.send(eventMessage("after"))
		synctest.Wait()
		refused := s.log.records(t, "message refused")
		require.Len(t, refused, 1)
		require.Contains(t, refused[0]["error"], "exceeds the limit of 65536 bytes")
		require.Len(t, s.events("vm-1"), 1)
	})
}

// post sends a whole stream and returns the end of the response.
func (s *streamSystem) post(body []byte) (trailer http.Header) {
	s.Helper()
	req, err := http.NewRequestWithContext(s.Context(), http.MethodPost, "http://controller"+streamPath, bytes.NewReader(body))
	require.NoError(s, err)
	req.Header = http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}}
	resp, err := s.http.Do(req)
	require.NoError(s, err)
	_, err = io.Copy(io.Discard, resp.Body)
	require.NoError(s, err)
	require.NoError(s, resp.Body.Close())
	return resp.Trailer
}

// causes returns why sessions ended, oldest first.
func (s *streamSystem) causes() (causes []any) {
	s.Helper()
	for _, r := range s.log.records(s.T, "agent disconnected") {
		causes = append(causes, r["cause"])
	}
	return causes
}

// marshalled returns a framed message.
func marshalled(t *testing.T, m *commands.MIGletMessage) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	require.NoError(t, err)
	return frame(0, b)
}

// frame returns a gRPC message.
func frame(flags byte, message []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{flags}, uint32(len(message))), message...)
}
