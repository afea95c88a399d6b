package storetest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

const (
	// modelSteps is how many operations a random history has.
	modelSteps = 12000
	// modelDeliveries is how many deliveries each of its commands may have.
	modelDeliveries = 3
)

// model is what the rules of commands, sessions and registration make of a
// history, written down a second time and as simply as possible: it shares no
// code with package fleet.
type model struct {
	vms      map[string]*modelVM
	commands map[string]*modelCommand
	names    []string // of commands, in the order of acceptance
}

type modelVM struct {
	epoch     int
	connected bool
	queue     []*modelCommand // what has not ended, in order
	// registration is "", "requested" or "failed"; none is ever proven here.
	registration string
	registerID   string
}

type modelCommand struct {
	vm, kind, state string
	expires, due    time.Time
	ackTimeout      time.Duration
	epoch, attempts int
	delivered       time.Time
	sent, acked     bool
}

func (m *model) vm(name string) *modelVM {
	if m.vms[name] == nil {
		m.vms[name] = &modelVM{}
	}
	return m.vms[name]
}

func (m *model) send(id, vm, kind string, ttl, ackTimeout time.Duration, now time.Time) {
	c := &modelCommand{
		vm: vm, kind: kind, state: "PENDING",
		expires: now.Add(ttl), due: now.Add(ttl), ackTimeout: ackTimeout,
	}
	m.commands[id] = c
	m.names = append(m.names, id)
	v := m.vm(vm)
	v.queue = append(v.queue, c)
	if v.connected && len(v.queue) == 1 && kind != fleet.RegisterRunner {
		m.claim(c, now)
	}
}

func (m *model) claim(c *modelCommand, now time.Time) {
	c.state, c.epoch, c.due = "DELIVERED", m.vm(c.vm).epoch, now.Add(c.ackTimeout)
	c.attempts++
	c.sent, c.delivered = false, now
}

func (m *model) end(c *modelCommand, state string) {
	c.state = state
	v := m.vm(c.vm)
	for i, q := range v.queue {
		if q == c {
			v.queue = append(v.queue[:i:i], v.queue[i+1:]...)
			break
		}
	}
	if v.registerID == "" || m.commands[v.registerID] != c || v.registration != "requested" {
		return
	}
	switch state {
	case "EXPIRED", "TIMED_OUT":
		v.registration = ""
	case "FAILED", "CANCELLED":
		v.registration = "failed"
	}
}

// pass ends what is past its time, or puts that off where nothing has arrived on
// the session.
func (m *model) pass(now time.Time, silent map[fleet.VMID]bool) {
	for _, id := range m.names {
		c := m.commands[id]
		v := m.vm(c.vm)
		switch {
		case c.due.After(now):
		case c.state == "PENDING":
			m.end(c, "EXPIRED")
		case c.state != "DELIVERED":
		case v.connected && c.epoch == v.epoch && now.Before(c.expires) && (silent[fleet.VMID(c.vm)] || !now.After(c.delivered)):
			c.due = now.Add(max(time.Second, min(now.Sub(c.delivered)/16, 15*time.Second)))
		default:
			m.end(c, "TIMED_OUT")
		}
	}
}

// connect returns whether a register_runner is asked for.
func (m *model) connect(vm string) (registers bool) {
	m.drop(vm)
	v := m.vm(vm)
	v.epoch++
	v.connected = true
	return v.registration == ""
}

func (m *model) drop(vm string) {
	v := m.vm(vm)
	if !v.connected {
		return
	}
	v.connected = false
	for _, c := range slices.Clone(v.queue) {
		if c.state == "DELIVERED" && c.epoch == v.epoch {
			m.sessionOver(c)
		}
	}
}

// sessionOver takes the end of the session that c is out on.
func (m *model) sessionOver(c *modelCommand) {
	c.due = c.expires
	switch {
	case !c.sent:
		c.attempts--
		if c.attempts == 0 {
			c.state = "PENDING"
		}
	case c.attempts == modelDeliveries:
		m.end(c, "TIMED_OUT")
	}
}

// crash is drop for all, in which what was not sent counts as sent.
func (m *model) crash() {
	for vm, v := range m.vms {
		for _, c := range v.queue {
			c.sent = true
		}
		m.drop(vm)
	}
}

// deliver returns what goes out next on the VM's newest session; nil for
// nothing.
func (m *model) deliver(vm string, now time.Time) *modelCommand {
	v := m.vm(vm)
	for _, c := range v.queue {
		if c.state == "DELIVERED" && c.epoch == v.epoch {
			if c.sent || !now.Before(c.expires) {
				return nil
			}
			c.sent = true
			return c
		}
	}
	for _, c := range v.queue {
		if now.Before(c.expires) {
			m.claim(c, now)
			c.sent = true
			return c
		}
	}
	return nil
}

func (m *model) ack(c *modelCommand, success bool) {
	if c.attempts > 0 {
		c.acked = true
	}
	switch {
	case c.state != "DELIVERED":
	case success:
		m.end(c, "SUCCEEDED")
	default:
		m.end(c, "FAILED")
	}
}

// history plays random operations on a store and the model side by side.
type history struct {
	*fixture
	b     Backend
	rand  *rand.Rand
	model model
	next  int
}

// testModel follows histories of sends, repeated sends, cancels, connects,
// drops, deliveries, acks, stale sessions, crashes and passing time. MODEL_SEED
// repeats one.
func testModel(t *testing.T, b Backend) {
	seed := rand.Uint64()
	if s := os.Getenv("MODEL_SEED"); s != "" {
		var err error
		seed, err = strconv.ParseUint(s, 10, 64)
		require.NoError(t, err)
	}
	t.Logf("MODEL_SEED=%d", seed)
	h := &history{
		fixture: open(t, b), b: b, rand: rand.New(rand.NewPCG(seed, 0)),
		model: model{vms: map[string]*modelVM{}, commands: map[string]*modelCommand{}},
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
	}
	total := 0
	for _, op := range ops {
		total += op.weight
	}
	for step := range modelSteps {
		n := h.rand.IntN(total)
		for _, op := range ops {
			if n -= op.weight; n < 0 {
				op.do()
				break
			}
		}
		if step%997 == 996 {
			h.opCrash()
		}
		if step%499 == 498 {
			h.compareAll()
		}
	}
	h.compareAll()
}

func (h *history) anyVM() string { return fmt.Sprintf("vm-%d", h.rand.IntN(6)) }

func (h *history) anyCommand() (string, *modelCommand) {
	if len(h.model.names) == 0 {
		h.opSend()
	}
	// Mostly the recent ones: old ones have ended.
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
	_, err := h.Cancel(h.Context(), fleet.CommandID(id), h.now)
	switch m.state {
	case "PENDING", "DELIVERED":
		require.NoError(h, err)
		h.model.end(m, "CANCELLED")
	case "CANCELLED":
		require.NoError(h, err)
	default:
		require.ErrorIs(h, err, fleet.ErrEnded)
	}
	h.compare(id)
}

func (h *history) opConnect() {
	vm := h.anyVM()
	register := h.register(fleet.VMID(vm))
	register.MaxDeliveries = modelDeliveries
	v, err := h.OpenSession(h.Context(), fleet.Hello{VM: fleet.VMID(vm)}, register,
		func() fleet.CommandID { return h.written[fleet.VMID(vm)].id }, h.now)
	require.NoError(h, err)
	if h.model.connect(vm) {
		h.model.send(string(register.ID), vm, fleet.RegisterRunner, defaults.TTL, defaults.AckTimeout, h.now)
		h.model.vm(vm).registration, h.model.vm(vm).registerID = "requested", string(register.ID)
	}
	require.EqualValues(h, h.model.vm(vm).epoch, v.Epoch)
	require.Equal(h, h.model.vm(vm).registerID, string(v.Registration.Command))
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
	h.model.drop(vm)
	require.False(h, h.vm(vm).Connected)
	h.sweepAll() // past its deadline, a command out on the session ends with it
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
	require.Same(h, want, h.model.commands[string(c.ID)], "%s was handed out", c.ID)
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
	_, late, err := h.Ack(h.Context(), fleet.VMID(m.vm), fleet.Epoch(v.epoch),
		fleet.Ack{CommandID: fleet.CommandID(id), Success: success}, h.now)
	if m.state == "PENDING" {
		require.ErrorIs(h, err, fleet.ErrNotDelivered)
		return
	}
	require.NoError(h, err)
	require.Equal(h, m.state != "DELIVERED", late)
	h.model.ack(m, success)
	h.compare(id)
}

func (h *history) opAckStale() {
	id, m := h.anyCommand()
	if e := h.model.vm(m.vm).epoch; e > 0 {
		_, _, err := h.Ack(h.Context(), fleet.VMID(m.vm), fleet.Epoch(e-1),
			fleet.Ack{CommandID: fleet.CommandID(id), Success: true}, h.now)
		require.ErrorIs(h, err, fleet.ErrSuperseded)
	}
}

// opTime lets time pass, in which something arrives from some VMs.
func (h *history) opTime() {
	clear(h.silent)
	for range 3 {
		h.silent[fleet.VMID(h.anyVM())] = true
	}
	h.later(time.Duration(h.rand.IntN(8000)) * time.Millisecond)
	h.sweepAll()
}

// sweepAll ends what is past its time.
func (h *history) sweepAll() {
	const some = 50
	for n := some; n == some; {
		n = h.sweep(some)
	}
	h.model.pass(h.now, h.silent)
}

func (h *history) opCrash() {
	h.Store = h.b.Crash(h.T, h.Store)
	_, err := h.ResetSessions(h.Context(), h.now)
	require.NoError(h, err)
	h.model.crash()
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

// compareAll holds every command against the model, and the promise of one
// command out at a time against the store itself.
func (h *history) compareAll() {
	h.Helper()
	all, err := h.Commands(h.Context(), store.CommandFilter{}, store.Page{Size: len(h.model.names) + 1})
	require.NoError(h, err)
	require.Len(h, all, len(h.model.names), "nothing is lost")
	out := map[fleet.VMID]int{}
	for i, c := range all {
		require.Equal(h, h.model.names[len(all)-1-i], string(c.ID), "the order of acceptance")
		h.same(string(c.ID), c)
		if c.State == fleet.Delivered {
			out[c.VM]++
			require.Equal(h, 1, out[c.VM], "one command out at a time")
		}
	}
}
