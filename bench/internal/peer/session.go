package peer

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// streamService is the agents' stream.
var streamService = grpc.ServiceDesc{
	ServiceName: "miglet.commands.CommandService",
	HandlerType: (*any)(nil),
	Streams: []grpc.StreamDesc{{
		StreamName: "StreamCommands", ServerStreams: true, ClientStreams: true,
		Handler: func(srv any, stream grpc.ServerStream) error {
			s, ok := srv.(*server)
			if !ok {
				return status.Error(codes.Internal, "no server")
			}
			return s.serve(&session{stream: stream})
		},
	}},
}

// session is one agent's stream.
type session struct {
	stream  grpc.ServerStream
	sending sync.Mutex
}

func (a *session) send(m *commands.ControllerMessage) error {
	a.sending.Lock()
	defer a.sending.Unlock()
	return a.stream.SendMsg(m)
}

func (a *session) command(c *commands.Command) error {
	return a.send(&commands.ControllerMessage{Message: &commands.ControllerMessage_Command{Command: c}})
}

// serve reads a stream to its end.
func (s *server) serve(a *session) error {
	hello := new(commands.MIGletMessage)
	if err := a.stream.RecvMsg(hello); err != nil {
		return err
	}
	vm := hello.GetConnect().GetVmId()
	if vm == "" {
		return status.Error(codes.InvalidArgument, "connect.vm_id must come first and not be empty")
	}
	s.sessions.Store(vm, a)
	defer s.sessions.CompareAndDelete(vm, a)
	s.live.Add(1)
	defer s.live.Add(-1)
	if err := s.welcome(a, vm); err != nil {
		return err
	}
	for {
		m := new(commands.MIGletMessage)
		if err := a.stream.RecvMsg(m); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		s.handle(m)
	}
}

// welcome sends the ConnectAck and register_runner.
func (s *server) welcome(a *session, vm string) error {
	err := a.send(&commands.ControllerMessage{Message: &commands.ControllerMessage_ConnectAck{
		ConnectAck: &commands.ConnectAck{Accepted: true, Message: "welcome", ServerVersion: "peer"},
	}})
	if err != nil {
		return err
	}
	return a.command(&commands.Command{
		Id: fmt.Sprintf("reg-%d", s.serial.Add(1)), Type: "register_runner", CreatedAt: time.Now().Unix(),
		StringParams: map[string]string{
			"registration_token": "SAMPLE-TOKEN-" + vm, "runner_url": "https://github.com/example/app", "runner_group": "default",
		},
		StringArrayParams: []string{"self-hosted"},
	})
}

// handle processes a message.
func (s *server) handle(m *commands.MIGletMessage) {
	switch m := m.GetMessage().(type) {
	case *commands.MIGletMessage_Heartbeat:
		s.heartbeats.Add(1)
	case *commands.MIGletMessage_CommandAck:
		s.acks.Add(1)
		if waiting, ok := s.waiting.LoadAndDelete(m.CommandAck.GetCommandId()); ok {
			if answer, ok := waiting.(chan *commands.CommandAck); ok {
				answer <- m.CommandAck // has capacity for one
			}
		}
	case *commands.MIGletMessage_Event:
		s.events.Add(1)
	}
}
