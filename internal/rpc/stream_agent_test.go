package rpc

import (
	"context"
	"log/slog"
	"math"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands/commandsconnect"
	"github.com/mig-controller/mig-controller/internal/engine"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/maintenance"
	"github.com/mig-controller/mig-controller/internal/registration"
	"github.com/mig-controller/mig-controller/internal/session"
	"github.com/mig-controller/mig-controller/internal/store"
	"github.com/mig-controller/mig-controller/internal/store/sqlite"
)

// agentWindow is the flow-control window of an agent.
const agentWindow = 64 << 10

const streamPath = commandsconnect.CommandServiceStreamCommandsProcedure

var streamDefaults = fleet.CommandDefaults{TTL: time.Hour, AckTimeout: time.Minute}

// streamSystem is a controller that serves streams over HTTP/2 in memory, so that it can run
// on the fake clock of a bubble.
type streamSystem struct {
	*testing.T
	store    *streamStore
	registry *session.Registry
	http     *http.Client
	log      *callLog
	metrics  *prometheus.Registry
}

// streamStore is a real engine that can be made to fail.
type streamStore struct {
	*engine.Engine
	mu   sync.Mutex
	hook func() error // called before sessions are opened and events stored
}

func (s *streamStore) on(hook func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hook = hook
}

func (s *streamStore) before() error {
	s.mu.Lock()
	hook := s.hook
	s.mu.Unlock()
	if hook == nil {
		return nil
	}
	return hook()
}

// ApplyLate opens sessions.
func (s *streamStore) ApplyLate(
	ctx context.Context, vm fleet.VMID, id fleet.CommandID, with func() (fleet.Input, time.Time),
) (fleet.Outcome, error) {
	if err := s.before(); err != nil {
		return fleet.Outcome{}, err
	}
	return s.Engine.ApplyLate(ctx, vm, id, with)
}

// Apply applies everything else.
func (s *streamStore) Apply(ctx context.Context, in fleet.Input, now time.Time) (fleet.Outcome, error) {
	if _, ok := in.(fleet.EventReceived); ok {
		if err := s.before(); err != nil {
			return fleet.Outcome{}, err
		}
	}
	return s.Engine.Apply(ctx, in, now)
}

func startStreams(t *testing.T, hold time.Duration) *streamSystem {
	t.Helper()
	s := &streamSystem{T: t, log: &callLog{}, metrics: prometheus.NewRegistry()}
	db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "controller.db"), slog.New(slog.DiscardHandler), nil)
	require.NoError(t, err)
	s.store = &streamStore{Engine: startEngine(t, db, streamDefaults, s.log.logger())}
	s.registry = startRegistry(t, s.store, hold, s.log.logger(), s.metrics)
	upkeep := maintenance.Start(maintenance.Options{
		Engine: s.store, Sessions: s.registry, Clock: adminNow, Log: s.log.logger(),
	})

	c := config(&fakeAgents{})
	c.Requests = NewRequests(s.metrics)
	c.Commands = NewStreamService(s.registry, "1.2.3", s.log.logger())
	c.Options = []connect.HandlerOption{connect.WithInterceptors(NewErrorInterceptor(s.log.logger(), c.Requests))}
	pipes := newPipeListener()
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{
		Handler: WithTimeouts(NewHandler(c), CallTimeout), Protocols: &protocols,
		ErrorLog: slog.NewLogLogger(s.log.logger().Handler(), slog.LevelError),
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(pipes) })
	transport := &http.Transport{
		Protocols: &protocols, DialContext: pipes.dial,
		HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: agentWindow},
	}
	s.http = &http.Client{Transport: transport}
	t.Cleanup(func() {
		s.registry.Close()
		upkeep.Stop()
		transport.CloseIdleConnections()
		_ = server.Close()
		serving.Wait()
		require.NotContains(t, s.logged(), "SECRET-TOKEN")
		require.NotContains(t, s.logged(), "panic serving")
	})
	return s
}

// logged returns the whole log.
func (s *streamSystem) logged() string {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	return s.log.buf.String()
}

func startRegistry(tb testing.TB, e session.Engine, hold time.Duration, log *slog.Logger, metrics prometheus.Registerer) *session.Registry {
	tb.Helper()
	registrar, err := registration.New(registration.Options{
		Source: registration.StaticToken("SECRET-TOKEN", adminNow), Labels: []string{"a", "b"},
	})
	require.NoError(tb, err)
	d, err := session.Start(tb.Context(), session.Options{
		Engine: e, Registrar: registrar, Clock: adminNow, Log: log, HoldTime: hold, Metrics: metrics,
	})
	require.NoError(tb, err)
	tb.Cleanup(d.Close)
	return d
}

// pipeListener accepts connections in memory.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *pipeListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

// streamClient is an agent's end of a stream.
type streamClient struct {
	*streamSystem
	rpc   *connect.BidiStreamForClientSimple[commands.MIGletMessage, commands.ControllerMessage]
	reset func() // resets the stream
}

// open opens a stream without sending anything.
func (s *streamSystem) open(options ...connect.ClientOption) *streamClient {
	s.Helper()
	if options == nil {
		options = []connect.ClientOption{connect.WithGRPC()}
	}
	client := commandsconnect.NewCommandServiceClient(s.http, "http://controller", options...)
	ctx, leave := context.WithCancel(s.Context())
	rpc, err := client.StreamCommands(ctx)
	require.NoError(s, err)
	a := &streamClient{s, rpc, func() {
		leave()
		_ = rpc.CloseResponse() // first: the end of the request would be sent before the reset
		_ = rpc.CloseRequest()
	}}
	s.Cleanup(a.reset)
	return a
}

// connect opens a stream and its session.
func (s *streamSystem) connect(vm string) *streamClient {
	s.Helper()
	a := s.open()
	a.send(hello(vm))
	require.True(s, a.receive().GetConnectAck().GetAccepted())
	return a
}

func (a *streamClient) send(m *commands.MIGletMessage) {
	a.Helper()
	require.NoError(a, a.rpc.Send(m))
}

func (a *streamClient) receive() *commands.ControllerMessage {
	a.Helper()
	m, err := a.rpc.Receive()
	require.NoError(a, err)
	return m
}

// end returns why the stream ended, having waited for it.
func (a *streamClient) end() error {
	for {
		if _, err := a.rpc.Receive(); err != nil {
			return err
		}
	}
}

func hello(vm string) *commands.MIGletMessage {
	return &commands.MIGletMessage{Message: &commands.MIGletMessage_Connect{Connect: &commands.ConnectRequest{
		VmId: vm, PoolId: "pool", OrgId: "org", Version: "0.9",
	}}}
}

func ackOf(id string) *commands.MIGletMessage {
	return &commands.MIGletMessage{Message: &commands.MIGletMessage_CommandAck{CommandAck: &commands.CommandAck{
		CommandId: id, Success: true, Message: "done", Result: map[string]string{"k": "v"},
	}}}
}

func eventMessage(kind string) *commands.MIGletMessage {
	return &commands.MIGletMessage{Message: &commands.MIGletMessage_Event{Event: &commands.EventNotification{
		Type: kind, VmId: "vm-1", Data: map[string]string{"a": "b"}, Timestamp: 1_700_000_000,
	}}}
}

func beatMessage(status string) *commands.MIGletMessage {
	return &commands.MIGletMessage{Message: &commands.MIGletMessage_Heartbeat{Heartbeat: &commands.Heartbeat{
		MigletState: status, Health: &commands.VMHealth{CpuUsagePercent: math.NaN(), MemoryTotalBytes: 7},
		RunnerState: &commands.RunnerState{State: "idle", RunnerName: "r"},
	}}}
}

func (s *streamSystem) vm(id fleet.VMID) fleet.VM {
	s.Helper()
	v, err := s.store.VM(s.Context(), id)
	require.NoError(s, err)
	return v
}

func (s *streamSystem) events(vm fleet.VMID) []fleet.Event {
	s.Helper()
	es, _, err := s.store.Events(s.Context(), store.EventQuery{VM: string(vm)}, 100)
	require.NoError(s, err)
	return es
}
