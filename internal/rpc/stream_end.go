package rpc

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"

	"connectrpc.com/connect"
	"golang.org/x/net/http2"

	"github.com/mig-controller/mig-controller/internal/session"
)

// Why a stream ended, as the log names it.
const (
	endClosed           = "closed by the agent"
	endReset            = "reset by the agent"
	endConnectionClosed = "connection closed by the peer"
	endConnectionReset  = "connection reset"
	endConnectionCut    = "connection closed by the controller"
	endConnectionLost   = "connection lost"
	endPingTimeout      = "ping timeout"
	endWriteTimeout     = "write timeout"
	endNotSent          = "message not sent"
	endTooLarge         = "message too large"
	endThrottled        = "throttled"
	endProtocol         = "protocol error"
	endInternal         = "internal error"
)

// ErrPingTimeout occurs when a peer does not answer a ping in time.
var ErrPingTimeout = errors.New("ping timeout")

// Connection is the connection that carries a call, as its server sees it. It is
// safe for concurrent use.
type Connection interface {
	// Ended returns why the connection ended; nil while it is open. It is io.EOF
	// when the peer closed it, ErrPingTimeout, os.ErrDeadlineExceeded when the
	// peer took nothing of what was sent to it, net.ErrClosed when it was closed on
	// this side for another reason, and else the error of the network.
	Ended() error
}

type connectionKey struct{}

// WithConnection gives the calls of a connection's context the connection. It
// makes the log say why the connection ended.
func WithConnection(ctx context.Context, c Connection) context.Context {
	return context.WithValue(ctx, connectionKey{}, c)
}

// ConnectionOf returns the connection of a call; nil if it is not known.
func ConnectionOf(ctx context.Context) Connection {
	c, _ := ctx.Value(connectionKey{}).(Connection)
	return c
}

// ending returns why the stream ended, given what its reader returned.
func (l *line) ending(err error) *session.EndError {
	l.mu.Lock()
	unsent := l.unsent
	l.mu.Unlock()
	if unsent != nil && unsent.Cause == endWriteTimeout {
		return unsent
	}
	read := l.control.request.err
	_, reset := errors.AsType[http2.StreamError](read)
	switch {
	case connect.CodeOf(err) == connect.CodeResourceExhausted:
		return &session.EndError{Cause: endTooLarge, Err: err}
	case errors.Is(read, io.EOF) && errors.Is(err, io.EOF):
		return &session.EndError{Cause: endClosed}
	case read == nil || errors.Is(read, io.EOF):
		return &session.EndError{Cause: endProtocol, Err: err}
	case reset:
		return &session.EndError{Cause: endReset, Err: read}
	case errors.Is(read, os.ErrDeadlineExceeded) && unsent != nil:
		return unsent
	case l.connection != nil:
		return connectionEnding(l.connection.Ended(), read)
	default:
		return &session.EndError{Cause: endConnectionLost, Err: read}
	}
}

// connectionEnding returns the end of a stream whose connection has ended, or
// what was read if nothing is known of that.
func connectionEnding(why, read error) *session.EndError {
	switch {
	case why == nil:
		return &session.EndError{Cause: endConnectionLost, Err: read}
	case errors.Is(why, io.EOF):
		return &session.EndError{Cause: endConnectionClosed}
	case errors.Is(why, ErrPingTimeout):
		return &session.EndError{Cause: endPingTimeout}
	case errors.Is(why, os.ErrDeadlineExceeded):
		return &session.EndError{Cause: endWriteTimeout, Err: why}
	case errors.Is(why, syscall.ECONNRESET), errors.Is(why, syscall.EPIPE):
		return &session.EndError{Cause: endConnectionReset, Err: why}
	case errors.Is(why, net.ErrClosed):
		return &session.EndError{Cause: endConnectionCut, Err: read}
	default:
		return &session.EndError{Cause: endConnectionLost, Err: why}
	}
}
