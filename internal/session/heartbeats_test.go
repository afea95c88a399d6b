package session

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// Heartbeats that arrive close together share a commit, and none waits longer than documented.
func TestHeartbeatsAreGrouped(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a, b := s.registered("vm-1"), s.registered("vm-2")
		for i := range 3 {
			a.beat(fmt.Sprintf("a%d", i))
			b.beat(fmt.Sprintf("b%d", i))
		}
		synctest.Wait()
		require.Empty(t, s.beats("vm-1"))
		time.Sleep(beatWindow) // fake clock
		synctest.Wait()
		require.Equal(t, []string{"a0", "a1", "a2"}, s.beats("vm-1"))
		require.Equal(t, []string{"b0", "b1", "b2"}, s.beats("vm-2"))
		require.Equal(t, []int{6}, s.store.groups)
		require.LessOrEqual(t, beatWindow, 100*time.Millisecond)

		for range 20 { // further ones do not delay the first
			a.beat("late")
			time.Sleep(beatWindow / 5) // fake clock
		}
		synctest.Wait()
		require.GreaterOrEqual(t, len(s.beats("vm-1")), 3+15)
		require.Equal(t, "late", s.vm("vm-1").Status)
		time.Sleep(time.Second) // fake clock
		synctest.Wait()
		require.Len(t, s.files("vm-1"), 20, "the number of files within the budget, a second later")
	})
}

// A heartbeat that waits for space counts as unstored even when later ones of other streams
// are stored.
func TestWaitingHeartbeatIsUnstored(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, withoutJournal)
		a, b := s.registered("vm-1"), s.registered("vm-2")
		s.store.down("RecordHeartbeats")
		a.flood(maxBeats)
		time.Sleep(beatWindow) // fake clock
		a.flood(maxBeats)
		time.Sleep(time.Second) // fake clock
		blocked := clock()
		go func() { _ = b.do(beatOf("idle")) }()
		time.Sleep(time.Second) // fake clock
		synctest.Wait()
		require.WithinDuration(t, blocked, s.unstored.oldest(clock()), time.Millisecond)
		s.store.up("RecordHeartbeats")
		time.Sleep(time.Minute) // fake clock
		synctest.Wait()
		require.Empty(t, s.unstored.at)
	})
}

// The size of a group is bounded.
func TestHeartbeatGroupsAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, withoutJournal)
		a := s.registered("vm-1")
		a.flood(maxBeats + 1)
		time.Sleep(2 * beatWindow) // fake clock
		synctest.Wait()
		require.Equal(t, []int{maxBeats, 1}, s.store.groups)
	})
}

// When heartbeats arrive faster than they are stored, their callers wait and nothing is
// dropped. The end of a stream ends its wait.
func TestHeartbeatBackpressure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, withoutJournal)
		a, b := s.registered("vm-1"), s.registered("vm-2")
		open := make(chan struct{})
		s.store.on("RecordHeartbeats", func() error { <-open; return nil })
		a.beat("idle")
		time.Sleep(beatWindow) // fake clock
		synctest.Wait()        // the first is being stored
		a.flood(maxBeats)
		waiting := make(chan error, 2)
		go func() { waiting <- a.do(beatOf("idle")) }()
		go func() { waiting <- b.do(beatOf("lost")) }()
		synctest.Wait()
		require.Empty(t, waiting)
		b.disconnect()
		require.ErrorIs(t, <-waiting, context.Canceled)
		close(open)
		require.NoError(t, <-waiting)
		time.Sleep(2 * beatWindow) // fake clock
		synctest.Wait()
		require.Len(t, s.beats("vm-1"), maxBeats+2)
		require.Empty(t, s.beats("vm-2"))
	})
}

// Heartbeats are kept while the store is unavailable. Over HTTP they are refused meanwhile,
// because the response acknowledges them.
func TestHeartbeatOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a := s.registered("vm-1")
		s.store.down("RecordHeartbeats")
		poll := func(status string) error {
			return s.ReportHeartbeat(t.Context(), fleet.Heartbeat{
				Origin: fleet.Origin{VM: "vm-2"}, Status: status, Body: json.RawMessage(`{}`),
			})
		}
		a.beat("first")
		require.NoError(t, poll("before"))
		time.Sleep(5 * time.Minute) // fake clock
		a.beat("second")
		require.ErrorIs(t, poll("refused"), fleet.ErrUnavailable)
		synctest.Wait()
		require.Empty(t, s.beats("vm-1"))

		s.store.up("RecordHeartbeats")
		began := time.Now()
		time.Sleep(5*time.Second + beatWindow) // fake clock
		require.NoError(t, poll("after"))
		time.Sleep(beatWindow) // fake clock
		synctest.Wait()
		require.Equal(t, []string{"first", "second"}, s.beats("vm-1"))
		require.Equal(t, []string{"before", "after"}, s.beats("vm-2"))
		require.Equal(t, 1, s.log.count("heartbeats stored again"))
		require.Less(t, time.Since(began), 6*time.Second)
		require.Less(t, s.store.called("RecordHeartbeats"), 80)
	})
}

// A permanent error loses one group, not those after it.
func TestHeartbeatDefect(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a := s.registered("vm-1")
		s.store.on("RecordHeartbeats", func() error { return fleet.ErrNotFound })
		a.beat("lost")
		time.Sleep(beatWindow) // fake clock
		synctest.Wait()
		require.Equal(t, 1, s.store.called("RecordHeartbeats"))
		s.store.up("RecordHeartbeats")
		a.beat("kept")
		time.Sleep(beatWindow) // fake clock
		synctest.Wait()
		require.Equal(t, []string{"kept"}, s.beats("vm-1"))
		require.Equal(t, 1, s.log.count("heartbeats lost"))
	})
}

// Close stores what is queued, at once.
func TestCloseStoresHeartbeats(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a := s.registered("vm-1")
		a.beat("one")
		// The group is being gathered.
		time.Sleep(beatWindow / 2) // fake clock
		a.beat("two")
		require.NoError(t, s.ReportHeartbeat(t.Context(), fleet.Heartbeat{Origin: fleet.Origin{VM: "vm-2"}, Status: "http"}))
		s.began = time.Now()
		s.Close()
		s.elapsed(0)
		require.Equal(t, []string{"one", "two"}, s.beats("vm-1"))
		require.Equal(t, []string{"http"}, s.beats("vm-2"))
		require.ErrorIs(t, s.ReportHeartbeat(t.Context(), fleet.Heartbeat{Origin: fleet.Origin{VM: "vm-2"}}), fleet.ErrStopping)
	})
}

// Close waits for an unavailable store, but not forever. Lost heartbeats are logged.
func TestCloseInAnOutage(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		outage time.Duration
		kept   int
	}{
		"short": {lastTries / 2, maxBeats + 1},
		"long":  {time.Hour, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSystem(t, withoutJournal)
				a := s.registered("vm-1")
				s.store.down("RecordHeartbeats")
				a.beat("idle")
				time.Sleep(beatWindow) // fake clock
				a.flood(maxBeats)
				time.AfterFunc(test.outage, func() { s.store.up("RecordHeartbeats") })
				began := time.Now()
				s.Close()
				require.Less(t, time.Since(began), 2*lastTries)
				require.Len(t, s.beats("vm-1"), test.kept)
				require.Equal(t, test.kept == 0, s.log.count("heartbeats lost") > 0)
			})
		})
	}
}

// countingStore counts heartbeats.
type countingStore struct {
	Engine
	stored atomic.Int64
}

func (s *countingStore) RecordHeartbeats(_ context.Context, hs []fleet.Heartbeat) error {
	s.stored.Add(int64(len(hs)))
	return nil
}

// An accepted heartbeat is stored, even if the Registry stops at once.
func TestHeartbeatsRaceWithStop(t *testing.T) {
	t.Parallel()
	for range 150 {
		s := &countingStore{}
		b := newHeartbeats(&Registry{Options: Options{Engine: s}, stopping: make(chan struct{})})
		var accepted atomic.Int64
		var adders, loop sync.WaitGroup
		loop.Go(b.flushLoop)
		for range 4 {
			adders.Go(func() {
				for b.add(t.Context(), fleet.Heartbeat{}, noFile) == nil {
					accepted.Add(1)
				}
			})
		}
		for accepted.Load() == 0 {
			runtime.Gosched()
		}
		b.stop()
		loop.Wait()
		adders.Wait()
		require.Equal(t, accepted.Load(), s.stored.Load())
	}
}

// Times of receipt increase strictly, even if the clock stands still or is set back.
func TestReceiveTimes(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	d := &Registry{Options: Options{Clock: func() time.Time { return now }}}
	require.Equal(t, now, d.receivedAt())
	require.Equal(t, now.Add(1), d.receivedAt())
	now = now.Add(-time.Hour)
	require.Equal(t, now.Add(time.Hour+2), d.receivedAt())
	now = now.Add(2 * time.Hour)
	require.Equal(t, now, d.receivedAt())

	var mu sync.Mutex
	given := map[time.Time]bool{}
	var callers sync.WaitGroup
	for range 4 {
		callers.Go(func() {
			last := time.Time{}
			for range 1000 {
				at := d.receivedAt()
				if !at.After(last) {
					t.Error("not later than the previous one")
				}
				last = at
				mu.Lock()
				given[at] = true
				mu.Unlock()
			}
		})
	}
	callers.Wait()
	require.Len(t, given, 4000)
}

// A group is full with many heartbeats of few VMs, or few of many VMs: the first of a VM takes
// longer to store.
func TestGroupIsFull(t *testing.T) {
	t.Parallel()
	for name, fill := range map[string]struct{ beats, vms int }{
		"of heartbeats": {maxBeats, 10},
		"of VMs":        {maxBeatVMs, maxBeatVMs},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newHeartbeats(&Registry{})
			for i := range fill.beats {
				require.Empty(t, b.full)
				vm := fleet.VMID(strconv.Itoa(i % fill.vms))
				_, ok := b.put(&fleet.Heartbeat{Origin: fleet.Origin{VM: vm}})
				require.True(t, ok)
			}
			require.Len(t, b.full, 1)
			space, ok := b.put(&fleet.Heartbeat{Origin: fleet.Origin{VM: "0"}})
			require.False(t, ok)
			<-b.begun // as flushLoop does
			require.Len(t, b.take(), fill.beats)
			<-space
			require.Empty(t, b.full)
			_, ok = b.put(&fleet.Heartbeat{Origin: fleet.Origin{VM: "0"}})
			require.True(t, ok)
		})
	}
}

// Heartbeats of a VM that cannot be stored neither lose nor delay those of others.
func TestBrokenVMDoesNotAffectOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		s.store.broken = "vm-2"
		var agents []*agent
		for _, vm := range []fleet.VMID{"vm-1", "vm-2", "vm-3", "vm-4"} {
			agents = append(agents, s.connect(vm))
		}
		for _, state := range []string{"ready", "idle"} {
			for _, a := range agents {
				a.beat(state)
			}
			time.Sleep(time.Second) // fake clock
		}
		for _, vm := range []fleet.VMID{"vm-1", "vm-3", "vm-4"} {
			require.Equal(t, []string{"ready", "idle"}, s.beats(vm), vm)
		}
		require.Empty(t, s.beats("vm-2"))
		require.Equal(t, 2, s.log.count("heartbeats lost"))
		require.Equal(t, clock(), s.beatsOldest(), "deadlines are judged")
	})
}

func (s *system) beatsOldest() time.Time { return s.Registry.beats.oldest(clock()) }
