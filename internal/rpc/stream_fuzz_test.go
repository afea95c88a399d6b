package rpc

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
	"github.com/mig-controller/mig-controller/internal/engine"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/session"
	"github.com/mig-controller/mig-controller/internal/wallclock"
)

// strictEngine stores nothing and records invalid input: a report of another VM than the
// session's, or one that could not be stored.
type strictEngine struct {
	session.Engine
	mu       sync.Mutex
	sessions map[fleet.Epoch]fleet.VMID
	epoch    fleet.Epoch
	open     int
	faults   []string
}

func (s *strictEngine) check(o fleet.Origin, report any, check error, body []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := json.Marshal(report)
	switch {
	case check != nil || err != nil:
		s.faults = append(s.faults, fmt.Sprint(check, err))
	case o.Via != fleet.Stream || s.sessions[o.Epoch] != o.VM || o.ReceivedAt.IsZero():
		s.faults = append(s.faults, fmt.Sprintf("not of its session: %+v", o))
	case len(body) > 0 && (!json.Valid(body) || body[0] != '{'):
		s.faults = append(s.faults, "no JSON object: "+string(body))
	}
}

// takeFaults returns the faults since the last call, and how many sessions are open.
func (s *strictEngine) takeFaults() (faults []string, open int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	faults, s.faults = s.faults, nil
	return faults, s.open
}

// ApplyLate opens sessions.
func (s *strictEngine) ApplyLate(
	_ context.Context, _ fleet.VMID, _ fleet.CommandID, with func() (fleet.Input, time.Time),
) (fleet.Outcome, error) {
	in, _ := with()
	s.mu.Lock()
	defer s.mu.Unlock()
	opened, ok := in.(fleet.SessionOpened)
	if !ok {
		s.faults = append(s.faults, fmt.Sprintf("unexpected: %+v", in))
		return fleet.Outcome{}, nil
	}
	if err := opened.Hello.Check(); err != nil {
		s.faults = append(s.faults, err.Error())
	}
	s.epoch++
	s.open++
	if s.sessions == nil || s.open == 1 {
		s.sessions = map[fleet.Epoch]fleet.VMID{}
	}
	vm := opened.Hello.VM
	s.sessions[s.epoch] = vm
	return fleet.Outcome{State: fleet.State{VM: fleet.VM{ID: vm, Epoch: s.epoch}}}, nil
}

// Apply checks reports and the ends of sessions.
func (s *strictEngine) Apply(_ context.Context, in fleet.Input, at time.Time) (fleet.Outcome, error) {
	switch in := in.(type) {
	case fleet.SessionClosed:
		s.mu.Lock()
		defer s.mu.Unlock()
		s.open--
	case fleet.AckReceived:
		s.check(fleet.Origin{VM: in.VM, Via: fleet.Stream, Epoch: in.Epoch, ReceivedAt: at}, in.Ack,
			fleet.CheckID("command_id", string(in.Ack.CommandID)), nil)
		if !in.Ack.Success {
			return fleet.Outcome{}, fleet.ErrNotFound
		}
	case fleet.EventReceived:
		s.check(in.Event.Origin, in.Event, in.Event.Check(), in.Event.Body)
	default:
		s.mu.Lock()
		defer s.mu.Unlock()
		s.faults = append(s.faults, fmt.Sprintf("unexpected: %+v", in))
	}
	return fleet.Outcome{}, nil
}

func (s *strictEngine) RecordHeartbeats(_ context.Context, hs []fleet.Heartbeat) error {
	for _, h := range hs {
		_, err := json.Marshal(h)
		if check := h.Check(); check != nil || err != nil {
			s.mu.Lock()
			s.faults = append(s.faults, fmt.Sprint(check, err))
			s.mu.Unlock()
		}
	}
	return nil
}

// State returns the newest session of the VM, and no commands.
func (s *strictEngine) State(_ context.Context, vm fleet.VMID) (fleet.State, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	state := fleet.State{VM: fleet.VM{ID: vm}}
	for epoch, of := range s.sessions {
		if of == vm {
			state.VM.Epoch = max(state.VM.Epoch, epoch)
		}
	}
	return state, nil
}

func (*strictEngine) ResetSessions(context.Context, time.Time) (int, error) { return 0, nil }

func (*strictEngine) Tick(context.Context, time.Time, func(fleet.VMID) fleet.Live, int) (int, bool, error) {
	return 0, false, nil
}

func (*strictEngine) Purge(context.Context, engine.Retention, time.Time) (int, error) { return 0, nil }

func (*strictEngine) PurgeTime(_ context.Context, now time.Time) (time.Time, error) { return now, nil }

func (*strictEngine) AdoptClock(context.Context, func() wallclock.Jump) (wallclock.Jump, error) {
	return wallclock.Jump{}, nil
}

func (*strictEngine) MoveDeadlines(context.Context) error { return nil }

func (*strictEngine) Listen(func([]fleet.Change)) (stop func()) { return func() {} }

func (*strictEngine) OnNotice(func(fleet.Notice)) (stop func())           { return func() {} }
func (*strictEngine) OnReady(func(fleet.VMID, fleet.Ready)) (stop func()) { return func() {} }

func (*strictEngine) UnjournaledEvents(context.Context, int) ([]fleet.Event, error) { return nil, nil }

// seeds returns messages of every kind, valid and unusual ones.
func seeds(tb testing.TB) [][]byte {
	tb.Helper()
	odd := beatMessage("idle")
	odd.GetHeartbeat().Health = &commands.VMHealth{CpuUsagePercent: math.Inf(1), DiskUsedBytes: math.MinInt64}
	odd.GetHeartbeat().CurrentJob = &commands.JobInfo{StartedAt: math.MaxInt64}
	lie := eventMessage("error")
	lie.GetEvent().VmId = "vm-2"
	all := [][]byte{
		nil,
		{0xff},
		{0x1a, 0x7f, 0x0a},
		{0x1a, 3, 0x0a, 1, 0xff},
		{0x22, 3, 0x0a, 1, 0xff},
		{0x12, 6, 0x0a, 1, 'c', 0x1a, 1, 0xff},
	}
	for _, m := range []*commands.MIGletMessage{
		hello("vm-1"), hello("../vm"), ackOf("c"), ackOf(""), eventMessage("error"), eventMessage("no type"), lie,
		beatMessage("idle"), beatMessage("in between"), odd,
		{},
		{Message: &commands.MIGletMessage_Error{
			Error: &commands.ErrorNotification{Code: "c", Message: "m", Details: map[string]string{"a": "\u0000"}},
		}},
	} {
		b, err := proto.Marshal(m)
		require.NoError(tb, err)
		all = append(all, b)
	}
	return all
}

// silent is a transport that sends nothing.
type silent struct{}

func (silent) Accept() error                             { return nil }
func (silent) Deliver(fleet.Command, fleet.Params) error { return nil }
func (silent) Peer() string                              { return "" }
func (silent) Interrupt()                                {}
func (silent) Abort()                                    {}

// Whatever message an agent sends, its session continues, and what reaches the store is valid
// and belongs to the session's VM.
func FuzzStreamMessage(f *testing.F) {
	for _, b := range seeds(f) {
		f.Add(b)
	}
	s := &strictEngine{}
	d := startRegistry(f, s, time.Nanosecond, slog.New(slog.DiscardHandler), nil)
	session, err := d.Open(context.Background(), fleet.Hello{VM: "vm-1"}, silent{})
	require.NoError(f, err)
	f.Cleanup(func() { session.Close(nil) })
	r := &messageReader{session: session}
	f.Fuzz(func(t *testing.T, b []byte) {
		received := &agentMessage{}
		require.NoError(t, agentCodec{}.Unmarshal(b, received))
		require.NoError(t, r.apply(received))
		require.NoError(t, session.Cause())
		if m := new(commands.MIGletMessage); proto.Unmarshal(b, m) == nil { // also heartbeats, which agentCodec does not decode
			_, err := json.Marshal(heartbeatFromProto(m.GetHeartbeat()))
			require.NoError(t, err)
			file, err := messageJSON(m)
			require.NoError(t, err)
			requireSameMessage(t, m, file)
		}
		faults, open := s.takeFaults()
		require.Empty(t, faults)
		require.Equal(t, 1, open)
	})
}

// requireSameMessage requires that ProtoJSON decodes the JSON to the message.
func requireSameMessage(t *testing.T, m *commands.MIGletMessage, file []byte) {
	t.Helper()
	var compact bytes.Buffer
	require.NoError(t, json.Compact(&compact, file))
	require.Equal(t, compact.String(), string(file))
	read := &commands.MIGletMessage{}
	require.NoError(t, protojson.Unmarshal(file, read))
	m.ProtoReflect().SetUnknown(nil)
	want, err := protojson.Marshal(m)
	require.NoError(t, err)
	got, err := protojson.Marshal(read)
	require.NoError(t, err)
	require.JSONEq(t, string(want), string(got))
}

// streamTypes are the content types of streams.
var streamTypes = []string{
	"application/grpc", "application/grpc+json", "application/grpc-web+proto",
	"application/connect+proto", "application/connect+json",
}

// Whatever bytes an agent sends, its stream and its session end without a fault, and what
// reaches the store is valid.
func FuzzStreamDecoder(f *testing.F) {
	var whole []byte
	for _, b := range seeds(f) {
		f.Add(byte(0), frame(0, b))
		if whole != nil {
			f.Add(byte(2), append(bytes.Clone(whole), frame(0, b)...))
		}
		whole = append(whole, frame(0, b)...)
	}
	f.Add(byte(0), whole)
	f.Add(byte(3), whole)
	f.Add(byte(1), frame(0, []byte(`{"connect":{"vmId":"vm-1"}}`)))
	f.Add(byte(4), append(frame(0, []byte(`{"connect":{"vm_id":"vm-1"}}`)), frame(2, []byte(`{}`))...))
	f.Add(byte(0), append(frame(0, seeds(f)[0]), 0, 0xff, 0xff, 0xff, 0xff))
	var bomb bytes.Buffer
	w := gzip.NewWriter(&bomb)
	_, err := w.Write(make([]byte, 1<<20))
	require.NoError(f, err)
	require.NoError(f, w.Close())
	f.Add(byte(0), append(frame(0, seeds(f)[0]), frame(1, bomb.Bytes())...))

	s := &strictEngine{}
	c := config(&fakeAgents{})
	c.Commands = NewStreamService(
		startRegistry(f, s, time.Nanosecond, slog.New(slog.DiscardHandler), nil), "fuzz", slog.New(slog.DiscardHandler))
	handler := WithTimeouts(NewHandler(c), CallTimeout)
	f.Fuzz(func(t *testing.T, kind byte, body []byte) {
		recorder := httptest.NewRecorder()
		req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, streamPath, bytes.NewReader(body))
		req.Proto, req.ProtoMajor, req.ProtoMinor = "HTTP/2.0", 2, 0
		req.Header = http.Header{
			"Content-Type": {streamTypes[int(kind)%len(streamTypes)]}, "Te": {"trailers"},
			"Grpc-Encoding": {"gzip"}, "Connect-Content-Encoding": {"gzip"},
		}
		handler.ServeHTTP(recorder, req)
		answer := recorder.Result()
		defer answer.Body.Close()
		sent, err := io.ReadAll(answer.Body)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, answer.StatusCode)
		require.NotContains(t, string(sent)+fmt.Sprint(answer.Trailer), errInternal.Error())
		faults, open := s.takeFaults()
		require.Empty(t, faults)
		require.Zero(t, open)
	})
}
