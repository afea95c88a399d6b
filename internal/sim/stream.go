package sim

import (
	"context"
	"errors"
	"io"
	"time"

	"connectrpc.com/connect"

	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
)

const (
	// inboxSize is the contract's: what does not fit is dropped in silence.
	inboxSize = 10
	// farewell bounds how long a VM that shuts down waits for the controller
	// to end the stream.
	farewell = 2 * time.Second
	// idleWait is how long a stream without appointments sleeps.
	idleWait = time.Hour
)

// stream is one StreamCommands call, or the lack of one: see offline. One
// goroutine reads, the agent's own does everything else.
type stream struct {
	*boot
	agent  *Agent
	ctx    context.Context //nolint:containedctx // a stream is one call; this is the call's
	cancel context.CancelFunc
	rpc    *connect.BidiStreamForClientSimple[commands.MIGletMessage, commands.ControllerMessage]

	inbox   chan *commands.ControllerMessage // closed by the reader at the end
	readErr error                            // set before inbox is closed

	accepted bool
	broken   bool // a send did not work: only what is in the inbox matters now
	proofAt  time.Time
	tasks    agenda // what dies with the stream
}

// open starts a stream and its reader. The caller must close it. It waits for
// nothing: a controller that cannot be reached shows in the inbox.
func (a *Agent) open(ctx context.Context, b *boot) (*stream, error) {
	sctx, cancel := context.WithCancel(ctx)
	rpc, err := a.line.client.StreamCommands(sctx)
	if err != nil {
		cancel()
		return nil, err
	}
	s := &stream{
		boot:   b,
		agent:  a,
		ctx:    sctx,
		cancel: cancel,
		rpc:    rpc,
		inbox:  make(chan *commands.ControllerMessage, inboxSize),
	}
	go s.read()
	return s, nil
}

// read fills the inbox until the stream ends.
func (s *stream) read() {
	defer close(s.inbox)
	for {
		message, err := s.rpc.Receive()
		if err != nil {
			s.readErr = err
			return
		}
		select {
		case s.inbox <- message:
		default:
			s.agent.counters.overflows.Add(1)
		}
	}
}

// run lives on the stream and returns why it ended.
func (s *stream) run() error {
	if err := s.hello(); err != nil {
		return err
	}
	return s.live(time.Time{})
}

// live does what is due and what the controller asks for, until the stream or
// the process ends, which it returns, or until a time that is not zero.
func (s *stream) live(until time.Time) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if err := s.doDue(); err != nil {
			return err
		}
		next := s.untilNext()
		if !until.IsZero() {
			left := time.Until(until)
			if left <= 0 {
				return s.ctx.Err()
			}
			next = min(next, left)
		}
		timer.Reset(next)
		select {
		case <-s.ctx.Done():
			return s.ctx.Err()
		case end := <-s.agent.kicks:
			if s.rpc != nil || errors.Is(end, errRestart) {
				return s.obeyKick(end)
			}
		case <-timer.C:
		case message, ok := <-s.inbox:
			if !ok {
				return s.readErr
			}
			if err := s.receive(message); err != nil {
				return err
			}
		}
	}
}

func (s *stream) obeyKick(end error) error {
	if errors.Is(end, errReopen) {
		s.reopens = s.agent.cfg.Quirks.ReopenBurst - 1
	}
	return end
}

// hello opens the session. During a hot reconnect half of the streams end
// before the controller could answer.
func (s *stream) hello() error {
	a := s.agent
	if a.chance(a.cfg.Quirks.HeartbeatFirst) && (a.cfg.Kind.namesState() || s.configured) {
		s.beat()
		s.proofAt = time.Time{} // the controller skips what comes before the ConnectRequest
	}
	s.send(&commands.MIGletMessage{Message: &commands.MIGletMessage_Connect{Connect: &commands.ConnectRequest{
		VmId:    a.cfg.VMID,
		PoolId:  a.cfg.PoolID,
		OrgId:   a.cfg.OrgID,
		Version: a.version(),
	}}})
	if s.reopens > 0 && a.chance(0.5) {
		s.reopens--
		return errReopen
	}
	return nil
}

func (s *stream) untilNext() time.Duration {
	if !s.active() {
		return idleWait
	}
	return wait(time.Now(), idleWait, &s.tasks, &s.agenda)
}

// active reports whether the agent does what is due: an ideal one waits for an
// accepted stream.
func (s *stream) active() bool { return s.accepted || !s.agent.cfg.Kind.obeys() }

// doDue does what is due.
func (s *stream) doDue() error {
	for s.active() {
		now := time.Now()
		do := s.tasks.due(now)
		if do == nil {
			do = s.agenda.due(now)
		}
		if do == nil {
			return nil
		}
		if err := do(s); err != nil {
			return err
		}
	}
	return nil
}

func (s *stream) receive(message *commands.ControllerMessage) error {
	switch m := message.GetMessage().(type) {
	case *commands.ControllerMessage_ConnectAck:
		return s.welcome(m.ConnectAck)
	case *commands.ControllerMessage_Command:
		return s.take(m.Command)
	case *commands.ControllerMessage_Error:
		s.agent.log.Debug("controller reported an error", keyError, m.Error.GetCode())
	}
	return nil
}

// welcome begins the session.
func (s *stream) welcome(ack *commands.ConnectAck) error {
	if !ack.GetAccepted() {
		return ErrRefused
	}
	if s.accepted {
		return nil
	}
	a := s.agent
	s.accepted = true
	a.counters.connects.Add(1)
	a.counters.connected.Add(1)
	if hook := a.cfg.Hooks.OnConnect; hook != nil {
		hook(a.cfg.VMID)
	}
	if s.reopens > 0 {
		s.reopens--
		return errReopen
	}
	if a.cfg.Kind.obeys() {
		if s.state == stateConnecting {
			a.setState(s.boot, stateReady)
		}
		s.beat()
		s.tasks.after(a.phase(), (*stream).beatAgain)
	}
	s.plan(a.cfg.Quirks.DropEvery, errDrop)
	s.plan(a.cfg.Quirks.RestartEvery, errRestart)
	s.plan(a.cfg.Quirks.ReopenEvery, errReopen)
	return nil
}

// plan ends the stream with end at a random moment whose mean is every.
func (s *stream) plan(every time.Duration, end error) {
	if every <= 0 {
		return
	}
	s.tasks.after(s.agent.sometime(every), func(s *stream) error { return s.obeyKick(end) })
}

// send reports whether the message was handed to the connection. After a
// failure the stream's end, with its reason, is on its way to the inbox.
func (s *stream) send(message *commands.MIGletMessage) bool {
	if s.broken {
		return false
	}
	err := s.rpc.Send(message)
	if err == nil {
		return true
	}
	s.broken = true
	if !errors.Is(err, io.EOF) && s.ctx.Err() == nil {
		s.agent.counters.errors.add("send")
		s.abort()
	}
	return false
}

// close ends the stream in the manner of its reason and waits for its reader.
func (s *stream) close(end error) {
	a := s.agent
	switch {
	case errors.Is(end, errShutdown):
		s.sayGoodbye()
	case errors.Is(end, errDrop), errors.Is(end, errRestart), errors.Is(end, errExit), errors.Is(end, ErrReplaced):
		a.line.cut()
		a.line = newLine(a.cfg, a.baseURL)
	}
	s.abort()
	for range s.inbox {
	}
	_ = s.rpc.CloseRequest()
	s.settleProof()
	if s.accepted {
		a.counters.connected.Add(-1)
	}
}

// abort resets the stream, which ends the reader. While the agent sends nothing
// net/http does not notice that the context is over, hence CloseResponse.
func (s *stream) abort() {
	s.cancel()
	_ = s.rpc.CloseResponse()
}

// sayGoodbye closes the sending side and waits for the controller to end the
// stream, no longer than farewell.
func (s *stream) sayGoodbye() {
	timer := time.AfterFunc(farewell, s.abort)
	defer timer.Stop()
	_ = s.rpc.CloseRequest()
	for range s.inbox {
	}
}
