package journal

import (
	"bytes"
	"errors"
	"log/slog"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/diskspace"
	"github.com/mig-controller/mig-controller/internal/fleet"
)

// disk is a file system of 100 GiB with as much free space as a test sets.
type disk struct{ free atomic.Uint64 }

func (d *disk) measure() (diskspace.Space, error) {
	return diskspace.Space{Free: d.free.Load(), Total: 100 << 30}, nil
}

// While too little space is free nothing is written and events are kept for later; with
// somewhat more than the limit it continues, in order. Each change is logged once.
func TestPausesWhileSpaceIsLow(t *testing.T) {
	t.Parallel()
	var d disk
	var log bytes.Buffer
	dir := t.TempDir()
	j := open(t, Options{Dir: dir, MinFree: 1000, FreeSpace: d.measure, Log: slog.New(slog.NewTextHandler(&log, nil))})
	es := []fleet.Event{event("vm-1", 1), event("vm-1", 2)}

	for _, free := range []uint64{999, 0, 1000, 1099} { // a little more than the limit is not enough
		d.free.Store(free)
		n, err := j.WriteEvents(t.Context(), es)
		require.ErrorIs(t, err, ErrPaused, free)
		require.Zero(t, n)
		require.True(t, j.Paused())
		require.NoError(t, j.Check(), "the pause is intended")
	}
	require.Empty(t, tree(t, dir))
	require.Zero(t, j.Stats().Failed)
	d.free.Store(1100)
	n, err := j.WriteEvents(t.Context(), es)
	require.NoError(t, err)
	require.Equal(t, 2, n)
	d.free.Store(1000) // not less than the limit
	require.False(t, j.Paused())
	require.Equal(t, 1, bytes.Count(log.Bytes(), []byte(`level=WARN msg="journal paused: too little space is free" free_bytes=999 required_bytes=1000`)))
	require.Equal(t, 1, bytes.Count(log.Bytes(), []byte(`level=INFO msg="journal resumed" free_bytes=1100 required_bytes=1000`)))
	require.Equal(t, 2, bytes.Count(log.Bytes(), []byte("\n")))
}

// A pause in the middle of a batch keeps the files written before.
func TestPauseInTheMiddle(t *testing.T) {
	t.Parallel()
	calls := 0
	j := open(t, Options{MinFree: 1000, FreeSpace: func() (diskspace.Space, error) {
		calls++
		return diskspace.Space{Free: map[bool]uint64{true: 1 << 30, false: 0}[calls == 1]}, nil
	}})
	var es []fleet.Event
	for n := range 2 * chunkSize {
		es = append(es, event("vm-1", n))
	}
	n, err := j.WriteEvents(t.Context(), es)
	require.ErrorIs(t, err, ErrPaused)
	require.Equal(t, chunkSize, n)
	require.EqualValues(t, chunkSize, j.Stats().Events)
}

// Heartbeats during a pause get no file, are counted, and detect the end of the pause.
func TestHeartbeatsDuringAPause(t *testing.T) {
	t.Parallel()
	var d disk
	var log bytes.Buffer
	dir := t.TempDir()
	j := open(t, Options{Dir: dir, MinFree: 1000, FreeSpace: d.measure, Log: slog.New(slog.NewTextHandler(&log, nil))})
	for n := range 3 {
		j.Heartbeat(origin("vm-1", fleet.Stream, n), beat)
	}
	require.Eventually(t, func() bool { return j.Stats().Paused == 3 }, 10*time.Second, time.Millisecond)
	require.Zero(t, j.Stats().Queued)
	require.Empty(t, tree(t, dir))
	d.free.Store(1 << 30)
	j.Heartbeat(origin("vm-1", fleet.Stream, 3), beat)
	require.NoError(t, j.Close())
	require.EqualValues(t, 1, j.Stats().Heartbeats)
	require.Contains(t, log.String(), "heartbeats_left_out=3")
}

// By default a small file system needs at most a twentieth of itself free; a failed
// measurement stops nothing.
func TestRequiredSpace(t *testing.T) {
	t.Parallel()
	auto := space{min: AutoMinFree}
	require.EqualValues(t, 1<<30, auto.required(100<<30))
	require.EqualValues(t, 50<<20, auto.required(1000<<20))
	given := space{min: 5 << 30}
	require.EqualValues(t, 5<<30, given.required(1<<30))
	unknown := open(t, Options{MinFree: 1 << 60, FreeSpace: func() (diskspace.Space, error) { return diskspace.Space{}, errors.ErrUnsupported }})
	require.False(t, unknown.Paused())
	_, err := Open(Options{Dir: t.TempDir(), MinFree: -2})
	require.ErrorContains(t, err, "MinFree must be")
}

// eventsEvery returns events of vm-1 that are received at intervals, beginning at a time.
func eventsEvery(n int, begin time.Time, every time.Duration) []fleet.Event {
	es := make([]fleet.Event, n)
	for i := range es {
		es[i] = event("vm-1", 0)
		es[i].Seq = int64(i + 1)
		es[i].ReceivedAt = begin.Add(time.Duration(i) * every)
	}
	return es
}

// files returns how many event files there are.
func files(tb testing.TB, dir string, vm fleet.VMID) int {
	tb.Helper()
	found, err := filepath.Glob(filepath.Join(dir, string(vm), "*.json"))
	require.NoError(tb, err)
	return len(found)
}

// A VM that reports endlessly has the files that its budget allows: the events count as
// done anyway, and one message is logged.
func TestEventFilesHaveABudget(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	dir := t.TempDir()
	j := open(t, Options{Dir: dir, Log: slog.New(slog.NewTextHandler(&log, nil))})
	es := eventsEvery(eventBurst+200, start, time.Millisecond)
	other := event("vm-2", 0)
	other.Seq = int64(len(es) + 1)
	n, err := j.WriteEvents(t.Context(), append(es, other))
	require.NoError(t, err)
	require.Equal(t, len(es)+1, n)
	require.Equal(t, eventBurst+1, files(t, dir, "vm-1"), "plus one for the second that has passed")
	require.Equal(t, 1, files(t, dir, "vm-2"), "others are not affected")
	require.Equal(t, Stats{Events: eventBurst + 2, EventsOverBudget: 199}, j.Stats())
	require.Equal(t, 1, bytes.Count(log.Bytes(), []byte(`msg="event files skipped: the VM is over its budget" vm_id=vm-1`)))
}

// A file that is written late is charged as if it were written in time: an outage causes no
// file to be skipped.
func TestEventBudgetGoesByTheTimeOfReceipt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := open(t, Options{Dir: dir})
	es := eventsEvery(eventBurst+200, start, time.Second)
	n, err := j.WriteEvents(t.Context(), es)
	require.NoError(t, err)
	require.Equal(t, len(es), n)
	require.Equal(t, len(es), files(t, dir, "vm-1"))
}

// Events that are retried again and again are not charged again, and skipped ones remain
// skipped.
func TestEventBudgetChargesOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := open(t, Options{Dir: dir})
	es := eventsEvery(eventBurst+10, start, 0)
	for i := range es {
		es[i].ReceivedAt = start.Add(time.Duration(i))
	}
	n, err := j.WriteEvents(t.Context(), es[:eventBurst-1])
	require.NoError(t, err)
	require.Equal(t, eventBurst-1, n)
	write(t, filepath.Join(dir, "vm-taken"), "a file")
	rest := append([]fleet.Event{event("vm-taken", 1)}, es[n:]...)
	rest[0].Seq = es[n-1].Seq
	for range 10 {
		n, err := j.WriteEvents(t.Context(), rest)
		require.Error(t, err)
		require.Zero(t, n)
	}
	n, err = j.WriteEvents(t.Context(), rest[1:])
	require.NoError(t, err)
	require.Equal(t, len(rest)-1, n)
	require.Equal(t, eventBurst, files(t, dir, "vm-1"))
	require.EqualValues(t, 10, j.Stats().EventsOverBudget)
}

// Large events use up the budget of bytes, by the size of their indented files.
func TestEventFilesHaveABudgetOfBytes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := open(t, Options{Dir: dir})
	es := eventsEvery(40, start, time.Nanosecond)
	for i := range es {
		es[i].Body = append(append([]byte(`{"n":[0`), bytes.Repeat([]byte(",1"), 200_000)...), `]}`...) // 1.4 MB indented
	}
	n, err := j.WriteEvents(t.Context(), es)
	require.NoError(t, err)
	require.Len(t, es, n)
	require.InDelta(t, eventByteBurst/1_400_000, files(t, dir, "vm-1"), 2)
}

// A clock that is set back causes no file to be skipped, and one that is set forward allows
// at most a burst.
func TestEventBudgetAndTheClock(t *testing.T) {
	t.Parallel()
	b := newEventBudget()
	spent := 0
	for i, at := range []time.Time{start, start.Add(-30 * 24 * time.Hour), start.Add(time.Hour), start.Add(-time.Hour)} {
		for k := range eventBurst + 1 {
			e := event("vm-1", 0)
			e.Seq, e.ReceivedAt = int64(i*10_000+k+1), at
			if ok, _ := b.spend(e, 1, b.at(e.ReceivedAt)); ok {
				spent++
			}
		}
		b.begin(int64(i*10_000 + eventBurst + 2))
		require.Empty(t, b.decided, "decisions on events that are not retried are dropped")
		want := []int{eventBurst, eventBurst, 2 * eventBurst, 2 * eventBurst}[i]
		require.Equal(t, want, spent, strconv.Itoa(i))
	}
}
