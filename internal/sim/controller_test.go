package sim_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands/commandsconnect"
	"github.com/mig-controller/mig-controller/internal/sim"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for an expected event.
const patience = 30 * time.Second

// controller is the other end of the stream, operated by the test.
type controller struct {
	URL      string
	sessions chan *session
	posts    chan map[string]any // bodies of events over HTTP
	beats    chan map[string]any // bodies of heartbeats over HTTP
	answers  chan string         // to events; empty: acknowledged
}

// session is one stream as seen by the controller.
type session struct {
	remote  string
	headers http.Header
	in      chan *commands.MIGletMessage // closed when the agent has disconnected
	out     chan *commands.ControllerMessage
	end     chan error
	over    <-chan struct{} // closed when the stream has ended
}

func startController(t *testing.T) *controller {
	t.Helper()
	c, handler := newController()
	server := httptest.NewUnstartedServer(handler)
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetHTTP1(true)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	t.Cleanup(server.Close)
	c.URL = server.URL
	return c
}

func newController() (*controller, http.Handler) {
	c := &controller{
		sessions: make(chan *session, 100),
		posts:    make(chan map[string]any, 100),
		beats:    make(chan map[string]any, 100),
		answers:  make(chan string, 100),
	}
	mux := http.NewServeMux()
	mux.Handle(commandsconnect.NewCommandServiceHandler(c))
	mux.HandleFunc("POST /api/v1/vms/{vm_id}/events", func(w http.ResponseWriter, r *http.Request) {
		answer := `{"acknowledged":true}`
		select {
		case answer = <-c.answers:
		default:
		}
		takePost(w, r, c.posts, answer)
	})
	mux.HandleFunc("POST /api/v1/vms/{vm_id}/heartbeat", func(w http.ResponseWriter, r *http.Request) {
		takePost(w, r, c.beats, `{"status":"received"}`)
	})
	return c, mux
}

func takePost(w http.ResponseWriter, r *http.Request, to chan<- map[string]any, answer string) {
	var body map[string]any
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	body["path_vm_id"] = r.PathValue("vm_id")
	to <- body
	_, _ = fmt.Fprint(w, answer)
}

func (c *controller) StreamCommands(
	ctx context.Context,
	stream *connect.BidiStream[commands.MIGletMessage, commands.ControllerMessage],
) error {
	s := &session{
		remote:  stream.Peer().Addr,
		headers: stream.RequestHeader(),
		in:      make(chan *commands.MIGletMessage, 1000),
		out:     make(chan *commands.ControllerMessage),
		end:     make(chan error),
		over:    ctx.Done(),
	}
	go func() {
		defer close(s.in)
		for {
			message, err := stream.Receive()
			if err != nil {
				return
			}
			s.in <- message
		}
	}()
	c.sessions <- s
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case message := <-s.out:
			if err := stream.Send(message); err != nil {
				return err
			}
		case err := <-s.end:
			return err
		}
	}
}

// next returns the next stream after its ConnectRequest.
func (c *controller) next(t *testing.T) (*session, *commands.ConnectRequest) {
	t.Helper()
	s := within(t, c.sessions, "a stream")
	return s, expect(t, s, (*commands.MIGletMessage).GetConnect)
}

// accept returns the next stream after its ConnectAck.
func (c *controller) accept(t *testing.T) *session {
	t.Helper()
	s, _ := c.next(t)
	s.connectAck(t, true)
	return s
}

// acceptAll answers every stream until stop is closed.
func (c *controller) acceptAll(stop <-chan struct{}) {
	ack := &commands.ControllerMessage{Message: &commands.ControllerMessage_ConnectAck{
		ConnectAck: &commands.ConnectAck{Accepted: true},
	}}
	for {
		select {
		case <-stop:
			return
		case s := <-c.sessions:
			select {
			case <-stop:
				return
			case s.out <- ack:
			case <-s.over:
			}
		}
	}
}

func (s *session) connectAck(t *testing.T, accepted bool) {
	t.Helper()
	s.send(t, &commands.ControllerMessage{Message: &commands.ControllerMessage_ConnectAck{
		ConnectAck: &commands.ConnectAck{Accepted: accepted},
	}})
}

func (s *session) command(t *testing.T, id, kind string) {
	t.Helper()
	c := &commands.Command{Id: id, Type: kind}
	if kind == "register_runner" {
		c.StringParams = map[string]string{"registration_token": secret, "runner_url": "https://github.example/org"}
		c.StringArrayParams = []string{"linux", "x64"}
	}
	s.send(t, &commands.ControllerMessage{Message: &commands.ControllerMessage_Command{Command: c}})
}

// secret is a registration token, which must never be logged.
const secret = "SECRET-REGISTRATION-TOKEN"

func (s *session) send(t *testing.T, message *commands.ControllerMessage) {
	t.Helper()
	select {
	case s.out <- message:
	case <-time.After(patience):
		require.FailNow(t, "the stream is gone")
	}
}

// close ends the stream with err.
func (s *session) close(t *testing.T, err error) {
	t.Helper()
	select {
	case s.end <- err:
	case <-time.After(patience):
		require.FailNow(t, "the stream is gone")
	}
}

// expect skips messages until pick returns a value.
func expect[T any](t *testing.T, s *session, pick func(*commands.MIGletMessage) *T) *T {
	t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case message, ok := <-s.in:
			require.True(t, ok, "the agent ended the stream")
			if found := pick(message); found != nil {
				return found
			}
		case <-deadline:
			require.FailNowf(t, "nothing arrived", "%T", *new(T))
		}
	}
}

func (s *session) ack(t *testing.T) *commands.CommandAck {
	t.Helper()
	return expect(t, s, (*commands.MIGletMessage).GetCommandAck)
}

func (s *session) event(t *testing.T, kind string) *commands.EventNotification {
	t.Helper()
	return expect(t, s, func(m *commands.MIGletMessage) *commands.EventNotification {
		if m.GetEvent().GetType() == kind {
			return m.GetEvent()
		}
		return nil
	})
}

func (s *session) heartbeat(t *testing.T, state string) *commands.Heartbeat {
	t.Helper()
	return expect(t, s, func(m *commands.MIGletMessage) *commands.Heartbeat {
		if m.GetHeartbeat().GetMigletState() == state {
			return m.GetHeartbeat()
		}
		return nil
	})
}

// gone waits until the agent has ended the stream.
func (s *session) gone(t *testing.T) {
	t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case _, ok := <-s.in:
			if !ok {
				return
			}
		case <-deadline:
			require.FailNow(t, "the stream is still open")
		}
	}
}

// registerRunner takes the session through the registration.
func (s *session) registerRunner(t *testing.T, id string) {
	t.Helper()
	s.command(t, id, "register_runner")
	s.event(t, "runner_registered")
	s.heartbeat(t, "idle")
}

func within[T any](t *testing.T, from <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		require.FailNow(t, "nothing arrived", what)
		panic("unreachable")
	}
}

// quick is an ideal agent without waits, quirks and jobs.
func quick(c *controller) sim.Config {
	cfg := sim.DefaultConfig()
	cfg.Controller = c.URL
	cfg.VMID, cfg.PoolID, cfg.OrgID, cfg.Kind = "vm-1", "pool-1", "org-1", sim.Ideal
	cfg.Timing = sim.Timing{Heartbeat: time.Hour}
	return cfg
}

// start runs an agent until the test is over. The channel gets what Run
// returned.
func start(t *testing.T, cfg sim.Config) (*sim.Agent, <-chan error) {
	t.Helper()
	agent, err := sim.NewAgent(cfg)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	result, done := make(chan error, 1), make(chan struct{})
	go func() { defer close(done); result <- agent.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return agent, result
}

// refusingAddr is an address where nothing listens.
func refusingAddr(t *testing.T) string {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, listener.Close())
	return listener.Addr().String()
}
