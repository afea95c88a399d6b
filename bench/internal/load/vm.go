package load

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
	"google.golang.org/grpc"
)

// The pool and organization of all VMs.
const (
	pool = "bench-pool"
	org  = "bench-org"
)

var streamDesc = grpc.StreamDesc{StreamName: "StreamCommands", ServerStreams: true, ClientStreams: true}

// vm is one VM with its agent.
type vm struct {
	id    string
	fleet *Fleet
	conn  *grpc.ClientConn
	beats [kinds]encoded
	// first is closed when the runner is registered.
	first chan struct{}
	// over is closed when the VM has ended.
	over chan struct{}

	mu         sync.Mutex // held while sending; also guards the fields below
	stream     grpc.ClientStream
	next       int // the next heartbeat
	registered bool
	leaving    bool
	drop       context.CancelFunc // ends the stream
}

// live runs the agent until the context ends or it leaves: it connects, executes its
// commands, and reconnects when the stream ends.
func (v *vm) live(ctx context.Context) {
	defer close(v.over)
	for ctx.Err() == nil {
		err := v.session(ctx)
		if ctx.Err() != nil || v.isLeaving() {
			return
		}
		v.fleet.ended(err)
		select {
		case <-time.After(50 * time.Millisecond): // a rejection must not cause a hot loop
		case <-ctx.Done():
		}
	}
}

// session runs one stream, from its beginning to its end.
func (v *vm) session(ctx context.Context) error {
	ctx, drop := context.WithCancel(ctx)
	defer drop()
	stream, err := v.conn.NewStream(ctx, &streamDesc, streamMethod, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	if err := v.open(stream, drop); err != nil {
		return err
	}
	defer v.close()
	for {
		m := new(commands.ControllerMessage)
		if err := stream.RecvMsg(m); err != nil {
			return err
		}
		switch m := m.GetMessage().(type) {
		case *commands.ControllerMessage_ConnectAck:
			if err := v.accepted(m.ConnectAck); err != nil {
				return err
			}
		case *commands.ControllerMessage_Command:
			if err := v.handleCommand(m.Command); err != nil {
				return err
			}
		}
	}
}

func (v *vm) open(stream grpc.ClientStream, drop context.CancelFunc) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.leaving {
		return errNoStream
	}
	hello := &commands.ConnectRequest{VmId: v.id, PoolId: pool, OrgId: org, Version: "bench"}
	if err := stream.SendMsg(&commands.MIGletMessage{Message: &commands.MIGletMessage_Connect{Connect: hello}}); err != nil {
		return err
	}
	v.stream, v.drop = stream, drop
	return nil
}

func (v *vm) close() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.stream = nil
}

// leaveWithin is how long a VM waits until the server has read its last messages.
const leaveWithin = 5 * time.Second

// leave ends a VM whose job is done. The agent reports its shutdown and ends its stream;
// without a stream it just ends.
func (v *vm) leave() {
	if v.reportShutdown() {
		select {
		case <-v.over:
		case <-time.After(leaveWithin):
		}
	}
	_ = v.conn.Close() // fails if it is already closed
	<-v.over
}

// reportShutdown reports whether there was a stream to send on. Nothing is sent after it.
func (v *vm) reportShutdown() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	stream := v.stream
	v.leaving, v.stream = true, nil
	return stream != nil && stream.SendMsg(v.event("vm_shutting_down", map[string]string{"reason": "job completed"})) == nil &&
		stream.CloseSend() == nil
}

func (v *vm) isLeaving() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.leaving
}

// accepted handles the ConnectAck: an agent that reconnects reports its runner immediately.
func (v *vm) accepted(a *commands.ConnectAck) error {
	if !a.GetAccepted() {
		return fmt.Errorf("VM %s was refused: %s", v.id, a.GetMessage())
	}
	if !v.isRegistered() {
		return nil
	}
	v.beat()
	return nil
}

// handleCommand acks a command. A register_runner is immediately followed by the proof.
func (v *vm) handleCommand(c *commands.Command) error {
	ack := &commands.CommandAck{CommandId: c.GetId(), Success: true, Message: "done"}
	if err := v.send(&commands.MIGletMessage{Message: &commands.MIGletMessage_CommandAck{CommandAck: ack}}); err != nil {
		return err
	}
	if c.GetType() != "register_runner" {
		return nil
	}
	v.fleet.registered.Add(1)
	data := map[string]string{"runner_name": v.id, "runner_url": c.GetStringParams()["runner_url"]}
	if err := v.send(v.event("runner_registered", data)); err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.registered {
		v.registered = true
		close(v.first)
	}
	return nil
}

func (v *vm) event(kind string, data map[string]string) *commands.MIGletMessage {
	return &commands.MIGletMessage{Message: &commands.MIGletMessage_Event{Event: &commands.EventNotification{
		Type: kind, VmId: v.id, PoolId: pool, OrgId: org, Timestamp: time.Now().Unix(), Data: data,
	}}}
}

func (v *vm) isRegistered() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.registered
}

func (v *vm) send(m any) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.stream == nil {
		return errNoStream
	}
	return v.stream.SendMsg(m)
}

// beat sends the next heartbeat. It returns false if there is no open stream.
func (v *vm) beat() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.stream == nil || v.stream.SendMsg(v.beats[v.next%kinds]) != nil {
		return false
	}
	v.next++
	v.fleet.sent.Add(1)
	return true
}
