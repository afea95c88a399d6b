package rpc

import (
	"context"
	"errors"
	"io"
	"strconv"
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
	"github.com/mig-controller/mig-controller/internal/loglimit"
	"github.com/mig-controller/mig-controller/internal/registration"
)

// A stream from its ConnectRequest to its end, in each protocol: register_runner is pushed
// without a request, and the agent's messages are stored.
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
				a.send(beatMessage("connecting")) // overtakes the ConnectRequest
				a.send(eventMessage("too_early"))
				a.send(hello("vm-1"))
				want := &commands.ConnectAck{Accepted: true, Message: "connected", ServerVersion: "1.2.3"}
				require.True(t, proto.Equal(want, a.receive().GetConnectAck()))
				v := s.vm("vm-1")
				require.Equal(t, "0.9", v.AgentVersion)
				require.True(t, v.Connected)

				register := a.receive().GetCommand()
				require.True(t, proto.Equal(&commands.Command{
					Id: string(v.Registration.Command), Type: "register_runner", CreatedAt: time.Now().Unix(),
					StringParams: map[string]string{
						"registration_token": "SECRET-TOKEN", "runner_group": registration.DefaultGroup,
						"runner_url": registration.DefaultURL,
					},
					StringArrayParams: []string{"a", "b"},
				}, register), register)
				a.send(ackOf(register.GetId()))
				a.send(eventMessage("runner_registered"))
				a.send(beatMessage("idle"))
				a.send(&commands.MIGletMessage{Message: &commands.MIGletMessage_Error{
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
					`{"type":"runner_registered","vm_id":"vm-1","data":{"a":"b"},"timestamp":1700000000}`,
					string(s.events("vm-1")[0].Body))
				s.registry.Close()
				hs, _, err := s.store.Heartbeats(t.Context(), "vm-1", time.Time{}, 10)
				require.NoError(t, err)
				require.Len(t, hs, 1)
				require.Equal(t, "idle", hs[0].Status)
				require.Nil(t, hs[0].Health.CPUPercent)
				require.Len(t, s.log.records(t, "agent reported an error"), 1)
			})
		})
	}
}

// Parameters of all types reach the agent.
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
		_, err = s.store.Accept(t.Context(), c)
		require.NoError(t, err)
		got := s.connect("vm-1").receive().GetCommand()
		require.True(t, proto.Equal(&commands.Command{
			Id: "a", Type: "update_config", CreatedAt: 1_700_000_000,
			StringParams: map[string]string{"s": "text"}, IntParams: map[string]int64{"i": -1},
			BoolParams: map[string]bool{"b": true}, StringArrayParams: []string{"x", "y"},
		}, got), got)
	})
}

// accepted=false makes an agent give up: it is sent only for an invalid id, with the rule. The
// stream is held nevertheless.
func TestStreamRejected(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := startStreams(t, 7*time.Second)
		a := s.open()
		a.send(hello("../SECRET-TOKEN"))
		ack := a.receive().GetConnectAck()
		require.False(t, ack.GetAccepted())
		require.Contains(t, ack.GetMessage(), "vm_id must be")
		require.Equal(t, "1.2.3", ack.GetServerVersion())
		began := time.Now()
		require.ErrorIs(t, a.end(), io.EOF)
		require.Equal(t, 7*time.Second, time.Since(began))
	})
}

// A failure that may be temporary is not a rejection: the stream is held and ends with
// UNAVAILABLE, without the cause.
func TestStreamRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := startStreams(t, 7*time.Second)
		s.store.on(func() error { return errors.Join(fleet.ErrUnavailable, errors.New("disk /dev/x")) })
		a := s.open()
		a.send(hello("vm-1"))
		began := time.Now()
		err := a.end()
		require.Equal(t, connect.CodeUnavailable, connect.CodeOf(err))
		require.NotContains(t, err.Error(), "disk")
		require.Equal(t, 7*time.Second, time.Since(began))
		s.store.on(nil)
		s.connect("vm-1")
	})
}

// A stream without a ConnectRequest ends after helloTimeout, and at once when the controller
// stops.
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
				a.send(beatMessage("idle"))
				synctest.Wait()
				began := time.Now()
				if test.stop {
					s.registry.EndSessions(t.Context())
				}
				err := a.end()
				require.Error(t, err)
				require.NotErrorIs(t, err, io.EOF)
				require.Equal(t, test.want, time.Since(began))
			})
		})
	}
}

// The newest stream of a VM wins; nothing more is sent on the old one, which is held and then
// ends with ABORTED, even if its agent sends nothing.
func TestStreamSuperseded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := startStreams(t, 5*time.Second)
		older := s.connect("vm-1")
		older.receive()
		newer := s.connect("vm-1")
		began := time.Now()
		require.Equal(t, "register_runner", newer.receive().GetCommand().GetType())
		m, err := older.rpc.Receive()
		require.Equal(t, connect.CodeAborted, connect.CodeOf(err), "%v", m)
		require.Equal(t, 5*time.Second, time.Since(began))
		require.True(t, s.vm("vm-1").Connected)
		newer.send(eventMessage("error"))
		synctest.Wait()
		require.Len(t, s.events("vm-1"), 1)
	})
}

// A stop ends streams at once with UNAVAILABLE. Messages that had arrived by then are stored,
// although they are read later.
func TestStreamStopped(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := startStreams(t, time.Hour)
		a, b := s.connect("vm-1"), s.connect("vm-2")
		slow := make(chan struct{})
		s.store.on(func() error { <-slow; return nil })
		a.send(eventMessage("job_completed"))
		a.send(eventMessage("vm_shutting_down"))
		synctest.Wait()
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			s.registry.EndSessions(t.Context())
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

// A panic while a message is applied ends its stream, and its session is closed like any
// other.
func TestStreamPanics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := startStreams(t, 0)
		bystander := s.connect("vm-2")
		a := s.connect("vm-1")
		s.store.on(func() error { panic("of the test") })
		a.send(eventMessage("error"))
		require.Equal(t, connect.CodeInternal, connect.CodeOf(a.end()))
		s.store.on(nil)
		require.False(t, s.vm("vm-1").Connected)
		require.Equal(t, 1, s.registry.Stats().Sessions)
		bystander.receive()
		began := time.Now()
		s.registry.EndSessions(t.Context())
		require.Zero(t, time.Since(began), "it does not wait for the agent")
	})
}

// An agent that disconnects ends the hold of its stream, or its session.
func TestAgentDisconnects(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := startStreams(t, time.Hour)
		older := s.connect("vm-1")
		newer := s.connect("vm-1")
		older.reset()
		synctest.Wait()
		require.Len(t, s.log.records(t, "agent disconnected"), 1)
		require.True(t, s.vm("vm-1").Connected)
		newer.reset()
		synctest.Wait()
		require.False(t, s.vm("vm-1").Connected)
		rejected := s.open()
		rejected.send(hello(""))
		rejected.receive()
		rejected.reset()
		synctest.Wait()
		began := time.Now()
		s.registry.EndSessions(t.Context())
		require.Zero(t, time.Since(began))
	})
}

// Agents without a valid id reconnect at once, under any name. They share one limit of log
// lines.
func TestLogOfRejectedAgentsIsLimited(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := startStreams(t, time.Millisecond)
		reject := func(vm string) {
			a := s.open()
			a.send(hello(vm))
			a.receive()
			a.reset()
		}
		for i := range 3 * loglimit.Lines {
			reject("not an id " + strconv.Itoa(i))
		}
		require.Len(t, s.log.records(t, "agent rejected"), loglimit.Lines)
		require.NotEmpty(t, s.log.records(t, "agent rejected")[0]["peer"])
		time.Sleep(loglimit.Period) // fake clock
		reject("")
		last := s.log.records(t, "agent rejected")[loglimit.Lines]
		require.EqualValues(t, 2*loglimit.Lines, last[loglimit.KeySuppressed])
	})
}

// Streams may supersede each other, be held, end and be ended in any order: no stream is used
// after its handler has returned. The clock is real.
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
					_ = rpc.CloseRequest() // a client may not notice the end of its context
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
	s.registry.EndSessions(t.Context())
	require.False(t, s.vm("vm-1").Connected)
	require.Empty(t, s.log.records(t, "call panicked"))
	require.NotContains(t, strings.ToLower(s.logged()), "panic")
}
