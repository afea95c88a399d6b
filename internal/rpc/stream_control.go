package rpc

import (
	"bufio"
	"context"
	"io"
	"net/http"
)

// bodyBuffer is the size of the read buffer of a stream's request: two or three heartbeats. It
// lives as long as the stream.
const bodyBuffer = 512

// callControl controls the HTTP request of a call: a read deadline of its ResponseController
// ends a blocked Receive, and a write deadline a blocked Send. It must not be used after the
// call has returned.
type callControl struct {
	*http.ResponseController
	body    *bufio.Reader
	request *notedBody // what body buffers
}

// notedBody is the body of a request. It records the error that ended reading.
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

// withStreamControl gives the calls of next a callControl, for streamControl. It also buffers
// reads: each read of a request passes through the goroutine of its connection, and a message
// takes two reads. WithTimeouts must wrap it.
//
// The stack of an idle stream is only just small enough: with a little more on it, it would
// double in size for each agent. So these middlewares do their work in functions that have
// returned by then.
func withStreamControl(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		attachControl(w, r)
		next.ServeHTTP(w, r)
	})
}

// attachControl modifies r, which is a copy that WithTimeouts has made.
func attachControl(w http.ResponseWriter, r *http.Request) {
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

// streamControl returns the callControl of a call; nil without withStreamControl.
func streamControl(ctx context.Context) *callControl {
	if x := exchangeOf(ctx); x != nil {
		return x.call
	}
	return nil
}

// await waits until there is something to receive. Receive would wait too, but with the frames
// of the decoders on the stack: waiting here halves the stack of an idle stream.
func (c *callControl) await() {
	_, _ = c.body.Peek(1) // Receive returns the error
}

// discard reads and discards the rest of the request, until its end or a read deadline. It
// needs no buffer of its own.
func (c *callControl) discard() {
	for {
		if _, err := c.body.Peek(1); err != nil {
			return
		}
		_, _ = c.body.Discard(c.body.Buffered()) // cannot fail: it is buffered
	}
}
