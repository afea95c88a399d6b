package engine

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

// heartbeatsOfMany returns a heartbeat of each of vms polling VMs.
func heartbeatsOfMany(vms int) []fleet.Heartbeat {
	hs := make([]fleet.Heartbeat, vms)
	for i := range hs {
		load := float64(i)
		hs[i] = fleet.Heartbeat{
			Origin: fleet.Origin{VM: fleet.VMID(fmt.Sprintf("vm-%03d", i)), Via: fleet.HTTP, ReceivedAt: t0.Add(time.Duration(i))},
			Status: "idle", Health: &fleet.Health{CPUPercent: &load},
		}
	}
	return hs
}

// row returns the latest row of heartbeats as it is stored.
func (r *rig) row() store.HeartbeatRow {
	r.Helper()
	rows, _, err := r.db.Driver.Heartbeats(r.Context(), store.HeartbeatQuery{}, 1)
	require.NoError(r, err)
	require.Len(r, rows, 1)
	return rows[0]
}

// Compressing a row does not change what is read from it, even after a crash.
func TestRowIsPacked(t *testing.T) {
	t.Parallel()
	r, crash := onDisk(t)
	hs := heartbeatsOfMany(300)
	r.record(hs...)
	row := r.row()
	text, err := r.unpack(row.Doc)
	require.NoError(t, err)
	require.Less(t, 3*len(row.Doc), len(text))
	again := crash()
	again.reset(t0)
	for _, h := range hs {
		require.Equal(t, []fleet.Heartbeat{h}, r.beats(h.VM))
	}
	require.Equal(t, hs[7:8], again.beats("vm-007"))
}

// The concatenated documents of several rows are valid input for zstd -d.
func TestRowsAreFrames(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	var all []byte
	for range 3 {
		r.record(heartbeatsOfMany(2)...)
		all = append(all, r.row().Doc...)
	}
	frames, err := zstd.NewReader(bytes.NewReader(all))
	require.NoError(t, err)
	defer frames.Close()
	text, err := io.ReadAll(frames)
	require.NoError(t, err)
	lines := slices.Collect(strings.Lines(string(text)))
	require.Len(t, lines, 3*2)
	for _, line := range lines {
		require.True(t, strings.HasPrefix(line, `{"vm":"vm-00`), line)
		require.True(t, json.Valid([]byte(line)), line)
	}
}

// A damaged row is an error, whatever is left of it.
func TestDamagedRow(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	r.record(heartbeatsOfMany(100)...)
	doc := r.row().Doc
	for n := 1; n < len(doc); n++ {
		_, err := r.unpack(doc[:n])
		require.Error(t, err, n)
	}
}

// Heartbeats in one commit share a row, which contains the id of each VM once; those of a
// VM are listed in order of receipt, and a query before a time returns only earlier ones.
func TestHeartbeatsOfGroup(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	a, b := r.connect("a", t0), r.connect("b", t0)
	r.record(beat(a, t0.Add(1), 1), beat(b, t0.Add(2), 2), beat(a, t0.Add(3), 3))
	before := r.db.commits.Load()
	r.group(
		func() { r.record(beat(b, t0.Add(5), 5), beat(a, t0.Add(4), 4)) },
		func() { r.record(beat(a, t0.Add(6), 6)) },
		func() { r.record(beat(b, t0.Add(7), 7)) },
	)
	require.Equal(t, before+2, r.db.commits.Load())
	row := r.row()
	require.Equal(t, []string{"a", "b"}, row.VMs)
	require.Equal(t, t0.Add(4), row.At)
	require.Equal(t, []fleet.Heartbeat{beat(a, t0.Add(6), 6), beat(a, t0.Add(4), 4), beat(a, t0.Add(3), 3), beat(a, t0.Add(1), 1)}, r.beats("a"))
	for limit, want := range map[int]int{1: 1, 2: 2, 10: 3} {
		hs, _, err := r.Heartbeats(t.Context(), "b", time.Time{}, limit)
		require.NoError(t, err)
		require.Len(t, hs, want)
		require.Equal(t, t0.Add(7), hs[0].ReceivedAt)
	}
	for before, want := range map[time.Duration]int{1: 0, 2: 1, 3: 1, 4: 2, 5: 3, 6: 3, 7: 4} {
		hs, _, err := r.Heartbeats(t.Context(), "a", t0.Add(before), 10)
		require.NoError(t, err)
		require.Len(t, hs, want, before)
	}
}

// Heartbeats are found across many rows.
func TestHeartbeatsInManyRows(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	const all = 2*heartbeatBatch + 3
	for i := range all {
		r.record(fleet.Heartbeat{Origin: fleet.Origin{VM: "vm", Via: fleet.HTTP, ReceivedAt: t0.Add(time.Duration(i))}})
		r.record(fleet.Heartbeat{Origin: fleet.Origin{VM: "other", Via: fleet.HTTP, ReceivedAt: t0.Add(time.Duration(i))}})
	}
	hs, _, err := r.Heartbeats(t.Context(), "vm", time.Time{}, 2*all)
	require.NoError(t, err)
	require.Len(t, hs, all)
	for i, h := range hs {
		require.Equal(t, t0.Add(time.Duration(all-1-i)), h.ReceivedAt)
	}
}

// Heartbeats are read as they were sent.
func TestHeartbeatsComeBack(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	v := r.connect("vm", t0)
	at := t0
	var sent []fleet.Heartbeat
	for _, change := range []func(*fleet.Heartbeat){
		func(*fleet.Heartbeat) {},
		func(h *fleet.Heartbeat) { h.Health, h.SentAt = nil, at },
		func(h *fleet.Heartbeat) { h.Runner = nil },
		func(h *fleet.Heartbeat) { h.Pool = "p" },
		func(h *fleet.Heartbeat) { h.Job = &fleet.Job{JobID: "1", Branch: `"vm":"other"` + "\n"} },
		func(h *fleet.Heartbeat) { h.Runner, h.RunnerState, h.Body = nil, "idle", []byte(`{"vm":"x"}`) },
	} {
		at = at.Add(time.Millisecond)
		h := beat(v, at, 50)
		h.Runner = &fleet.Runner{State: "idle", Configured: true, Labels: []string{"x"}}
		change(&h)
		sent = append(sent, h)
	}
	r.record(sent...)
	kept := r.beats("vm")
	for i := range sent {
		require.Equal(t, sent[i], kept[len(kept)-1-i])
	}
	require.Len(t, kept, len(sent))
}
