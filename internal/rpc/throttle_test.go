package rpc

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/session"
)

// A VM that reports too much over HTTP gets 429 with Retry-After.
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

// At most two streams of a connection stay unread; other connections are not affected.
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
	require.Empty(t, u.count)
}

// An agent that disconnects while it is throttled is neither a failure of the controller nor a
// protocol error.
func TestThrottledAgentLeaves(t *testing.T) {
	t.Parallel()
	for cause, leave := range map[session.EndCause]func(a *streamClient){
		session.EndReset: func(a *streamClient) { a.reset() },
		session.EndClosed: func(a *streamClient) {
			require.NoError(a, a.rpc.CloseRequest())
			a.reset()
		},
	} {
		t.Run(cause.String(), func(t *testing.T) {
			t.Parallel()
			s := startStreams(t, time.Hour)
			a := s.connect("vm-1")
			for range 16 << 20 / len(largeEvent().GetEvent().GetData()["a"]) {
				if len(s.log.records(t, "agent throttled")) > 0 {
					break
				}
				a.send(largeEvent())
			}
			require.Eventually(t, func() bool { return len(s.log.records(t, "agent throttled")) > 0 }, 10*time.Second, time.Millisecond)
			leave(a)
			require.Eventually(t, func() bool { return len(s.causes()) > 0 }, 10*time.Second, time.Millisecond)
			s.registry.Close() // ends the held stream
			require.NotContains(t, s.causes(), session.EndProtocol.String())
			require.Eventually(t, func() bool { return len(s.log.records(t, "call failed")) > 0 || cause == session.EndClosed }, 10*time.Second, time.Millisecond)
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
