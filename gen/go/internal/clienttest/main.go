package clienttest

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"testing"

	"connectrpc.com/connect"
)

// Main runs the tests of a package with a controller. While they run, connections by
// http.DefaultTransport, or a clone of it, to the controller's default addresses are
// redirected to this controller, so that examples which name those addresses work. ready is
// called first, with the program and the controller.
func Main(m *testing.M, root string, ready func(program string, c *Controller) error, options ...string) int {
	dir, err := os.MkdirTemp("", "client")
	if err != nil {
		return fail(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	program, err := Program(root, dir)
	if err != nil {
		return fail(err)
	}
	c, err := Start(program, dir, options...)
	if err != nil {
		return fail(err)
	}
	redirect(c)
	code := 1
	if err := ready(program, c); err != nil {
		fail(err)
	} else {
		code = m.Run()
	}
	http.DefaultClient.CloseIdleConnections()
	if err := c.Stop(); err != nil {
		return fail(err)
	}
	return code
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, err)
	return 1
}

func redirect(c *Controller) {
	transport := http.DefaultTransport.(*http.Transport)
	dial := transport.DialContext
	transport.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		switch addr {
		case "localhost:8080":
			addr = c.HTTP
		case "localhost:50051":
			addr = c.GRPC
		}
		return dial(ctx, network, addr)
	}
}

// Protocol is a protocol for calling the controller.
type Protocol struct {
	Name    string
	Options []connect.ClientOption
	// HTTP2 is whether the protocol requires HTTP/2.
	HTTP2 bool
}

// Protocols are all protocols of the Go client.
var Protocols = []Protocol{
	{Name: "Connect"},
	{Name: "Connect with JSON", Options: []connect.ClientOption{connect.WithProtoJSON()}},
	{Name: "gRPC", Options: []connect.ClientOption{connect.WithGRPC()}, HTTP2: true},
	{Name: "gRPC-Web", Options: []connect.ClientOption{connect.WithGRPCWeb()}},
}

// NewHTTPClient returns a client with connections of its own, which are closed when the
// test ends: unencrypted HTTP/2, or HTTP/1.1.
func NewHTTPClient(tb testing.TB, http2 bool) *http.Client {
	tb.Helper()
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetHTTP1(!http2)
	transport.Protocols.SetUnencryptedHTTP2(http2)
	tb.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}
