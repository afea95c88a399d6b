package rpc

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
	"github.com/mig-controller/mig-controller/internal/fleet"
)

// A VM that reports too much over HTTP is told when to try again.
func TestThrottledReports(t *testing.T) {
	t.Parallel()
	fake := &fakeAgents{err: &fleet.ThrottledError{After: 1500 * time.Millisecond}}
	base := "http://" + serve(t, NewHandler(config(fake))) + "/api/v1/vms/vm-1"
	for _, version := range httpVersions {
		for _, path := range []string{"/events", "/heartbeat"} {
			got := post(t, client(t, version), base+path, `{"type":"x"}`)
			require.Equal(t, 429, got.status)
			requireError(t, got)
			require.Equal(t, "2", got.header.Get("Retry-After"))
			require.Contains(t, got.body, `"code":"resource_exhausted"`)
			require.Contains(t, got.body, "--report-rate", "the message names the rule")
		}
	}
}

type fakeConnection struct{ Connection }

// Of one connection two streams at most stay unread; others are not affected by it.
func TestUnreadStreams(t *testing.T) {
	t.Parallel()
	var u unreadStreams
	a, b := &fakeConnection{}, &fakeConnection{}
	var leave []func()
	for range maxUnread {
		l, ok := u.enter(a)
		require.True(t, ok)
		leave = append(leave, l)
	}
	_, ok := u.enter(a)
	require.False(t, ok)
	ofB, ok := u.enter(b)
	require.True(t, ok)
	for range 10 {
		unknown, ok := u.enter(nil)
		require.True(t, ok)
		unknown()
	}
	leave[0]()
	again, ok := u.enter(a)
	require.True(t, ok)
	for _, l := range []func(){leave[1], ofB, again} {
		l()
	}
	require.Empty(t, u.on)
}

// An agent that leaves while it is throttled is not a failure of the controller, nor one
// of the protocol.
func TestThrottledAgentLeaves(t *testing.T) {
	t.Parallel()
	for cause, leave := range map[string]func(a *agentLine){
		endReset: func(a *agentLine) { a.quit() },
		endClosed: func(a *agentLine) {
			require.NoError(a, a.rpc.CloseRequest())
			a.quit()
		},
	} {
		t.Run(cause, func(t *testing.T) {
			t.Parallel()
			s := startStreams(t, time.Hour)
			a := s.connect("vm-1")
			for range 16 << 20 / len(largeEvent().GetEvent().GetData()["a"]) {
				if len(s.log.records(t, "agent throttled")) > 0 {
					break
				}
				a.say(largeEvent())
			}
			require.Eventually(t, func() bool { return len(s.log.records(t, "agent throttled")) > 0 }, 10*time.Second, time.Millisecond)
			leave(a)
			require.Eventually(t, func() bool { return len(s.causes()) > 0 }, 10*time.Second, time.Millisecond)
			s.registry.Close() // ends what is held
			require.NotContains(t, s.causes(), endProtocol)
			require.Eventually(t, func() bool { return len(s.log.records(t, "call failed")) > 0 || cause == endClosed }, 10*time.Second, time.Millisecond)
			for _, r := range s.log.records(t, "call failed") {
				require.Equal(t, "DEBUG", r["level"], r)
			}
		})
	}
}

func largeEvent() *commands.MIGletMessage {
	return &commands.MIGletMessage{Message: &commands.MIGletMessage_Event{Event: &commands.EventNotification{
		Type: "x", Data: map[string]string{"a": strings.Repeat("y", 60_000)},
	}}}
}
