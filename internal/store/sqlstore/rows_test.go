package sqlstore

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

// crash opens what a kill of the process would leave of the database at path.
func crash(t *testing.T, path string) *DB {
	t.Helper()
	left := filepath.Join(t.TempDir(), "copy.db")
	for _, suffix := range []string{"", "-wal"} {
		b, err := os.ReadFile(path + suffix)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(left+suffix, b, 0o600))
	}
	return openTest(t, left)
}

// afterCrash is the VM as it is when the store that a kill left has been opened.
func afterCrash(t *testing.T, path string, at time.Time) fleet.VM {
	t.Helper()
	again := crash(t, path)
	_, err := again.ResetSessions(t.Context(), at.Add(time.Hour))
	require.NoError(t, err)
	v, err := again.VM(t.Context(), "vm")
	require.NoError(t, err)
	return v
}

// A VM is listed under what it last said of itself, whichever part that was.
func TestListsFollowReports(t *testing.T) {
	t.Parallel()
	db, at := beating(t, filepath.Join(t.TempDir(), "controller.db"), 1)
	say := fleet.Heartbeat{
		Origin: fleet.Origin{VM: "vm", Pool: "p", Org: "o", Via: fleet.Stream, Epoch: 1}, Status: "idle",
	}
	for _, change := range []func(*fleet.Heartbeat){
		func(*fleet.Heartbeat) {},
		func(h *fleet.Heartbeat) { h.Pool = "p2" },
		func(h *fleet.Heartbeat) { h.Org = "o2" },
		func(h *fleet.Heartbeat) { h.Status = "draining" },
	} {
		at = at.Add(time.Second)
		change(&say)
		say.ReceivedAt = at
		require.NoError(t, db.RecordHeartbeats(t.Context(), []fleet.Heartbeat{say}, nil))
		for _, f := range []store.VMFilter{{Pool: say.Pool}, {Org: say.Org}, {Status: say.Status}} {
			vms, err := db.VMs(t.Context(), f, store.Page{Size: 10})
			require.NoError(t, err)
			require.Len(t, vms, 1, "%+v", f)
		}
	}
}

// A VM without a session is in its row as it is: its row may be purged, and after
// a crash nobody looks for what the row lacks.
func TestRowOfPollingVMIsNotBehind(t *testing.T) {
	t.Parallel()
	db := openTest(t, filepath.Join(t.TempDir(), "controller.db"))
	for i := range 3 {
		at := t0.Add(time.Duration(i) * time.Second)
		require.NoError(t, db.RecordHeartbeats(t.Context(), []fleet.Heartbeat{{
			Origin: fleet.Origin{VM: "vm", Via: fleet.HTTP, ReceivedAt: at}, Status: "idle",
		}}, nil))
		require.Equal(t, at, inRow(t, db).LastHeartbeatAt)
	}
}

// The heartbeats of a VM are found by its row alone once that is written.
func TestHeartbeatsAreFoundAfterStop(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "controller.db")
	db, _ := beating(t, path, 5)
	require.NoError(t, db.Close())
	beats, err := openTest(t, path).Heartbeats(t.Context(), "vm", store.Page{Size: 10})
	require.NoError(t, err)
	require.Len(t, beats, 5)
}

// After a crash a VM is not taken back to its last heartbeat when it was heard of
// since.
func TestCrashAfterNewsOfAVM(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "controller.db")
	db, last := beating(t, path, 3)
	last = last.Add(time.Second)
	_, _, err := db.RecordEvent(t.Context(), fleet.Event{
		Origin: fleet.Origin{VM: "vm", Via: fleet.Stream, Epoch: 1, ReceivedAt: last}, Type: "error",
	}, fleet.Command{})
	require.NoError(t, err)

	require.Equal(t, last, afterCrash(t, path, last).LastSeenAt)
}

// The same when it was heard of by an ack, which no heartbeat tells, also when the
// command had ended before.
func TestCrashAfterAck(t *testing.T) {
	t.Parallel()
	for _, late := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "controller.db")
		db, last := beating(t, path, 3)
		_, err := db.Enqueue(t.Context(), drain(t, "c"), func() time.Time { return last })
		require.NoError(t, err)
		if late {
			last = last.Add(time.Minute)
			ended, err := db.Sweep(t.Context(), last, heardNow, 1)
			require.NoError(t, err)
			require.Equal(t, 1, ended)
			_, _, err = db.RecordEvent(t.Context(), fleet.Event{ // so that the row is young
				Origin: fleet.Origin{VM: "vm", Via: fleet.Stream, Epoch: 1, ReceivedAt: last}, Type: "error",
			}, fleet.Command{})
			require.NoError(t, err)
		}
		last = last.Add(time.Second)
		_, wasLate, err := db.Ack(t.Context(), "vm", 1, fleet.Ack{CommandID: "c", Success: true}, last)
		require.NoError(t, err)
		require.Equal(t, late, wasLate)

		require.Equal(t, last, afterCrash(t, path, last).LastSeenAt, late)
	}
}

// After a crash what a row lacks is found although others were heard of since.
func TestCrashAfterNewsOfOthers(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "controller.db")
	db, last := beating(t, path, 5)
	require.NoError(t, db.RecordHeartbeats(t.Context(), []fleet.Heartbeat{{
		Origin: fleet.Origin{VM: "other", Via: fleet.HTTP, ReceivedAt: last.Add(rowEvery)},
	}}, nil))

	again := crash(t, path)
	_, err := again.ResetSessions(t.Context(), last.Add(time.Hour))
	require.NoError(t, err)
	v, err := again.VM(t.Context(), "vm")
	require.NoError(t, err)
	require.Equal(t, last, v.LastHeartbeatAt)
	beats, err := again.Heartbeats(t.Context(), "vm", store.Page{Size: 10})
	require.NoError(t, err)
	require.Len(t, beats, 5)
}

// What was refused is not to be seen either: a VM is shown as it was committed.
func TestRefusedChangeIsNotShown(t *testing.T) {
	t.Parallel()
	db, last := beating(t, filepath.Join(t.TempDir(), "controller.db"), 1)
	require.NoError(t, db.update(t.Context(), func(tx *tx) error {
		var n int
		return tx.w.conn.QueryRowContext(unstoppable, "PRAGMA max_page_count = 1").Scan(&n)
	}))
	v, err := db.VM(t.Context(), "vm")
	require.NoError(t, err)
	for i := range 1000 { // each makes the log of changes longer
		hello := fleet.Hello{VM: "vm", AgentVersion: strconv.Itoa(i)}
		next, err := db.OpenSession(t.Context(), hello, fleet.Command{}, nothing, last.Add(time.Duration(i)*time.Second))
		if err != nil {
			require.ErrorIs(t, err, fleet.ErrUnavailable)
			break
		}
		v = next
		require.Less(t, i, 999, "the disk is never full")
	}
	shown, err := db.VM(t.Context(), "vm")
	require.NoError(t, err)
	require.Equal(t, v, shown)
	require.Equal(t, v, inRow(t, db))
}

// Whoever was connected and is not any more counts for the bound again.
func TestCacheCountsWhoIsGone(t *testing.T) {
	t.Parallel()
	c := newCache()
	for _, connected := range []bool{false, true, true, false} {
		some := map[fleet.VMID]*vmEntry{}
		for i := range 10 {
			some[fleet.VMID("vm-"+strconv.Itoa(i))] = &vmEntry{known: true, now: fleet.VM{Connected: connected}}
		}
		c.put(some)
	}
	many := map[fleet.VMID]*vmEntry{}
	for i := range maxGone {
		many[fleet.VMID(strconv.Itoa(i))] = &vmEntry{known: true}
	}
	c.put(many)
	require.Len(t, c.vms, maxGone)
}

// Heartbeats of a VM that is connected and silent are not too old to be found
// after a crash, whenever that is.
func TestSilentVMSurvivesCrash(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "controller.db")
	db, last := beating(t, path, 5)
	other, err := db.OpenSession(t.Context(), fleet.Hello{VM: "other"}, fleet.Command{ID: "o", VM: "other"}, nothing, last)
	require.NoError(t, err)
	for at := last; at.Before(last.Add(2 * lookBack)); {
		at = at.Add(20 * time.Second)
		err := db.RecordHeartbeats(t.Context(), []fleet.Heartbeat{{
			Origin: fleet.Origin{VM: "other", Via: fleet.Stream, Epoch: other.Epoch, ReceivedAt: at},
		}}, nil)
		require.NoError(t, err)
		_, err = db.Sweep(t.Context(), at, heardNow, 10)
		require.NoError(t, err)
		before, err := db.VM(t.Context(), "vm")
		require.NoError(t, err)
		again := crash(t, path)
		_, err = again.ResetSessions(t.Context(), at)
		require.NoError(t, err)
		after, err := again.VM(t.Context(), "vm")
		require.NoError(t, err)
		require.Equal(t, before.SessionClosed(before.Epoch, at), after, at.Sub(last))
		beats, err := again.Heartbeats(t.Context(), "vm", store.Page{Size: 10})
		require.NoError(t, err)
		require.Len(t, beats, 5)
		require.NoError(t, again.Close())
	}
}

// A fleet that falls silent is written whole, in as many steps as it takes.
func TestSilentFleetIsWritten(t *testing.T) {
	t.Parallel()
	db := openTest(t, filepath.Join(t.TempDir(), "controller.db"))
	hs := group(t, db, 2*quietBatch+1)
	for range 2 { // the second tells nothing new
		require.NoError(t, db.RecordHeartbeats(t.Context(), hs, nil))
	}
	require.Len(t, db.writer.cache.behind(endOfTime), len(hs))
	_, err := db.Sweep(t.Context(), t0.Add(3*rowEvery), heardNow, 1)
	require.NoError(t, err)
	require.Empty(t, db.writer.cache.behind(endOfTime))
}

// Others come in between: no step is larger than its bound.
func TestSilentFleetIsWrittenInSteps(t *testing.T) {
	t.Parallel()
	w := &writer{cache: newCache(), ops: make(chan *op)}
	fleetOf := map[fleet.VMID]*vmEntry{}
	for i := range 2*quietBatch + 1 {
		fleetOf[fleet.VMID(strconv.Itoa(i))] = &vmEntry{
			known: true, now: fleet.VM{Connected: true}, row: rowState{ahead: true, writtenAt: t0},
		}
	}
	w.cache.put(fleetOf)
	wrote := make(chan error, 1)
	go func() { wrote <- (&DB{writer: w}).writeQuiet(t.Context(), t0.Add(3*rowEvery)) }()
	for steps := 0; ; steps++ {
		select {
		case o := <-w.ops:
			close(o.done)
		case err := <-wrote:
			require.NoError(t, err)
			require.Equal(t, 3, steps)
			return
		}
	}
}

// A VM that is heard of in the transaction that purges it begins anew.
func TestPurgeMeetsReport(t *testing.T) {
	t.Parallel()
	db, last := beating(t, filepath.Join(t.TempDir(), "controller.db"), 1)
	require.NoError(t, db.CloseSession(t.Context(), "vm", 1, "", last))
	now := last.Add(time.Hour)
	for _, heard := range []bool{false, true} { // before the purge as well
		require.NoError(t, db.update(t.Context(), func(t *tx) error {
			if heard {
				if _, err := t.entry("vm"); err != nil {
					return err
				}
			}
			if _, err := purgeVMs(t, now.UnixNano(), purgeBatch); err != nil {
				return err
			}
			v, err := t.vmOrNew("vm", now)
			if err != nil {
				return err
			}
			v.LastSeenAt = now
			t.putVM(v, now)
			return nil
		}))
		require.Equal(t, now, inRow(t, db).LastSeenAt)
		now = now.Add(time.Hour)
	}
}

// Rows that were dated by a clock far ahead do not keep older ones after them.
func TestPurgePassesRowsFromTheFuture(t *testing.T) {
	t.Parallel()
	db := openTest(t, filepath.Join(t.TempDir(), "controller.db"))
	beat := func(at time.Time) {
		require.NoError(t, db.RecordHeartbeats(t.Context(), []fleet.Heartbeat{{
			Origin: fleet.Origin{VM: "vm", Via: fleet.HTTP, ReceivedAt: at}, Status: at.String(),
		}}, nil))
	}
	for i := range 2 * purgeBlocks {
		beat(t0.AddDate(1, 0, i))
	}
	require.NoError(t, db.update(t.Context(), func(t *tx) error {
		for range 2 * purgeBatch {
			if err := t.change(fleet.Change{At: t0.AddDate(1, 0, 0), Subject: "vm"}, []byte("{}"), nil, nil); err != nil {
				return err
			}
		}
		return nil
	}))
	for i := range purgeBlocks {
		beat(t0.Add(time.Duration(i) * time.Second))
	}
	beat(t0.Add(time.Hour))
	_, err := db.Purge(t.Context(), store.Retention{Heartbeats: time.Minute, Changes: time.Minute}, t0.Add(time.Hour))
	require.NoError(t, err)
	for _, table := range []string{"heartbeats", "changes"} {
		left, err := db.number(t.Context(), `SELECT COUNT(*) FROM `+table)
		require.NoError(t, err)
		require.EqualValues(t, 1, left, table)
	}
}

// Changes that are dated wrongly do not take with them those before them that are
// to be kept.
func TestPurgeKeepsChangesBeforeWronglyDated(t *testing.T) {
	t.Parallel()
	db := openTest(t, filepath.Join(t.TempDir(), "controller.db"))
	now := t0.Add(time.Hour)
	require.NoError(t, db.update(t.Context(), func(t *tx) error {
		for _, at := range []time.Time{t0, now, now.AddDate(1, 0, 0), t0, now} {
			if err := t.change(fleet.Change{At: at, Subject: "vm"}, []byte("{}"), nil, nil); err != nil {
				return err
			}
		}
		return nil
	}))
	n, err := db.Purge(t.Context(), store.Retention{Changes: time.Minute}, now)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	changes, err := db.Changes(t.Context(), store.ChangeFilter{}, 1, 10)
	require.NoError(t, err)
	require.Len(t, changes, 4)
}

// What is handed to a poll is synced: it must not be handed out twice in a boot.
// A delivery on a stream need not be.
func TestLeasesOfPollsAreSynced(t *testing.T) {
	t.Parallel()
	for _, via := range []fleet.Route{fleet.HTTP, fleet.Stream} {
		db := openTest(t, filepath.Join(t.TempDir(), "controller.db"))
		_, err := db.Enqueue(t.Context(), drain(t, "c"), time.Now)
		require.NoError(t, err)
		syncs := countSyncs(db)
		_, err = db.Lease(t.Context(), "vm", "c", store.Attempt{Via: via, At: time.Now().UTC()})
		require.NoError(t, err)
		require.Equal(t, via == fleet.HTTP, *syncs == 1, via)
	}
}

// A store that is closed does not answer from memory either.
func TestClosedStoreAnswersNothing(t *testing.T) {
	t.Parallel()
	db, _ := beating(t, filepath.Join(t.TempDir(), "controller.db"), 1)
	require.NoError(t, db.Close())
	_, err := db.VM(t.Context(), "vm")
	require.ErrorIs(t, err, fleet.ErrUnavailable)
	_, err = db.Next(t.Context(), "vm", store.Attempt{Via: fleet.Stream, Epoch: 1, At: t0})
	require.ErrorIs(t, err, fleet.ErrUnavailable)
}

// A record that cannot be read is a fault of one operation, not of the store: to try
// again is of no use, and it costs no other operation.
func TestBrokenRecordIsNoOutage(t *testing.T) {
	t.Parallel()
	db, now := out(t)
	require.NoError(t, db.CloseSession(t.Context(), "vm", 1, "", now))
	require.NoError(t, db.update(t.Context(), func(t *tx) error {
		return t.exec(`UPDATE vms SET doc = '{{{' WHERE vm_id = 'vm'`)
	}))
	db.writer.cache.clear()
	event := func(vm fleet.VMID) error {
		_, _, err := db.RecordEvent(t.Context(), fleet.Event{
			Origin: fleet.Origin{VM: vm, Via: fleet.HTTP, ReceivedAt: now}, Type: "error",
		}, fleet.Command{})
		return err
	}
	require.ErrorIs(t, event("vm"), errBroken)
	require.NotErrorIs(t, event("vm"), fleet.ErrUnavailable)
	require.NoError(t, event("other"))
	err := db.update(t.Context(), func(*tx) error { panic("broken") })
	require.ErrorIs(t, err, errBroken)
	require.NotErrorIs(t, err, fleet.ErrUnavailable)
}
