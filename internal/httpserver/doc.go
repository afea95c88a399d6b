// Package httpserver owns everything below the handlers: listening, TLS and the renewal of
// its certificate, HTTP/1.1 and HTTP/2 on the same port, the limits of connections, and
// which requests of web pages are refused. It knows no API: what it serves is an
// http.Handler, and what it serves on is a net.Listener.
//
// The limits of a single call are not here but in package rpc: a stream suspends them.
package httpserver
