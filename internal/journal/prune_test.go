package journal

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

const (
	oldName   = "grpc-heartbeat-20251201T000000.000000000Z.json"
	oldEvent  = "event-vm_started-20251201T000000.000000000Z.json"
	freshName = "grpc-heartbeat-20260102T150000.000000000Z.json"
)

// Files are removed when their retention is over and directories when they are empty;
// nothing is removed that is not the journal's.
func TestPrune(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	gone := []string{
		"vm-old/" + oldName, "vm-old/" + oldEvent, "vm-some/" + oldName,
		"vm-link/" + oldName, "vm-notes/" + oldName, "vm-named/" + oldName,
	}
	kept := []string{
		"vm-some/" + freshName,                             // not old
		"vm-notes/notes.json", "vm-notes/" + oldName + "~", // not the journal's
		"vm-named/" + oldEvent + "/x",                               // a directory named like a file
		"_state/" + oldName, ".hidden/" + oldName, "a b/" + oldName, // not a VM's
		oldName, // not in a VM's directory
	}
	for _, name := range append(append([]string{}, gone...), kept...) {
		write(t, filepath.Join(dir, name), "{}")
	}
	require.NoError(t, os.Mkdir(filepath.Join(dir, "vm-empty"), 0o750))
	outside := t.TempDir()
	write(t, filepath.Join(outside, oldName), "{}")
	require.NoError(t, os.Symlink(outside, filepath.Join(dir, "vm-outside")))
	require.NoError(t, os.Symlink("_state", filepath.Join(dir, "vm-inside")))
	require.NoError(t, os.Symlink(filepath.Join(outside, oldName), filepath.Join(dir, "vm-link", oldEvent)))

	j := open(t, Options{Dir: dir, Retention: 24 * time.Hour})
	n, err := j.Prune(t.Context(), start)
	require.NoError(t, err)
	require.Equal(t, len(gone), n)
	for _, name := range gone {
		require.NoFileExists(t, filepath.Join(dir, name))
	}
	for _, name := range append(kept, "vm-outside/"+oldName, "vm-inside/"+oldName, "vm-link/"+oldEvent) {
		require.FileExists(t, filepath.Join(dir, name))
	}
	require.NoDirExists(t, filepath.Join(dir, "vm-old"))
	require.NoDirExists(t, filepath.Join(dir, "vm-empty"))
}

// A file is removed when it is older than the retention, not when it is exactly as old.
func TestPruneGoesByTheTimeOfReceipt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := open(t, Options{Dir: dir, Retention: time.Hour})
	e := event("vm-1", 0)
	_, err := j.WriteEvents(t.Context(), []fleet.Event{e})
	require.NoError(t, err)
	n, err := j.Prune(t.Context(), start.Add(time.Hour))
	require.NoError(t, err)
	require.Zero(t, n)
	n, err = j.Prune(t.Context(), start.Add(time.Hour+1))
	require.NoError(t, err)
	require.Equal(t, 1, n)
	require.Empty(t, tree(t, dir))
}

// Without a retention files are kept forever; an incomplete file that a crash left is
// removed anyway, an hour after the last write to it, but not one in progress.
func TestPruneWithoutRetention(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := open(t, Options{Dir: dir})
	torn := filepath.Join(dir, "vm-1", tempName(oldName, "7"))
	underWay := filepath.Join(dir, "vm-1", tempName(oldName, "8"))
	for _, name := range []string{torn, underWay, filepath.Join(dir, "vm-1", oldName)} {
		write(t, name, "{")
	}
	require.NoError(t, os.Chtimes(torn, start, start.Add(-time.Hour-1)))
	require.NoError(t, os.Chtimes(underWay, start, start.Add(-time.Hour)))
	n, err := j.Prune(t.Context(), start)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	require.NoFileExists(t, torn)
	require.FileExists(t, underWay)
	require.FileExists(t, filepath.Join(dir, "vm-1", oldName))
}

// A directory with more files than are read at once is pruned completely.
func TestPruneOfALargeDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for n := range 3*readAtOnce + 1 {
		name := fmt.Sprintf("heartbeat-20251201T000000.%09dZ.json", n)
		write(t, filepath.Join(dir, "vm-1", name), "")
	}
	j := open(t, Options{Dir: dir, Retention: time.Hour})
	n, err := j.Prune(t.Context(), start)
	require.NoError(t, err)
	require.Equal(t, 3*readAtOnce+1, n)
	require.Empty(t, tree(t, dir))
}

// Pruning stops when its context ends.
func TestPruneStopsWithItsContext(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "vm-1", oldName), "")
	j := open(t, Options{Dir: dir, Retention: time.Hour})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	n, err := j.Prune(ctx, start)
	require.ErrorIs(t, err, context.Canceled)
	require.Zero(t, n)
	require.FileExists(t, filepath.Join(dir, "vm-1", oldName))
}
