package fleet

import (
	"encoding/json"
	"math"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// AppendJSON and json.Marshal write the same document for a heartbeat.
func FuzzHeartbeatJSON(f *testing.F) {
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
		h := Heartbeat{
			Origin: Origin{VM: VMID(vm), Pool: pool, Org: org, Via: Stream, Epoch: Epoch(epoch), ReceivedAt: time.Unix(0, received).UTC()},
			Status: status,
		}
		if has(0) {
			h.SentAt = time.Unix(0, sent).UTC()
		}
		if has(1) {
			h.Runner = &Runner{State: status, Configured: configured, Name: name}
			if has(2) {
				h.Runner.Labels = []string{label, name}
			}
		}
		if has(3) {
			h.Health = &Health{MemoryTotalBytes: bytes, DiskUsedBytes: bytes / 2}
			if has(4) {
				h.Health.CPUPercent, h.Health.DiskPercent = &cpu, &memory
			}
		}
		if has(5) {
			h.RunnerState = name
		}
		if has(6) {
			h.Job = &Job{JobID: name, Repository: pool, StartedAt: h.SentAt}
		}
		want, err := json.Marshal(h)
		require.NoError(t, err)
		got, err := h.AppendJSON(nil)
		require.NoError(t, err)
		require.Equal(t, string(want), string(got))
	})
}

// No field is missing, including fields that are added later.
func TestHeartbeatJSONHasEveryField(t *testing.T) {
	t.Parallel()
	n := 12.5
	h := Heartbeat{
		Origin: Origin{VM: "vm", Pool: "p", Org: "o", Via: Stream, Epoch: 1, ReceivedAt: t0, SentAt: t0},
		Status: "idle", Runner: &Runner{State: "idle", Configured: true, Name: "r", Labels: []string{"a"}}, RunnerState: "idle",
		Job:    &Job{JobID: "1", RunID: "2", Repository: "a/b", Branch: "main", Commit: "c", Status: "running", StartedAt: t0},
		Health: &Health{CPUPercent: &n, MemoryPercent: &n, DiskPercent: &n, MemoryTotalBytes: 1, MemoryUsedBytes: 2, DiskTotalBytes: 3, DiskUsedBytes: 4},
	}
	requireFull(t, h, "Body")
	requireFull(t, *h.Runner)
	requireFull(t, *h.Health)
	requireFull(t, *h.Job)
	want, err := json.Marshal(h)
	require.NoError(t, err)
	got, err := h.AppendJSON(nil)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got))
}

// A load that is not finite does not make the document invalid.
func TestHeartbeatJSONWithoutNumber(t *testing.T) {
	t.Parallel()
	no := math.NaN()
	doc, err := Heartbeat{Health: &Health{CPUPercent: &no, DiskUsedBytes: 1}}.AppendJSON(nil)
	require.NoError(t, err)
	var h Heartbeat
	require.NoError(t, json.Unmarshal(doc, &h))
	require.Equal(t, &Health{DiskUsedBytes: 1}, h.Health)
}

// AppendJSON and json.Marshal write the same document for a command.
func FuzzCommandJSON(f *testing.F) {
	f.Add("cmd-1", "vm", "drain", "graceful", int64(1_700_000_000_000_000_000), int64(30), int64(2), "ok", uint8(0xff))
	f.Add("\x00<&>", "é\xff", "", "", int64(-1), int64(-1), int64(-1), "", uint8(0x55))
	f.Add("", "", "", "", int64(0), int64(0), int64(0), "", uint8(0))
	f.Fuzz(func(t *testing.T, id, vm, kind, text string, at, wait, n int64, reason string, parts uint8) {
		has := func(bit uint8) bool { return parts&(1<<bit) != 0 }
		when := time.Unix(0, at).UTC()
		c := Command{
			ID: CommandID(id), VM: VMID(vm), Type: kind, CreatedAt: when, AcceptedAt: when, AckTimeout: time.Duration(wait),
			State: CommandState(text), Attempts: int(n), Reason: reason,
		}
		if has(0) {
			c.Params = Params{Strings: map[string]string{text: id, "b": vm}}
		}
		if has(1) {
			c.Params.Ints, c.Params.Bools, c.Params.List = map[string]int64{text: n}, map[string]bool{}, []string{text}
		}
		if has(2) {
			c.Last = Delivery{Via: Stream, Epoch: Epoch(n), Boot: wait}
		}
		if has(3) {
			c.Last.At, c.Last.Started, c.DueAt = when, has(5), when
		}
		if has(4) {
			c.Ack, c.AckedAt = &Ack{CommandID: c.ID, Success: has(5), Message: text}, when
		}
		if has(6) {
			c.FinishedAt, c.ExpiresAt = when, when
		}
		requireSameCommandJSON(t, c)
	})
}

// No field is missing, including fields that are added later.
func TestCommandJSONHasEveryField(t *testing.T) {
	t.Parallel()
	c := Command{
		Seq: 1, Version: 1, ID: "c", VM: "vm", Type: "drain", Params: Params{List: []string{"x"}}, CreatedAt: t0, AcceptedAt: t0,
		ExpiresAt: t0, AckTimeout: time.Second, State: Succeeded, Last: Delivery{Via: HTTP, Epoch: 1, Boot: 1, At: t0, Started: true},
		Attempts: 1, DueAt: t0, FinishedAt: t0, Ack: &Ack{CommandID: "c"}, AckedAt: t0, Reason: "acked", MaxDeliveries: 5,
	}
	requireFull(t, c, "Waiting") // which is never stored
	requireFull(t, c.Last)
	requireSameCommandJSON(t, c)
}

func requireSameCommandJSON(t *testing.T, c Command) {
	t.Helper()
	want, err := json.Marshal(c)
	require.NoError(t, err)
	got, err := c.AppendJSON(nil)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got))
}

func BenchmarkHeartbeatJSON(b *testing.B) {
	n := 12.5
	h := Heartbeat{
		Origin: Origin{VM: "vm-0001", Pool: "pool", Via: Stream, Epoch: 1, ReceivedAt: t0, SentAt: t0}, Status: "idle",
		Runner: &Runner{State: "idle", Configured: true, Name: "vm-0001", Labels: []string{"self-hosted", "linux"}},
		Health: &Health{CPUPercent: &n, MemoryPercent: &n, MemoryTotalBytes: 8 << 30},
	}
	b.Run("json.Marshal", func(b *testing.B) {
		for b.Loop() {
			if _, err := json.Marshal(h); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("AppendJSON", func(b *testing.B) {
		var doc []byte
		for b.Loop() {
			doc, _ = h.AppendJSON(doc[:0])
		}
	})
}

// requireFull fails for a field that is empty, so that a test cannot miss one.
func requireFull(t *testing.T, v any, but ...string) {
	t.Helper()
	s := reflect.ValueOf(v)
	for i := range s.NumField() {
		if name := s.Type().Field(i).Name; !slices.Contains(but, name) {
			require.False(t, s.Field(i).IsZero(), "%s.%s is empty", s.Type(), name)
		}
	}
}
