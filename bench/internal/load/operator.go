package load

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"
)

const (
	adminService = "/migcontroller.v1.AdminService/"
	// waitAck is how long a call waits for the end of its command.
	waitAck = 30 * time.Second
)

// Operator calls the admin API over gRPC, and waits for a server that is down. It is safe
// for concurrent use.
type Operator struct {
	conns []*grpc.ClientConn
	next  atomic.Int64
}

// NewOperator returns an Operator with this many connections.
func NewOperator(addr string, conns int) (*Operator, error) {
	o := &Operator{}
	for range conns {
		conn, err := grpc.NewClient("passthrough:///"+addr,
			grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy(), grpc.WithDisableServiceConfig())
		if err != nil {
			o.Close()
			return nil, err
		}
		o.conns = append(o.conns, conn)
	}
	return o, nil
}

// Command sends a command to a VM and returns when its end is recorded. Any result but
// success is an error.
func (o *Operator) Command(ctx context.Context, vm string) error {
	req := &migcontrollerv1.SendCommandRequest{
		VmId: vm,
		Command: &commands.Command{
			Type: "set_log_level", StringParams: map[string]string{"level": "debug"},
		},
		Wait: durationpb.New(waitAck),
	}
	res := new(migcontrollerv1.SendCommandResponse)
	if err := o.call(ctx, "SendCommand", req, res); err != nil {
		return err
	}
	if state := res.GetCommand().GetState(); state != migcontrollerv1.CommandState_COMMAND_STATE_SUCCEEDED {
		return fmt.Errorf("command for %s ended as %s: %s", vm, state, res.GetCommand().GetReason())
	}
	return nil
}

// Send sends a command to a VM and returns when its acceptance is durable.
func (o *Operator) Send(ctx context.Context, vm string) error {
	req := &migcontrollerv1.SendCommandRequest{
		VmId: vm,
		Command: &commands.Command{
			Type: "set_log_level", StringParams: map[string]string{"level": "debug"},
		},
	}
	return o.call(ctx, "SendCommand", req, new(migcontrollerv1.SendCommandResponse))
}

// GetVM requests one VM.
func (o *Operator) GetVM(ctx context.Context, vm string) error {
	return o.call(ctx, "GetVM", &migcontrollerv1.GetVMRequest{VmId: vm}, new(migcontrollerv1.GetVMResponse))
}

// ListVMs requests a page of VMs, and returns the token of the next page. A page that is
// not full is an error, unless it is the last.
func (o *Operator) ListVMs(ctx context.Context, size int, token string) (next string, err error) {
	res, err := o.page(ctx, size, token)
	if err == nil && len(res.GetVms()) < size && res.GetNextPageToken() != "" {
		err = fmt.Errorf("a page of %d VMs has only %d", size, len(res.GetVms()))
	}
	return res.GetNextPageToken(), err
}

// Known counts the VMs that the server knows, whether or not they are connected.
func (o *Operator) Known(ctx context.Context) (n int, err error) {
	for token := ""; ; {
		res, err := o.page(ctx, 1000, token)
		if err != nil {
			return 0, err
		}
		n += len(res.GetVms())
		if token = res.GetNextPageToken(); token == "" {
			return n, nil
		}
	}
}

func (o *Operator) page(ctx context.Context, size int, token string) (*migcontrollerv1.ListVMsResponse, error) {
	res := new(migcontrollerv1.ListVMsResponse)
	return res, o.call(ctx, "ListVMs", &migcontrollerv1.ListVMsRequest{PageSize: int32(size), PageToken: token}, res)
}

// Goroutines returns the number of goroutines in the server.
func (o *Operator) Goroutines(ctx context.Context) (int64, error) {
	res := new(migcontrollerv1.GetServerInfoResponse)
	err := o.call(ctx, "GetServerInfo", &migcontrollerv1.GetServerInfoRequest{}, res)
	return res.GetGoroutines(), err
}

func (o *Operator) call(ctx context.Context, method string, req, res any) error {
	conn := o.conns[int(o.next.Add(1))%len(o.conns)]
	if err := conn.Invoke(ctx, adminService+method, req, res, grpc.WaitForReady(true)); err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	return nil
}

// Close closes the connections.
func (o *Operator) Close() {
	for _, c := range o.conns {
		_ = c.Close() // fails if it is already closed
	}
}
