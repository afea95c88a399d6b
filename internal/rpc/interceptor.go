package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"connectrpc.com/connect"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/logkey"
	"github.com/mig-controller/mig-controller/internal/loglimit"
)

// Keys of what is logged of a call.
const (
	callProcedureKey = "procedure"
	callDurationKey  = "duration"
)

// errorInterceptor turns the errors that handlers return into those that callers
// get, and logs them once with their causes; of what callers can repeat, ten a
// minute of each procedure and code. A handler that panics costs its own call, nothing more.
type errorInterceptor struct {
	log     *slog.Logger
	limiter *loglimit.Limiter
}

// NewErrorInterceptor returns the interceptor for handlers of every service. It
// is the outermost, so that it sees the errors of the others too.
func NewErrorInterceptor(log *slog.Logger) connect.Interceptor {
	return errorInterceptor{log: log, limiter: new(loglimit.Limiter)}
}

// WrapUnary implements connect.Interceptor.
func (i errorInterceptor) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (_ connect.AnyResponse, err error) {
		began := time.Now()
		defer func() { err = i.end(ctx, req.Spec().Procedure, began, recover(), err) }()
		return next(ctx, req)
	}
}

// WrapStreamingHandler implements connect.Interceptor.
func (i errorInterceptor) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) (err error) {
		began := time.Now()
		defer func() { err = i.end(ctx, conn.Spec().Procedure, began, recover(), err) }()
		return next(ctx, peerConn{conn})
	}
}

// WrapStreamingClient implements connect.Interceptor; clients are not touched.
func (errorInterceptor) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// end ends a call that panicked, or returned err, and returns what its caller gets.
func (i errorInterceptor) end(
	ctx context.Context, procedure string, began time.Time, panicked any, err error,
) error {
	if panicked == http.ErrAbortHandler { //nolint:errorlint // net/http compares it so
		panic(panicked)
	}
	if panicked != nil {
		i.limiter.Limited(i.log, "panic", procedure, time.Now()).ErrorContext(ctx, "call panicked", callProcedureKey, procedure,
			callDurationKey, time.Since(began), logkey.Panic, fmt.Sprint(panicked), logkey.Stack, string(debug.Stack()))
		return connect.NewError(connect.CodeInternal, errInternal)
	}
	if err == nil {
		return nil
	}
	answer := toConnect(err)
	log, level := i.log, callLevel(ctx, err, answer.Code())
	if level > slog.LevelDebug {
		log = i.limiter.Limited(log, answer.Code().String(), procedure, time.Now())
	}
	log.Log(ctx, level, "call failed", callProcedureKey, procedure,
		logkey.Code, answer.Code().String(), callDurationKey, time.Since(began), logkey.Error, err)
	return answer
}

// peerConn is the connection of a stream. It returns what the caller did wrong as a
// *peerError, whichever code connect-go gives it: Internal, for one, to a request
// without an envelope.
type peerConn struct{ connect.StreamingHandlerConn }

// peerError is the failure to read what a caller sends, or to send to one that has
// gone.
type peerError struct{ error }

func (e *peerError) Unwrap() error { return e.error }

// Receive implements connect.StreamingHandlerConn.
func (c peerConn) Receive(m any) error {
	err := c.StreamingHandlerConn.Receive(m)
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	return &peerError{err}
}

// Send implements connect.StreamingHandlerConn. A message that cannot be encoded is
// a fault of the controller: connect-go gives only that the code Internal.
func (c peerConn) Send(m any) error {
	err := c.StreamingHandlerConn.Send(m)
	if err == nil || errors.Is(err, io.EOF) || connect.CodeOf(err) == connect.CodeInternal {
		return err
	}
	return &peerError{err}
}

// callLevel is how much a failure matters to whoever runs the controller. Callers'
// mistakes are theirs, and so is what fails because they have gone: they can be
// repeated at will, and are logged at debug level only. A call ended by a stop is not a failure.
func callLevel(ctx context.Context, err error, code connect.Code) slog.Level {
	if _, theirs := errors.AsType[*peerError](err); theirs {
		return slog.LevelDebug
	}
	switch code {
	case connect.CodeInternal, connect.CodeUnknown:
		return slog.LevelError
	case connect.CodeDataLoss:
		if errors.Is(err, fleet.ErrDamaged) { // the engine has logged it, once
			return slog.LevelDebug
		}
		return slog.LevelError
	case connect.CodeUnavailable:
		if ctx.Err() == nil && !errors.Is(err, fleet.ErrStopping) && !errors.Is(err, fleet.ErrSilent) {
			return slog.LevelWarn
		}
		return slog.LevelDebug
	default:
		return slog.LevelDebug
	}
}
