package target

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// NetHTTP is a net/http server with its defaults, except for the frame size: h2spec
// expects a frame of 20 KB to be too large, as it is by HTTP/2's own default but not by
// net/http's.
type NetHTTP struct {
	// Addr is its listening address.
	Addr string

	server *http.Server
	ended  chan error
}

// StartNetHTTP starts a server on a free port. The caller must stop it.
func StartNetHTTP(ctx context.Context, cert Certificate) (*NetHTTP, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	s := &NetHTTP{Addr: l.Addr().String(), ended: make(chan error, 1), server: &http.Server{
		Protocols: protocols, ReadHeaderTimeout: 10 * time.Second,
		HTTP2: &http.HTTP2Config{MaxReadFrameSize: 16 << 10},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "This is net/http.\n")
		}),
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}}
	go func() {
		if cert == (Certificate{}) {
			s.ended <- s.server.Serve(l)
		} else {
			s.ended <- s.server.ServeTLS(l, cert.Cert, cert.Key)
		}
	}()
	return s, nil
}

// Stop ends the server.
func (s *NetHTTP) Stop() error {
	err := s.server.Close()
	if ended := <-s.ended; !errors.Is(ended, http.ErrServerClosed) {
		return errors.Join(err, ended)
	}
	return err
}
