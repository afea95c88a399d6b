// Package engine owns how the rules of package fleet are applied to what is stored, the
// format of the documents, the cache of VMs, and the change feed.
//
// It collects concurrent inputs into groups; for each group it loads the state of the VMs
// concerned, reduces in memory and commits once, so that the inputs share the cost of a
// durable commit. It makes no decisions: package fleet decides what an input means, and the
// driver how rows are stored.
package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/mig-controller/mig-controller/internal/audit"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/loglimit"
	"github.com/mig-controller/mig-controller/internal/requestid"
	"github.com/mig-controller/mig-controller/internal/store"
	"github.com/mig-controller/mig-controller/internal/wallclock"
)

// maxGroup is the maximum number of operations in one commit. It bounds how long the first
// waits for the last.
const maxGroup = 512

// Options are the dependencies of an Engine. Every field but Metrics is required.
type Options struct {
	// Driver is closed by Close, but not when Start fails.
	Driver store.Driver
	Rules  fleet.Rules
	// Clock returns the time in UTC, without a monotonic part. It jumps only in
	// AdoptClock.
	Clock func() time.Time
	Log   *slog.Logger
	// Metrics registers the metrics; nil registers none.
	Metrics prometheus.Registerer
}

// Engine is safe for concurrent use. Every method that changes something returns when the
// change is durable, or with an error: one of the domain, or one that wraps
// fleet.ErrUnavailable, after which the change may or may not have been made. Methods
// that read return errors that wrap fleet.ErrUnavailable when the driver fails. All return
// the error of their context if that ends first.
//
// A damaged row is set aside when it is found. Requests that name its record get
// fleet.ErrDamaged: for a command permanently, for a VM until it reports again. Lists skip
// it, and everything else continues without it.
type Engine struct {
	Options
	cache    *cache
	metrics  metrics
	limiter  loglimit.Limiter
	packer   *zstd.Encoder
	unpacker *zstd.Decoder
	// entries and blocks are *entry and *block of finished groups, for reuse: allocating them
	// for each group would keep the garbage collector busy.
	entries, blocks sync.Pool
	damageLogged    damagedRows
	tokens          tokenVersions
	feed            *feed
	ready           listeners[func(fleet.VMID, fleet.Ready)]
	notices         listeners[func(fleet.Notice)]

	purging purgeClock
	// jump is the latest clock step; shifting is set until all times are shifted by it. Both
	// belong to the loop.
	jump     wallclock.Jump
	shifting *clockShift

	ops        chan *op
	between    chan func() // called by the loop between two groups
	stopping   chan struct{}
	closeOnce  sync.Once
	closeErr   error // of the driver
	done       chan struct{}
	background sync.WaitGroup
}

// limited returns a logger for one message of a kind, or one that discards it if there were
// too many.
func (e *Engine) limited(kind string) *slog.Logger {
	return e.limiter.Limited(e.Log, kind, "", e.Clock())
}

// Start returns a running Engine. It fails when the driver fails, or when a later version
// of the program has written documents that this one does not know.
func Start(ctx context.Context, o Options) (*Engine, error) {
	e := &Engine{
		Options: o, cache: newCache(), ops: make(chan *op, maxGroup), between: make(chan func()),
		stopping: make(chan struct{}), done: make(chan struct{}),
		entries: sync.Pool{New: func() any { return new(entry) }}, blocks: sync.Pool{New: func() any { return new(block) }},
	}
	if err := e.openCodecs(); err != nil {
		return nil, err
	}
	if err := e.checkEncoding(ctx); err != nil {
		return nil, fmt.Errorf("check the version of the documents: %w", err)
	}
	last, err := o.Driver.LastChange(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the log of changes: %w", err)
	}
	if err := e.openPurgeClock(ctx); err != nil {
		return nil, fmt.Errorf("read the purge clock: %w", err)
	}
	e.feed = newFeed(e, last)
	e.metrics = newMetrics(o.Metrics, e)
	go e.loop()
	e.background.Go(e.flushLoop)
	return e, nil
}

// Close commits the queued operations and closes the driver. Calls after it return
// fleet.ErrUnavailable. Closing twice is not an error.
func (e *Engine) Close() error {
	e.closeOnce.Do(func() {
		close(e.stopping)
		<-e.done
		e.background.Wait()
		e.feed.close()
		e.closeErr = e.Driver.Close()
		e.cache.clear() // a closed engine returns no data
	})
	return e.closeErr
}

// ID identifies the database: a cursor is valid only in the database that it comes from.
func (e *Engine) ID() string { return e.Driver.ID() }

// Check writes to the database and returns nil if that succeeds.
func (e *Engine) Check(ctx context.Context) error { return unavailable(ctx, e.Driver.Check(ctx)) }

// Listen calls fn with the changes of each commit once they are durable, in order, until
// stop is called. fn must not block.
func (e *Engine) Listen(fn func([]fleet.Change)) (stop func()) { return e.feed.listeners.add(fn) }

// OnReady registers fn, which is called when a command of a VM can be sent on its live
// session, once that is durable, until stop is called. fn must not block.
func (e *Engine) OnReady(fn func(fleet.VMID, fleet.Ready)) (stop func()) { return e.ready.add(fn) }

// OnNotice registers fn, which is called with each notice once its subject is durable,
// until stop is called. fn must not block.
func (e *Engine) OnNotice(fn func(fleet.Notice)) (stop func()) { return e.notices.add(fn) }

// Apply reduces an input that arrived at this time. An input that is already queued is
// reduced even if its context ends. If it changes something, the audit event of ctx, if there
// is one, is committed with the change; that holds for Accept and ApplyLate too.
func (e *Engine) Apply(ctx context.Context, in fleet.Input, now time.Time) (fleet.Outcome, error) {
	vm, command := in.Subject()
	return e.ApplyLate(ctx, vm, command, func() (fleet.Input, time.Time) { return in, now })
}

// Accept reduces the acceptance of a new command and returns the record, as
// fleet.CommandAccepted specifies.
func (e *Engine) Accept(ctx context.Context, c fleet.Command) (fleet.Command, error) {
	return e.AcceptWithin(ctx, c, nil)
}

// AcceptWithin is Accept for a caller who is limited to the pools that in returns true for, as
// fleet.Limited specifies; nil means all VMs.
func (e *Engine) AcceptWithin(ctx context.Context, c fleet.Command, in func(pool string) bool) (fleet.Command, error) {
	out, err := e.apply(ctx, &op{vms: []fleet.VMID{c.VM}, commands: []fleet.CommandID{c.ID}, areNew: true},
		func() (fleet.Input, time.Time) {
			return fleet.Limit(fleet.CommandAccepted{New: c, RequestID: requestid.Of(ctx)}, in), e.Clock()
		})
	return out.Command, err
}

// ApplyLate is Apply for an input that depends on the time at which it is reduced: with
// returns it then, and must not block. The input is about this VM and names this command;
// empty if it names none.
func (e *Engine) ApplyLate(
	ctx context.Context, vm fleet.VMID, command fleet.CommandID, with func() (fleet.Input, time.Time),
) (fleet.Outcome, error) {
	o := &op{vms: []fleet.VMID{vm}}
	if command != "" {
		o.commands = []fleet.CommandID{command}
	}
	return e.apply(ctx, o, with)
}

func (e *Engine) apply(ctx context.Context, o *op, with func() (fleet.Input, time.Time)) (out fleet.Outcome, err error) {
	o.run = func(g *group) (err error) {
		in, now := with()
		out, err = g.reduce(o.vms[0], in, now)
		if err == nil && len(out.Changes) > 0 {
			g.record(audit.From(ctx), o.vms[0], out.Command.ID, out.Command.Type)
		}
		return err
	}
	o.committed = func(g *group) { out.Command = g.numbered(out.Command) }
	err = e.do(ctx, o)
	if err == nil && len(out.Changes) == 0 {
		audit.From(ctx).MarkRepeated()
	}
	audit.From(ctx).Announce()
	return out, err
}

// op is one caller's part of a group.
type op struct {
	// vms are the VMs whose state it needs, and commands the commands that it names.
	vms      []fleet.VMID
	commands []fleet.CommandID
	// areNew is whether the commands are expected not to exist.
	areNew bool
	// run may run more than once: after a conflict with another writer everything is loaded
	// again. committed, if not nil, runs after the commit.
	run       func(*group) error
	committed func(*group)
	err       error
	done      chan struct{}
}

// errClosed occurs when an Engine is used after Close.
var errClosed = fmt.Errorf("%w: %w", fleet.ErrUnavailable, store.ErrClosed)

// do queues an operation and waits until it is committed or has failed.
func (e *Engine) do(ctx context.Context, o *op) error {
	o.done = make(chan struct{})
	select {
	case <-e.stopping:
		return errClosed
	default:
	}
	select {
	case e.ops <- o:
	case <-e.stopping:
		return errClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-o.done:
		return o.err
	case <-e.done:
		select {
		case <-o.done:
			return o.err
		default:
			return errClosed
		}
	}
}

func (e *Engine) loop() {
	defer close(e.done)
	for {
		select {
		case o := <-e.ops:
			e.runGroup(e.gather(o))
		case fn := <-e.between:
			fn()
		case <-e.stopping:
			for len(e.ops) > 0 {
				e.runGroup(e.gather(<-e.ops))
			}
			e.flushAllRows()
			return
		}
	}
}

func (e *Engine) gather(first *op) []*op {
	group := []*op{first}
	for len(group) < maxGroup {
		select {
		case o := <-e.ops:
			group = append(group, o)
		default:
			return group
		}
	}
	return group
}

// unavailable converts an error of the driver into one of the domain.
func unavailable(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, store.ErrPurged):
		return fleet.ErrCursorExpired
	case errors.Is(err, store.ErrRemoved):
		return fmt.Errorf("%w: %w", fleet.ErrDatabaseRemoved, err)
	default:
		return fmt.Errorf("%w: %w", fleet.ErrUnavailable, err)
	}
}

// listeners are functions that are called until they are removed. The zero value is ready
// to use.
type listeners[F any] struct {
	mu     sync.Mutex
	fns    map[int]F
	nextID int
}

func (l *listeners[F]) add(fn F) (remove func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fns == nil {
		l.fns = map[int]F{}
	}
	id := l.nextID
	l.nextID++
	l.fns[id] = fn
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.fns, id)
	}
}

// each calls call with each listener.
func (l *listeners[F]) each(call func(F)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, fn := range l.fns {
		call(fn)
	}
}
