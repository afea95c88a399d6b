package rpc

import (
	"bufio"
	"context"
	"io"
	"net/http"
)

// bodyBuffer is how much of a stream's request is read at once: two or three
// heartbeats. It is kept for as long as the stream lives.
const bodyBuffer = 512

// callControl is a hold on the request below a call: its ResponseController ends a
// blocked Receive, by a read deadline, and a blocked Send, by a write deadline.
// It must not be used after the call has returned.
type callControl struct {
	*http.ResponseController
	body    *bufio.Reader
	request *notedBody // below body
}

// notedBody is the body of a request. It notes why there is nothing more to read.
type notedBody struct {
	io.ReadCloser
	err error
}

// Read implements io.Reader.
func (b *notedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.err = err
	}
	return n, err
}

// withStreamControl gives the calls of next a hold on their connection, for
// streamControl. It also buffers what they read: each read of a request costs a
// round through its connection, and a message is read in two. WithTimeouts must be
// around it; its limits are below what is read here, so that a suspended one costs nothing.
//
// A stack that is a little larger than an idle stream's is now is twice as large, for each
// agent: wrappers of it do their work in functions that have returned by then.
func withStreamControl(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		takeControl(w, r)
		next.ServeHTTP(w, r)
	})
}

// takeControl changes r, which is a copy that WithTimeouts has made.
func takeControl(w http.ResponseWriter, r *http.Request) {
	x := exchangeOf(r.Context())
	if x == nil {
		return
	}
	noted := &notedBody{ReadCloser: x.body}
	x.call = &callControl{http.NewResponseController(w), bufio.NewReaderSize(noted, bodyBuffer), noted}
	r.Body = struct {
		io.Reader
		io.Closer
	}{x.call.body, r.Body}
}

// streamControl returns the callControl of a call; nil outside of withStreamControl.
func streamControl(ctx context.Context) *callControl {
	if x := exchangeOf(ctx); x != nil {
		return x.call
	}
	return nil
}

// await waits until there is something to receive. Receive would wait as well,
// but below the frames of all that decodes: waiting up here, an idle stream
// keeps half the stack.
func (c *callControl) await() {
	_, _ = c.body.Peek(1) // Receive finds the error
}

// discard reads what still comes and throws it away, until the request ends or a
// read deadline ends it. It needs no buffer of its own.
func (c *callControl) discard() {
	for {
		if _, err := c.body.Peek(1); err != nil {
			return
		}
		_, _ = c.body.Discard(c.body.Buffered()) // what is buffered is there
	}
}
