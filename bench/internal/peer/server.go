// Package peer owns the server that the controller is compared with. It stores nothing,
// implements the agents' stream and SendCommand, and uses grpc-go with its defaults.
package peer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

// The attributes of the log record with a peer's addresses: the same as the controller's.
const (
	keyGRPC = "grpc_addr"
	keyHTTP = "http_addr"
)

// Tally is the work of a peer so far.
type Tally struct {
	// Sessions is how many agents are connected.
	Sessions int64 `json:"sessions"`
	// Acks and Events are the numbers received.
	Acks   int64 `json:"acks"`
	Events int64 `json:"events"`
	// Heartbeats is the number read.
	Heartbeats int64 `json:"heartbeats"`
}

// server is a peer.
type server struct {
	sessions sync.Map // vm id → *session
	waiting  sync.Map // command id → chan *commands.CommandAck
	serial   atomic.Int64

	live, acks, events, heartbeats atomic.Int64
}

// Run serves until the context ends.
func Run(ctx context.Context, out io.Writer) error {
	log := slog.New(slog.NewJSONHandler(out, nil))
	s := &server{}
	var lc net.ListenConfig
	agents, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	tallies, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	// Agents ping every 10 s, which is more than grpc-go allows by default.
	g := grpc.NewServer(grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
		MinTime: 5 * time.Second, PermitWithoutStream: true,
	}))
	g.RegisterService(&streamService, s)
	g.RegisterService(&adminService, s)
	h := &http.Server{Handler: http.HandlerFunc(s.writeTally), ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() {
		g.Stop()
		_ = h.Close()
	})
	defer stop()
	log.Info("peer started",
		keyGRPC, agents.Addr().String(), keyHTTP, tallies.Addr().String())
	errs := make(chan error, 1)
	go func() { errs <- h.Serve(tallies) }()
	err = g.Serve(agents)
	_ = h.Close()
	if herr := <-errs; !errors.Is(herr, http.ErrServerClosed) {
		err = errors.Join(err, herr)
	}
	return err
}

func (s *server) writeTally(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(Tally{ //nolint:errchkjson // the caller has disconnected
		Sessions: s.live.Load(), Acks: s.acks.Load(), Events: s.events.Load(), Heartbeats: s.heartbeats.Load(),
	})
}
