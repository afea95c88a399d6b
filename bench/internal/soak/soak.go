// Package soak owns the long run: a realistic fleet with heartbeats, commands, VMs that are
// replaced, dropped connections and a controller that is killed, to check whether memory,
// goroutines, threads and open files stay constant.
package soak

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mig-controller/mig-controller/bench/internal/load"
	"github.com/mig-controller/mig-controller/bench/internal/proc"
	"github.com/mig-controller/mig-controller/bench/internal/target"
)

// Options are the settings of a soak.
type Options struct {
	Programs target.Programs
	VMs      int
	// For is its duration, once all VMs are connected.
	For time.Duration
	// Kills is how often the controller is killed. The kills are spread over the first
	// half; the run after the last kill is evaluated.
	Kills int
	// Beat is the time between two heartbeats of a VM.
	Beat time.Duration
	// Drops, Commands and Replace are rates per second; Replace is how many VMs end, each
	// replaced by a new one.
	Drops, Commands, Replace float64
	// Every is the time between two samples.
	Every    time.Duration
	Progress func(format string, args ...any)
}

// Sample is the state of the controller at one time.
type Sample struct {
	// At is the time since all VMs were connected, in seconds.
	At         float64 `json:"at"`
	Life       int     `json:"life"`
	RSS        int64   `json:"rss"`
	Goroutines int64   `json:"goroutines"`
	Threads    int     `json:"threads"`
	Files      int     `json:"files"`
	Sessions   int64   `json:"sessions"`
	// Done and Failed count commands.
	Done   int64 `json:"done"`
	Failed int64 `json:"failed"`
	// Replaced counts VMs that have registered in the place of another one, and Dropped
	// counts dropped connections.
	Replaced int64 `json:"replaced"`
	Dropped  int64 `json:"dropped"`
}

// run is a soak in progress.
type run struct {
	Options
	fleet    *load.Fleet
	operator *load.Operator
	server   *target.Server
	began    time.Time
	life     int
	// down is set while the controller is down: commands may then fail.
	down atomic.Bool

	// busy is held for reading while the VM of a place gets a command and for writing while
	// it is replaced: a VM whose job is done gets no commands.
	busy               []sync.RWMutex
	commands, replaced outcome
	dropped            atomic.Int64
	known              int // number of VMs at the end, according to the controller
	samples            []Sample
	back               []time.Duration
}

// outcome counts the results of a repeated operation.
type outcome struct {
	done, failed atomic.Int64
	fault        atomic.Pointer[error] // the error of the latest failure
}

func (o *outcome) note(err error) {
	if err == nil {
		o.done.Add(1)
		return
	}
	o.failed.Add(1)
	o.fault.Store(&err)
}

// Run runs a soak to its end. With an error it also returns what was observed until then.
func Run(ctx context.Context, o Options) (Verdict, error) {
	if err := proc.NeedConnections(o.VMs); err != nil {
		return Verdict{}, err
	}
	r := &run{Options: o, busy: make([]sync.RWMutex, o.VMs)}
	var err error
	if r.server, err = o.Programs.Start(ctx, target.Controller); err != nil {
		return Verdict{}, err
	}
	defer func() { r.server.Kill() }()
	if r.fleet, err = load.NewFleet(r.server.Addr, r.server.TLS, "soak-vm", o.VMs); err != nil {
		return Verdict{}, err
	}
	defer r.fleet.Close()
	if r.operator, err = load.NewOperator(r.server.Addr, 2); err != nil {
		return Verdict{}, err
	}
	defer r.operator.Close()
	if err := r.fleet.Connect(ctx); err != nil {
		return Verdict{}, err
	}
	if err := r.live(ctx); err != nil {
		return r.seen(), err
	}
	return r.judge()
}

// live runs the load while the controller is observed.
func (r *run) live(ctx context.Context) error {
	doing, stop := context.WithCancel(ctx)
	defer stop()
	living, end := context.WithTimeout(doing, r.For)
	defer end()
	r.began = time.Now()
	var all sync.WaitGroup
	all.Go(func() { r.fleet.Pace(living, max(1, int(float64(r.VMs)/r.Beat.Seconds()))) })
	all.Go(func() { every(living, r.Drops, r.drop) })
	all.Go(func() { every(living, r.Commands, func() { all.Go(func() { r.command(doing) }) }) })
	all.Go(func() { every(living, r.Replace, func() { all.Go(func() { r.replace(doing) }) }) })
	err := r.watch(ctx, living.Done())
	end()
	if err != nil {
		stop() // operations in progress are abandoned
	}
	all.Wait()
	if err != nil {
		return err
	}
	return r.last(ctx)
}

func anyOf(n int) int { return rand.IntN(n) } //nolint:gosec // any will do

// every calls fn at this rate; fn must not block.
func every(ctx context.Context, perSecond float64, fn func()) {
	if perSecond <= 0 {
		return
	}
	tick := time.NewTicker(time.Duration(float64(time.Second) / perSecond))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			fn()
		case <-ctx.Done():
			return
		}
	}
}

func (r *run) drop() {
	if r.fleet.Drop(anyOf(r.VMs)) {
		r.dropped.Add(1)
	}
}

// pick locks a free place, if there is one.
func (r *run) pick(try func(*sync.RWMutex) bool) (n int, ok bool) {
	for range 100 {
		if n = anyOf(r.VMs); try(&r.busy[n]) {
			return n, true
		}
	}
	return 0, false
}

// command sends a command to a VM and waits for its end. A VM that has just been dropped
// gets its command when it has reconnected.
func (r *run) command(ctx context.Context) {
	n, ok := r.pick((*sync.RWMutex).TryRLock)
	if !ok {
		return
	}
	defer r.busy[n].RUnlock()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	crossed := r.down.Load()
	err := r.operator.Command(ctx, r.fleet.ID(n))
	if err != nil && (crossed || r.down.Load()) {
		return
	}
	r.commands.note(err)
}

// replace replaces a VM by a new one. It may take as long as a kill.
func (r *run) replace(ctx context.Context) {
	n, ok := r.pick((*sync.RWMutex).TryLock)
	if !ok {
		return
	}
	defer r.busy[n].Unlock()
	ctx, cancel := context.WithTimeout(ctx, backWithin)
	defer cancel()
	r.replaced.note(r.fleet.Replace(ctx, n))
}

// watch takes samples, and kills the controller at the scheduled times.
func (r *run) watch(ctx context.Context, over <-chan struct{}) error {
	tick := time.NewTicker(r.Every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-over:
			return nil
		}
		if err := r.sample(ctx); err != nil {
			return err
		}
		if r.life < r.Kills && time.Since(r.began) > r.For/2*time.Duration(r.life+1)/time.Duration(r.Kills+1) {
			if err := r.kill(ctx); err != nil {
				return err
			}
		}
	}
}

// askWithin is how long the controller may take to answer.
const askWithin = time.Minute

// last takes the last sample, when dropped VMs have reconnected and replaced ones are gone,
// and then makes the controller count the VMs.
func (r *run) last(ctx context.Context) error {
	if err := r.awaitSessions(ctx, func(n int64) bool { return n == int64(r.VMs) }); err != nil {
		return err
	}
	if err := r.sample(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	var err error
	r.known, err = r.operator.Known(ctx)
	return err
}

func (r *run) sample(ctx context.Context) error {
	if err := r.server.Failure(); err != nil {
		return err
	}
	status, err := proc.ReadStatus(r.server.PID())
	if err != nil {
		return err
	}
	tally, err := r.server.Tally(ctx)
	if err != nil {
		return err
	}
	within, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	goroutines, err := r.operator.Goroutines(within)
	if err != nil {
		return err
	}
	s := Sample{
		At: time.Since(r.began).Seconds(), Life: r.life, RSS: status.RSS, Goroutines: goroutines,
		Threads: status.Threads, Files: status.Files, Sessions: tally.Sessions,
		Done: r.commands.done.Load(), Failed: r.commands.failed.Load(),
		Replaced: r.replaced.done.Load(), Dropped: r.dropped.Load(),
	}
	r.samples = append(r.samples, s)
	r.Progress("life %d  RSS %d MiB  goroutines %d  threads %d  files %d  sessions %d  commands %d done, %d failed  VMs %d replaced",
		s.Life+1, s.RSS>>20, s.Goroutines, s.Threads, s.Files, s.Sessions, s.Done, s.Failed, s.Replaced)
	return nil
}

// kill kills the controller, restarts it, and waits until most VMs have reconnected: since
// connections are dropped, some are always reconnecting.
func (r *run) kill(ctx context.Context) error {
	r.down.Store(true)
	defer r.down.Store(false)
	began := time.Now()
	r.server.Kill()
	next, err := r.Programs.StartIn(ctx, target.Controller, r.server.Dir, r.server.Ports())
	if err != nil {
		return fmt.Errorf("start after a kill: %w", err)
	}
	r.server = next
	r.life++
	// Since connections are dropped, some VMs are always reconnecting.
	if err := r.awaitSessions(ctx, func(n int64) bool { return n >= int64(r.VMs)*99/100 }); err != nil {
		return err
	}
	r.back = append(r.back, time.Since(began))
	r.Progress("killed; back after %.1f s", time.Since(began).Seconds())
	return nil
}

// backWithin is how long VMs may take to reconnect.
const backWithin = 2 * time.Minute

// awaitSessions waits until there are enough sessions.
func (r *run) awaitSessions(ctx context.Context, enough func(int64) bool) error {
	for deadline := time.Now().Add(backWithin); ; {
		t, err := r.server.Tally(ctx)
		if err != nil || enough(t.Sessions) {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d of %d VMs are connected after %s", t.Sessions, r.VMs, backWithin)
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
