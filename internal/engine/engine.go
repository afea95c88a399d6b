// Package engine owns the application of the rules of package fleet to what is
// stored, the form of the documents, the VMs held in memory, and the feed of changes.
//
// It collects what arrives concurrently into groups; for each group it loads the
// state of the VMs concerned, reduces in memory and commits once, so that the inputs
// share the cost of a durable commit. It decides nothing itself: package fleet
// decides what an input means, and the driver how rows are kept.
package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/loglimit"
	"github.com/mig-controller/mig-controller/internal/store"
	"github.com/mig-controller/mig-controller/internal/wallclock"
)

// maxGroup is the most operations that one commit takes. It bounds how long the first
// waits for the last.
const maxGroup = 512

// Options are the parts of an Engine. Every field is required.
type Options struct {
	// Driver is closed by Close, but not when Start fails.
	Driver store.Driver
	Rules  fleet.Rules
	// Clock returns the time in UTC, without a monotonic part. It jumps only in
	// AdoptClock.
	Clock func() time.Time
	Log   *slog.Logger
}

// Engine is safe for concurrent use. Every method that changes something returns
// once the change is durable, or an error: one of the domain, or one that wraps
// fleet.ErrUnavailable, after which it is in doubt whether the change was made.
// Methods that read return errors that wrap fleet.ErrUnavailable when the driver
// fails. Either returns the error of its context if that ends first.
//
// A row that is damaged is set aside when it is met. What names its record returns
// fleet.ErrDamaged: a command for good, a VM until it reports again. Lists leave it out,
// and everything else goes on without it.
type Engine struct {
	Options
	cache    *cache
	limiter  loglimit.Limiter
	packer   *zstd.Encoder
	unpacker *zstd.Decoder
	// entries and blocks of earlier groups are used again: to allocate them for each would
	// keep the garbage collector busy. They are *entry and *block.
	entries, blocks sync.Pool
	lines           lineNotes
	feed            *feed
	ready           listeners[func(fleet.VMID, fleet.Ready)]
	notices         listeners[func(fleet.Notice)]

	purging purgeClock
	// jump is the latest step of the clock, and moving is set until all times are moved
	// with it. Both are the loop's.
	jump   wallclock.Jump
	moving *move

	ops        chan *op
	between    chan func() // for the loop, between two groups
	stopping   chan struct{}
	closeOnce  sync.Once
	closeErr   error // of the driver
	done       chan struct{}
	background sync.WaitGroup
}

// limited returns a log for one line of a kind, or one that discards it when there were
// too many.
func (e *Engine) limited(kind string) *slog.Logger {
	return e.limiter.Limited(e.Log, kind, "", e.Clock())
}

// Start returns a running Engine. It fails when the driver cannot be used, or when a later
// version of the program has written documents that this one does not know.
func Start(ctx context.Context, o Options) (*Engine, error) {
	e := &Engine{
		Options: o, cache: newCache(), ops: make(chan *op, maxGroup), between: make(chan func()),
		stopping: make(chan struct{}), done: make(chan struct{}),
		entries: sync.Pool{New: func() any { return new(entry) }}, blocks: sync.Pool{New: func() any { return new(block) }},
	}
	if err := e.openFrames(); err != nil {
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
		return nil, fmt.Errorf("read as of when was purged: %w", err)
	}
	e.feed = newFeed(e, last)
	go e.loop()
	e.background.Go(e.checkpointLoop)
	return e, nil
}

// Close commits what is under way and closes the driver. Calls after it return
// fleet.ErrUnavailable. Closing twice is not an error.
func (e *Engine) Close() error {
	e.closeOnce.Do(func() {
		close(e.stopping)
		<-e.done
		e.background.Wait()
		e.feed.close()
		e.closeErr = e.Driver.Close()
		e.cache.clear() // a closed engine answers nothing
	})
	return e.closeErr
}

// ID names the database: a cursor into one means nothing in another.
func (e *Engine) ID() string { return e.Driver.ID() }

// Check writes to the database and returns nil if that succeeds.
func (e *Engine) Check(ctx context.Context) error { return unavailable(ctx, e.Driver.Check(ctx)) }

// Listen calls fn with the changes of each commit once they are durable, in their
// order, until stop is called. fn must not block.
func (e *Engine) Listen(fn func([]fleet.Change)) (stop func()) { return e.feed.listeners.add(fn) }

// OnReady calls fn when a command of a VM can be sent on its live session, once that
// is durable, until stop is called. fn must not block.
func (e *Engine) OnReady(fn func(fleet.VMID, fleet.Ready)) (stop func()) { return e.ready.add(fn) }

// OnNotice calls fn with each notice once what it is about is durable, until stop is
// called. fn must not block.
func (e *Engine) OnNotice(fn func(fleet.Notice)) (stop func()) { return e.notices.add(fn) }

// Apply reduces an input that arrived at this time. A context that ends while the
// input waits for its turn does not stop it.
func (e *Engine) Apply(ctx context.Context, in fleet.Input, now time.Time) (fleet.Outcome, error) {
	vm, command := in.Subject()
	return e.ApplyLate(ctx, vm, command, func() (fleet.Input, time.Time) { return in, now })
}

// Accept reduces the acceptance of a new command and returns the record, as
// fleet.CommandAccepted says.
func (e *Engine) Accept(ctx context.Context, c fleet.Command) (fleet.Command, error) {
	out, err := e.apply(ctx, &op{vms: []fleet.VMID{c.VM}, commands: []fleet.CommandID{c.ID}, areNew: true},
		func() (fleet.Input, time.Time) { return fleet.CommandAccepted{New: c}, e.Clock() })
	return out.Command, err
}

// ApplyLate is Apply for an input that depends on when it is reduced: with returns it
// then, and must not block. The input is about this VM and names this command; empty
// if it names none.
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
		return err
	}
	o.committed = func(g *group) { out.Command = g.numbered(out.Command) }
	err = e.do(ctx, o)
	return out, err
}

// op is one caller's part of a group.
type op struct {
	// vms are those whose state it needs, and commands those that it names.
	vms      []fleet.VMID
	commands []fleet.CommandID
	// areNew is whether the commands are expected not to exist.
	areNew bool
	// run may run more than once: after a conflict with another writer everything is
	// loaded again. committed, if it is not nil, runs after the commit.
	run       func(*group) error
	committed func(*group)
	err       error
	done      chan struct{}
}

// errClosed occurs when an Engine is used after its Close.
var errClosed = fmt.Errorf("%w: %w", fleet.ErrUnavailable, store.ErrClosed)

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
			e.writeAllRows()
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

// unavailable turns an error of the driver into one of the domain.
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

// listeners are functions to be called until they are removed. The zero value is
// ready.
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

// each calls call with each of them.
func (l *listeners[F]) each(call func(F)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, fn := range l.fns {
		call(fn)
	}
}
