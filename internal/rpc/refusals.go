package rpc

import (
	"errors"
	"net/http"
	"regexp"
	"strings"

	"connectrpc.com/connect"
)

// explained adds a body with the reason to refusals by next, a connect-go handler, which
// answers a wrong HTTP method, content type or HTTP version with the status alone.
func explained(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(&explainer{ResponseWriter: w, request: r}, r)
	})
}

// explainer is the response to one call.
type explainer struct {
	http.ResponseWriter
	request *http.Request
}

// WriteHeader implements http.ResponseWriter. connect-go writes no body with these statuses,
// because no code maps to one of them. Clients map them to the code unknown, so the body has
// that code too. gRPC clients expect no JSON.
func (e *explainer) WriteHeader(status int) {
	switch message := e.message(status); {
	case message == "":
		e.ResponseWriter.WriteHeader(status)
	case strings.HasPrefix(e.request.Header.Get("Content-Type"), "application/grpc"):
		http.Error(e.ResponseWriter, message, status)
	default:
		writeJSON(e.ResponseWriter, status, errorBody{Code: connect.CodeUnknown.String(), Message: message})
	}
}

func (e *explainer) message(status int) string {
	switch status {
	case http.StatusMethodNotAllowed:
		return "the method must be " + strings.ReplaceAll(e.Header().Get("Allow"), ", ", " or ")
	case http.StatusHTTPVersionNotSupported:
		return "the call needs HTTP/2"
	case http.StatusUnsupportedMediaType:
		if e.request.Method == http.MethodGet {
			return "a call by GET must have no body, and in its query encoding=json or encoding=proto, and message"
		}
		return "Content-Type must be one of " + e.Header().Get("Accept-Post")
	default:
		return ""
	}
}

// Flush implements http.Flusher, which connect-go requires for streams.
func (e *explainer) Flush() {
	if f, ok := e.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}

// Unwrap supports http.ResponseController.
func (e *explainer) Unwrap() http.ResponseWriter { return e.ResponseWriter }

// procedurePath matches the path of an RPC; the service is in a package.
var procedurePath = regexp.MustCompile(`^/([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+)/[A-Za-z_]\w*$`)

// writeNotServed answers requests that no handler serves: RPCs with UNIMPLEMENTED in their own
// protocol, others with 404.
func writeNotServed(w http.ResponseWriter, r *http.Request) {
	service := procedurePath.FindStringSubmatch(r.URL.Path)
	byHand := service != nil && r.Method == http.MethodPost && connect.NewErrorWriter().IsSupported(r)
	message := "there is nothing at this path"
	if service != nil {
		message = "there is no service " + service[1]
	}
	switch {
	case !isCall(r) && !byHand:
		writeNotFound(w, r)
	case isFramed(r):
		writeUnimplemented(w, r, message)
	default: // Connect uses 404 for unknown services, and 501 for unknown methods
		writeJSON(w, http.StatusNotFound, errorBody{Code: connect.CodeUnimplemented.String(), Message: message})
	}
}

// isCall reports whether a request is certainly an RPC. An RPC sent with curl may not be
// recognised.
func isCall(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet:
		return r.URL.Query().Get("connect") == "v1"
	case http.MethodPost:
		return r.Header.Get("Connect-Protocol-Version") != "" || isFramed(r)
	default:
		return false
	}
}

// isFramed reports whether the protocol of an RPC always has the status 200: gRPC, gRPC-Web,
// or Connect streaming.
func isFramed(r *http.Request) bool {
	contentType := r.Header.Get("Content-Type")
	return r.Method == http.MethodPost &&
		(strings.HasPrefix(contentType, "application/grpc") || strings.HasPrefix(contentType, "application/connect+"))
}

// writeUnimplemented answers a call with UNIMPLEMENTED in the caller's protocol.
func writeUnimplemented(w http.ResponseWriter, r *http.Request, message string) {
	setAnswerHeaders(w.Header())
	err := connect.NewError(connect.CodeUnimplemented, errors.New(message))
	_ = connect.NewErrorWriter().Write(w, r, err) // fails if the caller has disconnected
}
