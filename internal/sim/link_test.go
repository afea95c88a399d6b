package sim_test

import (
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/sim"
)

const (
	http2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	http2Ping    = 6
)

// Agents ping an idle connection.
func TestLine_Pings(t *testing.T) {
	t.Parallel()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	cfg := sim.DefaultConfig()
	cfg.VMID, cfg.Controller, cfg.Kind = "vm-1", listener.Addr().String(), sim.Ideal
	cfg.Timing.Ping = 20 * time.Millisecond
	start(t, cfg)

	conn, err := listener.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	preface := make([]byte, len(http2Preface))
	_, err = io.ReadFull(conn, preface)
	require.NoError(t, err)
	require.Equal(t, http2Preface, string(preface))
	_, err = conn.Write([]byte{0, 0, 0, 4, 0, 0, 0, 0, 0}) // empty SETTINGS
	require.NoError(t, err)
	for {
		if frameType(t, conn) == http2Ping {
			return
		}
	}
}

// frameType reads one HTTP/2 frame and returns its type.
func frameType(t *testing.T, conn io.Reader) byte {
	t.Helper()
	var head [9]byte
	_, err := io.ReadFull(conn, head[:])
	require.NoError(t, err)
	length := binary.BigEndian.Uint32(append([]byte{0}, head[:3]...))
	_, err = io.CopyN(io.Discard, conn, int64(length))
	require.NoError(t, err)
	return head[3]
}
