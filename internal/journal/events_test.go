package journal

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// Every event gets a file of its own with everything the agent sent, readable by owner and
// group; nothing else is left in the directory.
func TestEveryEventGetsItsFile(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "made", "by", "open")
	j := open(t, Options{Dir: dir})
	var es []fleet.Event
	var want []string
	for n := range 2*chunkSize + 3 {
		e := event(fleet.VMID(fmt.Sprintf("vm-%d", n%5)), n)
		es = append(es, e)
		want = append(want, filepath.Join(string(e.VM), eventName(e)))
	}
	n, err := j.WriteEvents(t.Context(), es)
	require.NoError(t, err)
	require.Equal(t, len(es), n)
	require.Subset(t, tree(t, dir), want)
	require.Len(t, tree(t, dir), len(es)+5)
	for _, e := range es {
		require.JSONEq(t, string(e.Body), read(t, path(dir, e)))
		info, err := os.Stat(path(dir, e))
		require.NoError(t, err)
		require.Zero(t, info.Mode().Perm()&^fileMode)
	}
	info, err := os.Stat(filepath.Join(dir, "vm-0"))
	require.NoError(t, err)
	require.Zero(t, info.Mode().Perm()&^dirMode)
	require.Equal(t, Stats{Events: uint64(len(es))}, j.Stats())
}

// The content is readable, keeps numbers as they were written, and is complete even if it
// is not valid JSON.
func TestContents(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ body, want string }{
		"object":   {`{"a":{"b":[1]},"n":12345678901234567890.10}`, "{\n  \"a\": {\n    \"b\": [\n      1\n    ]\n  },\n  \"n\": 12345678901234567890.10\n}\n"},
		"empty":    {"", "{}\n"},
		"no json":  {`{"a":`, "{\"a\":\n"},
		"trailing": {"{}\n\n", "{}\n"},
	} {
		require.Equal(t, c.want, string(readable([]byte(c.body))), name)
	}
}

// A replay after a crash counts existing files and does not change them.
func TestReplayChangesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := open(t, Options{Dir: dir})
	es := []fleet.Event{event("vm-1", 1), event("vm-2", 2), event("vm-1", 3)}
	n, err := j.WriteEvents(t.Context(), es[:2])
	require.NoError(t, err)
	require.Equal(t, 2, n)
	before, err := os.Stat(path(dir, es[0]))
	require.NoError(t, err)

	again := append([]fleet.Event{}, es...)
	again[0].Body = json.RawMessage(`{"other":true}`)
	n, err = j.WriteEvents(t.Context(), again)
	require.NoError(t, err)
	require.Equal(t, 3, n)
	after, err := os.Stat(path(dir, es[0]))
	require.NoError(t, err)
	require.True(t, os.SameFile(before, after))
	require.Equal(t, before.ModTime(), after.ModTime())
	require.JSONEq(t, string(es[0].Body), read(t, path(dir, es[0])))
	require.EqualValues(t, 3, j.Stats().Events)
}

// An event that is twice in one call is written once: the first file is not overwritten.
func TestTheSameEventTwiceInOneCall(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := open(t, Options{Dir: dir})
	e, again := event("vm-1", 1), event("vm-1", 1)
	again.Body = json.RawMessage(`{"other":true}`)
	n, err := j.WriteEvents(t.Context(), []fleet.Event{e, again, again})
	require.NoError(t, err)
	require.Equal(t, 3, n)
	require.JSONEq(t, string(e.Body), read(t, path(dir, e)))
	require.Equal(t, []string{"vm-1", filepath.Join("vm-1", eventName(e))}, tree(t, dir))
	require.EqualValues(t, 1, j.Stats().Events)
}

// A temporary file that a crash left does not affect the event, even if it has the name
// that would be used next.
func TestTornTemporaryFileIsHarmless(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := open(t, Options{Dir: dir})
	e := event("vm-1", 1)
	torn := filepath.Join(dir, "vm-1", tempName(eventName(e), "1"))
	write(t, torn, `{"type":"job_`)
	n, err := j.WriteEvents(t.Context(), []fleet.Event{e})
	require.NoError(t, err)
	require.Equal(t, 1, n)
	require.JSONEq(t, string(e.Body), read(t, path(dir, e)))
	require.NoFileExists(t, torn)
}

// If one event cannot be written, those before it are and count, those after it are not,
// nothing is left over, and everything works once the cause is fixed.
func TestErrorInTheMiddle(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := open(t, Options{Dir: dir})
	write(t, filepath.Join(dir, "vm-taken"), "a file")
	es := []fleet.Event{event("vm-1", 1), event("vm-taken", 2), event("vm-1", 3)}

	n, err := j.WriteEvents(t.Context(), es)
	require.ErrorContains(t, err, "event 2 of 3: VM vm-taken: the name of its directory is taken")
	require.Equal(t, 1, n)
	require.Equal(t, []string{"vm-1", filepath.Join("vm-1", eventName(es[0])), "vm-taken"}, tree(t, dir))
	require.EqualValues(t, 1, j.Stats().Failed)

	require.NoError(t, os.Remove(filepath.Join(dir, "vm-taken")))
	n, err = j.WriteEvents(t.Context(), es[n:])
	require.NoError(t, err)
	require.Equal(t, 2, n)
	require.FileExists(t, path(dir, es[1]))
	require.FileExists(t, path(dir, es[2]))
}

// A file name that is in use by something else is an error, and its owner is not changed.
func TestTakenFileName(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := open(t, Options{Dir: dir})
	e := event("vm-1", 1)
	other := filepath.Join(dir, "vm-1", "other")
	write(t, other, "other")
	require.NoError(t, os.Symlink("other", path(dir, e)))
	n, err := j.WriteEvents(t.Context(), []fleet.Event{e})
	require.ErrorIs(t, err, os.ErrExist)
	require.Zero(t, n)
	require.Equal(t, "other", read(t, other))
	require.Len(t, tree(t, dir), 3)
}

// A symbolic link in place of a VM's directory is not followed: neither out of the journal,
// nor to another directory within it.
func TestSymlinkedDirectoryIsNotFollowed(t *testing.T) {
	t.Parallel()
	dir, outside := t.TempDir(), t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "_state"), 0o700))
	for vm, target := range map[fleet.VMID]string{"out": outside, "in": "_state", "nowhere": "missing"} {
		require.NoError(t, os.Symlink(target, filepath.Join(dir, string(vm))))
		j := open(t, Options{Dir: dir})
		n, err := j.WriteEvents(t.Context(), []fleet.Event{event(vm, 1)})
		require.ErrorContains(t, err, "the name of its directory is taken")
		require.Zero(t, n)
		j.Heartbeat(origin(vm, fleet.Stream, 2), beat)
		require.NoError(t, j.Close())
		require.EqualValues(t, 2, j.Stats().Failed)
	}
	require.Empty(t, tree(t, outside))
	require.Empty(t, tree(t, filepath.Join(dir, "_state")))
}

// An invalid id never becomes a file name.
func TestNoIDBecomesAPath(t *testing.T) {
	t.Parallel()
	parent := t.TempDir()
	j := open(t, Options{Dir: filepath.Join(parent, "journal")})
	for _, bad := range []string{"", "..", "../x", "a/b", "_state", ".x", "a\x00b", strings.Repeat("x", 129)} {
		byVM, byType := event("vm-1", 1), event("vm-1", 2)
		byVM.VM, byType.Type = fleet.VMID(bad), bad
		for _, e := range []fleet.Event{byVM, byType} {
			n, err := j.WriteEvents(t.Context(), []fleet.Event{e})
			var field *fleet.FieldError
			require.ErrorAs(t, err, &field, bad)
			require.Zero(t, n)
		}
		j.Heartbeat(byVM.Origin, beat)
	}
	require.NoError(t, j.Close())
	require.Equal(t, []string{"journal"}, tree(t, parent))
	require.EqualValues(t, 3*8, j.Stats().Failed)
}

// A caller whose context ends learns how many events were written.
func TestWriteEventsStopsWithItsContext(t *testing.T) {
	t.Parallel()
	j := open(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	n, err := j.WriteEvents(ctx, []fleet.Event{event("vm-1", 1)})
	require.ErrorIs(t, err, context.Canceled)
	require.Zero(t, n)
	require.Zero(t, j.Stats().Failed)
}

// Concurrent writers, replays, heartbeats and pruning lose no event, and there is never an
// incomplete file with a final name.
func TestAllAtOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := open(t, Options{Dir: dir, Retention: 1, HeartbeatBurst: 1000})
	const vms, each = 4, 40
	var writers, others sync.WaitGroup
	stop := make(chan struct{})
	for vm := range vms {
		id := fleet.VMID(fmt.Sprintf("vm-%d", vm))
		for range 2 { // the second is a concurrent replay
			writers.Go(func() {
				for n := range each {
					if got, err := j.WriteEvents(t.Context(), []fleet.Event{event(id, n)}); got != 1 {
						t.Errorf("event %d of %s: %v", n, id, err)
					}
					// Pruning at this time removes heartbeats and directories, but no
					// event.
					j.Heartbeat(origin(id+"-h", fleet.HTTP, -1-n), beat)
				}
			})
		}
	}
	others.Go(func() { readUntil(t, dir, stop) })
	others.Go(func() {
		for !isClosed(stop) {
			if _, err := j.Prune(t.Context(), start.Add(1)); err != nil {
				t.Errorf("prune: %v", err)
			}
			if err := j.Check(); err != nil {
				t.Errorf("check: %v", err)
			}
		}
	})
	writers.Wait()
	close(stop)
	others.Wait()
	require.NoError(t, j.Close())
	for vm := range vms {
		for n := range each {
			require.FileExists(t, path(dir, event(fleet.VMID(fmt.Sprintf("vm-%d", vm)), n)))
		}
	}
	require.EqualValues(t, vms*each, j.Stats().Events)
	require.Zero(t, j.Stats().Failed)
}

// readUntil reads every file with a final name, again and again.
func readUntil(t *testing.T, dir string, stop <-chan struct{}) {
	t.Helper()
	for !isClosed(stop) {
		names, err := filepath.Glob(filepath.Join(dir, "vm-*", "*.json"))
		if err != nil {
			t.Errorf("glob: %v", err)
		}
		for _, name := range names {
			content, err := os.ReadFile(name)
			if os.IsNotExist(err) {
				continue // pruned
			}
			if err != nil || !json.Valid(content) {
				t.Errorf("%s: %q %v", name, content, err)
			}
		}
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// A closed journal accepts nothing, and closing it twice is not an error.
func TestClosed(t *testing.T) {
	t.Parallel()
	j := open(t, Options{})
	require.NoError(t, j.Close())
	require.NoError(t, j.Close())
	n, err := j.WriteEvents(t.Context(), []fleet.Event{event("vm-1", 1)})
	require.ErrorIs(t, err, os.ErrClosed)
	require.Zero(t, n)
	require.ErrorIs(t, j.Check(), os.ErrClosed)
	_, err = j.Prune(t.Context(), start)
	require.ErrorIs(t, err, os.ErrClosed)
	j.Heartbeat(origin("vm-1", fleet.Stream, 1), func() ([]byte, error) {
		t.Error("rendered for a closed journal")
		return nil, nil
	})
	require.EqualValues(t, 1, j.Stats().QueueFull)
}

func BenchmarkOneEvent(b *testing.B) {
	j := open(b, Options{})
	n := 0
	for b.Loop() {
		n++
		if _, err := j.WriteEvents(b.Context(), []fleet.Event{event("vm-1", n)}); err != nil {
			b.Fatal(err)
		}
	}
}

// The time is for 64 events, each of another VM.
func BenchmarkChunkOfEvents(b *testing.B) {
	j := open(b, Options{})
	n := 0
	for b.Loop() {
		es := make([]fleet.Event, chunkSize)
		for i := range es {
			n++
			es[i] = event(fleet.VMID(fmt.Sprintf("vm-%d", i)), n)
		}
		if _, err := j.WriteEvents(b.Context(), es); err != nil {
			b.Fatal(err)
		}
	}
}
