package peer_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/mig-controller/mig-controller/bench/internal/load"
	"github.com/mig-controller/mig-controller/bench/internal/peer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	patience = 20 * time.Second
	vms      = 5
)

// start starts a peer and returns its addresses.
func start(t *testing.T) (agents, tallies string) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	out, in := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- peer.Run(ctx, in) }()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-ended)
	})
	var record struct {
		GRPC string `json:"grpc_addr"`
		HTTP string `json:"http_addr"`
	}
	said := json.NewDecoder(out)
	require.NoError(t, said.Decode(&record))
	var rest sync.WaitGroup
	rest.Go(func() { _, _ = io.Copy(io.Discard, out) }) // until in is closed
	t.Cleanup(func() {
		require.NoError(t, in.Close())
		rest.Wait()
	})
	return record.GRPC, record.HTTP
}

func tally(t *testing.T, addr string) (got peer.Tally) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr, http.NoBody)
	require.NoError(t, err)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	require.NoError(t, json.NewDecoder(res.Body).Decode(&got))
	return got
}

// connect connects VMs, which are disconnected before the peer ends.
func connect(t *testing.T, addr string) *load.Fleet {
	t.Helper()
	f, err := load.NewFleet(addr, nil, "vm", vms)
	require.NoError(t, err)
	t.Cleanup(f.Close)
	require.NoError(t, f.Connect(t.Context()))
	return f
}

// The VMs register, and each message is counted once.
func TestPeerCounts(t *testing.T) {
	t.Parallel()
	addr, tallies := start(t)
	f := connect(t, addr)
	ctx, stop := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer stop()
	f.Pace(ctx, 200)
	require.Positive(t, f.Sent())
	want := peer.Tally{Sessions: vms, Acks: vms, Events: vms, Heartbeats: f.Sent()}
	require.Eventually(t, func() bool { return tally(t, tallies) == want }, patience, time.Millisecond)
}

// A flood sends as much as possible, and all of it arrives.
func TestFloodArrives(t *testing.T) {
	t.Parallel()
	addr, tallies := start(t)
	f := connect(t, addr)
	ctx, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	f.Flood(ctx)
	require.Greater(t, f.Sent(), int64(vms))
	require.Eventually(t, func() bool { return tally(t, tallies).Heartbeats == f.Sent() }, patience, time.Millisecond)
	n, err := f.Ends()
	require.Zero(t, n, "streams ended: %v", err)
}

// A command is answered once its VM has acked it; one for a VM that is not connected is
// rejected.
func TestPeerCommands(t *testing.T) {
	t.Parallel()
	addr, tallies := start(t)
	f := connect(t, addr)
	o, err := load.NewOperator(addr, 2)
	require.NoError(t, err)
	t.Cleanup(o.Close)
	require.NoError(t, o.Command(t.Context(), f.ID(3)))
	require.Eventually(t, func() bool { return tally(t, tallies).Acks == vms+1 }, patience, time.Millisecond)
	require.ErrorContains(t, o.Command(t.Context(), "nobody"), "not connected")
}

// A VM whose connection is dropped reconnects.
func TestDroppedVMComesBack(t *testing.T) {
	t.Parallel()
	addr, tallies := start(t)
	f := connect(t, addr)
	f.Drop(2)
	require.Eventually(t, func() bool {
		n, _ := f.Ends()
		return n == 1 && tally(t, tallies).Sessions == vms
	}, patience, time.Millisecond)
}
