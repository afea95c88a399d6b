package rpc

import (
	"encoding/binary"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/session"
)

// rawClient is an agent's end of a gRPC stream, on which it writes and reads bytes.
type rawClient struct {
	*streamSystem
	request  *io.PipeWriter
	response *http.Response
}

func (s *streamSystem) openRaw() *rawClient {
	s.Helper()
	body, request := io.Pipe()
	req, err := http.NewRequestWithContext(s.Context(), http.MethodPost, "http://controller"+streamPath, body)
	require.NoError(s, err)
	req.Header = http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}}
	r := &rawClient{streamSystem: s, request: request}
	answered := make(chan error, 1)
	go func() {
		var err error
		r.response, err = s.http.Do(req) //nolint:bodyclose // closed at the end of the test
		answered <- err
	}()
	s.Cleanup(func() {
		_ = request.CloseWithError(io.ErrUnexpectedEOF) // resets the stream
		if <-answered == nil {
			_ = r.response.Body.Close()
		}
		answered <- nil
	})
	return r
}

// send sends bytes. There may be no response yet.
func (r *rawClient) send(b []byte) {
	r.Helper()
	_, err := r.request.Write(b)
	require.NoError(r, err)
}

// receive returns the next message.
func (r *rawClient) receive() *commands.ControllerMessage {
	r.Helper()
	synctest.Wait() // the response headers have arrived
	var head [5]byte
	_, err := io.ReadFull(r.response.Body, head[:])
	require.NoError(r, err)
	body := make([]byte, binary.BigEndian.Uint32(head[1:]))
	_, err = io.ReadFull(r.response.Body, body)
	require.NoError(r, err)
	m := new(commands.ControllerMessage)
	require.NoError(r, proto.Unmarshal(body, m))
	return m
}

// enqueue accepts a command, like an operator.
func (s *streamSystem) enqueue(vm, id string, params ...string) {
	s.Helper()
	request := fleet.CommandRequest{ID: id, VM: vm, Type: "update_config"}
	if params != nil {
		request.Params.List = params
	}
	c, err := request.Accept(streamDefaults, adminNow())
	require.NoError(s, err)
	_, err = s.store.Accept(s.Context(), c)
	require.NoError(s, err)
}

// An agent that is alive but reads nothing does not block its queue: its stream is terminated
// ten seconds after a message was due, the cause is logged, and the command is delivered on
// the next stream.
func TestAgentThatDoesNotReadIsCutOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := startStreams(t, time.Hour)
		r := s.openRaw()
		r.send(marshalled(t, hello("vm-1")))
		require.True(t, r.receive().GetConnectAck().GetAccepted())
		register := r.receive().GetCommand().GetId()
		began := time.Now()
		s.enqueue("vm-1", "large", largeParams...)
		r.send(marshalled(t, ackOf(register)))
		for range 9 {
			time.Sleep(time.Second) // fake clock
			r.send(marshalled(t, beatMessage("idle")))
		}
		synctest.Wait()
		require.Empty(t, s.causes())
		time.Sleep(time.Second) // fake clock
		require.Equal(t, writeTimeout, time.Since(began))
		synctest.Wait()
		require.Equal(t, []any{session.EndWriteTimeout.String()}, s.causes())
		line := s.log.records(t, "agent disconnected")[0]
		require.Contains(t, line["error"], "the agent did not accept a message within 10s")
		require.False(t, s.vm("vm-1").Connected)
		again := s.openRaw()
		again.send(marshalled(t, hello("vm-1")))
		require.True(t, again.receive().GetConnectAck().GetAccepted())
		require.Equal(t, "large", again.receive().GetCommand().GetId())
	})
}

// largeParams are params that do not fit into an agent's window.
var largeParams = slices.Repeat([]string{strings.Repeat("x", fleet.MaxParamLength)}, 2*agentWindow/fleet.MaxParamLength)

// An agent that reads slowly, but within the limit, keeps its stream.
func TestSlowAgentKeepsItsStream(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := startStreams(t, time.Hour)
		r := s.openRaw()
		r.send(marshalled(t, hello("vm-1")))
		require.True(t, r.receive().GetConnectAck().GetAccepted())
		r.send(marshalled(t, ackOf(r.receive().GetCommand().GetId())))
		for _, id := range []string{"a", "b", "c"} {
			s.enqueue("vm-1", id, largeParams...)
			time.Sleep(writeTimeout - time.Millisecond) // fake clock
			require.Equal(t, id, r.receive().GetCommand().GetId())
			r.send(marshalled(t, ackOf(id)))
		}
		time.Sleep(10 * writeTimeout) // fake clock
		require.Empty(t, s.causes())
	})
}

// Messages on a held stream are discarded: the window of the connection, which many agents may
// share, stays open.
func TestHeldStreamDoesNotStallItsNeighbours(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ first string }{
		"rejected": {"../x"},
		"refused":  {"vm-2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := startStreams(t, time.Hour)
				other := s.connect("vm-1")
				s.store.on(func() error { return fleet.ErrUnavailable })
				const streams = 3
				flood := make(chan error, streams)
				for range streams {
					held := s.openRaw()
					held.send(marshalled(t, hello(test.first)))
					synctest.Wait()
					go func() {
						_, err := held.request.Write(make([]byte, 2<<20))
						flood <- err
					}()
				}
				s.store.on(nil)
				synctest.Wait()
				began := time.Now()
				other.send(eventMessage("error"))
				synctest.Wait()
				require.Len(t, s.events("vm-1"), 1)
				require.Zero(t, time.Since(began), "it waited for the end of the hold")
				for range streams {
					require.NoError(t, <-flood)
				}
			})
		})
	}
}
