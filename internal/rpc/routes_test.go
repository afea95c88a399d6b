package rpc

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/registration"
	"github.com/mig-controller/mig-controller/internal/session"
)

// Every route returns exactly the JSON that agents expect.
func TestRoutesAnswer(t *testing.T) {
	t.Parallel()
	fake := &fakeAgents{
		vm: fleet.VM{ID: "vm-1", Pool: "pool-1"},
		leases: []session.Lease{{
			Command: fleet.Command{ID: "c-1", Type: fleet.RegisterRunner, CreatedAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)},
			Params: fleet.Params{
				Strings: map[string]string{"registration_token": "tok", "runner_url": "https://runners.example/a?b&c", "runner_group": ""},
				List:    []string{"linux", "x64"},
			},
			TokenExpiresAt: time.Date(2026, 1, 2, 4, 4, 5, 0, time.UTC),
		}},
		runner: registration.Runner{
			Token: "tok", ExpiresAt: time.Date(2026, 1, 2, 4, 4, 5, 0, time.UTC), URL: "https://runners.example/a", Labels: nil,
		},
	}
	base := "http://" + serve(t, NewHandler(config(fake))) + "/api/v1/vms/vm-1"
	delivering := "http://" + serve(t, NewHandler(config(&fakeAgents{vm: fake.vm, started: &fake.leases[0]}))) + "/api/v1/vms/vm-1"
	idle := "http://" + serve(t, NewHandler(config(&fakeAgents{}))) + "/api/v1/vms/vm-1"

	for name, version := range httpVersions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := client(t, version)
			for _, test := range []struct{ method, url, body, want string }{
				{
					"POST", base + "/events", `{"type":"vm_started","vm_id":"vm-1","odd":{"a":[1]}}`,
					`{"status":"acknowledged","acknowledged":true,"vm_id":"vm-1","pool_id":"pool-1","org_id":"",` +
						`"message":"the start of the VM is recorded","timestamp":"2026-01-02T03:04:05.060Z"}`,
				},
				{
					"POST", delivering + "/events", `{"type":"vm_started"}`,
					`{"status":"acknowledged","acknowledged":true,"vm_id":"vm-1","pool_id":"pool-1","org_id":"",` +
						`"message":"the start of the VM is recorded","timestamp":"2026-01-02T03:04:05.060Z",` +
						`"registration_token":"tok","expires_at":"2026-01-02T04:04:05Z","runner_url":"https://runners.example/a?b&c",` +
						`"runner_group":"","labels":["linux","x64"]}`,
				},
				{
					"POST", base + "/events", `{"type":"job_started","job_id":"1"}`,
					`{"status":"received","acknowledged":false,"vm_id":"vm-1","message":"the event is recorded"}`,
				},
				{
					"POST", base + "/heartbeat", `{"type":"job_heartbeat","runner_state":"idle"}`,
					`{"status":"received","vm_id":"vm-1","message":"the heartbeat is recorded"}`,
				},
				{"GET", idle + "/commands", "", `{"commands":[],"vm_id":"vm-1"}`},
				{
					"GET", base + "/commands", "",
					`{"commands":[{"id":"c-1","type":"register_runner","parameters":{"expires_at":"2026-01-02T04:04:05Z",` +
						`"labels":["linux","x64"],"registration_token":"tok","runner_group":"","runner_url":"https://runners.example/a?b&c"},` +
						`"created_at":"2026-01-02T03:04:05Z"}],"vm_id":"vm-1"}`,
				},
				{
					"POST", base + "/registration-token", `{"org_id":"o","pool_id":"p","runner_group":"g","labels":["a"],"odd":1}`,
					`{"registration_token":"tok","expires_at":"2026-01-02T04:04:05Z","runner_url":"https://runners.example/a",` +
						`"runner_group":"","labels":[]}`,
				},
			} {
				got := do(t, c, test.method, test.url, test.body, "Content-Type", "application/json")
				require.Equal(t, http.StatusOK, got.status, got.body)
				require.Equal(t, test.want, got.body)
				require.Equal(t, "application/json", got.header.Get("Content-Type"))
				require.Equal(t, "nosniff", got.header.Get("X-Content-Type-Options"))
				require.Equal(t, "no-store", got.header.Get("Cache-Control"))
				require.Empty(t, got.header.Get("Content-Encoding"))
				require.NotContains(t, got.header, "Accept-Encoding")
			}
		})
	}
}

// Requests are passed on: the VM of the path, and the body with unknown members.
func TestRoutesPassOn(t *testing.T) {
	t.Parallel()
	fake := &fakeAgents{}
	base := "http://" + serve(t, NewHandler(config(fake))) + "/api/v1/vms/vm-1"
	c := client(t, 1)
	require.Equal(t, 200, post(t, c, base+"/events?vm_id=vm-2&connect=v1&event=x", `{"type":"odd","odd":{"a":[1,null]}}`).status)
	require.Equal(t, 200, post(t, c, base+"/heartbeat", `{"miglet_state":"idle","odd":1.5}`).status)
	require.Equal(t, 200, do(t, c, "GET", base+"/commands?vm_id=vm-2", "").status)
	require.Equal(t, 200, post(t, c, base+"/registration-token?vm_id=vm-2", `{"vm_id":"vm-1","runner_group":"g","labels":["a","b"]}`).status)

	require.Len(t, fake.events, 1)
	require.Equal(t, fleet.VMID("vm-1"), fake.events[0].VM)
	require.JSONEq(t, `{"type":"odd","odd":{"a":[1,null]}}`, string(fake.events[0].Body))
	require.Len(t, fake.heartbeats, 1)
	require.Equal(t, fleet.VMID("vm-1"), fake.heartbeats[0].VM)
	require.JSONEq(t, `{"miglet_state":"idle","odd":1.5}`, string(fake.heartbeats[0].Body))
	require.Equal(t, []fleet.VMID{"vm-1"}, fake.polls)
	require.Equal(t, []tokenCall{{"vm-1", "g", []string{"a", "b"}}}, fake.tokens)
}

// Headers of other protocols are ignored, and every valid form of the Content-Type of JSON is
// accepted.
func TestRoutesAcceptUnusualHeaders(t *testing.T) {
	t.Parallel()
	base := "http://" + serve(t, NewHandler(config(&fakeAgents{}))) + "/api/v1/vms/vm-1"
	for name, version := range httpVersions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := client(t, version)
			for _, headers := range [][]string{
				{"Content-Type", "application/json; charset=utf-8"},
				{"Content-Type", `Application/JSON;charset="UTF-8"`},
				{"Content-Type", "application/json", "Content-Encoding", "identity"},
				{"Content-Type", "application/json", "Accept-Encoding", "gzip"},
				{"Content-Type", "application/json", "Accept", "text/html"},
				{"Content-Type", "application/json", "Connect-Protocol-Version", "1", "Connect-Timeout-Ms", "x"},
				{"Content-Type", "application/json", "X-Server-Timeout", "x"},
				{"Content-Type", "application/json", "Grpc-Timeout", "1n", "Grpc-Encoding", "gzip"},
				{"Content-Type", "application/json", "Authorization", "Bearer x"},
			} {
				got := do(t, c, "POST", base+"/events", `{"type":"vm_started"}`, headers...)
				require.Equal(t, 200, got.status, "%v: %s", headers, got.body)
				require.Empty(t, got.header.Get("Content-Encoding"))
				require.Contains(t, got.body, `"acknowledged":true`)
			}
			got := do(t, c, "GET", base+"/commands", "", "Content-Type", "text/plain", "Connect-Protocol-Version", "1")
			require.Equal(t, 200, got.status, got.body)
		})
	}
}

// An invalid request is refused in the usual form, with a status and a reason, and without
// side effects.
func TestRoutesRefuse(t *testing.T) {
	t.Parallel()
	const asJSON = "application/json"
	large := `{"type":"x","text":"` + strings.Repeat("x", 64<<10) + `"}`
	fake := &fakeAgents{}
	base := "http://" + serve(t, NewHandler(config(fake)))
	for name, version := range httpVersions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := client(t, version)
			for _, test := range []struct {
				method, path, body, contentType string
				status                          int
				code, message                   string
			}{
				{"GET", "/api/v1/vms/vm-1/events", "", "", 405, "unimplemented", "method must be POST"},
				{"PUT", "/api/v1/vms/vm-1/heartbeat", "{}", asJSON, 405, "unimplemented", "method must be POST"},
				{"OPTIONS", "/api/v1/vms/vm-1/registration-token", "", "", 405, "unimplemented", "method must be POST"},
				{"POST", "/api/v1/vms/vm-1/commands", "{}", asJSON, 405, "unimplemented", "method must be GET"},
				{"BREW", "/api/v1/vms/vm-1/commands", "", "", 405, "unimplemented", "method must be GET"},
				{"GET", "/api/v1/vms/vm-1", "", "", 404, "not_found", "nothing at this path"},
				{"POST", "/api/v2/vms/vm-1/events", "{}", asJSON, 404, "not_found", "nothing at this path"},
				{"GET", "/api/v1/vms/..%2Fvm-1/commands", "", "", 400, "invalid_argument", "vm_id must be"},
				{"GET", "/api/v1/vms/a%2Fb/commands", "", "", 400, "invalid_argument", "vm_id must be"},
				{"GET", "/api/v1/vms/a%252Fb/commands", "", "", 400, "invalid_argument", "vm_id must be"},
				{"GET", "/api/v1/vms/a%00/commands", "", "", 400, "invalid_argument", "vm_id must be"},
				{"GET", "/api/v1/vms/%2e%2e/commands", "", "", 400, "invalid_argument", "vm_id must be"},
				{"GET", "/api/v1/vms/%FF/commands", "", "", 400, "invalid_argument", "vm_id must be"},
				{"GET", "/api/v1/vms/_state/commands", "", "", 400, "invalid_argument", "vm_id must be"},
				{"GET", "/api/v1/vms/a:b/commands", "", "", 400, "invalid_argument", "vm_id must be"},
				{"GET", "/api/v1/vms/%7Bvm_id%7D/commands", "", "", 400, "invalid_argument", "vm_id must be"},
				{"GET", "/api/v1/vms/" + strings.Repeat("a", 129) + "/commands", "", "", 400, "invalid_argument", "vm_id must be"},
				{"POST", "/api/v1/vms/_/events", large, "text/plain", 400, "invalid_argument", "vm_id must be"},
				{"POST", "/api/v1/vms/vm-1/events", "{}", "", 415, "invalid_argument", "Content-Type must be application/json"},
				{"POST", "/api/v1/vms/vm-1/events", "{}", "text/json", 415, "invalid_argument", "Content-Type must be application/json"},
				{"POST", "/api/v1/vms/vm-1/events", "{}", "application/json; charset=latin1", 415, "invalid_argument", "Content-Type must be"},
				{"POST", "/api/v1/vms/vm-1/events", "{}", "application/json; =", 415, "invalid_argument", "Content-Type must be"},
				{"POST", "/api/v1/vms/vm-1/events", "{}", "application/grpc+json", 415, "invalid_argument", "Content-Type must be"},
				{"POST", "/api/v1/vms/vm-1/heartbeat", large, asJSON, 413, "resource_exhausted", "the body must have at most 65536 bytes"},
				{"POST", "/api/v1/vms/vm-1/events", "", asJSON, 400, "invalid_argument", "body must be a JSON object"},
				{"POST", "/api/v1/vms/vm-1/registration-token", "", asJSON, 400, "invalid_argument", "body must be a JSON object"},
				{"POST", "/api/v1/vms/vm-1/events", "null", asJSON, 400, "invalid_argument", "body must be a JSON object"},
				{"POST", "/api/v1/vms/vm-1/events", "[]", asJSON, 400, "invalid_argument", "body must be a JSON object"},
				{"POST", "/api/v1/vms/vm-1/heartbeat", `"x"`, asJSON, 400, "invalid_argument", "body must be a JSON object"},
				{"POST", "/api/v1/vms/vm-1/events", "{\n\"type\":}", asJSON, 400, "invalid_argument", "it is not at line 2:8"},
				{"POST", "/api/v1/vms/vm-1/events", `{"type":"x"`, asJSON, 400, "invalid_argument", "body must be a JSON object"},
				{"POST", "/api/v1/vms/vm-1/events", `{"type":"x"}{}`, asJSON, 400, "invalid_argument", "body must be a JSON object"},
				{"POST", "/api/v1/vms/vm-1/events", `{"type":"x","type":"y"}`, asJSON, 400, "invalid_argument", "no member named twice"},
				{"POST", "/api/v1/vms/vm-1/events", `{"type":"\ud800"}`, asJSON, 400, "invalid_argument", "body must be a JSON object"},
				{"POST", "/api/v1/vms/vm-1/events", "{\"type\":\"\xff\"}", asJSON, 400, "invalid_argument", "body must be a JSON object"},
				{"POST", "/api/v1/vms/vm-1/events", "\ufeff{}", asJSON, 400, "invalid_argument", "body must be a JSON object"},
				{"POST", "/api/v1/vms/vm-1/events", nested(maxDepth + 1), asJSON, 400, "invalid_argument", "event must be nested at most 32 deep"},
				{"POST", "/api/v1/vms/vm-1/events", nested(2000), asJSON, 400, "invalid_argument", "nested at most 32 deep"},
				{"POST", "/api/v1/vms/vm-1/events", strings.Repeat("[", 64<<10), asJSON, 400, "invalid_argument", "body must be a JSON object"},
				{"POST", "/api/v1/vms/vm-1/registration-token", `{"a":` + strings.Repeat("[", 60<<10), asJSON, 400, "invalid_argument", "nested at most 32 deep"},
				{"POST", "/api/v1/vms/vm-1/events", "{}", asJSON, 400, "invalid_argument", "type must be 1 to 128"},
				{"POST", "/api/v1/vms/vm-1/events", `{"type":"x","vm_id":"vm-2"}`, asJSON, 400, "invalid_argument", "vm_id must be the VM that the request is for"},
				{"POST", "/api/v1/vms/vm-1/heartbeat", `{"vm_id":"vm-2"}`, asJSON, 400, "invalid_argument", "vm_id must be the VM that the request is for"},
				{"POST", "/api/v1/vms/vm-1/registration-token", `{"vm_id":"vm-2"}`, asJSON, 400, "invalid_argument", "vm_id must be the VM that the request is for"},
				{"POST", "/api/v1/vms/vm-1/heartbeat", `{"vm_health":{"cpu_load":"x"}}`, asJSON, 400, "invalid_argument", "vm_health.cpu_load must be a number"},
				{"POST", "/api/v1/vms/vm-1/registration-token", `{"labels":"a"}`, asJSON, 400, "invalid_argument", "labels must be a list of texts"},
				{"POST", "/api/v1/vms/vm-1/registration-token", `{"labels":["a",1]}`, asJSON, 400, "invalid_argument", "labels must be a list of texts"},
				{"POST", "/api/v1/vms/vm-1/registration-token", `{"labels":[""]}`, asJSON, 400, "invalid_argument", "labels must have texts"},
				{"POST", "/api/v1/vms/vm-1/registration-token", `{"runner_group":5}`, asJSON, 400, "invalid_argument", "runner_group must be a text"},
				{"POST", "/api/v1/vms/vm-1/registration-token", `{"runnerGroup":5}`, asJSON, 400, "invalid_argument", "it is not at line 1:16"},
				{"POST", "/api/v1/vms/vm-1/registration-token", `{"pool_id":"a/b"}`, asJSON, 400, "invalid_argument", "pool_id must be 1 to"},
			} {
				got := do(t, c, test.method, base+test.path, test.body, "Content-Type", test.contentType)
				where := fmt.Sprintf("%s %s %.60s", test.method, test.path, test.body)
				require.Equal(t, test.status, got.status, where)
				requireError(t, got)
				require.Contains(t, got.body, `"code":"`+test.code+`"`, where)
				require.Contains(t, got.body, test.message, where)
				if test.status == 405 {
					require.Contains(t, test.message, got.header.Get("Allow"), where)
				}
			}
			require.Zero(t, fake.calls())
		})
	}
}

// HEAD does not poll: a command that it leased would be lost.
func TestHeadDeliversNothing(t *testing.T) {
	t.Parallel()
	fake := &fakeAgents{}
	got := do(t, client(t, 1), "HEAD", "http://"+serve(t, NewHandler(config(fake)))+"/api/v1/vms/vm-1/commands", "")
	require.Equal(t, 405, got.status)
	require.Equal(t, "GET", got.header.Get("Allow"))
	require.Equal(t, "application/json", got.header.Get("Content-Type"))
	require.Zero(t, fake.calls())
}

// Errors of the store and the token source are mapped to a status, and their causes are not
// disclosed.
func TestRoutesMapErrors(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		err    error
		status int
		body   string
	}{
		{fmt.Errorf("%w: secret detail", fleet.ErrUnavailable), 503, `{"code":"unavailable","message":"` + fleet.ErrUnavailable.Error() + `"}`},
		{fmt.Errorf("%w: secret detail", fleet.ErrNoToken), 503, `{"code":"unavailable","message":"no registration token is available"}`},
		{errors.New("secret detail"), 500, `{"code":"internal","message":"internal error"}`},
		{fleet.Invalid("type", "must be <odd>"), 400, `{"code":"invalid_argument","message":"type must be \u003codd\u003e"}`},
	} {
		base := "http://" + serve(t, NewHandler(config(&fakeAgents{err: test.err}))) + "/api/v1/vms/vm-1"
		c := client(t, 1)
		for _, got := range []answer{
			post(t, c, base+"/events", `{"type":"x"}`),
			post(t, c, base+"/heartbeat", `{}`),
			post(t, c, base+"/registration-token", `{}`),
			do(t, c, "GET", base+"/commands", "", "Accept-Encoding", "gzip"),
		} {
			require.Equal(t, test.status, got.status)
			requireError(t, got)
			require.Equal(t, test.body, got.body)
			require.Equal(t, "no-store", got.header.Get("Cache-Control"))
		}
	}
}

// A panic of a handler returns an error like others and does not break the connection.
func TestRoutesSurvivePanics(t *testing.T) {
	t.Parallel()
	c := config(nil)
	c.Agents = nil // every call of it panics
	got := post(t, client(t, 1), "http://"+serve(t, NewHandler(c))+"/api/v1/vms/vm-1/events", `{"type":"x"}`)
	require.Equal(t, 500, got.status)
	require.JSONEq(t, `{"code":"internal","message":"internal error"}`, got.body)
}

// Responses are not limited like requests: the largest command is delivered.
func TestLargeAnswer(t *testing.T) {
	t.Parallel()
	params := map[string]string{}
	for i := range 60 {
		params[strconv.Itoa(i)] = strings.Repeat("\x01", fleet.MaxParamLength)
	}
	fake := &fakeAgents{leases: []session.Lease{{Command: fleet.Command{ID: "c", Type: "x"}, Params: fleet.Params{Strings: params}}}}
	got := do(t, client(t, 1), "GET", "http://"+serve(t, NewHandler(config(fake)))+"/api/v1/vms/vm-1/commands", "")
	require.Equal(t, 200, got.status)
	require.Greater(t, len(got.body), 60*fleet.MaxParamLength)
	require.True(t, json.Valid([]byte(got.body)))
}
