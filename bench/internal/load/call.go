package load

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// Calls are calls of operators.
type Calls struct {
	Addr string
	// Fleet is the name of a fleet, and VMs the number of its VMs; none of them was replaced.
	Fleet string
	VMs   int
	// PerSecond is the number of calls of each kind per second.
	PerSecond int
}

// CallTimes are the times that calls took, in milliseconds, from when each was due.
type CallTimes struct {
	// Send are calls of SendCommand, until the command was durable.
	Send []float64 `json:"send"`
	// Dial are the same, each on a new connection.
	Dial []float64 `json:"dial"`
	// List are calls of ListVMs for a page.
	List []float64 `json:"list"`
}

// callWithin is how long a call may take.
const callWithin = 30 * time.Second

// Call calls at a steady rate until the context ends, and then waits for the calls that were
// made. A call does not wait for earlier ones. A call that fails is an error.
func Call(ctx context.Context, c Calls) (t CallTimes, err error) {
	o, err := NewOperator(c.Addr, 1)
	if err != nil {
		return t, err
	}
	defer o.Close()
	vm := func() string { return vmID(c.Fleet, rand.Int64N(int64(c.VMs))) } //nolint:gosec // any VM will do
	kinds := []openLoop{
		{into: &t.Send, call: func(ctx context.Context) error { return o.Send(ctx, vm()) }},
		{into: &t.Dial, call: func(ctx context.Context) error { return sendAnew(ctx, c.Addr, vm()) }},
		{into: &t.List, call: func(ctx context.Context) error {
			_, err := o.page(ctx, readPage, "")
			return err
		}},
	}
	var all sync.WaitGroup
	every := time.Second / time.Duration(c.PerSecond)
	for i := range kinds {
		all.Go(func() { kinds[i].run(ctx, every, time.Duration(i)*every/time.Duration(len(kinds))) })
	}
	all.Wait()
	for i := range kinds {
		if kinds[i].err != nil {
			return t, kinds[i].err
		}
	}
	return t, nil
}

// readPage is the number of VMs in a page.
const readPage = 100

// sendAnew sends a command on a connection of its own, as a command-line client does.
func sendAnew(ctx context.Context, addr, vm string) error {
	o, err := NewOperator(addr, 1)
	if err != nil {
		return err
	}
	defer o.Close()
	return o.Send(ctx, vm)
}

// openLoop makes calls of one kind.
type openLoop struct {
	call func(context.Context) error

	mu   sync.Mutex
	into *[]float64 // milliseconds
	err  error
}

// run makes a call each time one is due, until the context ends.
func (l *openLoop) run(ctx context.Context, every, first time.Duration) {
	var calls sync.WaitGroup
	defer calls.Wait()
	began := time.Now().Add(first)
	for due := began; ; due = due.Add(every) {
		select {
		case <-time.After(time.Until(due)):
		case <-ctx.Done():
			return
		}
		calls.Go(func() {
			within, cancel := context.WithTimeout(context.WithoutCancel(ctx), callWithin)
			defer cancel()
			l.record(l.call(within), time.Since(due))
		})
	}
}

func (l *openLoop) record(err error, took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.err = fmt.Errorf("after %s: %w", took, err)
		return
	}
	*l.into = append(*l.into, float64(took.Microseconds())/1e3)
}
