package rpc

import (
	"net/http"
	"time"

	connectcors "connectrpc.com/cors"
	"github.com/rs/cors"
)

// preflightAge is how long a browser may cache the response to a preflight request.
const preflightAge = time.Hour

// AllowOrigins adds CORS headers for the origins, each a scheme, a host and optionally a port.
// Without origins it returns next: browsers then allow only the controller's own origin.
func AllowOrigins(next http.Handler, origins []string) http.Handler {
	if len(origins) == 0 {
		return next
	}
	return cors.New(cors.Options{
		AllowedOrigins: origins,
		AllowedMethods: connectcors.AllowedMethods(),
		AllowedHeaders: append(connectcors.AllowedHeaders(), "Authorization", requestIDHeader),
		ExposedHeaders: append(connectcors.ExposedHeaders(), requestIDHeader),
		MaxAge:         int(preflightAge / time.Second),
	}).Handler(next)
}
