package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"connectrpc.com/connect"
)

// CallTimeout is how long a request may take to arrive, and a response to be taken.
const CallTimeout = 30 * time.Second

// maxWrite is how much of a response has CallTimeout to itself: a large one over a
// slow link gets on.
const maxWrite = 64 << 10

// WithTimeouts ends what a caller leaves unfinished. The body of a request must have
// arrived within timeout of its headers; what reads it gets an error with the code
// DeadlineExceeded after that. Each write of a response, of 64 KiB at most, must be taken
// within timeout, or the stream is reset (HTTP/2) or the connection closed (HTTP/1.1),
// which ends the request's context. A response may pause between its writes for as long
// as it likes. An agent's stream, once its handler runs, keeps time by itself.
//
// It wraps all other handlers: those that answer without reading the body leave that to
// the server, which waits for it.
func WithTimeouts(next http.Handler, timeout time.Duration) http.Handler {
	return &timeouts{next, timeout}
}

// timeouts is what WithTimeouts returns. What it does is not in ServeHTTP, since an
// agent's stream keeps the stack of that for as long as it lives: see withStreamControl.
type timeouts struct {
	next    http.Handler
	timeout time.Duration
}

// ServeHTTP serves one request.
func (t *timeouts) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x, r := t.begin(w, r)
	t.next.ServeHTTP(x, r)
	x.limitWrite() // of what is still buffered
}

func (t *timeouts) begin(w http.ResponseWriter, r *http.Request) (*exchange, *http.Request) {
	x := &exchange{
		ResponseWriter: w, control: http.NewResponseController(w), body: r.Body, timeout: t.timeout, http2: r.ProtoMajor == 2,
	}
	// A copy: the server goes by the body of its own.
	r = r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x))
	r.Body = timedBody{x.body, x}
	x.begin()
	return x, r
}

// exchange is one request and its response. Deadlines can be set on every connection of
// the server; a test's writer without one has nobody to wait for.
type exchange struct {
	http.ResponseWriter
	control *http.ResponseController
	body    io.ReadCloser
	timeout time.Duration
	http2   bool
	// due is when the body must have arrived; zero when it has, or has no limit. Only
	// HTTP/1.1 has a use for it.
	due time.Time
	// call is what withStreamControl gives; nil without.
	call *callControl
	// unlimited is set while something else limits the time of both directions.
	unlimited bool
}

type exchangeKey struct{}

// exchangeOf returns the exchange of a call; nil outside of WithTimeouts.
func exchangeOf(ctx context.Context) *exchange {
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	return x
}

// begin limits the time of the request. The server lifts the deadline itself when it has
// read the body to its end; without a body there must be none, since HTTP/1.1 reads on for
// as long as the handler runs, to notice that the caller has gone. HTTP/2 ignores a
// deadline that passes after the end of the body.
func (x *exchange) begin() {
	if x.body != http.NoBody {
		x.due = time.Now().Add(x.timeout)
		_ = x.control.SetReadDeadline(x.due)
	}
	if !x.http2 {
		x.limitWrite() // for 100 Continue, which is written when the body is read
	}
}

// suspend lifts the limits until resume. Both do nothing with a nil exchange. No call may
// be reading or writing.
func (x *exchange) suspend() {
	if x != nil {
		x.unlimited = true
		_ = x.control.SetReadDeadline(time.Time{})
	}
}

func (x *exchange) resume() {
	if x != nil {
		x.unlimited = false
	}
}

// Write implements http.ResponseWriter.
func (x *exchange) Write(p []byte) (int, error) {
	written := 0
	for {
		part := p[written:min(written+maxWrite, len(p))]
		var n int
		err := x.limited(func() (err error) {
			n, err = x.ResponseWriter.Write(part)
			return err
		})
		written += n
		if err != nil || written == len(p) {
			return written, err
		}
	}
}

// Flush implements http.Flusher.
func (x *exchange) Flush() { _ = x.FlushError() }

// FlushError is for http.ResponseController.
func (x *exchange) FlushError() error { return x.limited(x.control.Flush) }

// Unwrap is for http.ResponseController.
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

// limited calls write, which has its time from now on.
func (x *exchange) limited(write func() error) error {
	if x.unlimited {
		return write()
	}
	x.limitWrite()
	err := write()
	if x.http2 { // which resets a stream at its deadline although nothing is written
		_ = x.control.SetWriteDeadline(time.Time{})
	}
	return err
}

// limitWrite limits the time of what is written next. In HTTP/1.1 the server may wait for
// the rest of the body before that.
func (x *exchange) limitWrite() {
	from := time.Now()
	if !x.http2 && x.due.After(from) {
		from = x.due
	}
	_ = x.control.SetWriteDeadline(from.Add(x.timeout))
}

// timedBody is the body of a request. Its error says which limit has passed.
type timedBody struct {
	io.ReadCloser
	of *exchange
}

// Read implements io.Reader.
func (b timedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	switch {
	case err == io.EOF && !b.of.http2: //nolint:errorlint // readers return it bare
		b.of.due = time.Time{}
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = connect.NewError(connect.CodeDeadlineExceeded, lateError(b.of.timeout))
	}
	return n, err
}

// lateError occurs when the body of a request has not arrived in time. It is an
// os.ErrDeadlineExceeded.
type lateError time.Duration

func (e lateError) Error() string {
	return fmt.Sprintf("the request must arrive within %s", time.Duration(e))
}

// Is makes it os.ErrDeadlineExceeded.
func (lateError) Is(target error) bool { return target == os.ErrDeadlineExceeded }
