// Package target owns the servers under test: how each is started and called, and how its
// work is counted.
package target

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"

	"github.com/mig-controller/mig-controller/bench/internal/peer"
	"github.com/mig-controller/mig-controller/bench/internal/proc"
)

// Kind is the kind of a server.
type Kind string

// The servers.
const (
	// Bare is grpc-go without storage: the limit of what is possible.
	Bare Kind = "bare"
	// Controller is the controller as users run it.
	Controller Kind = "controller"
	// TLS is the controller with a certificate.
	TLS Kind = "controller-tls"
)

// Mark is a point in a server's count of heartbeats.
type Mark int64

// Server is a running server.
type Server struct {
	Kind Kind
	// Addr is its address for agents and operators.
	Addr string
	// TLS is the TLS configuration of agents; nil for plaintext.
	TLS *tls.Config
	// Dir is its data directory.
	Dir   string
	child *proc.Child
	http  string
	count counter
}

// counter counts the work of a server.
type counter interface {
	// Tally returns the work done so far, without heartbeats.
	Tally(ctx context.Context) (peer.Tally, error)
	// Mark returns the point up to which heartbeats are processed. It is fast.
	Mark(ctx context.Context) (Mark, error)
	// Between counts the heartbeats between two marks.
	Between(ctx context.Context, from, to Mark) (int64, error)
	// CaughtUp reports whether all deferred work is done.
	CaughtUp(ctx context.Context) (bool, error)
	Close() error
}

// Programs are the paths of the programs.
type Programs struct {
	// Bench is this program, which can also run as a peer.
	Bench string
	// Controller is the controller, and Options are additional options for it: none when it
	// is measured as users run it.
	Controller string
	Options    []string
	// Dir is the parent of the servers' data directories.
	Dir string
}

// Start starts a server with a directory of its own, which is kept.
func (p Programs) Start(ctx context.Context, kind Kind) (*Server, error) {
	dir, err := os.MkdirTemp(p.Dir, string(kind)+"-")
	if err != nil {
		return nil, fmt.Errorf("create a directory for a server: %w", err)
	}
	s, err := p.StartIn(ctx, kind, dir, AnyPort)
	if err != nil {
		_ = os.RemoveAll(dir)
	}
	return s, err
}

// Ports are the listening addresses of a server.
type Ports struct{ grpc, http string }

// AnyPort makes the system choose the ports.
var AnyPort = Ports{"127.0.0.1:0", "127.0.0.1:0"}

// Ports returns the addresses of this server, for its successor.
func (s *Server) Ports() Ports { return Ports{s.Addr, s.http} }

// StartIn starts a server with a directory that may have been used before.
func (p Programs) StartIn(ctx context.Context, kind Kind, dir string, ports Ports) (*Server, error) {
	s, err := p.Launch(kind, dir, ports)
	if err != nil {
		return nil, err
	}
	if err := s.serve(ctx); err != nil {
		s.Kill()
		return nil, err
	}
	return s, nil
}

// serve waits until the server serves.
func (s *Server) serve(ctx context.Context) (err error) {
	if s.Addr, s.http, err = addresses(ctx, s.child, logPath(s.Dir)); err != nil {
		return err
	}
	data := dataDir(s.Dir)
	switch s.Kind {
	case Controller, TLS:
		s.count, err = openStore(ctx, filepath.Join(data, "_state", "controller.db"))
	default:
		s.count = peerCounter{s.http}
	}
	return err
}

// Launch starts a server without waiting for it.
func (p Programs) Launch(kind Kind, dir string, ports Ports) (*Server, error) {
	// Remove the log of an earlier server in this directory.
	if err := os.Remove(logPath(dir)); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	data := dataDir(dir)
	program, args := p.Bench, []string{"peer"}
	var secure *tls.Config
	switch kind {
	case Controller, TLS:
		program, args = p.Controller, []string{
			"--data-dir=" + data, "--grpc-addr=" + ports.grpc, "--http-addr=" + ports.http, "--log-format=json",
			"--proxies=127.0.0.1", // some fleets share connections, as those behind proxies do
		}
		args = append(args, p.Options...)
		if kind == TLS {
			options, trust, err := certify(dir)
			if err != nil {
				return nil, err
			}
			args, secure = append(args, options...), trust
		}
	case Bare:
	}
	child, err := proc.Start(logPath(dir), program, args...)
	if err != nil {
		return nil, err
	}
	return &Server{Kind: kind, Dir: dir, child: child, Addr: ports.grpc, http: ports.http, TLS: secure}, nil
}

func dataDir(dir string) string { return filepath.Join(dir, "data") }

func logPath(dir string) string { return filepath.Join(dir, "server.log") }

// Web returns its address for people and programs, which differs from that of agents.
func (s *Server) Web() string { return s.http }

// PID returns its process id.
func (s *Server) PID() int { return s.child.PID() }

// Watch returns a context that ends when the server does.
func (s *Server) Watch(ctx context.Context) (context.Context, context.CancelFunc) {
	return s.child.Watch(ctx)
}

// Failure returns how a server ended unexpectedly; nil while it runs.
func (s *Server) Failure() error {
	select {
	case <-s.child.Gone():
		return s.child.Failure()
	default:
		return nil
	}
}

// Tally returns the work done so far, without heartbeats.
func (s *Server) Tally(ctx context.Context) (peer.Tally, error) { return s.count.Tally(ctx) }

// Mark returns the point up to which heartbeats are processed.
func (s *Server) Mark(ctx context.Context) (Mark, error) { return s.count.Mark(ctx) }

// Between counts the heartbeats between two marks.
func (s *Server) Between(ctx context.Context, from, to Mark) (int64, error) {
	return s.count.Between(ctx, from, to)
}

// CaughtUp reports whether all deferred work is done.
func (s *Server) CaughtUp(ctx context.Context) (bool, error) { return s.count.CaughtUp(ctx) }

// Kill ends the server as a crash does. Its directory is kept.
func (s *Server) Kill() {
	s.child.Kill()
	s.closeCounter()
}

// Stop ends the server gracefully. Its directory is kept.
func (s *Server) Stop() error {
	s.closeCounter()
	return s.child.Stop()
}

func (s *Server) closeCounter() {
	if s.count != nil {
		_ = s.count.Close() // it is read-only
	}
}
