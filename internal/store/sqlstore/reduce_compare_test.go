package sqlstore

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

const (
	compareSteps     = 800
	compareHistories = 4
)

// The reducer decides what the store decides, in every history. MODEL_SEED repeats
// one.
func TestReduceAsStored(t *testing.T) {
	t.Parallel()
	seeds := make([]uint64, compareHistories)
	for i := range seeds {
		seeds[i] = rand.Uint64()
	}
	if s := os.Getenv("MODEL_SEED"); s != "" {
		seed, err := strconv.ParseUint(s, 10, 64)
		require.NoError(t, err)
		seeds = []uint64{seed}
	}
	for _, seed := range seeds {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			p := &pair{
				T: t, rng: rand.New(rand.NewPCG(seed, 0)), reduced: newReduced(), now: t0,
				written: map[fleet.VMID]fleet.CommandID{}, done: map[string]int{},
				weights: make([]int, 13), slow: 1,
				db: openTest(t, filepath.Join(t.TempDir(), "controller.db")),
			}
			p.rules = fleet.Rules{Defaults: compareDefaults, NewID: func() fleet.CommandID { return p.nextID }}
			for i := range p.weights { // no history is like another
				p.weights[i] = 1 + p.rng.IntN(12)
			}
			p.slow = 1 + p.rng.IntN(8)
			for step := range compareSteps {
				p.step(step)
			}
			p.compareAll()
			t.Log(p.done)
		})
	}
}

var compareDefaults = fleet.CommandDefaults{TTL: time.Minute, AckTimeout: 5 * time.Second, MaxDeliveries: 3}

// pair is a store and a reduced fleet that are to agree.
type pair struct {
	*testing.T
	*reduced
	db      *DB
	rng     *rand.Rand
	now     time.Time
	op      string
	weights []int                          // of each operation
	slow    int                            // how seldom much time passes
	nextID  fleet.CommandID                // of a register_runner
	written map[fleet.VMID]fleet.CommandID // last on its stream
	done    map[string]int                 // how often each operation had which outcome
}

var errorsOfDomain = []error{
	fleet.ErrNotFound, fleet.ErrIDTaken, fleet.ErrEnded, fleet.ErrNotDelivered, fleet.ErrNotDue, fleet.ErrNothingDue, fleet.ErrSuperseded,
}

// step does an operation on both and compares them.
func (p *pair) step(n int) {
	p.pass()
	p.nextID = fleet.CommandID("reg-" + strconv.Itoa(n))
	ops := []struct {
		weight int
		name   string
		do     func() (old, reduced error)
	}{
		{10, "enqueue", p.enqueue},
		{4, "cancel", p.cancel},
		{5, "open", p.openSession},
		{3, "close", p.closeSession},
		{1, "reset", p.reset},
		{3, "poll", p.poll},
		{22, "lease", p.lease},
		{5, "not written", p.notWritten},
		{3, "token missing", p.tokenMissing},
		{14, "ack", p.ack},
		{8, "event", p.event},
		{10, "beats", p.beats},
		{6, "sweep", p.sweep},
	}
	total := 0
	for i, o := range ops {
		total += o.weight * p.weights[i]
	}
	pick := p.rng.IntN(total)
	for i, o := range ops {
		if pick -= o.weight * p.weights[i]; pick < 0 {
			p.op = o.name
			p.check(o.do())
			break
		}
	}
	if len(p.due(p.now)) > fleet.QueueDepth/2 { // as it is done four times a second
		p.op = "sweep"
		p.check(p.sweep())
	}
	if n%100 == 0 {
		p.compareAll()
	}
}

// pass lets time pass.
func (p *pair) pass() {
	p.now = p.now.Add(time.Microsecond)
	switch p.rng.IntN(6 * p.slow) {
	case 0:
		p.now = p.now.Add(time.Duration(p.rng.IntN(3000)) * time.Millisecond)
	case 1:
		p.now = p.now.Add(time.Duration(p.rng.IntN(100)) * time.Millisecond)
	case 2:
		if p.chance(10) {
			p.now = p.now.Add(time.Duration(p.rng.IntN(90)) * time.Second)
		}
	}
}

func (p *pair) chance(percent int) bool { return p.rng.IntN(100) < percent }

// check compares what an operation has led to, as far as it matters.
func (p *pair) check(old, reduced error) {
	p.Helper()
	for _, e := range errorsOfDomain {
		require.Equal(p, errors.Is(old, e), errors.Is(reduced, e), "%s: %v, %v", p.op, old, reduced)
	}
	require.Equal(p, old == nil, reduced == nil, "%s: %v, %v", p.op, old, reduced)
	p.done[fmt.Sprintf("%s %v", p.op, reduced)]++
	for _, id := range p.touched {
		c, err := p.db.Command(p.Context(), id)
		require.NoError(p, err, "%s %s", p.op, id)
		p.same(p.commands[id], c)
	}
	p.commit()
	for _, vm := range compareVMs {
		v, err := p.db.VM(p.Context(), vm)
		require.Equal(p, errors.Is(err, fleet.ErrNotFound), p.vms[vm].ID == "", "%s: %s known", p.op, vm)
		p.sameVM(p.vms[vm], v)
	}
	stored, err := p.db.commands(p.Context(), `SELECT seq, doc FROM commands WHERE due_at IS NOT NULL ORDER BY seq`)
	require.NoError(p, err)
	for _, id := range p.order {
		if c := p.commands[id]; !c.State.Terminal() {
			require.NotEmpty(p, stored, p.op)
			p.same(c, stored[0])
			stored = stored[1:]
		}
	}
	require.Empty(p, stored, p.op)
}

func (p *pair) same(reduced, old fleet.Command) {
	p.Helper()
	reduced.Seq, old.Seq = 0, 0
	if reduced.ID != old.ID || reduced.State != old.State {
		require.Equal(p, old, reduced, p.op)
	}
	require.Equal(p, old, reduced, p.op)
}

func (p *pair) sameVM(reduced, old fleet.VM) {
	p.Helper()
	reduced.DueAt, old.DueAt = time.Time{}, time.Time{}
	require.Equal(p, old, reduced, "%s at %s", p.op, p.now)
}

// compareAll compares all records and the logs of changes: those of each VM, since
// one transaction may be about several in any order.
func (p *pair) compareAll() {
	p.Helper()
	all, err := p.db.commands(p.Context(), `SELECT seq, doc FROM commands ORDER BY seq`)
	require.NoError(p, err)
	require.Len(p, all, len(p.order))
	for i, id := range p.order {
		p.same(p.commands[id], all[i])
	}
	for _, vm := range compareVMs {
		old, err := p.db.Changes(p.Context(), store.ChangeFilter{VM: vm}, 0, 1<<30)
		require.NoError(p, err)
		for i, c := range old {
			if c.Seq = 0; c.Event != nil {
				c.Event.Seq = 0
			}
			if i < len(p.changes[vm]) {
				require.Equal(p, c, p.changes[vm][i])
			}
			old[i] = c
		}
		require.Len(p, p.changes[vm], len(old))
	}
}
