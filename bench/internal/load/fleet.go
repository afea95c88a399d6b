package load

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

var (
	errNoStream = errors.New("the VM has no stream")
	errNoEnd    = errors.New("none has ended")
)

// The number of VMs that connect concurrently.
const (
	connecting        = 128
	connectingOfProxy = 16 // per connection, on average
)

// Fleet is many VMs on one server. Each has a place, in which it can be replaced by another
// one.
type Fleet struct {
	addr, name string
	secure     *tls.Config
	options    []grpc.DialOption  // of the connections of single VMs
	shared     []*grpc.ClientConn // shared by all VMs; empty if each has its own
	places     []atomic.Pointer[vm]
	made       atomic.Int64 // VMs so far
	sent       atomic.Int64
	registered atomic.Int64 // commands register_runner
	start      func(*vm)    // runs a VM
	cancel     context.CancelFunc
	lives      sync.WaitGroup

	ends  atomic.Int64
	mu    sync.Mutex
	fault error // the error of the latest stream that ended
}

// NewFleet creates n VMs for the server at addr, which connect with TLS unless secure is
// nil. Their ids begin with name. The caller must close the fleet.
func NewFleet(addr string, secure *tls.Config, name string, n int) (*Fleet, error) {
	return newFleet(&Fleet{addr: addr, secure: secure, name: name}, n)
}

// NewFieldFleet is NewFleet for VMs that reconnect as those in the field do: at once, and then
// with the usual pauses of grpc-go, from 1 s on.
func NewFieldFleet(addr string, secure *tls.Config, name string, n int) (*Fleet, error) {
	usual := grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: connectWithin})
	return newFleet(&Fleet{addr: addr, secure: secure, name: name, options: []grpc.DialOption{usual}}, n)
}

// NewMultiplexed creates n VMs whose streams are spread evenly over conns connections, like
// those of a proxy. They are never replaced. The caller must close the fleet.
func NewMultiplexed(addr, name string, n, conns int) (*Fleet, error) {
	f := &Fleet{addr: addr, name: name}
	for range conns {
		conn, err := dial(addr, nil, proxied...)
		if err != nil {
			f.disconnect()
			return nil, err
		}
		f.shared = append(f.shared, conn)
	}
	return newFleet(f, n)
}

// newFleet creates the VMs of a fleet, or closes it.
func newFleet(f *Fleet, n int) (*Fleet, error) {
	f.cancel, f.fault = func() {}, errNoEnd
	f.places = make([]atomic.Pointer[vm], n)
	for i := range n {
		v, err := f.newVM()
		if err != nil {
			f.Close()
			return nil, err
		}
		f.places[i].Store(v)
	}
	return f, nil
}

func vmID(name string, serial int64) string { return fmt.Sprintf("%s-%06d", name, serial) }

// newVM creates a VM with a new id.
func (f *Fleet) newVM() (v *vm, err error) {
	serial := f.made.Add(1) - 1
	v = &vm{
		id: vmID(f.name, serial), fleet: f,
		first: make(chan struct{}), over: make(chan struct{}),
	}
	if v.beats, err = heartbeats(v.id); err != nil {
		return nil, err
	}
	if n := int64(len(f.shared)); n > 0 {
		v.conn = f.shared[serial%n]
		return v, nil
	}
	v.conn, err = dial(f.addr, f.secure, f.options...)
	return v, err
}

// Connect connects all VMs and returns when each has sent everything that registers its
// runner. They run until the context ends or the fleet is closed.
func (f *Fleet) Connect(ctx context.Context) error {
	lives, cancel := context.WithCancel(ctx)
	f.cancel = cancel
	f.start = func(v *vm) { f.lives.Go(func() { v.live(lives) }) }
	within, cancel := context.WithTimeout(ctx, 30*time.Second+time.Duration(len(f.places))*10*time.Millisecond)
	defer cancel()
	var started errgroup.Group
	started.SetLimit(max(connecting, connectingOfProxy*len(f.shared)))
	for i := range f.places {
		v := f.places[i].Load()
		started.Go(func() error {
			if within.Err() == nil {
				f.start(v)
			}
			select {
			case <-v.first:
				return nil
			case <-within.Done():
				return f.slow(within)
			}
		})
	}
	return started.Wait()
}

// slow returns why not all VMs are connected.
func (f *Fleet) slow(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return fmt.Errorf("connect %d VMs: %w (the latest end of a stream: %w)", len(f.places), context.Cause(ctx), f.fault)
}

func (f *Fleet) ended(err error) {
	f.ends.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = err
}

// Ends returns how many streams have ended, and why the latest did. The number is zero
// unless the server is killed on purpose.
func (f *Fleet) Ends() (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ends.Load(), f.fault
}

// Sent returns how many heartbeats were passed to the connections.
func (f *Fleet) Sent() int64 { return f.sent.Load() }

// Registrations returns how many commands register_runner the VMs have received.
func (f *Fleet) Registrations() int64 { return f.registered.Load() }

// ID returns the id of the VM in the n-th place.
func (f *Fleet) ID(n int) string { return f.places[n].Load().id }

// Len returns the number of places.
func (f *Fleet) Len() int { return len(f.places) }

// Drop ends the stream of a VM, which then reconnects. It returns false if there was none.
func (f *Fleet) Drop(n int) bool {
	v := f.places[n].Load()
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.stream == nil {
		return false
	}
	v.drop()
	return true
}

// Replace ends the VM in the n-th place, whose job is done, and starts a new one in that
// place. It returns when that has sent everything that registers its runner. The fleet must
// be connected and not be closed before it returns; calls for the same place are
// serialized.
func (f *Fleet) Replace(ctx context.Context, n int) error {
	v, err := f.newVM()
	if err != nil {
		return err
	}
	f.places[n].Swap(v).leave()
	f.start(v)
	select {
	case <-v.first:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("new VM %s has not registered: %w", v.id, context.Cause(ctx))
	}
}

// Close disconnects all VMs and waits for them.
func (f *Fleet) Close() {
	f.cancel()
	f.disconnect()
	f.lives.Wait()
}

func (f *Fleet) disconnect() {
	conns := f.shared
	if len(conns) == 0 {
		for i := range f.places {
			if v := f.places[i].Load(); v != nil {
				conns = append(conns, v.conn)
			}
		}
	}
	var closing sync.WaitGroup
	for _, conn := range conns {
		closing.Go(func() { _ = conn.Close() }) // fails if it is already closed
	}
	closing.Wait()
}
