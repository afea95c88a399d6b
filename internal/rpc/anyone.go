package rpc

import (
	"net/http"

	"github.com/mig-controller/mig-controller/internal/auth"
)

// withAnyone makes every caller of a service auth.Anyone, unless a middleware has determined
// its principal before. Authentication replaces it.
func withAnyone(prefix string, next http.Handler) (string, http.Handler) {
	return prefix, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if auth.From(r.Context()).Method == "" {
			r = r.WithContext(auth.With(r.Context(), auth.Anyone()))
		}
		next.ServeHTTP(w, r)
	})
}
