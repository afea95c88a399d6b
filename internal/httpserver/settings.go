package httpserver

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// The maximum number of concurrent streams of a connection. An agent uses one; a proxy may
// carry many agents.
const (
	maxStreams        = 100
	maxProxiedStreams = 1000
)

// newHTTP1 returns the HTTP/1.1 server, whose settings HTTP/2 uses too. It logs to errors.
//
// ReadTimeout and WriteTimeout are not set: both count from the start of a stream and would
// end it. Instead ReadHeaderTimeout limits the first bytes, IdleTimeout a connection without
// requests, SendPingTimeout+PingTimeout a peer that does not answer pings (an idle stream
// lives as long as its peer answers), and WriteByteTimeout a peer that does not accept data.
func newHTTP1(h http.Handler, errors slog.Handler) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler:           h,
		Protocols:         protocols,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		BaseContext:       contextOf,
		MaxHeaderBytes:    64 << 10,
		// Otherwise OPTIONS * is answered without the handler and its limits.
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(errors, slog.LevelDebug),
		HTTP2: &http.HTTP2Config{
			// Most connections send the headers of a response only once.
			MaxEncoderHeaderTableSize: 1,
			// A connection keeps a buffer as large as its largest frame.
			MaxReadFrameSize: 16 << 10,
			// How much one agent can send before it is read: some 1,200 heartbeats.
			MaxReceiveBufferPerStream:     256 << 10,
			MaxReceiveBufferPerConnection: 1 << 20,
			// A dead link is detected within 15 s, before the ack of a command that was sent
			// on it is due. A proxy that closes idle connections after a minute sees several
			// frames in that time.
			SendPingTimeout: 10 * time.Second,
			PingTimeout:     5 * time.Second,
			// As long as an agent may take to accept a message.
			WriteByteTimeout: 10 * time.Second,
		},
	}
}

// contextOf returns the context of the HTTP/1.1 requests on a listener.
func contextOf(l net.Listener) context.Context {
	if addressOf(l.Addr()).IsLoopback() {
		return withLoopback(context.Background())
	}
	return context.Background()
}
