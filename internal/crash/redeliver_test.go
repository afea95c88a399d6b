package crash

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
)

// Promises 1, 2, 5 and 6. A command that was in flight when the controller crashed is
// delivered again on the agent's next stream, as another attempt, until its ack is durable,
// and never afterwards. What the agent reported before the ack is durable if the ack is. A
// downtime longer than the ack timeout ends no command. The registered runner is not
// registered again.
func TestUnackedCommandComesAgain(t *testing.T) {
	t.Parallel()
	r := &redelivery{rng: seeded(t), dir: t.TempDir(), vm: "vm-1"}
	r.c = start(t, r.dir)
	r.a = connectAgent(t, r.c, r.vm)
	r.a.register(t)
	awaitIdle(t, r.c, 1)
	for round := range 16 {
		id := fmt.Sprintf("cmd-%02d", round)
		switch {
		case round%8 == 0:
			r.killForLong(t, id)
		case round%2 == 0:
			r.killBeforeAck(t, id, 1+r.rng.IntN(2))
		default:
			r.killWhileAcking(t, id)
		}
	}
	t.Logf("killed while acking: %d acks kept, %d lost", r.acksKept, r.acksLost)
	all := r.c.commands(t, &migcontrollerv1.ListCommandsRequest{VmId: r.vm, Type: registerRunner})
	require.Len(t, all, 1, "the runner was registered once")
	r.a.hangUp()
	for more := range r.a.received {
		require.Nil(t, more, "nothing is delivered after its ack")
	}
}

// redelivery is an agent with a registered runner on a controller that crashes.
type redelivery struct {
	rng                *rand.Rand
	dir, vm            string
	c                  *controller
	a                  *agent
	acksKept, acksLost int
}

// killBeforeAck kills the controller several times while the command is in flight.
func (r *redelivery) killBeforeAck(t *testing.T, id string, kills int) {
	t.Helper()
	r.c.mustSend(t, r.vm, id)
	for attempt := range kills {
		r.receive(t, id, attempt+1)
		r.crash(t, 0)
		require.Equal(t, delivered, r.c.command(t, id).GetState())
		r.reconnect(t)
	}
	r.receive(t, id, kills+1)
	r.finish(t, id, kills+1)
}

// killForLong keeps the controller down for longer than the ack timeout.
func (r *redelivery) killForLong(t *testing.T, id string) {
	t.Helper()
	const ackTimeout = 1500 * time.Millisecond
	_, err := r.c.send(t.Context(), id, &migcontrollerv1.SendCommandRequest{
		VmId: r.vm, AckTimeout: durationpb.New(ackTimeout),
	})
	require.NoError(t, err)
	r.receive(t, id, 1)
	r.crash(t, ackTimeout)
	r.reconnect(t)
	r.receive(t, id, 2)
	r.finish(t, id, 2)
}

// killWhileAcking kills the controller around the time of its commit of the agent's
// messages: an event, then the ack.
func (r *redelivery) killWhileAcking(t *testing.T, id string) {
	t.Helper()
	r.c.mustSend(t, r.vm, id)
	r.receive(t, id, 1)
	r.a.report(t, "job_started", id)
	r.a.ack(t, id)
	<-time.After(time.Duration(r.rng.IntN(2000)<<r.rng.IntN(4)) * time.Microsecond)
	r.crash(t, 0)
	if r.c.command(t, id).GetState() == succeeded {
		r.acksKept++
		require.Contains(t, marks(r.c.events(t, r.vm)), id, "the event was sent before the ack")
		r.reconnect(t) // the next message must be the next command
		return
	}
	r.acksLost++
	r.reconnect(t)
	r.receive(t, id, 2)
	r.finish(t, id, 2)
}

// receive receives the next command, which must be this one.
func (r *redelivery) receive(t *testing.T, id string, attempt int) {
	t.Helper()
	require.Equal(t, id, r.a.next(t).GetId())
	record := r.c.command(t, id)
	require.Equal(t, delivered, record.GetState())
	require.EqualValues(t, attempt, record.GetAttempts())
}

// finish acks the command in flight.
func (r *redelivery) finish(t *testing.T, id string, attempts int) {
	t.Helper()
	r.a.ack(t, id)
	record := r.c.waitState(t, id, succeeded)
	require.EqualValues(t, attempts, record.GetAttempts())
	require.True(t, record.GetAck().GetSuccess())
}

// crash kills the controller and starts another one, which must find no VM connected.
func (r *redelivery) crash(t *testing.T, downtime time.Duration) {
	t.Helper()
	r.c.kill()
	r.c.hangUp()
	r.a.hangUp()
	<-time.After(downtime)
	r.c = start(t, r.dir)
	require.False(t, r.c.vm(t, r.vm).GetConnected())
}

// reconnect opens the agent's next stream.
func (r *redelivery) reconnect(t *testing.T) {
	t.Helper()
	before := r.c.vm(t, r.vm).GetSessionEpoch()
	r.a = connectAgent(t, r.c, r.vm)
	r.a.beat(t, "idle")
	require.Greater(t, r.c.vm(t, r.vm).GetSessionEpoch(), before)
}
