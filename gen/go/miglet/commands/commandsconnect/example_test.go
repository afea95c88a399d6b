package commandsconnect_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands/commandsconnect"
)

// An agent that registers its runner and leaves. The stream needs HTTP/2, which must be
// enabled explicitly without TLS.
func Example() {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.Protocols = new(http.Protocols)
	transport.Protocols.SetUnencryptedHTTP2(true)
	client := &http.Client{Transport: transport}
	defer client.CloseIdleConnections()
	controller := commandsconnect.NewCommandServiceClient(client, "http://localhost:50051", connect.WithGRPC())

	stream, err := controller.StreamCommands(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	defer stream.CloseResponse()
	send := func(message *commands.MIGletMessage) {
		// io.EOF means that the stream has ended; Receive then says why.
		if err := stream.Send(message); err != nil && !errors.Is(err, io.EOF) {
			log.Fatal(err)
		}
	}

	send(&commands.MIGletMessage{Message: &commands.MIGletMessage_Connect{Connect: &commands.ConnectRequest{
		VmId: "example-vm-0001", PoolId: "examples",
	}}})
	// A runner that is not configured tells an agent that was started again from
	// one that only lost its connection.
	send(heartbeat("ready", &commands.RunnerState{State: "offline"}))
	for {
		message, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			log.Fatal(err)
		}
		if ack := message.GetConnectAck(); ack != nil {
			if !ack.GetAccepted() {
				log.Fatal(ack.GetMessage())
			}
			fmt.Println("accepted")
		}
		if command := message.GetCommand(); command.GetType() == "register_runner" {
			fmt.Println("register_runner received") // its registration_token is a secret
			send(&commands.MIGletMessage{Message: &commands.MIGletMessage_CommandAck{CommandAck: &commands.CommandAck{
				CommandId: command.GetId(), Success: true,
			}}})
			// Here the agent would register its runner.
			send(&commands.MIGletMessage{Message: &commands.MIGletMessage_Event{Event: &commands.EventNotification{
				Type: "runner_registered", Timestamp: time.Now().Unix(),
			}}})
			send(heartbeat("idle", &commands.RunnerState{State: "idle", Configured: true}))
			fmt.Println("runner registered")
			if err := stream.CloseRequest(); err != nil {
				log.Fatal(err)
			}
		}
	}

	// Output:
	// accepted
	// register_runner received
	// runner registered
}

func heartbeat(state string, runner *commands.RunnerState) *commands.MIGletMessage {
	return &commands.MIGletMessage{Message: &commands.MIGletMessage_Heartbeat{Heartbeat: &commands.Heartbeat{
		MigletState: state, RunnerState: runner, Timestamp: time.Now().Unix(),
	}}}
}
