package rpc

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
	"github.com/mig-controller/mig-controller/internal/fleet"
)

// The JSON of a message is deterministic, has the names of the schema, and its integers are
// numbers.
func TestMessageJSON(t *testing.T) {
	t.Parallel()
	for want, m := range map[string]proto.Message{
		`{}`: &commands.Heartbeat{},
		`{"type":"x","vm_id":"v","pool_id":"p","org_id":"o","data":{"k":"<é>"},"timestamp":-5}`: &commands.EventNotification{
			Type: "x", VmId: "v", PoolId: "p", OrgId: "o", Data: map[string]string{"k": "<é>"}, Timestamp: -5,
		},
		`{"health":{"cpu_usage_percent":"NaN","memory_usage_percent":"Infinity","disk_usage_percent":1.5,"memory_total_bytes":9223372036854775807},"runner_state":{"runner_name":"r"}}`: &commands.Heartbeat{
			Health: &commands.VMHealth{
				CpuUsagePercent: math.NaN(), MemoryUsagePercent: math.Inf(1), DiskUsagePercent: 1.5, MemoryTotalBytes: math.MaxInt64,
			},
			RunnerState: &commands.RunnerState{RunnerName: "r"},
		},
	} {
		got, err := messageJSON(m)
		require.NoError(t, err)
		require.Equal(t, want, string(got))
	}
	_, err := messageJSON(&commands.EventNotification{Type: "\xff"})
	require.Error(t, err)
}

// Known fields of an event are read; an invalid time is dropped.
func TestEventFromProto(t *testing.T) {
	t.Parallel()
	for timestamp, want := range map[int64]time.Time{
		1_700_000_000: time.Date(2023, 11, 14, 22, 13, 20, 0, time.UTC),
		0:             {}, -1: {}, math.MaxInt64: {}, math.MinInt64: {},
	} {
		got, err := eventFromProto(&commands.EventNotification{
			Type: "x", VmId: "v", PoolId: "p", OrgId: "o", Timestamp: timestamp,
		})
		require.NoError(t, err)
		require.Equal(t, fleet.Origin{VM: "v", Pool: "p", Org: "o", SentAt: want}, got.Origin)
		require.Equal(t, "x", got.Type)
		require.True(t, json.Valid(got.Body))
	}
	_, err := eventFromProto(&commands.EventNotification{Data: map[string]string{"k": "\xff"}})
	require.Error(t, err)
}

// Missing fields of a heartbeat stay nil, and values that could not be measured are dropped.
func TestHeartbeatFromProto(t *testing.T) {
	t.Parallel()
	figure := func(f float64) *float64 { return &f }
	for name, test := range map[string]struct {
		sent *commands.Heartbeat
		want fleet.Heartbeat
	}{
		"nothing": {&commands.Heartbeat{}, fleet.Heartbeat{}},
		"empty parts": {
			&commands.Heartbeat{Health: &commands.VMHealth{}, RunnerState: &commands.RunnerState{}, CurrentJob: &commands.JobInfo{}},
			fleet.Heartbeat{
				Health: &fleet.Health{CPUPercent: figure(0), MemoryPercent: figure(0), DiskPercent: figure(0)},
				Runner: &fleet.Runner{}, Job: &fleet.Job{},
			},
		},
		"no figures": {
			&commands.Heartbeat{Health: &commands.VMHealth{
				CpuUsagePercent: math.NaN(), MemoryUsagePercent: math.Inf(1), DiskUsagePercent: math.Inf(-1),
			}},
			fleet.Heartbeat{Health: &fleet.Health{}},
		},
		"percentages that the bytes contradict": {
			&commands.Heartbeat{Health: &commands.VMHealth{
				CpuUsagePercent: 7, MemoryUsagePercent: math.NaN(), DiskUsagePercent: 0,
				MemoryUsedBytes: 1, MemoryTotalBytes: 4, DiskUsedBytes: 3, DiskTotalBytes: 4,
			}},
			fleet.Heartbeat{Health: &fleet.Health{
				CPUPercent: figure(7), MemoryPercent: figure(25), DiskPercent: figure(75),
				MemoryUsedBytes: 1, MemoryTotalBytes: 4, DiskUsedBytes: 3, DiskTotalBytes: 4,
			}},
		},
		"everything": {
			&commands.Heartbeat{
				VmId: "v", PoolId: "p", OrgId: "o", Timestamp: 1, MigletState: "idle",
				Health: &commands.VMHealth{
					CpuUsagePercent: 1, MemoryUsagePercent: 2, DiskUsagePercent: 3, MemoryTotalBytes: 4, MemoryUsedBytes: 5,
					DiskTotalBytes: 6, DiskUsedBytes: 7,
				},
				RunnerState: &commands.RunnerState{State: "running", Configured: true, RunnerName: "r", Labels: []string{"l"}},
				CurrentJob: &commands.JobInfo{
					JobId: "j", RunId: "u", Repository: "a/b", Branch: "main", Commit: "c", Status: "s", StartedAt: 2,
				},
			},
			fleet.Heartbeat{
				Origin: fleet.Origin{VM: "v", Pool: "p", Org: "o", SentAt: time.Unix(1, 0).UTC()}, Status: "idle",
				Health: &fleet.Health{
					CPUPercent: figure(1), MemoryPercent: figure(2), DiskPercent: figure(3), MemoryTotalBytes: 4, MemoryUsedBytes: 5,
					DiskTotalBytes: 6, DiskUsedBytes: 7,
				},
				Runner: &fleet.Runner{State: "running", Configured: true, Name: "r", Labels: []string{"l"}},
				Job: &fleet.Job{
					JobID: "j", RunID: "u", Repository: "a/b", Branch: "main", Commit: "c", Status: "s",
					StartedAt: time.Unix(2, 0).UTC(),
				},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, test.want, heartbeatFromProto(test.sent))
		})
	}
}

func TestAckFromProto(t *testing.T) {
	t.Parallel()
	require.Equal(t,
		fleet.Ack{CommandID: "c", Success: true, Message: "m", Result: map[string]string{"k": "v"}},
		ackFromProto(&commands.CommandAck{CommandId: "c", Success: true, Message: "m", Result: map[string]string{"k": "v"}}))
	require.Equal(t, fleet.Ack{}, ackFromProto(nil))
}

// A version of any length is accepted, and truncated to valid UTF-8.
func TestVersionIsClipped(t *testing.T) {
	t.Parallel()
	require.Equal(t, "v1.2.3", clipVersion("v1.2.3"))
	long := clipVersion(strings.Repeat("x", fleet.MaxIDLength-1) + "\u00e4" + strings.Repeat("x", 1<<10))
	require.Equal(t, strings.Repeat("x", fleet.MaxIDLength-1), long)
}
