package journal

import (
	"fmt"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/logkey"
)

// The log attributes.
const (
	keyFree              = "free_bytes"
	keyRequired          = "required_bytes"
	keyHeartbeatsLeftOut = "heartbeats_left_out"
)

// gatherFor is how long the first file of a group waits for others: many files in a row take
// less processor time than the same files one by one.
const gatherFor = time.Second

// heartbeatFile is a heartbeat file that waits to be written.
type heartbeatFile struct {
	origin fleet.Origin
	render func() ([]byte, error)
}

// Heartbeat queues a heartbeat file if the budget and the queue allow, and otherwise counts
// the reason; the heartbeat itself is in the store. It never waits for the disk: the file
// is written about a second later, unless too little space is free by then.
//
// render returns the file's content as JSON. It is called at most once, only when the file
// is written, and by another goroutine.
//
// Heartbeat files are not synced: after a power loss the latest may be missing or
// truncated.
func (j *Journal) Heartbeat(o fleet.Origin, render func() ([]byte, error)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed || j.queued == cap(j.queue) {
		j.metrics.queueFull.Inc()
		return
	}
	if !j.budget.spend(o.VM, time.Now()) {
		j.metrics.overBudget.Inc()
		return
	}
	j.queued++
	j.queue <- heartbeatFile{o, render} // it has capacity for all that are counted
	if j.queued == (cap(j.queue)+1)/2 {
		j.flush()
	}
}

// flush ends the wait of gather.
func (j *Journal) flush() {
	select {
	case j.flushNow <- struct{}{}:
	default: // already notified
	}
}

func (j *Journal) release() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.queued--
}

// writeHeartbeats is the goroutine that writes the queued files, until Close.
func (j *Journal) writeHeartbeats() {
	defer close(j.written)
	for first := range j.queue {
		j.gather()
		write := j.writeFile
		if !j.space.enough() {
			write = j.skip
		}
		write(first)
		for len(j.queue) > 0 {
			write(<-j.queue)
		}
	}
}

// gather waits for further files, for gatherFor or until the queue is half full.
func (j *Journal) gather() {
	window := time.NewTimer(gatherFor)
	defer window.Stop()
	select {
	case <-window.C:
	case <-j.flushNow:
	}
}

// writeFile writes a file, or logs why it failed.
func (j *Journal) writeFile(f heartbeatFile) {
	defer j.release()
	wrote, err := j.writeHeartbeat(f)
	switch {
	case err != nil:
		j.failedHeartbeat(f.origin.VM, err)
	case wrote:
		j.metrics.heartbeats.Inc()
	}
}

// skip counts a file that is not written because the journal is paused.
func (j *Journal) skip(heartbeatFile) {
	defer j.release()
	j.metrics.paused.Inc()
	j.space.skip()
}

// content returns the content of the file. A panic of render is returned as an error.
func (f heartbeatFile) content() (content []byte, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("render: panic: %v", cause)
		}
	}()
	if err := f.origin.Check(); err != nil {
		return nil, err
	}
	body, err := f.render()
	if err != nil {
		return nil, fmt.Errorf("render: %w", err)
	}
	return readable(body), nil
}

func (j *Journal) writeHeartbeat(f heartbeatFile) (bool, error) {
	content, err := f.content()
	if err != nil {
		return false, err
	}
	j.dirs.RLock()
	defer j.dirs.RUnlock()
	d, err := j.draft(f.origin.VM, heartbeatName(f.origin), content, false)
	if err != nil {
		return false, err
	}
	defer d.close()
	return d.place()
}

func (j *Journal) failedHeartbeat(vm fleet.VMID, err error) {
	j.metrics.failedHeartbeats.Inc()
	j.limiter.Limited(j.log, "heartbeat file", "", time.Now()).
		Warn("heartbeat file could not be written", logkey.VM, vm, logkey.Error, err)
}
