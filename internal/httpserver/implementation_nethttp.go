//go:build nethttp2

package httpserver

// newHTTP2 returns the HTTP/2 implementation. Without the build tag nethttp2 it is x/net.
var newHTTP2 = newNetHTTP
