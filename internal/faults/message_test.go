package faults

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
)

// Acks that are too large or not UTF-8 end their commands according to their success field,
// and the session continues.
func testPoisonAcks(t *testing.T) {
	c := startController(t)
	a := c.connectRegistered(t, "vm-1")
	for id, ack := range map[string]*commands.CommandAck{
		"large-done":   {Success: true, Message: strings.Repeat("x", 100<<10)},
		"large-failed": {Message: strings.Repeat("x", 100<<10)},
	} {
		c.send(t, "vm-1", id)
		a.expect(t, id)
		ack.CommandId = id
		a.send(t, ackOf(ack))
		r := c.awaitEnd(t, id, map[bool]migcontrollerv1.CommandState{true: succeeded, false: failed}[ack.GetSuccess()])
		require.Len(t, r.GetAck().GetMessage(), 4<<10)
	}
	for id, success := range map[string]bool{"garbled-done": true, "garbled-failed": false} {
		c.send(t, "vm-1", id)
		a.expect(t, id)
		a.sendRaw(t, garbledAck(id, success))
		r := c.awaitEnd(t, id, map[bool]migcontrollerv1.CommandState{true: succeeded, false: failed}[success])
		require.Equal(t, "so \uFFFD it is", r.GetAck().GetMessage())
		require.EqualValues(t, 1, r.GetAttempts())
	}
	requireSameSession(t, c, a)
	require.NotEmpty(t, c.out.lines(`"level":"WARN"`, ofMessage("ack truncated")))
}

// garbledAck is an ack whose message is not UTF-8.
func garbledAck(id string, success bool) []byte {
	var ack []byte
	ack = protowire.AppendTag(ack, 1, protowire.BytesType)
	ack = protowire.AppendString(ack, id)
	if success {
		ack = protowire.AppendTag(ack, 2, protowire.VarintType)
		ack = protowire.AppendVarint(ack, 1)
	}
	ack = protowire.AppendTag(ack, 3, protowire.BytesType)
	ack = protowire.AppendBytes(ack, []byte("so \xff it is"))
	return protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), ack)
}

// requireSameSession requires that the agent's first session is still live: a command is
// delivered on it, and its ack arrives.
func requireSameSession(t *testing.T, c *controller, a *agent) {
	t.Helper()
	c.send(t, a.vm, a.vm+"-lives")
	a.expect(t, a.vm+"-lives")
	a.ack(t, a.vm+"-lives")
	c.awaitEnd(t, a.vm+"-lives", succeeded)
	require.EqualValues(t, 1, c.vm(t, a.vm).GetSessionEpoch())
}

// Messages that are malformed or too large are rejected one by one, and those before and
// after them are processed.
func testPoisonMessages(t *testing.T) {
	c := startController(t)
	for name, poison := range map[string]func(t *testing.T, a *agent){
		"event": func(t *testing.T, a *agent) {
			t.Helper()
			a.report(t, "poison", strings.Repeat("x", 200<<10))
		},
		"heartbeat": func(t *testing.T, a *agent) {
			t.Helper()
			m := beatOf(a.vm)
			m.GetHeartbeat().GetRunnerState().RunnerName = strings.Repeat("x", 65<<10)
			a.send(t, m)
		},
		"malformed": func(t *testing.T, a *agent) {
			t.Helper()
			a.sendRaw(t, []byte{0x1a, 0x7f, 0x01})                                // an event cut short
			a.sendRaw(t, []byte(strings.Repeat("\xff", 12)))                      // an endless number
			a.sendRaw(t, []byte("\x1a\x04\x0a\x02\xff\xfe"))                      // an event whose type is not UTF-8
			a.sendRaw(t, nil)                                                     // nothing
			a.sendRaw(t, append([]byte{0x22}, strings.Repeat("\x80", 70<<10)...)) // too large as well
		},
	} {
		vm := "vm-" + name
		a := c.connectRegistered(t, vm)
		a.report(t, "before", "")
		poison(t, a)
		a.report(t, "after", "")
		await(t, func() bool { return len(c.events(t, vm, "after")) == 1 }, "%s: later messages are lost", name)
		require.Len(t, c.events(t, vm, "before"), 1)
		require.Empty(t, c.events(t, vm, "poison"))
		require.Equal(t, vm, c.vm(t, vm).GetRunner().GetName())
		require.NotEmpty(t, c.out.lines(`"level":"WARN"`, ofMessage("message refused"), ofVM(vm)), name)
		requireSameSession(t, c, a)
	}
}

func (c *controller) events(t *testing.T, vm, typ string) []*migcontrollerv1.Event {
	t.Helper()
	answer, err := c.admin.ListEvents(t.Context(), &migcontrollerv1.ListEventsRequest{VmId: vm, Type: typ})
	require.NoError(t, err)
	return answer.GetEvents()
}

// An ack above 1 MiB ends the stream, and the log has the cause. An agent that answers a
// command with one each time gets it max_deliveries times.
func testOversizedAck(t *testing.T) {
	c := startController(t)
	a := c.connectRegistered(t, "vm-1")
	c.send(t, "vm-1", "answered", withMaxDeliveries(2))
	c.send(t, "vm-1", "next")
	answered := 0
	for {
		id := a.next(t).GetId()
		if id == "next" {
			break
		}
		require.Equal(t, "answered", id)
		answered++
		require.LessOrEqual(t, answered, 2)
		_ = a.stream.SendMsg(ackOf(&commands.CommandAck{ // the stream may end during the call
			CommandId: id, Success: true, Message: strings.Repeat("x", 1<<20+100),
		}))
		await(t, func() bool {
			return len(c.out.lines(ofMessage("agent disconnected"), ofCause("message too large"))) == answered
		}, "the stream does not end")
		a = c.connect(t, "vm-1")
	}
	require.Equal(t, 2, answered)
	require.Regexp(t, `message size 1\d{6} is larger than`, c.awaitLine(t, ofMessage("agent disconnected"), ofCause("message too large")))
	require.Contains(t, c.awaitEnd(t, "answered", timedOut).GetReason(), "max_deliveries")
}

// Streams that are held because they are superseded or rejected are read: their messages do
// not slow down another agent on the same connection.
func testHeldStreams(t *testing.T) {
	c := startController(t)
	conn := dial(t, c.addr)
	neighbour := openAccepted(t, conn, "vm-neighbour")
	neighbour.register(t)
	var floods []*agent
	for _, vm := range []string{"vm-1", "vm-2", "vm-3"} {
		floods = append(floods, openAccepted(t, conn, vm))
		c.connect(t, vm)
	}
	for range 8 { // whose windows together are larger than the connection's
		refused := open(t, conn, "no id!")
		go refused.read()
		require.False(t, refused.message(t).GetConnectAck().GetAccepted())
		floods = append(floods, refused)
	}
	opened := time.Now()
	for _, a := range floods {
		event := eventOf(a.vm, "flood", strings.Repeat("x", 60<<10))
		repeat(t, 20*time.Millisecond, func() error { return a.stream.SendMsg(event) })
	}
	c.requirePromptUntil(t, neighbour, "round", opened.Add(4*time.Second)) // before they are released
}
