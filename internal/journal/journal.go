// Package journal owns the JSON files of the fleet, one directory a VM, for
// people with ls and jq:
//
//	<dir>/<vm_id>/grpc-event-<type>-<time>.json     an event off the stream
//	<dir>/<vm_id>/grpc-heartbeat-<time>.json        a heartbeat off the stream
//	<dir>/<vm_id>/event-<type>-<time>.json          an event over HTTP
//	<dir>/<vm_id>/heartbeat-<time>.json             a heartbeat over HTTP
//
// The time is when the report was received, in UTC and to the nanosecond, as in
// 20260102T150405.123456789Z: names of one kind sort by time, and a name stands
// for one report. A file that has its name is complete and never changes again.
//
// The store is the truth, the journal a copy to read. Events get their files, as often
// as the caller has to try, within a budget that no agent of the field exhausts;
// heartbeats get theirs within a smaller one. Neither does while too little space is
// free. Names that begin with "_" in the same directory belong to others.
package journal

import (
	"fmt"
	"log/slog"
	"math"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/ratelimit"
)

// The defaults of Options, and what its numbers may be.
const (
	defaultBurst     = 20
	defaultPerSecond = 0.1
	defaultQueueSize = 1024
	maxBurst         = 1_000_000
	minPerSecond     = 0.001
	maxPerSecond     = 1_000_000
	maxQueueSize     = 1_000_000
)

// What all VMs together may have written: their files are to be looked at by
// people, and must not cost more than all else.
const (
	fleetBurst     = 1000
	fleetPerSecond = 50
)

// What a VM may have written of events: files, and bytes of them.
const (
	eventBurst          = 1000
	eventsPerSecond     = 1
	eventByteBurst      = 32 << 20
	eventBytesPerSecond = 64 << 10
)

const (
	dirMode  = 0o750
	fileMode = 0o640
)

// Options is what a Journal is opened with.
type Options struct {
	// Dir is the directory that the VMs' directories are in. It is made if it is
	// not there.
	Dir string
	// HeartbeatBurst is how many heartbeat files a VM may have written at once.
	// Zero is 20; below zero, no heartbeat gets a file.
	HeartbeatBurst int
	// HeartbeatsPerSecond is how many heartbeat files a VM may have written in
	// the long run. Zero is 0.1.
	HeartbeatsPerSecond float64
	// Retention is how long Prune keeps a file. Zero is forever.
	Retention time.Duration
	// QueueSize is how many heartbeat files may wait to be written, in memory.
	// Zero is 1024.
	QueueSize int
	// MinFree is how many bytes of the file system must be free: with less, no files are
	// written. Zero is no limit, and AutoMinFree depends on the file system.
	MinFree int64
	// FreeSpace measures the file system that Dir is on. Nil is what the system says; it
	// has an error where that is not known, and then files are written.
	FreeSpace func() (Space, error)
	// Clock returns the time, in UTC. Nil is the system's.
	Clock func() time.Time
	// Log gets lines about heartbeat files that could not be written, at most once a
	// minute, VMs over their budget of event files, and pauses. Nil is nobody.
	Log *slog.Logger
}

// Stats counts what became of reports since the Journal was opened.
type Stats struct {
	// Events and Heartbeats are the files written. An event whose file was there
	// already is not counted.
	Events, Heartbeats uint64
	// OverBudget is the heartbeats without a file because their VM, or all
	// VMs together, had used up their budget.
	OverBudget uint64
	// EventsOverBudget is the events without a file because their VM had used up its
	// budget.
	EventsOverBudget uint64
	// Paused is the heartbeats without a file because the Journal was paused.
	Paused uint64
	// QueueFull is the heartbeats without a file because too many were waiting,
	// or because the Journal was closed.
	QueueFull uint64
	// Failed is how many times a file could not be written. An event that is
	// tried again may fail again.
	Failed uint64
	// Unwritten is the events that a CatchUp gave up: those it skipped, and those that were
	// removed from the store while the Journal was paused.
	Unwritten uint64
	// Queued is how many heartbeat files wait to be written now.
	Queued int
}

// Journal writes the files. All its methods may be called at the same time. One
// process at a time may have a directory open as a Journal.
type Journal struct {
	root      *os.Root
	retention time.Duration
	clock     func() time.Time
	trouble   trouble
	drafts    atomic.Uint64 // numbers the temporary files

	// writing is held by the one call that writes events.
	writing sync.Mutex
	// dirs is held for reading while files are made and for writing while an
	// empty directory is removed, so that none is removed under a new file.
	dirs sync.RWMutex
	// checking is held by the one call that uses the check's file.
	checking sync.Mutex

	space space

	mu          sync.Mutex // guards what follows
	budget      budget
	eventBudget eventBudget
	queued      int // also the one that is being written
	closed      bool

	queue    chan page
	enough   chan struct{} // holds one: what is queued waits for no others
	written  chan struct{} // closed when the writer is done
	closing  sync.Once
	closeErr error

	events, heartbeats, overBudget, eventsOverBudget, paused, queueFull, failed, unwritten atomic.Uint64
}

// Open makes the directory, if need be, and starts the goroutine that writes
// heartbeat files; Close ends it. It returns a *fleet.FieldError for an option
// that breaks its rule.
func Open(o Options) (*Journal, error) {
	o = o.withDefaults()
	if err := o.check(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Dir, dirMode); err != nil {
		return nil, fmt.Errorf("make the journal's directory: %w", err)
	}
	root, err := os.OpenRoot(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("open the journal's directory: %w", err)
	}
	j := &Journal{
		root: root, retention: o.Retention, clock: o.Clock,
		trouble: trouble{log: o.Log},
		space:   space{min: o.MinFree, measure: o.FreeSpace, log: o.Log},
		budget: newBudget(
			ratelimit.NewLimit(o.HeartbeatBurst, o.HeartbeatsPerSecond), rate.NewLimiter(fleetPerSecond, fleetBurst)),
		eventBudget: newEventBudget(),
		queue:       make(chan page, o.QueueSize),
		enough:      make(chan struct{}, 1),
		written:     make(chan struct{}),
	}
	go j.writeHeartbeats()
	return j, nil
}

func (o Options) withDefaults() Options {
	if o.HeartbeatBurst == 0 {
		o.HeartbeatBurst = defaultBurst
	}
	if o.HeartbeatsPerSecond == 0 {
		o.HeartbeatsPerSecond = defaultPerSecond
	}
	if o.QueueSize == 0 {
		o.QueueSize = defaultQueueSize
	}
	if o.FreeSpace == nil {
		o.FreeSpace = func() (Space, error) { return measureSpace(o.Dir) }
	}
	if o.Clock == nil {
		o.Clock = func() time.Time { return time.Now().UTC().Round(0) }
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

func (o Options) check() error {
	switch rate := o.HeartbeatsPerSecond; {
	case o.Dir == "":
		return fleet.Invalid("Dir", "must be a directory")
	case o.HeartbeatBurst > maxBurst:
		return fleet.Invalid("HeartbeatBurst", "must be at most %d", maxBurst)
	case math.IsNaN(rate) || rate < minPerSecond || rate > maxPerSecond:
		return fleet.Invalid("HeartbeatsPerSecond", "must be between %g and %d", minPerSecond, maxPerSecond)
	case o.QueueSize < 0 || o.QueueSize > maxQueueSize:
		return fleet.Invalid("QueueSize", "must be between 0 and %d", maxQueueSize)
	case o.MinFree < AutoMinFree:
		return fleet.Invalid("MinFree", "must be AutoMinFree, or not negative")
	case o.Retention < 0:
		return fleet.Invalid("Retention", "must not be negative")
	}
	return nil
}

// Stats returns the counts so far.
func (j *Journal) Stats() Stats {
	j.mu.Lock()
	queued := j.queued
	j.mu.Unlock()
	return Stats{
		Events: j.events.Load(), Heartbeats: j.heartbeats.Load(),
		OverBudget: j.overBudget.Load(), EventsOverBudget: j.eventsOverBudget.Load(),
		Paused: j.paused.Load(), QueueFull: j.queueFull.Load(),
		Failed: j.failed.Load(), Unwritten: j.unwritten.Load(), Queued: queued,
	}
}

// Close writes the heartbeat files that wait, lets a WriteEvents that is under
// way finish, and closes the directory. Calls after it find the Journal closed:
// WriteEvents, Check and Prune return an error that wraps os.ErrClosed, and
// heartbeats are counted as dropped.
func (j *Journal) Close() error {
	j.closing.Do(func() {
		j.mu.Lock()
		j.closed = true
		j.mu.Unlock()
		close(j.queue) // nothing is queued any more
		j.hurry()
		<-j.written
		j.writing.Lock()
		defer j.writing.Unlock()
		j.closeErr = j.root.Close()
	})
	return j.closeErr
}
