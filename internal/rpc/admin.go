package rpc

import (
	"context"
	"runtime"
	"time"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
	"github.com/mig-controller/mig-controller/internal/auth"
	"github.com/mig-controller/mig-controller/internal/control"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

// Server is what AdminService reports about its controller.
type Server struct {
	Version   string
	StartedAt time.Time
	// Sessions returns the number of live sessions, and LiveVMs the VMs that have one.
	Sessions func() int
	LiveVMs  func() []fleet.VMID
	// Log is the level of the log.
	Log LogControl
}

// adminService implements AdminService on a control.Control. It returns domain errors, which
// an errorInterceptor translates.
type adminService struct {
	control *control.Control
	server  Server
}

var _ migcontrollerv1connect.AdminServiceHandler = (*adminService)(nil)

// NewAdminService returns the handler of AdminService.
func NewAdminService(c *control.Control, s Server) migcontrollerv1connect.AdminServiceHandler {
	return &adminService{control: c, server: s}
}

// GetServerInfo implements AdminService.
func (s *adminService) GetServerInfo(
	ctx context.Context, _ *migcontrollerv1.GetServerInfoRequest,
) (*migcontrollerv1.GetServerInfoResponse, error) {
	level := s.server.Log.LogLevel()
	sessions, goroutines := s.server.Sessions(), runtime.NumGoroutine()
	if !auth.From(ctx).Scope.All() {
		goroutines = 0 // it tells how many sessions there are
		var err error
		if sessions, err = s.control.CountSeen(ctx, s.server.LiveVMs()); err != nil {
			return nil, err
		}
	}
	return &migcontrollerv1.GetServerInfoResponse{
		Version: s.server.Version, StartedAt: timeToProto(s.server.StartedAt), LiveSessions: int64(sessions),
		Goroutines: int64(goroutines),
		LogLevel:   logLevelToProto(level.Level), LogLevelRevertsAt: timeToProto(level.RevertsAt),
		ConfiguredLogLevel: logLevelToProto(level.Configured),
	}, nil
}

// SendCommand implements AdminService.
func (s *adminService) SendCommand(
	ctx context.Context, req *migcontrollerv1.SendCommandRequest,
) (*migcontrollerv1.SendCommandResponse, error) {
	if req.GetCommand() == nil {
		return nil, fleet.Invalid("command", "must be given")
	}
	r := commandFromProto(req.GetCommand())
	r.VM, r.MaxDeliveries = req.GetVmId(), int(req.GetMaxDeliveries())
	var err error
	if r.TTL, err = durationFromProto("ttl", req.GetTtl()); err != nil {
		return nil, err
	}
	if r.AckTimeout, err = durationFromProto("ack_timeout", req.GetAckTimeout()); err != nil {
		return nil, err
	}
	wait, err := durationFromProto("wait", req.GetWait())
	if err != nil {
		return nil, err
	}
	if wait > 0 {
		var cancel context.CancelFunc
		ctx, cancel = auth.WhileValid(ctx)
		defer cancel()
	}
	cmd, err := s.control.Send(ctx, r, wait)
	if err != nil {
		return nil, err
	}
	return &migcontrollerv1.SendCommandResponse{Command: commandToProto(cmd)}, nil
}

// GetCommand implements AdminService.
func (s *adminService) GetCommand(
	ctx context.Context, req *migcontrollerv1.GetCommandRequest,
) (*migcontrollerv1.GetCommandResponse, error) {
	cmd, err := s.control.Command(ctx, req.GetCommandId())
	if err != nil {
		return nil, err
	}
	return &migcontrollerv1.GetCommandResponse{Command: commandToProto(cmd)}, nil
}

// ListCommands implements AdminService.
func (s *adminService) ListCommands(
	ctx context.Context, req *migcontrollerv1.ListCommandsRequest,
) (*migcontrollerv1.ListCommandsResponse, error) {
	states, err := commandStatesFromProto(req.GetStates())
	if err != nil {
		return nil, err
	}
	q := store.CommandQuery{VM: req.GetVmId(), States: states, Type: req.GetType()}
	page, next, err := s.control.Commands(ctx, q, int(req.GetPageSize()), req.GetPageToken())
	if err != nil {
		return nil, err
	}
	return &migcontrollerv1.ListCommandsResponse{Commands: allToProto(page, commandToProto), NextPageToken: next}, nil
}

// CancelCommand implements AdminService.
func (s *adminService) CancelCommand(
	ctx context.Context, req *migcontrollerv1.CancelCommandRequest,
) (*migcontrollerv1.CancelCommandResponse, error) {
	cmd, err := s.control.Cancel(ctx, req.GetCommandId())
	if err != nil {
		return nil, err
	}
	return &migcontrollerv1.CancelCommandResponse{Command: commandToProto(cmd)}, nil
}

// GetVM implements AdminService.
func (s *adminService) GetVM(
	ctx context.Context, req *migcontrollerv1.GetVMRequest,
) (*migcontrollerv1.GetVMResponse, error) {
	v, err := s.control.VM(ctx, req.GetVmId())
	if err != nil {
		return nil, err
	}
	return &migcontrollerv1.GetVMResponse{Vm: vmToProto(v, time.Now().UTC())}, nil
}

// ListVMs implements AdminService.
func (s *adminService) ListVMs(
	ctx context.Context, req *migcontrollerv1.ListVMsRequest,
) (*migcontrollerv1.ListVMsResponse, error) {
	q := store.VMQuery{
		Pool: req.GetPoolId(), Org: req.GetOrgId(), Status: req.GetStatus(), Connected: req.Connected,
	}
	page, next, err := s.control.VMs(ctx, q, int(req.GetPageSize()), req.GetPageToken())
	if err != nil {
		return nil, err
	}
	now := time.Now().UTC()
	vms := allToProto(page, func(v fleet.VM) *migcontrollerv1.VM { return vmToProto(v, now) })
	return &migcontrollerv1.ListVMsResponse{Vms: vms, NextPageToken: next}, nil
}

// ListEvents implements AdminService.
func (s *adminService) ListEvents(
	ctx context.Context, req *migcontrollerv1.ListEventsRequest,
) (*migcontrollerv1.ListEventsResponse, error) {
	since, until, err := periodFromProto(req)
	if err != nil {
		return nil, err
	}
	q := store.EventQuery{VM: req.GetVmId(), Type: req.GetType(), Since: since, Until: until}
	page, next, err := s.control.Events(ctx, q, int(req.GetPageSize()), req.GetPageToken())
	if err != nil {
		return nil, err
	}
	return &migcontrollerv1.ListEventsResponse{Events: allToProto(page, eventToProto), NextPageToken: next}, nil
}

// ListHeartbeats implements AdminService.
func (s *adminService) ListHeartbeats(
	ctx context.Context, req *migcontrollerv1.ListHeartbeatsRequest,
) (*migcontrollerv1.ListHeartbeatsResponse, error) {
	page, next, err := s.control.Heartbeats(ctx, req.GetVmId(), int(req.GetPageSize()), req.GetPageToken())
	if err != nil {
		return nil, err
	}
	return &migcontrollerv1.ListHeartbeatsResponse{Heartbeats: allToProto(page, heartbeatToProto), NextPageToken: next}, nil
}

func allToProto[T, P any](page []T, toProto func(T) P) []P {
	out := make([]P, 0, len(page))
	for _, entry := range page {
		out = append(out, toProto(entry))
	}
	return out
}
