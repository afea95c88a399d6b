package target

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/mig-controller/mig-controller/bench/internal/proc"
)

// startWithin is how long a server may take to log its addresses.
const startWithin = 60 * time.Second

// addresses waits until the server has logged its addresses.
func addresses(ctx context.Context, child *proc.Child, log string) (grpc, web string, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, startWithin, errors.New("the server did not start in time"))
	defer cancel()
	ctx, stop := child.Watch(ctx)
	defer stop()
	for {
		text, err := os.ReadFile(log)
		if err != nil {
			return "", "", err
		}
		if grpc, web, ok := findAddresses(text); ok {
			return grpc, web, nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return "", "", context.Cause(ctx)
		}
	}
}

// findAddresses finds the log record with both addresses.
func findAddresses(log []byte) (grpc, web string, ok bool) {
	for line := range bytes.Lines(log) {
		var record struct {
			GRPC string `json:"grpc_addr"`
			HTTP string `json:"http_addr"`
		}
		if json.Unmarshal(line, &record) == nil && record.GRPC != "" && record.HTTP != "" {
			return record.GRPC, record.HTTP, true
		}
	}
	return "", "", false
}

// AwaitReady waits until the controller reports that it is ready. It checks every two
// milliseconds.
func (s *Server) AwaitReady(ctx context.Context) error {
	ctx, stop := s.Watch(ctx)
	defer stop()
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: s.TLS}}
	scheme := "http"
	if s.TLS != nil {
		scheme = "https"
	}
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+s.http+"/ready", http.NoBody)
		if err != nil {
			return err
		}
		res, err := client.Do(req)
		if err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-time.After(2 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("wait for /ready: %w", context.Cause(ctx))
		}
	}
}
