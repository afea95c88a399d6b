package httpserver

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
)

// drip is a connection that returns one byte per read.
type drip struct{ net.Conn }

func (d drip) Read(p []byte) (int, error) { return iotest.OneByteReader(d.Conn).Read(p) }

// However a client's first bytes arrive, none are lost, and no more are read than needed to
// recognise the protocol.
func TestPrefaceIsRecognised(t *testing.T) {
	t.Parallel()
	for first, want := range map[string]struct {
		read    string
		isHTTP2 bool
	}{
		preface:                     {"", true},
		"POST / HTTP/1.1\r\n\r\n":   {"PO", false},
		"PRI / HTTP/1.1\r\n\r\n":    {"PRI /", false},
		"PRI * HTTP/2.0\r\n\r\nSMS": {"PRI * HTTP/2.0\r\n\r\nSMS", false},
		"\x16\x03\x01":              {"\x16", false},
	} {
		client, server := net.Pipe()
		recognised := make(chan struct{})
		go func() {
			_, _ = io.WriteString(client, first)
			<-recognised // a closed pipe refuses deadlines
			_ = client.Close()
		}()
		read, isHTTP2, err := readPreface(drip{server}, time.Minute)
		close(recognised)
		require.NoError(t, err)
		require.Equal(t, want.isHTTP2, isHTTP2, "%q", first)
		require.Equal(t, want.read, string(read), "%q", first)
		rest, err := io.ReadAll(replay(read, server))
		require.NoError(t, err)
		if isHTTP2 {
			first = first[len(http2.ClientPreface):]
		}
		require.Equal(t, first, string(rest))
	}
}

// A response arrives although the request was not read to its end: the connection is closed
// gracefully before the rest of the request would reset it.
func TestHalfReadRequestIsAnswered(t *testing.T) {
	t.Parallel()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := New(plaintext(http.NotFoundHandler()))
	ended := make(chan struct{})
	s.http1.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateClosed {
			close(ended)
		}
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", l.Addr().String())
	require.NoError(t, err)
	defer c.Close()
	_, err = io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"+strings.Repeat("x", 32<<10))
	require.NoError(t, err)
	answer, err := io.ReadAll(c)
	require.NoError(t, err)
	require.Contains(t, string(answer), "404 page not found")
	<-ended
	require.NoError(t, s.Close())
	require.ErrorIs(t, <-served, http.ErrServerClosed)
}

// failingListener fails once before it accepts.
type failingListener struct {
	*pipeListener
	failures chan error
}

func (l *failingListener) Accept() (net.Conn, error) {
	select {
	case err := <-l.failures:
		return nil, err
	default:
		return l.pipeListener.Accept()
	}
}

// noFileError is the error of a process that may not open more files.
type noFileError struct{ error }

func (noFileError) Timeout() bool   { return false }
func (noFileError) Temporary() bool { return true }

// A connection that cannot be accepted, for instance because there are too many open files,
// does not end the listener.
func TestAcceptContinuesAfterAnError(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &failingListener{newPipeListener(), make(chan error, 3)}
		for range 3 {
			l.failures <- noFileError{errors.New("too many open files")}
		}
		s := New(plaintext(http.NotFoundHandler()))
		served := make(chan error, 1)
		go func() { served <- s.Serve(l) }()
		c := l.dial()
		_, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		require.NoError(t, err)
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		require.NoError(t, err)
		require.Equal(t, http.StatusNotFound, res.StatusCode)
		require.NoError(t, res.Body.Close())
		require.NoError(t, s.Close())
		require.ErrorIs(t, <-served, http.ErrServerClosed)
	})
}

// A stop does not wait for peers without requests, notifies HTTP/2 peers, and waits for their
// streams.
func TestShutdown(t *testing.T) {
	t.Parallel()
	for name, makeHTTP2 := range implementations {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { requireShutdown(t, makeHTTP2) })
		})
	}
}

func requireShutdown(t *testing.T, makeHTTP2 func(*http.Server, Options) http2Server) {
	t.Helper()
	release := make(chan struct{}) // of the bubble
	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = http.NewResponseController(w).Flush()
		<-release
	})
	l := newPipeListener()
	s := newServer(plaintext(h), makeHTTP2)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	silent, half, idle, busy := l.dial(), l.dial(), l.dial(), l.dial()
	write := func(c net.Conn, text string) {
		_, err := io.WriteString(c, text)
		require.NoError(t, err)
	}
	write(half, preface[:20])
	frames := func(c net.Conn) <-chan []byte {
		got := make(chan []byte, 1)
		go func() {
			all, _ := io.ReadAll(c)
			got <- all
		}()
		return got
	}
	idleGot, busyGot := frames(idle), frames(busy)
	write(idle, preface)
	// HEADERS of stream 1: GET http / with authority a (RFC 7541, appendix A).
	write(busy, preface+"\x00\x00\x06\x01\x05\x00\x00\x00\x01\x82\x86\x84\x41\x01a")
	synctest.Wait()
	stopped := make(chan error, 1)
	go func() { stopped <- s.Shutdown(t.Context()) }()
	for _, c := range []net.Conn{silent, half} {
		_, err := c.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF)
	}
	require.ErrorIs(t, <-served, http.ErrServerClosed)
	const goAway = "\x07\x00\x00\x00\x00\x00"
	require.Contains(t, string(<-idleGot), goAway)
	select {
	case err := <-stopped:
		require.NoError(t, err)
		t.Fatal("the stop did not wait for a stream")
	default:
	}
	close(release)
	require.NoError(t, <-stopped)
	require.Contains(t, string(<-busyGot), goAway)
	require.NoError(t, s.Close())
}
