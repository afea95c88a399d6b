package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"

	"github.com/mig-controller/mig-controller/internal/auth"
	"github.com/mig-controller/mig-controller/internal/readiness"
)

// readyFunc returns nil if the controller is ready, and otherwise the reason.
type readyFunc func(context.Context) error

// readyBy returns a readyFunc that runs the checks.
func readyBy(checks *readiness.Checks) readyFunc {
	return func(ctx context.Context) error {
		if results := checks.Run(ctx); !results.Ready() {
			return errors.New(results.Reason())
		}
		return nil
	}
}

// Check implements grpchealth.Checker. All services depend on all checks, so they have the same
// status.
func (f readyFunc) Check(ctx context.Context, req *grpchealth.CheckRequest) (*grpchealth.CheckResponse, error) {
	if req.Service != "" && !slices.Contains(serviceNames, req.Service) {
		return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("service must be one of %q, or empty", serviceNames))
	}
	return &grpchealth.CheckResponse{Status: f.status(ctx)}, nil
}

func (f readyFunc) status(ctx context.Context) grpchealth.Status {
	if f(ctx) != nil {
		return grpchealth.StatusNotServing
	}
	return grpchealth.StatusServing
}

// probeBody is the response to a probe over HTTP.
type probeBody struct {
	Status string `json:"status"`
	Reason string `json:"reason,omitempty"`
	// Checks are in verbose responses only.
	Checks []checkBody `json:"checks,omitempty"`
	// Warnings are those of the start, in verbose responses only.
	Warnings []string `json:"warnings,omitempty"`
}

// checkBody is the result of a check.
type checkBody struct {
	Name      string `json:"name"`
	OK        bool   `json:"ok"`
	Reason    string `json:"reason,omitempty"`
	Duration  string `json:"duration"`
	CheckedAt string `json:"checked_at"`
}

// writeHealth answers the liveness probe.
func writeHealth(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, probeBody{Status: "ok"})
}

// ready returns a handler that answers the readiness probe. While operators need credentials,
// the answer to a caller without them names the failed checks without their reasons.
func (o operators) ready(checks *readiness.Checks, warnings []string) http.HandlerFunc {
	verbose := o.page(auth.Requirement{Action: "/ready?verbose", Role: auth.Viewer}, http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) {
			results := checks.Run(r.Context())
			status, body := readyBody(results, results.Reason())
			body.Warnings = warnings
			for _, result := range results {
				body.Checks = append(body.Checks, checkToBody(result))
			}
			writeIndentedJSON(w, status, body)
		}))
	return func(w http.ResponseWriter, r *http.Request) {
		if isVerbose(r.URL) {
			verbose.ServeHTTP(w, r)
			return
		}
		results := checks.Run(r.Context())
		reason := results.Reason()
		if o.admitter.Required() {
			reason = strings.Join(results.Failed(), ", ")
		}
		status, body := readyBody(results, reason)
		writeJSON(w, status, body)
	}
}

func readyBody(results readiness.Results, reason string) (status int, body probeBody) {
	if results.Ready() {
		return http.StatusOK, probeBody{Status: "ready"}
	}
	return http.StatusServiceUnavailable, probeBody{Status: "not ready", Reason: reason}
}

// isVerbose reports whether the query asks for each check: verbose with any value except those
// for false.
func isVerbose(u *url.URL) bool {
	query := u.Query()
	if !query.Has("verbose") {
		return false
	}
	value, err := strconv.ParseBool(query.Get("verbose"))
	return value || err != nil
}

// checkToBody writes times like the API does: seconds, and RFC 3339 in UTC.
func checkToBody(r readiness.Result) checkBody {
	body := checkBody{
		Name: r.Name, OK: r.Err == nil,
		Duration:  strconv.FormatFloat(r.Took.Seconds(), 'f', 3, 64) + "s",
		CheckedAt: r.At.UTC().Format("2006-01-02T15:04:05.000Z"),
	}
	if r.Err != nil {
		body.Reason = r.Err.Error()
	}
	return body
}

// writeIndentedJSON is writeJSON for people.
func writeIndentedJSON(w http.ResponseWriter, status int, body any) {
	setAnswerHeaders(w.Header())
	w.Header().Set("Content-Type", contentJSON)
	w.WriteHeader(status)
	text := json.NewEncoder(w)
	text.SetIndent("", "  ")
	if err := text.Encode(body); err != nil {
		return // the caller may have disconnected
	}
}
