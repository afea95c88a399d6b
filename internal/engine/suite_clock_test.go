package engine_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/engine"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
	"github.com/mig-controller/mig-controller/internal/wallclock"
)

const day = 24 * time.Hour

// jump steps the clock, without shifting any times yet.
func (f *fixture) jump(by time.Duration) {
	f.Helper()
	j, err := f.AdoptClock(f.Context(), func() wallclock.Jump {
		f.clock.Store(f.later(by).UnixNano())
		return wallclock.Jump{At: f.now, By: by}
	})
	require.NoError(f, err)
	require.Equal(f, wallclock.Jump{At: f.now, By: by}, j)
}

// pass advances the time.
func (f *fixture) pass(d time.Duration) { f.clock.Store(f.later(d).UnixNano()) }

// jumps are the clock steps of these tests.
var jumps = []time.Duration{-time.Hour, 40 * day}

// onJumps runs a test with each clock step, in a database of its own.
func onJumps(test func(f *fixture, by time.Duration)) func(*fixture) {
	return func(f *fixture) {
		for _, by := range jumps {
			f.Run(by.String(), func(t *testing.T) {
				f := open(t, f.kind)
				f.pass(0)
				test(f, by)
			})
		}
	}
}

// testClockDeadlines: open commands end after the same time as without the jump, whether
// their VMs are connected or not, however many there are, and whether or not an input
// touches them before all are shifted.
func testClockDeadlines(f *fixture, by time.Duration) {
	t := f.T
	v := f.connect("vm")
	f.ack(f.mustDeliver("vm", v.Epoch), v.Epoch, true)
	for i := range fleet.QueueDepth + 4 {
		for _, vm := range []string{"vm", "never-seen"} {
			c := f.request(fmt.Sprintf("%s-%d", vm, i), vm, "drain")
			c.ExpiresAt = f.now.Add(time.Minute)
			c.DueAt = c.ExpiresAt
			_, err := f.enqueue(c)
			require.NoError(t, err)
		}
	}
	require.Equal(t, fleet.CommandID("vm-0"), f.mustDeliver("vm", v.Epoch).ID)
	f.pass(10 * time.Second)
	f.jump(by)
	require.Empty(t, f.endedAt(), "nothing ends because of the jump")
	f.beat("vm", v.Epoch, "idle", true) // some are shifted by later inputs
	require.NoError(t, f.MoveDeadlines(t.Context()))
	require.NoError(t, f.MoveDeadlines(t.Context()), "nothing is left to shift")

	f.pass(20*time.Second - 1)
	require.Empty(t, f.endedAt())
	f.pass(1)
	require.Equal(t, map[fleet.CommandID]fleet.CommandState{"vm-0": fleet.TimedOut}, f.endedAt(), "by its ack timeout")
	f.pass(30*time.Second - 1)
	require.Len(t, f.endedAt(), 1)
	f.pass(1)
	require.Len(t, f.endedAt(), 2*(fleet.QueueDepth+4), "by their deadlines")
}

// endedAt returns the commands for operators that have ended after a sweep.
func (f *fixture) endedAt() map[fleet.CommandID]fleet.CommandState {
	f.Helper()
	for n := 100; n == 100; {
		n = f.sweep(100)
	}
	ended := map[fleet.CommandID]fleet.CommandState{}
	cs, _, err := f.Commands(f.Context(), store.CommandQuery{Type: "drain"}, 1000)
	require.NoError(f, err)
	for _, c := range cs {
		if c.State.Terminal() {
			ended[c.ID] = c.State
		}
	}
	return ended
}

// testClockYoung: what is accepted after a jump is not shifted, and what was in progress
// during it is, once.
func testClockYoung(f *fixture, by time.Duration) {
	t := f.T
	f.registered("vm")
	onItsWay := f.request("on-its-way", "vm", "drain")
	f.jump(by)
	young := f.request("young", "vm", "drain")
	for _, c := range []fleet.Command{young, onItsWay} {
		_, err := f.enqueue(c)
		require.NoError(t, err)
	}
	require.NoError(t, f.MoveDeadlines(t.Context()))
	f.pass(time.Second)
	after, err := f.enqueue(f.request("after", "vm", "drain"))
	require.NoError(t, err)
	require.Equal(t, young.ExpiresAt, f.command("young").ExpiresAt)
	require.Equal(t, onItsWay.ExpiresAt.Add(by), f.command("on-its-way").ExpiresAt)
	require.Equal(t, f.now.Add(defaults.TTL), after.ExpiresAt)
}

// testClockVMs: the times of a VM are shifted once, and survive a crash; a message in
// transit counts as arrived right after the jump.
func testClockVMs(f *fixture, by time.Duration) {
	t := f.T
	v := f.registered("vm")
	gone := f.registered("gone")
	f.drop("gone", gone.Epoch)
	before, goneBefore, arrived := f.vm("vm"), f.vm("gone"), f.now
	f.jump(by)
	require.NoError(t, f.MoveDeadlines(t.Context()))
	require.NoError(t, f.RecordHeartbeats(t.Context(), []fleet.Heartbeat{{
		Origin: fleet.Origin{VM: "vm", Via: fleet.Stream, Epoch: v.Epoch, ReceivedAt: arrived}, Status: "idle",
	}}))
	after := f.vm("vm")
	require.Equal(t, before.ConnectedAt.Add(by), after.ConnectedAt)
	require.Equal(t, before.LastAckAt.Add(by), after.LastAckAt)
	require.Equal(t, before.Registration.ProvenAt.Add(by), after.Registration.ProvenAt)
	require.Equal(t, arrived.Add(by), after.LastHeartbeatAt)
	require.Equal(t, before.FirstSeenAt, after.FirstSeenAt)
	require.Equal(t, goneBefore.DisconnectedAt.Add(by), f.vm("gone").DisconnectedAt, "seen lately")
	f.crash()
	require.Equal(t, before.ConnectedAt.Add(by), f.vm("vm").ConnectedAt)
}

// testClockSends: what could be sent before a jump can be sent after it.
func testClockSends(f *fixture, by time.Duration) {
	t := f.T
	v := f.registered("vm")
	ready := make(chan fleet.CommandID, 10)
	defer f.OnReady(func(_ fleet.VMID, r fleet.Ready) { ready <- r.Command })()
	next := func() fleet.CommandID {
		select {
		case id := <-ready:
			return id
		case <-time.After(10 * time.Second):
			return ""
		}
	}
	c := f.send("a", "vm") // leased at once, but not written
	require.Equal(t, fleet.Delivered, c.State)
	require.Equal(t, c.ID, next())
	require.NoError(t, f.notWritten("a", v.Epoch, f.now))
	require.Equal(t, c.ID, next())
	f.jump(by)
	require.NoError(t, f.MoveDeadlines(t.Context()))
	require.Equal(t, c.ID, next(), "its session may have looked in between and found nothing")
	require.Equal(t, c.ID, f.mustDeliver("vm", v.Epoch).ID)
}

// testPurgeClock: a jump 40 days forward costs at most a day of retention for each hour
// that passes, across restarts too; an hour or 40 days back cost nothing.
func testPurgeClock(f *fixture) {
	t := f.T
	r := engine.Retention{Events: 30 * day, Commands: 30 * day, Changes: 30 * day, Heartbeats: 30 * day, VMs: 30 * day}
	purge := func() {
		t.Helper()
		_, err := f.Purge(t.Context(), r, f.now)
		require.NoError(t, err)
	}
	left := func() (n int) {
		t.Helper()
		es, _, err := f.Events(t.Context(), store.EventQuery{}, 10)
		require.NoError(t, err)
		cs, _, err := f.Commands(t.Context(), store.CommandQuery{Type: "drain"}, 10)
		require.NoError(t, err)
		hs, _, err := f.Heartbeats(t.Context(), "vm", time.Time{}, 10)
		require.NoError(t, err)
		return len(es) + len(cs) + len(hs)
	}
	f.pass(0)
	v := f.registered("vm")
	f.beat("vm", v.Epoch, "idle", true)
	f.send("a", "vm")
	_, err := f.cancel("a", f.now)
	require.NoError(t, err)
	f.drop("vm", v.Epoch)
	es, _, err := f.Events(t.Context(), store.EventQuery{}, 1)
	require.NoError(t, err)
	require.NoError(t, f.MarkJournaled(t.Context(), es[0].Seq))
	all := left()
	require.Equal(t, 3, all)
	purge()

	hours := 0
	f.jump(40 * day)
	for range 6 { // the next hour
		f.pass(10 * time.Minute)
		purge()
		require.Equal(t, all, left())
	}
	for hours++; hours < 29; hours++ {
		f.pass(time.Hour)
		purge()
		if hours%9 == 0 {
			f.crash()
		}
		require.Equal(t, all, left())
	}
	for ; hours < 32; hours++ {
		f.pass(time.Hour)
		purge()
	}
	require.Zero(t, left())
	_, err = f.VM(t.Context(), "vm")
	require.ErrorIs(t, err, fleet.ErrNotFound)
}

// testPurgeBack: rows dated before a jump back are not mistaken for those of a wrong clock,
// and are kept for their full time.
func testPurgeBack(f *fixture) {
	t := f.T
	f.pass(0)
	v := f.registered("vm")
	f.beat("vm", v.Epoch, "idle", true)
	r := engine.Retention{Heartbeats: time.Hour}
	for _, by := range []time.Duration{-time.Hour, -10 * day} {
		_, err := f.Purge(t.Context(), r, f.now)
		require.NoError(t, err)
		f.jump(by)
		f.pass(10 * time.Minute)
		_, err = f.Purge(t.Context(), r, f.now)
		require.NoError(t, err)
		at, err := f.PurgeTime(t.Context(), f.now)
		require.NoError(t, err)
		require.Equal(t, f.now, at)
		hs, _, err := f.Heartbeats(t.Context(), "vm", time.Time{}, 10)
		require.NoError(t, err)
		require.Len(t, hs, 1)
	}
	for range 12 {
		f.pass(time.Hour)
		_, err := f.Purge(t.Context(), r, f.now)
		require.NoError(t, err)
	}
	hs, _, err := f.Heartbeats(t.Context(), "vm", time.Time{}, 10)
	require.NoError(t, err)
	require.Empty(t, hs)
}
