package rpc

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
	"github.com/mig-controller/mig-controller/internal/control"
	"github.com/mig-controller/mig-controller/internal/fleet"
)

// minute returns a time that differs for each n.
func minute(n int) time.Time { return time.Date(2030, 1, 2, 3, n, 0, 0, time.UTC) }

// fullCommand, fullVM and fullEvent set every field.
func fullCommand() fleet.Command {
	return fleet.Command{
		Seq: 7, ID: "c1", VM: "vm-1", Type: "update_config",
		Params: fleet.Params{
			Strings: map[string]string{"a": "b"}, Ints: map[string]int64{"n": math.MaxInt64},
			Bools: map[string]bool{"t": true}, List: []string{"x", "y"},
		},
		CreatedAt: minute(1), AcceptedAt: minute(2), ExpiresAt: minute(3), AckTimeout: 1500 * time.Millisecond,
		State: fleet.Failed, Last: fleet.Delivery{Via: fleet.Stream, Epoch: 2, Boot: 1, At: minute(4)}, Attempts: 2,
		FinishedAt: minute(5), AckedAt: minute(6), Reason: "because", MaxDeliveries: 4,
		Waiting:     fleet.Waiting{Reason: "waits", Since: minute(7)},
		RequestedBy: "alice", CancelledBy: "bob",
		Trace: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		Ack:   &fleet.Ack{CommandID: "c1", Success: true, Message: "m", Result: map[string]string{"r": "s"}},
	}
}

func fullVM() fleet.VM {
	cpu, memory, disk := 1.5, 2.5, 0.0
	return fleet.VM{
		ID: "vm-1", Pool: "p", Org: "o", AgentVersion: "1.2", Connected: true, Epoch: 3, Boot: 2,
		StartedAt: minute(1), Status: "idle",
		Runner: &fleet.Runner{State: "idle", Configured: true, Name: "r", Labels: []string{"l"}},
		Job: &fleet.Job{
			JobID: "j", RunID: "n", Repository: "a/b", Branch: "main", Commit: "abc", Status: "busy", StartedAt: minute(2),
		},
		Health: &fleet.Health{
			CPUPercent: &cpu, MemoryPercent: &memory, DiskPercent: &disk,
			MemoryTotalBytes: 4, MemoryUsedBytes: 3, DiskTotalBytes: 2, DiskUsedBytes: 1,
		},
		Machine: &fleet.Machine{Type: "m1", Region: "r1", CPU: 8, MemoryBytes: 5, DiskBytes: 6},
		Registration: fleet.Registration{
			State: fleet.Requested, Command: "c1", RequestedAt: minute(3), ProvenAt: minute(4), Epoch: 3,
			Failures: 2, LastFailure: fleet.RegistrationFailure{At: minute(11), Command: "c0", Reason: "refused"}, NextAttemptAt: minute(12),
		},
		FirstSeenAt: minute(5), LastSeenAt: minute(6), ConnectedAt: minute(7), DisconnectedAt: minute(8),
		LastHeartbeatAt: minute(9), LastAckAt: minute(10), SpentAt: minute(13), CrashedAt: minute(14), ContestedAt: minute(15),
	}
}

func fullEvent() fleet.Event {
	return fleet.Event{
		Seq: 9, Type: "job_completed", Body: json.RawMessage(`{"success":true,"n":[1,{"a":null}]}`),
		Origin: fleet.Origin{
			VM: "vm-1", Pool: "p", Org: "o", Via: fleet.Stream, Epoch: 2, ReceivedAt: minute(1), SentAt: minute(2),
		},
	}
}

func keptHeartbeat() fleet.Heartbeat {
	v := fullVM()
	return fleet.Heartbeat{
		Origin: fullEvent().Origin, Status: "idle", Runner: v.Runner, Job: v.Job, Health: v.Health,
		Body: json.RawMessage(`{"type":"job_heartbeat"}`),
	}
}

// requireComplete requires every field of a message to be set.
func requireComplete(t *testing.T, m proto.Message) {
	t.Helper()
	fields := m.ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		require.True(t, m.ProtoReflect().Has(f), "%s is not set", f.FullName())
		if f.Message() != nil && !f.IsMap() && !f.IsList() && f.Message().ParentFile().Package() != "google.protobuf" {
			requireComplete(t, m.ProtoReflect().Get(f).Message().Interface())
		}
	}
}

func requireJSON(t *testing.T, want string, m proto.Message) {
	t.Helper()
	got, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	require.NoError(t, err)
	require.JSONEq(t, want, string(got))
}

// Every field of a record is converted to the field of the same name.
func TestConversionsAreComplete(t *testing.T) {
	t.Parallel()
	command, vm, event := commandToProto(fullCommand()), vmToProto(fullVM(), adminNow()), eventToProto(fullEvent())
	requireComplete(t, command)
	requireComplete(t, vm)
	requireComplete(t, event)
	requireComplete(t, heartbeatToProto(keptHeartbeat()))
	state := heartbeatToProto(fleet.Heartbeat{RunnerState: "busy"}).GetRunner().GetState()
	require.Equal(t, "busy", state, "the only field of agents without a stream")
	requireJSON(t, `{
		"command": {
			"id": "c1", "type": "update_config", "string_params": {"a": "b"}, "int_params": {"n": "9223372036854775807"},
			"bool_params": {"t": true}, "string_array_params": ["x", "y"], "created_at": "1893553260"
		},
		"vm_id": "vm-1", "state": "COMMAND_STATE_FAILED", "accepted_at": "2030-01-02T03:02:00Z",
		"expires_at": "2030-01-02T03:03:00Z", "ack_timeout": "1.500s", "delivered_at": "2030-01-02T03:04:00Z",
		"finished_at": "2030-01-02T03:05:00Z", "attempts": 2,
		"ack": {"command_id": "c1", "success": true, "message": "m", "result": {"r": "s"}},
		"acked_at": "2030-01-02T03:06:00Z", "reason": "because", "max_deliveries": 4,
		"waiting": {"reason": "waits", "since": "2030-01-02T03:07:00Z"},
		"trace_id": "0af7651916cd43dd8448eb211c80319c", "requested_by": "alice", "cancelled_by": "bob"
	}`, command)
	requireJSON(t, `{
		"vm_id": "vm-1", "pool_id": "p", "org_id": "o", "connected": true, "status": "idle",
		"runner": {"state": "idle", "configured": true, "name": "r", "labels": ["l"]},
		"registration": {
			"state": "REGISTRATION_STATE_REQUESTED", "command_id": "c1",
			"requested_at": "2030-01-02T03:03:00Z", "registered_at": "2030-01-02T03:04:00Z", "consecutive_failures": 2,
			"last_failure": {"failed_at": "2030-01-02T03:11:00Z", "command_id": "c0", "reason": "refused"},
			"next_attempt_at": "2030-01-02T03:12:00Z"
		},
		"current_job": {
			"job_id": "j", "run_id": "n", "repository": "a/b", "branch": "main", "commit": "abc", "status": "busy",
			"started_at": "2030-01-02T03:02:00Z"
		},
		"health": {
			"cpu_usage_percent": 1.5, "memory_usage_percent": 2.5, "disk_usage_percent": 0,
			"memory_total_bytes": "4", "memory_used_bytes": "3", "disk_total_bytes": "2", "disk_used_bytes": "1"
		},
		"machine": {"machine_type": "m1", "region": "r1", "cpu": 8, "memory_bytes": "5", "disk_bytes": "6"},
		"agent_version": "1.2", "session_epoch": "3", "boot": "2",
		"first_seen_at": "2030-01-02T03:05:00Z", "last_seen_at": "2030-01-02T03:06:00Z",
		"connected_at": "2030-01-02T03:07:00Z", "disconnected_at": "2030-01-02T03:08:00Z",
		"last_heartbeat_at": "2030-01-02T03:09:00Z", "last_ack_at": "2030-01-02T03:10:00Z",
		"spent_at": "2030-01-02T03:13:00Z", "runner_crashed_at": "2030-01-02T03:14:00Z", "contested_at": "2030-01-02T03:15:00Z",
		"waiting": {"reason": "waits for its runner to register, by command c1", "since": "2030-01-02T03:03:00Z"}
	}`, vm)
	requireJSON(t, `{
		"event_id": "9", "vm_id": "vm-1", "pool_id": "p", "org_id": "o", "type": "job_completed",
		"received_at": "2030-01-02T03:01:00Z", "occurred_at": "2030-01-02T03:02:00Z",
		"source": "REPORT_SOURCE_STREAM", "body": {"success": true, "n": [1, {"a": null}]}
	}`, event)
}

// Unknown values are unset, not a zero time or an empty message.
func TestConversionsLeaveTheUnknownUnset(t *testing.T) {
	t.Parallel()
	requireJSON(t, `{
		"command": {"id": "c1", "type": "drain", "created_at": "1893553260"}, "vm_id": "vm-1",
		"state": "COMMAND_STATE_PENDING", "ack_timeout": "0s", "max_deliveries": 5,
		"reason": "waits to be delivered", "waiting": {"reason": "waits to be delivered"}
	}`, commandToProto(fleet.Command{ID: "c1", VM: "vm-1", Type: "drain", CreatedAt: minute(1), State: fleet.Pending}))
	requireJSON(t, `{
		"vm_id": "vm-1", "boot": "1", "registration": {"state": "REGISTRATION_STATE_UNREGISTERED"}
	}`, vmToProto(fleet.VM{ID: "vm-1", Boot: 1, Registration: fleet.Registration{State: fleet.Unregistered}}, adminNow()))
	requireJSON(t, `{"type": "error"}`, eventToProto(fleet.Event{Type: "error"}))
	require.Nil(t, vmToProto(fleet.VM{Health: &fleet.Health{}}, adminNow()).GetHealth().CpuUsagePercent)
}

// Secrets are never returned, neither those of open commands nor a registration token that was
// stored by mistake.
func TestSecretsAreNotShown(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{fleet.RegisterRunner, "update_config"} {
		c := fullCommand()
		c.Type = kind
		c.Params.Strings = map[string]string{"a": "b", fleet.RegistrationTokenParam: "very secret"}
		c.Ack.Result = map[string]string{"new_token": "very secret"}
		shown := commandToProto(c)
		require.Equal(t, map[string]string{"a": "b", fleet.RegistrationTokenParam: fleet.Hidden}, shown.GetCommand().GetStringParams())
		require.NotContains(t, shown.String(), "very secret")
		require.Len(t, c.Params.Strings, 2, "the record itself is unchanged")

		update := updateToProto(control.Update{Change: &fleet.Change{Command: &c}})
		require.NotContains(t, update.String(), "very secret")
	}
}

// The enums of the schema match the domain's values in both directions.
func TestEnumsMatchTheDomain(t *testing.T) {
	t.Parallel()
	seen := map[protoreflect.EnumNumber]bool{0: true}
	for _, s := range fleet.CommandStates {
		shown := commandStateToProto(s)
		require.NotZero(t, shown, s)
		seen[shown.Number()] = true
		back, err := commandStatesFromProto([]migcontrollerv1.CommandState{shown})
		require.NoError(t, err)
		require.Equal(t, []string{string(s)}, back)
	}
	require.Len(t, seen, len(migcontrollerv1.CommandState_name))

	seen = map[protoreflect.EnumNumber]bool{0: true}
	for _, s := range []fleet.RegistrationState{fleet.Unregistered, fleet.Requested, fleet.Registered, fleet.RegFailed} {
		shown := registrationToProto(fleet.Registration{State: s}).GetState()
		require.NotZero(t, shown, s)
		seen[shown.Number()] = true
	}
	require.Len(t, seen, len(migcontrollerv1.RegistrationState_name))

	seen = map[protoreflect.EnumNumber]bool{sourceToProto("").Number(): true}
	for _, r := range []fleet.Route{fleet.Stream, fleet.HTTP} {
		seen[sourceToProto(r).Number()] = true
	}
	require.Len(t, seen, len(migcontrollerv1.ReportSource_name))
}

// Every stored body can be converted.
func TestBodyToProto(t *testing.T) {
	t.Parallel()
	require.Nil(t, bodyToProto(nil))
	for body, want := range map[string]string{
		`{}`:            `{}`,
		`{"a":{"b":1}}`: `{"a":{"b":1}}`,
		`[1,"x"]`:       `{"body":[1,"x"]}`,
		`"text"`:        `{"body":"text"}`,
		`null`:          `{"body":null}`,
		`not JSON`:      `{"body":"not JSON"}`,
		`{"a":1e999}`:   `{"a":"1e999"}`,
		`{"a":1} 2`:     `{"body":"{\"a\":1} 2"}`,
		"\xff":          `{"body":"` + "\uFFFD" + `"}`,
	} {
		requireJSON(t, want, bodyToProto(json.RawMessage(body)))
	}
}

// Every body can be converted and encoded.
func FuzzBodyToProto(f *testing.F) {
	for _, seed := range []string{`{}`, `{"a":[1,null,{"b":"c"}]}`, `"\ud800"`, `{"\ud800":1}`, "\xff", `1e999`, `{"a":1,"a":2}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		shown := bodyToProto(body)
		if (shown == nil) != (len(body) == 0) {
			t.Fatalf("%q is shown as %v", body, shown)
		}
		if _, err := proto.Marshal(shown); err != nil {
			t.Fatal(err)
		}
		if _, err := protojson.Marshal(shown); err != nil {
			t.Fatal(err)
		}
	})
}

// A command is converted to a request with all its fields.
func TestCommandFromProto(t *testing.T) {
	t.Parallel()
	want := fleet.CommandRequest{
		ID: "c1", Type: "update_config", CreatedAt: 1893553260, Params: fullCommand().Params,
	}
	require.Equal(t, want, commandFromProto(commandToProto(fullCommand()).GetCommand()))
	require.Zero(t, commandFromProto(&commands.Command{}))
}

func TestStatesFromProtoRefuses(t *testing.T) {
	t.Parallel()
	for _, bad := range []migcontrollerv1.CommandState{-1, 8, 99} {
		states := []migcontrollerv1.CommandState{migcontrollerv1.CommandState_COMMAND_STATE_PENDING, bad}
		_, err := commandStatesFromProto(states)
		requireBadField(t, err, "states")
	}
	none, err := commandStatesFromProto(nil)
	require.NoError(t, err)
	require.Empty(t, none)
	_, err = commandStatesFromProto([]migcontrollerv1.CommandState{migcontrollerv1.CommandState_COMMAND_STATE_UNSPECIFIED, 99})
	requireBadField(t, err, "states")
}

// Unspecified means any state, as the schema says, also together with others.
func TestUnspecifiedStateIsAny(t *testing.T) {
	t.Parallel()
	const unspecified, pending = migcontrollerv1.CommandState_COMMAND_STATE_UNSPECIFIED, migcontrollerv1.CommandState_COMMAND_STATE_PENDING
	for _, states := range [][]migcontrollerv1.CommandState{{unspecified}, {pending, unspecified}} {
		got, err := commandStatesFromProto(states)
		require.NoError(t, err)
		require.Empty(t, got)
	}
}

func TestTimesAndDurationsFromProto(t *testing.T) {
	t.Parallel()
	at, err := timeFromProto("since", nil)
	require.NoError(t, err)
	require.True(t, at.IsZero())
	at, err = timeFromProto("since", timestamppb.New(minute(1)))
	require.NoError(t, err)
	require.Equal(t, minute(1), at)
	for _, bad := range []*timestamppb.Timestamp{{Nanos: -1}, {Nanos: 1e9}, {Seconds: math.MaxInt64}, {Seconds: math.MinInt64}} {
		_, err := timeFromProto("since", bad)
		requireBadField(t, err, "since")
	}

	d, err := durationFromProto("ttl", nil)
	require.NoError(t, err)
	require.Zero(t, d)
	d, err = durationFromProto("ttl", durationpb.New(-time.Second))
	require.NoError(t, err)
	require.Equal(t, -time.Second, d)
	for _, bad := range []*durationpb.Duration{{Nanos: 1e9}, {Seconds: 1, Nanos: -1}, {Seconds: math.MaxInt64}} {
		_, err := durationFromProto("ttl", bad)
		requireBadField(t, err, "ttl")
	}
	// A valid duration beyond Go's range becomes the longest one.
	d, err = durationFromProto("ttl", &durationpb.Duration{Seconds: 315_576_000_000})
	require.NoError(t, err)
	require.Greater(t, d, fleet.MaxTTL)
}

// Each kind of change is converted with its cursor and its time.
func TestUpdateToProto(t *testing.T) {
	t.Parallel()
	c, v, e := fullCommand(), fullVM(), fullEvent()
	changes := []fleet.Change{
		{At: minute(1), VM: &v}, {At: minute(1), Command: &c}, {At: minute(1), Event: &e},
	}
	var kinds []protoreflect.FieldNumber
	for i := range changes {
		m := updateToProto(control.Update{Cursor: "here", Change: &changes[i]})
		require.Equal(t, "here", m.GetCursor())
		require.Equal(t, minute(1), m.GetChangedAt().AsTime())
		r := m.ProtoReflect()
		kinds = append(kinds, r.WhichOneof(r.Descriptor().Oneofs().ByName("change")).Number())
	}
	require.Equal(t, []protoreflect.FieldNumber{3, 4, 5}, kinds)
	requireJSON(t, `{"cursor": "here"}`, updateToProto(control.Update{Cursor: "here"}))
}

func requireBadField(t *testing.T, err error, field string) {
	t.Helper()
	var wrong *fleet.FieldError
	require.ErrorAs(t, err, &wrong)
	require.Equal(t, field, wrong.Field)
}
