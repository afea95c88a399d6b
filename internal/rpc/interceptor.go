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

// Log keys of calls.
const (
	callProcedureKey = "procedure"
	callDurationKey  = "duration"
)

// errorInterceptor translates the errors of handlers into those that callers get, counts the
// calls by them, and logs the errors once with their causes: those that callers can cause, at
// most ten a minute for each procedure and code. A panic of a handler fails only its own call.
type errorInterceptor struct {
	log      *slog.Logger
	limiter  *loglimit.Limiter
	requests *Requests
}

// NewErrorInterceptor returns the interceptor for the handlers of all services. It must be the
// outermost except for that of NewTraceInterceptor, so that it sees the errors of the others
// too.
func NewErrorInterceptor(log *slog.Logger, requests *Requests) connect.Interceptor {
	return errorInterceptor{log: log, limiter: new(loglimit.Limiter), requests: requests}
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

// WrapStreamingClient implements connect.Interceptor. It returns next unchanged.
func (errorInterceptor) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// end counts a call, logs it if it panicked or returned err, and returns the error that its
// caller gets.
func (i errorInterceptor) end(
	ctx context.Context, procedure string, began time.Time, panicked any, err error,
) error {
	err = i.translate(ctx, procedure, began, panicked, err)
	i.requests.returned(procedure, began, err)
	return err
}

func (i errorInterceptor) translate(
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

// peerConn is the connection of a stream. It returns errors that the caller caused as a
// *peerError, whatever code connect-go gives them: for example, Internal for a request without
// an envelope.
type peerConn struct{ connect.StreamingHandlerConn }

// peerError is a failure to receive from a caller, or to send to one that has disconnected.
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

// Send implements connect.StreamingHandlerConn. A message that cannot be encoded is the
// controller's fault: connect-go uses the code Internal only for that.
func (c peerConn) Send(m any) error {
	err := c.StreamingHandlerConn.Send(m)
	if err == nil || errors.Is(err, io.EOF) || connect.CodeOf(err) == connect.CodeInternal {
		return err
	}
	return &peerError{err}
}

// callLevel is the level at which a failure is logged. Errors that callers cause, also by
// disconnecting, are logged at debug level only, because callers can repeat them at will. A
// call that is ended by a stop is not a failure.
func callLevel(ctx context.Context, err error, code connect.Code) slog.Level {
	if _, theirs := errors.AsType[*peerError](err); theirs {
		return slog.LevelDebug
	}
	switch code {
	case connect.CodeInternal, connect.CodeUnknown:
		return slog.LevelError
	case connect.CodeDataLoss:
		if errors.Is(err, fleet.ErrDamaged) { // logged by the engine already
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
