package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/internal/cli"
	"github.com/mig-controller/mig-controller/internal/config"
)

func decode[T any](t *testing.T, body []byte) T {
	t.Helper()
	var v T
	require.NoError(t, json.Unmarshal(body, &v), string(body))
	return v
}

// TestEventRouteAnswersWhatAgentsNeed defends the answers to events over HTTP, and that
// every member of the body is kept, known or unknown.
func TestEventRouteAnswersWhatAgentsNeed(t *testing.T) {
	t.Parallel()
	for name, addr := range shared.addresses() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			vm := newVM()
			path := "/api/v1/vms/" + vm + "/events"
			body := fmt.Sprintf(`{"type":"vm_started","timestamp":"2026-01-02T03:04:05+01:00","vm_id":%q,
				"pool_id":"pool-b","org_id":"org-b","metadata":{"nested":{"a":[1,null,"x"]}},"machine_type":"m1","region":"r1",
				"cpu":8,"memory":16384,"disk":100,"version":"0.9","build_time":"x","not_known_to_us":{"x":1}}`, vm)
			status, answer := shared.call(t, http.MethodPost, addr, path, body)
			require.Equal(t, http.StatusOK, status, string(answer))
			got := decode[map[string]any](t, answer)
			require.NotEmpty(t, got["message"])
			when, err := time.Parse(time.RFC3339, fmt.Sprint(got["timestamp"]))
			require.NoError(t, err)
			require.WithinDuration(t, time.Now(), when, time.Minute)
			delete(got, "message")
			delete(got, "timestamp")
			require.Equal(t, map[string]any{
				"status": "acknowledged", "acknowledged": true, "vm_id": vm, "pool_id": "pool-b", "org_id": "org-b",
			}, got)

			e := shared.awaitEvent(t, vm, "vm_started")
			require.Equal(t, migcontrollerv1.ReportSource_REPORT_SOURCE_HTTP, e.GetSource())
			require.Equal(t, time.Date(2026, 1, 2, 2, 4, 5, 0, time.UTC), e.GetOccurredAt().AsTime())
			kept, err := protojson.Marshal(e.GetBody())
			require.NoError(t, err)
			require.JSONEq(t, body, string(kept))
			require.JSONEq(t, body, string(shared.awaitFile(t, vm, "event-vm_started-")))

			status, answer = shared.call(t, http.MethodPost, addr, path, `{"type":"job_completed","job_id":7,"success":true,"exit_code":0}`)
			require.Equal(t, http.StatusOK, status, string(answer))
			got = decode[map[string]any](t, answer)
			require.NotEmpty(t, got["message"])
			delete(got, "message")
			require.Equal(t, map[string]any{"status": "received", "acknowledged": false, "vm_id": vm}, got)
			shared.awaitFile(t, vm, "event-job_completed-")
		})
	}
}

// TestHeartbeatRouteShowsTheVM defends heartbeats over HTTP, with their units.
func TestHeartbeatRouteShowsTheVM(t *testing.T) {
	t.Parallel()
	for name, addr := range shared.addresses() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			vm := newVM()
			body := fmt.Sprintf(`{"type":"job_heartbeat","timestamp":"2026-01-02T03:04:05Z","vm_id":%q,"pool_id":"pool-b",
				"miglet_state":"job_running","vm_health":{"cpu_load":1.5,"memory_used":1,"memory_total":2,"disk_used":3,"disk_total":4},
				"runner_state":"running","current_job":{"job_id":"j","run_id":9,"repository":"o/r","started_at":"2026-01-02T03:00:00Z"},
				"not_known_to_us":[1]}`, vm)
			status, answer := shared.call(t, http.MethodPost, addr, "/api/v1/vms/"+vm+"/heartbeat", body)
			require.Equal(t, http.StatusOK, status, string(answer))
			got := decode[map[string]any](t, answer)
			require.NotEmpty(t, got["message"])
			delete(got, "message")
			require.Equal(t, map[string]any{"status": "received", "vm_id": vm}, got)
			require.JSONEq(t, body, string(shared.awaitFile(t, vm, "heartbeat-")))

			res := await(t, "the VM", func() *migcontrollerv1.GetVMResponse {
				res, err := shared.admin.GetVM(t.Context(), &migcontrollerv1.GetVMRequest{VmId: vm})
				if err != nil {
					requireCode(t, err, codeNotFound) // heartbeats are stored in groups
				}
				return res
			}, func(res *migcontrollerv1.GetVMResponse) bool { return res != nil })
			v := res.GetVm()
			require.False(t, v.GetConnected())
			require.Equal(t, "job_running running o/r 9", strings.Join([]string{
				v.GetStatus(), v.GetRunner().GetState(), v.GetCurrentJob().GetRepository(), v.GetCurrentJob().GetRunId(),
			}, " "))
			h := v.GetHealth()
			require.InDelta(t, 1.5, h.GetCpuUsagePercent(), 0)
			require.Equal(t, []float64{50, 75}, []float64{h.GetMemoryUsagePercent(), h.GetDiskUsagePercent()})
			require.Equal(t, []int64{1 << 20, 2 << 20, 3 << 30, 4 << 30},
				[]int64{h.GetMemoryUsedBytes(), h.GetMemoryTotalBytes(), h.GetDiskUsedBytes(), h.GetDiskTotalBytes()})
		})
	}
}

// TestPollAndTokenRoutesAnswerARunner defends the runner configuration for agents without a
// stream.
func TestPollAndTokenRoutesAnswerARunner(t *testing.T) {
	t.Parallel()
	c := start(t, withRunners, func(o *config.Options) { o.Journal = false })
	for name, addr := range c.addresses() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			vm := newVM()
			status, answer := c.call(t, http.MethodGet, addr, "/api/v1/vms/"+vm+"/commands", "")
			require.Equal(t, http.StatusOK, status, string(answer))
			got := decode[polled](t, answer)
			require.Equal(t, vm, got.VMID)
			require.Len(t, got.Commands, 1)
			_, err := time.Parse(time.RFC3339, got.Commands[0].CreatedAt)
			require.NoError(t, err)
			params := got.Commands[0].Parameters
			expires, err := time.Parse(time.RFC3339, fmt.Sprint(params["expires_at"]))
			require.NoError(t, err)
			require.Greater(t, time.Until(expires), time.Minute)
			delete(params, "expires_at")
			require.Equal(t, map[string]any{
				"registration_token": secretToken, "runner_url": "https://github.example/org/repo",
				"runner_group": "builders", "labels": []any{"mig", "x64"},
			}, params)
			_, answer = c.call(t, http.MethodGet, addr, "/api/v1/vms/"+vm+"/commands", "")
			require.JSONEq(t, fmt.Sprintf(`{"commands":[],"vm_id":%q}`, vm), string(answer))

			status, answer = c.call(t, http.MethodPost, addr, "/api/v1/vms/"+vm+"/registration-token",
				`{"org_id":"org-b","pool_id":"pool-b","runner_group":"special","labels":["gpu"],"new":1}`)
			require.Equal(t, http.StatusOK, status, string(answer))
			token := decode[map[string]any](t, answer)
			require.NotEmpty(t, token["expires_at"])
			delete(token, "expires_at")
			require.Equal(t, map[string]any{
				"registration_token": secretToken, "runner_url": "https://github.example/org/repo",
				"runner_group": "special", "labels": []any{"gpu"},
			}, token)
		})
	}
}

// TestRoutesRefuseWhatIsWrong defends the routes: the answer to an invalid request names
// the field, has a status that agents treat as a failure, and the request leaves no trace.
func TestRoutesRefuseWhatIsWrong(t *testing.T) {
	t.Parallel()
	vm, other := newVM(), newVM()
	large := `{"type":"x","y":"` + strings.Repeat("y", 64<<10) + `"}`
	for name, test := range map[string]struct {
		route, body string
		status      int
		word        string
	}{
		"event of another VM":          {vm + "/events", fmt.Sprintf(`{"type":"x","vm_id":%q}`, other), 400, "vm_id"},
		"heartbeat of another VM":      {vm + "/heartbeat", fmt.Sprintf(`{"vm_id":%q}`, other), 400, "vm_id"},
		"token for another VM":         {vm + "/registration-token", fmt.Sprintf(`{"vm_id":%q}`, other), 400, "vm_id"},
		"event without a type":         {vm + "/events", `{}`, 400, "type"},
		"event that is a path":         {vm + "/events", `{"type":"../x"}`, 400, "type"},
		"invalid time":                 {vm + "/events", `{"type":"x","timestamp":"yesterday"}`, 400, "timestamp"},
		"metadata that is not a map":   {vm + "/events", `{"type":"x","metadata":[]}`, 400, "metadata"},
		"body that is not JSON":        {vm + "/events", `{"type":`, 400, "body"},
		"body that is not an object":   {vm + "/events", `[]`, 400, "body"},
		"vm_id that is hidden":         {"_state/events", `{"type":"x"}`, 400, "vm_id"},
		"vm_id that is a path":         {"..%2fx/events", `{"type":"x"}`, 400, "vm_id"},
		"more than 64 KiB":             {vm + "/events", large, 413, "65536"},
		"health that is not an object": {vm + "/heartbeat", `{"vm_health":1}`, 400, "vm_health"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			status, answer := shared.call(t, http.MethodPost, shared.httpAddr, "/api/v1/vms/"+test.route, test.body)
			require.Equal(t, test.status, status, string(answer))
			require.Contains(t, decode[map[string]string](t, answer)["message"], test.word)
			for _, id := range []string{vm, other} {
				_, err := shared.admin.GetVM(t.Context(), &migcontrollerv1.GetVMRequest{VmId: id})
				requireCode(t, err, codeNotFound)
			}
		})
	}
}

// TestBearerTokenIsTolerated defends agents that send a bearer token: it has no effect.
func TestBearerTokenIsTolerated(t *testing.T) {
	t.Parallel()
	vm := newVM()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost,
		"http://"+shared.httpAddr+"/api/v1/vms/"+vm+"/events", strings.NewReader(`{"type":"job_started"}`))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json; charset=utf-8")
	req.Header.Set("Authorization", "Bearer whatever-it-is")
	res, err := shared.web.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	require.Equal(t, http.StatusOK, res.StatusCode)
	require.Empty(t, shared.log.lines("whatever-it-is"))
}

// TestMigctlWithAForeignPath defends users whose --address contains a path: migctl says so,
// and makes clear that no command was accepted.
func TestMigctlWithAForeignPath(t *testing.T) {
	t.Parallel()
	for _, line := range []string{"vms", "watch", "send vm-1 drain"} {
		var out, trouble bytes.Buffer
		args := append(strings.Fields(line), "--address", "http://"+shared.httpAddr+"/foo")
		code := cli.Main(args, strings.NewReader(""), &out, &trouble)
		require.Equal(t, 4, code, "%s: %s", line, trouble.String())
		require.Contains(t, trouble.String(), "there is nothing at this path", line)
		require.NotContains(t, trouble.String(), "may have been accepted", line)
	}
}
