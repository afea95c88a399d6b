package app

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

// pieces is a connection that gives what it has in the pieces it has it in, and
// counts how often it is read.
type pieces struct {
	net.Conn
	left  [][]byte
	reads int
}

func (p *pieces) Read(b []byte) (int, error) {
	p.reads++
	if len(p.left) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.left[0])
	if p.left[0] = p.left[0][n:]; len(p.left[0]) == 0 {
		p.left = p.left[1:]
	}
	return n, nil
}

// What is read through the buffer is what came, however it came and is asked
// for, and no buffer is kept after the end.
func TestBufferedConnChangesNothing(t *testing.T) {
	t.Parallel()
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 0))
		var sent []byte
		p := &pieces{}
		for range r.IntN(50) {
			piece := make([]byte, 1+r.IntN(40<<r.IntN(11)))
			for i := range piece {
				piece[i] = byte(r.Uint32())
			}
			sent = append(sent, piece...)
			p.left = append(p.left, piece)
		}
		c := &bufferedConn{Conn: p}
		var got []byte
		for {
			b := make([]byte, 1+r.IntN(20<<r.IntN(12)))
			n, err := c.Read(b)
			got = append(got, b[:n]...)
			if err != nil {
				require.ErrorIs(t, err, io.EOF)
				break
			}
		}
		require.True(t, bytes.Equal(sent, got), "seed %d", seed)
		require.Nil(t, c.buffer)
	}
}

// A connection that waits for its peer holds no buffer: an idle fleet would hold
// one each.
func TestIdleConnHoldsNoBuffer(t *testing.T) {
	t.Parallel()
	c := &bufferedConn{Conn: &pieces{left: [][]byte{make([]byte, 9+100)}}}
	for _, n := range []int{9, 60} {
		_, err := io.ReadFull(c, make([]byte, n))
		require.NoError(t, err)
	}
	require.NotNil(t, c.buffer)
	_, err := io.ReadFull(c, make([]byte, 40))
	require.NoError(t, err)
	require.Nil(t, c.buffer)
}

// A burst of frames costs few reads of the connection.
func TestBurstIsReadAtOnce(t *testing.T) {
	t.Parallel()
	const frames = 1000
	p := &pieces{left: [][]byte{make([]byte, frames*(9+100))}}
	c := &bufferedConn{Conn: p}
	for range frames {
		for _, n := range []int{9, 100} {
			_, err := io.ReadFull(c, make([]byte, n))
			require.NoError(t, err)
		}
	}
	require.LessOrEqual(t, p.reads, 2+frames*(9+100)/readBufferSize)
}
