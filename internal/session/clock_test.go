package session

import (
	"context"
	"log/slog"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/engine"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
	"github.com/mig-controller/mig-controller/internal/store/memory"
	"github.com/mig-controller/mig-controller/internal/wallclock"
)

const day = 24 * time.Hour

// wall is a wall clock that a test sets, and a system whose clock follows it.
type wall struct {
	*system
	off atomic.Int64
	now func() time.Time
}

// newWall starts a system on the data in driver.
func newWall(t *testing.T, driver store.Driver, change ...with) *wall {
	t.Helper()
	w := &wall{}
	w.begin(t, driver, change...)
	return w
}

// begin starts a controller, whose clock begins with the wall clock's time.
func (w *wall) begin(t *testing.T, driver store.Driver, change ...with) {
	t.Helper()
	start := time.Now()
	c := wallclock.New(
		func() time.Time { return clock().Add(time.Duration(w.off.Load())) },
		func() time.Duration { return time.Since(start) })
	w.now = c.Now
	w.system = &system{T: t, tokens: &testTokens{}, log: &lines{}, dir: t.TempDir(), store: &testStore{}}
	e, err := engine.Start(t.Context(), engine.Options{
		Driver: driver, Rules: fleet.Rules{Defaults: defaults, NewID: fleet.NewRegistrationID},
		Clock: c.Now, Log: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	w.driver, w.store.Engine = driver, e
	t.Cleanup(func() { require.NoError(t, w.store.Close()) })
	w.start(append(change, func(s *system, o *Options) { o.Clock, s.follow = c.Now, c })...)
}

// jump sets the wall clock.
func (w *wall) jump(by time.Duration) { w.off.Add(int64(by)) }

// accept accepts a command, like an operator.
func (w *wall) accept(id, vm string, ttl, ackTimeout time.Duration) {
	w.Helper()
	c, err := fleet.CommandRequest{ID: id, VM: vm, Type: "drain", TTL: ttl, AckTimeout: ackTimeout}.Accept(defaults, w.now())
	require.NoError(w, err)
	_, err = w.store.Accept(w.Context(), c)
	require.NoError(w, err)
}

// state returns the state of a command after all goroutines have blocked.
func (w *wall) state(id fleet.CommandID) fleet.CommandState {
	w.Helper()
	synctest.Wait()
	return w.command(id).State
}

// onWalls runs a test in a bubble, with each jump.
func onWalls(t *testing.T, test func(w *wall, by time.Duration)) {
	t.Helper()
	for _, by := range []time.Duration{-time.Hour, 40 * day} {
		t.Run(by.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { test(newWall(t, memory.New()), by) })
		})
	}
}

// A jump does not change after how much time open commands end: one for a VM that is not
// connected, one that is not acked, and one that is.
func TestJumpMovesDeadlines(t *testing.T) {
	t.Parallel()
	onWalls(t, func(w *wall, by time.Duration) {
		a := w.registered("vm-1")
		w.accept("offline", "vm-2", time.Minute, 0)
		w.accept("unanswered", "vm-1", time.Hour, time.Minute)
		a.next()
		time.Sleep(20 * time.Second) // fake clock
		w.jump(by)
		time.Sleep(2 * sweepEvery) // fake clock
		synctest.Wait()
		require.Equal(w, 1, w.log.count("the clock jumped"))
		require.Contains(w, w.log.String(), `"level":"WARN","msg":"the clock jumped","by":"`+by.String()+`"`)
		time.Sleep(40*time.Second - 3*sweepEvery) // fake clock
		a.sendSignOfLife()
		require.Equal(w, fleet.Pending, w.state("offline"))
		require.Equal(w, fleet.Delivered, w.state("unanswered"))
		time.Sleep(2 * sweepEvery) // fake clock
		require.Equal(w, fleet.Expired, w.state("offline"))
		require.Equal(w, fleet.TimedOut, w.state("unanswered"))
		w.accept("young", "vm-1", time.Minute, 0)
		a.next()
		a.ack("young", true)
		require.Equal(w, fleet.Succeeded, w.state("young"))
		require.Equal(w, 1, w.log.count("the clock jumped"))
		for _, line := range []string{"command accepted", "command delivered", "command pending again: its delivery was not completed"} {
			require.LessOrEqual(w, len(linesOf(w.log, line, "offline")), 1, line)
			require.LessOrEqual(w, len(linesOf(w.log, line, "unanswered")), 1, line)
		}
		require.Empty(w, linesOf(w.log, "command pending again: its delivery was not completed", "offline"))
	})
}

// linesOf returns the log lines with the message about a command.
func linesOf(l *lines, message, id string) (found []map[string]any) {
	for _, line := range l.about(id) {
		if line["msg"] == message {
			found = append(found, line)
		}
	}
	return found
}

// Times of receipt follow the clock, also backwards, and every event has its own file.
func TestJumpMovesReceiptTimes(t *testing.T) {
	t.Parallel()
	onWalls(t, func(w *wall, by time.Duration) {
		a := w.registered("vm-1")
		for range 3 {
			a.event("tick")
		}
		w.jump(by)
		time.Sleep(2 * sweepEvery) // fake clock
		var last time.Time
		for range 3 {
			time.Sleep(time.Second) // fake clock
			last = w.now()
			a.event("tick")
		}
		a.beat("idle")
		time.Sleep(2 * time.Second) // fake clock
		synctest.Wait()
		es, _, err := w.store.Events(w.Context(), store.EventQuery{VM: "vm-1", Type: "tick"}, 10)
		require.NoError(w, err)
		require.Len(w, es, 6)
		wallTime := clock().Add(by)
		require.Equal(w, last, es[0].ReceivedAt)
		require.Equal(w, last.Add(-time.Second), es[1].ReceivedAt)
		require.WithinDuration(w, wallTime.Add(-by), es[5].ReceivedAt, 10*time.Second)
		require.WithinDuration(w, wallTime, w.vm("vm-1").LastHeartbeatAt, 10*time.Second)
		require.WithinDuration(w, wallTime, w.vm("vm-1").ConnectedAt, 10*time.Second)
		found, err := filepath.Glob(filepath.Join(w.dir, "vm-1", "grpc-event-tick-*"))
		require.NoError(w, err)
		require.Len(w, found, 6)
	})
}

// No session counts as silent because of a jump, and a silent one is detected in time.
func TestJumpAndSilence(t *testing.T) {
	t.Parallel()
	onWalls(t, func(w *wall, by time.Duration) {
		a := w.registered("vm-1")
		a.pulse(4, 10*time.Second)
		w.jump(by)
		time.Sleep(leastSilence - 2*time.Second) // fake clock
		synctest.Wait()
		require.NoError(w, a.session.Cause())
		time.Sleep(4 * time.Second) // fake clock
		synctest.Wait()
		require.ErrorIs(w, a.session.Cause(), fleet.ErrSilent)
	})
}

// A message that was read but not stored when the clock jumped still counts by its time of
// arrival.
func TestJumpWhileUnstored(t *testing.T) {
	t.Parallel()
	onWalls(t, func(w *wall, by time.Duration) {
		a := w.registered("vm-1")
		w.accept("a", "vm-1", time.Hour, 30*time.Second)
		a.next()
		time.Sleep(20 * time.Second) // fake clock
		w.store.down("Ack")
		go func() { _ = a.do(func(s *Session) error { return s.Ack(fleet.Ack{CommandID: "a", Success: true}) }) }()
		time.Sleep(time.Second) // fake clock
		w.jump(by)
		time.Sleep(time.Minute) // fake clock
		require.Equal(w, fleet.Delivered, w.state("a"))
		w.store.up("Ack")
		time.Sleep(2 * lastRetry) // fake clock
		require.Equal(w, fleet.Succeeded, w.state("a"))
	})
}

// While the times cannot be moved, because the database fails, no deadline is judged; the
// clock is right nevertheless.
func TestJumpDuringOutage(t *testing.T) {
	t.Parallel()
	onWalls(t, func(w *wall, by time.Duration) {
		w.accept("a", "vm-1", time.Minute, 0)
		w.store.down("MoveDeadlines")
		w.jump(by)
		time.Sleep(30 * time.Second) // fake clock
		require.Equal(w, fleet.Pending, w.state("a"))
		require.Equal(w, clock().Add(by), w.now())
		sweeps := w.store.called("Sweep")
		time.Sleep(10 * time.Second) // fake clock
		require.Equal(w, sweeps, w.store.called("Sweep"))
		w.store.up("MoveDeadlines")
		time.Sleep(19 * time.Second) // fake clock
		require.Equal(w, fleet.Pending, w.state("a"))
		time.Sleep(2 * time.Second) // fake clock
		require.Equal(w, fleet.Expired, w.state("a"))
		require.Equal(w, 1, w.log.count("the clock jumped"))
	})
}

// Times of receipt from around a jump do not keep later ones from following the clock.
func TestStampsDuringJumps(t *testing.T) {
	t.Parallel()
	var off atomic.Int64
	start := time.Now()
	c := wallclock.New(
		func() time.Time { return clock().Add(time.Duration(off.Load())) },
		func() time.Duration { return time.Since(start) })
	r := &Registry{Options: Options{Clock: c.Now}, metrics: newMetrics(nil, nil)}
	r.beats = newHeartbeats(r)
	ctx, stop := context.WithCancel(t.Context())
	stamped := make(chan struct{})
	var given atomic.Int64
	go func() {
		defer close(stamped)
		s := &Session{registry: r}
		for ctx.Err() == nil {
			s.arrive(KindEvent)
			given.Add(1)
		}
	}()
	for range 100 {
		for n := given.Load(); given.Load() == n; {
			runtime.Gosched()
		}
		off.Add(int64(-time.Minute))
		require.Equal(t, -time.Minute, r.MoveClock(c.Adopt).By.Round(time.Second))
	}
	stop()
	<-stamped
	require.WithinDuration(t, c.Now(), r.receivedAt(), time.Second)
}
