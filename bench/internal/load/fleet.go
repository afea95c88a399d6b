package load

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

var (
	errNoStream = errors.New("the VM has no stream")
	errNoEnd    = errors.New("none has ended")
)

// connecting is how many VMs connect at the same time.
const connecting = 128

// Fleet is many VMs on one server.
type Fleet struct {
	name   string
	vms    []*vm
	sent   atomic.Int64
	cancel context.CancelFunc
	lives  sync.WaitGroup

	ends  atomic.Int64
	mu    sync.Mutex
	fault error // of the latest stream that ended
}

// NewFleet makes n VMs for the server at addr. Their ids begin with name. The
// caller closes the fleet.
func NewFleet(addr, name string, n int) (*Fleet, error) {
	f := &Fleet{name: name, cancel: func() {}, fault: errNoEnd}
	for i := range n {
		v := &vm{id: f.ID(i), fleet: f, first: make(chan struct{})}
		var err error
		if v.beats, err = heartbeats(v.id); err == nil {
			v.conn, err = dial(addr)
		}
		if err != nil {
			f.Close()
			return nil, err
		}
		f.vms = append(f.vms, v)
	}
	return f, nil
}

// Connect connects all VMs and returns when each has sent all that registers
// its runner. They live until the context ends or the fleet is closed.
func (f *Fleet) Connect(ctx context.Context) error {
	lives, cancel := context.WithCancel(ctx)
	f.cancel = cancel
	within, cancel := context.WithTimeout(ctx, 30*time.Second+time.Duration(len(f.vms))*10*time.Millisecond)
	defer cancel()
	slots := make(chan struct{}, connecting)
	var started sync.WaitGroup
	defer started.Wait()
	for _, v := range f.vms {
		select {
		case slots <- struct{}{}:
		case <-within.Done():
			return f.slow(within)
		}
		f.lives.Go(func() { v.live(lives) })
		started.Go(func() {
			select {
			case <-v.first:
			case <-within.Done():
			}
			<-slots
		})
	}
	started.Wait()
	if within.Err() != nil {
		return f.slow(within)
	}
	return nil
}

// slow tells why not all VMs are connected.
func (f *Fleet) slow(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return fmt.Errorf("connect %d VMs: %w (the latest end of a stream: %w)", len(f.vms), context.Cause(ctx), f.fault)
}

func (f *Fleet) ended(err error) {
	f.ends.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = err
}

// Ends is how many streams have ended since the beginning, and why the latest
// did. It is more than none only where the server is killed on purpose.
func (f *Fleet) Ends() (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ends.Load(), f.fault
}

// Sent is how many heartbeats were handed to the connections.
func (f *Fleet) Sent() int64 { return f.sent.Load() }

// ID is the id of the n-th VM.
func (f *Fleet) ID(n int) string { return fmt.Sprintf("%s-%06d", f.name, n) }

// Len is the number of VMs.
func (f *Fleet) Len() int { return len(f.vms) }

// Drop ends the stream of a VM, which then comes back.
func (f *Fleet) Drop(n int) {
	v := f.vms[n%len(f.vms)]
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.drop != nil {
		v.drop()
	}
}

// Close takes all VMs away and waits for them.
func (f *Fleet) Close() {
	f.cancel()
	var closing sync.WaitGroup
	for _, v := range f.vms {
		closing.Go(func() { _ = v.conn.Close() }) // fails when it is closed already
	}
	closing.Wait()
	f.lives.Wait()
}
