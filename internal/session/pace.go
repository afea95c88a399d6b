package session

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/logkey"
	"github.com/mig-controller/mig-controller/internal/ratelimit"
)

const (
	// defaultReportRate is how much a VM may report, on its streams and over HTTP together, in
	// bytes per second. Agents report far less: a heartbeat every 15 s and a few events per
	// job.
	defaultReportRate = 64 << 10
	// reportBurst is how many seconds' worth a VM may report at once.
	reportBurst = 64
	// messageCost is charged for a message in addition to its size: roughly what is stored
	// with it.
	messageCost = 1 << 10
	// usualHeartbeat is the size up to which a heartbeat is not charged. Heartbeats have a few
	// hundred bytes, and take a few dozen in the store if they repeat the texts of the
	// previous one.
	usualHeartbeat = 1 << 10
)

// pace limits how much each VM reports; reconnecting does not raise the limit. It keeps no
// state of VMs that have not reported for two minutes.
type pace struct {
	mu      sync.Mutex
	buckets *ratelimit.Buckets[fleet.VMID]
	rule    string // the limits, for the log
}

// newPace returns limits of rate bytes per second, or none if rate is negative.
func newPace(rate int) pace {
	if rate < 0 {
		return pace{buckets: ratelimit.New[fleet.VMID](ratelimit.Limit{}, ratelimit.Limit{})}
	}
	return pace{
		buckets: ratelimit.New[fleet.VMID](ratelimit.Limit{}, ratelimit.NewLimit(reportBurst*rate, float64(rate))),
		rule:    fmt.Sprintf("%d bytes a second, %d at once", rate, reportBurst*rate),
	}
}

// charge counts a message that was read from a stream, even beyond the limits.
func (p *pace) charge(vm fleet.VMID, size int) ratelimit.Verdict {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.buckets.Overdraw(vm, size+messageCost, time.Now())
}

// spend counts a report that arrived over HTTP, if it is within the limits.
func (p *pace) spend(vm fleet.VMID, size int) ratelimit.Verdict {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.buckets.Spend(vm, size+messageCost, time.Now())
}

// overdrawn returns how long it takes until the VM is within its limits again; zero when it is.
func (p *pace) overdrawn(vm fleet.VMID) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.buckets.Overdrawn(vm, time.Now())
}

// admitReport charges a report that arrived over HTTP. It returns a *fleet.ThrottledError
// when the VM may not report that much now.
func (r *Registry) admitReport(vm fleet.VMID, size int) error {
	v := r.pace.spend(vm, size)
	if v.OK() {
		return nil
	}
	r.noteThrottled(vm, fleet.HTTP, v)
	return &fleet.ThrottledError{After: v.Wait}
}

func (r *Registry) noteThrottled(vm fleet.VMID, via fleet.Route, v ratelimit.Verdict) {
	if v.New {
		r.metrics.throttles.Inc()
		r.limited(r.Log, logThrottled, vm).Warn("agent throttled", logkey.VM, vm, logkey.Via, via, keyRule, r.pace.rule)
	}
}

// Charge counts a message of size bytes that was read from the stream. One ack per delivery
// is free, since operators decide how many there are.
func (s *Session) Charge(size int) {
	s.backlog.read(size)
	if s.asked {
		s.asked = false
		return
	}
	v := s.registry.pace.charge(s.vm, size)
	s.withinLimits = v.OK()
	s.registry.noteThrottled(s.vm, fleet.Stream, v)
}

// ChargeHeartbeat is Charge for a heartbeat that differs from the previous one only in
// figures and times. It is free up to usualHeartbeat.
func (s *Session) ChargeHeartbeat(size int) {
	if size > usualHeartbeat {
		s.Charge(size)
		return
	}
	s.backlog.read(size)
}

// acked records that the next message to be charged is an ack.
func (s *Session) acked() {
	if s.unacked.Load() > 0 { // only the reader decrements unacked
		s.unacked.Add(-1)
		s.asked = true
	}
}

// Overdrawn reports whether the VM has reported more than it may: then its stream must not be
// read before Wait returns true.
func (s *Session) Overdrawn() bool {
	if !s.withinLimits { // otherwise only Charge can have changed it
		s.withinLimits = s.registry.pace.overdrawn(s.vm) == 0
	}
	return !s.withinLimits
}

// Wait waits until the VM is within its limits again, or until the Registry stops, because
// messages that have arrived are then still to be read. It returns false at once when the
// stream has ended or a newer session has superseded this one: then nothing is to be read.
func (s *Session) Wait() bool {
	for {
		wait := s.registry.pace.overdrawn(s.vm)
		if wait <= 0 {
			return true
		}
		s.backlog.pause(wait)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-s.registry.stopping:
			timer.Stop()
			return true
		case <-s.superseded:
			timer.Stop()
			return false
		case <-s.stream.Done():
			timer.Stop()
			return false
		}
	}
}

// mostUnread is an upper bound of the bytes that an agent has sent and the reader has not
// read.
const mostUnread = 512 << 10

// frameSize is the size of the frame header of a message on the stream.
const frameSize = 5

// backlog estimates how long ago a message that is read now may have arrived, because its
// stream was not read for a while. Deadlines take it into account: an ack is not late because
// it waited behind other messages. The zero value is ready. One goroutine calls pause and
// read.
type backlog struct {
	bout atomic.Pointer[bout] // the latest; nil for most sessions
}

// bout is a period in which the reader of a stream pauses repeatedly.
type bout struct {
	mu    sync.Mutex
	until time.Time // when no messages are waiting any more, unless another pause follows
	bytes int       // read during the bout
	// before and mark are two moments of the bout with at least mostUnread read between them;
	// both are its start at first.
	before, mark moment
}

type moment struct {
	at    time.Time
	bytes int
}

// pause records that the stream is not read for a while, starting now.
func (b *backlog) pause(wait time.Duration) {
	now, current := time.Now(), b.bout.Load()
	if current == nil || current.lag(now) == 0 {
		current = &bout{before: moment{at: now}, mark: moment{at: now}}
		b.bout.Store(current)
	}
	current.mu.Lock()
	defer current.mu.Unlock()
	current.until = now.Add(wait + readersGrace)
}

// read records that a message was read.
func (b *backlog) read(size int) {
	current := b.bout.Load()
	if current == nil {
		return
	}
	current.mu.Lock()
	defer current.mu.Unlock()
	current.bytes += size + frameSize
	if current.bytes-current.mark.bytes >= mostUnread {
		current.before, current.mark = current.mark, moment{time.Now(), current.bytes}
	}
}

// lag returns how long before it was read the latest message may have arrived.
func (b *backlog) lag() time.Duration {
	if current := b.bout.Load(); current != nil {
		return current.lag(time.Now())
	}
	return 0
}

func (b *bout) lag(now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now.After(b.until) {
		return 0
	}
	return now.Sub(b.before.at)
}
