package e2e

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
	"github.com/mig-controller/mig-controller/internal/config"
)

// streamsOfConnection is the stream limit of a peer that is not a proxy.
const streamsOfConnection = 100

// TestStreamsBeyondTheLimit defends what docs/operations.md says about clients that share a
// connection: grpc-go waits until another stream ends, connect-go opens another connection.
func TestStreamsBeyondTheLimit(t *testing.T) {
	t.Parallel()
	t.Run("grpc-go", func(t *testing.T) {
		t.Parallel()
		conn := dial(t, shared.grpcAddr)
		first := openOver(t, conn, newVM())
		for range streamsOfConnection - 1 {
			openOver(t, conn, newVM())
		}
		waiting := make(chan error, 1)
		go func() { waiting <- openAndEnd(t.Context(), conn) }()
		select {
		case err := <-waiting:
			require.FailNow(t, "it was not blocked", "%v", err)
		case <-time.After(300 * time.Millisecond):
		}
		first.end()
		require.NoError(t, receive(t, "the stream that waited", waiting))
	})
	t.Run("connect-go", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		c := start(t)
		for range streamsOfConnection + 1 { // all of which end with the context
			watch, err := c.grpcAdmin.WatchFleet(ctx, &migcontrollerv1.WatchFleetRequest{})
			require.NoError(t, err)
			require.True(t, watch.Receive(), watch.Err())
		}
	})
	t.Run("grpc-go at a named address", func(t *testing.T) {
		t.Parallel()
		c := start(t, func(o *config.Options) { o.Proxies = []string{"127.0.0.1", "::1"} })
		conn := dial(t, c.grpcAddr)
		for range streamsOfConnection {
			openOver(t, conn, newVM())
		}
		require.NoError(t, openAndEnd(t.Context(), conn))
	})
}

// openAndEnd opens a session and ends it immediately.
func openAndEnd(ctx context.Context, conn *grpc.ClientConn) error {
	s, err := openStream(ctx, conn)
	if err != nil {
		return err
	}
	defer s.end()
	_, err = s.connect(&commands.ConnectRequest{VmId: newVM()})
	return err
}
