package rpc

import (
	"context"
	"time"

	"connectrpc.com/connect"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/internal/auth"
	"github.com/mig-controller/mig-controller/internal/control"
)

// WatchFleet implements AdminService.
func (s *adminService) WatchFleet(
	ctx context.Context, req *migcontrollerv1.WatchFleetRequest,
	stream *connect.ServerStream[migcontrollerv1.WatchFleetResponse],
) error {
	ctx, cancel := auth.WhileValid(ctx)
	defer cancel()
	err := s.control.Watch(ctx, req.GetCursor(), req.GetVmId(), func(u control.Update) error {
		return stream.Send(updateToProto(u))
	})
	return endedBy(ctx, err)
}

func updateToProto(u control.Update) *migcontrollerv1.WatchFleetResponse {
	out := &migcontrollerv1.WatchFleetResponse{Cursor: u.Cursor}
	if u.Change == nil {
		return out
	}
	out.ChangedAt = timeToProto(u.Change.At)
	switch {
	case u.Removed:
		out.Change = &migcontrollerv1.WatchFleetResponse_RemovedVmId{RemovedVmId: string(u.Change.Subject)}
	case u.Change.VM != nil:
		out.Change = &migcontrollerv1.WatchFleetResponse_Vm{Vm: vmToProto(*u.Change.VM, time.Now().UTC())}
	case u.Change.Command != nil:
		out.Change = &migcontrollerv1.WatchFleetResponse_Command{Command: commandToProto(*u.Change.Command)}
	case u.Change.Event != nil:
		out.Change = &migcontrollerv1.WatchFleetResponse_Event{Event: eventToProto(*u.Change.Event)}
	}
	return out
}
