package rpc

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands/commandsconnect"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/registration"
	"github.com/mig-controller/mig-controller/internal/store"
)

// A stream from its ConnectRequest to its end, in each protocol that is served:
// register_runner is pushed without being asked for, and what the agent says is
// stored.
func TestStream(t *testing.T) {
	t.Parallel()
	for name, options := range map[string][]connect.ClientOption{
		"gRPC":    {connect.WithGRPC()},
		"Connect": {connect.WithSendGzip()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := startStreams(t, 0)
				a := s.open(options...)
				a.say(beatMessage("connecting")) // overtakes the ConnectRequest
				a.say(eventMessage("too_early"))
				a.say(hello("vm-1"))
				want := &commands.ConnectAck{Accepted: true, Message: "connected", ServerVersion: "1.2.3"}
				require.True(t, proto.Equal(want, a.hear().GetConnectAck()))
				v := s.vm("vm-1")
				require.Equal(t, "0.9", v.AgentVersion)
				require.True(t, v.Connected)

				register := a.hear().GetCommand()
				require.True(t, proto.Equal(&commands.Command{
					Id: string(v.Registration.Command), Type: "register_runner", CreatedAt: time.Now().Unix(),
					StringParams: map[string]string{
						"registration_token": "SECRET-TOKEN", "runner_group": registration.DefaultGroup,
						"runner_url": registration.DefaultURL,
					},
					StringArrayParams: []string{"a", "b"},
				}, register), register)
				a.say(ackOf(register.GetId()))
				a.say(eventMessage("runner_registered"))
				a.say(beatMessage("idle"))
				a.say(&commands.MIGletMessage{Message: &commands.MIGletMessage_Error{
					Error: &commands.ErrorNotification{Code: "odd", Message: "something"},
				}})
				require.NoError(t, a.rpc.CloseRequest())
				require.ErrorIs(t, a.end(), io.EOF)

				require.False(t, s.vm("vm-1").Connected)
				c, err := s.store.Command(t.Context(), v.Registration.Command)
				require.NoError(t, err)
				require.Equal(t, fleet.Succeeded, c.State)
				require.Equal(t, &fleet.Ack{
					CommandID: c.ID, Success: true, Message: "done", Result: map[string]string{"k": "v"},
				}, c.Ack)
				require.Len(t, s.events("vm-1"), 1)
				require.JSONEq(t,
					`{"type":"runner_registered","vm_id":"vm-1","data":{"a":"b"},"timestamp":"1700000000"}`,
					string(s.events("vm-1")[0].Body))
				s.dispatch.Close()
				hs, err := s.store.Heartbeats(t.Context(), "vm-1", store.Page{Size: 10})
				require.NoError(t, err)
				require.Len(t, hs, 1)
				require.Equal(t, "idle", hs[0].Status)
				require.Nil(t, hs[0].Health.CPUPercent)
				require.Len(t, s.log.records(t, "agent reported an error"), 1)
			})
		})
	}
}

// All kinds of parameters reach the agent.
func TestStreamCommandParams(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := startStreams(t, 0)
		c, err := fleet.CommandRequest{
			ID: "a", VM: "vm-1", Type: "update_config", CreatedAt: 1_700_000_000,
			Params: fleet.Params{
				Strings: map[string]string{"s": "text"}, Ints: map[string]int64{"i": -1},
				Bools: map[string]bool{"b": true}, List: []string{"x", "y"},
			},
		}.Accept(streamDefaults, adminNow())
		require.NoError(t, err)
		_, err = s.store.Enqueue(t.Context(), c, time.Now)
		require.NoError(t, err)
		got := s.connect("vm-1").hear().GetCommand()
		require.True(t, proto.Equal(&commands.Command{
			Id: "a", Type: "update_config", CreatedAt: 1_700_000_000,
			StringParams: map[string]string{"s": "text"}, IntParams: map[string]int64{"i": -1},
			BoolParams: map[string]bool{"b": true}, StringArrayParams: []string{"x", "y"},
		}, got), got)
	})
}

// accepted=false makes an agent give up for good: it is for an id that breaks
// the rule, and says which. The stream is held all the same.
func TestStreamRejected(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := startStreams(t, 7*time.Second)
		a := s.open()
		a.say(hello("../SECRET-TOKEN"))
		ack := a.hear().GetConnectAck()
		require.False(t, ack.GetAccepted())
		require.Contains(t, ack.GetMessage(), "vm_id must be")
		require.Equal(t, "1.2.3", ack.GetServerVersion())
		began := time.Now()
		require.ErrorIs(t, a.end(), io.EOF)
		require.Equal(t, 7*time.Second, time.Since(began))
	})
}

// What can succeed later is no rejection: the stream is held and ends with
// UNAVAILABLE, and what is behind that stays inside.
func TestStreamRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := startStreams(t, 7*time.Second)
		s.store.on(func() error { return errors.Join(fleet.ErrUnavailable, errors.New("disk /dev/x")) })
		a := s.open()
		a.say(hello("vm-1"))
		began := time.Now()
		err := a.end()
		require.Equal(t, connect.CodeUnavailable, connect.CodeOf(err))
		require.NotContains(t, err.Error(), "disk")
		require.Equal(t, 7*time.Second, time.Since(began))
		s.store.on(nil)
		s.connect("vm-1")
	})
}

// A stream without a ConnectRequest ends after a while, with a stop at once.
func TestStreamWithoutHello(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		stop bool
		want time.Duration
	}{
		"silent": {false, helloTimeout + time.Second},
		"stop":   {true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := startStreams(t, time.Second)
				a := s.open()
				a.say(beatMessage("idle"))
				synctest.Wait()
				began := time.Now()
				if test.stop {
					s.dispatch.EndSessions(t.Context())
				}
				err := a.end()
				require.Error(t, err)
				require.NotErrorIs(t, err, io.EOF)
				require.Equal(t, test.want, time.Since(began))
			})
		})
	}
}

// The newest stream of a VM wins; the old one hears nothing more and ends with
// ABORTED when it has been held. Its agent says nothing meanwhile.
func TestStreamSuperseded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := startStreams(t, 5*time.Second)
		older := s.connect("vm-1")
		older.hear()
		newer := s.connect("vm-1")
		began := time.Now()
		require.Equal(t, "register_runner", newer.hear().GetCommand().GetType())
		m, err := older.rpc.Receive()
		require.Equal(t, connect.CodeAborted, connect.CodeOf(err), "%v", m)
		require.Equal(t, 5*time.Second, time.Since(began))
		require.True(t, s.vm("vm-1").Connected)
		newer.say(eventMessage("error"))
		synctest.Wait()
		require.Len(t, s.events("vm-1"), 1)
	})
}

// A stop ends streams at once with UNAVAILABLE. What had come from their agents
// by then is stored, although it is read after.
func TestStreamStopped(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := startStreams(t, time.Hour)
		a, b := s.connect("vm-1"), s.connect("vm-2")
		slow := make(chan struct{})
		s.store.on(func() error { <-slow; return nil })
		a.say(eventMessage("job_completed"))
		a.say(eventMessage("vm_shutting_down"))
		synctest.Wait()
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			s.dispatch.EndSessions(t.Context())
		}()
		began := time.Now()
		require.Equal(t, connect.CodeUnavailable, connect.CodeOf(b.end()))
		synctest.Wait()
		close(slow)
		require.Equal(t, connect.CodeUnavailable, connect.CodeOf(a.end()))
		<-stopped
		require.Zero(t, time.Since(began))
		require.Len(t, s.events("vm-1"), 2)
		require.False(t, s.vm("vm-1").Connected)
	})
}

// Messages that make no sense are refused, and the stream goes on.
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
			a.say(m)
		}
		a.say(eventMessage("error"))
		synctest.Wait()
		require.Equal(t, int64(8), s.dispatch.Stats().Refused)
		require.Len(t, s.events("vm-1"), 1)
		require.Empty(t, s.events("vm-2"))
		_, err := s.store.VM(t.Context(), "vm-2")
		require.ErrorIs(t, err, fleet.ErrNotFound)
	})
}

// What is not framed as messages, or is larger than can be read, costs its stream
// and nothing else: others on the same connection go on. The log says why.
func TestStreamOfGarbage(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		body  []byte
		code  string
		cause string
	}{
		"cut short":        {[]byte{0, 0, 0, 1, 0, 'x'}, "13", endProtocol},
		"too large":        {frame(0, make([]byte, maxStreamMessage+1)), "8", endTooLarge},
		"says it is large": {[]byte{0, 0xff, 0xff, 0xff, 0xff}, "8", endTooLarge},
		"not compressed":   {frame(1, []byte("x")), "13", endProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := startStreams(t, time.Second)
				bystander := s.connect("vm-2")
				trailer := s.post(append(marshalled(t, hello("vm-1")), test.body...))
				require.Equal(t, test.code, trailer.Get("Grpc-Status"), trailer)
				require.False(t, s.vm("vm-1").Connected)
				require.Equal(t, []any{test.cause}, s.causes())
				if test.cause == endTooLarge {
					require.Contains(t, s.log.records(t, "agent disconnected")[0]["error"], "1048576")
				}

				bystander.hear()
				bystander.say(beatMessage("idle"))
				require.True(t, s.vm("vm-2").Connected)
			})
		})
	}
}

// A message that is malformed or too large costs itself alone. A ConnectRequest
// ends its stream, and so does what may be one.
func TestStreamRefusesMalformedMessages(t *testing.T) {
	t.Parallel()
	large := eventMessage("large")
	large.GetEvent().Data["x"] = strings.Repeat("x", maxAgentMessage)
	largeBeat := beatMessage("idle")
	largeBeat.GetHeartbeat().RunnerState.RunnerName = strings.Repeat("x", maxAgentMessage)
	for name, test := range map[string]struct {
		body     []byte
		what     string
		early    string // the status when it comes before the ConnectRequest
		errorHas string
	}{
		"no protobuf":       {body: frame(0, []byte{0xff, 0xff, 0xff}), what: "message", early: "3", errorHas: "parse"},
		"text not UTF-8":    {body: frame(0, []byte{0x1a, 3, 0x0a, 1, 0xff}), what: "event", early: "0", errorHas: "UTF-8"},
		"beat not UTF-8":    {body: frame(0, []byte{0x22, 3, 0x0a, 1, 0xff}), what: "heartbeat", early: "0", errorHas: "UTF-8"},
		"connect not UTF-8": {body: frame(0, []byte{0x0a, 3, 0x0a, 1, 0xff}), what: "connect", early: "3", errorHas: "UTF-8"},
		"large event":       {body: marshalled(t, large), what: "event", early: "0", errorHas: fmt.Sprintf("its size of %d bytes exceeds the limit of 65536 bytes", proto.Size(large))},
		"large heartbeat":   {body: marshalled(t, largeBeat), what: "heartbeat", early: "0", errorHas: "exceeds the limit of 65536 bytes"},
		"large nothing":     {body: frame(0, make([]byte, maxAgentMessage+1)), what: "message", early: "8", errorHas: "exceeds the limit of 65536 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := startStreams(t, time.Second)
				first := marshalled(t, hello("vm-1"))
				trailer := s.post(append(append(bytes.Clone(first), test.body...), marshalled(t, eventMessage("after"))...))
				require.Equal(t, "0", trailer.Get("Grpc-Status"), trailer)
				require.Len(t, s.events("vm-1"), 1)
				require.Equal(t, []any{endClosed}, s.causes())
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

// What is large is refused from JSON as well.
func TestStreamRefusesLargeJSON(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := startStreams(t, 0)
		a := s.open(connect.WithGRPC(), connect.WithProtoJSON())
		a.say(hello("vm-1"))
		require.True(t, a.hear().GetConnectAck().GetAccepted())
		large := eventMessage("large")
		large.GetEvent().Data["x"] = strings.Repeat("x", maxAgentMessage)
		a.say(large)
		a.say(eventMessage("after"))
		synctest.Wait()
		refused := s.log.records(t, "message refused")
		require.Len(t, refused, 1)
		require.Contains(t, refused[0]["error"], "exceeds the limit of 65536 bytes")
		require.Len(t, s.events("vm-1"), 1)
	})
}

// post sends a whole stream and returns what ends the answer.
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

// causes are why sessions ended, the first one first.
func (s *streamSystem) causes() (causes []any) {
	s.Helper()
	for _, r := range s.log.records(s.T, "agent disconnected") {
		causes = append(causes, r["cause"])
	}
	return causes
}

// marshalled is a message in its frame.
func marshalled(t *testing.T, m *commands.MIGletMessage) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	require.NoError(t, err)
	return frame(0, b)
}

// frame is a gRPC message.
func frame(flags byte, message []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{flags}, uint32(len(message))), message...)
}

// A message whose handling panics costs its stream; its session is closed like
// any other.
func TestStreamPanics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := startStreams(t, 0)
		bystander := s.connect("vm-2")
		a := s.connect("vm-1")
		s.store.on(func() error { panic("of the test") })
		a.say(eventMessage("error"))
		require.Equal(t, connect.CodeInternal, connect.CodeOf(a.end()))
		s.store.on(nil)
		require.False(t, s.vm("vm-1").Connected)
		require.Equal(t, 1, s.dispatch.Stats().Sessions)
		bystander.hear()
		began := time.Now()
		s.dispatch.EndSessions(t.Context())
		require.Zero(t, time.Since(began), "nobody is waited for")
	})
}

// An agent that goes away while its stream is held frees it; one whose stream
// breaks ends its session.
func TestStreamLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := startStreams(t, time.Hour)
		older := s.connect("vm-1")
		newer := s.connect("vm-1")
		older.quit()
		synctest.Wait()
		require.Len(t, s.log.records(t, "agent disconnected"), 1)
		require.True(t, s.vm("vm-1").Connected)
		newer.quit()
		synctest.Wait()
		require.False(t, s.vm("vm-1").Connected)
		rejected := s.open()
		rejected.say(hello(""))
		rejected.hear()
		rejected.quit()
		synctest.Wait()
		began := time.Now()
		s.dispatch.EndSessions(t.Context())
		require.Zero(t, time.Since(began))
	})
}

// Streams may supersede each other, be held, end and be ended in any order:
// nothing touches a stream whose handler has returned. The clock is the real
// one.
func TestStreamsRace(t *testing.T) {
	t.Parallel()
	s := startStreams(t, time.Millisecond)
	var agents sync.WaitGroup
	for range 4 {
		agents.Go(func() {
			client := commandsconnect.NewCommandServiceClient(s.http, "http://controller", connect.WithGRPC())
			for range 25 {
				ctx, leave := context.WithCancel(t.Context())
				rpc, err := client.StreamCommands(ctx)
				if err != nil {
					t.Error(err)
				}
				_ = rpc.Send(hello("vm-1"))
				_ = rpc.Send(beatMessage("idle"))
				quitting := time.AfterFunc(2*time.Millisecond, func() {
					leave()
					_ = rpc.CloseRequest() // a client may miss the end of its context
				})
				for err == nil {
					_, err = rpc.Receive()
				}
				quitting.Stop()
				leave()
				_ = rpc.CloseRequest()
				_ = rpc.CloseResponse()
			}
		})
	}
	agents.Wait()
	s.dispatch.EndSessions(t.Context())
	require.False(t, s.vm("vm-1").Connected)
	require.Empty(t, s.log.records(t, "call panicked"))
	require.NotContains(t, strings.ToLower(s.logged()), "panic")
}
