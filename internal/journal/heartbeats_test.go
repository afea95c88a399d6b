package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/logkey"
	"github.com/mig-controller/mig-controller/internal/loglimit"
)

// A heartbeat within the budget gets its file; one beyond it is counted, is not rendered,
// and takes nothing from other VMs.
func TestHeartbeatsWithinTheirBudget(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		j := open(t, Options{Dir: dir})
		rendered := 0
		n := 0
		send := func(vm fleet.VMID, count int) {
			for range count {
				n++
				j.Heartbeat(origin(vm, fleet.Stream, n), func() ([]byte, error) { rendered++; return beat() }) // by one goroutine
			}
		}
		send("vm-1", 100)
		send("vm-2", 3)
		time.Sleep(20 * time.Second) // fake clock
		send("vm-1", 10)
		require.NoError(t, j.Close())
		require.Equal(t, Stats{Heartbeats: 20 + 3 + 2, OverBudget: 80 + 8}, j.Stats())
		require.Equal(t, 25, rendered)
	})
	require.Len(t, tree(t, dir), 2+25)
	require.JSONEq(t, `{"miglet_state":"idle"}`,
		read(t, filepath.Join(dir, "vm-1", heartbeatName(origin("vm-1", fleet.Stream, 1)))))
}

// However many VMs there are, their files together stay within a budget: the journal does
// not fill the disk as the fleet grows. VMs that got no file for that reason get theirs
// when the budget allows, before those that had one.
func TestFilesOfTheWholeFleet(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		j := open(t, Options{Dir: dir, QueueSize: maxQueueSize, HeartbeatBurst: 1})
		written := make(chan struct{}) // nothing is: this is about what would be
		t.Cleanup(func() { close(written) })
		render := func() ([]byte, error) { <-written; return beat() }
		send := func() {
			for n := range fleetBurst + 500 {
				j.Heartbeat(origin(fleet.VMID(fmt.Sprintf("vm-%d", n)), fleet.Stream, n), render)
			}
		}
		send()
		require.Equal(t, Stats{Queued: fleetBurst, OverBudget: 500}, j.Stats())
		time.Sleep(2 * time.Second) // fake clock
		send()
		require.Equal(t, fleetBurst+2*fleetPerSecond, j.Stats().Queued)
	})
}

// When the queue is full a heartbeat is counted and dropped immediately, without rendering
// or charging the VM's budget; queued ones are written.
func TestHeartbeatsBeyondTheQueue(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := open(t, Options{Dir: dir, QueueSize: 3, HeartbeatBurst: 4, HeartbeatsPerSecond: minPerSecond})
	j.dirs.Lock() // the writer waits
	goOn := sync.OnceFunc(j.dirs.Unlock)
	t.Cleanup(goOn)
	rendered := 0
	for n := range 10 {
		j.Heartbeat(origin("vm-1", fleet.HTTP, n), func() ([]byte, error) { rendered++; return beat() })
	}
	require.Equal(t, Stats{QueueFull: 7, Queued: 3}, j.Stats())
	j.mu.Lock()
	left := spendAll(&j.budget, "vm-1", time.Now())
	j.mu.Unlock()
	require.Equal(t, 1, left)
	goOn()
	require.NoError(t, j.Close())
	require.Equal(t, 3, rendered)
	require.Equal(t, Stats{Heartbeats: 3, QueueFull: 7}, j.Stats())
	require.Len(t, tree(t, dir), 1+3)
}

// A heartbeat that cannot be rendered is counted and releases its place in the queue, even
// when rendering panics; later ones get their files.
func TestHeartbeatsThatCannotBeRendered(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var out bytes.Buffer
	j := open(t, Options{Dir: dir, Log: slog.New(slog.NewJSONHandler(&out, nil))})
	j.Heartbeat(origin("vm-1", fleet.Stream, 1), func() ([]byte, error) { panic("no such field") })
	j.Heartbeat(origin("vm-1", fleet.Stream, 2), func() ([]byte, error) { return nil, errors.New("no such field") })
	j.Heartbeat(origin("../vm-1", fleet.Stream, 3), beat)
	j.Heartbeat(origin("vm-1", fleet.Stream, 4), beat)
	require.NoError(t, j.Close())
	require.Equal(t, Stats{Failed: 3, Heartbeats: 1}, j.Stats())
	require.Len(t, tree(t, dir), 1+1)
	require.Contains(t, out.String(), "render: panic: no such field")
}

// Files wait for others to be written with for at most a second, and not once the queue is
// half full.
func TestHeartbeatsGather(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		j := open(t, Options{Dir: dir, QueueSize: 5})
		send := func(n int) {
			j.Heartbeat(origin("vm-1", fleet.Stream, n), beat)
			synctest.Wait()
		}
		send(1)
		time.Sleep(gatherFor - time.Nanosecond) // fake clock
		send(2)
		require.Equal(t, Stats{Queued: 2}, j.Stats())
		time.Sleep(time.Nanosecond) // fake clock
		synctest.Wait()
		require.Equal(t, Stats{Heartbeats: 2}, j.Stats())

		send(3)
		send(4)
		require.Equal(t, Stats{Heartbeats: 2, Queued: 2}, j.Stats())
		send(5)
		require.Equal(t, Stats{Heartbeats: 5}, j.Stats())
		send(6)
		require.Equal(t, Stats{Heartbeats: 5, Queued: 1}, j.Stats(), "the next group waits again")
	})
	require.Len(t, tree(t, dir), 1+6, "Close does not wait for others")
}

// A heartbeat never overwrites a file.
func TestHeartbeatsNeverOverwrite(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := open(t, Options{Dir: dir})
	o := origin("vm-1", fleet.Stream, 1)
	file := filepath.Join(dir, "vm-1", heartbeatName(o))
	write(t, file, "first")
	j.Heartbeat(o, beat)
	require.NoError(t, j.Close())
	require.Equal(t, "first", read(t, file))
	require.Len(t, tree(t, dir), 2)
	require.Zero(t, j.Stats().Heartbeats)
}

// Failures of heartbeat files are all counted, and some of them logged; none is once the cause
// is fixed.
func TestFailedHeartbeatFiles(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		var out bytes.Buffer
		j := open(t, Options{Dir: dir, HeartbeatBurst: 1000, Log: slog.New(slog.NewJSONHandler(&out, nil))})
		taken := filepath.Join(dir, "vm-1")
		write(t, taken, "a file")
		n := 0
		send := func(count int) {
			for range count {
				n++
				j.Heartbeat(origin("vm-1", fleet.Stream, n), beat)
			}
			time.Sleep(2 * gatherFor) // fake clock
			synctest.Wait()
		}
		send(loglimit.Lines + 5)
		require.Equal(t, loglimit.Lines, strings.Count(out.String(), "\n"), out.String())
		time.Sleep(loglimit.Period) // fake clock
		send(1)
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		require.Len(t, lines, loglimit.Lines+1)
		var last map[string]any
		require.NoError(t, json.Unmarshal([]byte(lines[loglimit.Lines]), &last))
		require.Equal(t, "vm-1", last[logkey.VM])
		require.EqualValues(t, 5, last[loglimit.KeySuppressed])
		require.Contains(t, last[logkey.Error], "the name of its directory is taken")
		require.EqualValues(t, loglimit.Lines+6, j.Stats().Failed)

		require.NoError(t, os.Remove(taken))
		send(1)
		require.EqualValues(t, 1, j.Stats().Heartbeats)
		require.Len(t, strings.Split(strings.TrimSpace(out.String()), "\n"), loglimit.Lines+1)
	})
}

// Check determines whether files can be written now, and leaves nothing behind.
func TestCheck(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := open(t, Options{Dir: dir})
	require.NoError(t, j.Check())
	write(t, filepath.Join(dir, checkName), "left by a crash")
	require.NoError(t, j.Check())
	require.Empty(t, tree(t, dir))

	inTheWay := filepath.Join(dir, checkName, "x")
	write(t, inTheWay, "")
	require.Error(t, j.Check())
	require.NoError(t, os.RemoveAll(filepath.Dir(inTheWay)))
	require.NoError(t, j.Check())
}

// A link in place of the check's file is not followed.
func TestCheckFollowsNoLink(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := open(t, Options{Dir: dir})
	write(t, filepath.Join(dir, "_state", "db"), "precious")
	require.NoError(t, os.Symlink("_state/db", filepath.Join(dir, checkName)))
	require.NoError(t, j.Check())
	require.Equal(t, "precious", read(t, filepath.Join(dir, "_state", "db")))
}

// An invalid option is named.
func TestOpenNamesTheBadOption(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for field, o := range map[string]Options{
		"Dir":            {},
		"HeartbeatBurst": {Dir: dir, HeartbeatBurst: maxBurst + 1},
		"QueueSize":      {Dir: dir, QueueSize: -1},
		"Retention":      {Dir: dir, Retention: -1},
	} {
		requireField(t, field, o)
	}
	for _, rate := range []float64{-1, 1e-9, 1e9, math.NaN(), math.Inf(1)} {
		requireField(t, "HeartbeatsPerSecond", Options{Dir: dir, HeartbeatsPerSecond: rate})
	}
	file := filepath.Join(dir, "file")
	write(t, file, "")
	_, err := Open(Options{Dir: file})
	require.Error(t, err)
}

func requireField(t *testing.T, name string, o Options) {
	t.Helper()
	_, err := Open(o)
	var field *fleet.FieldError
	require.ErrorAs(t, err, &field)
	require.Equal(t, name, field.Field)
}

// The time is for a heartbeat beyond its VM's budget, as in a flood.
func BenchmarkHeartbeatOverBudget(b *testing.B) {
	benchmarkRefused(b, 50, Options{HeartbeatBurst: 1, HeartbeatsPerSecond: minPerSecond})
}

// The time is for a heartbeat beyond the shared budget, as in a large fleet.
func BenchmarkHeartbeatOverBudgetOfAll(b *testing.B) { benchmarkRefused(b, 2000, Options{}) }

func benchmarkRefused(b *testing.B, vms int, o Options) {
	b.Helper()
	j, from := open(b, o), origins(vms)
	for n := range fleetBurst {
		j.Heartbeat(from[n%vms], beat)
	}
	n := 0
	for b.Loop() {
		n++
		j.Heartbeat(from[n%vms], beat)
	}
}

// origins are those of this many VMs.
func origins(vms int) []fleet.Origin {
	from := make([]fleet.Origin, vms)
	for i := range from {
		from[i] = origin(fleet.VMID(fmt.Sprintf("vm-%d", i)), fleet.Stream, i)
	}
	return from
}

// The time is for a file in one of 2,000 directories. On ext4 it is ten times as long for a
// while after many files were removed, as at the end of an earlier run: a new file cannot
// reuse an inode that was freed just before, and every one of those is examined.
func BenchmarkHeartbeatFile(b *testing.B) {
	j, from := open(b, Options{}), origins(2000)
	body := []byte(`{"note":"` + strings.Repeat("x", 690) + `"}`)
	n := 0
	one := func() {
		o := from[n%len(from)]
		n++
		o.ReceivedAt = start.Add(time.Duration(n))
		if _, err := j.writeHeartbeat(heartbeatFile{o, func() ([]byte, error) { return body, nil }}); err != nil {
			b.Fatal(err)
		}
	}
	for range from { // the directories usually exist
		one()
	}
	for b.Loop() {
		one()
	}
}
