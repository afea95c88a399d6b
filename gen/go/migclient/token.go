package migclient

import (
	"context"
	"errors"
	"net"
	"net/url"
	"strings"

	"connectrpc.com/connect"
)

// ErrPlaintextToken occurs when a token could be read by others on its way.
var ErrPlaintextToken = errors.New(
	"token must not cross the network in plaintext: use an https address, or the option PlaintextToken to send it anyway",
)

// TokenOption changes how a token is sent.
type TokenOption func(*bearer)

// PlaintextToken allows a token to be sent over plaintext http to another machine, which
// lets others read it on its way.
func PlaintextToken(b *bearer) { b.plaintext = true }

// WithToken returns the option for a client of the controller at address that sends a token
// with every call, as "Authorization: Bearer". The token is not sent to other hosts; but an
// HTTP client without a CheckRedirect follows a redirect to another port of the same host
// with it. WithToken returns ErrPlaintextToken for an http address of another machine,
// unless PlaintextToken is given, and an error that does not contain the token when either
// argument is invalid.
//
//	auth, err := migclient.WithToken(address, token)
//	...
//	admin := migcontrollerv1connect.NewAdminServiceClient(http.DefaultClient, address, auth)
func WithToken(address, token string, options ...TokenOption) (connect.ClientOption, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return nil, errors.New("address must be http://HOST:PORT or https://HOST:PORT")
	}
	visible := func(r rune) bool { return r > ' ' && r <= '~' }
	if token == "" || strings.TrimFunc(token, visible) != "" {
		return nil, errors.New("token must be printable ASCII without spaces, and not empty")
	}
	b := &bearer{host: u.Host, header: "Bearer " + token}
	for _, option := range options {
		option(b)
	}
	if u.Scheme == "http" && !b.plaintext && !loopback(u.Hostname()) {
		return nil, ErrPlaintextToken
	}
	return connect.WithInterceptors(b), nil
}

// loopback reports whether traffic to a host stays on this machine.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}

// bearer is the interceptor that sends a token.
type bearer struct {
	host, header string
	plaintext    bool
}

// WrapUnary implements connect.Interceptor.
func (b *bearer) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, request connect.AnyRequest) (connect.AnyResponse, error) {
		if request.Peer().Addr == b.host {
			request.Header().Set("Authorization", b.header)
		}
		return next(ctx, request)
	}
}

// WrapStreamingClient implements connect.Interceptor.
func (b *bearer) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		stream := next(ctx, spec)
		if stream.Peer().Addr == b.host {
			stream.RequestHeader().Set("Authorization", b.header)
		}
		return stream
	}
}

// WrapStreamingHandler implements connect.Interceptor; it does nothing.
func (b *bearer) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}
