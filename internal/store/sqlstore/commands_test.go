package sqlstore

import (
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

// out is a store with a command "first" that is out on the session of "vm" since
// the returned time.
func out(t *testing.T) (*DB, time.Time) {
	t.Helper()
	db := openTest(t, filepath.Join(t.TempDir(), "controller.db"))
	first := drain(t, "first")
	now := first.AcceptedAt
	_, err := db.Enqueue(t.Context(), first, time.Now)
	require.NoError(t, err)
	register := drain(t, "register")
	register.Type = fleet.RegisterRunner
	v, err := db.OpenSession(t.Context(), fleet.Hello{VM: "vm"}, register, nothing, now)
	require.NoError(t, err)
	_, err = db.Lease(t.Context(), "vm", "first", store.Attempt{Via: fleet.Stream, Epoch: v.Epoch, At: now})
	require.NoError(t, err)
	return db, now
}

// nothing was written on a session.
func nothing() fleet.CommandID { return "" }

// heardNow is an agent that sends something all the time.
func heardNow(fleet.Command) time.Time { return time.Now().Add(time.Hour) }

// An ack that is committed between a sweep's look and its write stands.
func TestSweepRespectsAck(t *testing.T) {
	t.Parallel()
	db, now := out(t)
	now = now.Add(2 * time.Minute) // longer than the ack timeout
	held, release := make(chan struct{}), make(chan struct{})
	var all sync.WaitGroup
	waiting := func(n int) {
		require.Eventually(t, func() bool { return len(db.writer.ops) == n }, 5*time.Second, time.Millisecond)
	}
	all.Go(func() {
		require.NoError(t, db.update(t.Context(), func(*tx) error {
			close(held)
			<-release
			return nil
		}))
	})
	<-held
	all.Go(func() {
		_, late, err := db.Ack(t.Context(), "vm", 1, fleet.Ack{CommandID: "first", Success: true}, now)
		require.NoError(t, err)
		require.False(t, late)
	})
	waiting(1)
	all.Go(func() {
		_, err := db.Sweep(t.Context(), now, heardNow, 10)
		require.NoError(t, err)
	})
	waiting(2)
	close(release)
	all.Wait()
	c, err := db.Command(t.Context(), "first")
	require.NoError(t, err)
	require.Equal(t, fleet.Succeeded, c.State)
}

// That a runner is registered is no proof of any command but register_runner.
func TestProofIsOfRegistrationOnly(t *testing.T) {
	t.Parallel()
	db, now := out(t)
	require.NoError(t, db.RecordHeartbeats(t.Context(), []fleet.Heartbeat{{
		Origin: fleet.Origin{VM: "vm", Via: fleet.Stream, Epoch: 1, ReceivedAt: now.Add(time.Second)},
		Runner: &fleet.Runner{State: "idle", Configured: true},
	}}, nil))
	v, err := db.VM(t.Context(), "vm")
	require.NoError(t, err)
	require.Equal(t, fleet.Registered, v.Registration.State)
	c, err := db.Command(t.Context(), "first")
	require.NoError(t, err)
	require.Equal(t, fleet.Delivered, c.State)
}

// However much is purged, the latest change stays, and with it the place of those
// who have seen all.
func TestPurgeKeepsLatestChange(t *testing.T) {
	t.Parallel()
	db, now := out(t)
	last, err := db.LastChange(t.Context())
	require.NoError(t, err)
	n, err := db.Purge(t.Context(), store.Retention{Changes: time.Hour}, now.Add(24*time.Hour))
	require.NoError(t, err)
	require.EqualValues(t, last-1, n)
	after, err := db.LastChange(t.Context())
	require.NoError(t, err)
	require.Equal(t, last, after)
	changes, err := db.Changes(t.Context(), store.ChangeFilter{}, last, 10)
	require.NoError(t, err)
	require.Empty(t, changes)
}

// Whatever is answered is on the disk: every change is synced, and a lease on a
// stream, which is not, with the next one that is.
func TestEveryAnswerIsSynced(t *testing.T) {
	t.Parallel()
	db, now := out(t)
	syncs := countSyncs(db)
	lazily := func() {
		before := *syncs
		require.NoError(t, db.updateLazily(t.Context(), func(tx *tx) error {
			return tx.exec(`UPDATE meta SET value = value + 1 WHERE key = 'checks'`)
		}))
		require.Equal(t, before, *syncs)
	}
	register := drain(t, "again")
	register.Type = fleet.RegisterRunner
	for name, do := range map[string]func() error{
		"Enqueue": func() error { _, err := db.Enqueue(t.Context(), drain(t, "second"), time.Now); return err },
		"Cancel":  func() error { _, err := db.Cancel(t.Context(), "register", now); return err },
		"Ack": func() error {
			_, _, err := db.Ack(t.Context(), "vm", 1, fleet.Ack{CommandID: "first", Success: true}, now)
			return err
		},
		"Sweep": func() error {
			c := drain(t, "swept")
			c.VM, c.DueAt = "offline", now.Add(-time.Second)
			_, err := db.Enqueue(t.Context(), c, time.Now)
			require.NoError(t, err)
			lazily()
			n, err := db.Sweep(t.Context(), now, heardNow, 10)
			require.Equal(t, 1, n)
			return err
		},
		"OpenSession": func() error {
			_, err := db.OpenSession(t.Context(), fleet.Hello{VM: "other"}, register, nothing, now)
			return err
		},
		"CloseSession":  func() error { return db.CloseSession(t.Context(), "vm", 99, "", now) },
		"ResetSessions": func() error { _, err := db.ResetSessions(t.Context(), now); return err },
		"RequestRegistration": func() error {
			_, err := db.RequestRegistration(t.Context(), "polling", drain(t, "third"), now)
			return err
		},
		"RecordEvent": func() error {
			e := fleet.Event{Origin: fleet.Origin{VM: "vm", Via: fleet.HTTP, ReceivedAt: now}, Type: "error"}
			_, _, err := db.RecordEvent(t.Context(), e, fleet.Command{})
			return err
		},
		"RecordHeartbeats": func() error {
			h := fleet.Heartbeat{Origin: fleet.Origin{VM: "vm", Via: fleet.HTTP, ReceivedAt: now}}
			return db.RecordHeartbeats(t.Context(), []fleet.Heartbeat{h}, nil)
		},
		"MarkJournaled": func() error { return db.MarkJournaled(t.Context(), 1) },
		"Purge": func() error {
			_, err := db.Purge(t.Context(), store.Retention{Events: time.Hour}, now)
			return err
		},
		"Check": func() error { return db.Check(t.Context()) },
	} {
		lazily()
		before := *syncs
		require.NoError(t, do(), name)
		require.Greater(t, *syncs, before, name)
	}
	before := *syncs
	_, err := db.Cancel(t.Context(), "register", now)
	require.NoError(t, err)
	require.Equal(t, before, *syncs, "nothing new")
}
