package load

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/mig-controller/mig-controller/bench/internal/peer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// startPeer runs a server, and returns its address and its counts.
func startPeer(t *testing.T) (addr string, tally func() peer.Tally) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, log := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- peer.Run(ctx, log) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
	})
	var at struct {
		GRPC string `json:"grpc_addr"`
		HTTP string `json:"http_addr"`
	}
	require.NoError(t, json.NewDecoder(out).Decode(&at))
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	return at.GRPC, func() (n peer.Tally) {
		res, err := client.Get("http://" + at.HTTP) //nolint:noctx // it is local
		require.NoError(t, err)
		defer res.Body.Close()
		require.NoError(t, json.NewDecoder(res.Body).Decode(&n))
		return n
	}
}

// connected returns a fleet with registered runners.
func connected(t *testing.T, addr string, n int) *Fleet {
	t.Helper()
	f, err := NewFleet(addr, nil, "vm", n)
	require.NoError(t, err)
	t.Cleanup(f.Close)
	require.NoError(t, f.Connect(t.Context()))
	return f
}

// VMs behind a proxy have a stream each, and are spread evenly over its connections.
func TestMultiplexed(t *testing.T) {
	t.Parallel()
	addr, tally := startPeer(t)
	f, err := NewMultiplexed(addr, "vm", 6, 3)
	require.NoError(t, err)
	t.Cleanup(f.Close)
	require.NoError(t, f.Connect(t.Context()))
	require.Eventually(t, func() bool { return tally().Events == 6 }, 20*time.Second, time.Millisecond)
	require.EqualValues(t, 6, tally().Sessions)
	streams := map[*grpc.ClientConn]int{}
	for i := range f.places {
		streams[f.places[i].Load().conn]++
	}
	require.Len(t, streams, 3)
	for _, n := range streams {
		require.Equal(t, 2, n)
	}
}

// A VM that is replaced reports its shutdown and never reconnects; one with a new id
// registers in its place.
func TestReplace(t *testing.T) {
	t.Parallel()
	addr, tally := startPeer(t)
	f := connected(t, addr, 2)
	require.NoError(t, f.Replace(t.Context(), 1))
	require.Equal(t, "vm-000000", f.ID(0))
	require.Equal(t, "vm-000002", f.ID(1))
	// Three registrations and a shutdown.
	require.Eventually(t, func() bool { return tally().Events == 4 }, 20*time.Second, time.Millisecond)
	require.EqualValues(t, 2, tally().Sessions)
	n, _ := f.Ends()
	require.Zero(t, n, "a shutdown is not a lost stream")
}

// A VM that is replaced while it has no stream sends nothing.
func TestReplaceWithoutStream(t *testing.T) {
	t.Parallel()
	addr, tally := startPeer(t)
	f := connected(t, addr, 1)
	require.Eventually(t, func() bool { return tally().Events == 1 }, 20*time.Second, time.Millisecond)
	f.places[0].Load().close()
	require.False(t, f.Drop(0))
	require.NoError(t, f.Replace(t.Context(), 0))
	require.Equal(t, "vm-000001", f.ID(0))
	require.Eventually(t, func() bool { return tally().Sessions == 1 }, 20*time.Second, time.Millisecond)
	require.Eventually(t, func() bool { return tally().Events == 2 }, 20*time.Second, time.Millisecond)
}

// If a new VM cannot register, the error names it.
func TestReplaceGivesUp(t *testing.T) {
	t.Parallel()
	addr, _ := startPeer(t)
	f := connected(t, addr, 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f.addr = "127.0.0.1:1" // nothing listens there
	require.ErrorContains(t, f.Replace(ctx, 0), "new VM vm-000001 has not registered")
}
