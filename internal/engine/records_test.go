package engine_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

// records applies random inputs of every kind to both an engine and a plain one.
type records struct {
	*fixture
	rand  *rand.Rand
	plain *plain
	step  int
	vms   []fleet.VMID
}

// testRecords checks that nothing that makes an engine fast or durable changes its answers
// and records: groups, the cache, rows that are written later, documents, and crashes.
func testRecords(f *fixture) {
	r := &records{fixture: f, rand: random(f.T)}
	f.rules.Defaults.MaxDeliveries = modelDeliveries
	f.rules.NewID = numberedIDs()
	f.crash()
	rules := f.rules
	rules.NewID = numberedIDs()
	r.plain = newPlain(rules)
	for i := range 5 {
		r.vms = append(r.vms, fleet.VMID(fmt.Sprintf("vm-%d", i)))
	}
	ops := []struct {
		weight int
		do     func()
	}{
		{20, r.opAccept},
		{5, r.opCancel},
		{8, r.opOpen},
		{5, r.opClose},
		{20, r.opDeliver},
		{8, r.opPoll},
		{3, r.opNotWritten},
		{16, r.opAck},
		{10, r.opEvent},
		{16, r.opBeat},
		{4, r.opToken},
		{10, r.opTime},
	}
	total := 0
	for _, op := range ops {
		total += op.weight
	}
	for r.step = range f.kind.Steps / 4 {
		r.later(time.Duration(1+r.rand.IntN(3e6)) * time.Microsecond / 10)
		n := r.rand.IntN(total)
		for _, op := range ops {
			if n -= op.weight; n < 0 {
				op.do()
				break
			}
		}
		if r.step%331 == 330 {
			r.crash()
			_, err := r.ResetSessions(r.Context(), r.now)
			require.NoError(r, err)
			r.plain.restart(r.now)
			for _, v := range r.plain.vms { // a crash may reset it
				v.HeartbeatInterval = r.vm(string(v.ID)).HeartbeatInterval
				r.plain.vms[v.ID] = v
			}
		}
		if r.step%331 == 329 || r.step%331 == 330 {
			r.compare()
		}
	}
	r.compare()
}

// numberedIDs returns ids that depend on the VM and the number of its earlier ids.
func numberedIDs() func(fleet.VMID) fleet.CommandID {
	taken := map[fleet.VMID]int{}
	return func(vm fleet.VMID) fleet.CommandID {
		taken[vm]++
		return fleet.CommandID(fmt.Sprintf("r-%s-%d", vm, taken[vm]))
	}
}

func (r *records) anyVM() fleet.VMID { return r.vms[r.rand.IntN(len(r.vms))] }

func (r *records) chance(percent int) bool { return r.rand.IntN(100) < percent }

// anyCommand returns one of the latest commands, and sometimes one that does not exist.
func (r *records) anyCommand() fleet.Command {
	n := len(r.plain.order)
	if n == 0 || r.chance(3) {
		return fleet.Command{ID: "none", VM: r.anyVM()}
	}
	return r.plain.commands[r.plain.order[n-1-r.rand.IntN(min(n, 60))]]
}

// epoch is usually that of the VM's newest session.
func (r *records) epoch(vm fleet.VMID) fleet.Epoch {
	if r.chance(10) {
		return r.plain.vms[vm].Epoch - 1
	}
	return r.plain.vms[vm].Epoch
}

// both applies an input to both.
func (r *records) both(in fleet.Input) error {
	r.Helper()
	want, wanted := r.plain.apply(in, r.now)
	got, err := r.Apply(r.Context(), in, r.now)
	require.Equal(r, wanted, err, "%T", in)
	require.Equal(r, numberless(want.Command), numberless(got.Command), "%T", in)
	if err == nil {
		require.Equal(r, want.State.VM, got.State.VM, "%T", in)
		require.Equal(r, want.Ready, got.Ready, "%T", in)
		require.Equal(r, []bool{want.Late, want.Stale}, []bool{got.Late, got.Stale}, "%T", in)
	}
	vm, _ := in.Subject()
	v, err := r.VM(r.Context(), vm)
	if want, known := r.plain.vms[vm]; known {
		require.NoError(r, err)
		require.Equal(r, want, v)
	}
	return wanted
}

// numberless returns a command without the numbers that the database assigns.
func numberless(c fleet.Command) fleet.Command {
	c.Seq, c.Version = 0, 0
	return c
}

func (r *records) opAccept() {
	request := fleet.CommandRequest{
		ID: fmt.Sprintf("c%d", r.step), VM: string(r.anyVM()), Type: "drain",
		TTL:           time.Duration(1+r.rand.IntN(200)) * time.Second,
		AckTimeout:    time.Duration(1+r.rand.IntN(30)) * time.Second,
		MaxDeliveries: 1 + r.rand.IntN(modelDeliveries),
	}
	switch {
	case r.chance(10):
		request.Type = fleet.RegisterRunner
	case r.chance(15):
		request.Params.Strings = map[string]string{"text": strings.Repeat("x", r.rand.IntN(3000))}
	case r.chance(12):
		request.ID = string(r.anyCommand().ID)
	}
	c, err := request.Accept(defaults, r.now)
	require.NoError(r, err)
	r.clock.Store(r.now.UnixNano())
	want, wanted := r.plain.apply(fleet.CommandAccepted{New: c}, r.now)
	got, err := r.Accept(r.Context(), c)
	require.Equal(r, wanted, err)
	require.Equal(r, numberless(want.Command), numberless(got))
}

func (r *records) opCancel() {
	c := r.anyCommand()
	_ = r.both(fleet.CancelRequested{VM: c.VM, Command: c.ID})
}

func (r *records) opOpen() {
	vm := r.anyVM()
	_ = r.both(fleet.SessionOpened{Hello: fleet.Hello{VM: vm, Pool: "p"}, Written: r.written[vm].id})
}

func (r *records) opClose() {
	vm := r.anyVM()
	_ = r.both(fleet.SessionClosed{VM: vm, Epoch: r.epoch(vm), Written: r.written[vm].id})
}

// attempt gets the next command as a session or a poll does.
func (r *records) attempt(vm fleet.VMID, via fleet.Route) {
	a := fleet.LeaseRequest{Via: via, Epoch: r.epoch(vm), WithoutToken: r.chance(20), At: r.now}
	if w := r.written[vm]; via == fleet.Stream && w.epoch == a.Epoch {
		a.Written = w.id
	}
	s, err := r.State(r.Context(), vm)
	require.NoError(r, err)
	c, err := s.Next(a)
	want, wanted := r.plain.state(vm, "").Next(a)
	require.Equal(r, wanted, err)
	require.Equal(r, numberless(want), numberless(c))
	if err != nil {
		c = r.anyCommand() // which is not due
	}
	leased := err == nil && c.LeasedTo(a.Epoch)
	if !leased {
		err = r.both(fleet.LeaseRequested{VM: vm, Command: c.ID, Request: a})
	}
	if err == nil && via == fleet.Stream && r.chance(80) {
		r.written[vm] = written{a.Epoch, c.ID}
	}
}

func (r *records) opDeliver() { r.attempt(r.anyVM(), fleet.Stream) }

func (r *records) opPoll() {
	vm := r.anyVM()
	_ = r.both(fleet.Polled{VM: vm})
	r.attempt(vm, fleet.HTTP)
}

func (r *records) opNotWritten() {
	c := r.anyCommand()
	_ = r.both(fleet.DeliveryFailed{VM: c.VM, Command: c.ID, Epoch: r.epoch(c.VM)})
}

func (r *records) opAck() {
	c := r.anyCommand()
	if w := r.written[c.VM]; r.chance(60) && w.id != "" {
		c = r.plain.commands[w.id]
	}
	if r.chance(3) {
		c.VM = r.anyVM()
	}
	_ = r.both(fleet.AckReceived{VM: c.VM, Epoch: r.epoch(c.VM), Ack: fleet.Ack{
		CommandID: c.ID, Success: r.chance(70), Message: "done",
	}})
}

func (r *records) origin(vm fleet.VMID) fleet.Origin {
	o := fleet.Origin{VM: vm, Via: fleet.HTTP, ReceivedAt: r.now, SentAt: r.now.Truncate(time.Minute)}
	if r.chance(70) {
		o.Via, o.Epoch = fleet.Stream, r.epoch(vm)
	}
	return o
}

func (r *records) opEvent() {
	kinds := []string{fleet.EventVMStarted, fleet.EventRunnerRegistered, fleet.EventJobStarted, fleet.EventJobCompleted, fleet.EventRunnerCrashed, "other"}
	err := r.both(fleet.EventReceived{Event: fleet.Event{
		Origin: r.origin(r.anyVM()), Type: kinds[r.rand.IntN(len(kinds))], Body: []byte(`{"a":1}`),
	}})
	require.NoError(r, err)
}

// opBeat sends a few heartbeats of one VM, or one over HTTP of each.
func (r *records) opBeat() {
	var hs []fleet.Heartbeat
	if r.chance(20) {
		for _, vm := range r.vms {
			o := fleet.Origin{VM: vm, Via: fleet.HTTP, ReceivedAt: r.later(time.Microsecond)}
			hs = append(hs, fleet.Heartbeat{Origin: o, RunnerState: "idle", Body: []byte(`{"b":[2]}`)})
		}
	} else {
		vm := r.anyVM()
		status := []string{"", "idle", fleet.StatusRegistering, fleet.StatusJobRunning, fleet.StatusReady, fleet.StatusConnecting, fleet.StatusError}[r.rand.IntN(7)]
		configured := r.chance(70)
		for range 1 + r.rand.IntN(3) {
			r.later(time.Microsecond)
			load := r.rand.Float64()
			h := fleet.Heartbeat{Origin: r.origin(vm), Status: status, Health: &fleet.Health{CPUPercent: &load}}
			if r.chance(50) {
				h.Runner = &fleet.Runner{State: "idle", Configured: configured, Labels: []string{"x"}}
			}
			hs = append(hs, h)
		}
	}
	r.plain.record(hs)
	require.NoError(r, r.RecordHeartbeats(r.Context(), hs))
	for _, h := range hs {
		if want, known := r.plain.vms[h.VM]; known {
			require.Equal(r, want, r.vm(string(h.VM)))
		}
	}
}

func (r *records) opToken() {
	_ = r.both(fleet.TokenUnavailable{VM: r.anyVM(), Why: []string{"no file", "empty"}[r.rand.IntN(2)]})
}

// opTime advances the time; messages arrive from some VMs.
func (r *records) opTime() {
	clear(r.silent)
	for range 2 {
		r.silent[r.anyVM()] = true
	}
	r.later(time.Duration(r.rand.Int64N(int64(15 * time.Second))))
	for {
		want := r.plain.tick(r.now, r.live)
		got, _, err := r.Tick(r.Context(), r.now, r.live, 1000)
		require.NoError(r, err)
		require.Equal(r, want, got)
		if want == 0 {
			break
		}
	}
	require.NoError(r, r.FlushRows(r.Context(), r.now))
}

// compare compares all records.
func (r *records) compare() {
	r.Helper()
	vms, _, err := r.VMs(r.Context(), store.VMQuery{}, 100)
	require.NoError(r, err)
	require.Equal(r, r.plain.sorted(), vms)
	commands, _, err := r.Commands(r.Context(), store.CommandQuery{}, 100_000)
	require.NoError(r, err)
	slices.Reverse(commands)
	require.Equal(r, len(r.plain.order), len(commands)) //nolint:testifylint // The list would be too long to read.
	for i, c := range commands {
		require.Equal(r, r.plain.commands[r.plain.order[i]], numberless(c))
	}
	events, _, err := r.Events(r.Context(), store.EventQuery{}, 100_000)
	require.NoError(r, err)
	slices.Reverse(events)
	require.Equal(r, len(r.plain.events), len(events)) //nolint:testifylint // The same.
	for i, e := range events {
		e.Seq = 0
		require.Equal(r, r.plain.events[i], e)
	}
	e := r.start(shared{r.driver}) // with an empty cache
	for _, vm := range r.vms {
		beats, _, err := r.Heartbeats(r.Context(), vm, time.Time{}, 100_000)
		require.NoError(r, err)
		slices.Reverse(beats)
		require.Equal(r, r.plain.beats[vm], beats)
		changes, _, err := e.Changes(r.Context(), store.ChangeQuery{VM: string(vm)}, 100_000)
		require.NoError(r, err)
		require.Equal(r, len(r.plain.changes[vm]), len(changes)) //nolint:testifylint // The same.
		for i, c := range changes {
			c.Seq = 0
			if c.Event != nil {
				c.Event.Seq = 0
			}
			want := r.plain.changes[vm][i]
			if c.VM != nil { // a crash may reset it
				c.VM.HeartbeatInterval = want.VM.HeartbeatInterval
			}
			require.Equal(r, want, c)
		}
	}
	require.NoError(r, e.Close())
}
