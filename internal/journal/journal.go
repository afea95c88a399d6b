// Package journal owns the JSON files of the fleet, one directory per VM, for people with
// ls and jq:
//
//	<dir>/<vm_id>/grpc-event-<type>-<time>.json     an event off the stream
//	<dir>/<vm_id>/grpc-heartbeat-<time>.json        a heartbeat off the stream
//	<dir>/<vm_id>/event-<type>-<time>.json          an event over HTTP
//	<dir>/<vm_id>/heartbeat-<time>.json             a heartbeat over HTTP
//
// The time is when the report was received, in UTC and to the nanosecond, as in
// 20260102T150405.123456789Z: names of one kind sort by time, and each name belongs to one
// report. A file with its final name is complete and never changes.
//
// The store is the source of truth, the journal a readable copy. Every event gets a file,
// retried until it succeeds, within a budget that no agent in the field exhausts;
// heartbeats get files within a smaller one. No files are written while too little space is
// free. In <dir>, names beginning with "_" do not belong to the journal, except the file
// _check, which exists only during a Check.
package journal

import (
	"fmt"
	"log/slog"
	"math"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"github.com/mig-controller/mig-controller/internal/diskspace"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/loglimit"
	"github.com/mig-controller/mig-controller/internal/ratelimit"
)

// The defaults of Options and the limits of its numbers.
const (
	defaultBurst     = 20
	defaultPerSecond = 0.1
	defaultQueueSize = 1024
	maxBurst         = 1_000_000
	minPerSecond     = 0.001
	maxPerSecond     = 1_000_000
	maxQueueSize     = 1_000_000
)

// The limits for the heartbeat files of all VMs together: these files are for people to
// look at, and must not cost more than everything else.
const (
	fleetBurst     = 1000
	fleetPerSecond = 50
)

// The limits for the event files of a VM: number and bytes.
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

// Options are the settings of a Journal.
type Options struct {
	// Dir is the directory that contains the VMs' directories. It is created if it does not
	// exist.
	Dir string
	// HeartbeatBurst is how many heartbeat files of a VM may be written at once. Zero means
	// 20; negative means no heartbeat files.
	HeartbeatBurst int
	// HeartbeatsPerSecond is how many heartbeat files of a VM may be written in the long
	// run. Zero means 0.1.
	HeartbeatsPerSecond float64
	// Retention is how long Prune keeps a file. Zero means forever.
	Retention time.Duration
	// QueueSize is how many heartbeat files may wait to be written, in memory. Zero means
	// 1024.
	QueueSize int
	// MinFree is how many bytes of the file system must be free for files to be written.
	// Zero means no limit; AutoMinFree depends on the size of the file system.
	MinFree int64
	// FreeSpace measures the file system of Dir. Nil means the operating system's figures;
	// if these are not available, files are written.
	FreeSpace func() (diskspace.Space, error)
	// Metrics registers the metrics; nil registers none.
	Metrics prometheus.Registerer
	// Log gets messages about heartbeat files that could not be written, VMs over their budget
	// of event files, and pauses. Nil discards them.
	Log *slog.Logger
}

// Journal writes the files. It is safe for concurrent use. Only one process at a time may
// have a directory open as a Journal.
type Journal struct {
	root      *os.Root
	retention time.Duration
	log       *slog.Logger
	limiter   loglimit.Limiter
	drafts    atomic.Uint64 // numbers the temporary files

	// writing is held by the call that writes events.
	writing sync.Mutex
	// dirs is held for reading while files are created and for writing while an empty
	// directory is removed, so that no directory is removed beneath a new file.
	dirs sync.RWMutex
	// checking is held by the Check that uses the file checkName.
	checking sync.Mutex

	space space

	mu          sync.Mutex // guards the fields below
	budget      budget
	eventBudget eventBudget
	queued      int // including the one being written
	closed      bool

	queue    chan heartbeatFile
	flushNow chan struct{} // capacity 1: gather must not wait any longer
	written  chan struct{} // closed when the writer is done
	closing  sync.Once
	closeErr error

	metrics metrics
}

// Open creates the directory if necessary, and starts the goroutine that writes heartbeat
// files; Close ends it. It returns a *fleet.FieldError for an invalid option.
func Open(o Options) (*Journal, error) {
	o = o.withDefaults()
	if err := o.check(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Dir, dirMode); err != nil {
		return nil, fmt.Errorf("create the journal's directory: %w", err)
	}
	root, err := os.OpenRoot(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("open the journal's directory: %w", err)
	}
	j := &Journal{
		root: root, retention: o.Retention,
		log:   o.Log,
		space: space{min: o.MinFree, measure: o.FreeSpace, log: o.Log},
		budget: newBudget(
			ratelimit.NewLimit(o.HeartbeatBurst, o.HeartbeatsPerSecond), rate.NewLimiter(fleetPerSecond, fleetBurst)),
		eventBudget: newEventBudget(),
		queue:       make(chan heartbeatFile, o.QueueSize),
		flushNow:    make(chan struct{}, 1),
		written:     make(chan struct{}),
	}
	j.metrics = newMetrics(o.Metrics, j)
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
		o.FreeSpace = func() (diskspace.Space, error) { return diskspace.Measure(o.Dir) }
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

// Close writes the queued heartbeat files, waits for a WriteEvents in progress, and closes
// the directory. After Close, WriteEvents, Check and Prune return an error that wraps
// os.ErrClosed, and heartbeats are counted as dropped.
func (j *Journal) Close() error {
	j.closing.Do(func() {
		j.mu.Lock()
		j.closed = true
		j.mu.Unlock()
		close(j.queue) // nothing more is queued
		j.flush()
		<-j.written
		j.writing.Lock()
		defer j.writing.Unlock()
		j.closeErr = j.root.Close()
	})
	return j.closeErr
}
