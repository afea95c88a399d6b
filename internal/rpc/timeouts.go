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

	"github.com/mig-controller/mig-controller/internal/requestid"
)

// CallTimeout is how long a request may take to arrive, and each part of a response to be
// accepted.
const CallTimeout = 30 * time.Second

// maxWrite is the size of a part of a response that has its own CallTimeout, so that a large
// response can pass a slow link.
const maxWrite = 64 << 10

// WithTimeouts ends calls that the caller does not finish. The body of a request must arrive
// within timeout of its headers; after that, reading it fails with the code DeadlineExceeded.
// Each write of a response, of at most 64 KiB, must be accepted within timeout, or the stream
// is reset (HTTP/2) or the connection closed (HTTP/1.1), which ends the request's context.
// Pauses between writes are not limited. The handler of an agent's stream suspends these
// limits and applies its own.
//
// WithTimeouts must wrap all other handlers: if one answers without reading the body, the
// server waits for the body. It also gives each request its id: see identify.
func WithTimeouts(next http.Handler, timeout time.Duration) http.Handler {
	return &timeouts{next, timeout}
}

// timeouts is the handler that WithTimeouts returns. Its work is not in ServeHTTP, whose frame
// stays on the stack of an agent's stream: see withStreamControl.
type timeouts struct {
	next    http.Handler
	timeout time.Duration
}

// ServeHTTP serves one request.
func (t *timeouts) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x, r := t.begin(w, r)
	t.next.ServeHTTP(x, r)
	x.limitWrite() // for data that is still buffered
}

func (t *timeouts) begin(w http.ResponseWriter, r *http.Request) (*exchange, *http.Request) {
	x := &exchange{
		ResponseWriter: w, control: http.NewResponseController(w), body: r.Body, timeout: t.timeout, http2: r.ProtoMajor == 2,
	}
	// A copy, because the server uses the body of the original.
	ctx := requestid.With(r.Context(), identify(w, r))
	r = r.WithContext(context.WithValue(ctx, exchangeKey{}, x))
	r.Body = timedBody{x.body, x}
	x.begin()
	return x, r
}

// exchange is one request and its response. Errors of setting a deadline are ignored: every
// connection of the server supports deadlines, and the writers of tests need none.
type exchange struct {
	http.ResponseWriter
	control *http.ResponseController
	body    io.ReadCloser
	timeout time.Duration
	http2   bool
	// due is when the body must have arrived; zero when it has, or has no limit. Only HTTP/1.1
	// uses it.
	due time.Time
	// call is set by withStreamControl; nil without it.
	call *callControl
	// unlimited is set while the limits are suspended.
	unlimited bool
}

type exchangeKey struct{}

// exchangeOf returns the exchange of a call; nil without WithTimeouts.
func exchangeOf(ctx context.Context) *exchange {
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	return x
}

// begin sets the deadline of the request. The server removes it when it has read the body to
// its end. A request without a body must have none: HTTP/1.1 keeps reading while the handler
// runs, to detect that the caller has disconnected. HTTP/2 ignores a deadline that passes
// after the end of the body.
func (x *exchange) begin() {
	if x.body != http.NoBody {
		x.due = time.Now().Add(x.timeout)
		_ = x.control.SetReadDeadline(x.due)
	}
	if !x.http2 {
		x.limitWrite() // for 100 Continue, which is written when reading begins
	}
}

// suspend removes the limits until resume. Both do nothing with a nil exchange. Neither may be
// called during a read or a write.
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

// FlushError supports http.ResponseController.
func (x *exchange) FlushError() error { return x.limited(x.control.Flush) }

// Unwrap supports http.ResponseController.
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

// limited calls write with a new deadline.
func (x *exchange) limited(write func() error) error {
	if x.unlimited {
		return write()
	}
	x.limitWrite()
	err := write()
	if x.http2 { // HTTP/2 resets a stream at its deadline even if nothing is being written
		_ = x.control.SetWriteDeadline(time.Time{})
	}
	return err
}

// limitWrite sets the deadline of the next write. With HTTP/1.1 the server may wait for the
// rest of the body before it writes.
func (x *exchange) limitWrite() {
	from := time.Now()
	if !x.http2 && x.due.After(from) {
		from = x.due
	}
	_ = x.control.SetWriteDeadline(from.Add(x.timeout))
}

// timedBody is the body of a request. Its error names the limit that was exceeded.
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

// lateError means that the body of a request has not arrived in time. It is an
// os.ErrDeadlineExceeded.
type lateError time.Duration

func (e lateError) Error() string {
	return fmt.Sprintf("the request must arrive within %s", time.Duration(e))
}

// Is reports whether target is os.ErrDeadlineExceeded.
func (lateError) Is(target error) bool { return target == os.ErrDeadlineExceeded }
