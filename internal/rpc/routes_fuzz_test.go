package rpc

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// With a working store no request to the routes gets a 5xx status, and every response is JSON
// in one of the documented forms.
func FuzzRoutes(f *testing.F) {
	for _, r := range agentRoutes {
		f.Add(r.Method, strings.Replace(r.Pattern, "{vm_id}", "vm-1", 1), "application/json", []byte(`{"type":"vm_started"}`))
	}
	f.Add("POST", "/api/v1/vms/vm-1/heartbeat?vm_id=x", "application/json;charset=utf-8",
		[]byte(`{"vm_health":{"cpu_load":1},"current_job":{"run_id":1e300},"timestamp":"2026-01-02T03:04:05Z"}`))
	f.Add("POST", "/api/v1/vms/vm-1/registration-token", "application/json", []byte(`{"labels":["a"],"vmId":"b","orgId":1}`))
	f.Add("HEAD", "/api/v1/vms/%2e%2e/commands", "", []byte(nil))
	f.Add("POST", "/api//v1", "application/grpc", []byte{0, 0, 0, 0, 0})
	f.Add("POST", "/api/v1/vms/vm-1/events:x", "application/json", []byte(nested(40)))
	fake := &fakeAgents{}
	handler := NewHandler(config(fake))
	f.Fuzz(func(t *testing.T, method, path, contentType string, body []byte) {
		target, err := url.ParseRequestURI(path)
		if err != nil || !strings.HasPrefix(target.Path, "/api/") {
			return // not one of the agents' routes
		}
		recorder := httptest.NewRecorder()
		handler.ServeHTTP(recorder, &http.Request{
			Method: method, URL: target, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Host: "x",
			Header: http.Header{"Content-Type": {contentType}},
			Body:   io.NopCloser(bytes.NewReader(body)), ContentLength: -1,
		})
		got := answer{recorder.Code, recorder.Header(), recorder.Body.String()}
		require.Less(t, got.status, 500, got.body)
		require.Equal(t, "application/json", got.header.Get("Content-Type"))
		require.True(t, json.Valid([]byte(got.body)), got.body)
		if got.status != http.StatusOK {
			require.GreaterOrEqual(t, got.status, 400)
			requireError(t, got)
		}
		fake.mu.Lock()
		defer fake.mu.Unlock()
		for _, e := range fake.events {
			require.NoError(t, e.Check())
			requireAsSent(t, body, e.Body)
		}
		for _, h := range fake.heartbeats {
			require.NoError(t, h.Check())
			_, err := json.Marshal(h)
			require.NoError(t, err)
			requireAsSent(t, body, h.Body)
		}
		fake.events, fake.heartbeats, fake.polls, fake.tokens = nil, nil, nil, nil
	})
}

func requireAsSent(t *testing.T, sent, kept []byte) {
	t.Helper()
	var want bytes.Buffer
	require.NoError(t, json.Compact(&want, sent))
	require.Equal(t, want.String(), string(kept))
}
