package sqlstore

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

var compareVMs = []fleet.VMID{"vm-0", "vm-1", "vm-2"}

func pick[T any](p *pair, from ...T) T { return from[p.rng.IntN(len(from))] }

func (p *pair) vmID() fleet.VMID { return pick(p, compareVMs...) }

// epoch is mostly that of the VM.
func (p *pair) epoch(vm fleet.VMID) fleet.Epoch {
	e := p.vms[vm].Epoch
	switch p.rng.IntN(12) {
	case 0:
		return max(0, e-1)
	case 1:
		return e + 1
	case 2:
		return max(0, e-2)
	default:
		return e
	}
}

// anyCommand is mostly open and of the VM.
func (p *pair) anyCommand(vm fleet.VMID) fleet.CommandID {
	open := p.open(vm)
	out := slices.DeleteFunc(slices.Clone(open), func(c fleet.Command) bool { return c.State != fleet.Delivered })
	switch n := p.rng.IntN(20); {
	case n == 0 || len(p.order) == 0:
		return "unknown"
	case n < 4:
		return pick(p, p.order[max(0, len(p.order)-20):]...)
	case n < 15 && len(out) > 0:
		return pick(p, out...).ID
	case len(open) > 0:
		return pick(p, open...).ID
	default:
		return pick(p, p.order...)
	}
}

// lastWritten is what the session layer says was written last.
func (p *pair) lastWritten(vm fleet.VMID) fleet.CommandID {
	if p.chance(10) {
		return p.anyCommand(vm)
	}
	return p.written[vm]
}

func (p *pair) register(vm fleet.VMID, now time.Time) fleet.Command {
	deadline := now.Add(compareDefaults.TTL)
	return fleet.Command{
		ID: p.nextID, VM: vm, Type: fleet.RegisterRunner, CreatedAt: now.Truncate(time.Second), AcceptedAt: now,
		ExpiresAt: deadline, AckTimeout: compareDefaults.AckTimeout, MaxDeliveries: compareDefaults.MaxDeliveries,
		State: fleet.Pending, DueAt: deadline,
	}
}

func (p *pair) enqueue() (error, error) {
	vm := p.vmID()
	req := fleet.CommandRequest{
		ID: "c-" + strconv.Itoa(len(p.order)), VM: string(vm), Type: pick(p, "drain", "drain", fleet.RegisterRunner),
		TTL:           pick(p, time.Nanosecond, time.Second, 5*time.Second, time.Minute, time.Hour),
		AckTimeout:    pick(p, 0, time.Second, 30*time.Second),
		MaxDeliveries: pick(p, 0, 1, 2),
	}
	if p.chance(30) {
		req.Params = fleet.Params{Strings: map[string]string{"k": pick(p, "v", "w")}, List: []string{"x"}}
	}
	if p.chance(15) && len(p.order) > 0 {
		if old := p.commands[p.anyCommand(vm)]; old.ID != "" {
			req.ID = string(old.ID)
			if p.chance(70) {
				req.VM, req.Type, req.Params = string(old.VM), old.Type, old.Params
			}
		}
	}
	c, err := req.Accept(compareDefaults, p.now)
	require.NoError(p, err)
	claimAt := p.now.Add(time.Duration(p.rng.IntN(2)))
	out, reduced := p.reduce(fleet.CommandAccepted{New: c}, claimAt)
	got, old := p.db.Enqueue(p.Context(), c, func() time.Time { return claimAt })
	if old == nil {
		p.same(out.Command, got)
		p.write(got)
	}
	return old, reduced
}

// write has what was claimed mostly written.
func (p *pair) write(c fleet.Command) {
	if v := p.vms[c.VM]; v.Connected && c.Out(v.Epoch) && p.chance(75) {
		p.written[c.VM] = c.ID
	}
}

func (p *pair) cancel() (error, error) {
	id := p.anyCommand(p.vmID())
	out, reduced := p.reduce(fleet.CancelRequested{VM: p.commands[id].VM, Command: id}, p.now)
	got, old := p.db.Cancel(p.Context(), id, p.now)
	p.same(out.Command, got)
	return old, reduced
}

func (p *pair) openSession() (error, error) {
	h := fleet.Hello{VM: p.vmID(), Pool: pick(p, "p", "q"), Org: "o", AgentVersion: pick(p, "1", "2")}
	written := p.lastWritten(h.VM)
	out, reduced := p.reduce(fleet.SessionOpened{Hello: h, Written: written}, p.now)
	v, old := p.db.OpenSession(p.Context(), h, p.register(h.VM, p.now), func() fleet.CommandID { return written }, p.now)
	p.sameVM(out.State.VM, v)
	delete(p.written, h.VM)
	return old, reduced
}

func (p *pair) closeSession() (error, error) {
	vm := p.vmID()
	e, written := p.epoch(vm), p.lastWritten(vm)
	_, reduced := p.reduce(fleet.SessionClosed{VM: vm, Epoch: e, Written: written}, p.now)
	return p.db.CloseSession(p.Context(), vm, e, written, p.now), reduced
}

// reset closes the sessions of a controller that is no more. The store then takes
// from the records of commands what a crash may have kept from that of the VM.
func (p *pair) reset() (error, error) {
	connected := 0
	for _, vm := range compareVMs {
		if p.vms[vm].Connected {
			connected++
		}
	}
	n, old := p.db.ResetSessions(p.Context(), p.now)
	require.Equal(p, connected, n)
	if n == 0 {
		return old, nil
	}
	for _, vm := range compareVMs {
		out := slices.ContainsFunc(p.open(vm), func(c fleet.Command) bool { return c.State == fleet.Delivered })
		live := p.vms[vm].Connected
		if !live && !out {
			continue
		}
		_, err := p.reduce(fleet.ControllerRestarted{VM: vm}, p.now)
		require.NoError(p, err)
		if v, err := p.db.VM(p.Context(), vm); err == nil && live {
			mine := p.vms[vm]
			require.False(p, v.LastAckAt.Before(mine.LastAckAt) || v.LastSeenAt.Before(mine.LastSeenAt))
			mine.LastAckAt, mine.LastSeenAt = v.LastAckAt, v.LastSeenAt
			p.vms[vm] = mine
		}
		delete(p.written, vm)
	}
	return old, nil
}

func (p *pair) poll() (error, error) {
	vm := p.vmID()
	out, reduced := p.reduce(fleet.Polled{VM: vm}, p.now)
	v, old := p.db.RequestRegistration(p.Context(), vm, p.register(vm, p.now), p.now)
	p.sameVM(out.State.VM, v)
	return old, reduced
}

func (p *pair) attempt(vm fleet.VMID) fleet.Attempt {
	a := fleet.Attempt{Via: fleet.Stream, Epoch: p.epoch(vm), Written: p.lastWritten(vm), WithoutToken: p.chance(40), At: p.now}
	if p.chance(40) || !p.vms[vm].Connected && p.chance(60) {
		a.Via = fleet.HTTP
	}
	if v := p.vms[vm]; !v.Connected && a.Epoch == v.Epoch { // nobody claims for a session that is over
		a.Via = fleet.HTTP
	}
	return a
}

func (p *pair) lease() (error, error) {
	vm := p.vmID()
	a := p.attempt(vm)
	next, reduced := p.state(vm, "").Next(a)
	oldNext, old := p.db.Next(p.Context(), vm, store.Attempt(a))
	if p.vms[vm].ID == "" { // the store's Next does not know that it is in its first boot, as its Lease does
		oldNext, old = next, reduced
	}
	if old != nil || reduced != nil || p.chance(10) {
		if p.chance(70) || (old == nil) != (reduced == nil) {
			return old, reduced
		}
		next.ID = p.anyCommand(vm) // a wrong one
	} else {
		p.same(next, oldNext)
	}
	out, reduced := p.reduce(fleet.DeliveryClaimed{VM: vm, Command: next.ID, Attempt: a}, p.now)
	got, old := p.db.Lease(p.Context(), vm, next.ID, store.Attempt(a))
	if reduced == nil && old == nil {
		p.same(out.Command, got)
		p.write(got)
	}
	return old, reduced
}

func (p *pair) notWritten() (error, error) {
	id := p.anyCommand(p.vmID())
	vm := p.commands[id].VM
	e := p.epoch(vm)
	if p.written[vm] == id && p.chance(80) {
		delete(p.written, vm)
	}
	_, reduced := p.reduce(fleet.DeliveryFailed{VM: vm, Command: id, Epoch: e}, p.now)
	return p.db.NotWritten(p.Context(), id, e, p.now), reduced
}

// tokenMissing is noted when a register_runner is next.
func (p *pair) tokenMissing() (error, error) {
	vm := p.vmID()
	before := p.vms[vm].TokenWait
	why := pick(p, "no file", "no answer")
	out, reduced := p.reduce(fleet.TokenUnavailable{VM: vm, Why: why}, p.now)
	news, old := p.db.TokenMissing(p.Context(), vm, why, p.now)
	require.Equal(p, news, reduced == nil && out.State.VM.TokenWait != before)
	return old, reduced
}

func (p *pair) ack() (error, error) {
	vm := p.vmID()
	at := p.now
	if p.chance(20) && p.chance(50) { // it was read a while ago
		at = at.Add(-time.Duration(p.rng.IntN(3000)) * time.Millisecond)
	}
	a := fleet.Ack{CommandID: p.anyCommand(vm), Success: p.chance(60), Message: pick(p, "", "done")}
	if p.chance(30) {
		a.Result = map[string]string{"k": "v"}
	}
	e := p.epoch(vm)
	out, reduced := p.reduce(fleet.AckReceived{VM: vm, Epoch: e, Ack: a}, at)
	got, late, old := p.db.Ack(p.Context(), vm, e, a, at)
	if old == nil && reduced == nil {
		p.same(out.Command, got)
		require.Equal(p, late, out.Late)
	}
	return old, reduced
}

func (p *pair) origin(vm fleet.VMID) fleet.Origin {
	o := fleet.Origin{
		VM: vm, Via: fleet.Stream, Epoch: p.epoch(vm), ReceivedAt: p.now, Pool: pick(p, "", "p", "q"), Org: pick(p, "", "o"),
	}
	if p.chance(25) {
		o.Via, o.Epoch = fleet.HTTP, 0
	}
	if p.chance(15) {
		o.ReceivedAt = p.now.Add(-time.Duration(p.rng.IntN(20)) * time.Second)
	}
	return o
}

func (p *pair) event() (error, error) {
	e := fleet.Event{
		Origin: p.origin(p.vmID()),
		Type:   pick(p, fleet.EventVMStarted, fleet.EventRunnerRegistered, fleet.EventJobStarted, "other"),
		Body:   []byte(pick(p, `{}`, `{"a":1}`)),
	}
	switch started := p.vms[e.VM].StartedAt; p.rng.IntN(3) {
	case 0:
		e.SentAt = started
	case 1:
		e.SentAt = e.ReceivedAt.Truncate(time.Second)
	}
	out, reduced := p.reduce(fleet.EventReceived{Event: e}, e.ReceivedAt)
	v, _, old := p.db.RecordEvent(p.Context(), e, p.register(e.VM, e.ReceivedAt))
	p.proven(e.VM)
	v.TokenWait = out.State.VM.TokenWait // see proven
	p.sameVM(out.State.VM, v)
	return old, reduced
}

// proven takes over that the store goes on waiting for a token after a
// register_runner was proven. It should not: the end of the command clears it.
func (p *pair) proven(vm fleet.VMID) {
	v, err := p.db.VM(p.Context(), vm)
	mine := p.vms[vm]
	before := p.before[vm].TokenWait
	ended := slices.ContainsFunc(p.touched, func(id fleet.CommandID) bool {
		c := p.commands[id]
		return c.VM == vm && c.NeedsToken() && c.State == fleet.Succeeded
	})
	if err == nil && ended && mine.TokenWait == (fleet.TokenWait{}) && v.TokenWait == before && before != mine.TokenWait {
		p.done["deviation: TokenWait after a proof"]++
		mine.TokenWait = before
		p.vms[vm] = mine
	}
}

func (p *pair) beat(vm fleet.VMID) fleet.Heartbeat {
	h := fleet.Heartbeat{Origin: p.origin(vm), Status: pick(p, "", "idle", fleet.StatusRegistering, fleet.StatusJobRunning, fleet.StatusDraining)}
	switch {
	case h.Via == fleet.HTTP:
		h.RunnerState = pick(p, "", "idle", "offline")
	case p.chance(80):
		h.Runner = &fleet.Runner{State: "s", Configured: p.chance(40), Name: pick(p, "", "r")}
	}
	if p.chance(30) {
		h.Job = &fleet.Job{JobID: pick(p, "1", "2"), Status: "running"}
	}
	if p.chance(30) {
		cpu := float64(p.rng.IntN(100))
		h.Health = &fleet.Health{CPUPercent: &cpu}
	}
	return h
}

func (p *pair) beats() (error, error) {
	var hs []fleet.Heartbeat
	for range 1 + p.rng.IntN(4) {
		hs = append(hs, p.beat(p.vmID()))
	}
	slices.SortStableFunc(hs, func(a, b fleet.Heartbeat) int { return a.ReceivedAt.Compare(b.ReceivedAt) })
	made := map[fleet.VMID]time.Time{}
	base := p.nextID
	for _, h := range hs {
		p.nextID = fleet.CommandID(fmt.Sprint(base, "-", h.VM))
		out, err := p.reduce(fleet.HeartbeatReceived{Heartbeat: &h}, h.ReceivedAt)
		require.NoError(p, err)
		if slices.ContainsFunc(out.Commands, func(c fleet.Command) bool { return c.ID == p.nextID }) {
			made[h.VM] = cmp.Or(made[h.VM], h.ReceivedAt)
			p.done["restart shown by a heartbeat"]++
		}
	}
	// The store takes them VM by VM.
	slices.SortStableFunc(p.order[len(p.order)-len(made):], func(a, b fleet.CommandID) int { return cmp.Compare(p.commands[a].VM, p.commands[b].VM) })
	old := p.db.RecordHeartbeats(p.Context(), hs, func(vm fleet.VMID) fleet.Command {
		p.nextID = fleet.CommandID(fmt.Sprint(base, "-", vm))
		return p.register(vm, made[vm])
	})
	for _, vm := range compareVMs {
		p.proven(vm)
	}
	return old, nil
}

func (p *pair) sweep() (error, error) {
	live := map[fleet.VMID]fleet.Live{}
	for _, vm := range compareVMs {
		live[vm] = fleet.Live{Epoch: p.epoch(vm), Written: p.lastWritten(vm), LastMessageAt: p.now.Add(-time.Duration(p.rng.IntN(8000)) * time.Millisecond)}
		if p.chance(30) {
			live[vm] = fleet.Live{Epoch: p.epoch(vm), Written: p.lastWritten(vm)}
		}
	}
	due := p.due(p.now)
	for _, c := range due {
		_, err := p.reduce(fleet.Tick{VM: c.VM, Command: c.ID, Live: live[c.VM]}, p.now)
		require.NoError(p, err)
	}
	n, old := p.db.Sweep(p.Context(), p.now, func(c fleet.Command) time.Time {
		if l := live[c.VM]; c.Out(l.Epoch) && c.ID == l.Written {
			return l.LastMessageAt
		}
		return time.Time{}
	}, 1<<20)
	require.Equal(p, len(due), n)
	return old, nil
}
