package rpc

import (
	"net/http"

	"github.com/mig-controller/mig-controller/internal/requestid"
)

// requestIDHeader has the id of a request, in the response and, if the caller has chosen the
// id, in the request.
const requestIDHeader = "X-Request-Id"

// identify returns the id of a request, and adds it to the response.
func identify(w http.ResponseWriter, r *http.Request) string {
	id := r.Header.Get(requestIDHeader)
	if !requestid.Valid(id) {
		id = requestid.New()
	}
	w.Header().Set(requestIDHeader, id)
	return id
}
