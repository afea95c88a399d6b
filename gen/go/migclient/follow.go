package migclient

import (
	"cmp"
	"context"
	"errors"
	"io"
	"iter"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
)

// Silence is the time without an answer after which a watch counts as broken: the
// controller sends one at least every 30 seconds.
const Silence = 45 * time.Second

// The pauses before a watch is resumed double, from the first to the longest.
const (
	firstPause   = 500 * time.Millisecond
	longestPause = 10 * time.Second
)

// errSilent occurs when a watch received nothing for too long.
var errSilent = errors.New("the watch received no answer for too long")

// Follower watches a controller across lost connections and restarts. Only Admin must be
// set. It is safe for concurrent use.
type Follower struct {
	// Admin is the client to watch with.
	Admin migcontrollerv1connect.AdminServiceClient
	// Broken is called with the error of a watch that is about to be resumed. An error
	// that it returns ends Follow.
	Broken func(err error) error
	// Silence is the time without an answer after which a watch counts as broken. Zero
	// means the constant of that name.
	Silence time.Duration
	// Pause waits before a watch is resumed, or returns an error when ctx ends. Nil means a
	// timer.
	Pause func(ctx context.Context, length time.Duration) error
}

// Follow returns the answers of WatchFleet, each once and in order. When the connection
// breaks or is silent, or the controller shuts down, it calls again with the last cursor.
// It does so until the loop ends or there is an error, which is returned last: that of ctx
// when it ends, that of Broken, or the controller's when another call would not help. If
// its reason is CURSOR_EXPIRED, the changes in between are no longer kept: list what is
// needed, and follow without a cursor.
func (f Follower) Follow(
	ctx context.Context, request *migcontrollerv1.WatchFleetRequest,
) iter.Seq2[*migcontrollerv1.WatchFleetResponse, error] {
	return func(yield func(*migcontrollerv1.WatchFleetResponse, error) bool) {
		next, length := proto.CloneOf(request), firstPause
		for {
			left := false
			err := f.watch(ctx, next, func(answer *migcontrollerv1.WatchFleetResponse) bool {
				left = !yield(answer, nil)
				next.Cursor, length = answer.GetCursor(), firstPause
				return !left
			})
			if left {
				return
			}
			if err = f.resume(ctx, err, length); err != nil {
				yield(nil, err)
				return
			}
			length = min(2*length, longestPause)
		}
	}
}

// watch yields the answers of one call until receive returns false. It returns the error
// that ended the call.
func (f Follower) watch(
	ctx context.Context, request *migcontrollerv1.WatchFleetRequest, receive func(*migcontrollerv1.WatchFleetResponse) bool,
) error {
	limit := cmp.Or(f.Silence, Silence)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(limit, func() { cancel(connect.NewError(connect.CodeUnavailable, errSilent)) })
	defer silence.Stop()
	stream, err := f.Admin.WatchFleet(ctx, request)
	if err != nil {
		return cmp.Or(context.Cause(ctx), err)
	}
	defer func() { _ = stream.Close() }() // the error of the call is already known
	for stream.Receive() {
		silence.Stop() // the caller may be slow
		if !receive(stream.Msg()) {
			return nil
		}
		silence.Reset(limit)
	}
	return cmp.Or(context.Cause(ctx), stream.Err(), error(connect.NewError(connect.CodeUnavailable, io.ErrUnexpectedEOF)))
}

// resume waits before a watch that ended with err is resumed. It returns an error to give
// up.
func (f Follower) resume(ctx context.Context, err error, length time.Duration) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if !Retryable(err) {
		return err
	}
	if f.Broken != nil {
		if err := f.Broken(err); err != nil {
			return err
		}
	}
	pause := f.Pause
	if pause == nil {
		pause = sleep
	}
	return pause(ctx, length)
}

// sleep waits, or returns early with the cause of ctx.
func sleep(ctx context.Context, length time.Duration) error {
	timer := time.NewTimer(length)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
