//go:build faults

package faults

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// An agent whose stream is dead on its side reports over HTTP, while a proxy answers pings
// in its place. That is not evidence that a command was delivered: the session ends after
// 15 s, and the next one gets the command again.
func testReportsOverHTTP(t *testing.T) {
	c := startController(t)
	a := c.connectRegistered(t, "vm-1")
	opened := c.vm(t, "vm-1").GetConnectedAt().AsTime()
	c.send(t, "vm-1", "lost", withAckTimeout(time.Second))
	a.expect(t, "lost")
	client := &http.Client{Transport: newTransport(t)}
	stop := repeat(t, time.Second, func() error { return postHeartbeat(t.Context(), client, c.addr, "vm-1") })
	c.awaitLine(t, ofMessage("stream suspect: its agent reports over HTTP"), ofVM("vm-1"))
	suspect := time.Now()
	require.GreaterOrEqual(t, suspect.Sub(opened), 10*time.Second)
	stays(t, 13*time.Second, func() bool { return c.command(t, "lost").GetState() == delivered },
		"a report over HTTP counts as a sign of life of the stream")
	c.awaitLine(t, ofMessage("agent disconnected"), ofVM("vm-1"), ofCause("silent"))
	require.InDelta(t, 15, time.Since(suspect).Seconds(), 2)
	stop()

	a.awaitEnd(t)
	a = c.connect(t, "vm-1")
	a.expect(t, "lost")
	a.ack(t, "lost")
	require.EqualValues(t, 2, c.awaitEnd(t, "lost", succeeded).GetAttempts())
}

// An agent hangs, and its connection still answers pings. Its session ends when it has been
// silent for 45 s.
func testSilentAgent(t *testing.T) {
	c := startController(t)
	a := c.connectRegistered(t, "vm-1")
	stop := a.beatEvery(t, time.Second)
	const five = 5 * time.Second
	stays(t, five, func() bool { return c.vm(t, "vm-1").GetConnected() }, "the session of a healthy agent ends")
	stop()
	last := time.Now()
	line := c.awaitLineFor(t, time.Minute, ofMessage("agent disconnected"), ofVM("vm-1"))
	require.Contains(t, line, ofCause("silent"))
	require.InDelta(t, 45, time.Since(last).Seconds(), 2)
	require.False(t, c.vm(t, "vm-1").GetConnected())
}
