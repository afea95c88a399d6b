package sqlite

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/store"
	"github.com/mig-controller/mig-controller/internal/store/powerloss"
)

// disk is a database on a disk whose power can fail.
type disk struct {
	*testing.T
	*powerloss.VFS
	db       *DB
	path     string
	dice     *rand.Rand
	answered []answered // acknowledged commits
	doubtful map[string]bool
}

// answered is an acknowledged commit: of this VM, by this moment.
type answered struct {
	vm string
	by int
}

func newDisk(t *testing.T) *disk {
	t.Helper()
	seed := rand.Uint64()
	if s := os.Getenv("POWERLOSS_SEED"); s != "" {
		var err error
		seed, err = strconv.ParseUint(s, 10, 64)
		require.NoError(t, err)
	}
	t.Logf("POWERLOSS_SEED=%d", seed)
	d := &disk{T: t, VFS: powerloss.Register(t), path: filepath.Join(t.TempDir(), "controller.db"), dice: rand.New(rand.NewPCG(seed, 0)), doubtful: map[string]bool{}}
	d.open()
	t.Cleanup(func() { _ = d.db.Close() })
	return d
}

func (d *disk) open() {
	d.Helper()
	var err error
	sys := operatingSystem
	sys.vfs, sys.openLog = d.Name(), func(string) (logFile, error) { return d.OpenFile(powerloss.WAL) }
	d.db, err = open(d.Context(), d.path, sys, slog.New(slog.DiscardHandler))
	require.NoError(d, err)
}

// commit adds a VM, a command and a change.
func (d *disk) commit() error {
	id := fmt.Sprint("vm-", len(d.answered)+len(d.doubtful))
	_, err := d.db.Commit(d.Context(), store.Writes{
		VMs:      []store.VMRow{{ID: id, Doc: make([]byte, d.dice.IntN(9000))}},
		Commands: []store.CommandRow{{ID: id, VM: id, Queue: "q", Doc: []byte("c")}},
		Changes:  []store.ChangeRow{{VM: id, Kind: "vm", Doc: []byte("d")}},
	})
	if err != nil {
		d.doubtful[id] = true
		return err
	}
	d.answered = append(d.answered, answered{id, d.Moment()})
	return nil
}

// check opens what a power loss left at a moment. Every commit acknowledged by then exists,
// in order, and none exists in part.
func (d *disk) check(moment int, dir string, keep powerloss.Keep) {
	d.Helper()
	left := d.SnapshotAt(moment, dir, keep)
	db, err := Open(context.Background(), left, slog.New(slog.DiscardHandler), nil)
	require.NoError(d, err)
	defer func() { require.NoError(d, db.Close()) }()
	var verdict string
	require.NoError(d, db.read(d.Context(), func(c *conn) error {
		return c.sql.QueryRowContext(d.Context(), "PRAGMA integrity_check").Scan(&verdict)
	}))
	require.Equal(d, "ok", verdict)
	vms, _, err := db.VMs(d.Context(), store.VMQuery{}, 10_000)
	require.NoError(d, err)
	there := map[string]bool{}
	for _, v := range vms {
		there[v.ID] = true
	}
	for _, a := range d.answered {
		require.True(d, there[a.vm] || a.by > moment, "%s was acknowledged by moment %d and is lost at %d", a.vm, a.by, moment)
	}
	changes, _, err := db.Changes(d.Context(), store.ChangeQuery{}, 10_000)
	require.NoError(d, err)
	require.Len(d, changes, len(vms), "a commit exists whole or not at all")
	commands, _, err := db.Commands(d.Context(), store.CommandQuery{}, 10_000)
	require.NoError(d, err)
	require.Len(d, commands, len(vms))
	for i, c := range changes {
		require.EqualValues(d, i+1, c.Seq)
		require.True(d, there[c.VM])
	}
}

// losses is how many power losses a test tries.
const losses = 40

// checkSome checks power losses at random moments.
func (d *disk) checkSome() {
	d.Helper()
	dir := d.TempDir()
	for range losses {
		first := d.answered[0].by
		d.check(first+d.dice.IntN(d.Moment()-first+1), dir, powerloss.Some(d.dice))
	}
}

// Acknowledged commits survive a power loss at any moment, across checkpoints too.
func TestPowerLoss(t *testing.T) {
	t.Parallel()
	d := newDisk(t)
	for n := range 60 {
		require.NoError(t, d.commit())
		if n%20 == 19 {
			d.checkpoint()
		}
	}
	d.checkSome()
}

// checkpoint checkpoints the log, and truncates it every other time.
func (d *disk) checkpoint() {
	d.Helper()
	c := <-d.db.conns.writer
	defer func() { d.db.conns.writer <- c }()
	done, err := c.checkpoint(d.Context(), []string{"PASSIVE", "TRUNCATE"}[len(d.answered)/20%2])
	require.NoError(d, err)
	require.True(d, done)
}

// A commit whose sync fails returns an error that names the cause; reads continue, and so
// do later commits once syncs succeed again. No acknowledged commit is lost, then or by a
// power loss.
func TestFailedSync(t *testing.T) {
	t.Parallel()
	d := newDisk(t)
	for range 4 {
		require.NoError(t, d.commit())
		d.FailSyncs(powerloss.WAL, 3, powerloss.Sectors(d.dice))
		for d.Failing(powerloss.WAL) > 0 {
			require.ErrorContains(t, d.commit(), "fsync failed")
			vms, _, err := d.db.VMs(t.Context(), store.VMQuery{}, 1000)
			require.NoError(t, err)
			require.Len(t, vms, len(d.answered), "the failed commit does not exist")
		}
		if d.dice.IntN(2) == 0 {
			d.checkpoint()
		}
		require.NoError(t, d.commit())
		require.NoError(t, d.db.Check(t.Context()))
	}
	d.checkSome()
}

// A process that is killed after a failed sync leaves a log that is complete only in the
// page cache. The next process makes it durable before anything reads it.
func TestKillAfterFailedSync(t *testing.T) {
	t.Parallel()
	for range 5 {
		d := newDisk(t)
		require.NoError(t, d.commit())
		d.FailSyncs(powerloss.WAL, 1, powerloss.None)
		require.Error(t, d.commit())

		path, next := d.Kill(t.TempDir())
		require.NoError(t, d.db.Close())
		d.path, d.VFS, d.answered = path, next, nil
		d.open()
		vms, _, err := d.db.VMs(t.Context(), store.VMQuery{}, 10)
		require.NoError(t, err)
		require.Len(t, vms, 2, "the failed commit is back")
		for _, vm := range vms {
			d.answered = append(d.answered, answered{vm.ID, d.Moment()})
		}
		require.NoError(t, d.commit())
		require.NoError(t, d.commit())
		d.checkSome()
		require.NoError(t, d.db.Close())
	}
}

// The log is rewritten when a database is opened, through a symbolic link too, unless the
// database is already open.
func TestRewriteLog(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "x.db")
	require.NoError(t, operatingSystem.rewriteLog(path), "there is no log")
	db := openTest(t, path)
	require.NoError(t, db.Check(t.Context()))
	require.False(t, rewritten(t, path, path), "it is open")

	killed, link := filepath.Join(dir, "killed.db"), filepath.Join(t.TempDir(), "link.db")
	require.NoError(t, os.Symlink(killed, link))
	for _, suffix := range []string{"", "-wal"} {
		content, err := os.ReadFile(path + suffix)
		require.NoError(t, err)
		require.NotEmpty(t, content)
		require.NoError(t, os.WriteFile(killed+suffix, content, 0o600))
	}
	require.True(t, rewritten(t, killed, killed))
	require.True(t, rewritten(t, link, killed))
}

// rewritten reports whether the log of a database is rewritten, with the same content,
// before SQLite opens it.
func rewritten(t *testing.T, path, database string) bool {
	t.Helper()
	log := database + "-wal"
	before, err := os.ReadFile(log)
	require.NoError(t, err)
	past := time.Unix(1, 0)
	require.NoError(t, os.Chtimes(log, past, past))
	release, err := operatingSystem.own(path, slog.New(slog.DiscardHandler))
	if !errors.Is(err, ErrInUse) {
		require.NoError(t, err)
		require.NoError(t, release())
	}
	after, err := os.ReadFile(log)
	require.NoError(t, err)
	require.Equal(t, before, after)
	info, err := os.Stat(log)
	require.NoError(t, err)
	return !info.ModTime().Equal(past)
}
