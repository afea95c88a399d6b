//go:build !nethttp2

package httpserver

// newHTTP2 returns the HTTP/2 implementation. With the build tag nethttp2 it is net/http.
var newHTTP2 = newXNet
