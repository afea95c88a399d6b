package crash

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
)

const (
	pending   = migcontrollerv1.CommandState_COMMAND_STATE_PENDING
	delivered = migcontrollerv1.CommandState_COMMAND_STATE_DELIVERED
	succeeded = migcontrollerv1.CommandState_COMMAND_STATE_SUCCEEDED
)

// Promises 1, 2 and 3. Every acknowledged command survives a crash immediately after the
// answer, unchanged. A command without an answer can be sent again with its id. All of them
// are then delivered once, one at a time and in order of acceptance.
func TestAnsweredCommandsSurviveKill(t *testing.T) {
	t.Parallel()
	const rounds = 25
	rng, dir := seeded(t), t.TempDir()
	answered, doubtful, kept := 0, 0, 0
	c := start(t, dir)
	for round := range rounds {
		b := &burst{vm: fmt.Sprintf("vm-%02d", round), killAfter: int64(1 + rng.IntN(50))}
		require.NoError(t, b.run(t.Context(), c))
		c.hangUp()
		c = start(t, dir)
		answered, doubtful = answered+len(b.answered), doubtful+len(b.doubtful)
		kept += len(c.commands(t, &migcontrollerv1.ListCommandsRequest{VmId: b.vm})) - len(b.answered)
		b.requireKept(t, c)
		deliverInOrder(t, c, b.vm)
	}
	t.Logf("%d commands answered before a kill; %d in doubt, of which %d had been kept", answered, doubtful, kept)
}

// senders is how many senders work concurrently.
const senders = 4

// burst is a set of commands for an offline VM, sent concurrently until the controller is
// killed: immediately after its answer to one of them.
type burst struct {
	vm        string
	killAfter int64 // answers

	answers  atomic.Int64
	mu       sync.Mutex
	answered []*migcontrollerv1.CommandRecord
	doubtful []string // the ids that got no answer
}

// run returns when the controller is dead. It returns an error if something failed before.
func (b *burst) run(ctx context.Context, c *controller) error {
	errs := make([]error, senders)
	var sending sync.WaitGroup
	for i := range senders {
		sending.Go(func() { errs[i] = b.send(ctx, c, i) })
	}
	sending.Wait()
	if b.answers.Load() >= b.killAfter {
		return nil // errors after the kill are expected
	}
	return errors.Join(errs...)
}

func (b *burst) send(ctx context.Context, c *controller, sender int) error {
	for n := 0; ; n++ {
		id := fmt.Sprintf("%s-sender-%d-%03d", b.vm, sender, n)
		record, err := c.send(ctx, id, b.request(id))
		if err == nil && b.answers.Add(1) == b.killAfter {
			c.kill()
		}
		b.mu.Lock()
		if err == nil {
			b.answered = append(b.answered, record)
		} else {
			b.doubtful = append(b.doubtful, id)
		}
		b.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

// request returns the same command for the same id.
func (b *burst) request(id string) *migcontrollerv1.SendCommandRequest {
	return &migcontrollerv1.SendCommandRequest{VmId: b.vm, Command: &commands.Command{
		Type:              "update_config",
		StringParams:      map[string]string{"id": id, "padding": strings.Repeat("x", 1000)},
		IntParams:         map[string]int64{"size": int64(len(id))},
		StringArrayParams: []string{"one", "two"},
	}}
}

// requireKept fails if an acknowledged command has changed. It sends the unanswered ones
// again.
func (b *burst) requireKept(t *testing.T, c *controller) {
	t.Helper()
	for _, want := range b.answered {
		got := c.command(t, want.GetCommand().GetId())
		require.True(t, proto.Equal(want, got), "answered: %v\nafter the crash: %v", want, got)
	}
	sent := c.sent(t, b.vm)
	for _, id := range ids(c.commands(t, &migcontrollerv1.ListCommandsRequest{VmId: b.vm})) {
		require.Equal(t, 1, sent[id], "command %s and its audit event are durable together", id)
		delete(sent, id)
	}
	require.Empty(t, sent, "no audit event without its command")
	for _, id := range b.doubtful {
		record, err := c.send(t.Context(), id, b.request(id))
		require.NoError(t, err)
		require.Equal(t, pending, record.GetState())
	}
	all := ids(c.commands(t, &migcontrollerv1.ListCommandsRequest{VmId: b.vm}))
	require.Len(t, all, len(b.answered)+len(b.doubtful), "no duplicates: %v", all)
	for i := range senders {
		var own []string
		for _, id := range all {
			if strings.HasPrefix(id, fmt.Sprintf("%s-sender-%d-", b.vm, i)) {
				own = append(own, id)
			}
		}
		require.IsIncreasing(t, own, "each waited for its answers, so its commands were accepted in its order")
	}
}

// deliverInOrder connects an agent for a new VM, which receives and acks all queued
// commands.
func deliverInOrder(t *testing.T, c *controller, vm string) {
	t.Helper()
	waiting := ids(c.commands(t, &migcontrollerv1.ListCommandsRequest{VmId: vm}))
	a := connectAgent(t, c, vm)
	out := &migcontrollerv1.ListCommandsRequest{
		VmId: vm, States: []migcontrollerv1.CommandState{delivered},
	}
	for _, id := range waiting {
		require.Equal(t, id, a.next(t).GetId())
		require.Equal(t, []string{id}, ids(c.commands(t, out)), "one command is in flight at a time")
		a.ack(t, id)
	}
	last := a.next(t)
	require.Equal(t, registerRunner, last.GetType(), "it was requested when the VM connected, after all others")
	a.ack(t, last.GetId())
	c.waitState(t, last.GetId(), succeeded)
	for _, record := range c.commands(t, &migcontrollerv1.ListCommandsRequest{VmId: vm}) {
		require.Equal(t, succeeded, record.GetState())
		require.EqualValues(t, 1, record.GetAttempts())
	}
	a.hangUp()
	for more := range a.received {
		require.Nil(t, more, "nothing is delivered twice")
	}
}
