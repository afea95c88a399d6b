// Package httpserver owns everything below the handlers: listening, TLS and the renewal of
// its certificate, HTTP/1.1 and HTTP/2 on the same port, the limits of connections, and
// which requests of web pages are refused. It does not depend on the API: it serves an
// http.Handler on a net.Listener.
//
// The limits of a single call are in package rpc, because a stream suspends them.
package httpserver
