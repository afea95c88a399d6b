package httpserver

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"

	"github.com/mig-controller/mig-controller/internal/testkit"
)

// A peer may reset twice as many streams as it may have, and then a tenth a second.
func TestResetBudget(t *testing.T) {
	t.Parallel()
	b := newResetBudget(100)
	now := time.Now()
	for i := range 200 {
		require.True(t, b.AllowN(now, 1), i)
	}
	require.False(t, b.AllowN(now, 1))
	now = now.Add(time.Second)
	for range 10 {
		require.True(t, b.AllowN(now, 1))
	}
	require.False(t, b.AllowN(now, 1))
	now = now.Add(time.Hour)
	for i := range 200 {
		require.True(t, b.AllowN(now, 1), i)
	}
	require.False(t, b.AllowN(now, 1))
}

// Each RST_STREAM is counted once, however the data is split, and nothing else is counted.
func TestResetsAreCounted(t *testing.T) {
	t.Parallel()
	var sent bytes.Buffer
	framer := http2.NewFramer(&sent, nil)
	write := func(err error) { require.NoError(t, err) }
	looksLikeReset := []byte{0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 8}
	for range 50 {
		write(framer.WriteSettings())
		write(framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: looksLikeReset, EndHeaders: true}))
		write(framer.WriteRSTStream(1, http2.ErrCodeCancel))
		write(framer.WriteData(3, false, bytes.Repeat(looksLikeReset, 500)))
		write(framer.WriteRSTStream(3, http2.ErrCodeNo))
		write(framer.WriteData(5, true, nil))
	}
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 0))
		var counter resetCounter
		found := 0
		for rest := sent.Bytes(); len(rest) > 0; {
			n := min(1+r.IntN(20<<r.IntN(10)), len(rest))
			found += counter.count(rest[:n])
			rest = rest[n:]
		}
		require.Equal(t, 100, found, "seed %d", seed)
	}
}

// The connection of a peer that opens and resets streams is closed before it has caused many
// handlers to start. x/net also says why, in a GOAWAY.
func TestRapidResetIsEnded(t *testing.T) {
	t.Parallel()
	for name, makeHTTP2 := range implementations {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var started atomic.Int32
			addr := serveOn(t, newServer(plaintext(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				started.Add(1)
				<-r.Context().Done()
			})), makeHTTP2))
			ctx, cancel := context.WithTimeout(t.Context(), atMost)
			defer cancel()
			err := testkit.RapidReset(ctx, addr, "/")
			require.Error(t, err)
			require.NoError(t, ctx.Err())
			if name == byXNet {
				require.ErrorIs(t, err, testkit.ErrCutOff)
				require.ErrorContains(t, err, http2.ErrCodeEnhanceYourCalm.String())
			}
			require.LessOrEqual(t, started.Load(), int32(220))
		})
	}
}

// The streams of a peer that resets some now and then live on; the end of the connection
// reaches the handlers like any other, and is logged.
func TestCountedConn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer func() { _, _ = near.Close(), far.Close() }() // a pipe has no errors to report
		observed := newObservedConn(near, time.Minute)
		exceeded := 0
		c := &countedConn{
			Conn: observed, observed: observed, budget: newResetBudget(1), exceeded: func() { exceeded++ },
		}
		go func() {
			framer := http2.NewFramer(far, nil)
			for range 10 {
				_ = framer.WriteRSTStream(1, http2.ErrCodeCancel)
				time.Sleep(10 * time.Second) // fake clock
			}
			var err error
			for err == nil {
				err = framer.WriteRSTStream(1, http2.ErrCodeCancel)
			}
		}()
		const size = 9 + 4
		for range 10 + 1 {
			_, err := io.ReadFull(c, make([]byte, size))
			require.NoError(t, err)
		}
		require.NoError(t, observed.Ended())
		var err error
		for err == nil {
			_, err = io.ReadFull(c, make([]byte, size))
		}
		require.Equal(t, http2.ConnectionError(http2.ErrCodeEnhanceYourCalm), err)
		require.Equal(t, net.ErrClosed, observed.Ended())
		require.Equal(t, 1, exceeded)
	})
}

// Resets are counted with TLS too, requests have the TLS state, and the end of the connection
// is logged.
func TestRapidResetWithTLS(t *testing.T) {
	t.Parallel()
	config, _ := serverTLS(t)
	for name, makeHTTP2 := range implementations {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out output
			var plain, encrypted atomic.Int32
			h := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				if r.TLS == nil {
					plain.Add(1)
				} else {
					encrypted.Add(1)
				}
			})
			s := newServer(Options{Handler: h, TLS: config, Log: logTo(&out, slog.LevelInfo)}, makeHTTP2)
			addr := serveOn(t, s)
			ctx, cancel := context.WithTimeout(t.Context(), atMost)
			defer cancel()
			client := tls.Client(dialFrom(t, "127.0.0.1", addr), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
			require.Error(t, testkit.RapidResetOn(ctx, client, "/"))
			require.NoError(t, ctx.Err())
			require.Zero(t, plain.Load())
			require.NotZero(t, encrypted.Load())
			require.Contains(t, out.String(), `level=WARN msg="connection closed: its peer resets too many streams" source=127.0.0.1`+"\n")
			requireRefused(t, s, refusedResets, 1)
		})
	}
}
