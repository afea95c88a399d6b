package target

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"path/filepath"
	"time"

	"github.com/mig-controller/mig-controller/bench/internal/peer"
)

// askWithin is long: a peer that writes files has little time for anything else.
const askWithin = time.Minute

// peerCounter asks the peer, which counts what it is done with.
type peerCounter struct{ http string }

func (c peerCounter) Tally(ctx context.Context) (t peer.Tally, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.http, http.NoBody)
	if err != nil {
		return t, err
	}
	client := &http.Client{Timeout: askWithin, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		return t, fmt.Errorf("ask the peer: %w", err)
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&t); err != nil {
		return t, fmt.Errorf("ask the peer: %w", err)
	}
	return t, nil
}

func (c peerCounter) Mark(ctx context.Context) (Mark, error) {
	t, err := c.Tally(ctx)
	return Mark(t.Heartbeats), err
}

func (peerCounter) Between(_ context.Context, from, to Mark) (int64, error) {
	return int64(to - from), nil
}

func (peerCounter) CaughtUp(context.Context) (bool, error) { return true, nil }

func (peerCounter) Verify(context.Context) error { return nil }

func (peerCounter) Close() error { return nil }

// filesCounter is that of the peer that writes files.
type filesCounter struct {
	peerCounter
	dir string
}

// Verify counts the files.
func (c filesCounter) Verify(ctx context.Context) error {
	var files int64
	err := filepath.WalkDir(c.dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files++
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("count the files: %w", err)
	}
	t, err := c.Tally(ctx)
	if err != nil {
		return err
	}
	if files != t.Heartbeats {
		return fmt.Errorf("the peer says it has written %d files, and there are %d", t.Heartbeats, files)
	}
	return nil
}
