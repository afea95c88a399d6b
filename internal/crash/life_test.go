package crash

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/internal/sim"
)

// Promises 1, 3, 4, 5, 6 and 8, for a busy fleet whose controller crashes again and again.
// Afterwards every acknowledged event exists once, with its file; every command that was
// seen to end has that result; every watcher saw every change once and in order; the epochs
// of each VM increase; no runner was registered twice.
func TestFleetAtWorkSurvivesKills(t *testing.T) {
	t.Parallel()
	const crashes = 6
	rng, dir := seeded(t), t.TempDir()
	l := newLife(t, rng.Uint64())
	c := start(t, dir)
	l.begin(t, c)
	for range crashes {
		l.awaitAll(t, c)
		goal := l.reported.Load() + 100
		eventually(t, func() bool { return l.reported.Load() >= goal }, "no events get through")
		<-time.After(time.Duration(rng.IntN(500)) * time.Millisecond)
		l.relay.point("")
		c.kill()
		c.hangUp()
		c = start(t, dir)
		l.relay.point(c.http)
	}
	l.awaitAll(t, c)
	l.end()
	c.kill()
	c = start(t, dir)
	l.requireKept(t, c)
	requireFiles(t, c, dir)
}

const fleetSize = 20

// life is a busy fleet with its operators.
type life struct {
	relay  *relay
	fleet  *sim.Fleet
	peer   operator // connects to the controller through the relay
	watch  watcher
	work   sync.WaitGroup
	stop   context.CancelFunc
	epochs map[string]int64 // of each VM when it was last read

	reported atomic.Int64 // events that were answered

	mu     sync.Mutex
	events map[string]bool // acknowledged events, by mark
	sent   []string        // the ids of the acknowledged commands
	ended  map[string]*migcontrollerv1.CommandRecord
	wrong  []string
}

func newLife(t *testing.T, seed uint64) *life {
	t.Helper()
	l := &life{
		relay: newRelay(t), epochs: map[string]int64{}, events: map[string]bool{},
		ended: map[string]*migcontrollerv1.CommandRecord{},
	}
	agent := sim.DefaultConfig()
	agent.Controller, agent.Seed, agent.Kind = l.relay.addr(), seed, sim.Ideal
	agent.Timing.Heartbeat = 200 * time.Millisecond
	agent.Timing.Register = 100 * time.Millisecond
	agent.Timing.JobEvery, agent.Timing.JobLength = 500*time.Millisecond, 200*time.Millisecond
	agent.Timing.Restart, agent.Timing.PowerOn = 100*time.Millisecond, 100*time.Millisecond
	agent.Timing.Backoff, agent.Timing.RetryWait = 50*time.Millisecond, 50*time.Millisecond
	agent.Quirks.DropEvery, agent.Quirks.RestartEvery = 4*time.Second, 8*time.Second
	agent.Quirks.DuplicateAcks = 0.2
	var err error
	l.fleet, err = sim.NewFleet(sim.FleetConfig{Agent: agent, VMs: fleetSize, VMPrefix: "vm-", StartRate: 100})
	require.NoError(t, err)
	l.peer = newOperator("http://" + l.relay.addr())
	t.Cleanup(l.peer.hangUp)
	return l
}

// begin starts all goroutines.
func (l *life) begin(t *testing.T, c *controller) {
	t.Helper()
	_, l.watch.first = openWatch(t, c) // before there are any changes
	l.relay.point(c.http)
	ctx, stop := context.WithCancel(t.Context())
	l.stop = stop
	t.Cleanup(l.end)
	l.work.Go(func() { l.watch.follow(ctx, l.peer) })
	l.work.Go(func() { l.fleet.Run(ctx) })
	for i := range 3 {
		l.work.Go(func() { l.report(ctx, i) })
		l.work.Go(func() { l.operate(ctx, i) })
	}
}

// end stops all work and waits until no call is in progress.
func (l *life) end() {
	l.stop()
	l.work.Wait()
}

// awaitAll waits until every VM has a newer session than when it was last read.
func (l *life) awaitAll(t *testing.T, c *controller) {
	t.Helper()
	eventually(t, func() bool {
		vms := c.vms(t)
		for id, vm := range vms {
			require.GreaterOrEqual(t, vm.GetSessionEpoch(), l.epochs[id], "VM %s", id)
			if vm.GetSessionEpoch() == l.epochs[id] || !vm.GetConnected() {
				return false
			}
		}
		if len(vms) != fleetSize {
			return false
		}
		for id, vm := range vms {
			l.epochs[id] = vm.GetSessionEpoch()
		}
		return true
	}, "not all VMs connect")
}

// report reports events over HTTP. An unanswered one is not repeated: it may have been
// stored or not.
func (l *life) report(ctx context.Context, reporter int) {
	for n := 0; ctx.Err() == nil; n++ {
		mark := fmt.Sprintf("reporter-%d-%d", reporter, n)
		vm := l.vmID(n)
		status, answer, err := l.peer.post(ctx, "/api/v1/vms/"+vm+"/events",
			`{"type":"job_started","vm_id":"`+vm+`","data":{"mark":"`+mark+`"}}`)
		switch {
		case err != nil || ctx.Err() != nil:
			rest(ctx)
		case status == http.StatusOK:
			l.mu.Lock()
			l.events[mark] = true
			l.mu.Unlock()
			l.reported.Add(1)
		default:
			l.complainf("an event was answered with %d: %s", status, answer)
		}
	}
}

// operate sends commands, each until it is acknowledged, and reads old ones.
func (l *life) operate(ctx context.Context, who int) {
	rng := rand.New(rand.NewPCG(uint64(who), 0))
	for n := 0; ctx.Err() == nil; n++ {
		id, vm := fmt.Sprintf("operator-%d-%d", who, n), l.vmID(rng.IntN(fleetSize))
		for {
			_, err := l.peer.send(ctx, id, &migcontrollerv1.SendCommandRequest{VmId: vm})
			if err == nil {
				l.mu.Lock()
				l.sent = append(l.sent, id)
				l.mu.Unlock()
				break
			}
			if refusal(err) {
				l.complainf("a command was refused: %v", err)
			}
			rest(ctx)
			if ctx.Err() != nil {
				return
			}
		}
		l.lookAt(ctx, rng)
	}
}

// lookAt records how a command ended.
func (l *life) lookAt(ctx context.Context, rng *rand.Rand) {
	l.mu.Lock()
	id := l.sent[rng.IntN(len(l.sent))]
	l.mu.Unlock()
	answer, err := l.peer.admin.GetCommand(ctx, &migcontrollerv1.GetCommandRequest{CommandId: id})
	if refusal(err) {
		l.complainf("command %s was answered before: %v", id, err)
	}
	record := answer.GetCommand()
	if err != nil || record.GetFinishedAt() == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended[id] = record
}

func (l *life) vmID(i int) string { return fmt.Sprintf("vm-%04d", i%fleetSize+1) }

func (l *life) complainf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wrong = append(l.wrong, fmt.Sprintf(format, args...))
}

// rest waits a little before a retry.
func rest(ctx context.Context) {
	select {
	case <-time.After(10 * time.Millisecond):
	case <-ctx.Done():
	}
}

// requireKept compares the recorded answers with the state of the controller after the last
// crash, when all work has stopped.
func (l *life) requireKept(t *testing.T, c *controller) {
	t.Helper()
	require.Empty(t, l.wrong)
	require.NoError(t, l.watch.refused)
	all := c.events(t, "")
	times := map[string]int{}
	for _, mark := range marks(all) {
		times[mark]++
	}
	for mark := range l.events {
		require.Equal(t, 1, times[mark], "the event %s was answered", mark)
	}
	for _, id := range l.sent {
		c.command(t, id)
	}
	for id, reported := range l.ended {
		now := c.command(t, id)
		require.Equal(t, reported.GetState(), now.GetState(), "command %s", id)
		require.True(t, proto.Equal(reported.GetFinishedAt(), now.GetFinishedAt()), "command %s", id)
	}
	changes := replay(t, c.operator, l.watch.first)
	require.GreaterOrEqual(t, l.watch.resumed, 3, "the watch went through crashes")
	require.GreaterOrEqual(t, len(changes), len(l.watch.changes))
	for i, reported := range l.watch.changes {
		require.True(t, proto.Equal(reported, changes[i]), "change %d was %v\nand is now %v", i, reported, changes[i])
	}
	requireWhole(t, c, changes, all)
	l.requireRegisteredOnce(t, c)
	t.Logf("%d events answered of %d kept, %d commands, %d seen to end, %d changes watched of %d",
		len(l.events), len(all), len(l.sent), len(l.ended), len(l.watch.changes), len(changes))
}

// requireRegisteredOnce fails if the registration of a VM was requested more often than it
// booted, or if a crash of the controller was counted as a boot.
func (l *life) requireRegisteredOnce(t *testing.T, c *controller) {
	t.Helper()
	requests := map[string]int64{}
	for _, record := range c.commands(t, &migcontrollerv1.ListCommandsRequest{Type: registerRunner}) {
		requests[record.GetVmId()]++
	}
	boots := int64(0)
	for id, vm := range c.vms(t) {
		boots += vm.GetBoot()
		require.LessOrEqual(t, requests[id], vm.GetBoot(), "VM %s", id)
	}
	// An agent whose vm_started was not answered repeats it with another time, and that
	// counts as another boot.
	did := l.fleet.Snapshot()
	require.LessOrEqual(t, boots, fleetSize+did.Restarts+did.Errors["vm_started"])
	t.Logf("%d restarts, %d boots seen", did.Restarts, boots-fleetSize)
}
