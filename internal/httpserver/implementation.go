//go:build !nethttp2

package httpserver

// newHTTP2 makes what serves HTTP/2. With the build tag nethttp2 it is net/http.
var newHTTP2 = newXNet
