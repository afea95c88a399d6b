package peer

import (
	"context"
	"fmt"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// adminService is the part of the admin API that the load uses.
var adminService = grpc.ServiceDesc{
	ServiceName: "migcontroller.v1.AdminService",
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{
		MethodName: "SendCommand",
		Handler: func(srv any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			req := new(migcontrollerv1.SendCommandRequest)
			if err := decode(req); err != nil {
				return nil, err
			}
			s, ok := srv.(*server)
			if !ok {
				return nil, status.Error(codes.Internal, "no server")
			}
			return s.sendCommand(ctx, req)
		},
	}},
}

// sendCommand sends a command to a VM and returns when the VM has acked it.
func (s *server) sendCommand(
	ctx context.Context, req *migcontrollerv1.SendCommandRequest,
) (*migcontrollerv1.SendCommandResponse, error) {
	found, _ := s.sessions.Load(req.GetVmId())
	a, ok := found.(*session)
	if !ok {
		return nil, status.Errorf(codes.NotFound, "VM %q is not connected", req.GetVmId())
	}
	c, ok := proto.Clone(req.GetCommand()).(*commands.Command)
	if !ok {
		return nil, status.Error(codes.InvalidArgument, "command is required")
	}
	if c.GetId() == "" {
		c.Id = fmt.Sprintf("cmd-%d", s.serial.Add(1))
	}
	answer := make(chan *commands.CommandAck, 1)
	s.waiting.Store(c.GetId(), answer)
	defer s.waiting.Delete(c.GetId())
	if err := a.command(c); err != nil {
		return nil, err
	}
	select {
	case ack := <-answer:
		return &migcontrollerv1.SendCommandResponse{Command: &migcontrollerv1.CommandRecord{
			Command: c, VmId: req.GetVmId(), State: migcontrollerv1.CommandState_COMMAND_STATE_SUCCEEDED, Ack: ack,
		}}, nil
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	}
}
