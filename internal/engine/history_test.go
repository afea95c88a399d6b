package engine_test

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
	"github.com/mig-controller/mig-controller/internal/testkit"
)

// history applies random operations to both an engine and the model.
type history struct {
	*fixture
	rand  *rand.Rand
	model model
	next  int
}

// random returns a source of random numbers. MODEL_SEED repeats one.
func random(t *testing.T) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	if s := os.Getenv("MODEL_SEED"); s != "" {
		var err error
		seed, err = strconv.ParseUint(s, 10, 64)
		require.NoError(t, err)
	}
	t.Logf("MODEL_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// testModel compares histories of sends, repeated sends, cancels, connects, drops,
// deliveries, acks, stale sessions, crashes and passing time, with one or two engines on
// the database.
func testModel(f *fixture) {
	f.rules.Defaults.MaxDeliveries = modelDeliveries
	f.crash()
	h := &history{
		fixture: f, rand: random(f.T),
		model: model{vms: map[string]*modelVM{}, commands: map[string]*modelCommand{}, counts: map[string]float64{}},
	}
	ops := []struct {
		weight int
		do     func()
	}{
		{24, h.opSend},
		{4, h.opSendAgain},
		{6, h.opCancel},
		{12, h.opConnect},
		{8, h.opDrop},
		{24, h.opDeliver},
		{4, h.opDeliverStale},
		{20, h.opAck},
		{3, h.opAckStale},
		{12, h.opTime},
		{4, h.opOtherEngine},
	}
	total := 0
	for _, op := range ops {
		total += op.weight
	}
	for step := range f.kind.Steps {
		n := h.rand.IntN(total)
		for _, op := range ops {
			if n -= op.weight; n < 0 {
				op.do()
				break
			}
		}
		h.follow()
		if step%997 == 996 {
			h.opCrash()
		}
		if step%499 == 498 {
			h.compareAll()
		}
	}
	h.compareAll()
	h.compareMetrics()
}

// compareMetrics compares what the engines have counted with the model.
func (h *history) compareMetrics() {
	h.Helper()
	counted, failures := map[string]float64{}, 0.0
	for _, from := range h.metrics {
		for name, n := range testkit.Metrics(h.T, from) {
			if strings.HasPrefix(name, "command") || strings.HasPrefix(name, "registrations_total") && !strings.Contains(name, "failed") {
				counted[name] += n
			} else if strings.HasPrefix(name, "registrations_total") {
				failures += n
			}
		}
	}
	for name, n := range counted {
		require.InDelta(h, h.model.counts[name], n, 1e-3, name)
	}
	for name := range h.model.counts {
		require.Contains(h, counted, name)
	}
	var failed int
	for _, v := range h.model.vms {
		failed += v.failures
	}
	require.InDelta(h, failed, failures, 0)
}

func (h *history) anyVM() string { return fmt.Sprintf("vm-%d", h.rand.IntN(6)) }

func (h *history) anyCommand() (string, *modelCommand) {
	if len(h.model.names) == 0 {
		h.opSend()
	}
	// Mostly recent ones: old ones have ended.
	n := len(h.model.names)
	id := h.model.names[n-1-h.rand.IntN(min(n, 40))]
	return id, h.model.commands[id]
}

func (h *history) opSend() {
	vm, id := h.anyVM(), fmt.Sprintf("c%d", h.next)
	h.next++
	r := fleet.CommandRequest{
		ID: id, VM: vm, Type: "drain",
		TTL:        time.Duration(1+h.rand.IntN(120)) * time.Second,
		AckTimeout: time.Duration(1+h.rand.IntN(30)) * time.Second, MaxDeliveries: modelDeliveries,
	}
	c, err := r.Accept(defaults, h.now)
	require.NoError(h, err)
	_, err = h.enqueue(c)
	require.NoError(h, err)
	h.model.send(id, vm, "drain", r.TTL, r.AckTimeout, h.now)
}

func (h *history) opSendAgain() {
	id, m := h.anyCommand()
	c, err := h.enqueue(h.request(id, m.vm, m.kind))
	require.NoError(h, err)
	require.Equal(h, m.state, string(c.State))
	_, err = h.enqueue(h.request(id, m.vm, "another_type"))
	require.ErrorIs(h, err, fleet.ErrIDTaken)
}

func (h *history) opCancel() {
	id, m := h.anyCommand()
	_, err := h.cancel(fleet.CommandID(id), h.now)
	switch m.state {
	case "PENDING", "DELIVERED":
		require.NoError(h, err)
		h.model.end(m, "CANCELLED", h.now)
	case "CANCELLED":
		require.NoError(h, err)
	default:
		require.ErrorIs(h, err, fleet.ErrEnded)
	}
	h.compare(id)
}

func (h *history) opConnect() {
	vm := h.anyVM()
	v := h.open(fleet.Hello{VM: fleet.VMID(vm)})
	h.model.connect(vm, h.now)
	h.follow()
	require.EqualValues(h, h.model.vm(vm).epoch, v.Epoch)
	h.sweepAll() // as in opDrop
}

// follow updates the model with the state of the VMs' registrations, in the order of their
// commands: which of two VMs that are due at the same time is first is up to the engine.
func (h *history) follow() {
	accepted := map[string]int64{}
	for name, m := range h.model.vms {
		if m.epoch > 0 {
			accepted[name] = 0
			if id := h.vm(name).Registration.Command; id != "" {
				accepted[name] = h.command(id).Seq
			}
		}
	}
	for _, name := range slices.SortedFunc(maps.Keys(accepted), func(a, b string) int {
		return cmp.Compare(accepted[a], accepted[b])
	}) {
		m := h.model.vms[name]
		g := h.vm(name).Registration
		if m.registration == "failed" && m.next.IsZero() {
			delay := min(15*time.Minute, 30*time.Second<<min(m.failures-2, 10))
			require.InDelta(h, delay, g.NextAttemptAt.Sub(g.LastFailure.At), float64(delay/4))
			m.next = g.NextAttemptAt
		}
		if m.registers(h.now) {
			register := string(g.Command)
			require.NotEqual(h, m.registerID, register)
			h.model.send(register, name, fleet.RegisterRunner, defaults.TTL, defaults.AckTimeout, h.now)
			m.registration, m.registerID, m.requested, m.grace = "requested", register, h.now, time.Time{}
		}
		if m.registerID != "" {
			require.Equal(h, m.registerID, string(g.Command))
		}
		require.EqualValues(h, m.failures, g.Failures)
	}
}

func (h *history) opDrop() {
	vm := h.anyVM()
	m := h.model.vm(vm)
	if m.epoch == 0 {
		return
	}
	h.drop(vm, fleet.Epoch(m.epoch-1)) // an old session's end, perhaps the second
	require.Equal(h, m.connected, h.vm(vm).Connected)
	h.drop(vm, fleet.Epoch(m.epoch))
	h.model.drop(vm, h.now)
	require.False(h, h.vm(vm).Connected)
	h.sweepAll() // an overdue command in flight on the session ends with it
}

func (h *history) opDeliver() {
	vm := h.anyVM()
	m := h.model.vm(vm)
	if !m.connected {
		return
	}
	c, err := h.deliver(vm, fleet.Epoch(m.epoch))
	want := h.model.deliver(vm, h.now)
	if want == nil {
		require.ErrorIs(h, err, fleet.ErrNothingDue)
		return
	}
	require.NoError(h, err)
	require.Same(h, want, h.model.commands[string(c.ID)], "%s was delivered", c.ID)
	h.compare(string(c.ID))
}

func (h *history) opDeliverStale() {
	vm := h.anyVM()
	if e := h.model.vm(vm).epoch; e > 0 {
		_, err := h.deliver(vm, fleet.Epoch(e-1))
		require.ErrorIs(h, err, fleet.ErrSuperseded)
	}
}

func (h *history) opAck() {
	id, m := h.anyCommand()
	v := h.model.vm(m.vm)
	if !v.connected {
		return
	}
	success := h.rand.IntN(3) > 0
	_, late, err := h.answer(fleet.VMID(m.vm), fleet.Epoch(v.epoch),
		fleet.Ack{CommandID: fleet.CommandID(id), Success: success}, h.now)
	if m.state == "PENDING" {
		require.ErrorIs(h, err, fleet.ErrNotDelivered)
		return
	}
	require.NoError(h, err)
	require.Equal(h, m.state != "DELIVERED", late)
	h.model.ack(m, success, h.now)
	h.compare(id)
}

func (h *history) opAckStale() {
	id, m := h.anyCommand()
	if e := h.model.vm(m.vm).epoch; e > 0 {
		_, _, err := h.answer(fleet.VMID(m.vm), fleet.Epoch(e-1),
			fleet.Ack{CommandID: fleet.CommandID(id), Success: true}, h.now)
		require.ErrorIs(h, err, fleet.ErrSuperseded)
	}
}

// opTime advances the time; messages arrive from some VMs.
func (h *history) opTime() {
	clear(h.silent)
	for range 3 {
		h.silent[fleet.VMID(h.anyVM())] = true
	}
	h.later(time.Duration(h.rand.IntN(8000)) * time.Millisecond)
	h.sweepAll()
}

// sweepAll ticks what is due.
func (h *history) sweepAll() {
	const some = 50
	for n := some; n >= some; {
		n = h.sweep(some)
	}
	h.model.pass(h.now, h.silent)
	h.follow()
}

// opOtherEngine continues with the other of two engines.
func (h *history) opOtherEngine() {
	if h.other == nil {
		h.pair()
	}
	h.swap()
}

func (h *history) opCrash() {
	h.crash()
	_, err := h.ResetSessions(h.Context(), h.now)
	require.NoError(h, err)
	h.model.crash(h.now)
	h.sweepAll()
	h.compareAll()
}

func (h *history) compare(id string) {
	h.Helper()
	h.same(id, h.command(fleet.CommandID(id)))
}

func (h *history) same(id string, c fleet.Command) {
	h.Helper()
	m := h.model.commands[id]
	require.Equal(h, m.state, string(c.State), id)
	require.Equal(h, m.attempts, c.Attempts, id)
	require.Equal(h, m.acked, c.Ack != nil, id)
	require.Equal(h, m.state == "PENDING" || m.state == "DELIVERED", c.FinishedAt.IsZero(), id)
}

// compareAll compares every command with the model, and checks in the store that each VM
// has at most one command in flight.
func (h *history) compareAll() {
	h.Helper()
	all, _, err := h.Commands(h.Context(), store.CommandQuery{}, len(h.model.names)+1)
	require.NoError(h, err)
	require.Len(h, all, len(h.model.names), "nothing is lost")
	out := map[fleet.VMID]int{}
	for i, c := range all {
		require.Equal(h, h.model.names[len(all)-1-i], string(c.ID), "the order of acceptance")
		h.same(string(c.ID), c)
		if c.State == fleet.Delivered {
			out[c.VM]++
			require.Equal(h, 1, out[c.VM], "one command in flight at a time")
		}
	}
}
