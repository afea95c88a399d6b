package e2e

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
	"github.com/mig-controller/mig-controller/internal/testkit"
)

// A rejected stream is held for some seconds, and has ended after ten, or later on a busy machine.
const (
	shortestHold = 3 * time.Second
	longestHold  = 30 * time.Second
)

// expectHeldEnd requires that the stream, rejected at the time fault, is held and then
// ends.
func (a *agent) expectHeldEnd(fault time.Time, code codes.Code) {
	a.t.Helper()
	require.Equal(a.t, code.String(), a.expectEnd().String(), "%v", a.err)
	held := time.Since(fault)
	require.Greater(a.t, held, shortestHold, "agents reconnect at once")
	require.Less(a.t, held, longestHold)
}

// TestGarbageCostsItselfAtMost defends the session against malformed and oversized
// messages: they are rejected, and the session continues. If one may have been a
// ConnectRequest, only its own stream ends, after being held.
func TestGarbageCostsItselfAtMost(t *testing.T) {
	t.Parallel()
	large := eventMessage(&commands.EventNotification{Type: "large", Data: map[string]string{"x": strings.Repeat("x", 64<<10)}})
	for name, say := range map[string]any{
		"undecodable bytes":             []byte("\xff\xff\xff"),
		"a truncated field":             []byte{0x1a, 0x7f, 0x0a},
		"a text that is not UTF-8":      []byte{0x1a, 0x03, 0x0a, 0x01, 0xff},
		"a message of more than 64 KiB": large,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := openOver(t, dial(t, shared.grpcAddr), newVM(), grpc.ForceCodec(testkit.RawCodec{}))
			a.hello()
			a.register()
			shared.awaitVM(t, a.vm, "registered", isRegistered)
			a.send(say)
			shared.requireLives(t, a)
			require.Empty(t, shared.events(t, a.vm, "large"))
			require.Equal(t, 1, shared.log.refusals(a.vm))
		})
	}
	t.Run("garbage instead of a ConnectRequest", func(t *testing.T) {
		t.Parallel()
		conn := dial(t, shared.grpcAddr)
		neighbour := connectOver(t, conn, newVM())
		neighbour.register()
		a := openOver(t, conn, newVM(), grpc.ForceCodec(testkit.RawCodec{}))
		fault := time.Now()
		a.send([]byte("\xff"))
		a.expectHeldEnd(fault, codes.InvalidArgument)
		shared.requireLives(t, neighbour)
	})
}

// TestLargestMessageIsTaken checks that a message of the maximum size is accepted.
func TestLargestMessageIsTaken(t *testing.T) {
	t.Parallel()
	vm := newVM()
	a := shared.connectRegistered(t, vm)
	m := eventMessage(&commands.EventNotification{Type: "large", Data: map[string]string{"x": ""}})
	m.GetEvent().Data["x"] = strings.Repeat("x", 64<<10-proto.Size(m)-6) // the lengths take more
	require.InDelta(t, 64<<10, proto.Size(m), 8)
	require.LessOrEqual(t, proto.Size(m), 64<<10)
	a.send(m)
	shared.awaitEvent(t, vm, "large")
	shared.requireLives(t, a)
}

// TestInvalidIDIsRejectedForGood defends the rejection that makes an agent give up: it
// names the field and the rule that it violates, and the stream is held.
func TestInvalidIDIsRejectedForGood(t *testing.T) {
	t.Parallel()
	const rule = " must be 1 to 128 characters of A-Z a-z 0-9 . _ -, the first a letter or digit"
	conn := dial(t, shared.grpcAddr)
	neighbour := connectOver(t, conn, newVM())
	neighbour.register()
	for name, test := range map[string]struct {
		hello *commands.ConnectRequest
		field string
	}{
		"no vm_id":         {&commands.ConnectRequest{}, "vm_id"},
		"vm_id is a path":  {&commands.ConnectRequest{VmId: "../x"}, "vm_id"},
		"vm_id of state":   {&commands.ConnectRequest{VmId: "_state"}, "vm_id"},
		"vm_id is hidden":  {&commands.ConnectRequest{VmId: ".x"}, "vm_id"},
		"vm_id too long":   {&commands.ConnectRequest{VmId: strings.Repeat("v", 129)}, "vm_id"},
		"vm_id with space": {&commands.ConnectRequest{VmId: "a b"}, "vm_id"},
		"pool is a path":   {&commands.ConnectRequest{VmId: "vm", PoolId: "../x"}, "pool_id"},
		"org is a path":    {&commands.ConnectRequest{VmId: "vm", OrgId: "a/b"}, "org_id"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := openOver(t, conn, test.hello.GetVmId())
			fault := time.Now()
			ack, err := a.stream.connect(test.hello)
			require.NoError(t, err)
			require.Less(t, time.Since(fault), shortestHold, "the answer is sent immediately")
			require.False(t, ack.GetAccepted())
			require.Contains(t, ack.GetMessage(), test.field+rule)
			a.expectHeldEnd(fault, codes.OK)
		})
	}
	t.Run("others continue", func(t *testing.T) {
		t.Parallel()
		shared.requireLives(t, neighbour)
		_, err := shared.admin.GetVM(t.Context(), &migcontrollerv1.GetVMRequest{VmId: "vm"})
		requireCode(t, err, codeNotFound)
	})
}

// TestOrdinaryGoodbyeIsNotHeld defends agents that close their stream properly: it ends
// immediately with OK.
func TestOrdinaryGoodbyeIsNotHeld(t *testing.T) {
	t.Parallel()
	vm := newVM()
	a := shared.connectRegistered(t, vm)
	sent := time.Now()
	require.NoError(t, a.rpc.CloseSend())
	require.Equal(t, codes.OK, a.expectEnd())
	require.Less(t, time.Since(sent), shortestHold)
	require.False(t, shared.vm(t, vm).GetConnected())
}

// TestStopWaitsForNoHeldStream defends a stop while many rejected agents are held: all of
// them are held until then, and none afterwards.
func TestStopWaitsForNoHeldStream(t *testing.T) {
	t.Parallel()
	const refused = 1100
	c := start(t)
	var conns []*grpc.ClientConn
	for range 4 {
		conns = append(conns, dial(t, c.grpcAddr))
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	streams := make([]*stream, refused)
	last := make([]time.Time, refused) // when each was last known to be held
	together(t, refused, func(i int) (err error) {
		if streams[i], err = openStream(ctx, conns[i%len(conns)]); err != nil {
			return err
		}
		_, err = streams[i].connect(&commands.ConnectRequest{VmId: "../x"})
		last[i] = time.Now()
		return err
	})
	stopped := time.Now()
	require.NoError(t, c.end())
	for i, s := range streams {
		_, err := s.next()
		require.ErrorIs(t, err, errEnded)
		require.False(t, s.endedAt.Before(stopped) && s.endedAt.Sub(last[i]) < shortestHold,
			"stream %d ended %s after it was rejected", i, s.endedAt.Sub(last[i]))
	}
	require.Less(t, time.Since(stopped), shortestHold)
}
