package sqlstore

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

// rowOf returns the row with the VM's last heartbeats as it is stored.
func rowOf(t *testing.T, db *DB, vm fleet.VMID) (row []byte) {
	t.Helper()
	seq, err := db.lastBeat(t.Context(), vm)
	require.NoError(t, err)
	require.NoError(t, db.read.QueryRowContext(t.Context(), `SELECT docs FROM heartbeats WHERE seq = ?`, seq).Scan(&row))
	return row
}

// group is a heartbeat of each of so many connected VMs.
func group(t *testing.T, db *DB, vms int) []fleet.Heartbeat {
	t.Helper()
	hs := make([]fleet.Heartbeat, vms)
	for i := range hs {
		load := float64(i)
		hello := fleet.Hello{VM: fleet.VMID(fmt.Sprintf("vm-%d", i))}
		register := fleet.Command{ID: fleet.NewCommandID(), VM: hello.VM, Type: fleet.RegisterRunner}
		v, err := db.OpenSession(t.Context(), hello, register, nothing, t0)
		require.NoError(t, err)
		hs[i] = fleet.Heartbeat{
			Origin: fleet.Origin{VM: v.ID, Via: fleet.Stream, Epoch: v.Epoch, ReceivedAt: t0},
			Status: "idle", Health: &fleet.Health{CPUPercent: &load},
		}
	}
	return hs
}

// A row that takes more than a page is packed, and says what it would without, to
// those who ask and after a crash.
func TestLargeRowIsPacked(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "controller.db")
	db := openTest(t, path)
	hs := group(t, db, 300)
	for range 2 { // the second finds the room of the first
		require.NoError(t, db.RecordHeartbeats(t.Context(), hs, nil))
	}
	row := rowOf(t, db, "vm-0")
	text, err := unpack(row)
	require.NoError(t, err)
	require.Less(t, 3*len(row), len(text))

	again := crash(t, path)
	_, err = again.ResetSessions(t.Context(), t0)
	require.NoError(t, err)
	for _, h := range hs {
		for _, db := range []*DB{db, again} {
			kept, err := db.Heartbeats(t.Context(), h.VM, store.Page{Size: 10})
			require.NoError(t, err)
			require.Equal(t, []fleet.Heartbeat{h, h}, kept)
		}
	}
}

// A row within a page is text, for people to read.
func TestSmallRowIsText(t *testing.T) {
	t.Parallel()
	db := openTest(t, filepath.Join(t.TempDir(), "controller.db"))
	require.NoError(t, db.RecordHeartbeats(t.Context(), group(t, db, 2), nil))
	require.True(t, strings.HasPrefix(string(rowOf(t, db, "vm-1")), "vm-0 0\n{"))
}

// A row that is damaged is an error, whatever is left of it.
func TestDamagedRow(t *testing.T) {
	t.Parallel()
	db := openTest(t, filepath.Join(t.TempDir(), "controller.db"))
	require.NoError(t, db.RecordHeartbeats(t.Context(), group(t, db, 100), nil))
	row := rowOf(t, db, "vm-0")
	for n := 1; n < len(row); n++ {
		require.ErrorContains(t, parts(row[:n], func(part) bool { return true }), "read heartbeats", n)
	}
}

// BenchmarkPack shows the time to pack a heartbeat, and how much shorter it is
// then, in a group whose loads have nothing in common.
func BenchmarkPack(b *testing.B) {
	const vms = 200
	r := rand.New(rand.NewPCG(1, 2))
	var text block
	for i := range vms {
		cpu, memory := 100*r.Float64(), 100*r.Float64()
		h := fleet.Heartbeat{
			Origin: fleet.Origin{VM: fleet.VMID(fmt.Sprintf("vm-%d", i)), Pool: "pool-1", Via: fleet.Stream, Epoch: 1, ReceivedAt: t0},
			Status: "idle",
			Runner: &fleet.Runner{State: "idle", Configured: true, Name: fmt.Sprintf("vm-%d", i), Labels: []string{"self-hosted"}},
			Health: &fleet.Health{CPUPercent: &cpu, MemoryPercent: &memory, MemoryTotalBytes: 8 << 30, MemoryUsedBytes: r.Int64N(8 << 30)},
		}
		require.NoError(b, text.add(&vmEntry{}, &h, nil))
	}
	var row []byte
	for b.Loop() {
		row = pack(row, text.docs)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*vms), "ns/heartbeat")
	b.ReportMetric(float64(len(text.docs))/float64(len(row)), "times-shorter")
}
