package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
	"github.com/mig-controller/mig-controller/internal/config"
	"github.com/mig-controller/mig-controller/internal/testkit"
)

// resetsAtKey is the environment variable that makes the test binary act as the peer of
// BenchmarkRapidReset, in a separate process; its value is the address to connect to.
const resetsAtKey = "E2E_RESETS_AT"

// resetters is how many connections reset streams concurrently.
const resetters = 8

// resetStreams opens streams and resets them until stdin ends.
func resetStreams(addr string) {
	ctx, cancel := context.WithCancel(context.Background())
	var resetting sync.WaitGroup
	for range resetters {
		resetting.Go(func() {
			for ctx.Err() == nil {
				_ = testkit.RapidReset(ctx, addr, streamMethod) // and again
			}
		})
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	cancel()
	resetting.Wait()
}

// startResetter starts the peer; stop ends it.
func startResetter(b *testing.B, addr string) (stop func()) {
	b.Helper()
	peer := exec.CommandContext(b.Context(), os.Args[0])
	peer.Env = append(os.Environ(), resetsAtKey+"="+addr, "GOMAXPROCS=1")
	stdin, err := peer.StdinPipe()
	require.NoError(b, err)
	require.NoError(b, peer.Start())
	return func() {
		require.NoError(b, stdin.Close())
		require.NoError(b, peer.Wait())
	}
}

// BenchmarkRapidReset measures a durable command to an agent and back, one at a time:
// undisturbed, and while a peer opens and resets streams on other connections, with the
// ordinary stream limit and with that of a proxy.
func BenchmarkRapidReset(b *testing.B) {
	for _, bench := range []struct {
		name    string
		proxies []string
		resets  bool
	}{
		{"quiet", nil, false},
		{"peer", nil, true},
		{"proxy", []string{"127.0.0.1"}, true},
	} {
		b.Run(bench.name, func(b *testing.B) {
			o := testOptions(b.TempDir())
			o.HTTPAddr, o.GRPCAddr, o.Proxies = "127.0.0.1:0", "127.0.0.1:0", bench.proxies
			benchmarkRoundTrip(b, o, bench.resets)
		})
	}
}

func benchmarkRoundTrip(b *testing.B, o config.Options, resets bool) {
	b.Helper()
	c, err := startController(context.WithoutCancel(b.Context()), o)
	require.NoError(b, err)
	defer func() { require.NoError(b, c.end()) }()
	conn, err := newConn(c.grpcAddr)
	require.NoError(b, err)
	defer func() { _ = conn.Close() }()
	s, err := openStream(b.Context(), conn)
	require.NoError(b, err)
	defer s.end()
	const vm = "vm-bench"
	require.NoError(b, s.registerAs(vm))

	if resets {
		defer startResetter(b, c.grpcAddr)()
	}
	var longest time.Duration
	for b.Loop() {
		began := time.Now()
		require.NoError(b, c.roundTrip(b.Context(), s, vm))
		longest = max(longest, time.Since(began))
	}
	b.ReportMetric(float64(longest.Microseconds())/1000, "ms-longest")
}

var errNotAcked = errors.New("the command did not end as acked")

// roundTrip sends a command, has the agent ack it, and returns when the ack is recorded.
func (c *controller) roundTrip(ctx context.Context, s *stream, vm string) error {
	acked := make(chan error, 1)
	go func() {
		cmd, err := s.command()
		if err == nil {
			err = s.ack(&commands.CommandAck{CommandId: cmd.GetId(), Success: true})
		}
		acked <- err
	}()
	sent, err := c.grpcAdmin.SendCommand(ctx, request(vm, "set_log_level", withWait(patience)))
	if err := errors.Join(err, <-acked); err != nil {
		return err
	}
	if state := sent.GetCommand().GetState(); state != succeeded {
		return fmt.Errorf("%w: it is %s", errNotAcked, state)
	}
	return nil
}
