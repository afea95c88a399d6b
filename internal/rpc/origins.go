package rpc

import (
	"net/http"
	"time"

	connectcors "connectrpc.com/cors"
	"github.com/rs/cors"
)

// preflightAge is how long a browser may remember what it is allowed to do.
const preflightAge = time.Hour

// AllowOrigins lets pages of the origins, each a scheme, a host and perhaps a
// port, call next from a browser. Without an origin nothing is added: browsers
// then let only pages of the controller's own origin call it.
func AllowOrigins(next http.Handler, origins []string) http.Handler {
	if len(origins) == 0 {
		return next
	}
	return cors.New(cors.Options{
		AllowedOrigins: origins,
		AllowedMethods: connectcors.AllowedMethods(),
		AllowedHeaders: append(connectcors.AllowedHeaders(), "Authorization"),
		ExposedHeaders: connectcors.ExposedHeaders(),
		MaxAge:         int(preflightAge / time.Second),
	}).Handler(next)
}
