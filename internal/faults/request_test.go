package faults

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
)

// reply is an answer to a request, with its decoded JSON body.
type reply struct {
	status int
	body   struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
}

// request makes a request whose answer must be JSON.
func (c *controller) request(t *testing.T, method, path, body string, headers ...string) reply {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+c.addr+path, strings.NewReader(body))
	require.NoError(t, err)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	answer, err := (&http.Client{Transport: newTransport(t)}).Do(req)
	require.NoError(t, err)
	defer answer.Body.Close()
	content, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	r := reply{status: answer.StatusCode}
	require.NoError(t, json.Unmarshal(content, &r.body), "%s %s: %s", method, path, content)
	return r
}

const (
	getCommand  = migcontrollerv1connect.AdminServiceGetCommandProcedure
	sendCommand = migcontrollerv1connect.AdminServiceSendCommandProcedure
	jsonContent = "application/json"
)

// Invalid requests are rejected in the format of their protocol, with the reason, and at
// low cost. The health service reports the shutdown.
func testWrongRequests(t *testing.T) {
	c := startController(t)
	health, err := healthv1.NewHealthClient(dial(t, c.addr)).Watch(t.Context(), &healthv1.HealthCheckRequest{})
	require.NoError(t, err)
	serving, err := health.Recv()
	require.NoError(t, err)
	require.Equal(t, healthv1.HealthCheckResponse_SERVING, serving.GetStatus())

	for _, r := range []struct {
		method, path, contentType string
		status                    int
		says                      string
	}{
		{"GET", sendCommand, "", http.StatusMethodNotAllowed, "must be POST"},
		{"PUT", getCommand, jsonContent, http.StatusMethodNotAllowed, "must be GET or POST"},
		{"POST", sendCommand, "text/plain", http.StatusUnsupportedMediaType, jsonContent},
		{"POST", sendCommand, "", http.StatusUnsupportedMediaType, jsonContent},
		{"POST", "/nowhere", jsonContent, http.StatusNotFound, "nothing at this path"},
	} {
		got := c.request(t, r.method, r.path, "{}", "Content-Type", r.contentType)
		require.Equal(t, r.status, got.status, r)
		require.Contains(t, got.body.Message, r.says, r)
	}
	c.requireUnknownService(t)
	c.send(t, "vm-1", "pending")
	listed, err := c.admin.ListCommands(t.Context(), &migcontrollerv1.ListCommandsRequest{
		States: []migcontrollerv1.CommandState{migcontrollerv1.CommandState_COMMAND_STATE_UNSPECIFIED},
	})
	require.NoError(t, err)
	require.Len(t, listed.GetCommands(), 1, "any state")

	bomb := gzipBomb(t)
	for range 16 {
		got := c.request(t, "POST", getCommand, bomb, "Content-Type", jsonContent, "Content-Encoding", "gzip")
		require.Equal(t, connect.CodeResourceExhausted.String(), got.body.Code, got)
	}
	c.terminate(t)
	require.Less(t, c.cmd.ProcessState.UserTime(), time.Second, "of CPU, since its start")
	for err == nil { // usually NOT_SERVING comes first
		_, err = health.Recv()
	}
	require.Equal(t, codes.Unavailable, status.Code(err), err)
	require.ErrorContains(t, err, "the controller is stopping", "it is ended, not disconnected")
}

// requireUnknownService requires that a call of an unknown service is answered in each
// protocol.
func (c *controller) requireUnknownService(t *testing.T) {
	t.Helper()
	client := &http.Client{Transport: newTransport(t)}
	for name, option := range map[string]connect.ClientOption{
		"gRPC": connect.WithGRPC(), "gRPC-Web": connect.WithGRPCWeb(), "Connect": connect.WithClientOptions(), "JSON": connect.WithProtoJSON(),
	} {
		call := connect.NewClient[emptypb.Empty, emptypb.Empty](client, "http://"+c.addr+"/migcontroller.v9.AdminService/ListPools", option)
		_, err := call.CallUnary(t.Context(), connect.NewRequest(new(emptypb.Empty)))
		require.Equal(t, connect.CodeUnimplemented, connect.CodeOf(err), name)
		require.ErrorContains(t, err, "there is no service migcontroller.v9.AdminService", name)
	}
}

// gzipBomb is 256 MiB of spaces in a quarter of a mebibyte.
func gzipBomb(t *testing.T) string {
	t.Helper()
	var part bytes.Buffer
	w := gzip.NewWriter(&part)
	_, err := w.Write(bytes.Repeat([]byte(" "), 4<<20))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return strings.Repeat(part.String(), 64)
}
