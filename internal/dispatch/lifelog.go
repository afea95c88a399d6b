package dispatch

import (
	"log/slog"
	"sync"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// maxUnlogged is how many changes wait to be logged. Beyond it they are left out
// and counted: a slow log must not hold up the engine.
const maxUnlogged = 10_000

// lifelog writes the log lines about the life of commands, one for each step that is
// durable, in the order of the commits, and those of notices. The engine calls add and
// note, and a goroutine writes: formatting the lines would hold up the engine.
type lifelog struct {
	log    *slog.Logger
	notice func(fleet.Notice) // writes one

	mu         sync.Mutex
	unlogged   []fleet.Change
	notices    []fleet.Notice
	suppressed int
	closed     bool
	more       chan struct{} // holds one
}

func newLifelog(log *slog.Logger, notice func(fleet.Notice)) *lifelog {
	return &lifelog{log: log, notice: notice, more: make(chan struct{}, 1)}
}

// add takes the changes of a commit. It does not block.
func (l *lifelog) add(changes []fleet.Change) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range changes {
		switch {
		case c.Step() == fleet.StepNone:
		case len(l.unlogged) == maxUnlogged:
			l.suppressed++
		default:
			l.unlogged = append(l.unlogged, c)
		}
	}
	l.signal()
}

// note takes a notice. It does not block.
func (l *lifelog) note(n fleet.Notice) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.notices) == maxUnlogged {
		l.suppressed++
	} else {
		l.notices = append(l.notices, n)
	}
	l.signal()
}

// close ends run once all is written.
func (l *lifelog) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.signal()
}

func (l *lifelog) signal() {
	select {
	case l.more <- struct{}{}:
	default:
	}
}

// run writes lines until close.
func (l *lifelog) run() {
	for range l.more {
		some, notices, suppressed, closed := l.take()
		for _, c := range some {
			l.write(c)
		}
		for _, n := range notices {
			l.notice(n)
		}
		if suppressed > 0 {
			l.log.Warn("command log lines left out: the log is too slow", keySuppressed, suppressed)
		}
		if closed {
			return
		}
	}
}

func (l *lifelog) take() (some []fleet.Change, notices []fleet.Notice, suppressed int, closed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	some, notices, suppressed = l.unlogged, l.notices, l.suppressed
	l.unlogged, l.notices, l.suppressed = nil, nil, 0
	return some, notices, suppressed, l.closed
}

func (l *lifelog) write(change fleet.Change) {
	c := change.Command
	log := l.log.With(keyVM, c.VM, keyCommand, c.ID, keyCommandType, c.Type)
	switch change.Step() {
	case fleet.StepAccepted:
		log.Info("command accepted")
	case fleet.StepDelivered:
		log.Info("command delivered", keyEpoch, c.Last.Epoch, keyAttempt, c.Attempts, keyVia, c.Last.Via)
	case fleet.StepNotWritten:
		log.Info("command pending again: its delivery was not completed")
	case fleet.StepEnded:
		writeEnd(log, c)
	case fleet.StepLateAck:
		log.Info("command acked late: it had ended before", keyEpoch, c.Last.Epoch, keySuccess, c.Ack.Success, keyState, c.State)
	case fleet.StepNone:
	}
}

func writeEnd(log *slog.Logger, c *fleet.Command) {
	switch {
	case c.Ack != nil && c.AckedAt.Equal(c.FinishedAt):
		log.Info("command acked", keyEpoch, c.Last.Epoch, keySuccess, c.Ack.Success, keyState, c.State)
	case c.State == fleet.Succeeded:
		log.Info("command proven done", keyState, c.State, keyReason, c.Reason)
	case c.State == fleet.Cancelled:
		log.Info("command cancelled", keyAttempt, c.Attempts)
	case c.State == fleet.Expired:
		log.Warn("command expired", keyState, c.State, keyReason, c.Reason)
	default:
		log.Warn("command timed out", keyState, c.State, keyAttempt, c.Attempts, keyReason, c.Reason)
	}
}
