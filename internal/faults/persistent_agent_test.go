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

// persistentAgent is an agent that opens a stream again, on the same connection if that
// holds, whenever it ends. It acks what it is sent and says nothing else by itself.
type persistentAgent struct {
	vm     string
	client commandsconnect.CommandServiceClient
	pause  time.Duration // before a stream is opened again
	think  time.Duration // before an ack

	received chan string   // the ids of commands
	opened   chan struct{} // one for each stream that it tried to open
	send     chan *commands.MIGletMessage
	hangUp   func() // ends the agent
}

// startPersistentAgent starts an agent that calls the address in plaintext.
func startPersistentAgent(t *testing.T, addr, vm string, pause time.Duration) *persistentAgent {
	t.Helper()
	return startPersistentAgentOn(t, &http.Client{Transport: newTransport(t)}, "http://"+addr, vm, pause, 0)
}

// startPersistentAgentOn starts an agent, which ends with the test. It waits for
// pause before it opens a stream again, and for think before it acks.
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
		_ = stream.CloseRequest() // it may be gone
	}()
	a.read(stream, acks)
	cancel()
	<-written
	_ = stream.CloseResponse() // it has ended
}

// write sends what the agent has to say, until ctx ends.
func (a *persistentAgent) write(ctx context.Context, stream *commandStream, acks <-chan *commands.MIGletMessage) {
	message := &commands.MIGletMessage{Message: &commands.MIGletMessage_Connect{
		Connect: &commands.ConnectRequest{VmId: a.vm, PoolId: "pool-1", OrgId: "org-1", Version: "1.0"},
	}}
	for {
		if stream.Send(message) != nil {
			return // the reader gets to know why
		}
		select {
		case message = <-acks:
		case message = <-a.send:
		case <-ctx.Done():
			return
		}
	}
}

// read takes what comes, until the stream ends.
func (a *persistentAgent) read(stream *commandStream, acks chan<- *commands.MIGletMessage) {
	for {
		message, err := stream.Receive()
		if err != nil {
			return
		}
		if id := message.GetCommand().GetId(); id != "" {
			<-time.After(a.think)
			acks <- &commands.MIGletMessage{Message: &commands.MIGletMessage_CommandAck{
				CommandAck: &commands.CommandAck{CommandId: id, Success: true},
			}}
			a.received <- id
		}
	}
}

// awaitCommand waits for a command with this id, or any for registration.
func (a *persistentAgent) awaitCommand(t *testing.T, id string) {
	t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case got := <-a.received:
			if got == id || strings.HasPrefix(got, id+"-") {
				return
			}
		case <-deadline:
			require.FailNow(t, "a command does not come", "%s for %s", id, a.vm)
		}
	}
}

// awaitRegistration waits for the command that every agent gets when it connects.
func (a *persistentAgent) awaitRegistration(t *testing.T) { t.Helper(); a.awaitCommand(t, "reg") }

// beatEvery sends heartbeats until the test ends.
func (a *persistentAgent) beatEvery(t *testing.T, interval time.Duration) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			select {
			case a.send <- &commands.MIGletMessage{Message: &commands.MIGletMessage_Heartbeat{
				Heartbeat: &commands.Heartbeat{VmId: a.vm, MigletState: "idle", Timestamp: time.Now().Unix()},
			}}:
			case <-ctx.Done():
				return
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
}

// report sends an event with so many bytes in it.
func (a *persistentAgent) report(t *testing.T, typ string, size int) {
	t.Helper()
	select {
	case a.send <- &commands.MIGletMessage{Message: &commands.MIGletMessage_Event{Event: &commands.EventNotification{
		Type: typ, VmId: a.vm, Timestamp: time.Now().Unix(), Data: map[string]string{"note": strings.Repeat("x", size)},
	}}}:
	case <-time.After(patience):
		require.FailNow(t, "the agent cannot send", a.vm)
	}
}
