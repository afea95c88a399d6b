package target

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/mig-controller/mig-controller/bench/internal/peer"
)

// askWithin is long: a peer in a flood is busy.
const askWithin = time.Minute

// peerCounter queries the peer, which counts what it has processed.
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

func (peerCounter) Close() error { return nil }
