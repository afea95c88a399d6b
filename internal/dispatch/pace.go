package dispatch

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/ratelimit"
)

const (
	// defaultReportRate is how much a VM may report, on its streams and over HTTP together,
	// in bytes a second. An agent sends a heartbeat each 15 s and a few events for each job:
	// it does not come near.
	defaultReportRate = 64 << 10
	// reportBurst is how many seconds' worth of it a VM may report at once.
	reportBurst = 64
	// messageCost is what a message counts besides its size: about what is stored with it.
	messageCost = 1 << 10
	// usualHeartbeat is how large a heartbeat may be that does not count. An agent's has
	// some hundred bytes, and is stored with others in a few dozen if it repeats the texts
	// of the one before.
	usualHeartbeat = 1 << 10
)

// pace limits what VMs report. It goes by VM: who connects again has no more. It holds
// nothing of VMs that have been quiet for two minutes.
type pace struct {
	mu      sync.Mutex
	buckets *ratelimit.Buckets[fleet.VMID]
	rule    string // as the log names it
}

// newPace returns limits of so many bytes a second; below zero, there are none.
func newPace(rate int) pace {
	if rate < 0 {
		return pace{buckets: ratelimit.New[fleet.VMID](ratelimit.Limit{}, ratelimit.Limit{})}
	}
	return pace{
		buckets: ratelimit.New[fleet.VMID](ratelimit.Limit{}, ratelimit.NewLimit(reportBurst*rate, float64(rate))),
		rule:    fmt.Sprintf("%d bytes a second, %d at once", rate, reportBurst*rate),
	}
}

// charge counts a message that was read from a stream.
func (p *pace) charge(vm fleet.VMID, size int) ratelimit.Verdict {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.buckets.Overdraw(vm, size+messageCost, time.Now())
}

// spend counts a report that came over HTTP, if it is within the limits.
func (p *pace) spend(vm fleet.VMID, size int) ratelimit.Verdict {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.buckets.Spend(vm, size+messageCost, time.Now())
}

// overdrawn returns how long it takes until the VM is within its limits; zero when it is.
func (p *pace) overdrawn(vm fleet.VMID) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.buckets.Overdrawn(vm, time.Now())
}

// admitReport returns a *fleet.ThrottledError when the VM may not report so much now.
func (d *Dispatcher) admitReport(vm fleet.VMID, size int) error {
	v := d.pace.spend(vm, size)
	if v.OK() {
		return nil
	}
	d.noteThrottled(vm, fleet.HTTP, v)
	return &fleet.ThrottledError{After: v.Wait}
}

func (d *Dispatcher) noteThrottled(vm fleet.VMID, via fleet.Route, v ratelimit.Verdict) {
	if v.New {
		d.counters.throttled.Add(1)
		d.limited(d.Log, troubleThrottled, vm).Warn("agent throttled", keyVM, vm, keyVia, via, keyRule, d.pace.rule)
	}
}

// Charge counts a message of so many bytes that was read and taken. One ack for each
// delivery costs nothing: how many come is up to operators.
func (s *Session) Charge(size int) {
	s.backlog.read(size)
	if s.asked {
		s.asked = false
		return
	}
	v := s.d.pace.charge(s.vm, size)
	s.withinLimits = v.OK()
	s.d.noteThrottled(s.vm, fleet.Stream, v)
}

// ChargeHeartbeat is Charge for a heartbeat that differs from the one before in figures
// and times alone. One of a usual size costs nothing.
func (s *Session) ChargeHeartbeat(size int) {
	if size > usualHeartbeat {
		s.Charge(size)
		return
	}
	s.backlog.read(size)
}

// acked notes that what is charged next is an ack.
func (s *Session) acked() {
	if s.unacked.Load() > 0 { // only the reader takes away
		s.unacked.Add(-1)
		s.asked = true
	}
}

// Overdrawn reports whether the VM has reported more than it may: its stream is not to be
// read before Wait returns true.
func (s *Session) Overdrawn() bool {
	if !s.withinLimits { // else only a Charge can have changed that
		s.withinLimits = s.d.pace.overdrawn(s.vm) == 0
	}
	return !s.withinLimits
}

// Wait waits until the VM is within its limits again, or the Dispatcher stops: what has
// arrived is then still taken. It returns false, at once, when the stream is over or a
// newer session has taken its place: what the agent still sends is not to be taken.
func (s *Session) Wait() bool {
	for {
		wait := s.d.pace.overdrawn(s.vm)
		if wait <= 0 {
			return true
		}
		s.backlog.pause(wait)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-s.d.stopping:
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

// mostUnread is more than an agent can send ahead of being read, in bytes.
const mostUnread = 512 << 10

// frameSize is what a message costs on the stream besides itself.
const frameSize = 5

// backlog is how long ago a message may have arrived that is read now, because its stream
// was not read for a while. Deadlines are judged by it: an ack is not late because it
// waits behind other messages. The zero value is ready. One goroutine calls pause and
// read.
type backlog struct {
	bout atomic.Pointer[bout] // the latest; nil for most sessions
}

// bout is a time in which a stream is not read now and then.
type bout struct {
	mu    sync.Mutex
	until time.Time // when no messages are waiting any more, if no pause follows
	bytes int       // read in it
	// before and mark are two moments of it with at least mostUnread read between them,
	// or its begin.
	before, mark moment
}

type moment struct {
	at    time.Time
	bytes int
}

// pause notes that the stream is not read for a while, from now on.
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

// read notes a message that was read.
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
