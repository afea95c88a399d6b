// Package target owns the servers under test: how each is started, what it is
// called with, and how its work is counted where it is done.
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

// Kind is which server it is.
type Kind string

// The servers.
const (
	// Bare is grpc-go, storing nothing: what is possible at all.
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
	// Addr is where agents and operators call.
	Addr string
	// TLS is how agents call; nil for plaintext.
	TLS *tls.Config
	// Dir is where it keeps what it keeps.
	Dir   string
	child *proc.Child
	http  string
	count counter
}

// counter counts the work of a server where it is done.
type counter interface {
	// Tally is what was done so far, without the heartbeats.
	Tally(ctx context.Context) (peer.Tally, error)
	// Mark is the point up to which heartbeats are done now. It is quick.
	Mark(ctx context.Context) (Mark, error)
	// Between counts the heartbeats between two marks.
	Between(ctx context.Context, from, to Mark) (int64, error)
	// CaughtUp reports whether nothing is left to do later of what has come.
	CaughtUp(ctx context.Context) (bool, error)
	Close() error
}

// Programs are where the programs are.
type Programs struct {
	// Bench is this program, which is also the peers.
	Bench string
	// Controller is the controller, and Options are what it gets beside its
	// addresses and directory: nothing where it is measured as users run it.
	Controller string
	Options    []string
	// Dir is where servers keep their data.
	Dir string
}

// Start starts a server with a directory of its own, which stays.
func (p Programs) Start(ctx context.Context, kind Kind) (*Server, error) {
	dir, err := os.MkdirTemp(p.Dir, string(kind)+"-")
	if err != nil {
		return nil, fmt.Errorf("make a directory for a server: %w", err)
	}
	s, err := p.StartIn(ctx, kind, dir, AnyPort)
	if err != nil {
		_ = os.RemoveAll(dir)
	}
	return s, err
}

// Ports are where a server listens.
type Ports struct{ grpc, http string }

// AnyPort has the system choose.
var AnyPort = Ports{"127.0.0.1:0", "127.0.0.1:0"}

// Ports are where this server listens, for one to come after it.
func (s *Server) Ports() Ports { return Ports{s.Addr, s.http} }

// StartIn starts a server on a directory that may have been in use before.
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

// Launch starts a server and does not wait for it.
func (p Programs) Launch(kind Kind, dir string, ports Ports) (*Server, error) {
	// What was said by one that ran here before is not said by this one.
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
			"--report-rate=0", // a flood is to measure the controller, not its limit
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

// PID is the number of its process.
func (s *Server) PID() int { return s.child.PID() }

// Watch returns a context that ends when the server does.
func (s *Server) Watch(ctx context.Context) (context.Context, context.CancelFunc) {
	return s.child.Watch(ctx)
}

// Failure tells how a server ended that was not to; nil while it runs.
func (s *Server) Failure() error {
	select {
	case <-s.child.Gone():
		return s.child.Failure()
	default:
		return nil
	}
}

// Tally is what was done so far, without the heartbeats.
func (s *Server) Tally(ctx context.Context) (peer.Tally, error) { return s.count.Tally(ctx) }

// Mark is the point up to which heartbeats are done now.
func (s *Server) Mark(ctx context.Context) (Mark, error) { return s.count.Mark(ctx) }

// Between counts the heartbeats between two marks.
func (s *Server) Between(ctx context.Context, from, to Mark) (int64, error) {
	return s.count.Between(ctx, from, to)
}

// CaughtUp reports whether nothing is left to do later of what has come.
func (s *Server) CaughtUp(ctx context.Context) (bool, error) { return s.count.CaughtUp(ctx) }

// Kill ends the server as a crash does. Its directory stays.
func (s *Server) Kill() {
	s.child.Kill()
	s.closeCounter()
}

// Stop has the server end by itself. Its directory stays.
func (s *Server) Stop() error {
	s.closeCounter()
	return s.child.Stop()
}

func (s *Server) closeCounter() {
	if s.count != nil {
		_ = s.count.Close() // it only reads
	}
}
