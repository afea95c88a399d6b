package sim

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
)

var (
	// ErrRefused is returned by Agent.Run after a ConnectAck whose accepted is false.
	ErrRefused = errors.New("sim: the controller refused the VM")
	// ErrReplaced is returned by Agent.Run when the VM was spent for Timing.ReplaceAfter
	// and then deleted.
	ErrReplaced = errors.New("sim: the spent VM was deleted")
)

// The reasons why an agent itself ends a stream or its process.
var (
	errDrop     = errors.New("the network dropped")
	errRestart  = errors.New("the agent restarted")
	errReopen   = errors.New("the agent reopened its stream")
	errShutdown = errors.New("the VM was shut down")
	errExit     = errors.New("the agent exited")
)

// The log attributes.
const (
	keyVM      = "vm_id"
	keyCommand = "command_id"
	keyType    = "command_type"
	keyAgain   = "seen_before"
	keyState   = "miglet_state"
	keyError   = "error"
)

// Agent simulates the MIGlet of one VM.
type Agent struct {
	cfg       Config
	baseURL   string
	log       *slog.Logger
	counters  *counters
	rng       *rand.Rand
	kicks     chan error
	state     atomic.Pointer[string]
	foreignID string // the id used by Quirks.ForeignIDs
	contested bool   // another agent has the same vm_id
	warned    bool   // warned about a missing registration
	// registrations counts registrations that began; restarted reports whether
	// Quirks.RestartRegistered has happened. Both outlive boots.
	registrations int
	restarted     bool
	bootedAt      time.Time // when the process of this boot began

	link *link
	http *http.Client // for requests outside the stream
}

// NewAgent returns an agent that does nothing until Run. It returns a
// *ConfigError.
func NewAgent(cfg Config) (*Agent, error) {
	return newAgent(cfg, new(counters))
}

func newAgent(cfg Config, c *counters) (*Agent, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	baseURL, err := parseEndpoint(cfg.Controller)
	if err != nil {
		return nil, err
	}
	log := cfg.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	a := &Agent{
		cfg:       cfg,
		baseURL:   baseURL,
		log:       log.With(keyVM, cfg.VMID),
		counters:  c,
		rng:       rand.New(rand.NewPCG(cfg.Seed, 0)),
		kicks:     make(chan error, 1),
		foreignID: cfg.VMID + "-foreign",
		http:      newHTTPClient(cfg),
	}
	state := stateInitializing
	a.state.Store(&state)
	return a, nil
}

// VMID returns the id of the agent's VM.
func (a *Agent) VMID() string { return a.cfg.VMID }

// State returns the agent's miglet_state.
func (a *Agent) State() string { return *a.state.Load() }

// Snapshot returns the counts so far; for an agent of a Fleet, those of the whole fleet.
func (a *Agent) Snapshot() Snapshot { return a.counters.snapshot() }

// Drop cuts the agent's TCP connection as a failing network does. Like Restart and Reopen
// it returns immediately, does nothing while an earlier call is pending, and is safe for
// concurrent use.
func (a *Agent) Drop() { a.kick(errDrop) }

// Restart crashes the agent: it loses its connection and all state. A VM that is off is
// switched on.
func (a *Agent) Restart() { a.kick(errRestart) }

// Reopen closes the stream and opens another one immediately, Quirks.ReopenBurst times, on
// the same TCP connection.
func (a *Agent) Reopen() { a.kick(errReopen) }

func (a *Agent) kick(end error) {
	select {
	case a.kicks <- end:
	default:
	}
}

// Run runs the agent until ctx ends, then returns nil; it returns ErrRefused if the
// controller refuses the VM, and ErrReplaced if the VM is deleted. The stream is closed and
// all goroutines of the agent have ended when it returns. It may be called once.
func (a *Agent) Run(ctx context.Context) error {
	// Agents set no deadline. A deadline of ctx would be sent to the controller as the
	// stream's timeout.
	caller := ctx
	ctx, stop := context.WithCancel(context.WithoutCancel(caller))
	defer stop()
	defer context.AfterFunc(caller, stop)()
	for {
		end := a.boot(ctx)
		var off time.Duration
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(end, ErrRefused), errors.Is(end, ErrReplaced):
			return end
		case errors.Is(end, errShutdown):
			off = a.cfg.Timing.PowerOn
		default:
			off = a.cfg.Timing.Restart
		}
		if err := a.pause(ctx, off); err != nil && !errors.Is(err, errRestart) {
			return nil
		}
	}
}

// boot runs the agent's process from its start to its end and returns why it ended.
func (a *Agent) boot(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	b := &boot{outbox: outbox{ctx: ctx, agent: a}}
	a.link, a.bootedAt = newLink(a.cfg, a.baseURL), time.Now()
	defer a.endBoot(b, stop)
	a.setState(b, stateInitializing)
	if !a.cfg.Kind.streams() {
		return a.liveOverHTTP(ctx, b)
	}
	a.offline(ctx, b).start()
	for {
		end := a.converse(ctx, b)
		switch {
		case ctx.Err() != nil, endsBoot(end):
			return end
		case errors.Is(end, errReopen):
			continue
		}
		if err := a.awaitReconnect(ctx, b); err != nil {
			return err
		}
	}
}

// endsBoot reports whether the process has ended, and not only the stream.
func endsBoot(end error) bool {
	return errors.Is(end, ErrRefused) || errors.Is(end, ErrReplaced) ||
		errors.Is(end, errRestart) || errors.Is(end, errExit) || errors.Is(end, errShutdown)
}

// endBoot cleans up after the process.
func (a *Agent) endBoot(b *boot, stop context.CancelFunc) {
	stop()
	b.outbox.wait()
	if b.configured {
		a.counters.registered.Add(-1)
	}
	if b.spent {
		a.counters.spent.Add(-1)
	}
	a.link.cut()
}

// awaitReconnect runs without a stream until it is time for the next one.
func (a *Agent) awaitReconnect(ctx context.Context, b *boot) error {
	end := a.offline(ctx, b).live(time.Now().Add(a.reconnectWait()))
	if errors.Is(end, errRestart) || errors.Is(end, errExit) {
		a.counters.restarts.Add(1)
	}
	return end
}

// reconnectWait returns Backoff, or at least RetryWait while the controller cannot be
// reached.
func (a *Agent) reconnectWait() time.Duration {
	if a.link.refused.Load() {
		return max(a.cfg.Timing.Backoff, a.cfg.Timing.RetryWait)
	}
	return a.cfg.Timing.Backoff
}

// pause waits. It returns errRestart if the agent is restarted meanwhile and
// ctx's error if that ends.
func (a *Agent) pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			return nil
		case end := <-a.kicks:
			if errors.Is(end, errRestart) {
				a.counters.restarts.Add(1)
				return errRestart
			}
		}
	}
}

// converse runs one stream and returns why it ended.
func (a *Agent) converse(ctx context.Context, b *boot) error {
	s, err := a.open(ctx, b)
	if err != nil {
		return err
	}
	end := s.run()
	s.close(end)
	if ctx.Err() == nil {
		a.count(end)
		a.log.Debug("stream ended", keyError, end)
	}
	if hook := a.cfg.Hooks.OnDisconnect; hook != nil {
		hook(a.cfg.VMID, end)
	}
	return end
}

func (a *Agent) count(end error) {
	c := a.counters
	switch {
	case errors.Is(end, ErrRefused):
		c.refused.Add(1)
		a.log.Warn("controller refused the VM: giving up")
	case errors.Is(end, ErrReplaced): // the fleet counts it
	case errors.Is(end, errDrop):
		c.drops.Add(1)
	case errors.Is(end, errRestart), errors.Is(end, errExit):
		c.restarts.Add(1)
	case errors.Is(end, errReopen):
		c.reopens.Add(1)
	case errors.Is(end, errShutdown):
		c.shutdowns.Add(1)
	case a.link.refused.Load():
		c.errors.add("dial")
	case errors.Is(end, io.EOF):
		c.errors.add("ended")
	case connect.IsWireError(end):
		c.errors.add(connect.CodeOf(end).String())
	default:
		c.errors.add("connection")
	}
}

func (a *Agent) setState(b *boot, state string) {
	b.state = state
	a.state.Store(&state)
	a.log.Debug("state changed", keyState, state)
	if hook := a.cfg.Hooks.OnState; hook != nil {
		hook(a.cfg.VMID, state)
	}
}

// chance returns true for the given share of calls.
func (a *Agent) chance(share float64) bool {
	return share > 0 && a.rng.Float64() < share
}

// around returns d ± half.
func (a *Agent) around(d time.Duration) time.Duration {
	return d/2 + time.Duration(a.rng.Float64()*float64(d))
}

// sometime returns a random wait with mean d.
func (a *Agent) sometime(d time.Duration) time.Duration {
	return time.Duration(min(a.rng.ExpFloat64(), 10) * float64(d))
}
