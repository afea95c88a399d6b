package sim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

const (
	announceTimeout = 10 * time.Second
	answerLimit     = 1 << 20
)

// vmStarted is the JSON body of the vm_started event over HTTP.
type vmStarted struct {
	Type        string    `json:"type"`
	Timestamp   time.Time `json:"timestamp"`
	VMID        string    `json:"vm_id"`
	PoolID      string    `json:"pool_id"`
	OrgID       string    `json:"org_id,omitempty"`
	MachineType string    `json:"machine_type"`
	Region      string    `json:"region"`
	CPU         int       `json:"cpu"`
	Memory      int       `json:"memory"` // MB
	Disk        int       `json:"disk"`   // GB
	Version     string    `json:"version"`
	BuildTime   string    `json:"build_time"`
}

// announce sends vm_started over HTTP until it is acknowledged, as older agents
// do before they open the stream. It returns errRestart or ctx's error when
// that comes first.
func (a *Agent) announce(ctx context.Context) error {
	for {
		err := a.postVMStarted(ctx)
		if err == nil {
			a.counters.vmStarted.Add(1)
			a.counters.events.Add(1)
			return nil
		}
		if ctx.Err() == nil {
			a.counters.errors.add("vm_started")
			a.log.Debug("vm_started was not acknowledged", keyError, err)
		}
		if err := a.pause(ctx, max(a.cfg.Timing.RetryWait, time.Millisecond)); err != nil {
			return err
		}
	}
}

func (a *Agent) postVMStarted(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, announceTimeout)
	defer cancel()
	body, err := json.Marshal(vmStarted{
		Type: "vm_started", Timestamp: time.Now().UTC(),
		VMID: a.cfg.VMID, PoolID: a.cfg.PoolID, OrgID: a.cfg.OrgID,
		MachineType: "sim-standard-4", Region: "sim-region-1",
		CPU: 4, Memory: memoryTotal >> 20, Disk: diskTotal >> 30,
		Version: a.cfg.Version, BuildTime: "2024-01-01T00:00:00Z",
	})
	if err != nil {
		return fmt.Errorf("encode vm_started: %w", err)
	}
	target := a.baseURL + "/api/v1/vms/" + url.PathEscape(a.cfg.VMID) + "/events"
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("post vm_started: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	return a.expectAcknowledged(req)
}

// expectAcknowledged sends req over HTTP/1.1 on a connection of its own, as an
// agent does that knows nothing of the stream yet.
func (a *Agent) expectAcknowledged(req *http.Request) error {
	dialer := net.Dialer{Timeout: dialTimeout}
	transport := &http.Transport{
		DialContext:       dialer.DialContext,
		TLSClientConfig:   a.cfg.TLS.Clone(),
		DisableKeepAlives: true,
	}
	client := &http.Client{Transport: bearer{a.cfg.Token, transport}}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("post vm_started: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("post vm_started: status %d", resp.StatusCode)
	}
	var answer struct {
		Acknowledged bool `json:"acknowledged"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, answerLimit)).Decode(&answer); err != nil {
		return fmt.Errorf("decode the answer to vm_started: %w", err)
	}
	if !answer.Acknowledged {
		return errors.New("post vm_started: not acknowledged")
	}
	return nil
}
