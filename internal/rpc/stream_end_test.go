package rpc

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/session"
)

// endedConn is a Connection that has ended with an error, or is open.
type endedConn struct{ why error }

func (c endedConn) Ended() error { return c.why }

// Each end of a stream has its cause, and an error if the cause alone is not sufficient.
func TestEnding(t *testing.T) {
	t.Parallel()
	gone := errors.New("client disconnected")
	unsent := &session.EndError{Cause: session.EndNotSent, Err: io.ErrClosedPipe}
	cut := &session.EndError{Cause: session.EndWriteTimeout, Err: os.ErrDeadlineExceeded}
	for name, test := range map[string]struct {
		read, received error
		connection     Connection
		unsent         *session.EndError
		cause          session.EndCause
		err            error
	}{
		"closed":                {read: io.EOF, received: io.EOF, cause: session.EndClosed},
		"too large":             {received: connect.NewError(connect.CodeResourceExhausted, gone), cause: session.EndTooLarge, err: gone},
		"malformed":             {received: gone, cause: session.EndProtocol, err: gone},
		"ends within a message": {read: io.EOF, received: io.ErrUnexpectedEOF, cause: session.EndProtocol, err: io.ErrUnexpectedEOF},
		"reset":                 {read: http2.StreamError{Code: http2.ErrCodeCancel}, received: gone, cause: session.EndReset},
		"write timed out":       {read: os.ErrDeadlineExceeded, received: gone, unsent: cut, cause: session.EndWriteTimeout, err: os.ErrDeadlineExceeded},
		"not sent":              {read: os.ErrDeadlineExceeded, received: gone, unsent: unsent, cause: session.EndNotSent, err: io.ErrClosedPipe},
		"unknown connection":    {read: gone, received: gone, cause: session.EndConnectionLost, err: gone},
		"connection still open": {read: gone, received: gone, connection: endedConn{}, cause: session.EndConnectionLost, err: gone},
		"connection closed":     {read: gone, received: gone, connection: endedConn{io.EOF}, cause: session.EndConnectionClosed},
		"connection reset":      {read: gone, received: gone, connection: endedConn{syscall.ECONNRESET}, cause: session.EndConnectionReset, err: syscall.ECONNRESET},
		"connection broken":     {read: gone, received: gone, connection: endedConn{syscall.EPIPE}, cause: session.EndConnectionReset, err: syscall.EPIPE},
		"connection silent":     {read: gone, received: gone, connection: endedConn{ErrPingTimeout}, cause: session.EndPingTimeout},
		"connection accepts no more": {
			read: gone, received: gone, connection: endedConn{os.ErrDeadlineExceeded}, cause: session.EndWriteTimeout, err: os.ErrDeadlineExceeded,
		},
		"connection cut":         {read: gone, received: gone, connection: endedConn{net.ErrClosed}, cause: session.EndConnectionCut, err: gone},
		"connection unreachable": {read: gone, received: gone, connection: endedConn{syscall.EHOSTUNREACH}, cause: session.EndConnectionLost, err: syscall.EHOSTUNREACH},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := &agentStream{control: &callControl{request: &notedBody{err: test.read}}, connection: test.connection, unsent: test.unsent}
			end := a.ending(test.received)
			require.Equal(t, test.cause, end.Cause)
			if test.err != nil {
				require.ErrorIs(t, end.Err, test.err)
			}
		})
	}
}

// The cause is right for a stream that ends while one of its messages waits for the store.
func TestEndsWhileAMessageWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := startStreams(t, 0)
		a := s.connect("vm-1")
		a.receive()
		s.store.on(func() error { return fleet.ErrUnavailable })
		a.send(eventMessage("job_started"))
		synctest.Wait()
		a.reset()
		synctest.Wait()
		s.store.on(nil)
		require.Equal(t, []any{session.EndReset.String()}, s.causes())
	})
}
