package engine_test

import (
	"slices"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// modelDeliveries is how many deliveries each command of a random history may have.
const modelDeliveries = 3

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
	// awaits is until when a register_runner that was sent before waits for the agent to
	// report its runner, which none does here; zero when it does not wait.
	awaits time.Time
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
	if c.kind == fleet.RegisterRunner {
		m.vm(c.vm).awaits = time.Time{}
	}
	c.state, c.epoch, c.due = "DELIVERED", m.vm(c.vm).epoch, now.Add(c.ackTimeout)
	c.attempts++
	c.sent, c.delivered = false, now
}

func (m *model) end(c *modelCommand, state string) {
	c.state = state
	v := m.vm(c.vm)
	if c.kind == fleet.RegisterRunner {
		v.awaits = time.Time{}
	}
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

// pass ends what is past its time, or postpones that where nothing has arrived on
// the session.
func (m *model) pass(now time.Time, silent map[fleet.VMID]bool) {
	for _, v := range m.vms {
		if !v.awaits.After(now) {
			v.awaits = time.Time{}
		}
	}
	for _, id := range m.names {
		c := m.commands[id]
		v := m.vm(c.vm)
		switch {
		case c.due.After(now):
		case c.state == "PENDING":
			m.end(c, "EXPIRED")
		case c.state != "DELIVERED":
		case v.connected && c.epoch == v.epoch && now.Before(c.expires) && (!c.sent || silent[fleet.VMID(c.vm)] || !now.After(c.delivered)):
			c.due = now.Add(max(time.Second, min(now.Sub(c.delivered)/16, 15*time.Second)))
		default:
			m.end(c, "TIMED_OUT")
		}
	}
}

// connect returns whether a register_runner is asked for.
func (m *model) connect(vm string, now time.Time) (registers bool) {
	m.drop(vm)
	v := m.vm(vm)
	v.epoch++
	v.connected = true
	for _, c := range v.queue {
		if c.kind == fleet.RegisterRunner && c.attempts > 0 {
			v.awaits = now.Add(750 * time.Millisecond)
		}
	}
	return v.registration == ""
}

func (m *model) drop(vm string) {
	v := m.vm(vm)
	if !v.connected {
		return
	}
	v.connected, v.awaits = false, time.Time{}
	for _, c := range slices.Clone(v.queue) {
		if c.state == "DELIVERED" && c.epoch == v.epoch {
			m.sessionOver(c)
		}
	}
}

// sessionOver applies the end of the session that c is out on.
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
			if c.kind == fleet.RegisterRunner && c.attempts > 0 && !v.awaits.IsZero() {
				return nil
			}
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
