package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
)

// TestNewestSessionWinsAtOnce defends a re-created VM against its predecessor's link:
// commands go to the newest session only, messages on the old one have no effect, and its
// end, within 10 s, does not end the new one.
func TestNewestSessionWinsAtOnce(t *testing.T) {
	t.Parallel()
	vm := newVM()
	old := shared.connectRegistered(t, vm)
	first := shared.send(t, vm, "drain").GetCommand().GetId()
	old.expect(first)

	replaced := time.Now()
	newest := shared.connect(t, vm)
	newest.expect(first)
	v := shared.vm(t, vm)
	require.True(t, v.GetConnected())
	require.EqualValues(t, 2, v.GetSessionEpoch())

	require.NoError(t, old.ack(&commands.CommandAck{CommandId: first, Message: "by the old one"}))
	old.beat("error", withRunner(false))
	old.happened("vm_shutting_down")
	shared.awaitEvent(t, vm, "vm_shutting_down") // earlier messages of the old session have been read
	r := shared.command(t, first)
	require.Equal(t, delivered, r.GetState(), "acks on the old session are rejected")
	require.EqualValues(t, 2, r.GetAttempts())
	require.NoError(t, newest.ack(&commands.CommandAck{CommandId: first, Success: true, Message: "by the newest"}))
	require.Equal(t, "by the newest", shared.awaitCommand(t, first, succeeded).GetAck().GetMessage())
	require.NotEqual(t, "error", shared.vm(t, vm).GetStatus())

	second := shared.send(t, vm, "drain").GetCommand().GetId()
	newest.expect(second)
	old.expectHeldEnd(replaced, codes.Aborted)
	require.NoError(t, newest.ack(&commands.CommandAck{CommandId: second, Success: true}))
	shared.awaitCommand(t, second, succeeded)
	third := shared.send(t, vm, "drain").GetCommand().GetId()
	newest.expect(third)
	v = shared.vm(t, vm)
	require.True(t, v.GetConnected(), "the end of the old session has no effect")
	require.EqualValues(t, 2, v.GetSessionEpoch())
	require.Nil(t, v.GetDisconnectedAt())
	require.Len(t, shared.registrations(t, vm), 1)
	require.NotEmpty(t, shared.log.lines("superseded", "vm_id="+vm+" "), "flapping is logged")
}

// TestOldSessionThatHangsUpTouchesNothing defends the newest session when the old session's
// agent ends it, in either way.
func TestOldSessionThatHangsUpTouchesNothing(t *testing.T) {
	t.Parallel()
	for name, hangUp := range map[string]func(*agent){
		"reset": func(a *agent) { a.end() },
		"cut":   func(a *agent) { a.cut() },
		"close": func(a *agent) { require.NoError(a.t, a.rpc.CloseSend()) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			vm := newVM()
			old := shared.connectRegistered(t, vm)
			newest := shared.connect(t, vm)
			hangUp(old)
			await(t, "the old session to be gone",
				func() []string { return shared.log.lines("agent disconnected", "vm_id="+vm+" ", "session_epoch=1 ") },
				func(lines []string) bool { return len(lines) == 1 })
			v := shared.vm(t, vm)
			require.True(t, v.GetConnected())
			require.Nil(t, v.GetDisconnectedAt())
			id := shared.send(t, vm, "drain").GetCommand().GetId()
			newest.expect(id)
			newest.acked(id)
			shared.awaitCommand(t, id, succeeded)
		})
	}
}

// TestRacingSessionsLeaveOne defends the fence between sessions: however two sessions of a
// VM race, exactly one is live afterwards, and only that one gets commands.
func TestRacingSessionsLeaveOne(t *testing.T) {
	t.Parallel()
	const rounds = 25
	vm := newVM()
	conns := []*grpc.ClientConn{dial(t, shared.grpcAddr), dial(t, shared.httpAddr)}
	registering := shared.connectRegistered(t, vm)
	all := []*agent{registering}
	var newest *agent
	for round := range rounds {
		var pair []*agent
		for _, conn := range conns {
			pair = append(pair, openOver(t, conn, vm))
		}
		together(t, len(pair), func(i int) error {
			ack, err := pair[i].stream.connect(&commands.ConnectRequest{VmId: vm, Version: agentVersion})
			if err == nil && !ack.GetAccepted() {
				err = fmt.Errorf("rejected: %s", ack.GetMessage())
			}
			return err
		})
		all = append(all, pair...)
		require.EqualValues(t, len(all), shared.vm(t, vm).GetSessionEpoch(), "each session has its epoch")
		id := shared.send(t, vm, "drain").GetCommand().GetId()
		newest = whoGets(t, pair, id)
		for _, a := range all {
			if a != newest { // the old ones send false acks; many streams have ended
				_ = a.ack(&commands.CommandAck{CommandId: id, Message: "by an old one"})
			}
		}
		message := fmt.Sprintf("round %d", round)
		require.NoError(t, newest.ack(&commands.CommandAck{CommandId: id, Success: true, Message: message}))
		r := shared.awaitCommand(t, id, succeeded)
		require.Equal(t, message, r.GetAck().GetMessage())
		require.EqualValues(t, 1, r.GetAttempts())
	}
	for _, a := range all {
		if a != newest {
			require.Equal(t, codes.Aborted, a.expectEnd(), "%v", a.err)
		}
	}
	v := shared.vm(t, vm)
	require.True(t, v.GetConnected())
	require.EqualValues(t, len(all), v.GetSessionEpoch())
	id := shared.send(t, vm, "drain").GetCommand().GetId()
	newest.expect(id)
}

// whoGets returns which of two agents gets the command.
func whoGets(t *testing.T, pair []*agent, id string) *agent {
	t.Helper()
	inboxes := [2]<-chan *commands.ControllerMessage{pair[0].inbox, pair[1].inbox}
	over := time.After(patience)
	for {
		var m *commands.ControllerMessage
		var open bool
		var from int
		select {
		case m, open = <-inboxes[0]:
		case m, open = <-inboxes[1]:
			from = 1
		case <-over:
			require.FailNow(t, "no agent gets the command")
		}
		if open {
			require.Equal(t, id, m.GetCommand().GetId())
			return pair[from]
		}
		inboxes[from] = nil // the stream that was superseded has ended
	}
}

// TestUnackedCommandIsNotSentAgainOnItsStream defends agents, whose buffers are small,
// against retransmission: an unacked command ends after its ack timeout, and the next
// command is delivered. A late ack is kept.
func TestUnackedCommandIsNotSentAgainOnItsStream(t *testing.T) {
	t.Parallel()
	vm := newVM()
	a := shared.connectRegistered(t, vm)
	first := shared.send(t, vm, "drain", withAckTimeout(300*time.Millisecond)).GetCommand().GetId()
	second := shared.send(t, vm, "shutdown").GetCommand().GetId()
	a.expect(first)
	a.beat("idle", withRunner(true)) // it is alive
	a.expect(second)
	r := shared.command(t, first)
	require.Equal(t, timedOut, r.GetState())
	require.EqualValues(t, 1, r.GetAttempts())
	require.GreaterOrEqual(t, r.GetFinishedAt().AsTime().Sub(r.GetDeliveredAt().AsTime()), 300*time.Millisecond)
	require.False(t, shared.command(t, second).GetDeliveredAt().AsTime().Before(r.GetFinishedAt().AsTime()))

	require.NoError(t, a.ack(&commands.CommandAck{CommandId: first, Success: true, Message: "late"}))
	r = await(t, "the late ack", func() *commandRecord { return shared.command(t, first) },
		func(r *commandRecord) bool { return r.GetAck() != nil })
	require.Equal(t, timedOut, r.GetState(), "terminal is terminal")
	require.Equal(t, "late", r.GetAck().GetMessage())
	require.NotNil(t, r.GetAckedAt())
	require.Equal(t, delivered, shared.command(t, second).GetState(), "the other command was acked")

	a.acked(second)
	shared.awaitCommand(t, second, succeeded)
	require.NoError(t, a.ack(&commands.CommandAck{CommandId: second, Message: "again"}))
	shared.requireLives(t, a)
	require.Empty(t, shared.command(t, second).GetAck().GetMessage(), "the first ack is kept")
}

// TestUnackedCommandIsDeliveredAgainOnANewSession defends commands that were in flight when
// the network dropped: they are delivered again, and while no session is live their ack
// timeout is suspended.
func TestUnackedCommandIsDeliveredAgainOnANewSession(t *testing.T) {
	t.Parallel()
	vm, other := newVM(), newVM()
	a := shared.connectRegistered(t, vm)
	clock := shared.connectRegistered(t, other)
	id := shared.send(t, vm, "drain", withAckTimeout(time.Second)).GetCommand().GetId()
	next := shared.send(t, vm, "shutdown").GetCommand().GetId()
	a.expect(id)
	a.cut()
	shared.awaitVM(t, vm, "disconnected", isDisconnected)
	// Another VM's ack timeout shows that a second has passed.
	tick := shared.send(t, other, "drain", withAckTimeout(time.Second)).GetCommand().GetId()
	clock.expect(tick)
	clock.beat("idle", withRunner(true))
	shared.awaitCommand(t, tick, timedOut)
	require.Equal(t, delivered, shared.command(t, id).GetState())

	b := shared.connect(t, vm)
	b.expect(id)
	require.EqualValues(t, 2, shared.command(t, id).GetAttempts())
	require.NoError(t, b.ack(&commands.CommandAck{CommandId: id, Message: "not yet implemented"}))
	b.expect(next)
	require.Equal(t, failed, shared.command(t, id).GetState())
	v := shared.vm(t, vm)
	require.EqualValues(t, 2, v.GetSessionEpoch())
	require.Equal(t, migcontrollerv1.RegistrationState_REGISTRATION_STATE_REGISTERED, v.GetRegistration().GetState())
}
