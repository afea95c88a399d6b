package migcontrollerv1connect_test

import (
	"context"
	"fmt"
	"log"
	"net/http"

	"connectrpc.com/connect"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
)

// bearer is a token that is sent with every call, to a proxy that asks for one.
type bearer string

// WrapUnary covers calls with one answer.
func (token bearer) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, request connect.AnyRequest) (connect.AnyResponse, error) {
		request.Header().Set("Authorization", "Bearer "+string(token))
		return next(ctx, request)
	}
}

// WrapStreamingClient covers streams, such as WatchFleet.
func (token bearer) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		stream := next(ctx, spec)
		stream.RequestHeader().Set("Authorization", "Bearer "+string(token))
		return stream
	}
}

// WrapStreamingHandler is for servers.
func (bearer) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// A token that goes with every call.
func ExampleNewAdminServiceClient_token() {
	admin := migcontrollerv1connect.NewAdminServiceClient(
		http.DefaultClient, "http://localhost:8080", connect.WithInterceptors(bearer("example-token")))

	info, err := admin.GetServerInfo(context.Background(), &migcontrollerv1.GetServerInfoRequest{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(info.GetLiveSessions(), "VMs are connected")

	// Output:
	// 3 VMs are connected
}
