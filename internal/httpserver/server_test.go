package httpserver

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/rpc"
)

// pipeListener accepts in-memory connections, whose deadlines follow the fake
// time of a synctest bubble.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (l *pipeListener) dial() net.Conn {
	client, server := net.Pipe()
	l.conns <- server
	return client
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

type seenKey struct{}

// seen puts a connection into the contexts of its requests.
func seen(ctx context.Context, c Connection) context.Context {
	return context.WithValue(ctx, seenKey{}, c)
}

// serveBubble runs test against the server with its real timeouts in fake time, for each
// HTTP/2 implementation.
func serveBubble(t *testing.T, h http.Handler, config *tls.Config, test func(t *testing.T, s *Server, l *pipeListener)) {
	t.Helper()
	for name, makeHTTP2 := range implementations {
		t.Logf("HTTP/2 by %s", name)
		synctest.Test(t, func(t *testing.T) {
			l := newPipeListener()
			s := newServer(Options{Handler: h, TLS: config, ConnContext: seen, Log: quiet()}, makeHTTP2)
			var serving sync.WaitGroup
			serving.Go(func() { _ = s.Serve(l) })
			defer func() {
				require.NoError(t, s.Close())
				serving.Wait()
			}()
			test(t, s, l)
		})
	}
}

// preface opens an HTTP/2 connection.
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + "\x00\x00\x00\x04\x00\x00\x00\x00\x00"

// untilClosed returns how long the server keeps a connection on which the client sends only
// first.
func untilClosed(t *testing.T, l *pipeListener, first string) time.Duration {
	t.Helper()
	c := l.dial()
	defer c.Close()
	began := time.Now()
	if first != "" {
		_, err := io.WriteString(c, first)
		require.NoError(t, err)
	}
	_, err := io.Copy(io.Discard, c)
	require.NoError(t, err)
	return time.Since(began)
}

// Connections of peers that send nothing, or are gone, are closed.
func TestSilentPeersAreClosed(t *testing.T) {
	t.Parallel()
	serveBubble(t, http.NotFoundHandler(), nil, func(t *testing.T, _ *Server, l *pipeListener) {
		t.Helper()
		require.Equal(t, 10*time.Second, untilClosed(t, l, ""), "no request")
		require.Equal(t, 10*time.Second, untilClosed(t, l, "GET / HTTP/1.1\r\nHost:"), "half a request")
		require.Equal(t, 10*time.Second, untilClosed(t, l, preface[:20]), "half a preface")
		require.Equal(t, 15*time.Second, untilClosed(t, l, preface), "no answer to a ping")
		idle := untilClosed(t, l, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		require.InDelta(t, 120, idle.Seconds(), 1, "an idle HTTP/1.1 connection")
	})
}

// The connection of a peer that reads nothing is closed.
func TestPeerThatDoesNotReadIsClosed(t *testing.T) {
	t.Parallel()
	serveBubble(t, http.NotFoundHandler(), nil, func(t *testing.T, _ *Server, l *pipeListener) {
		t.Helper()
		c := l.dial()
		defer c.Close()
		began := time.Now()
		_, err := io.WriteString(c, preface)
		require.NoError(t, err)
		ping := "\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678"
		for err == nil {
			// The peer itself is alive.
			time.Sleep(time.Second) // fake clock
			_, err = io.WriteString(c, ping)
		}
		require.InDelta(t, 10, time.Since(began).Seconds(), 2)
	})
}

// An unfinished request, or a response that is not read, ends after 30 seconds, even where the
// server itself would answer.
func TestUnfinishedCallsEnd(t *testing.T) {
	t.Parallel()
	endless := rpc.WithTimeouts(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for r.URL.Path == "/endless" && r.Context().Err() == nil {
			_, _ = w.Write(make([]byte, 1<<10))
		}
	}), rpc.CallTimeout)
	serveBubble(t, endless, nil, func(t *testing.T, _ *Server, l *pipeListener) {
		t.Helper()
		const rest = " HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf"
		require.Equal(t, rpc.CallTimeout, untilClosed(t, l, "POST /x"+rest))
		require.Equal(t, rpc.CallTimeout, untilClosed(t, l, "OPTIONS *"+rest))

		c := l.dial()
		defer c.Close()
		_, err := io.WriteString(c, "GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
		require.NoError(t, err)
		time.Sleep(rpc.CallTimeout + time.Second) // fake clock
		began := time.Now()
		_, err = io.Copy(io.Discard, c)
		require.NoError(t, err)
		require.Zero(t, time.Since(began), "it is closed")
	})
}

// An idle stream lives as long as its peer answers pings, and neither the idle
// timeout nor the write timeout ends it.
func TestIdleStreamLives(t *testing.T) {
	t.Parallel()
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		select {
		case <-time.After(24 * time.Hour): // fake clock
			_, _ = io.WriteString(w, "still here")
		case <-r.Context().Done():
		}
	})
	serveBubble(t, h, nil, func(t *testing.T, _ *Server, l *pipeListener) {
		t.Helper()
		p := new(http.Protocols)
		p.SetUnencryptedHTTP2(true)
		tr := &http.Transport{Protocols: p, DialContext: func(context.Context, string, string) (net.Conn, error) {
			return l.dial(), nil
		}}
		defer tr.CloseIdleConnections()
		res, err := get(t, &http.Client{Transport: tr}, "http://controller/")
		require.NoError(t, err)
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		require.Equal(t, "still here", string(body))
	})
}

// The settings that the server sends limit how much memory an HTTP/2 peer can make it use.
func TestHTTP2Settings(t *testing.T) {
	t.Parallel()
	serveBubble(t, http.NotFoundHandler(), nil, func(t *testing.T, _ *Server, l *pipeListener) {
		t.Helper()
		c := l.dial()
		defer c.Close()
		_, err := io.WriteString(c, preface)
		require.NoError(t, err)
		got, err := readSettings(c)
		require.NoError(t, err)
		require.EqualValues(t, 100, got[0x3], "MAX_CONCURRENT_STREAMS")
		require.EqualValues(t, 256<<10, got[0x4], "INITIAL_WINDOW_SIZE")
		require.EqualValues(t, 16<<10, got[0x5], "MAX_FRAME_SIZE")
		require.InDelta(t, 64<<10, got[0x6], 1<<10, "MAX_HEADER_LIST_SIZE")
	})
}

// readSettings reads one SETTINGS frame (RFC 9113, 6.5).
func readSettings(r io.Reader) (map[uint16]uint32, error) {
	var head [9]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	if head[3] != 4 {
		return nil, errors.New("not a SETTINGS frame")
	}
	body := make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, err
	}
	settings := map[uint16]uint32{}
	for ; len(body) >= 6; body = body[6:] {
		settings[binary.BigEndian.Uint16(body)] = binary.BigEndian.Uint32(body[2:])
	}
	return settings, nil
}
