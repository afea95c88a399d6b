package rpc

import (
	"fmt"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/session"
)

// AgentService speaks gRPC, gRPC-Web and Connect, over both HTTP versions where the protocol
// allows it, and its errors have codes.
func TestAgentServiceClients(t *testing.T) {
	t.Parallel()
	fake := &fakeAgents{leases: []session.Lease{{Command: fleet.Command{ID: "c", Type: "drain", CreatedAt: receivedAt}}}}
	base := "http://" + serve(t, NewHandler(config(fake)))
	broken := &fakeAgents{err: fmt.Errorf("%w: disk full", fleet.ErrUnavailable)}
	brokenBase := "http://" + serve(t, NewHandler(config(broken)))
	for _, test := range []struct {
		name    string
		version int
		option  connect.ClientOption
	}{
		{"Connect over HTTP/1.1", 1, connect.WithProtoJSON()},
		{"Connect over HTTP/2", 2, connect.WithSendGzip()},
		{"gRPC", 2, connect.WithGRPC()},
		{"gRPC-Web", 1, connect.WithGRPCWeb()},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := client(t, test.version)
			agent := migcontrollerv1connect.NewAgentServiceClient(c, base, test.option)
			heartbeat := &migcontrollerv1.ReportHeartbeatRequest{VmId: "vm-1", Heartbeat: parse(t, `{"miglet_state":"idle"}`)}
			got, err := agent.ReportHeartbeat(t.Context(), heartbeat)
			require.NoError(t, err)
			require.Equal(t, "received", got.GetStatus())
			polled, err := agent.PollCommands(t.Context(), &migcontrollerv1.PollCommandsRequest{VmId: "vm-1"})
			require.NoError(t, err)
			require.Len(t, polled.GetCommands(), 1)
			_, err = agent.ReportEvent(t.Context(), &migcontrollerv1.ReportEventRequest{VmId: "vm-1"})
			require.Equal(t, connect.CodeInvalidArgument, connect.CodeOf(err))
			require.ErrorContains(t, err, "event must be a JSON object")

			unavailable := migcontrollerv1connect.NewAgentServiceClient(c, brokenBase, test.option)
			_, err = unavailable.ReportHeartbeat(t.Context(), heartbeat)
			require.Equal(t, connect.CodeUnavailable, connect.CodeOf(err))
			_, err = unavailable.RequestRegistrationToken(t.Context(), &migcontrollerv1.RequestRegistrationTokenRequest{VmId: "vm-1"})
			require.Equal(t, connect.CodeUnavailable, connect.CodeOf(err))
		})
	}
}
