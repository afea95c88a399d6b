package rpc

import (
	"net/http"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands/commandsconnect"
)

// An unsupported call of a method gets an error in the usual form, which names what is
// supported.
func TestRefusedCallsAreExplained(t *testing.T) {
	t.Parallel()
	base := "http://" + serve(t, NewHandler(config(&fakeAgents{})))
	get, send := migcontrollerv1connect.AdminServiceGetCommandProcedure, migcontrollerv1connect.AdminServiceSendCommandProcedure
	watch := migcontrollerv1connect.AdminServiceWatchFleetProcedure
	tests := []struct {
		method, path, contentType, body string
		http                            int
		status                          int
		message                         string
	}{
		{"GET", send, "", "", 1, 405, "must be POST"},
		{"PUT", get, contentJSON, "{}", 1, 405, "must be GET or POST"},
		{"DELETE", watch, contentJSON, "", 2, 405, "must be POST"},
		{"GET", "/grpc.health.v1.Health/Check", "", "", 2, 405, "must be POST"},
		{"POST", send, "text/plain", "{}", 1, 415, "application/json"},
		{"POST", send, "application/x-www-form-urlencoded", "{}", 2, 415, "application/json"},
		{"POST", send, "", "{}", 1, 415, "application/json"},
		{"POST", send, "application/connect+json", "{}", 1, 415, "application/json"},
		{"POST", watch, contentJSON, "{}", 1, 415, "application/connect+json"},
		{"POST", migcontrollerv1connect.AgentServicePollCommandsProcedure, "text/xml", "{}", 1, 415, "application/json"},
		{"POST", "/grpc.health.v1.Health/Check", "text/xml", "{}", 1, 415, "application/json"},
		{"GET", get, "", "", 1, 415, "encoding=json"},
		{"GET", get + "?encoding=yaml&message=1", "", "", 1, 415, "encoding=json"},
		{"GET", get + "?encoding=json&message=%7B%7D", contentJSON, "{}", 1, 415, "no body"},
		{"POST", commandsconnect.CommandServiceStreamCommandsProcedure, "application/connect+json", "", 1, 505, "HTTP/2"},
	}
	for _, test := range tests {
		name := test.method + " " + test.path + " " + test.contentType
		headers := []string{}
		if test.contentType != "" {
			headers = []string{"Content-Type", test.contentType}
		}
		got := do(t, client(t, test.http), test.method, base+test.path, test.body, headers...)
		require.Equal(t, test.status, got.status, name)
		requireError(t, got)
		require.Contains(t, got.body, `"code":"unknown"`, "as clients map the status")
		require.Contains(t, got.body, test.message, name)
	}
	for _, contentType := range []string{"application/grpc", "application/grpc+xml"} {
		got := do(t, client(t, 1), "POST", base+commandsconnect.CommandServiceStreamCommandsProcedure, "", "Content-Type", contentType)
		require.Equal(t, 505, got.status)
		require.Equal(t, "text/plain; charset=utf-8", got.header.Get("Content-Type"))
		require.Contains(t, got.body, "HTTP/2")
	}
	got := do(t, client(t, 1), http.MethodHead, base+get, "")
	require.Equal(t, 405, got.status)
	require.Equal(t, "GET, POST", got.header.Get("Allow"))
}

// A call of an unknown service gets UNIMPLEMENTED in its own protocol, like one of an unknown
// method; a request that is not a call gets 404.
func TestUnknownService(t *testing.T) {
	t.Parallel()
	base := "http://" + serve(t, NewHandler(config(&fakeAgents{})))
	const path, message = "/migcontroller.v2.AdminService/ListPools", "there is no service migcontroller.v2.AdminService"
	for name, option := range map[string]connect.ClientOption{
		"gRPC": connect.WithGRPC(), "gRPC-Web": connect.WithGRPCWeb(), "Connect": connect.WithClientOptions(), "JSON": connect.WithProtoJSON(),
	} {
		c := connect.NewClient[emptypb.Empty, emptypb.Empty](client(t, 2), base+path, option)
		_, err := c.CallUnary(t.Context(), connect.NewRequest(new(emptypb.Empty)))
		requireUnimplemented(t, err, message, name)
		stream, err := c.CallServerStream(t.Context(), connect.NewRequest(new(emptypb.Empty)))
		require.NoError(t, err, name)
		require.False(t, stream.Receive(), name)
		requireUnimplemented(t, stream.Err(), message, name)
		require.NoError(t, stream.Close(), name)
	}
	for _, version := range httpVersions {
		c := client(t, version)
		for _, got := range []answer{
			post(t, c, base+path, "{}"),
			do(t, c, "GET", base+path+"?connect=v1&encoding=json&message=%7B%7D", ""),
			do(t, c, "POST", base+"/nowhere", "{}", "Connect-Protocol-Version", "1", "Content-Type", contentJSON),
		} {
			require.Equal(t, 404, got.status)
			requireError(t, got)
			require.Contains(t, got.body, `"code":"unimplemented"`)
		}
		got := do(t, c, "POST", base+"/nowhere/at/all", "", "Content-Type", "application/grpc")
		require.Equal(t, 200, got.status)
		for _, got := range []answer{
			do(t, c, "GET", base+path, ""),
			do(t, c, "PUT", base+path, "{}", "Content-Type", contentJSON),
			post(t, c, base+"/api/v2", "{}"),
			post(t, c, base+"/api/events", "{}"),
			do(t, c, "GET", base+"/a.b/c/d", ""),
		} {
			require.Equal(t, 404, got.status)
			requireError(t, got)
			require.Contains(t, got.body, `"code":"not_found"`)
		}
	}
}
