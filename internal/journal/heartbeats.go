package journal

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// The keys of the journal's log lines.
const (
	keyVM    = "vm_id"
	keyError = "error"
	keyFiles = "files"
)

// troublePeriod is how often trouble with heartbeat files is logged at most.
const troublePeriod = time.Minute

// page is a heartbeat file that waits to be written.
type page struct {
	vm      fleet.VMID
	name    string
	content []byte
}

// Heartbeat queues a heartbeat file if the budget and the queue allow, and else
// counts why not; the heartbeat itself is the store's. It never waits for
// the disk.
//
// render returns the file's content as JSON. It is called at most once, only
// when the file is to be written, and before Heartbeat returns.
//
// Heartbeat files are not synced: after power loss the latest may be missing or
// cut short.
func (j *Journal) Heartbeat(o fleet.Origin, render func() ([]byte, error)) {
	if !j.reserve(o.VM) {
		return
	}
	queued := false
	defer func() {
		if !queued { // also when render panics
			j.release()
		}
		j.rendering.Done()
	}()
	content, err := j.render(o, render)
	if err != nil {
		j.failedHeartbeat(o.VM, err)
		return
	}
	j.queue <- page{vm: o.VM, name: heartbeatName(o), content: content}
	queued = true
}

// reserve takes a place in the queue for the VM and marks a rendering as begun;
// or neither, and then reports false.
func (j *Journal) reserve(vm fleet.VMID) bool {
	now := j.clock()
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed || j.queued >= j.queueSize {
		j.queueFull.Add(1)
		return false
	}
	if !j.budget.spend(vm, now) {
		j.overBudget.Add(1)
		return false
	}
	j.queued++
	j.rendering.Add(1)
	return true
}

func (j *Journal) release() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.queued--
}

func (j *Journal) render(o fleet.Origin, render func() ([]byte, error)) ([]byte, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	body, err := render()
	if err != nil {
		return nil, fmt.Errorf("render: %w", err)
	}
	return readable(body), nil
}

// writeHeartbeats is the goroutine that writes what is queued, until Close.
func (j *Journal) writeHeartbeats() {
	defer close(j.written)
	for p := range j.queue {
		wrote, err := j.writeHeartbeat(p)
		switch {
		case err != nil:
			j.failedHeartbeat(p.vm, err)
		case wrote:
			j.heartbeats.Add(1)
		}
		j.release()
	}
}

func (j *Journal) writeHeartbeat(p page) (bool, error) {
	j.dirs.RLock()
	defer j.dirs.RUnlock()
	d, err := j.draft(p.vm, p.name, p.content, false)
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
	log    *slog.Logger
	mu     sync.Mutex
	toldAt time.Time
	files  int
}

func (t *trouble) tell(vm fleet.VMID, err error, now time.Time) {
	t.mu.Lock()
	t.files++
	files, since := t.files, now.Sub(t.toldAt)
	quiet := 0 <= since && since < troublePeriod
	if !quiet {
		t.files, t.toldAt = 0, now
	}
	t.mu.Unlock()
	if !quiet {
		t.log.Warn("heartbeat files could not be written", keyVM, string(vm), keyError, err, keyFiles, files)
	}
}
