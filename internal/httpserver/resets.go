package httpserver

import (
	"crypto/tls"
	"net"

	"golang.org/x/net/http2"
	"golang.org/x/time/rate"
)

// newResetBudget limits how many streams a peer may reset on a connection: twice as many as it
// may have at a time, and then a tenth of that number per second. A reset stream no longer
// counts as open although its handler may still run, so without this limit a peer could cause
// any amount of work.
func newResetBudget(streams int) *rate.Limiter {
	return rate.NewLimiter(rate.Limit(streams)/10, 2*streams)
}

// resetCounter finds the RST_STREAM frames (RFC 9113, 6.4) in what an HTTP/2 peer sends
// after its preface.
type resetCounter struct {
	header [9]byte
	have   int // of header
	rest   int // bytes of the frame's payload that have not arrived
}

// count returns how many of these frames begin in p, which follows the data of earlier calls.
func (r *resetCounter) count(p []byte) (resets int) {
	for len(p) > 0 {
		if r.rest > 0 {
			n := min(r.rest, len(p))
			r.rest, p = r.rest-n, p[n:]
			continue
		}
		n := copy(r.header[r.have:], p)
		r.have, p = r.have+n, p[n:]
		if r.have < len(r.header) {
			break
		}
		r.have, r.rest = 0, int(r.header[0])<<16|int(r.header[1])<<8|int(r.header[2])
		if http2.FrameType(r.header[3]) == http2.FrameRSTStream {
			resets++
		}
	}
	return resets
}

// countedConn is an HTTP/2 connection that fails when its peer has used up its budget of
// resets. One goroutine reads.
type countedConn struct {
	net.Conn
	observed *observedConn
	budget   *rate.Limiter
	counter  resetCounter
	exceeded func() // called once
}

// Read implements net.Conn. Its error makes the HTTP/2 server end the connection.
func (c *countedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	for range c.counter.count(p[:n]) {
		if !c.budget.Allow() {
			c.observed.end(net.ErrClosed)
			c.exceeded()
			return 0, http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
		}
	}
	return n, err
}

// countedTLS is a countedConn with TLS.
type countedTLS struct {
	*countedConn
	encrypted *tls.Conn
}

// ConnectionState is used by the HTTP/2 server for each request.
func (c countedTLS) ConnectionState() tls.ConnectionState { return c.encrypted.ConnectionState() }
