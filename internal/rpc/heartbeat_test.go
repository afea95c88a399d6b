package rpc

import (
	"bytes"
	"log/slog"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/rpc/heartbeat"
)

// fullHeartbeat sets every field, including those of the runner and the job.
func fullHeartbeat() *commands.Heartbeat {
	return &commands.Heartbeat{
		VmId: "vm-1", PoolId: "pool", OrgId: "org", MigletState: "job_running", Timestamp: 1_700_000_000,
		Health: &commands.VMHealth{
			CpuUsagePercent: 12.5, MemoryUsagePercent: math.NaN(), DiskUsagePercent: math.Inf(-1),
			MemoryTotalBytes: 8 << 30, MemoryUsedBytes: 1, DiskTotalBytes: -1, DiskUsedBytes: 2,
		},
		RunnerState: &commands.RunnerState{State: "running", Configured: true, RunnerName: "vm-1", Labels: []string{"self-hosted", "linux", ""}},
		CurrentJob: &commands.JobInfo{
			JobId: "1", RunId: "2", Repository: "example/app", Branch: "main", Commit: "abc", Status: "running", StartedAt: 1_699_999_000,
		},
	}
}

// Heartbeats are decoded as the generated code decodes them, whatever came before, with the
// same errors.
func FuzzHeartbeatReader(f *testing.F) {
	encode := func(change func(*commands.Heartbeat)) []byte {
		h := fullHeartbeat()
		change(h)
		b, err := proto.Marshal(h)
		require.NoError(f, err)
		return b
	}
	full := encode(func(*commands.Heartbeat) {})
	memory := []byte{4<<3 | 2, 2, 4 << 3, 1} // health of memory_total_bytes alone
	for _, b := range [][]byte{
		full,
		nil,
		encode(func(h *commands.Heartbeat) { h.RunnerState.Labels = h.RunnerState.Labels[:1] }),
		encode(func(h *commands.Heartbeat) { h.RunnerState.Labels = append(h.RunnerState.Labels, "x") }),
		encode(func(h *commands.Heartbeat) { h.RunnerState.Labels[0] = "other" }),
		encode(func(h *commands.Heartbeat) { h.RunnerState.Labels = nil }),
		encode(func(h *commands.Heartbeat) { h.RunnerState.Configured = false }),
		encode(func(h *commands.Heartbeat) { h.CurrentJob.Status = "done" }),
		encode(func(h *commands.Heartbeat) { h.RunnerState = &commands.RunnerState{} }),
		encode(func(h *commands.Heartbeat) { h.RunnerState, h.CurrentJob, h.Health = nil, nil, nil }),
		encode(func(h *commands.Heartbeat) { h.CurrentJob = &commands.JobInfo{} }),
		encode(func(h *commands.Heartbeat) { h.Health = &commands.VMHealth{} }),
		encode(func(h *commands.Heartbeat) { h.Health.DiskUsagePercent, h.Health.DiskTotalBytes = 0, 3 }),
		encode(func(h *commands.Heartbeat) { h.MigletState, h.Timestamp = "", math.MinInt64 }),
		append(encode(func(*commands.Heartbeat) {}), full...),
		append(encode(func(*commands.Heartbeat) {}), memory...), // merged
		full[:len(full)-1],
		{5<<3 | 2, 3, 4<<3 | 2, 1, 0xff}, // a label that is not UTF-8
		protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "\xff"),
		protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 1),
		protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 1),
		protowire.AppendVarint(protowire.AppendTag(nil, 4, protowire.VarintType), 1),
		protowire.AppendTag(nil, 4, protowire.StartGroupType),
	} {
		f.Add(full, b)
		f.Add(b, full)
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		r := heartbeat.NewReader(readHeartbeat)
		var want, got []fleet.Heartbeat
		for _, b := range [][]byte{first, second, first} {
			m, wantErr := decodeHeartbeat(b)
			h, _, err := r.Read(b)
			if wantErr != nil {
				require.Error(t, err)
				continue
			}
			require.NoError(t, err)
			want, got = append(want, heartbeatFromProto(m)), append(got, h)
		}
		require.Equal(t, want, got, "also those that came before others")
	})
}

// The repeated parts of a heartbeat are shared.
func TestRepeatedHeartbeatIsShared(t *testing.T) {
	t.Parallel()
	sent := fullHeartbeat()
	b, err := proto.Marshal(sent)
	require.NoError(t, err)
	r := heartbeat.NewReader(readHeartbeat)
	h, _, err := r.Read(b)
	require.NoError(t, err)
	sent.Health.CpuUsagePercent, sent.Timestamp = 99, sent.GetTimestamp()+1
	b, err = proto.Marshal(sent)
	require.NoError(t, err)
	again, repeated, err := r.Read(b)
	require.NoError(t, err)
	require.True(t, repeated)
	require.Same(t, h.Runner, again.Runner)
	require.Same(t, h.Job, again.Job)
	require.InDelta(t, 99, *again.Health.CPUPercent, 0)
	require.Equal(t, time.Second, again.SentAt.Sub(h.SentAt))
}

// Whatever an agent sends is received, since an error would end the stream; whether it can be
// decoded is seen later, and as the generated code sees it. A message that is just a heartbeat
// can be read without decoding the rest.
func TestAgentCodec(t *testing.T) {
	t.Parallel()
	receive := func(b []byte) *agentMessage {
		m, reused := new(agentMessage), bytes.Clone(b)
		require.NoError(t, agentCodec{}.Unmarshal(reused, m))
		clear(reused) // by connect-go, for the next message of any stream
		return m
	}
	beat := &commands.MIGletMessage{Message: &commands.MIGletMessage_Heartbeat{Heartbeat: fullHeartbeat()}}
	b, err := agentCodec{}.Marshal(beat)
	require.NoError(t, err)
	got, err := decodeHeartbeat(receive(b).heartbeat())
	require.NoError(t, err)
	require.True(t, proto.Equal(beat.GetHeartbeat(), got), "%v", got)

	connect, err := agentCodec{}.MarshalAppend(nil, &commands.MIGletMessage{
		Message: &commands.MIGletMessage_Connect{Connect: &commands.ConnectRequest{VmId: "vm-1"}},
	})
	require.NoError(t, err)
	for name, b := range map[string][]byte{
		"another message":              connect,
		"a heartbeat and then another": append(append([]byte(nil), b...), connect...),
		"an empty heartbeat":           {4<<3 | 2, 0},
		"nothing":                      nil,
	} {
		m := receive(b)
		require.Empty(t, m.heartbeat(), name)
		want := new(commands.MIGletMessage)
		require.NoError(t, proto.Unmarshal(b, want), name)
		got, err := m.decode()
		require.NoError(t, err, name)
		require.True(t, proto.Equal(want, got), name)
	}
	for name, b := range map[string][]byte{
		"a heartbeat that is cut off":          b[:len(b)-1],
		"a text that is not UTF-8 after a key": append(bytes.Clone(connect), 0x1a, 3, 0x0a, 1, 0xff),
		"no Protobuf":                          {0xff},
		"a large message":                      append(bytes.Clone(connect), make([]byte, maxAgentMessage)...), // no field has the number 0
	} {
		m := receive(b)
		require.Nil(t, m.heartbeat(), name)
		require.Equal(t, b, m.wire, name)
		_, err := m.decode()
		require.Error(t, err, name)
	}
}

func BenchmarkHeartbeatReader(b *testing.B) {
	h := fullHeartbeat()
	wire, err := proto.Marshal(h)
	require.NoError(b, err)
	b.Run("plain", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := readHeartbeat(wire); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Reader", func(b *testing.B) {
		b.ReportAllocs()
		r := heartbeat.NewReader(readHeartbeat)
		for b.Loop() {
			if _, _, err := r.Read(wire); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// Only a heartbeat that repeats the texts of the previous one is free for its VM: others are
// stored in full, and charged like other messages.
func TestOnlyRepeatedHeartbeatsAreFree(t *testing.T) {
	t.Parallel()
	d := startRegistry(t, &strictEngine{}, time.Nanosecond, slog.New(slog.DiscardHandler), nil)
	session, err := d.Open(t.Context(), fleet.Hello{VM: "vm-1"}, silent{})
	require.NoError(t, err)
	t.Cleanup(func() { session.Close(nil) })
	for name, tt := range map[string]struct {
		change func(*commands.Heartbeat)
		free   bool
	}{
		"nothing":   {func(*commands.Heartbeat) {}, true},
		"load":      {func(h *commands.Heartbeat) { h.Health.CpuUsagePercent++ }, true},
		"time":      {func(h *commands.Heartbeat) { h.Timestamp++ }, true},
		"pool":      {func(h *commands.Heartbeat) { h.PoolId = "x" }, false},
		"org":       {func(h *commands.Heartbeat) { h.OrgId = "x" }, false},
		"state":     {func(h *commands.Heartbeat) { h.MigletState = "x" }, false},
		"runner":    {func(h *commands.Heartbeat) { h.RunnerState.State = "x" }, false},
		"label":     {func(h *commands.Heartbeat) { h.RunnerState.Labels[0] = "x" }, false},
		"no runner": {func(h *commands.Heartbeat) { h.RunnerState = nil }, false},
		"job":       {func(h *commands.Heartbeat) { h.CurrentJob.Branch = "x" }, false},
	} {
		for _, encoded := range []bool{true, false} {
			r := &messageReader{session: session}
			take := func(h *commands.Heartbeat) bool {
				m := &agentMessage{message: &commands.MIGletMessage{Message: &commands.MIGletMessage_Heartbeat{Heartbeat: h}}}
				if encoded {
					b, err := proto.Marshal(m)
					require.NoError(t, err)
					m = new(agentMessage)
					require.NoError(t, agentCodec{}.Unmarshal(b, m))
				}
				require.NoError(t, r.apply(m))
				return r.repeated
			}
			require.False(t, take(fullHeartbeat()), "the first")
			require.True(t, take(fullHeartbeat()))
			changed := fullHeartbeat()
			tt.change(changed)
			require.Equal(t, tt.free, take(changed), name)
			require.True(t, take(changed), name)
		}
	}
}
