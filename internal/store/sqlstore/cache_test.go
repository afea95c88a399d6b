package sqlstore

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// beating is a store with a connected VM that sent beats, a second apart.
func beating(t *testing.T, path string, beats int) (*DB, time.Time) {
	t.Helper()
	db := openTest(t, path)
	v, err := db.OpenSession(t.Context(), fleet.Hello{VM: "vm"}, fleet.Command{ID: "r", VM: "vm", Type: fleet.RegisterRunner}, nothing, t0)
	require.NoError(t, err)
	at := t0
	for i := range beats {
		at = at.Add(time.Second)
		load := float64(i)
		err := db.RecordHeartbeats(t.Context(), []fleet.Heartbeat{{
			Origin: fleet.Origin{VM: "vm", Via: fleet.Stream, Epoch: v.Epoch, ReceivedAt: at},
			Status: "idle", Health: &fleet.Health{CPUPercent: &load},
		}}, nil)
		require.NoError(t, err)
	}
	return db, at
}

// inRow is the VM as its row says.
func inRow(t *testing.T, db *DB) (v fleet.VM) {
	t.Helper()
	var doc []byte
	require.NoError(t, db.read.QueryRowContext(t.Context(), `SELECT doc FROM vms WHERE vm_id = 'vm'`).Scan(&doc))
	require.NoError(t, json.Unmarshal(doc, &v))
	return v
}

// Heartbeats that say nothing new do not rewrite the VM's row, and yet whoever
// asks is told the last of them.
func TestLoadAheadOfRow(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "controller.db")
	db, last := beating(t, path, 5)
	require.Equal(t, t0.Add(time.Second), inRow(t, db).LastHeartbeatAt, "the first changed the status, the others nothing")

	one, err := db.VM(t.Context(), "vm")
	require.NoError(t, err)
	list, err := db.VMs(t.Context(), store.VMFilter{}, store.Page{Size: 1})
	require.NoError(t, err)
	for _, v := range append(list, one) {
		require.Equal(t, last, v.LastHeartbeatAt)
		require.Equal(t, last, v.LastSeenAt)
		require.InDelta(t, 4, *v.Health.CPUPercent, 0)
	}
	beats, err := db.Heartbeats(t.Context(), "vm", store.Page{Size: 10})
	require.NoError(t, err)
	require.Len(t, beats, 5)

	require.NoError(t, db.Close())
	require.Equal(t, one, inRow(t, openTest(t, path)), "a stop loses nothing")
}

// A row that is old is written although nothing but the load has changed.
func TestRowIsWrittenNowAndThen(t *testing.T) {
	t.Parallel()
	db, last := beating(t, filepath.Join(t.TempDir(), "controller.db"), 62)
	require.Equal(t, last.Add(-time.Second), inRow(t, db).LastHeartbeatAt, "a minute after the first")
}

// What a crash keeps from the rows is found in the heartbeats.
func TestLoadSurvivesCrash(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "controller.db")
	db, last := beating(t, path, 5)
	before, err := db.VM(t.Context(), "vm")
	require.NoError(t, err)

	again := crash(t, path)
	n, err := again.ResetSessions(t.Context(), last.Add(time.Hour))
	require.NoError(t, err)
	require.Equal(t, 1, n)
	after, err := again.VM(t.Context(), "vm")
	require.NoError(t, err)
	require.Equal(t, before.SessionClosed(before.Epoch, last.Add(time.Hour)), after)

	err = again.RecordHeartbeats(t.Context(), []fleet.Heartbeat{{
		Origin: fleet.Origin{VM: "vm", Via: fleet.HTTP, ReceivedAt: last.Add(2 * time.Hour)},
	}}, nil)
	require.NoError(t, err)
	beats, err := again.Heartbeats(t.Context(), "vm", store.Page{Size: 10})
	require.NoError(t, err)
	require.Len(t, beats, 6, "the new ones follow those from before the crash")
}

// The cache keeps to its bound, and what is not in it is read again.
func TestCacheIsBounded(t *testing.T) {
	t.Parallel()
	c := newCache()
	for i := range maxGone + 10 {
		id := fleet.VMID(strconv.Itoa(i))
		c.put(map[fleet.VMID]*vmEntry{id: {known: true, now: fleet.VM{Connected: i < 5}, row: rowState{ahead: i < 2}}})
	}
	require.Len(t, c.vms, maxGone+5, "those that are connected stay, and count on top")
	require.Len(t, c.behind(endOfTime), 2)
	c.forget()
	require.Len(t, c.vms, 5)
}

// A VM that was purged is as good as never heard of.
func TestPurgedVMIsForgotten(t *testing.T) {
	t.Parallel()
	db, last := beating(t, filepath.Join(t.TempDir(), "controller.db"), 1)
	require.NoError(t, db.CloseSession(t.Context(), "vm", 1, "", last))
	_, err := db.Purge(t.Context(), store.Retention{VMs: time.Minute}, last.Add(time.Hour))
	require.NoError(t, err)
	_, err = db.VM(t.Context(), "vm")
	require.ErrorIs(t, err, fleet.ErrNotFound)
	v, err := db.OpenSession(t.Context(), fleet.Hello{VM: "vm"}, fleet.Command{ID: "r2", VM: "vm", Type: fleet.RegisterRunner}, nothing, last.Add(2*time.Hour))
	require.NoError(t, err)
	require.EqualValues(t, 1, v.Epoch)
}

// A queue that is too long to be kept is looked up, until it is short again; and
// what is delivered is the same.
func TestLongQueue(t *testing.T) {
	t.Parallel()
	db := openTest(t, filepath.Join(t.TempDir(), "controller.db"))
	v, err := db.OpenSession(t.Context(), fleet.Hello{VM: "vm"}, drain(t, "c0"), nothing, time.Now().UTC())
	require.NoError(t, err)
	ids := []fleet.CommandID{"c0"}
	for i := range 2 * maxQueued {
		c, err := db.Enqueue(t.Context(), drain(t, "c"+strconv.Itoa(i+1)), time.Now)
		require.NoError(t, err)
		ids = append(ids, c.ID)
	}
	for _, id := range ids {
		a := store.Attempt{Via: fleet.Stream, Epoch: v.Epoch, At: time.Now().UTC()}
		c, err := db.Next(t.Context(), "vm", a)
		require.NoError(t, err)
		require.Equal(t, id, c.ID)
		_, err = db.Lease(t.Context(), "vm", id, a)
		require.NoError(t, err)
		a.Written = c.ID
		_, err = db.Next(t.Context(), "vm", a)
		require.ErrorIs(t, err, fleet.ErrNothingDue, "one is out")
		for range 2 { // a late ack changes nothing
			_, _, err = db.Ack(t.Context(), "vm", v.Epoch, fleet.Ack{CommandID: id, Success: true}, a.At)
			require.NoError(t, err)
		}
	}
	last, ok := db.writer.cache.get("vm")
	require.True(t, ok)
	require.Equal(t, queueOf(nil), last.queue)
}

// Heartbeats that repeat each other in a row are told apart by what they say, and
// are read as they were sent.
func TestHeartbeatsThatRepeat(t *testing.T) {
	t.Parallel()
	db, at := beating(t, filepath.Join(t.TempDir(), "controller.db"), 1)
	load, runner := 50.0, &fleet.Runner{State: "idle", Configured: true, Labels: []string{"x"}}
	var sent []fleet.Heartbeat
	say := func(change func(*fleet.Heartbeat)) {
		at = at.Add(time.Millisecond)
		h := fleet.Heartbeat{
			Origin: fleet.Origin{VM: "vm", Pool: "p", Via: fleet.Stream, Epoch: 1, ReceivedAt: at, SentAt: at},
			Status: "idle", Runner: runner, Health: &fleet.Health{CPUPercent: &load},
		}
		change(&h)
		sent = append(sent, h)
	}
	same := func(*fleet.Heartbeat) {}
	for _, change := range []func(*fleet.Heartbeat){
		same, same,
		func(h *fleet.Heartbeat) { h.Health, h.SentAt = nil, time.Time{} },
		same,
		func(h *fleet.Heartbeat) { h.Runner = nil },
		func(h *fleet.Heartbeat) { h.Pool = "" },
		func(h *fleet.Heartbeat) { h.Job = &fleet.Job{JobID: "1"} },
		func(h *fleet.Heartbeat) { h.Status = "ready" },
		same, same,
	} {
		say(change)
	}
	require.NoError(t, db.RecordHeartbeats(t.Context(), sent, nil))
	kept, err := db.Heartbeats(t.Context(), "vm", store.Page{Size: len(sent)})
	require.NoError(t, err)
	slices.Reverse(kept)
	require.Equal(t, sent, kept)
	require.False(t, sent[4].Repeats(sent[3]))
	require.True(t, sent[9].Repeats(sent[8]))
}

// What a queue holds in memory is bounded, however large commands may be.
func TestLargeCommandIsNotHeld(t *testing.T) {
	t.Parallel()
	small, large := fleet.Command{Seq: 1}, fleet.Command{Seq: 2}
	large.Params.Strings = map[string]string{"text": strings.Repeat("x", maxHeld)}
	q := queueOf(nil).added(small)
	require.True(t, q.known)
	require.False(t, q.added(large).known)
	listed := fleet.Command{Seq: 3, Params: fleet.Params{List: []string{strings.Repeat("x", maxHeld), "x"}}}
	require.False(t, q.added(listed).known)
}
