package heartbeatjson

import (
	"encoding/json"
	"math"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 6_000_000, time.UTC)

// Append encodes a heartbeat like json.Marshal.
func FuzzAppend(f *testing.F) {
	f.Add("vm", "pool", "org", int64(3), int64(1_700_000_000_000_000_000), int64(0), "idle", true, "runner-1", "self-hosted", 12.5, 0.0, int64(8<<30), uint8(0xff))
	f.Add("\x00<&>\"\\", "é\xff\u2028", "", int64(-1), int64(-1), int64(1), "", false, "", "", math.Copysign(0, -1), 1e-7, int64(-1), uint8(0x0f))
	f.Add("", "", "", int64(0), int64(0), int64(0), "", false, "", "", 1e21, math.MaxFloat64, int64(math.MinInt64), uint8(0))
	f.Fuzz(func(t *testing.T, vm, pool, org string, epoch, received, sent int64, status string,
		configured bool, name, label string, cpu, memory float64, bytes int64, parts uint8,
	) {
		if math.IsNaN(cpu) || math.IsInf(cpu, 0) || math.IsNaN(memory) || math.IsInf(memory, 0) {
			return // JSON has no such numbers
		}
		has := func(bit uint8) bool { return parts&(1<<bit) != 0 }
		h := fleet.Heartbeat{
			Origin: fleet.Origin{VM: fleet.VMID(vm), Pool: pool, Org: org, Via: fleet.Stream, Epoch: fleet.Epoch(epoch), ReceivedAt: time.Unix(0, received).UTC()},
			Status: status,
		}
		if has(0) {
			h.SentAt = time.Unix(0, sent).UTC()
		}
		if has(1) {
			h.Runner = &fleet.Runner{State: status, Configured: configured, Name: name}
			if has(2) {
				h.Runner.Labels = []string{label, name}
			}
		}
		if has(3) {
			h.Health = &fleet.Health{MemoryTotalBytes: bytes, DiskUsedBytes: bytes / 2}
			if has(4) {
				h.Health.CPUPercent, h.Health.DiskPercent = &cpu, &memory
			}
		}
		if has(5) {
			h.RunnerState = name
		}
		if has(6) {
			h.Job = &fleet.Job{JobID: name, Repository: pool, StartedAt: h.SentAt}
		}
		want, err := json.Marshal(h)
		require.NoError(t, err)
		got, err := Append(nil, &h)
		require.NoError(t, err)
		require.Equal(t, string(want), string(got))
	})
}

// No field is forgotten, including fields that are added later.
func TestAppendHasEveryField(t *testing.T) {
	t.Parallel()
	n := 12.5
	h := fleet.Heartbeat{
		Origin: fleet.Origin{VM: "vm", Pool: "p", Org: "o", Via: fleet.Stream, Epoch: 1, ReceivedAt: t0, SentAt: t0},
		Status: "idle", Runner: &fleet.Runner{State: "idle", Configured: true, Name: "r", Labels: []string{"a"}}, RunnerState: "idle",
		Job:    &fleet.Job{JobID: "1", RunID: "2", Repository: "a/b", Branch: "main", Commit: "c", Status: "running", StartedAt: t0},
		Health: &fleet.Health{CPUPercent: &n, MemoryPercent: &n, DiskPercent: &n, MemoryTotalBytes: 1, MemoryUsedBytes: 2, DiskTotalBytes: 3, DiskUsedBytes: 4},
	}
	requireFull(t, h, "Body")
	requireFull(t, *h.Runner)
	requireFull(t, *h.Health)
	requireFull(t, *h.Job)
	want, err := json.Marshal(h)
	require.NoError(t, err)
	got, err := Append(nil, &h)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got))
}

// A load that is NaN or infinite leaves the document valid.
func TestAppendWithoutNumber(t *testing.T) {
	t.Parallel()
	no := math.NaN()
	doc, err := Append(nil, &fleet.Heartbeat{Health: &fleet.Health{CPUPercent: &no, DiskUsedBytes: 1}})
	require.NoError(t, err)
	var h fleet.Heartbeat
	require.NoError(t, json.Unmarshal(doc, &h))
	require.Equal(t, &fleet.Health{DiskUsedBytes: 1}, h.Health)
}

func BenchmarkAppend(b *testing.B) {
	n := 12.5
	h := fleet.Heartbeat{
		Origin: fleet.Origin{VM: "vm-0001", Pool: "pool", Via: fleet.Stream, Epoch: 1, ReceivedAt: t0, SentAt: t0}, Status: "idle",
		Runner: &fleet.Runner{State: "idle", Configured: true, Name: "vm-0001", Labels: []string{"self-hosted", "linux"}},
		Health: &fleet.Health{CPUPercent: &n, MemoryPercent: &n, MemoryTotalBytes: 8 << 30},
	}
	b.Run("json.Marshal", func(b *testing.B) {
		for b.Loop() {
			if _, err := json.Marshal(h); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Append", func(b *testing.B) {
		var doc []byte
		for b.Loop() {
			doc, _ = Append(doc[:0], &h)
		}
	})
}

// requireFull requires every field to be set, so that a test cannot overlook one.
func requireFull(t *testing.T, v any, but ...string) {
	t.Helper()
	s := reflect.ValueOf(v)
	for i := range s.NumField() {
		if name := s.Type().Field(i).Name; !slices.Contains(but, name) {
			require.False(t, s.Field(i).IsZero(), "%s.%s is empty", s.Type(), name)
		}
	}
}
