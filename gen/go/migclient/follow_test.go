package migclient_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/gen/go/migclient"
	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
)

// A watch that receives nothing for 45 seconds is abandoned and resumed at its last cursor,
// whether it was silent from the start or later. The time spent in the loop body does not
// count.
func TestFollowGivesUpOnSilence(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var asked []string
		var at []time.Duration
		admin := serve(t, func(ctx context.Context, cursor string, send func(cursor string)) error {
			asked, at = append(asked, cursor), append(at, time.Since(begin))
			if len(asked) != 2 {
				send(cursor + "+")
			}
			if len(asked) == 3 {
				return refusal(connect.CodeInvalidArgument, migcontrollerv1.ErrorReason_ERROR_REASON_INVALID_FIELD)
			}
			<-ctx.Done()
			return ctx.Err()
		})
		var broken []connect.Code
		follower := migclient.Follower{Admin: admin, Broken: func(err error) error {
			broken = append(broken, connect.CodeOf(err))
			return nil
		}}
		var cursors []string
		for answer, err := range follower.Follow(t.Context(), &migcontrollerv1.WatchFleetRequest{Cursor: "c"}) {
			if err != nil {
				require.Equal(t, connect.CodeInvalidArgument, connect.CodeOf(err))
				break
			}
			cursors = append(cursors, answer.GetCursor())
			time.Sleep(time.Minute) // fake clock
		}
		require.Equal(t, []string{"c+", "c++"}, cursors)
		require.Equal(t, []string{"c", "c+", "c+"}, asked)
		first := time.Minute + 45*time.Second + 500*time.Millisecond
		require.Equal(t, []time.Duration{0, first, first + 45*time.Second + time.Second}, at)
		require.Equal(t, []connect.Code{connect.CodeUnavailable, connect.CodeUnavailable}, broken)
	})
}

// The pauses grow up to the longest, and restart after an answer. A stream that ends
// without an error is resumed too.
func TestFollowPauses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		calls, last := 0, time.Now()
		var pauses []time.Duration
		admin := serve(t, func(_ context.Context, _ string, send func(cursor string)) error {
			pauses, last = append(pauses, time.Since(last)), time.Now()
			if calls++; calls == 8 {
				send("c")
			}
			if calls%2 == 0 {
				return nil
			}
			return refusal(connect.CodeUnavailable, migcontrollerv1.ErrorReason_ERROR_REASON_STOPPING)
		})
		ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
		defer cancel()
		require.ErrorIs(t, follow(ctx, migclient.Follower{Admin: admin}), context.DeadlineExceeded)
		seconds := func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
		require.Equal(t, []time.Duration{
			0, seconds(0.5), seconds(1), seconds(2), seconds(4), seconds(8), seconds(10), seconds(10), seconds(0.5), seconds(1), seconds(2),
		}, pauses)
	})
}

// An error that another call would not change ends Follow immediately.
func TestFollowIsRefused(t *testing.T) {
	t.Parallel()
	for reason, code := range map[migcontrollerv1.ErrorReason]connect.Code{
		migcontrollerv1.ErrorReason_ERROR_REASON_INVALID_FIELD:  connect.CodeInvalidArgument,
		migcontrollerv1.ErrorReason_ERROR_REASON_CURSOR_EXPIRED: connect.CodeOutOfRange,
	} {
		synctest.Test(t, func(t *testing.T) {
			calls := 0
			admin := serve(t, func(context.Context, string, func(string)) error {
				calls++
				return refusal(code, reason)
			})
			err := follow(t.Context(), migclient.Follower{Admin: admin})
			require.Equal(t, code, connect.CodeOf(err))
			require.Equal(t, reason, migclient.ErrorDetail(err).GetReason())
			require.Equal(t, 1, calls)
		})
	}
}

// A caller can give up on an unreachable controller, in Broken or by the context, and can
// leave the loop; each ends the call.
func TestFollowEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan struct{}, 1)
		admin := serve(t, func(ctx context.Context, _ string, send func(cursor string)) error {
			send("c")
			<-ctx.Done()
			ended <- struct{}{}
			return nil
		})
		errEnough := errors.New("enough")
		broken := migclient.Follower{Admin: admin, Silence: time.Second, Broken: func(error) error { return errEnough }}
		require.ErrorIs(t, follow(t.Context(), broken), errEnough)
		<-ended

		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(errEnough) })
		require.ErrorIs(t, follow(ctx, migclient.Follower{Admin: admin}), errEnough)
		<-ended

		for range (migclient.Follower{Admin: admin}).Follow(t.Context(), &migcontrollerv1.WatchFleetRequest{}) {
			break
		}
		<-ended
	})
}

// follow reads all answers and returns the error at the end.
func follow(ctx context.Context, follower migclient.Follower) error {
	for _, err := range follower.Follow(ctx, &migcontrollerv1.WatchFleetRequest{}) {
		if err != nil {
			return err
		}
	}
	return nil
}

// watched is an AdminService that implements only watches.
type watched struct {
	migcontrollerv1connect.UnimplementedAdminServiceHandler

	stream func(ctx context.Context, cursor string, send func(cursor string)) error
}

// WatchFleet calls stream.
func (w watched) WatchFleet(
	ctx context.Context, request *migcontrollerv1.WatchFleetRequest, answers *connect.ServerStream[migcontrollerv1.WatchFleetResponse],
) error {
	return w.stream(ctx, request.GetCursor(), func(cursor string) {
		_ = answers.Send(&migcontrollerv1.WatchFleetResponse{Cursor: cursor}) // the client may have disconnected
	})
}

// serve returns a client of a server in the same synctest bubble. stream is the body of a
// watch.
func serve(t *testing.T, stream func(context.Context, string, func(string)) error) migcontrollerv1connect.AdminServiceClient {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle(migcontrollerv1connect.NewAdminServiceHandler(watched{stream: stream}))
	conns := make(pipes)
	server := &http.Server{Handler: mux}
	done := make(chan error)
	go func() { done <- server.Serve(conns) }()
	transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		conns <- theirs
		return ours, nil
	}}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		require.NoError(t, server.Close())
		require.ErrorIs(t, <-done, http.ErrServerClosed)
	})
	return migcontrollerv1connect.NewAdminServiceClient(&http.Client{Transport: transport}, "http://controller.example")
}

// pipes is a listener for in-process connections.
type pipes chan net.Conn

// Accept returns the next connection.
func (p pipes) Accept() (net.Conn, error) {
	if conn, open := <-p; open {
		return conn, nil
	}
	return nil, net.ErrClosed
}

// Close ends Accept.
func (p pipes) Close() error {
	close(p)
	return nil
}

// Addr is not used.
func (p pipes) Addr() net.Addr { return &net.UnixAddr{} }

// refusal is an error of the controller.
func refusal(code connect.Code, reason migcontrollerv1.ErrorReason) error {
	err := connect.NewError(code, errors.New("refused"))
	detail, bad := connect.NewErrorDetail(&migcontrollerv1.ErrorDetail{Reason: reason})
	if bad != nil {
		return bad
	}
	err.AddDetail(detail)
	return err
}
