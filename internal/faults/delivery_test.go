package faults

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/testkit"
)

// Two agents with the same id alternate, and their acks are lost. A drain is not delivered
// after its deadline. It ends then, or, if it was delivered just before, when the other
// agent connects. It blocks nothing.
func testTwins(t *testing.T) {
	c := startController(t)
	w := c.watch(t)
	c.startSim(t, "--agent=ideal", "--vms=1", "--duplicate-ids=1", "--lost-acks=100%", "--job-every=0",
		"--heartbeat-interval=1s", "--register-time=200ms")
	await(t, func() bool { vms := c.vms(t); return len(vms) == 1 && vms[0].GetRunner().GetConfigured() }, "no VM")
	vm := c.vms(t)[0].GetVmId()
	await(t, func() bool { return c.vm(t, vm).GetSessionEpoch() > 2 }, "they do not alternate")

	deadline := c.send(t, vm, "drain", withType("drain"), withTTL(10*time.Second)).GetExpiresAt().AsTime()
	c.send(t, vm, "behind")
	drain := c.awaitEnd(t, "drain", timedOut)
	await(t, func() bool { return len(w.deliveries("behind")) > 0 }, "the next command is blocked")

	deliveries := w.deliveries("drain")
	require.GreaterOrEqual(t, len(deliveries), 2)
	for _, at := range deliveries {
		require.True(t, at.Before(deadline), "delivered at %s, after its deadline at %s", at, deadline)
	}
	due := w.takenOver(vm, deliveries[len(deliveries)-1])
	if due.Before(deadline) {
		due = deadline
	}
	require.WithinDuration(t, due, drain.GetFinishedAt().AsTime(), time.Second, drain)
	require.WithinDuration(t, deadline, drain.GetFinishedAt().AsTime(), 7*time.Second, "a session of theirs lasts 5 s")
}

// An agent that receives a command and disconnects without an ack gets it max_deliveries
// times. Then it ends, with the reason, and the next one is delivered.
func testMaxDeliveries(t *testing.T) {
	c := startController(t)
	w := c.watch(t)
	for vm, limit := range map[string]int32{"vm-default": 5, "vm-two": 2} {
		a := c.connectRegistered(t, vm)
		id, next := vm+"-command", vm+"-next"
		var options []func(*sendRequest)
		if vm == "vm-two" {
			options = append(options, withMaxDeliveries(limit))
		}
		require.Equal(t, limit, c.send(t, vm, id, options...).GetMaxDeliveries())
		c.send(t, vm, next)
		for n := range limit {
			if n > 0 {
				a = c.connect(t, vm)
			}
			a.expect(t, id)
			require.Equal(t, n+1, c.command(t, id).GetAttempts())
			a.hangUp()
			await(t, func() bool { return !c.vm(t, vm).GetConnected() }, "%s is still connected", vm)
		}
		r := c.awaitEnd(t, id, timedOut)
		require.Equal(t, fmt.Sprintf("delivered %d times and never acked: max_deliveries is reached", limit), r.GetReason())
		a = c.connect(t, vm)
		a.expect(t, next)
		a.ack(t, next)
		c.awaitEnd(t, next, succeeded)
		require.Len(t, w.deliveries(id), int(limit))
	}
}

// An agent that ends its stream whenever it receives a certain command no longer gets it
// after max_deliveries.
func testPoisonCommand(t *testing.T) {
	c := startController(t)
	a := c.connectRegistered(t, "vm-1")
	c.send(t, "vm-1", "poison", withMaxDeliveries(3))
	c.send(t, "vm-1", "next")
	read := 0
	for {
		command := a.next(t)
		if command.GetId() != "poison" {
			require.Equal(t, "next", command.GetId())
			break
		}
		read++
		require.LessOrEqual(t, read, 3)
		require.NoError(t, a.stream.CloseSend())
		a.awaitEnd(t)
		a = c.connect(t, "vm-1")
	}
	require.Equal(t, 3, read)
	a.ack(t, "next")
	c.awaitEnd(t, "next", succeeded)
	require.Contains(t, c.awaitEnd(t, "poison", timedOut).GetReason(), "max_deliveries")
	require.Len(t, c.out.lines(ofMessage("agent disconnected"), ofCause("closed by the agent")), 3)
}

// An agent that is alive but does not read is disconnected after 10 s. An incomplete
// delivery does not count, and the next session gets the command.
func testUnreadLargeCommand(t *testing.T) {
	c := startController(t)
	conn := dial(t, c.addr)
	a := open(t, conn, "vm-1")
	c.awaitLine(t, ofMessage("command delivered"), ofVM("vm-1"))
	a.ack(t, c.registration(t, "vm-1").GetCommand().GetId())
	a.beatEvery(t, time.Second)

	c.send(t, "vm-1", "large", withLargeParams, withAckTimeout(time.Second), withMaxDeliveries(1))
	c.send(t, "vm-1", "small")
	line := c.awaitLine(t, ofMessage("agent disconnected"), ofVM("vm-1"))
	began := timeOf(t, c.awaitLine(t, ofMessage("command delivered"), ofCommand("large")))
	require.InDelta(t, 10, timeOf(t, line).Sub(began).Seconds(), 3)
	require.Contains(t, line, ofCause("write timeout"))
	r := c.awaitState(t, "large", pending)
	require.Zero(t, r.GetAttempts())

	a = c.connect(t, "vm-1")
	a.expect(t, "large")
	a.ack(t, "large")
	a.expect(t, "small")
	a.ack(t, "small")
	require.EqualValues(t, 1, c.awaitEnd(t, "large", succeeded).GetAttempts())
	c.awaitEnd(t, "small", succeeded)
}

// withLargeParams makes a command nearly as large as possible, also if it is compressed.
func withLargeParams(r *sendRequest) {
	r.Command.StringParams = map[string]string{}
	for i := range 60 {
		random := make([]byte, 8<<10)
		_, _ = rand.Read(random) // never fails
		r.Command.StringParams[fmt.Sprintf("p%d", i)] = hex.EncodeToString(random)
	}
}

// A link dies silently while a command is in flight. The VM counts as offline within 15 s,
// and the command is delivered again when it reconnects, however short its ack timeout.
func testDeadLink(t *testing.T) {
	c := startController(t)
	link := testkit.NewBlackhole(t, c.addr)
	a := connectTo(t, link.Addr, "vm-1")
	a.register(t)
	await(t, func() bool { return c.vm(t, "vm-1").GetRunner().GetConfigured() }, "not registered")

	link.Swallow()
	began := time.Now()
	c.send(t, "vm-1", "lost", withAckTimeout(2*time.Second))
	await(t, func() bool { return !c.vm(t, "vm-1").GetConnected() }, "still connected")
	ended := timeOf(t, c.awaitLine(t, ofMessage("agent disconnected"), ofCause("ping timeout")))
	require.Less(t, ended.Sub(began), 17*time.Second)
	require.Equal(t, delivered, c.command(t, "lost").GetState())

	a = c.connect(t, "vm-1")
	a.expect(t, "lost")
	a.ack(t, "lost")
	require.EqualValues(t, 2, c.awaitEnd(t, "lost", succeeded).GetAttempts())
	require.Empty(t, c.out.lines(ofMessage("command timed out")))
}

// An agent whose connection answers pings sends nothing after a delivery: the link may be
// dead. Its command times out only when a message shows that the agent is alive.
func testSilentButAlive(t *testing.T) {
	c := startController(t)
	a := c.connectRegistered(t, "vm-1")
	c.send(t, "vm-1", "unacked", withAckTimeout(time.Second))
	a.expect(t, "unacked")
	stays(t, 6*time.Second, func() bool { return c.command(t, "unacked").GetState() == delivered },
		"timed out although nothing has arrived from the agent")
	require.Contains(t, c.command(t, "unacked").GetWaiting().GetReason(), "nothing has arrived on its session")

	a.beat(t)
	beat := time.Now()
	r := c.awaitEnd(t, "unacked", timedOut)
	require.Less(t, r.GetFinishedAt().AsTime().Sub(beat), 3*time.Second)
	require.Contains(t, r.GetReason(), "no ack within 1s")
	c.send(t, "vm-1", "next")
	a.expect(t, "next")
	a.ack(t, "next")
	c.awaitEnd(t, "next", succeeded)
}
