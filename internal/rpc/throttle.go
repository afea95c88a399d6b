package rpc

import (
	"context"
	"errors"
	"io"
	"sync"

	"connectrpc.com/connect"

	"github.com/mig-controller/mig-controller/internal/session"
)

// maxUnread is how many streams of one connection may go unread at a time because their
// VMs report too much. Each of them holds up to a quarter of the window that all streams
// of the connection share.
const maxUnread = 2

// errThrottled ends a stream whose VM reports too much, on a connection that has maxUnread
// of those already.
var errThrottled = connect.NewError(connect.CodeResourceExhausted,
	errors.New("the VM reports too much, and so do others on the same connection"))

// errNotTaken occurs when nothing more of a stream is to be taken.
var errNotTaken = errors.New("the stream is over, or its session superseded")

// throttle waits while the VM reports too much: what its agent sends is not read, and
// flow control makes it wait. It returns errThrottled when the stream must not stay
// unread, and errNotTaken when what comes on it is not to be taken any more.
func (l *line) throttle(session *session.Session) error {
	if !session.Overdrawn() {
		return nil
	}
	leave, ok := l.unread.enter(l.connection)
	if !ok {
		return errThrottled
	}
	defer leave()
	if !session.Wait() {
		return errNotTaken
	}
	return nil
}

// over returns how the stream ended, when it ended while it was not read: that is the
// agent's doing, not a failure of the controller. err is why it was not read on.
func (l *line) over(ctx context.Context, err error) error {
	switch {
	case !errors.Is(err, errNotTaken) || ctx.Err() == nil:
		return err
	case errors.Is(l.control.request.err, io.EOF):
		return io.EOF
	default:
		return ctx.Err()
	}
}

// unreadStreams counts the streams that are not read, by their connections. The zero
// value is ready.
type unreadStreams struct {
	mu sync.Mutex
	on map[Connection]int
}

// enter counts a stream until leave is called. It returns false when the connection has
// maxUnread of them. Where the connection is not known, streams share none.
func (u *unreadStreams) enter(c Connection) (leave func(), ok bool) {
	if c == nil {
		return func() {}, true
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.on[c] == maxUnread {
		return nil, false
	}
	if u.on == nil {
		u.on = map[Connection]int{}
	}
	u.on[c]++
	return func() { u.leave(c) }, true
}

func (u *unreadStreams) leave(c Connection) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.on[c]--
	if u.on[c] == 0 {
		delete(u.on, c)
	}
}
