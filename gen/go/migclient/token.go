package migclient

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
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

// TokenSource returns the token to send with a call, for tokens that change. It is called
// before each call, with the context of the call, and must be safe for concurrent use. Its
// error is returned by the call: with its code if it is a *connect.Error, and otherwise
// with UNAUTHENTICATED.
type TokenSource func(ctx context.Context) (string, error)

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
	if err := checkToken(token); err != nil {
		return nil, err
	}
	return WithTokenSource(address, func(context.Context) (string, error) { return token, nil }, options...)
}

// WithTokenSource is WithToken for tokens that change.
func WithTokenSource(address string, source TokenSource, options ...TokenOption) (connect.ClientOption, error) {
	interceptor, err := NewTokenInterceptor(address, source, options...)
	if err != nil {
		return nil, err
	}
	return connect.WithInterceptors(interceptor), nil
}

// NewTokenInterceptor returns the interceptor of WithTokenSource, for clients that have
// other interceptors too.
func NewTokenInterceptor(address string, source TokenSource, options ...TokenOption) (connect.Interceptor, error) {
	u, err := parseAddress(address)
	if err != nil {
		return nil, err
	}
	if source == nil {
		return nil, errors.New("the source of tokens must not be nil")
	}
	b := &bearer{host: u.Host, source: source}
	for _, option := range options {
		option(b)
	}
	if u.Scheme == "http" && !b.plaintext && !loopback(u.Hostname()) {
		return nil, ErrPlaintextToken
	}
	return b, nil
}

func parseAddress(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return nil, errors.New("address must be http://HOST:PORT or https://HOST:PORT")
	}
	return u, nil
}

func checkToken(token string) error {
	visible := func(r rune) bool { return r > ' ' && r <= '~' }
	if token == "" || strings.TrimFunc(token, visible) != "" {
		return errors.New("token must be printable ASCII without spaces, and not empty")
	}
	return nil
}

// loopback reports whether traffic to a host stays on this machine.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}

// bearer is the interceptor that sends a token.
type bearer struct {
	host      string
	source    TokenSource
	plaintext bool
}

// header returns the header of a call.
func (b *bearer) header(ctx context.Context) (string, error) {
	token, err := b.source(ctx)
	if err == nil {
		err = checkToken(token)
	}
	if err == nil {
		return "Bearer " + token, nil
	}
	code := connect.CodeUnauthenticated
	if e, ok := errors.AsType[*connect.Error](err); ok {
		code = e.Code()
	}
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		code = connect.CodeCanceled
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		code = connect.CodeDeadlineExceeded
	}
	return "", connect.NewError(code, fmt.Errorf("get a token: %w", err))
}

// WrapUnary implements connect.Interceptor.
func (b *bearer) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, request connect.AnyRequest) (connect.AnyResponse, error) {
		if request.Peer().Addr != b.host {
			return next(ctx, request)
		}
		header, err := b.header(ctx)
		if err != nil {
			return nil, err
		}
		request.Header().Set("Authorization", header)
		return next(ctx, request)
	}
}

// WrapStreamingClient implements connect.Interceptor.
func (b *bearer) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		stream := next(ctx, spec) // nothing is sent yet
		if stream.Peer().Addr != b.host {
			return stream
		}
		header, err := b.header(ctx)
		if err != nil {
			return unsent{stream, err}
		}
		stream.RequestHeader().Set("Authorization", header)
		return stream
	}
}

// WrapStreamingHandler implements connect.Interceptor; it does nothing.
func (b *bearer) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// unsent is a stream that was not opened because of an error.
type unsent struct {
	connect.StreamingClientConn
	err error
}

// Send returns the error.
func (u unsent) Send(any) error { return u.err }

// Receive returns the error.
func (u unsent) Receive(any) error { return u.err }

// CloseRequest does nothing.
func (u unsent) CloseRequest() error { return nil }

// CloseResponse does nothing.
func (u unsent) CloseResponse() error { return nil }

// ResponseHeader is empty.
func (u unsent) ResponseHeader() http.Header { return http.Header{} }

// ResponseTrailer is empty.
func (u unsent) ResponseTrailer() http.Header { return http.Header{} }
