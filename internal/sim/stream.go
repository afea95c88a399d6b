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
	// inboxSize is specified by the contract: messages that do not fit are dropped
	// silently.
	inboxSize = 10
	// closeTimeout bounds how long a VM that shuts down waits for the controller to end the
	// stream.
	closeTimeout = 2 * time.Second
	// idleWait is how long a stream without appointments waits.
	idleWait = time.Hour
)

// stream is one StreamCommands call, or the lack of one: see offline. One goroutine reads;
// the agent's goroutine does everything else.
type stream struct {
	*boot
	agent  *Agent
	ctx    context.Context //nolint:containedctx // a stream is one call; this is the call's
	cancel context.CancelFunc
	rpc    *connect.BidiStreamForClientSimple[commands.MIGletMessage, commands.ControllerMessage]

	inbox   chan *commands.ControllerMessage // closed by the reader at the end
	readErr error                            // set before inbox is closed

	accepted bool
	broken   bool // a send failed: only the inbox is still used
	proofAt  time.Time
	tasks    agenda // tasks that end with the stream
}

// open starts a stream and its reader. The caller must close it. It does not block: if the
// controller cannot be reached, that is reported in the inbox.
func (a *Agent) open(ctx context.Context, b *boot) (*stream, error) {
	sctx, cancel := context.WithCancel(ctx)
	rpc, err := a.link.client.StreamCommands(sctx)
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

// run runs the stream and returns why it ended.
func (s *stream) run() error {
	if err := s.hello(); err != nil {
		return err
	}
	return s.live(time.Time{})
}

// live processes due tasks and the controller's messages until the stream or the process
// ends, and returns why, or until the given time if that is not zero.
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
				return s.handleKick(end)
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

func (s *stream) handleKick(end error) error {
	if errors.Is(end, errReopen) {
		s.reopens = s.agent.cfg.Quirks.ReopenBurst - 1
	}
	return end
}

// hello opens the session. During a hot reconnect half of the streams end before the
// controller can answer.
func (s *stream) hello() error {
	a := s.agent
	if a.chance(a.cfg.Quirks.HeartbeatFirst) && (a.cfg.Kind.reportsState() || s.configured) {
		s.beat()
		s.proofAt = time.Time{} // the controller skips messages before the ConnectRequest
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

// active reports whether the agent runs due tasks: an ideal one waits for an accepted
// stream.
func (s *stream) active() bool { return s.accepted || !s.agent.cfg.Kind.executes() }

// doDue runs due tasks.
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
		return s.accept(m.ConnectAck)
	case *commands.ControllerMessage_Command:
		return s.handleCommand(m.Command)
	case *commands.ControllerMessage_Error:
		s.agent.log.Debug("controller reported an error", keyError, m.Error.GetCode())
	}
	return nil
}

// accept begins the session.
func (s *stream) accept(ack *commands.ConnectAck) error {
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
	if a.cfg.Kind.executes() {
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

// plan schedules the end of the stream at a random time with mean every.
func (s *stream) plan(every time.Duration, end error) {
	if every <= 0 {
		return
	}
	s.tasks.after(s.agent.sometime(every), func(s *stream) error { return s.handleKick(end) })
}

// send reports whether the message was passed to the connection. After a failure the end of
// the stream, with its reason, is about to arrive in the inbox.
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

// close ends the stream as its reason requires and waits for its reader.
func (s *stream) close(end error) {
	a := s.agent
	switch {
	case errors.Is(end, errShutdown):
		s.closeGracefully()
	case errors.Is(end, errDrop), errors.Is(end, errRestart), errors.Is(end, errExit), errors.Is(end, ErrReplaced):
		a.link.cut()
		a.link = newLink(a.cfg, a.baseURL)
	}
	s.abort()
	for range s.inbox {
	}
	_ = s.rpc.CloseRequest()
	s.recordProof()
	if s.accepted {
		a.counters.connected.Add(-1)
	}
}

// abort resets the stream, which ends the reader. While the agent sends nothing net/http
// does not notice that the context has ended, hence CloseResponse.
func (s *stream) abort() {
	s.cancel()
	_ = s.rpc.CloseResponse()
}

// closeGracefully closes the sending side and waits for the controller to end the stream,
// at most closeTimeout.
func (s *stream) closeGracefully() {
	timer := time.AfterFunc(closeTimeout, s.abort)
	defer timer.Stop()
	_ = s.rpc.CloseRequest()
	for range s.inbox {
	}
}
