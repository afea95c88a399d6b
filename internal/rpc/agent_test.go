package rpc

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/session"
)

// parse returns a JSON object as agents send it.
func parse(t *testing.T, text string) *structpb.Struct {
	t.Helper()
	s := &structpb.Struct{}
	require.NoError(t, unmarshalBody([]byte(text), s))
	return s
}

// nested returns a JSON object with objects nested depth deep.
func nested(depth int) string {
	return strings.Repeat(`{"type":"error","metadata":`, depth-1) + `{"type":"error"}` + strings.Repeat("}", depth-1)
}

// Known members of an event are read, and the event is stored unchanged.
func TestEventOf(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, test := range map[string]struct {
		sent string
		want fleet.Event
	}{
		"everything": {
			`{"type":"vm_started","timestamp":"2026-01-02T05:04:05+02:00","vm_id":"vm-1","pool_id":"p","org_id":"o",` +
				`"metadata":{"a":[1,null,true]},"memory":16384,"cpu":3.5,"odd":"<é>"}`,
			fleet.Event{
				Origin: fleet.Origin{VM: "vm-1", Pool: "p", Org: "o", Via: fleet.HTTP, SentAt: at}, Type: "vm_started",
				Body: json.RawMessage(`{"cpu":3.5,"memory":16384,"metadata":{"a":[1,null,true]},"odd":"\u003cé\u003e","org_id":"o",` +
					`"pool_id":"p","timestamp":"2026-01-02T05:04:05+02:00","type":"vm_started","vm_id":"vm-1"}`),
			},
		},
		"the least": {
			`{"type":"x"}`,
			fleet.Event{Origin: fleet.Origin{VM: "vm-1", Via: fleet.HTTP}, Type: "x", Body: json.RawMessage(`{"type":"x"}`)},
		},
		"null and empty are absent": {
			`{"type":"x","timestamp":null,"vm_id":"","pool_id":null,"org_id":"","metadata":null}`,
			fleet.Event{
				Origin: fleet.Origin{VM: "vm-1", Via: fleet.HTTP}, Type: "x",
				Body: json.RawMessage(`{"metadata":null,"org_id":"","pool_id":null,"timestamp":null,"type":"x","vm_id":""}`),
			},
		},
		"the zero time of Go is absent": {
			`{"type":"x","timestamp":"0001-01-01T00:00:00Z"}`,
			fleet.Event{
				Origin: fleet.Origin{VM: "vm-1", Via: fleet.HTTP}, Type: "x",
				Body: json.RawMessage(`{"timestamp":"0001-01-01T00:00:00Z","type":"x"}`),
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := eventOf(t.Context(), "vm-1", parse(t, test.sent))
			require.NoError(t, err)
			require.Equal(t, string(test.want.Body), string(got.Body))
			require.Equal(t, test.want, got)
		})
	}
}

// Known members of a heartbeat are read: sizes become bytes, within the range of an integer,
// and missing members stay unset.
func TestHeartbeatOf(t *testing.T) {
	t.Parallel()
	load := func(f float64) *float64 { return &f }
	for name, test := range map[string]struct {
		sent string
		want fleet.Heartbeat
	}{
		"everything": {
			`{"type":"job_heartbeat","timestamp":"2026-01-02T03:04:05Z","vm_id":"vm-1","pool_id":"p","org_id":"o",` +
				`"miglet_state":"job_running","runner_state":"running",` +
				`"vm_health":{"cpu_load":1.5,"memory_used":512.5,"memory_total":1024,"disk_used":0.5,"disk_total":100},` +
				`"current_job":{"job_id":"j","run_id":123456789012,"repository":"a/b","branch":"main","commit":"c","status":"s",` +
				`"started_at":"2026-01-02T03:00:00Z"}}`,
			fleet.Heartbeat{
				Origin: fleet.Origin{VM: "vm-1", Pool: "p", Org: "o", SentAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)},
				Status: "job_running", RunnerState: "running",
				Health: &fleet.Health{
					CPUPercent: load(1.5), MemoryUsedBytes: 512<<20 + 1<<19, MemoryTotalBytes: 1 << 30,
					DiskUsedBytes: 1 << 29, DiskTotalBytes: 100 << 30,
					MemoryPercent: load(50.048828125), DiskPercent: load(0.5),
				},
				Job: &fleet.Job{
					JobID: "j", RunID: "123456789012", Repository: "a/b", Branch: "main", Commit: "c", Status: "s",
					StartedAt: time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC),
				},
			},
		},
		"nothing":         {`{}`, fleet.Heartbeat{Origin: fleet.Origin{VM: "vm-1"}}},
		"nulls":           {`{"vm_health":null,"current_job":null,"runner_state":null}`, fleet.Heartbeat{Origin: fleet.Origin{VM: "vm-1"}}},
		"empty parts":     {`{"vm_health":{},"current_job":{"job_id":"","started_at":null}}`, fleet.Heartbeat{Origin: fleet.Origin{VM: "vm-1"}}},
		"zero is a value": {`{"vm_health":{"cpu_load":0}}`, fleet.Heartbeat{Origin: fleet.Origin{VM: "vm-1"}, Health: &fleet.Health{CPUPercent: load(0)}}},
		"sizes out of range": {
			`{"vm_health":{"memory_used":-1,"memory_total":1e300,"disk_used":8589934591.9999999,"disk_total":8589934592}}`,
			fleet.Heartbeat{Origin: fleet.Origin{VM: "vm-1"}, Health: &fleet.Health{
				MemoryTotalBytes: math.MaxInt64, DiskUsedBytes: math.MaxInt64, DiskTotalBytes: math.MaxInt64,
				DiskPercent: load(100),
			}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := heartbeatOf(t.Context(), "vm-1", parse(t, test.sent))
			require.NoError(t, err)
			require.JSONEq(t, test.sent, string(got.Body))
			test.want.Via, test.want.Body = fleet.HTTP, got.Body
			require.Equal(t, test.want, got)
		})
	}
}

// Protobuf has numbers that JSON does not have. They are dropped, and the report is accepted.
func TestNonFiniteNumbersAreDropped(t *testing.T) {
	t.Parallel()
	for _, n := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		health := &structpb.Struct{Fields: map[string]*structpb.Value{
			"cpu_load": structpb.NewNumberValue(n), "memory_used": structpb.NewNumberValue(n), "disk_used": {},
		}}
		h, err := heartbeatOf(t.Context(), "vm-1", &structpb.Struct{Fields: map[string]*structpb.Value{"vm_health": structpb.NewStructValue(health)}})
		require.NoError(t, err)
		require.Nil(t, h.Health)
		require.True(t, json.Valid(h.Body), string(h.Body))
	}
}

// A report that violates a rule is refused. The error names the member and the rule, and not
// the value.
func TestReportsThatBreakRules(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ sent, event, heartbeat string }{
		{sent: `{}`, event: "type must be 1 to 128 characters"},
		{sent: `{"type":""}`, event: "type must be 1 to 128 characters"},
		{sent: `{"type":"../SECRET"}`, event: "type must be 1 to 128 characters"},
		{sent: `{"type":5}`, event: "type must be a text", heartbeat: "type must be a text"},
		{sent: `{"type":"x","vm_id":"SECRET"}`, event: "vm_id must be the VM", heartbeat: "vm_id must be the VM"},
		{sent: `{"type":"x","vm_id":7}`, event: "vm_id must be a text", heartbeat: "vm_id must be a text"},
		{sent: `{"type":"x","pool_id":"SECRET/"}`, event: "pool_id must be 1 to", heartbeat: "pool_id must be 1 to"},
		{sent: `{"type":"x","pool_id":{}}`, event: "pool_id must be a text", heartbeat: "pool_id must be a text"},
		{sent: `{"type":"x","org_id":["SECRET"]}`, event: "org_id must be a text", heartbeat: "org_id must be a text"},
		{sent: `{"type":"x","org_id":"_SECRET"}`, event: "org_id must be 1 to", heartbeat: "org_id must be 1 to"},
		{sent: `{"type":"x","timestamp":1700000000}`, event: "timestamp must be a text", heartbeat: "timestamp must be a text"},
		{sent: `{"type":"x","timestamp":"SECRET"}`, event: "timestamp must be a time", heartbeat: "timestamp must be a time"},
		{sent: `{"type":"x","timestamp":"9999-12-31T23:59:59-01:00"}`, event: "timestamp must be a time", heartbeat: "timestamp must be a time"},
		{sent: `{"type":"x","timestamp":"0000-01-01T00:00:00Z"}`, event: "timestamp must be a time", heartbeat: "timestamp must be a time"},
		{sent: `{"type":"x","metadata":["SECRET"]}`, event: "metadata must be a JSON object"},
		{sent: `{"type":"x","miglet_state":"in between"}`, heartbeat: "miglet_state must be 1 to"},
		{sent: `{"type":"x","miglet_state":false}`, heartbeat: "miglet_state must be a text"},
		{sent: `{"type":"x","runner_state":{"state":"SECRET"}}`, heartbeat: "runner_state must be a text"},
		{sent: `{"type":"x","runner_state":"` + strings.Repeat("x", 129) + `"}`, heartbeat: "runner_state must be a text of at most 128 bytes"},
		{sent: `{"type":"x","vm_health":[]}`, heartbeat: "vm_health must be a JSON object"},
		{sent: `{"type":"x","vm_health":{"cpu_load":"SECRET"}}`, heartbeat: "vm_health.cpu_load must be a number"},
		{sent: `{"type":"x","vm_health":{"disk_total":true}}`, heartbeat: "vm_health.disk_total must be a number"},
		{sent: `{"type":"x","current_job":"SECRET"}`, heartbeat: "current_job must be a JSON object"},
		{sent: `{"type":"x","current_job":{"job_id":[]}}`, heartbeat: "current_job.job_id must be a text"},
		{sent: `{"type":"x","current_job":{"repository":1}}`, heartbeat: "current_job.repository must be a text"},
		{sent: `{"type":"x","current_job":{"started_at":"SECRET"}}`, heartbeat: "current_job.started_at must be a time"},
		{sent: nested(maxDepth + 1), event: "event must be nested at most 32 deep", heartbeat: "heartbeat must be nested at most 32 deep"},
	} {
		t.Run(test.sent[:min(40, len(test.sent))], func(t *testing.T) {
			t.Parallel()
			_, err := eventOf(t.Context(), "vm-1", parse(t, test.sent))
			requireRule(t, test.event, err)
			_, err = heartbeatOf(t.Context(), "vm-1", parse(t, test.sent))
			requireRule(t, test.heartbeat, err)
		})
	}
	_, err := eventOf(t.Context(), "vm-1", nil)
	requireRule(t, "event must be a JSON object", err)
	_, err = heartbeatOf(t.Context(), "vm-1", nil)
	requireRule(t, "heartbeat must be a JSON object", err)
	_, err = eventOf(t.Context(), "../vm-1", parse(t, `{"type":"x"}`))
	requireRule(t, "vm_id must be 1 to 128 characters", err)
	_, err = heartbeatOf(t.Context(), "", parse(t, `{}`))
	requireRule(t, "vm_id must be 1 to 128 characters", err)
}

// requireRule requires a *fleet.FieldError that begins with rule; no error if rule is empty.
func requireRule(t *testing.T, rule string, err error) {
	t.Helper()
	if rule == "" {
		require.NoError(t, err)
		return
	}
	var field *fleet.FieldError
	require.ErrorAs(t, err, &field)
	require.True(t, strings.HasPrefix(err.Error(), rule), "%q does not begin with %q", err, rule)
	require.NotContains(t, err.Error(), "SECRET")
}

// An event of the greatest depth can still be read by the decoders of other languages, which
// by default stop at 100 nested messages.
func TestDeepEventsCanBeShown(t *testing.T) {
	t.Parallel()
	e, err := eventOf(t.Context(), "vm-1", parse(t, nested(maxDepth)))
	require.NoError(t, err)
	shown, err := proto.Marshal(&migcontrollerv1.ListEventsResponse{Events: []*migcontrollerv1.Event{eventToProto(e)}})
	require.NoError(t, err)
	require.NoError(t, proto.UnmarshalOptions{RecursionLimit: 100}.Unmarshal(shown, &migcontrollerv1.ListEventsResponse{}))
}

// The response to vm_started is the acknowledgement that the agent waits for; the status of
// other events is "received".
func TestReportEvent(t *testing.T) {
	t.Parallel()
	fake := &fakeAgents{vm: fleet.VM{ID: "vm-1", Pool: "known-pool"}}
	started, err := agentService{fake}.ReportEvent(t.Context(), &migcontrollerv1.ReportEventRequest{
		VmId: "vm-1", Event: parse(t, `{"type":"vm_started"}`),
	})
	require.NoError(t, err)
	require.Equal(t, "acknowledged", started.GetStatus())
	require.True(t, started.GetAcknowledged())
	require.Equal(t, "vm-1", started.GetVmId())
	require.Equal(t, "known-pool", started.GetPoolId())
	require.NotNil(t, started.OrgId)
	require.Empty(t, started.GetOrgId())
	require.NotEmpty(t, started.GetMessage())
	require.Equal(t, receivedAt, started.GetTimestamp().AsTime())

	other, err := agentService{fake}.ReportEvent(t.Context(), &migcontrollerv1.ReportEventRequest{
		VmId: "vm-1", Event: parse(t, `{"type":"job_started"}`),
	})
	require.NoError(t, err)
	require.True(t, proto.Equal(&migcontrollerv1.ReportEventResponse{
		Status: "received", VmId: "vm-1", Message: "the event is recorded",
	}, other), other)
	require.Len(t, fake.events, 2)
}

// The response to vm_started has the parameters of a register_runner that is to be delivered,
// and the response to another event has not.
func TestReportEventDelivers(t *testing.T) {
	t.Parallel()
	expires := time.Date(2026, 1, 2, 4, 4, 5, 0, time.UTC)
	fake := &fakeAgents{vm: fleet.VM{ID: "vm-1"}, started: &session.Lease{
		Params: fleet.Params{
			Strings: map[string]string{"registration_token": "tok", "runner_url": "https://runners.example/x", "runner_group": "g", "more": "m"},
			List:    []string{"linux", "x64"},
		},
		TokenExpiresAt: expires,
	}}
	report := func(kind string) *migcontrollerv1.ReportEventResponse {
		resp, err := agentService{fake}.ReportEvent(t.Context(), &migcontrollerv1.ReportEventRequest{
			VmId: "vm-1", Event: parse(t, `{"type":"`+kind+`"}`),
		})
		require.NoError(t, err)
		return resp
	}
	started := report("vm_started")
	require.True(t, started.GetAcknowledged())
	require.Equal(t, "tok", started.GetRegistrationToken())
	require.Equal(t, expires, started.GetExpiresAt().AsTime())
	require.Equal(t, "https://runners.example/x", started.GetRunnerUrl())
	require.Equal(t, "g", started.GetRunnerGroup())
	require.Equal(t, []any{"linux", "x64"}, started.GetLabels().AsSlice())
	require.Nil(t, report("job_started").RegistrationToken)
}

// A polled command has all its parameters in one object, and those of register_runner have the
// names that agents expect.
func TestPolledCommand(t *testing.T) {
	t.Parallel()
	created := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, test := range map[string]struct {
		offer session.Lease
		want  string
	}{
		"register_runner": {
			session.Lease{
				Command: fleet.Command{ID: "c", Type: fleet.RegisterRunner, CreatedAt: created},
				Params: fleet.Params{
					Strings: map[string]string{"registration_token": "tok", "runner_url": "https://runners.example/x", "runner_group": "g"},
					List:    []string{"a", "b"},
				},
				TokenExpiresAt: created.Add(time.Hour),
			},
			`{"registration_token":"tok","runner_url":"https://runners.example/x","runner_group":"g","labels":["a","b"],` +
				`"expires_at":"2026-01-02T04:04:05Z"}`,
		},
		"register_runner with the least": {
			session.Lease{Command: fleet.Command{ID: "c", Type: fleet.RegisterRunner, CreatedAt: created}},
			`{"registration_token":"","runner_url":"","runner_group":"","labels":[]}`,
		},
		"all kinds": {
			session.Lease{
				Command: fleet.Command{ID: "c", Type: "update_config", CreatedAt: created},
				Params: fleet.Params{
					Strings: map[string]string{"s": "x"}, Ints: map[string]int64{"i": -7}, Bools: map[string]bool{"b": false},
					List: []string{"l"},
				},
			},
			`{"s":"x","i":-7,"b":false,"string_array_params":["l"]}`,
		},
		"integers that a double cannot hold": {
			session.Lease{
				Command: fleet.Command{ID: "c", Type: "x", CreatedAt: created},
				Params: fleet.Params{Ints: map[string]int64{
					"fits": 1 << 53, "falls": 1<<53 + 1, "low": -1 << 53, "lower": -1<<53 - 1, "most": math.MaxInt64, "least": math.MinInt64,
				}},
			},
			`{"fits":9007199254740992,"falls":"9007199254740993","low":-9007199254740992,"lower":"-9007199254740993",` +
				`"most":"9223372036854775807","least":"-9223372036854775808"}`,
		},
		"three with the same name": {
			session.Lease{
				Command: fleet.Command{ID: "c", Type: "x", CreatedAt: created},
				Params: fleet.Params{
					Strings: map[string]string{"a": "text", "string_array_params": "text"},
					Ints:    map[string]int64{"a": 1, "b": 1}, Bools: map[string]bool{"a": true, "b": true},
					List: []string{"l"},
				},
			},
			`{"a":"text","b":1,"string_array_params":["l"]}`,
		},
		"none": {session.Lease{Command: fleet.Command{ID: "c", Type: "drain", CreatedAt: created}}, `{}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := agentService{&fakeAgents{leases: []session.Lease{test.offer}}}.PollCommands(
				t.Context(), &migcontrollerv1.PollCommandsRequest{VmId: "vm-1"})
			require.NoError(t, err)
			require.Len(t, got.GetCommands(), 1)
			cmd := got.GetCommands()[0]
			require.Equal(t, "c", cmd.GetId())
			require.Equal(t, test.offer.Command.Type, cmd.GetType())
			require.Equal(t, created, cmd.GetCreatedAt().AsTime())
			params, err := json.Marshal(cmd.GetParameters().AsMap())
			require.NoError(t, err)
			require.JSONEq(t, test.want, string(params))
		})
	}
}
