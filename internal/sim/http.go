package sim

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
)

const (
	postTimeout = 10 * time.Second
	answerLimit = 1 << 20

	routeEvents    = "events"
	routeHeartbeat = "heartbeat"

	eventVMStarted = "vm_started"
)

// newHTTPClient uses HTTP/1.1 and a new connection for each request, independent of the
// stream.
func newHTTPClient(cfg Config) *http.Client {
	dialer := net.Dialer{Timeout: dialTimeout}
	return &http.Client{
		Timeout: postTimeout,
		Transport: bearer{cfg.Token, &http.Transport{
			DialContext:       dialer.DialContext,
			TLSClientConfig:   cfg.TLS.Clone(),
			DisableKeepAlives: true,
		}},
	}
}

// post returns the answer to a request if its status is 200. Everything else is an error.
func (a *Agent) post(ctx context.Context, route string, body any) ([]byte, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("encode for %s: %w", route, err)
	}
	target := a.baseURL + "/api/v1/vms/" + url.PathEscape(a.cfg.VMID) + "/" + route
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("post to %s: %w", route, err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := a.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("post to %s: %w", route, err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, answerLimit))
	if err != nil {
		return nil, fmt.Errorf("post to %s: %w", route, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("post to %s: status %d", route, resp.StatusCode)
	}
	return answer, nil
}

// httpEvent returns the fields of every report over HTTP.
func (a *Agent) httpEvent(kind string) map[string]any {
	body := map[string]any{
		"type":      kind,
		"timestamp": a.now(),
		"vm_id":     a.cfg.VMID,
		"pool_id":   a.cfg.PoolID,
	}
	if a.cfg.OrgID != "" {
		body["org_id"] = a.cfg.OrgID
	}
	return body
}

// httpReport returns an event with the data of the stream's event, which has types over
// HTTP.
func (s *stream) httpReport(kind string, data map[string]string) map[string]any {
	body := s.agent.httpEvent(kind)
	for name, value := range data {
		body[name] = value
	}
	if text, ok := data["success"]; ok {
		body["success"] = text == "true"
	}
	if code, err := strconv.Atoi(data[exitCode]); err == nil {
		body[exitCode] = code
	}
	if kind == eventRegistered {
		body["labels"] = s.labels
	}
	return body
}

// httpHeartbeat converts h, which was created at the given time, for HTTP, where it does
// not say whether the runner is configured.
func (s *stream) httpHeartbeat(h *commands.Heartbeat, made time.Time) map[string]any {
	body := s.agent.httpEvent("job_heartbeat")
	body["timestamp"] = made
	if state := h.GetMigletState(); state != "" {
		body["miglet_state"] = state
	}
	if health := h.GetHealth(); health != nil {
		body["vm_health"] = httpHealth(health)
	}
	if r := h.GetRunnerState(); r != nil {
		body["runner_state"] = r.GetState()
	}
	if job := h.GetCurrentJob(); job != nil {
		body["current_job"] = map[string]any{
			"job_id": job.GetJobId(), "run_id": job.GetRunId(), "started_at": made,
		}
	}
	return body
}

func httpHealth(h *commands.VMHealth) map[string]any {
	body := map[string]any{
		"memory_used": h.GetMemoryUsedBytes() >> 20, "memory_total": h.GetMemoryTotalBytes() >> 20,
		"disk_used": h.GetDiskUsedBytes() >> 30, "disk_total": h.GetDiskTotalBytes() >> 30,
	}
	if load := h.GetCpuUsagePercent(); !math.IsNaN(load) { // JSON has no NaN
		body["cpu_load"] = load
	}
	return body
}
