package subject

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	conformancev1 "github.com/mig-controller/mig-controller/tools/conformance/gen/connectrpc/conformance/v1"
	"github.com/mig-controller/mig-controller/tools/conformance/gen/connectrpc/conformance/v1/conformancev1connect"
)

// start runs the program as the suite does, and returns its address.
func start(t *testing.T, port string, want *conformancev1.ServerCompatRequest) *conformancev1.ServerCompatResponse {
	t.Helper()
	var in bytes.Buffer
	require.NoError(t, writeMessage(&in, want))
	out, w := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		err := Run(ctx, port, &in, w)
		ended <- errors.Join(err, w.CloseWithError(err))
	}()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
	})
	var where conformancev1.ServerCompatResponse
	require.NoError(t, readMessage(out, &where))
	return &where
}

func client(t *testing.T, where *conformancev1.ServerCompatResponse) conformancev1connect.ConformanceServiceClient {
	t.Helper()
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols}
	t.Cleanup(transport.CloseIdleConnections)
	addr := net.JoinHostPort(where.GetHost(), strconv.FormatUint(uint64(where.GetPort()), 10))
	return conformancev1connect.NewConformanceServiceClient(&http.Client{Transport: transport}, "http://"+addr, connect.WithGRPC())
}

// On either port, the suite's service answers as the request requires, in a whole
// controller.
func TestRun(t *testing.T) {
	t.Parallel()
	for _, port := range []string{"http", "grpc"} {
		t.Run(port, func(t *testing.T) {
			t.Parallel()
			c := client(t, start(t, port, &conformancev1.ServerCompatRequest{MessageReceiveLimit: 1024}))

			demand := &conformancev1.UnaryRequest{ResponseDefinition: &conformancev1.UnaryResponseDefinition{
				Response:        &conformancev1.UnaryResponseDefinition_ResponseData{ResponseData: []byte("answer")},
				ResponseHeaders: []*conformancev1.Header{{Name: "X-Asked", Value: []string{"for"}}},
			}}
			got, err := c.Unary(t.Context(), connect.NewRequest(demand))
			require.NoError(t, err)
			require.Equal(t, "answer", string(got.Msg.GetPayload().GetData()))
			require.Equal(t, "for", got.Header().Get("X-Asked"))
			require.Len(t, got.Msg.GetPayload().GetRequestInfo().GetRequests(), 1)

			_, err = c.Unary(t.Context(), connect.NewRequest(&conformancev1.UnaryRequest{RequestData: make([]byte, 2048)}))
			require.Equal(t, connect.CodeResourceExhausted, connect.CodeOf(err), "the limit that the suite requires")
			_, err = c.Unimplemented(t.Context(), connect.NewRequest(&conformancev1.UnimplementedRequest{}))
			require.Equal(t, connect.CodeUnimplemented, connect.CodeOf(err))
		})
	}
}

// A half-duplex stream is answered request by request, with the remaining messages and an
// error at the end.
func TestBidiStream(t *testing.T) {
	t.Parallel()
	c := client(t, start(t, "grpc", &conformancev1.ServerCompatRequest{}))
	stream := c.BidiStream(t.Context())
	demand := &conformancev1.BidiStreamRequest{FullDuplex: true, ResponseDefinition: &conformancev1.StreamResponseDefinition{
		ResponseData: [][]byte{[]byte("one"), []byte("two"), []byte("three")},
		Error:        &conformancev1.Error{Code: conformancev1.Code_CODE_ABORTED},
	}}
	for i, want := range []string{"one", "two", "three"} {
		switch i {
		case 0:
			require.NoError(t, stream.Send(demand))
		case 1:
			require.NoError(t, stream.Send(&conformancev1.BidiStreamRequest{}))
		default:
			require.NoError(t, stream.CloseRequest())
		}
		got, err := stream.Receive()
		require.NoError(t, err)
		require.Equal(t, want, string(got.GetPayload().GetData()))
	}
	_, err := stream.Receive()
	require.Equal(t, connect.CodeAborted, connect.CodeOf(err))
	require.NoError(t, stream.CloseResponse())
}

// The product is tested with its own versions of its dependencies: a tool that needs
// later ones must not replace them unnoticed.
func TestVersions(t *testing.T) {
	t.Parallel()
	versions := func(dir string) string {
		cmd := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Path}} {{.Version}}",
			"connectrpc.com/connect", "golang.org/x/net", "google.golang.org/protobuf")
		cmd.Dir = dir
		out, err := cmd.Output()
		require.NoError(t, err)
		return string(out)
	}
	require.Equal(t, versions("../../../.."), versions("."))
}
