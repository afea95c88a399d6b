package engine

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

var garbage = []byte("{{{")

// damage writes rows with documents that cannot be decoded, and clears the cache.
func (r *rig) damage(w store.Writes) {
	r.Helper()
	for i := range w.VMs {
		w.VMs[i].Doc = garbage
	}
	for i := range w.Commands {
		w.Commands[i].Doc = garbage
	}
	_, err := r.db.Driver.Commit(r.Context(), w)
	require.NoError(r, err)
	r.cache.clear()
}

func (r *rig) rows(k store.Keys) store.Rows {
	r.Helper()
	rows, err := r.db.Driver.Load(r.Context(), k)
	require.NoError(r, err)
	return rows
}

// requireDamaged requires an error that names what is damaged, and is not an outage:
// retrying is useless.
func requireDamaged(t *testing.T, err error, what string) {
	t.Helper()
	require.ErrorIs(t, err, errDamaged)
	require.ErrorContains(t, err, what)
	require.NotErrorIs(t, err, fleet.ErrUnavailable)
}

// A damaged VM fails what needs it, and nothing else.
func TestDamagedVM(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	r.event("vm", t0)
	r.event("other", t0)
	r.damage(store.Writes{VMs: r.rows(store.Keys{VMs: []string{"vm"}}).VMs})
	var refused, beaten error
	r.group(
		func() { _, refused = r.Apply(t.Context(), fleet.Polled{VM: "vm"}, t0) },
		func() { beaten = r.RecordHeartbeats(t.Context(), heartbeatsOf2("vm", "other")) },
		func() { r.event("other", t0) },
	)
	requireDamaged(t, refused, "VM vm")
	require.NoError(t, beaten)
	require.Len(t, r.beats("vm"), 1, "what it says is kept all the same")
	require.Equal(t, t0.Add(time.Second), r.vm("other").LastHeartbeatAt)
	_, err := r.VM(t.Context(), "vm")
	requireDamaged(t, err, "VM vm")
	_, err = r.State(t.Context(), "vm")
	requireDamaged(t, err, "VM vm")
	_, _, err = r.VMs(t.Context(), store.VMQuery{}, 10)
	requireDamaged(t, err, "VM vm")
	r.reset(t0)
}

func heartbeatsOf2(vms ...fleet.VMID) (hs []fleet.Heartbeat) {
	for _, vm := range vms {
		hs = append(hs, fleet.Heartbeat{Origin: fleet.Origin{VM: vm, Via: fleet.HTTP, ReceivedAt: t0.Add(time.Second)}})
	}
	return hs
}

// The same for commands: one that has ended fails alone, an open one with its VM.
func TestDamagedCommand(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	for _, id := range []string{"ended", "fine"} {
		r.accept(id, "vm")
		r.apply(fleet.CancelRequested{VM: "vm", Command: fleet.CommandID(id)}, t0)
	}
	r.accept("open", "stopped")
	r.damage(store.Writes{Commands: r.rows(store.Keys{Commands: []string{"ended", "open"}}).Commands})
	var ended, again, open error
	r.group(
		func() { _, ended = r.Apply(t.Context(), fleet.CancelRequested{VM: "vm", Command: "ended"}, t0) },
		func() { _, again = r.Accept(t.Context(), drain(t, "ended", "vm")) },
		func() { _, open = r.Accept(t.Context(), drain(t, "new", "stopped")) },
		func() { r.accept("good", "vm") },
	)
	requireDamaged(t, ended, "command ended")
	requireDamaged(t, again, "command ended")
	requireDamaged(t, open, "command open")
	r.command("good")
	_, err := r.Command(t.Context(), "ended")
	requireDamaged(t, err, "command ended")
	_, _, err = r.Commands(t.Context(), store.CommandQuery{VM: "stopped"}, 10)
	requireDamaged(t, err, "command open")

	// The others are ticked, and the error names the one that is not.
	n, _, err := r.Tick(t.Context(), t0.Add(2*time.Hour), alive(0, "", t0), 10)
	requireDamaged(t, err, "command open")
	require.Equal(t, 2, n)
	require.Equal(t, fleet.Expired, r.command("good").State)
	r.reset(t0)
}

// An event, a heartbeat or a change that is damaged is named by what needs it.
func TestDamagedReports(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	r.event("other", t0)
	r.record(heartbeatsOf2("vm", "other")...)
	reported := make(chan fleet.Change, 10)
	r.Listen(func(cs []fleet.Change) {
		for _, c := range cs {
			reported <- c
		}
	})
	_, err := r.db.Driver.Commit(t.Context(), store.Writes{
		Events:     []store.EventRow{{VM: "vm", Type: "error", ReceivedAt: t0, Doc: garbage}},
		Heartbeats: []store.HeartbeatRow{{At: t0, VMs: []string{"vm"}, Doc: r.packer.EncodeAll([]byte(`{"vm":"vm",`+"\n"), nil)}},
		Changes:    []store.ChangeRow{{At: t0, VM: "vm", Kind: kindVM, Doc: garbage}, {At: t0, VM: "vm", Kind: kindEvent, Event: 1}},
	})
	require.NoError(t, err)
	r.event("other", t0)
	next := <-reported // what is damaged is left out
	require.EqualValues(t, "other", next.Subject)
	require.NotNil(t, next.Event)
	require.Equal(t, r.LastChange(), next.Seq, "and nothing follows it")
	_, _, err = r.Events(t.Context(), store.EventQuery{VM: "vm"}, 10)
	requireDamaged(t, err, "event of VM vm")
	es, _, err := r.Events(t.Context(), store.EventQuery{VM: "other"}, 10)
	require.NoError(t, err)
	require.Len(t, es, 2)
	_, _, err = r.Heartbeats(t.Context(), "vm", time.Time{}, 10)
	requireDamaged(t, err, "heartbeat of VM vm")
	require.Len(t, r.beats("other"), 1)

	again := r.second() // which has nothing in memory
	_, _, err = again.Changes(t.Context(), store.ChangeQuery{}, 10)
	requireDamaged(t, err, "change of VM vm")
	_, _, err = again.Changes(t.Context(), store.ChangeQuery{VM: "other"}, 10)
	require.NoError(t, err)
	v := r.connect("vm", t0)
	r.record(beat(v, t0.Add(time.Second), 1))
	again.reset(t0.Add(time.Second))
	require.False(t, again.vm("vm").Connected)
}
