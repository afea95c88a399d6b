package rpc

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
	"github.com/mig-controller/mig-controller/internal/fleet"
)

// marker is replaced by bytes that are not UTF-8: proto.Marshal refuses those.
const marker = "@@"

func withInvalidText(tb testing.TB, m *commands.MIGletMessage) []byte {
	tb.Helper()
	b, err := proto.Marshal(m)
	require.NoError(tb, err)
	require.Contains(tb, string(b), marker)
	return bytes.ReplaceAll(b, []byte(marker), []byte{0xff, 0xfe})
}

func ackMessage(id string, success bool, message string, result map[string]string) *commands.MIGletMessage {
	return &commands.MIGletMessage{Message: &commands.MIGletMessage_CommandAck{CommandAck: &commands.CommandAck{
		CommandId: id, Success: success, Message: message, Result: result,
	}}}
}

// An ack ends its command with the ack's success even if it is large, up to maxStreamMessage,
// or has malformed texts. The stream continues, and the next command is delivered on it.
func TestAckEndsItsCommand(t *testing.T) {
	t.Parallel()
	large := strings.Repeat("é", maxAgentMessage)
	results := map[string]string{}
	for i := range 100 {
		results[fmt.Sprintf("%03d", i)] = strings.Repeat("x", 1000)
	}
	for name, test := range map[string]struct {
		message string
		result  map[string]string
		line    string
		want    func(t *testing.T, a *fleet.Ack)
	}{
		"large message": {large, map[string]string{"k": "v"}, "ack truncated", func(t *testing.T, a *fleet.Ack) {
			t.Helper()
			require.Equal(t, strings.Repeat("é", maxAckMessage/2), a.Message)
			require.Equal(t, map[string]string{"k": "v"}, a.Result)
		}},
		"large value": {"done", map[string]string{"k": "x" + large}, "ack truncated", func(t *testing.T, a *fleet.Ack) {
			t.Helper()
			require.Equal(t, "done", a.Message)
			require.Equal(t, map[string]string{"k": "x" + strings.Repeat("é", maxAckValue/2-1)}, a.Result)
		}},
		"large result": {"done", results, "ack truncated", func(t *testing.T, a *fleet.Ack) {
			t.Helper()
			require.Len(t, a.Result, maxAckResult/1003)
			require.Contains(t, a.Result, "000")
			require.Contains(t, a.Result, "031")
		}},
		"message not UTF-8": {"a" + marker, nil, "malformed ack repaired", func(t *testing.T, a *fleet.Ack) {
			t.Helper()
			require.Equal(t, "a\uFFFD", a.Message)
		}},
		"result not UTF-8": {"done", map[string]string{"k": marker, "l": "v"}, "malformed ack repaired", func(t *testing.T, a *fleet.Ack) {
			t.Helper()
			require.Equal(t, "done", a.Message)
			require.Equal(t, map[string]string{"k": "\uFFFD", "l": "v"}, a.Result)
		}},
		"large and not UTF-8": {marker + large, nil, "ack truncated", func(t *testing.T, a *fleet.Ack) {
			t.Helper()
			require.LessOrEqual(t, len(a.Message), maxAckMessage)
			require.True(t, strings.HasPrefix(a.Message, "\uFFFDé"))
		}},
	} {
		for success, state := range map[bool]fleet.CommandState{true: fleet.Succeeded, false: fleet.Failed} {
			t.Run(fmt.Sprint(name, success), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					s := startStreams(t, 0)
					r := s.openRaw()
					r.send(marshalled(t, hello("vm-1")))
					require.True(t, r.receive().GetConnectAck().GetAccepted())
					first := r.receive().GetCommand().GetId()
					s.enqueue("vm-1", "next")
					m := ackMessage(first, success, test.message, test.result)
					b, err := proto.Marshal(m)
					require.NoError(t, err)
					if strings.Contains(string(b), marker) {
						b = withInvalidText(t, m)
					}
					r.send(frame(0, b))
					require.Equal(t, "next", r.receive().GetCommand().GetId())
					c, err := s.store.Command(t.Context(), fleet.CommandID(first))
					require.NoError(t, err)
					require.Equal(t, state, c.State)
					test.want(t, c.Ack)
					lines := s.log.records(t, test.line)
					require.Len(t, lines, 1)
					require.Equal(t, "WARN", lines[0]["level"])
					require.Equal(t, "vm-1", lines[0]["vm_id"])
					require.Equal(t, first, lines[0]["command_id"])
					require.InDelta(t, len(b), lines[0]["size_bytes"], 0)
				})
			})
		}
	}
}

// Only the certain parts of a malformed ack are used.
func TestSalvagedAck(t *testing.T) {
	t.Parallel()
	ackOfBytes := func(content ...byte) []byte { return append([]byte{0x12, byte(len(content))}, content...) }
	for name, test := range map[string]struct {
		b    []byte
		want *fleet.Ack
	}{
		"success before the fault":  {ackOfBytes(0x0a, 1, 'c', 0x10, 1, 0xff), &fleet.Ack{CommandID: "c", Success: true}},
		"explicit failure":          {ackOfBytes(0x0a, 1, 'c', 0x10, 0, 0xff), &fleet.Ack{CommandID: "c"}},
		"success may have followed": {ackOfBytes(0x0a, 1, 'c', 0xff), nil},
		"no id":                     {ackOfBytes(0x10, 1, 0x1a, 1, 0xff), nil},
		"entry that is cut off": {
			ackOfBytes(0x0a, 1, 'c', 0x22, 2, 0x0a, 9, 0x22, 6, 0x0a, 1, 'k', 0x12, 1, 'v'),
			&fleet.Ack{CommandID: "c", Result: map[string]string{"k": "v"}},
		},
		"cut off":                  {[]byte{0x12, 9, 0x0a, 1, 'c', 0x10, 1}, nil},
		"another message after it": {append(ackOfBytes(0x0a, 1, 'c', 0x1a, 1, 0xff), 0x22, 0), nil},
		"not a message":            {[]byte{0xff}, nil},
		"nothing":                  {nil, nil},
		"fields of the wrong form": {ackOfBytes(0x08, 1, 0x12, 0, 0x18, 1, 0x20, 1), nil},
		"an ack, then garbage":     {append(ackOfBytes(0x0a, 1, 'c', 0x10, 1), 0xff), &fleet.Ack{CommandID: "c", Success: true}},
	} {
		got, ok := salvageAck(test.b)
		require.Equal(t, test.want != nil, ok, name)
		if ok {
			require.Equal(t, *test.want, got, name)
		}
	}
}

// For all bytes: salvaged texts are UTF-8, a decodable ack is salvaged as the generated code
// decodes it, and a truncated one is within its limits.
func FuzzSalvagedAck(f *testing.F) {
	for _, b := range seeds(f) {
		f.Add(b)
	}
	f.Add(withInvalidText(f, ackMessage("c", true, marker, map[string]string{marker: marker})))
	b, err := proto.Marshal(ackMessage("c", true, strings.Repeat("é", 5000), map[string]string{"k": strings.Repeat("é", 5000)}))
	require.NoError(f, err)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		a, ok := salvageAck(b)
		m := new(commands.MIGletMessage)
		if proto.Unmarshal(b, m) == nil {
			want := ackFromProto(m.GetCommandAck())
			require.Equal(t, want.CommandID != "", ok)
			if ok {
				require.Equal(t, want, a)
			}
		}
		size := 0
		short := truncateAck(a)
		require.Equal(t, a.CommandID, short.CommandID)
		require.Equal(t, a.Success, short.Success)
		require.LessOrEqual(t, len(short.Message), maxAckMessage)
		require.True(t, utf8.ValidString(short.Message))
		for key, value := range short.Result {
			require.True(t, utf8.ValidString(key) && utf8.ValidString(value))
			require.LessOrEqual(t, len(value), maxAckValue)
			size += len(key) + len(value)
		}
		require.LessOrEqual(t, size, maxAckResult)
	})
}
