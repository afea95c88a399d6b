package rpc

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
)

// readyTimeout limits a readiness check.
const readyTimeout = 3 * time.Second

// readiness checks whether the controller is ready. It returns nil if so, and otherwise the
// reason.
type readiness func(context.Context) error

func (f readiness) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	return f(ctx)
}

// Check implements grpchealth.Checker. All services have the same status.
func (f readiness) Check(ctx context.Context, req *grpchealth.CheckRequest) (*grpchealth.CheckResponse, error) {
	if req.Service != "" && !slices.Contains(serviceNames, req.Service) {
		return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("service must be one of %q, or empty", serviceNames))
	}
	return &grpchealth.CheckResponse{Status: f.status(ctx)}, nil
}

func (f readiness) status(ctx context.Context) grpchealth.Status {
	if f.check(ctx) != nil {
		return grpchealth.StatusNotServing
	}
	return grpchealth.StatusServing
}

// probeBody is the response to a probe over HTTP.
type probeBody struct {
	Status string `json:"status"`
	Reason string `json:"reason,omitempty"`
}

// writeHealth answers the liveness probe.
func writeHealth(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, probeBody{Status: "ok"})
}

// writeReady answers the readiness probe.
func (f readiness) writeReady(w http.ResponseWriter, r *http.Request) {
	if err := f.check(r.Context()); err != nil {
		writeJSON(w, http.StatusServiceUnavailable, probeBody{Status: "not ready", Reason: err.Error()})
		return
	}
	writeJSON(w, http.StatusOK, probeBody{Status: "ready"})
}
