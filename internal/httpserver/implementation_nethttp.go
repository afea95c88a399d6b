//go:build nethttp2

package httpserver

// newHTTP2 makes what serves HTTP/2. Without the build tag nethttp2 it is x/net.
var newHTTP2 = newNetHTTP
