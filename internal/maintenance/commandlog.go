package maintenance

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/logkey"
	"github.com/mig-controller/mig-controller/internal/loglimit"
	"github.com/mig-controller/mig-controller/internal/tracing"
)

// maxUnlogged is how many changes wait to be logged. Further ones are dropped and counted,
// so that a slow log does not delay the engine.
const maxUnlogged = 10_000

// commandLog writes a log line for each durable step of a command, in the order of the
// commits, and one for each notice. The engine calls add and note; a goroutine writes,
// because formatting lines would delay the engine.
type commandLog struct {
	log     *slog.Logger
	clock   func() time.Time
	limiter loglimit.Limiter
	dropped prometheus.Counter

	mu         sync.Mutex
	unlogged   []fleet.Change
	notices    []fleet.Notice
	suppressed int
	more       chan struct{} // capacity 1
}

func newCommandLog(log *slog.Logger, clock func() time.Time, dropped prometheus.Counter) *commandLog {
	return &commandLog{log: log, clock: clock, dropped: dropped, more: make(chan struct{}, 1)}
}

// add queues the changes of a commit. It does not block.
func (l *commandLog) add(changes []fleet.Change) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range changes {
		switch {
		case c.Step() == fleet.StepNone:
		case len(l.unlogged) == maxUnlogged:
			l.drop()
		default:
			l.unlogged = append(l.unlogged, c)
		}
	}
	l.signal()
}

// note queues a notice. It does not block.
func (l *commandLog) note(n fleet.Notice) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.notices) == maxUnlogged {
		l.drop()
	} else {
		l.notices = append(l.notices, n)
	}
	l.signal()
}

// drop counts a line that is dropped.
func (l *commandLog) drop() {
	l.suppressed++
	l.dropped.Inc()
}

func (l *commandLog) signal() {
	select {
	case l.more <- struct{}{}:
	default:
	}
}

// run writes lines until ctx is done and none are queued.
func (l *commandLog) run(ctx context.Context) {
	for {
		select {
		case <-l.more:
			l.flush()
		case <-ctx.Done():
			l.flush()
			return
		}
	}
}

// flush writes the queued lines.
func (l *commandLog) flush() {
	l.mu.Lock()
	changes, notices, suppressed := l.unlogged, l.notices, l.suppressed
	l.unlogged, l.notices, l.suppressed = nil, nil, 0
	l.mu.Unlock()
	for _, c := range changes {
		l.write(c)
	}
	for _, n := range notices {
		l.writeNotice(n)
	}
	if suppressed > 0 {
		l.log.Warn("command log lines dropped: the log is too slow", keySuppressed, suppressed)
	}
}

func (l *commandLog) write(change fleet.Change) {
	c := change.Command
	log := l.log.With(logkey.VM, c.VM, logkey.Command, c.ID, keyCommandType, c.Type)
	if id := tracing.ID(c.Trace); id != "" {
		log = log.With(logkey.Trace, id)
	}
	switch change.Step() {
	case fleet.StepAccepted:
		if change.RequestID != "" {
			log = log.With(logkey.Request, change.RequestID)
		}
		log.Info("command accepted")
	case fleet.StepDelivered:
		log.Info("command delivered", logkey.Epoch, c.Last.Epoch, keyAttempt, c.Attempts, logkey.Via, c.Last.Via)
	case fleet.StepNotWritten:
		log.Info("command pending again: its delivery was not completed")
	case fleet.StepEnded:
		writeEnd(log, c)
	case fleet.StepLateAck:
		log.Info("command acked late: it had ended before", logkey.Epoch, c.Last.Epoch, keySuccess, c.Ack.Success, keyState, c.State)
	case fleet.StepNone:
	}
}

func writeEnd(log *slog.Logger, c *fleet.Command) {
	switch {
	case c.Ack != nil && c.AckedAt.Equal(c.FinishedAt):
		log.Info("command acked", logkey.Epoch, c.Last.Epoch, keySuccess, c.Ack.Success, keyState, c.State)
	case c.State == fleet.Succeeded:
		log.Info("command proven done", keyState, c.State, logkey.Reason, c.Reason)
	case c.State == fleet.Cancelled:
		log.Info("command cancelled", keyAttempt, c.Attempts)
	case c.State == fleet.Expired:
		log.Warn("command expired", keyState, c.State, logkey.Reason, c.Reason)
	default:
		log.Warn("command timed out", keyState, c.State, keyAttempt, c.Attempts, logkey.Reason, c.Reason)
	}
}
