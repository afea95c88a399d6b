package engine

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
	"github.com/mig-controller/mig-controller/internal/store/memory"
)

// Lists skip damaged rows and still return as many entries as requested: a page of damaged
// rows does not end a list.
func TestListsWithoutDamage(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	for i := range 20 {
		r.accept(name(i), "vm")
	}
	var bad []string
	for i := 3; i < 19; i++ {
		bad = append(bad, name(i))
	}
	r.damageCommands(bad...)
	cs, more, err := r.Commands(t.Context(), store.CommandQuery{}, 3)
	require.NoError(t, err)
	require.True(t, more)
	require.Len(t, cs, 3)
	require.EqualValues(t, name(19), cs[0].ID)
	require.EqualValues(t, name(1), cs[2].ID)
}

// A damaged event or heartbeat is skipped, and the change of the event remains.
func TestDamagedReports(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	r.event("other", t0)
	r.record(polledHeartbeats("vm", "other")...)
	before := r.LastChange()
	log := r.logged()
	line := []byte(`{"vm":"vm",` + "\n" + `{"vm":"third"}` + "\n")
	_, err := r.db.Driver.Commit(t.Context(), store.Writes{
		Events: []store.EventRow{{VM: "vm", Type: "error", ReceivedAt: t0, Doc: garbage}},
		Heartbeats: []store.HeartbeatRow{
			{At: t0, VMs: []string{"vm", "third"}, Doc: r.packer.EncodeAll(line, nil)},
			{At: t0.Add(1), VMs: []string{"vm"}, Doc: garbage},
		},
		Changes: []store.ChangeRow{{At: t0, VM: "vm", Kind: kindEvent, Event: 1}},
	})
	require.NoError(t, err)
	es, _, err := r.Events(t.Context(), store.EventQuery{VM: "vm"}, 10)
	require.NoError(t, err)
	require.Empty(t, es)
	for range 2 {
		require.Len(t, r.beats("vm"), 1)
		require.Len(t, r.beats("third"), 1, "the other heartbeats of a row are served")
	}
	again := r.second() // with an empty cache
	changes, _, err := again.Changes(t.Context(), store.ChangeQuery{After: before}, 10)
	require.NoError(t, err)
	require.Len(t, changes, 1)
	require.Empty(t, changes[0].Event.Body)
	v := r.connect("vm", t0)
	r.record(beat(v, t0.Add(time.Second), 1))
	again.reset(t0.Add(time.Second))
	require.False(t, again.vm("vm").Connected)
	require.Len(t, log.lines, 3, "%q", log.lines) // each once
}

// Damaged events do not keep later events from the journal.
func TestDamagedEventsAreNotJournaled(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	r.event("vm", t0)
	_, err := r.db.Driver.Commit(t.Context(), store.Writes{Events: []store.EventRow{
		{VM: "vm", ReceivedAt: t0, Doc: garbage}, {VM: "vm", ReceivedAt: t0, Doc: garbage},
	}})
	require.NoError(t, err)
	require.NoError(t, r.MarkJournaled(t.Context(), 1))
	es, err := r.UnjournaledEvents(t.Context(), 1)
	require.NoError(t, err)
	require.Empty(t, es)
	r.event("vm", t0)
	es, err = r.UnjournaledEvents(t.Context(), 1)
	require.NoError(t, err)
	require.Len(t, es, 1)
}

// A reader of changes whose cursor is before a damaged change gets the same error as for a
// purged one, whatever the VM; from there on it can continue. A reader that follows another
// writer gets that error too.
func TestDamagedChange(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]store.ChangeRow{
		"document":     {At: t0, VM: "vm", Kind: kindVM, Doc: garbage},
		"another VM":   {At: t0, VM: "vm", Kind: kindVM, Doc: []byte(`{"id":"other"}`)},
		"kind":         {At: t0, VM: "vm", Kind: "kind", Doc: []byte(`{"id":"vm"}`)},
		"no event":     {At: t0, VM: "vm", Kind: kindEvent},
		"a command":    {At: t0, VM: "vm", Kind: kindCommand, Doc: garbage},
		"of nothing":   {At: t0, VM: "vm"},
		"no documents": {At: t0, VM: "vm", Kind: kindVM},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := inMemory(t)
			r.event("vm", t0)
			before := r.LastChange()
			follower := r.second()
			_, err := r.db.Driver.Commit(t.Context(), store.Writes{Changes: []store.ChangeRow{damage}})
			require.NoError(t, err)
			require.Eventually(t, func() bool { return follower.LastChange() == before+1 && r.LastChange() == before+1 },
				10*time.Second, time.Millisecond)
			again := r.second()
			for _, e := range []*rig{r, follower, again} {
				for _, vm := range []string{"", "vm", "other"} {
					_, _, err = e.Changes(t.Context(), store.ChangeQuery{VM: vm, After: before}, 10)
					require.ErrorIs(t, err, fleet.ErrCursorExpired)
				}
			}
			again.event("vm", t0)
			changes, _, err := again.Changes(t.Context(), store.ChangeQuery{After: before + 1}, 10)
			require.NoError(t, err)
			require.Len(t, changes, 1)
			require.Equal(t, before+2, changes[0].Seq)
		})
	}
}

// The engine starts on a database whose latest change is damaged.
func TestStartAfterDamagedChange(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	v := r.connect("vm", t0)
	_, err := r.db.Driver.Commit(t.Context(), store.Writes{Changes: []store.ChangeRow{{At: t0, VM: "vm", Doc: garbage}}})
	require.NoError(t, err)
	again := r.second()
	again.reset(t0)
	again.reset(t0)
	require.False(t, again.vm("vm").Connected)
	require.Greater(t, again.connect("vm", t0).Epoch, v.Epoch)
}

// A row whose columns differ from its document counts as damaged: queries would return it
// where it does not belong.
func TestColumnsMustMatch(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	r.connect("vm", t0)
	c := r.accept("c", "vm")
	r.event("vm", t0)
	rows := r.rows(store.Keys{VMs: []string{"vm"}, Commands: []string{string(c.ID)}})
	vm, command := rows.VMs[0], rows.Commands[0]
	events, _, err := r.db.Driver.Events(t.Context(), store.EventQuery{}, 1)
	require.NoError(t, err)
	require.NoError(t, r.damageChecks().Fault(vm))
	require.NoError(t, r.damageChecks().Fault(command))
	require.NoError(t, r.damageChecks().Fault(events[0]))
	for i, change := range []func(*store.VMRow){
		func(v *store.VMRow) { v.ID = "x" }, func(v *store.VMRow) { v.Pool = "x" }, func(v *store.VMRow) { v.Org = "x" },
		func(v *store.VMRow) { v.Status = "x" }, func(v *store.VMRow) { v.Connected = false },
		func(v *store.VMRow) { v.LastSeenAt = time.Time{} }, func(v *store.VMRow) { v.DueAt = t0 },
	} {
		row := vm
		change(&row)
		require.ErrorIs(t, r.damageChecks().Fault(row), errColumns, i)
	}
	for i, change := range []func(*store.CommandRow){
		func(c *store.CommandRow) { c.ID = "x" }, func(c *store.CommandRow) { c.VM = "x" }, func(c *store.CommandRow) { c.Type = "x" },
		func(c *store.CommandRow) { c.State = "x" }, func(c *store.CommandRow) { c.Queue = "" },
		func(c *store.CommandRow) { c.DueAt = time.Time{} }, func(c *store.CommandRow) { c.FinishedAt = t0 },
	} {
		row := command
		change(&row)
		require.ErrorIs(t, r.damageChecks().Fault(row), errColumns, i)
	}
	for i, change := range []func(*store.EventRow){
		func(e *store.EventRow) { e.VM = "x" }, func(e *store.EventRow) { e.Type = "x" }, func(e *store.EventRow) { e.ReceivedAt = t0.Add(1) },
	} {
		row := events[0]
		change(&row)
		require.ErrorIs(t, r.damageChecks().Fault(row), errColumns, i)
	}
}

// stubborn is a driver that never sets a row aside.
type stubborn struct {
	*memory.DB
	err error
}

func (d stubborn) SetAside(context.Context, time.Time, []store.Place, store.Check) ([]store.Aside, error) {
	return nil, d.err
}

// A row that cannot be set aside makes its readers retry, but not forever.
func TestNotSetAside(t *testing.T) {
	t.Parallel()
	for _, why := range []error{nil, errors.New("the disk is full")} {
		db := memory.New()
		r := newRig(t, stubborn{db, why})
		r.accept("c", "vm")
		r.damageCommands("c")
		_, err := r.Command(t.Context(), "c")
		require.ErrorIs(t, err, fleet.ErrUnavailable)
		if why != nil {
			require.ErrorIs(t, err, why)
		}
		_, _, err = r.Commands(t.Context(), store.CommandQuery{}, 1)
		require.ErrorIs(t, err, fleet.ErrUnavailable)
		_, err = r.Accept(t.Context(), drain(t, "another", "vm"))
		require.ErrorIs(t, err, fleet.ErrUnavailable)
		r.event("vm-2", t0)
	}
}
