package storetest

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/store"
)

// A version other than the row's conflicts, whether lower or higher, and whether or not the
// row exists.
func staleRowsConflict(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	d.commit(store.Writes{
		VMs: []store.VMRow{aVM("there")}, Commands: []store.CommandRow{aCommand("there", "vm", "")}, Tokens: []store.TokenRow{aToken("there")},
	})
	d.commit(store.Writes{VMs: []store.VMRow{d.vm("there")}, Commands: []store.CommandRow{d.command("there")}, Tokens: d.tokens()})
	before := d.contents()
	for _, row := range []struct {
		id      string
		version store.Version
	}{
		{"there", 0}, {"there", 1}, {"there", 3}, {"missing", 1},
	} {
		vm, c := aVM(row.id), aCommand(row.id, "vm", "")
		vm.Version, c.Version = row.version, row.version
		require.Equal(t, &store.ConflictError{VMs: []string{row.id}}, tidyConflict(d.conflict(store.Writes{VMs: []store.VMRow{vm}})), row)
		require.Equal(t, &store.ConflictError{Commands: []string{row.id}}, tidyConflict(d.conflict(store.Writes{Commands: []store.CommandRow{c}})), row)
		token := store.TokenRow{ID: row.id, Version: row.version}
		require.Equal(t, &store.ConflictError{Tokens: []string{row.id}}, tidyConflict(d.conflict(store.Writes{Tokens: []store.TokenRow{token}})), row)
	}
	require.Equal(t, before, d.contents())
}

// A command's Seq is as loaded, or omitted; with that of another command, neither is
// changed.
func foreignSeqConflicts(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	seqs := d.commit(store.Writes{Commands: []store.CommandRow{aCommand("one", "vm", "normal"), aCommand("two", "vm", "normal")}}).Commands
	before := d.contents()
	c := d.command("one")
	for _, c.Seq = range []int64{seqs[1], seqs[1] + 1, -1} {
		require.Equal(t, []string{"one"}, d.conflict(store.Writes{Commands: []store.CommandRow{c}}).Commands, c.Seq)
	}
	require.Equal(t, before, d.contents())
	c.Seq = 0
	require.Equal(t, seqs[:1], d.commit(store.Writes{Commands: []store.CommandRow{c}}).Commands)
	require.Equal(t, seqs[0], d.command("one").Seq)
}

func tidyConflict(e *store.ConflictError) *store.ConflictError {
	return &store.ConflictError{
		VMs: append([]string(nil), e.VMs...), Commands: append([]string(nil), e.Commands...), Tokens: append([]string(nil), e.Tokens...),
	}
}

// mixed is a commit of conflicting rows among others, some first and some last.
func (d *database) mixed() store.Writes {
	old := full()
	old.VMs = append([]store.VMRow{aVM("new-1")}, old.VMs...)
	old.VMs = append(old.VMs, d.vm("fresh"), aVM("new-2"))
	old.Commands = append([]store.CommandRow{aCommand("new-1", "vm", "normal"), d.command("fresh")}, old.Commands...)
	missing := aCommand("missing", "vm", "normal")
	missing.Version = 1
	old.Commands = append(old.Commands, missing, aCommand("new-2", "vm", "normal"))
	old.Tokens = append([]store.TokenRow{aToken("new-1"), d.tokens()[0]}, old.Tokens...)
	old.RemovedTokens = []string{"fresh", "t-1"}
	old.Marks = map[string]int64{"journaled": 99, "swept": 99}
	return old
}

func (d *database) fillForConflicts() {
	d.commit(full())
	d.commit(store.Writes{VMs: []store.VMRow{aVM("fresh")}, Commands: []store.CommandRow{aCommand("fresh", "vm", "normal")}, Tokens: []store.TokenRow{aToken("fresh")}})
}

func conflictNamesAll(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	d.fillForConflicts()
	conflict := d.conflict(d.mixed())
	require.ElementsMatch(t, []string{"vm-1", "vm-2", "vm-3"}, conflict.VMs)
	require.ElementsMatch(t, []string{"c-1", "c-2", "missing"}, conflict.Commands)
	require.ElementsMatch(t, []string{"t-1", "t-2", "t-3"}, conflict.Tokens)
}

func conflictChangesNothing(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	d.fillForConflicts()
	before, due := d.contents(), sortedDue(d.due(at(99), all))
	queue := store.Keys{VMs: []string{"vm", "vm-1", "new-1"}, Queues: []string{"normal"}, Depth: 9}
	queued := d.load(queue)
	_ = d.conflict(d.mixed())
	require.Equal(t, before, d.contents())
	require.Equal(t, due, sortedDue(d.due(at(99), all)))
	require.Equal(t, queued, d.load(queue))

	// The numbers of changes continue without a gap.
	c := d.commit(store.Writes{Changes: []store.ChangeRow{aChange("vm", "next")}})
	require.Equal(t, before.LastChange+1, c.FirstChange)
}

func purgedRowConflicts(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	vm, c := aVM("vm"), aCommand("c", "vm", "")
	vm.Connected = false
	d.commit(store.Writes{VMs: []store.VMRow{vm}, Commands: []store.CommandRow{c}})
	loaded := store.Writes{VMs: []store.VMRow{d.vm("vm")}, Commands: []store.CommandRow{d.command("c")}}
	require.Equal(t, 2, d.purge(store.Cutoffs{Now: at(9), VMs: at(9), Commands: at(9)}, all))
	require.Equal(t, &store.ConflictError{VMs: []string{"vm"}, Commands: []string{"c"}}, d.conflict(loaded))

	d.commit(store.Writes{VMs: []store.VMRow{vm}, Commands: []store.CommandRow{c}})
	require.EqualValues(t, 1, d.vm("vm").Version, "a row that is recreated is a new one")
	require.EqualValues(t, 1, d.command("c").Version)
}
