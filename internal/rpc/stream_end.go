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

// ErrPingTimeout means that the peer did not answer a ping in time.
var ErrPingTimeout = errors.New("ping timeout")

// Connection is the connection of a call. It is safe for concurrent use.
type Connection interface {
	// Ended returns why the connection ended; nil while it is open: io.EOF when the peer
	// closed it, ErrPingTimeout, os.ErrDeadlineExceeded when the peer accepted no data in
	// time, net.ErrClosed when this side closed it for another reason, and otherwise the
	// network error.
	Ended() error
}

type connectionKey struct{}

// WithConnection returns a context for the calls on the connection, so that the log can show
// why the connection ended.
func WithConnection(ctx context.Context, c Connection) context.Context {
	return context.WithValue(ctx, connectionKey{}, c)
}

// ConnectionOf returns the connection of a call; nil if not known.
func ConnectionOf(ctx context.Context) Connection {
	c, _ := ctx.Value(connectionKey{}).(Connection)
	return c
}

// ending returns why the stream ended, given the error of its reader.
func (a *agentStream) ending(err error) *session.EndError {
	a.mu.Lock()
	unsent := a.unsent
	a.mu.Unlock()
	if unsent != nil && unsent.Cause == session.EndWriteTimeout {
		return unsent
	}
	read := a.control.request.err
	_, reset := errors.AsType[http2.StreamError](read)
	switch {
	case connect.CodeOf(err) == connect.CodeResourceExhausted:
		return &session.EndError{Cause: session.EndTooLarge, Err: err}
	case errors.Is(read, io.EOF) && errors.Is(err, io.EOF):
		return &session.EndError{Cause: session.EndClosed}
	case read == nil || errors.Is(read, io.EOF):
		return &session.EndError{Cause: session.EndProtocol, Err: err}
	case reset:
		return &session.EndError{Cause: session.EndReset, Err: read}
	case errors.Is(read, os.ErrDeadlineExceeded) && unsent != nil:
		return unsent
	case a.connection != nil:
		return connectionEnding(a.connection.Ended(), read)
	default:
		return &session.EndError{Cause: session.EndConnectionLost, Err: read}
	}
}

// rejection returns why the stream ended before it had a session, given the error of hello.
func (a *agentStream) rejection(err error, stopping <-chan struct{}) session.Rejection {
	read := a.control.request.err
	switch {
	case isClosed(stopping):
		return session.RejectStopping
	case errors.Is(err, errMalformedHello):
		return session.RejectInvalid
	case errors.Is(read, os.ErrDeadlineExceeded): // of hello
		return session.RejectTimeout
	case read == nil, errors.Is(read, io.EOF) && !errors.Is(err, io.EOF):
		return session.RejectProtocol
	default:
		return session.RejectClosed
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// connectionEnding returns why a stream ended with its connection. read is the error of the
// reader, which is used if why adds nothing.
func connectionEnding(why, read error) *session.EndError {
	switch {
	case why == nil:
		return &session.EndError{Cause: session.EndConnectionLost, Err: read}
	case errors.Is(why, io.EOF):
		return &session.EndError{Cause: session.EndConnectionClosed}
	case errors.Is(why, ErrPingTimeout):
		return &session.EndError{Cause: session.EndPingTimeout}
	case errors.Is(why, os.ErrDeadlineExceeded):
		return &session.EndError{Cause: session.EndWriteTimeout, Err: why}
	case errors.Is(why, syscall.ECONNRESET), errors.Is(why, syscall.EPIPE):
		return &session.EndError{Cause: session.EndConnectionReset, Err: why}
	case errors.Is(why, net.ErrClosed):
		return &session.EndError{Cause: session.EndConnectionCut, Err: read}
	default:
		return &session.EndError{Cause: session.EndConnectionLost, Err: why}
	}
}
