package journal

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/logkey"
)

// The keys of the journal's log lines.
const (
	keyFiles = "files"

	keyFree              = "free_bytes"
	keyRequired          = "required_bytes"
	keyHeartbeatsLeftOut = "heartbeats_left_out"
)

// troublePeriod is how often trouble with heartbeat files is logged at most.
const troublePeriod = time.Minute

// gatherFor is how long the first file of a group waits for others. Alone, each
// would find nothing of what it needs in the processor's caches.
const gatherFor = time.Second

// page is a heartbeat file that waits to be written.
type page struct {
	origin fleet.Origin
	render func() ([]byte, error)
}

// Heartbeat queues a heartbeat file if the budget and the queue allow, and else
// counts why not; the heartbeat itself is the store's. It never waits for
// the disk: the file is there a second later, unless too little space is free by then.
//
// render returns the file's content as JSON. It is called at most once, only
// when the file is to be written, and by another goroutine.
//
// Heartbeat files are not synced: after power loss the latest may be missing or
// cut short.
func (j *Journal) Heartbeat(o fleet.Origin, render func() ([]byte, error)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed || j.queued == cap(j.queue) {
		j.queueFull.Add(1)
		return
	}
	if !j.budget.spend(o.VM, time.Now()) {
		j.overBudget.Add(1)
		return
	}
	j.queued++
	j.queue <- page{o, render} // it has room for all that are counted
	if j.queued == (cap(j.queue)+1)/2 {
		j.hurry()
	}
}

// hurry ends the wait for others.
func (j *Journal) hurry() {
	select {
	case j.enough <- struct{}{}:
	default: // it has been notified
	}
}

func (j *Journal) release() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.queued--
}

// writeHeartbeats is the goroutine that writes what is queued, until Close.
func (j *Journal) writeHeartbeats() {
	defer close(j.written)
	for first := range j.queue {
		j.gather()
		write := j.writePage
		if !j.space.enough() {
			write = j.leaveOut
		}
		write(first)
		for len(j.queue) > 0 {
			write(<-j.queue)
		}
	}
}

// gather returns when others have had their time, or the queue is half full.
func (j *Journal) gather() {
	window := time.NewTimer(gatherFor)
	defer window.Stop()
	select {
	case <-window.C:
	case <-j.enough:
	}
}

// writePage writes a file, or logs why it could not.
func (j *Journal) writePage(p page) {
	defer j.release()
	wrote, err := j.writeHeartbeat(p)
	switch {
	case err != nil:
		j.failedHeartbeat(p.origin.VM, err)
	case wrote:
		j.heartbeats.Add(1)
	}
}

// leaveOut counts a file that is not written because the journal is paused.
func (j *Journal) leaveOut(page) {
	defer j.release()
	j.paused.Add(1)
	j.space.leaveOut()
}

// content returns what is to be in the file. A panic of render is an error.
func (p page) content() (content []byte, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("render: panic: %v", cause)
		}
	}()
	if err := p.origin.Check(); err != nil {
		return nil, err
	}
	body, err := p.render()
	if err != nil {
		return nil, fmt.Errorf("render: %w", err)
	}
	return readable(body), nil
}

func (j *Journal) writeHeartbeat(p page) (bool, error) {
	content, err := p.content()
	if err != nil {
		return false, err
	}
	j.dirs.RLock()
	defer j.dirs.RUnlock()
	d, err := j.draft(p.origin.VM, heartbeatName(p.origin), content, false)
	if err != nil {
		return false, err
	}
	defer d.close()
	return d.place()
}

func (j *Journal) failedHeartbeat(vm fleet.VMID, err error) {
	j.failed.Add(1)
	j.trouble.tell(vm, err, j.clock())
}

// trouble logs what goes wrong with heartbeat files, once a period with a count.
type trouble struct {
	log      *slog.Logger
	mu       sync.Mutex
	loggedAt time.Time
	files    int
}

func (t *trouble) tell(vm fleet.VMID, err error, now time.Time) {
	t.mu.Lock()
	t.files++
	files, since := t.files, now.Sub(t.loggedAt)
	quiet := 0 <= since && since < troublePeriod
	if !quiet {
		t.files, t.loggedAt = 0, now
	}
	t.mu.Unlock()
	if !quiet {
		t.log.Warn("heartbeat files could not be written", logkey.VM, string(vm), logkey.Error, err, keyFiles, files)
	}
}
