package fleet

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// snapshot is all of a state, including the spare capacity of its slices.
func snapshot(tb testing.TB, s State) string {
	tb.Helper()
	doc, err := json.Marshal([]any{s.VM, s.Commands[:cap(s.Commands)], s.Named, len(s.Commands)})
	require.NoError(tb, err)
	return string(doc)
}

// world is a VM with all of its commands that is changed by Reduce alone. Its data
// determine what happens.
type world struct {
	testing.TB
	data     []byte
	now      time.Time
	vm       VM
	commands map[CommandID]Command
	order    []CommandID // the order of acceptance
	rules    Rules
	steps    int
}

func newWorld(tb testing.TB, data []byte) *world {
	tb.Helper()
	w := &world{TB: tb, data: data, now: t0, commands: map[CommandID]Command{}}
	w.rules = testRules
	w.rules.NewID = func(VMID) CommandID { return CommandID(fmt.Sprint("reg-", len(w.order))) }
	return w
}

// below makes a decision: a number below n, zero when there is no more data.
func (w *world) below(n int) int {
	if len(w.data) == 0 {
		return 0
	}
	b := w.data[0]
	w.data = w.data[1:]
	return int(b) % n
}

// open returns the open commands, oldest first, up to this many of each queue.
func (w *world) open(depth int) (open []Command) {
	taken := map[Queue]int{}
	for _, id := range w.order {
		c := w.commands[id]
		if c.State.Terminal() {
			continue
		}
		taken[c.Queue()]++
		if taken[c.Queue()] <= depth {
			open = append(open, c)
		}
	}
	return open
}

// state returns as much as an input needs.
func (w *world) state(named CommandID) State {
	s := State{VM: w.vm, Commands: w.open(QueueDepth)}
	if s.index(named) < 0 {
		s.Named = w.commands[named]
	}
	return s
}

func (w *world) pass() {
	steps := []time.Duration{0, time.Millisecond, time.Second, 5 * time.Second, time.Minute, 10 * time.Minute}
	w.now = w.now.Add(time.Microsecond + steps[min(w.below(len(steps)), w.below(len(steps)))])
}

// step applies one random input, and checks its outcome.
func (w *world) step() {
	w.Helper()
	w.pass()
	in := w.input()
	_, named := in.Subject()
	s := w.state(named)
	before := snapshot(w, s)
	out, err := w.rules.Reduce(s, in, w.now)
	require.Equal(w, before, snapshot(w, s), "%#v changes its argument", in)
	again, errAgain := w.rules.Reduce(s, in, w.now)
	require.Equal(w, err, errAgain)
	require.Equal(w, out, again, "%#v is deterministic", in)
	w.steps++
	if w.steps%8 == 0 {
		w.requireApart(s, out)
	}
	if err != nil {
		require.Equal(w, Outcome{State: s, Command: out.Command}, out)
		requireDomain(w, err)
		return
	}
	w.requireSound(in, out)
	w.apply(out)
	w.requireReady(s, in, out)
}

// requireApart checks that a state shares no memory with later ones.
func (w *world) requireApart(s State, out Outcome) {
	w.Helper()
	before := snapshot(w, out.State)
	for _, from := range []State{s, out.State} {
		for _, id := range []CommandID{"x", "y"} {
			next, err := w.rules.Reduce(from, CommandAccepted{New: drain(id)}, w.now)
			require.NoError(w, err)
			kept := snapshot(w, next.State)
			for _, c := range from.Commands {
				_, err := w.rules.Reduce(from, CancelRequested{VM: "vm", Command: c.ID}, w.now)
				require.NoError(w, err)
			}
			_, err = w.rules.Reduce(from, CommandAccepted{New: drain("z")}, w.now)
			require.NoError(w, err)
			require.Equal(w, kept, snapshot(w, next.State))
		}
	}
	require.Equal(w, before, snapshot(w, out.State))
}

func requireDomain(tb testing.TB, err error) {
	tb.Helper()
	for _, e := range []error{ErrNotFound, ErrIDTaken, ErrEnded, ErrNotDelivered, ErrNotDue, ErrNothingDue, ErrSuperseded} {
		if errors.Is(err, e) {
			return
		}
	}
	require.NoError(tb, err)
}

// requireSound checks the invariants of every outcome.
func (w *world) requireSound(in Input, out Outcome) {
	w.Helper()
	_, opens := in.(SessionOpened)
	v := out.State.VM
	if opens {
		require.Equal(w, w.vm.Epoch+1, v.Epoch)
	} else {
		require.Equal(w, w.vm.Epoch, v.Epoch)
	}
	require.GreaterOrEqual(w, v.Boot, w.vm.Boot)
	require.False(w, !v.Connected && !v.TokenWait.RetryAt.IsZero(), "no token is requested without a session")
	require.False(w, !v.AwaitsRunnerUntil.IsZero() && v.DueAt.IsZero(), "a wait for the runner has a timer")
	require.True(w, v.DueAt.IsZero() || v.DueAt.After(w.now) || !isTick(in), "a Tick leaves nothing due: %+v", v)
	requireSoundRegistration(w, v, out.State)
	moved := map[CommandID]bool{}
	for _, c := range out.Commands {
		require.False(w, moved[c.ID], "twice")
		moved[c.ID] = true
		w.requireSoundCommand(w.commands[c.ID], c)
	}
	for _, c := range out.Changes {
		require.False(w, c.Command != nil && !moved[c.Command.ID])
	}
	for _, c := range out.State.Commands {
		require.False(w, c.State.Terminal())
		require.True(w, moved[c.ID] || c.ID == w.commands[c.ID].ID)
	}
}

func requireSoundRegistration(w *world, v VM, s State) {
	w.Helper()
	g := v.Registration
	require.True(w, g.State == Requested || g.CheckAt.IsZero() && (g.State == RegFailed || g.GraceUntil.IsZero()), "only an attempt is checked: %+v", g)
	require.True(w, g.State == Registered || g.Probe == "" && g.ProbeAt.IsZero(), "only a registered runner is probed: %+v", g)
	require.True(w, v.Connected || g.Probe == "" && g.ProbeAt.IsZero(), "only on a session: %+v", g)
	require.True(w, g.State != Registered || g.Failures == 0 && g.NextAttemptAt.IsZero(), "a proof ends all failures: %+v", g)
	require.True(w, g.State != RegFailed || g.Failures > 0 || g.NextAttemptAt.IsZero(), "%+v", g)
	require.True(w, g.Failures == 0 || !g.LastFailure.At.IsZero())
	if g.Probe != "" {
		require.GreaterOrEqual(w, s.index(g.Probe), 0, "a probe that has ended is cleared")
	}
	require.False(w, v.Job != nil && !v.SpentAt.IsZero(), "a spent VM has no job")
}

func isTick(in Input) bool { _, ok := in.(Tick); return ok }

func (w *world) requireSoundCommand(before, after Command) {
	w.Helper()
	if before.State.Terminal() && before.ID != "" {
		require.Equal(w, before.State, after.State, "a terminal state changes")
		require.Equal(w, before.FinishedAt, after.FinishedAt)
	}
	require.LessOrEqual(w, after.Attempts, after.MaxDeliveriesOrDefault())
	require.GreaterOrEqual(w, after.Attempts, 0)
	require.Equal(w, after.State.Terminal(), after.DueAt.IsZero())
	if after.Attempts > before.Attempts {
		require.True(w, after.Last.At.Before(after.ExpiresAt), "delivered after its deadline")
		require.Equal(w, Delivered, after.State)
	}
}

// apply applies an outcome.
func (w *world) apply(out Outcome) {
	w.Helper()
	w.vm = out.State.VM
	for _, c := range out.Commands {
		if _, ok := w.commands[c.ID]; !ok {
			w.order = append(w.order, c.ID)
		}
		w.commands[c.ID] = c
	}
	d, n := w.delivery(), 0
	for _, c := range w.open(len(w.order)) {
		if c.InFlight(d) {
			n++
		}
	}
	require.LessOrEqual(w, n, 1, "in flight on one session")
}

// delivery is how a command would be delivered now.
func (w *world) delivery() Delivery {
	d := Delivery{Via: HTTP, Epoch: w.vm.Epoch, Boot: max(1, w.vm.Boot), At: w.now}
	if w.vm.Connected {
		d.Via = Stream
	}
	return d
}

// requireReady checks that Ready is what can be sent, considering all commands, and is set
// exactly when something has changed.
func (w *world) requireReady(before State, in Input, out Outcome) {
	w.Helper()
	open, d, v := w.open(len(w.order)), w.delivery(), w.vm
	changed := len(out.Commands) > 0 || v.Differs(before.VM)
	tokenDue := v.TokenWait == TokenWait{} || !w.now.Before(v.TokenWait.RetryAt)
	switch in := in.(type) {
	case Tick:
		due := before.VM.TokenWait.RetryAt
		asks := !due.IsZero() && !w.now.Before(due) && v.TokenWait != TokenWait{}
		changed, tokenDue = changed || asks && v.TokenWait.RetryAt.After(w.now), tokenDue || asks
	case TokenUnavailable:
		changed = changed || slices.ContainsFunc(open, Command.NeedsToken)
	case CommandAccepted:
		if c := w.commands[in.New.ID]; len(out.Commands) > 0 && c.LeasedTo(v.Epoch) {
			require.Equal(w, Ready{Command: c.ID}, out.Ready, "leased")
			return
		}
	}
	if len(open) > len(w.open(QueueDepth-1)) {
		return // an overdue command may hide others until it is ended, and too many may be in flight
	}
	next, err := NextDelivery(open, d, "", !tokenDue)
	if !v.AwaitsRunnerUntil.IsZero() && next.repeatsRegistration() {
		err = ErrNothingDue
	}
	want := Ready{Command: next.ID, Prepare: next.NeedsToken()}
	if err != nil || !v.Connected || !changed || next.LeasedTo(v.Epoch) {
		want = Ready{}
	}
	require.Equal(w, want, out.Ready, "%#v", in)
}

// Reduce is pure, and its decisions are sound, for every history. MODEL_SEED repeats one
// history.
func TestReduceHistories(t *testing.T) {
	t.Parallel()
	seeds := make([]uint64, 6)
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
			rng := rand.New(rand.NewPCG(seed, 0))
			data := make([]byte, 1200)
			for i := range data {
				data[i] = byte(rng.UintN(256))
			}
			for w := newWorld(t, data); len(w.data) > 0; {
				w.step()
			}
		})
	}
}

// FuzzReduce looks for a history with an outcome that is not sound.
func FuzzReduce(f *testing.F) {
	rng := rand.New(rand.NewPCG(1, 0))
	for n := 8; n <= 512; n *= 2 {
		data := make([]byte, n)
		for i := range data {
			data[i] = byte(rng.UintN(256))
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		w := newWorld(t, data[:min(len(data), 512)])
		for len(w.data) > 0 {
			w.step()
		}
	})
}
