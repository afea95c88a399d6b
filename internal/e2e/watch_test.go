package e2e

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
)

const (
	codeNotFound = connect.CodeNotFound
	codeInvalid  = connect.CodeInvalidArgument
)

type update = migcontrollerv1.WatchFleetResponse

// watcher is a call of WatchFleet.
type watcher struct {
	t      *testing.T
	answer *connect.ServerStreamForClient[update]
	guard  *time.Timer
	cancel context.CancelFunc
}

// watch begins a watch over gRPC after the cursor.
func (c *controller) watch(t *testing.T, cursor, vm string) *watcher {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	answer, err := c.grpcAdmin.WatchFleet(ctx, &migcontrollerv1.WatchFleetRequest{Cursor: cursor, VmId: vm})
	require.NoError(t, err)
	w := &watcher{t: t, answer: answer, guard: time.AfterFunc(patience, cancel), cancel: cancel}
	t.Cleanup(w.end)
	return w
}

// next returns the next update.
func (w *watcher) next() *update {
	w.t.Helper()
	w.guard.Reset(patience)
	require.True(w.t, w.answer.Receive(), "the watch has ended: %v", w.answer.Err())
	return w.answer.Msg()
}

// take returns the next n updates.
func (w *watcher) take(n int) []*update {
	w.t.Helper()
	var taken []*update
	for range n {
		taken = append(taken, w.next())
	}
	return taken
}

func (w *watcher) end() {
	w.guard.Stop()
	w.cancel()
	_ = w.answer.Close()
}

// describe returns an update as text.
func describe(u *update) string {
	switch {
	case u.GetVm() != nil:
		return fmt.Sprintf("%s connected=%t %s", u.GetVm().GetVmId(), u.GetVm().GetConnected(),
			u.GetVm().GetRegistration().GetState())
	case u.GetCommand() != nil:
		return u.GetCommand().GetCommand().GetType() + " " + u.GetCommand().GetState().String()
	case u.GetEvent() != nil:
		return "event " + u.GetEvent().GetType()
	default:
		return "cursor"
	}
}

func requireSameUpdates(t *testing.T, want, got []*update) {
	t.Helper()
	require.Len(t, got, len(want))
	for i := range want {
		require.True(t, proto.Equal(want[i], got[i]), "update %d: %v instead of %v", i, got[i], want[i])
	}
}

// liveOnce plays a short lifecycle of a VM, which ends with the event "over".
func (c *controller) liveOnce(t *testing.T, vm string) {
	t.Helper()
	a := c.connectRegistered(t, vm)
	sent := c.send(t, vm, "drain")
	a.expect(sent.GetCommand().GetId())
	a.acked(sent.GetCommand().GetId())
	c.awaitCommand(t, sent.GetCommand().GetId(), succeeded)
	a.end()
	c.awaitVM(t, vm, "disconnected", isDisconnected)
	status, answer := c.call(t, http.MethodPost, c.httpAddr, "/api/v1/vms/"+vm+"/events", `{"type":"over"}`)
	require.Equal(t, http.StatusOK, status, string(answer))
}

// recorded returns the updates up to and including the event "over".
func (w *watcher) recorded() []*update {
	w.t.Helper()
	var all []*update
	for {
		u := w.next()
		all = append(all, u)
		if u.GetEvent().GetType() == "over" {
			return all
		}
	}
}

// TestWatchSeesEveryChange defends the content of WatchFleet: VMs, transitions of commands
// and events, in order, and nothing about other VMs if one is named.
func TestWatchSeesEveryChange(t *testing.T) {
	t.Parallel()
	vm, other := newVM(), newVM()
	w := shared.watch(t, "", vm)
	require.Equal(t, "cursor", describe(w.next()), "the first update has only a cursor")
	shared.liveOnce(t, other)
	shared.liveOnce(t, vm)
	var watched []string
	cursors := map[string]bool{}
	for _, u := range w.recorded() {
		watched = append(watched, describe(u))
		require.NotNil(t, u.GetChangedAt())
		require.Empty(t, u.GetCommand().GetCommand().GetStringParams())
		cursors[u.GetCursor()] = true
	}
	require.Len(t, cursors, len(watched), "every update has a cursor of its own")
	place := -1
	for _, step := range []string{
		vm + " connected=true REGISTRATION_STATE_REQUESTED",
		"register_runner COMMAND_STATE_DELIVERED", "register_runner COMMAND_STATE_SUCCEEDED",
		"event runner_registered", vm + " connected=true REGISTRATION_STATE_REGISTERED",
		"drain COMMAND_STATE_PENDING", "drain COMMAND_STATE_DELIVERED", "drain COMMAND_STATE_SUCCEEDED",
		vm + " connected=false REGISTRATION_STATE_REGISTERED", "event over",
	} {
		found := -1
		for i := place + 1; i < len(watched) && found < 0; i++ {
			if watched[i] == step {
				found = i
			}
		}
		require.GreaterOrEqual(t, found, 0, "%q after update %d of %q", step, place, watched)
		place = found
	}
}

// TestResumedWatchMissesAndRepeatsNothing defends cursors: from each of them a watch
// continues with the next change, even after a restart of the controller.
func TestResumedWatchMissesAndRepeatsNothing(t *testing.T) {
	t.Parallel()
	c := start(t)
	w := c.watch(t, "", "")
	begin := w.next()
	c.liveOnce(t, newVM())
	c.liveOnce(t, newVM())
	all := append(w.recorded(), w.recorded()...)
	cursors := []string{begin.GetCursor()}
	for _, u := range all {
		cursors = append(cursors, u.GetCursor())
	}
	resume := func(c *controller) {
		for i := range all {
			w := c.watch(t, cursors[i], "")
			require.Equal(t, "cursor", describe(w.next()))
			requireSameUpdates(t, all[i:], w.take(len(all)-i))
			w.end()
		}
	}
	resume(c)
	c = c.restart(t)
	resume(c)
	w = c.watch(t, cursors[len(all)], "")
	w.next()
	c.liveOnce(t, newVM())
	for _, u := range w.recorded() {
		require.NotContains(t, cursors, u.GetCursor(), "no change has the cursor of another")
	}
}

// TestWatchThatIsCutOftenSeesAll defends resuming during changes: a watch that is
// interrupted again and again gets all of them once and in order.
func TestWatchThatIsCutOftenSeesAll(t *testing.T) {
	t.Parallel()
	const events = 150
	vm := newVM()
	first := shared.watch(t, "", vm)
	cursor := first.next().GetCursor()
	first.end()
	reported := make(chan error, 1)
	go func() {
		for i := range events {
			body := fmt.Sprintf(`{"type":"step-%d"}`, i)
			status, answer, err := shared.request(t.Context(), http.MethodPost, shared.httpAddr,
				"/api/v1/vms/"+vm+"/events", body)
			if err != nil || status != http.StatusOK {
				reported <- fmt.Errorf("event %d: %d %s %w", i, status, answer, err)
				return
			}
		}
		reported <- nil
	}()
	var watched []string
	for len(watched) < events {
		w := shared.watch(t, cursor, vm)
		for range 7 {
			if len(watched) == events {
				break
			}
			u := w.next()
			cursor = u.GetCursor()
			if u.GetEvent() != nil {
				watched = append(watched, u.GetEvent().GetType())
			}
		}
		w.end()
	}
	require.NoError(t, receive(t, "the reports", reported))
	for i, typ := range watched {
		require.Equal(t, fmt.Sprintf("step-%d", i), typ)
	}
}

// TestBadCursorIsRefused defends that an invalid cursor is rejected.
func TestBadCursorIsRefused(t *testing.T) {
	t.Parallel()
	elsewhere := start(t)
	w := elsewhere.watch(t, "", "")
	foreign := w.next().GetCursor()
	w.end()
	for _, cursor := range []string{"x", "AAAA", foreign} {
		res, err := shared.grpcAdmin.WatchFleet(t.Context(), &migcontrollerv1.WatchFleetRequest{Cursor: cursor})
		require.NoError(t, err)
		require.False(t, res.Receive())
		requireCode(t, res.Err(), codeInvalid, "cursor")
		require.NoError(t, res.Close())
	}
}
