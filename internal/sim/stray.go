package sim

import (
	"math"
	"strings"

	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
)

// stray sends a message that a healthy agent does not send.
func (s *stream) stray(message *commands.MIGletMessage) {
	if s.send(message) {
		s.agent.counters.strays.Add(1)
	}
}

// foreign is a valid heartbeat with another VM's id.
func (s *stream) foreign() *commands.MIGletMessage {
	h := s.heartbeat()
	h.VmId = s.agent.foreignID
	return wrap(h)
}

// Raw protobuf that the generated types cannot express.
var (
	unknownField = []byte{0xfa, 0x3f, 0x03, 'a', 'b', 'c'}                                        // field 1023: "abc"
	brokenField  = []byte{0x22, 0x7f, 0x01}                                                       // a heartbeat cut short
	notUTF8      = []byte{0x1a, 0x04, 0x0a, 0x02, 0xff, 0xfe}                                     // an event of type "\xff\xfe"
	endlessInt   = []byte{0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff} // an endless varint
)

// garbage is a malformed message, or something that is not a message at all. Some of it
// rightly ends the stream.
func (s *stream) garbage() *commands.MIGletMessage {
	kinds := []func() *commands.MIGletMessage{
		func() *commands.MIGletMessage { return new(commands.MIGletMessage) },
		func() *commands.MIGletMessage { return raw(unknownField) },
		func() *commands.MIGletMessage { return raw(brokenField) },
		func() *commands.MIGletMessage { return raw(notUTF8) },
		func() *commands.MIGletMessage { return raw(endlessInt) },
		s.strayAck,
		s.strayConnect,
		s.strayError,
		s.strayHeartbeat,
		func() *commands.MIGletMessage { return s.strayEvent("") },
		func() *commands.MIGletMessage { return s.strayEvent("../../etc/passwd") },
		func() *commands.MIGletMessage { return s.strayEvent(strings.Repeat("x", 64<<10)) },
	}
	return kinds[s.agent.rng.IntN(len(kinds))]()
}

func raw(wire []byte) *commands.MIGletMessage {
	m := new(commands.MIGletMessage)
	m.ProtoReflect().SetUnknown(wire)
	return m
}

// strayAck acks a command that was never sent.
func (s *stream) strayAck() *commands.MIGletMessage {
	return &commands.MIGletMessage{Message: &commands.MIGletMessage_CommandAck{
		CommandAck: &commands.CommandAck{CommandId: "no-such-command", Success: true},
	}}
}

// strayConnect sends a second ConnectRequest.
func (s *stream) strayConnect() *commands.MIGletMessage {
	return &commands.MIGletMessage{Message: &commands.MIGletMessage_Connect{
		Connect: &commands.ConnectRequest{VmId: s.agent.cfg.VMID, PoolId: s.agent.cfg.PoolID, OrgId: s.agent.cfg.OrgID},
	}}
}

func (s *stream) strayError() *commands.MIGletMessage {
	return &commands.MIGletMessage{Message: &commands.MIGletMessage_Error{
		Error: &commands.ErrorNotification{Code: "\n\t", Message: strings.Repeat("error ", 1000), Timestamp: -1},
	}}
}

// strayHeartbeat has wrong numbers and a wrong time.
func (s *stream) strayHeartbeat() *commands.MIGletMessage {
	return wrap(&commands.Heartbeat{
		Health:      &commands.VMHealth{CpuUsagePercent: -1e308, MemoryTotalBytes: math.MinInt64, DiskUsedBytes: math.MaxInt64},
		Timestamp:   math.MaxInt64,
		MigletState: "\x00",
	})
}

func (s *stream) strayEvent(kind string) *commands.MIGletMessage {
	return &commands.MIGletMessage{Message: &commands.MIGletMessage_Event{
		Event: &commands.EventNotification{Type: kind, Timestamp: math.MinInt64},
	}}
}
