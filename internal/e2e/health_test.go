package e2e

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
)

// services are the services of the controller.
var services = []string{
	"miglet.commands.CommandService", "migcontroller.v1.AdminService", "migcontroller.v1.AgentService",
}

// TestProbesAreAnswered defends the probes of orchestrators, over HTTP and gRPC,
// on both addresses.
func TestProbesAreAnswered(t *testing.T) {
	t.Parallel()
	for name, addr := range shared.addresses() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, path := range []string{"/health", "/ready"} {
				status, answer := shared.call(t, http.MethodGet, addr, path, "")
				require.Equal(t, http.StatusOK, status, "%s: %s", path, answer)
			}
			health := healthv1.NewHealthClient(dial(t, addr))
			for _, service := range append([]string{""}, services...) {
				res, err := health.Check(t.Context(), &healthv1.HealthCheckRequest{Service: service})
				require.NoError(t, err, service)
				require.Equal(t, healthv1.HealthCheckResponse_SERVING, res.GetStatus(), service)
			}
			_, err := health.Check(t.Context(), &healthv1.HealthCheckRequest{Service: "nobody"})
			require.Equal(t, codes.NotFound, status.Code(err), "%v", err)
		})
	}
}

// TestReflectionListsServices defends tools that use server reflection.
func TestReflectionListsServices(t *testing.T) {
	t.Parallel()
	for name, addr := range shared.addresses() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			call, err := reflectionv1.NewServerReflectionClient(dial(t, addr)).ServerReflectionInfo(t.Context())
			require.NoError(t, err)
			ask := func(req *reflectionv1.ServerReflectionRequest) *reflectionv1.ServerReflectionResponse {
				require.NoError(t, call.Send(req))
				res, err := call.Recv()
				require.NoError(t, err)
				return res
			}
			var listed []string
			res := ask(&reflectionv1.ServerReflectionRequest{
				MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{},
			})
			for _, s := range res.GetListServicesResponse().GetService() {
				listed = append(listed, s.GetName())
			}
			require.Subset(t, listed, services)
			res = ask(&reflectionv1.ServerReflectionRequest{
				MessageRequest: &reflectionv1.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: services[0]},
			})
			require.NotEmpty(t, res.GetFileDescriptorResponse().GetFileDescriptorProto())
			require.NoError(t, call.CloseSend())
		})
	}
}

// TestUnknownPathIsNoRedirect defends agents and RPC clients, which do not follow
// redirects.
func TestUnknownPathIsNoRedirect(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]int{
		"/nothing": http.StatusNotFound, "/api/v1/vms": http.StatusNotFound,
		"/migcontroller.v1.AdminService":        http.StatusNotFound,
		"/miglet.commands.CommandService/Other": http.StatusNotImplemented,
	} {
		status, answer := shared.call(t, http.MethodGet, shared.httpAddr, path, "")
		require.Equal(t, want, status, "%s: %s", path, answer)
	}
}
