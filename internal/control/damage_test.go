package control_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

// damaged is an engine with an empty cache on a database with damaged rows.
func damaged(t *testing.T, s *world, k store.Keys, changes ...store.ChangeRow) *world {
	t.Helper()
	rows, err := s.driver.DB.Load(anyone(t), k)
	require.NoError(t, err)
	w := store.Writes{VMs: rows.VMs, Commands: rows.Commands, Changes: changes}
	for i := range w.VMs {
		w.VMs[i].Doc = []byte("{{{")
	}
	for i := range w.Commands {
		w.Commands[i].Doc = []byte("{{{")
	}
	_, err = s.driver.DB.Commit(anyone(t), w)
	require.NoError(t, err)
	return s.another()
}

// A request that names a damaged record gets ErrDamaged and no details; lists contain all
// other records, and paging continues past it.
func TestDamagedRecords(t *testing.T) {
	t.Parallel()
	s := newWorld(t)
	c := newControl(t, s)
	s.know("vm-1", "vm-2")
	for _, id := range []string{"c1", "c2", "c3", "c4"} {
		_, err := c.Send(anyone(t), drain(id), 0)
		require.NoError(t, err)
	}
	c = newControl(t, damaged(t, s, store.Keys{VMs: []string{"vm-1"}, Commands: []string{"c2", "c3"}}))
	names, pages := walk(t, listCommands(t, c, store.CommandQuery{}), 1)
	require.Equal(t, []string{"c4", "c1"}, names)
	require.Equal(t, 2, pages)
	names, _ = walk(t, listVMs(t, c, store.VMQuery{}), 1)
	require.Equal(t, []string{"vm-2"}, names)
	for name, call := range map[string]func() error{
		`command "c2"`: func() error { _, err := c.Command(anyone(t), "c2"); return err },
		`command "c3"`: func() error { _, err := c.Send(anyone(t), drain("c3"), 0); return err },
		`VM "vm-1"`:    func() error { _, err := c.VM(anyone(t), "vm-1"); return err },
	} {
		err := call()
		require.ErrorIs(t, err, fleet.ErrDamaged)
		require.EqualError(t, err, name+": "+fleet.ErrDamaged.Error())
	}
	_, err := c.Cancel(anyone(t), "c2")
	require.ErrorIs(t, err, fleet.ErrDamaged)
	beats, _, err := c.Heartbeats(anyone(t), "vm-1", 0, "")
	require.NoError(t, err)
	require.Len(t, beats, 1, "its reports exist")
	sent, err := c.Send(anyone(t), drain("c5"), 0)
	require.NoError(t, err)
	require.Equal(t, fleet.Pending, sent.State)
}

// A watch whose cursor is before a damaged change ends as if the change was purged. One
// from after it continues.
func TestWatchOfDamagedChange(t *testing.T) {
	t.Parallel()
	s := newWorld(t)
	s.know("vm-1")
	c := newControl(t, s)
	w := watch(t, c, "", "")
	before := w.bare(t)
	s = damaged(t, s, store.Keys{}, store.ChangeRow{At: start, VM: "vm-1", Kind: "command", Doc: []byte("{{{")})
	c = newControl(t, s)
	for _, vm := range []string{"", "vm-1", "vm-2"} {
		w = watch(t, c, before, vm)
		require.ErrorIs(t, <-w.ended, fleet.ErrCursorExpired)
	}
	w = watch(t, c, "", "")
	after := w.bare(t)
	s.addEvent(event("vm-1"))
	require.NotNil(t, w.next(t).Change)
	w = watch(t, c, after, "")
	w.bare(t)
	require.NotNil(t, w.next(t).Change)
}
