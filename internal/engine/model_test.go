package engine_test

import (
	"slices"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// modelDeliveries is the maximum number of deliveries of a command in a random history.
const modelDeliveries = 3

// model is a second implementation of the rules of commands, sessions and registration, as
// simple as possible: it shares no code with package fleet.
type model struct {
	vms      map[string]*modelVM
	commands map[string]*modelCommand
	names    []string // of commands, in order of acceptance
	// counts are what happened, by the names of metrics.
	counts map[string]float64
}

type modelVM struct {
	epoch     int
	connected bool
	queue     []*modelCommand // open commands, in order
	// registration is "", "requested", "acked", "failed" or "cancelled"; none is ever
	// proven here. In "" and "failed" the next attempt is made at next, if the VM is
	// connected.
	registration string
	registerID   string
	failures     int
	next         time.Time
	// requested and acked are the times of those steps; grace is when an acked attempt
	// fails because its session ended; zero for none.
	requested, acked, grace time.Time
	// awaits is until when a register_runner that was sent before waits for the agent to
	// report its runner, which no agent does here; zero if it does not wait.
	awaits time.Time
}

type modelCommand struct {
	vm, kind, state string
	expires, due    time.Time
	ackTimeout      time.Duration
	epoch, attempts int
	accepted        time.Time
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
		accepted: now, expires: now.Add(ttl), due: now.Add(ttl), ackTimeout: ackTimeout,
	}
	m.commands[id] = c
	m.counts[`commands_accepted_total{type="`+kind+`"}`]++
	m.names = append(m.names, id)
	v := m.vm(vm)
	v.queue = append(v.queue, c)
	if v.connected && len(v.queue) == 1 && kind != fleet.RegisterRunner {
		m.lease(c, now)
	}
}

func (m *model) lease(c *modelCommand, now time.Time) {
	if c.kind == fleet.RegisterRunner {
		m.vm(c.vm).awaits = time.Time{}
	}
	m.counts[`commands_delivered_total{type="`+c.kind+`"}`]++
	if c.attempts == 0 {
		m.counts[`command_delivery_seconds_count{type="`+c.kind+`"}`]++
		m.counts[`command_delivery_seconds_sum{type="`+c.kind+`"}`] += now.Sub(c.accepted).Seconds()
	}
	c.state, c.epoch, c.due = "DELIVERED", m.vm(c.vm).epoch, now.Add(c.ackTimeout)
	c.attempts++
	c.sent, c.delivered = false, now
}

func (m *model) end(c *modelCommand, state string, now time.Time) {
	c.state = state
	m.counts[`commands_finished_total{state="`+state+`",type="`+c.kind+`"}`]++
	v := m.vm(c.vm)
	defer v.unqueue(c)
	if c.kind == fleet.RegisterRunner {
		v.awaits = time.Time{}
	}
	if v.registerID == "" || m.commands[v.registerID] != c || v.registration != "requested" {
		return
	}
	switch state {
	case "EXPIRED":
		m.counts[`registrations_total{outcome="expired"}`]++
		v.registration, v.next = "", c.accepted.Add(time.Minute)
	case "SUCCEEDED":
		v.registration = "acked"
	case "TIMED_OUT", "FAILED":
		v.fail(now)
	case "CANCELLED":
		m.counts[`registrations_total{outcome="cancelled"}`]++
		v.registration = "cancelled"
	}
}

func (v *modelVM) unqueue(c *modelCommand) {
	for i, q := range v.queue {
		if q == c {
			v.queue = append(v.queue[:i:i], v.queue[i+1:]...)
			break
		}
	}
}

// fail ends an attempt to register the runner. The next is made immediately after the first
// failure, and later after others: history fills in the time, which is random within
// limits.
func (v *modelVM) fail(now time.Time) {
	v.failures++
	v.registration, v.grace, v.next = "failed", time.Time{}, now
	if v.failures > 1 {
		v.next = time.Time{}
	}
}

// registers reports whether a register_runner is requested now.
func (v *modelVM) registers(now time.Time) bool {
	waits := v.registration == "" || v.registration == "failed"
	return waits && v.connected && !now.Before(v.next)
}

// pass ends what is due, or postpones that where nothing has arrived on the session.
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
			m.end(c, "EXPIRED", now)
		case c.state != "DELIVERED":
		case v.connected && c.epoch == v.epoch && now.Before(c.expires) && (!c.sent || silent[fleet.VMID(c.vm)] || !now.After(c.delivered)):
			c.due = now.Add(max(time.Second, min(now.Sub(c.delivered)/16, 15*time.Second)))
		default:
			m.end(c, "TIMED_OUT", now)
		}
	}
	for _, v := range m.vms {
		late := v.requested
		if v.acked.After(late) {
			late = v.acked
		}
		if v.registration == "acked" && (!late.Add(5*time.Minute).After(now) || !v.grace.IsZero() && !v.grace.After(now)) {
			v.fail(now)
		}
	}
}

func (m *model) connect(vm string, now time.Time) {
	m.drop(vm, now)
	v := m.vm(vm)
	v.epoch++
	v.connected = true
	for _, c := range v.queue {
		if c.kind == fleet.RegisterRunner && c.attempts > 0 {
			v.awaits = now.Add(750 * time.Millisecond)
		}
	}
}

func (m *model) drop(vm string, now time.Time) {
	v := m.vm(vm)
	if !v.connected {
		return
	}
	v.connected, v.awaits = false, time.Time{}
	if v.registration == "acked" && v.grace.IsZero() {
		v.grace = now.Add(time.Minute)
	}
	for _, c := range slices.Clone(v.queue) {
		if c.state == "DELIVERED" && c.epoch == v.epoch {
			m.sessionOver(c, now)
		}
	}
}

// sessionOver applies the end of the session on which c is in flight.
func (m *model) sessionOver(c *modelCommand, now time.Time) {
	c.due = c.expires
	switch {
	case !c.sent:
		c.attempts--
		if c.attempts == 0 {
			c.state = "PENDING"
		}
	case c.attempts == modelDeliveries:
		m.end(c, "TIMED_OUT", now)
	}
}

// crash is drop for all VMs, with leased commands counted as sent.
func (m *model) crash(now time.Time) {
	for vm, v := range m.vms {
		for _, c := range v.queue {
			c.sent = true
		}
		m.drop(vm, now)
	}
}

// deliver returns the next command to send on the VM's newest session, or nil.
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
			m.lease(c, now)
			c.sent = true
			return c
		}
	}
	return nil
}

func (m *model) ack(c *modelCommand, success bool, now time.Time) {
	if c.attempts > 0 && !c.acked {
		c.acked = true
		m.vm(c.vm).acked = now
	}
	switch {
	case c.state != "DELIVERED":
		return
	case success:
		m.end(c, "SUCCEEDED", now)
	default:
		m.end(c, "FAILED", now)
	}
	m.counts[`command_ack_seconds_count{type="`+c.kind+`"}`]++
	m.counts[`command_ack_seconds_sum{type="`+c.kind+`"}`] += now.Sub(c.delivered).Seconds()
}
