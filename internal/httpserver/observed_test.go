package httpserver

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"

	"github.com/mig-controller/mig-controller/internal/testkit"
)

// A connection reports the first error that ended it.
func TestObservedConn(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		end func(near *observedConn, far *net.TCPConn) error
		err error
	}{
		"closed by the peer": {func(near *observedConn, far *net.TCPConn) error {
			if err := far.Close(); err != nil {
				return err
			}
			_, err := near.Read(make([]byte, 1))
			if err != io.EOF { //nolint:errorlint // what the framer compares with
				return err
			}
			return near.Close()
		}, io.EOF},
		"reset": {func(near *observedConn, far *net.TCPConn) error {
			if err := far.SetLinger(0); err != nil {
				return err
			}
			if err := far.Close(); err != nil {
				return err
			}
			_, _ = near.Read(make([]byte, 1))
			return near.Close()
		}, syscall.ECONNRESET},
		"closed here": {func(near *observedConn, _ *net.TCPConn) error { return near.Close() }, net.ErrClosed},
		"peer reads nothing": {func(near *observedConn, _ *net.TCPConn) error {
			if err := near.SetWriteDeadline(time.Unix(1, 0)); err != nil {
				return err
			}
			_, _ = near.Write([]byte("x"))
			return near.Close()
		}, os.ErrDeadlineExceeded},
		"peer reads a part": {func(near *observedConn, far *net.TCPConn) error {
			if n, err := writePart(near, far); n == 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
				return fmt.Errorf("%d bytes written: %w", n, err)
			}
			return near.Close()
		}, os.ErrDeadlineExceeded},
		"peer reads the rest later": {func(near *observedConn, far *net.TCPConn) error {
			if n, err := writePart(near, far); n == 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
				return fmt.Errorf("%d bytes written: %w", n, err)
			}
			if err := near.SetWriteDeadline(time.Time{}); err != nil {
				return err
			}
			go func() { _, _ = io.Copy(io.Discard, far) }() // until near is closed
			if _, err := near.Write([]byte("x")); err != nil {
				return err
			}
			return near.Close()
		}, net.ErrClosed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			near, far := loopback(t)
			c := newObservedConn(newBufferedConn(near), time.Hour)
			require.NoError(t, c.Ended())
			require.NoError(t, test.end(c, far))
			require.ErrorIs(t, c.Ended(), test.err)
		})
	}
}

// writePart writes more than the peer reads, and lets the deadline pass when it has read some.
func writePart(near *observedConn, far *net.TCPConn) (int, error) {
	go func() {
		_, _ = far.Read(make([]byte, 1))
		_ = near.SetWriteDeadline(time.Unix(1, 0))
	}()
	return near.Write(make([]byte, 64<<20))
}

// A dead link is distinguished from a closed connection, with and without TLS.
func TestUnansweredPingIsNamed(t *testing.T) {
	t.Parallel()
	i := testkit.NewIdentity(t, testkit.FarOff)
	cert, err := tls.X509KeyPair(i.Chain, i.Key)
	require.NoError(t, err)
	for name, config := range map[string]*tls.Config{
		"plaintext": nil,
		"TLS":       {Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12},
	} {
		for _, end := range []string{"dead", "closed"} {
			t.Run(name+" "+end, func(t *testing.T) {
				t.Parallel()
				var ended chan error
				h := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					<-r.Context().Done()
					c, _ := r.Context().Value(seenKey{}).(Connection)
					ended <- c.Ended()
				})
				serveBubble(t, h, config, func(t *testing.T, s *Server, l *pipeListener) {
					t.Helper()
					ended = make(chan error, 1) // of the bubble
					c := l.dial()
					if config != nil {
						trust := i.Trusts("h2")
						trust.ServerName = "localhost"
						c = tls.Client(c, trust)
					}
					defer c.Close()
					_, err := io.WriteString(c, preface)
					require.NoError(t, err)
					framer := http2.NewFramer(c, nil)
					// GET http / (RFC 7541, appendix A).
					require.NoError(t, framer.WriteHeaders(http2.HeadersFrameParam{
						StreamID: 1, BlockFragment: []byte{0x82, 0x86, 0x84}, EndHeaders: true,
					}))
					began := time.Now()
					go func() { _, _ = io.Copy(io.Discard, c) }() // the request that is never answered
					if end == "closed" {
						synctest.Wait()
						s.shut(true)
						err := <-ended
						require.Error(t, err)
						require.NotErrorIs(t, err, ErrPingTimeout)
						return
					}
					require.ErrorIs(t, <-ended, ErrPingTimeout)
					require.Equal(t, 15*time.Second, time.Since(began))
				})
			})
		}
	}
}
