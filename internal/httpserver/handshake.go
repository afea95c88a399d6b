package httpserver

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/net/http2"
)

// open returns c, or c with TLS after the handshake, which may take as long as the headers of
// a request.
func (s *Server) open(c net.Conn) (net.Conn, error) {
	if s.tls == nil {
		return c, nil
	}
	if err := c.SetDeadline(time.Now().Add(s.http1.ReadHeaderTimeout)); err != nil {
		return nil, err
	}
	encrypted := tls.Server(s.observe(c), s.tls)
	if err := encrypted.Handshake(); err != nil { //nolint:noctx // it has a deadline, and ends when c is closed
		if plain, ok := errors.AsType[tls.RecordHeaderError](err); ok && looksLikeHTTP(plain.RecordHeader) {
			if string(plain.RecordHeader[:3]) == http2.ClientPreface[:3] {
				hold(c)
			}
			answerPlaintext(c)
			err = fmt.Errorf("%w: %w", errPlaintext, err)
		}
		s.http1.ErrorLog.Printf("http: TLS handshake error from %v: %v", c.RemoteAddr(), err)
		return nil, err
	}
	return encrypted, c.SetDeadline(time.Time{})
}

// errPlaintext means that a peer speaks plaintext HTTP instead of TLS.
var errPlaintext = errors.New("plaintext HTTP")

// looksLikeHTTP reports whether an HTTP method may begin with these bytes. A TLS record
// cannot.
func looksLikeHTTP(start [5]byte) bool {
	for _, b := range start[:3] {
		if b < 'A' || b > 'Z' {
			return false
		}
	}
	return true
}

// holdPlaintext is how long the response to a plaintext HTTP/2 client is delayed.
const holdPlaintext = 5 * time.Second

// hold delays a peer that might reconnect at once, as agents do, thousands of times a second.
// It discards what the peer sends, and returns early when the peer disconnects.
func hold(c net.Conn) {
	_ = c.SetReadDeadline(time.Now().Add(holdPlaintext)) // c is closed soon either way
	_, _ = io.CopyN(io.Discard, c, 64<<10)
}

// answerPlaintext answers a plaintext request. HTTP/2 clients do not understand the response,
// but many report that it looks like HTTP/1.1.
func answerPlaintext(c net.Conn) {
	_ = c.SetDeadline(time.Now().Add(500 * time.Millisecond)) // the peer may not read the response
	_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"+
		"This port speaks TLS: use https.\n")
	// Closing a connection with unread data would reset it, and the response would be lost.
	if half, ok := c.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		_, _ = io.CopyN(io.Discard, c, 64<<10)
	}
}
