package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"connectrpc.com/connect"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// Keys of what is logged of a call.
const (
	callProcedureKey = "procedure"
	callCodeKey      = "code"
	callDurationKey  = "duration"
	callErrorKey     = "error"
	callPanicKey     = "panic"
	callStackKey     = "stack"
)

// errorInterceptor makes the errors that handlers return into what callers are
// told, and logs them once with what is behind them. A handler that panics costs
// its own call, nothing more.
type errorInterceptor struct{ log *slog.Logger }

// NewErrorInterceptor returns the interceptor for handlers of every service. It
// is the outermost, so that it sees the errors of the others too.
func NewErrorInterceptor(log *slog.Logger) connect.Interceptor {
	return errorInterceptor{log: log}
}

// WrapUnary implements connect.Interceptor.
func (i errorInterceptor) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (_ connect.AnyResponse, err error) {
		began := time.Now()
		defer func() { err = i.settle(ctx, req.Spec().Procedure, began, recover(), err) }()
		return next(ctx, req)
	}
}

// WrapStreamingHandler implements connect.Interceptor.
func (i errorInterceptor) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) (err error) {
		began := time.Now()
		defer func() { err = i.settle(ctx, conn.Spec().Procedure, began, recover(), err) }()
		return next(ctx, conn)
	}
}

// WrapStreamingClient implements connect.Interceptor; clients are not touched.
func (errorInterceptor) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// settle ends a call that panicked, or returned err, and returns what its caller
// is told.
func (i errorInterceptor) settle(
	ctx context.Context, procedure string, began time.Time, panicked any, err error,
) error {
	if panicked == http.ErrAbortHandler { //nolint:errorlint // net/http compares it so
		panic(panicked)
	}
	if panicked != nil {
		i.log.ErrorContext(ctx, "call panicked", callProcedureKey, procedure,
			callDurationKey, time.Since(began), callPanicKey, fmt.Sprint(panicked), callStackKey, string(debug.Stack()))
		return connect.NewError(connect.CodeInternal, errInternal)
	}
	if err == nil {
		return nil
	}
	told := toConnect(err)
	i.log.Log(ctx, callLevel(ctx, err, told.Code()), "call failed", callProcedureKey, procedure,
		callCodeKey, told.Code().String(), callDurationKey, time.Since(began), callErrorKey, err)
	return told
}

// callLevel is how much a failure matters to whoever runs the controller. Callers'
// mistakes are theirs, and so is what fails because they have gone. What a stop
// ends is no failure.
func callLevel(ctx context.Context, err error, code connect.Code) slog.Level {
	switch code {
	case connect.CodeInternal, connect.CodeUnknown, connect.CodeDataLoss:
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
