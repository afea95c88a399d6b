//go:build unix

package httpserver

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// watchedConn is a connection that is read through a watchedRaw.
type watchedConn struct {
	net.Conn
	raw *watchedRaw
}

func (w watchedConn) SyscallConn() (syscall.RawConn, error) { return w.raw, nil }

// watchedRaw counts reads that returned data, and signals when a Read waits.
type watchedRaw struct {
	syscall.RawConn
	reads   int
	waiting chan struct{}
	onWait  func()
}

func (w *watchedRaw) Read(f func(fd uintptr) bool) error {
	return w.RawConn.Read(func(fd uintptr) bool {
		if f(fd) {
			w.reads++
			return true
		}
		w.onWait()
		select {
		case w.waiting <- struct{}{}:
		default: // no test waits for it
		}
		return false
	})
}

// watch returns c as the server reads it, through system. A waiting Read must not hold a
// buffer: an idle fleet would hold one per agent.
func watch(t *testing.T, c net.Conn, system syscall.Conn) (*bufferedConn, *watchedRaw) {
	t.Helper()
	raw, err := system.SyscallConn()
	require.NoError(t, err)
	w := &watchedRaw{RawConn: raw, waiting: make(chan struct{}, 1)}
	b, ok := newBufferedConn(watchedConn{c, w}).(*bufferedConn)
	require.True(t, ok)
	w.onWait = func() {
		if b.buffer != nil {
			t.Error("a buffer is held while there is nothing to read")
		}
	}
	return b, w
}

// loopback returns both ends of a TCP connection.
func loopback(tb testing.TB) (near, far *net.TCPConn) {
	tb.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(tb, err)
	defer func() { require.NoError(tb, l.Close()) }()
	far, err = net.DialTCP("tcp", nil, l.Addr().(*net.TCPAddr)) //nolint:errcheck,forcetypeassert // it is TCP
	require.NoError(tb, err)
	near, err = l.AcceptTCP()
	require.NoError(tb, err)
	tb.Cleanup(func() { _, _ = near.Close(), far.Close() }) // the test may have closed them
	return near, far
}

// Reads through the buffer return the data unchanged, for all sizes of writes and reads, and
// no buffer is kept after the end.
func TestBufferedConnChangesNothing(t *testing.T) {
	t.Parallel()
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 0))
		var sent []byte
		var pieces [][]byte
		for range r.IntN(50) {
			piece := make([]byte, 1+r.IntN(40<<r.IntN(11)))
			for i := range piece {
				piece[i] = byte(r.Uint32())
			}
			sent = append(sent, piece...)
			pieces = append(pieces, piece)
		}
		near, far := loopback(t)
		written := make(chan error, 1)
		go func() {
			for _, piece := range pieces {
				if _, err := far.Write(piece); err != nil {
					written <- err
					return
				}
			}
			written <- far.Close()
		}()
		c, _ := watch(t, near, near)
		var got []byte
		for {
			b := make([]byte, r.IntN(20<<r.IntN(12)))
			n, err := c.Read(b)
			got = append(got, b[:n]...)
			if err != nil {
				require.Equal(t, io.EOF, err)
				break
			}
		}
		require.NoError(t, <-written)
		require.True(t, bytes.Equal(sent, got), "seed %d", seed)
		require.Nil(t, c.buffer)
	}
}

// A message that arrives after a pause is read at once, and no buffer is kept after it.
func TestMessageIsOneRead(t *testing.T) {
	t.Parallel()
	near, far := loopback(t)
	c, watched := watch(t, near, near)
	for i := range 100 {
		read := make(chan error, 1)
		go func() { read <- readFrame(c) }()
		<-watched.waiting
		_, err := far.Write(make([]byte, frameHeader+framePayload))
		require.NoError(t, err)
		require.NoError(t, <-read)
		require.Equal(t, i+1, watched.reads)
		require.Nil(t, c.buffer)
	}
}

// A burst of frames costs few reads of the connection.
func TestBurstIsReadAtOnce(t *testing.T) {
	t.Parallel()
	const frames = 1000
	const burst = frames * (frameHeader + framePayload)
	// As if all data had arrived before the first Read.
	name := filepath.Join(t.TempDir(), "burst")
	require.NoError(t, os.WriteFile(name, make([]byte, burst), 0o600))
	f, err := os.Open(name)
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	c, watched := watch(t, nil, f)
	for range frames {
		require.NoError(t, readFrame(c))
	}
	require.LessOrEqual(t, watched.reads, 1+burst/readBufferSize)
	require.Nil(t, c.buffer)
}

// A waiting Read returns the same error as the connection itself.
func TestBufferedConnReportsAsItsConn(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		end  func(near, far *net.TCPConn) error
		err  error
	}{
		{"end", func(_, far *net.TCPConn) error { return far.Close() }, io.EOF},
		{"reset", func(_, far *net.TCPConn) error {
			if err := far.SetLinger(0); err != nil {
				return err
			}
			return far.Close()
		}, syscall.ECONNRESET},
		{"deadline", func(near, _ *net.TCPConn) error { return near.SetReadDeadline(time.Unix(1, 0)) }, os.ErrDeadlineExceeded},
		{"close", func(near, _ *net.TCPConn) error { return near.Close() }, net.ErrClosed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			near, far := loopback(t)
			c, watched := watch(t, near, near)
			got := make(chan error, 1)
			go func() { got <- readFrame(c) }()
			<-watched.waiting
			require.NoError(t, tt.end(near, far))
			err := <-got
			require.ErrorIs(t, err, tt.err)
			require.Nil(t, c.buffer)
			if tt.err == io.EOF { //nolint:errorlint // of the table
				require.Equal(t, io.EOF, err) // what the framer compares with
				return
			}
			var op *net.OpError
			require.ErrorAs(t, err, &op)
			require.Equal(t, tt.err == os.ErrDeadlineExceeded, op.Timeout()) //nolint:errorlint // of the table
			require.Contains(t, err.Error(), fmt.Sprintf("read tcp %v->%v: ", near.LocalAddr(), near.RemoteAddr()))
		})
	}
}

// After a deadline is removed, later data is read.
func TestBufferedConnContinuesAfterADeadline(t *testing.T) {
	t.Parallel()
	near, far := loopback(t)
	c, _ := watch(t, near, near)
	require.NoError(t, c.SetReadDeadline(time.Unix(1, 0)))
	require.ErrorIs(t, readFrame(c), os.ErrDeadlineExceeded)
	require.NoError(t, c.SetReadDeadline(time.Time{}))
	_, err := far.Write(make([]byte, frameHeader+framePayload))
	require.NoError(t, err)
	require.NoError(t, readFrame(c))
}

// A connection that is not the operating system's is not buffered.
func TestOtherConnsAreUnchanged(t *testing.T) {
	t.Parallel()
	near, far := net.Pipe()
	defer func() { _, _ = near.Close(), far.Close() }() // a pipe returns no error
	require.Equal(t, near, newBufferedConn(near))
}

const (
	frameHeader  = 9
	framePayload = 300
)

// readFrame reads as http2.Framer does.
func readFrame(c net.Conn) error {
	frame := make([]byte, frameHeader+framePayload)
	if _, err := io.ReadFull(c, frame[:frameHeader]); err != nil {
		return err
	}
	_, err := io.ReadFull(c, frame[frameHeader:])
	return err
}

// Frames arrive one at a time: the next one is sent when the previous one has been read. The
// only allocation is the frame.
func BenchmarkRead(b *testing.B) {
	near, far := loopback(b)
	c := newBufferedConn(near)
	next := make(chan struct{}, 1)
	defer close(next)
	go func() {
		for range next {
			if _, err := far.Write(make([]byte, frameHeader+framePayload)); err != nil {
				_ = far.Close() // the reader gets the error
			}
		}
	}()
	b.ReportAllocs()
	for b.Loop() {
		next <- struct{}{}
		require.NoError(b, readFrame(c))
	}
}
