package rpc

import (
	"errors"
	"net/http"
	"regexp"
	"strings"

	"connectrpc.com/connect"
)

// explained gives the refusals of next, a handler that connect-go made, a body that
// says what is wrong: it answers a wrong HTTP method, content type or version of HTTP
// with the status alone.
func explained(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(&explainer{ResponseWriter: w, request: r}, r)
	})
}

// explainer is the answer to one call.
type explainer struct {
	http.ResponseWriter
	request *http.Request
}

// WriteHeader implements http.ResponseWriter. connect-go writes no body after these
// statuses: it has no code that maps to one of them.
func (e *explainer) WriteHeader(status int) {
	switch message := e.message(status); message {
	case "":
		e.ResponseWriter.WriteHeader(status)
	default:
		writeRefusal(e.ResponseWriter, refuse(status, message))
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

// Flush implements http.Flusher, without which connect-go serves no streams.
func (e *explainer) Flush() {
	if f, ok := e.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}

// Unwrap is for http.ResponseController.
func (e *explainer) Unwrap() http.ResponseWriter { return e.ResponseWriter }

// procedurePath is how the path of an RPC looks; the service is in a package.
var procedurePath = regexp.MustCompile(`^/([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+)/[A-Za-z_]\w*$`)

// writeElsewhere answers what is for no handler. Callers of RPCs are told in their
// protocol that it is not implemented, whoever else that there is no such page.
func writeElsewhere(w http.ResponseWriter, r *http.Request) {
	service := procedurePath.FindStringSubmatch(r.URL.Path)
	switch {
	case service != nil && connect.NewErrorWriter().IsSupported(r) && (r.Method == http.MethodPost || isCall(r)):
		writeUnimplemented(w, r, "there is no service "+service[1])
	case isCall(r):
		writeUnimplemented(w, r, "there is nothing at this path")
	default:
		writeNotFound(w, r)
	}
}

// isCall reports whether a request has what none but an RPC has. An RPC by hand may
// lack it: curl sends JSON by POST.
func isCall(r *http.Request) bool {
	contentType := r.Header.Get("Content-Type")
	switch r.Method {
	case http.MethodGet:
		return r.URL.Query().Get("connect") == "v1"
	case http.MethodPost:
		return r.Header.Get("Connect-Protocol-Version") != "" || strings.HasPrefix(contentType, "application/grpc") ||
			strings.HasPrefix(contentType, "application/connect+")
	default:
		return false
	}
}

// writeUnimplemented answers a call of what there is not, in the caller's protocol.
func writeUnimplemented(w http.ResponseWriter, r *http.Request, message string) {
	setAnswerHeaders(w.Header())
	err := connect.NewError(connect.CodeUnimplemented, errors.New(message))
	_ = connect.NewErrorWriter().Write(w, r, err) // fails for those who have gone
}
