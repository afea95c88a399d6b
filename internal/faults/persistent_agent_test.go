package faults

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands/commandsconnect"
)

type commandStream = connect.BidiStreamForClientSimple[commands.MIGletMessage, commands.ControllerMessage]

// persistentAgent is an agent that reopens its stream whenever it ends, on the same
// connection if possible. It acks commands and otherwise sends only what it is asked to.
type persistentAgent struct {
	vm     string
	client commandsconnect.CommandServiceClient
	pause  time.Duration // before a stream is reopened
	think  time.Duration // before an ack

	received chan string   // the ids of commands
	opened   chan struct{} // one per attempt to open a stream
	send     chan *commands.MIGletMessage
	hangUp   func() // ends the agent
}

// never is the think time of an agent that acks nothing but its registration.
const never = -1

// startPersistentAgent starts an agent that connects to the address in plaintext.
func startPersistentAgent(t *testing.T, addr, vm string, pause time.Duration) *persistentAgent {
	t.Helper()
	return startPersistentAgentOn(t, &http.Client{Transport: newTransport(t)}, "http://"+addr, vm, pause, 0)
}

// startPersistentAgentOn starts an agent, which ends with the test. It waits for pause
// before it reopens a stream, and for think before it acks.
func startPersistentAgentOn(
	t *testing.T, client *http.Client, url, vm string, pause, think time.Duration,
) *persistentAgent {
	t.Helper()
	a := &persistentAgent{
		vm: vm, pause: pause, think: think, client: commandsconnect.NewCommandServiceClient(client, url, connect.WithGRPC()),
		received: make(chan string, 100), opened: make(chan struct{}, 100_000),
		send: make(chan *commands.MIGletMessage),
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		a.live(ctx)
	}()
	a.hangUp = func() {
		cancel()
		<-ended
	}
	t.Cleanup(a.hangUp)
	return a
}

// live opens streams until ctx ends.
func (a *persistentAgent) live(ctx context.Context) {
	for ctx.Err() == nil {
		a.opened <- struct{}{}
		a.stream(ctx)
		select {
		case <-time.After(a.pause):
		case <-ctx.Done():
		}
	}
}

// stream opens one stream, and returns when it has ended.
func (a *persistentAgent) stream(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := a.client.StreamCommands(ctx)
	if err != nil {
		cancel()
		return
	}
	acks := make(chan *commands.MIGletMessage, 100)
	written := make(chan struct{})
	go func() {
		defer close(written)
		a.write(ctx, stream, acks)
		_ = stream.CloseRequest() // it may have ended
	}()
	a.read(stream, acks)
	cancel()
	<-written
	_ = stream.CloseResponse() // it has ended
}

// write sends the agent's messages until ctx ends.
func (a *persistentAgent) write(ctx context.Context, stream *commandStream, acks <-chan *commands.MIGletMessage) {
	message := &commands.MIGletMessage{Message: &commands.MIGletMessage_Connect{
		Connect: &commands.ConnectRequest{VmId: a.vm, PoolId: "pool-1", OrgId: "org-1", Version: "1.0"},
	}}
	for {
		if stream.Send(message) != nil {
			return // the reader gets the reason
		}
		select {
		case message = <-acks:
		case message = <-a.send:
		case <-ctx.Done():
			return
		}
	}
}

// read reads messages until the stream ends.
func (a *persistentAgent) read(stream *commandStream, acks chan<- *commands.MIGletMessage) {
	for {
		message, err := stream.Receive()
		if err != nil {
			return
		}
		if id := message.GetCommand().GetId(); id != "" {
			a.received <- id
			if a.think != never || isRegistration(id) {
				<-time.After(a.think)
				acks <- ackOf(&commands.CommandAck{CommandId: id, Success: true})
			}
		}
	}
}

// awaitCommand waits for the command with this id.
func (a *persistentAgent) awaitCommand(t *testing.T, id string) {
	t.Helper()
	a.await(t, id, func(got string) bool { return got == id })
}

// awaitRegistration waits for the register_runner that every agent gets when it connects.
func (a *persistentAgent) awaitRegistration(t *testing.T) {
	t.Helper()
	a.await(t, "register_runner", isRegistration)
}

func isRegistration(id string) bool { return strings.HasPrefix(id, "reg-") }

func (a *persistentAgent) await(t *testing.T, what string, is func(id string) bool) {
	t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case got := <-a.received:
			if is(got) {
				return
			}
		case <-deadline:
			require.FailNow(t, "a command does not arrive", "%s for %s", what, a.vm)
		}
	}
}

// beatEvery sends heartbeats until the test ends.
func (a *persistentAgent) beatEvery(t *testing.T, interval time.Duration) {
	t.Helper()
	repeat(t, interval, func() error {
		select {
		case a.send <- beatOf(a.vm):
			return nil
		case <-t.Context().Done():
			return t.Context().Err()
		}
	})
}

// report sends an event with a note.
func (a *persistentAgent) report(t *testing.T, typ, note string) {
	t.Helper()
	select {
	case a.send <- eventOf(a.vm, typ, note):
	case <-time.After(patience):
		require.FailNow(t, "the agent cannot send", a.vm)
	}
}
