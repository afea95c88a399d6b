package rpc

import (
	"context"
	"errors"
	"io"
	"sync"

	"connectrpc.com/connect"

	"github.com/mig-controller/mig-controller/internal/session"
)

// maxUnread is how many throttled streams of one connection may be unread at a time. Each of
// them uses up to a quarter of the flow-control window that all streams of the connection
// share.
const maxUnread = 2

// errThrottled ends a throttled stream on a connection that has maxUnread of them already.
var errThrottled = connect.NewError(connect.CodeResourceExhausted,
	errors.New("the VM reports too much, and so do others on the same connection"))

// errStreamOver means that no more messages of a stream are to be applied.
var errStreamOver = errors.New("the stream has ended, or its session was superseded")

// throttle waits while the VM is above its report rate: meanwhile the stream is not read, and
// flow control makes its agent wait. It returns errThrottled when the connection has too many
// such streams, and errStreamOver when the stream must not be read any more.
func (a *agentStream) throttle(session *session.Session) error {
	if !session.Overdrawn() {
		return nil
	}
	leave, ok := a.unread.enter(a.connection)
	if !ok {
		return errThrottled
	}
	defer leave()
	if !session.Wait() {
		return errStreamOver
	}
	return nil
}

// endUnread returns how the stream ended if it ended while it was not read: the agent ended
// it, which is not a failure of the controller. err is why it was not read.
func (a *agentStream) endUnread(ctx context.Context, err error) error {
	switch {
	case !errors.Is(err, errStreamOver) || ctx.Err() == nil:
		return err
	case errors.Is(a.control.request.err, io.EOF):
		return io.EOF
	default:
		return ctx.Err()
	}
}

// unreadStreams counts the unread streams of each connection. The zero value is ready.
type unreadStreams struct {
	mu    sync.Mutex
	count map[Connection]int
}

// enter counts a stream until leave is called. It returns false when the connection has
// maxUnread of them. Streams whose connection is not known are not limited.
func (u *unreadStreams) enter(c Connection) (leave func(), ok bool) {
	if c == nil {
		return func() {}, true
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.count[c] == maxUnread {
		return nil, false
	}
	if u.count == nil {
		u.count = map[Connection]int{}
	}
	u.count[c]++
	return func() { u.leave(c) }, true
}

func (u *unreadStreams) leave(c Connection) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.count[c]--
	if u.count[c] == 0 {
		delete(u.count, c)
	}
}
