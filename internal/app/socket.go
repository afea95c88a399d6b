package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/mig-controller/mig-controller/internal/auth"
	"github.com/mig-controller/mig-controller/internal/config"
	"github.com/mig-controller/mig-controller/internal/logkey"
)

// controlSocket serves operators who have access to the data directory, with all rights: it is
// how the first token is created, and the next one when the last was lost.
type controlSocket struct {
	path     string
	listener net.Listener
	server   *http.Server
}

// listenControl listens on the control socket of a data directory, which the caller has
// locked. Only the user of the controller can connect to it.
func listenControl(ctx context.Context, dataDir string, handler http.Handler, log *slog.Logger) (*controlSocket, error) {
	path := config.ControlSocket(dataDir)
	l, err := listenPrivately(ctx, path)
	if err != nil {
		return nil, err
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	return &controlSocket{path: path, listener: l, server: &http.Server{
		Handler: handler, Protocols: &protocols, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute,
		BaseContext: func(net.Listener) context.Context { return auth.OnSocket(context.WithoutCancel(ctx)) },
		ErrorLog:    slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}}, nil
}

// listenPrivately listens on a Unix socket that only this user can ever connect to. It is
// created in a directory of its own, since its permissions are not in effect at once, and
// replaces that of a controller which was killed.
func listenPrivately(ctx context.Context, path string) (net.Listener, error) {
	dir, err := os.MkdirTemp(filepath.Dir(path), "s")
	if err != nil {
		return nil, fmt.Errorf("create the control socket: %w", err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // it is empty, or the start fails
	private := filepath.Join(dir, "s")
	var config net.ListenConfig
	l, err := config.Listen(ctx, "unix", private)
	if err != nil {
		return nil, fmt.Errorf("create the control socket %s, whose path may be too long: %w", path, err)
	}
	if unix, ok := l.(*net.UnixListener); ok {
		unix.SetUnlinkOnClose(false) // it has moved by then
	}
	if err := errors.Join(os.Chmod(private, 0o600), os.Rename(private, path)); err != nil {
		_ = l.Close() // it was never served
		return nil, fmt.Errorf("create the control socket %s: %w", path, err)
	}
	return l, nil
}

// serve serves until close.
func (s *controlSocket) serve(log *slog.Logger) {
	if err := s.server.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		log.Warn("the control socket is no longer served", logkey.Error, err)
	}
}

// close ends the calls on the socket, and removes it.
func (s *controlSocket) close() {
	_ = s.server.Close()
	_ = s.listener.Close()
	_ = os.Remove(s.path)
}
