package storetest

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/store"
)

func loadRows(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	d.commit(full())
	rows := d.load(store.Keys{VMs: []string{"vm-3", "missing", "vm-1"}, Commands: []string{"missing", "c-2", "vm-1"}})
	require.Equal(t, []string{"vm-1", "vm-3"}, ids(rows.VMs, vmID), "missing rows are skipped")
	require.Equal(t, []string{"c-2"}, ids(rows.Commands, commandID))
	require.Empty(t, d.load(store.Keys{}))
	require.Empty(t, d.load(store.Keys{Queues: []string{"normal"}, Depth: 9}), "queues are those of the named VMs")
	rows = d.load(store.Keys{VMs: []string{"vm-1"}, Depth: 9})
	require.Equal(t, []string{"vm-1"}, ids(rows.VMs, vmID))
	require.Empty(t, rows.Commands, "no queue is named")
	require.Empty(t, d.load(store.Keys{VMs: []string{"vm-1"}, Queues: []string{"normal"}}).Commands, "a depth of zero")
}

// queued commits commands of two VMs. Their ids are not in the order of their Seq.
func queued(d *database) {
	d.commit(store.Writes{VMs: []store.VMRow{aVM("a"), aVM("b")}})
	for _, c := range []store.CommandRow{
		aCommand("a-none", "a", ""), aCommand("a-normal-9", "a", "normal"), aCommand("b-normal-9", "b", "normal"),
		aCommand("a-urgent-9", "a", "urgent"), aCommand("a-normal-8", "a", "normal"), aCommand("a-normal-7", "a", "normal"),
		aCommand("a-urgent-8", "a", "urgent"), aCommand("b-none", "b", ""), aCommand("a-later-9", "a", "later"),
	} {
		d.commit(store.Writes{Commands: []store.CommandRow{c}})
	}
}

func loadQueues(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	queued(d)
	for _, test := range []struct {
		vms, queues []string
		depth       int
		want        []string
	}{
		{[]string{"a"}, []string{"normal"}, 1, []string{"a-normal-9"}},
		{[]string{"a"}, []string{"normal"}, 2, []string{"a-normal-8", "a-normal-9"}},
		{[]string{"a"}, []string{"normal"}, 99, []string{"a-normal-7", "a-normal-8", "a-normal-9"}},
		{[]string{"a"}, []string{"urgent", "normal"}, 1, []string{"a-normal-9", "a-urgent-9"}},
		{[]string{"b"}, []string{"urgent", "normal"}, 2, []string{"b-normal-9"}},
		{[]string{"a", "b"}, []string{"normal", "urgent"}, 2, []string{"a-normal-8", "a-normal-9", "a-urgent-8", "a-urgent-9", "b-normal-9"}},
		{[]string{"b", "a"}, []string{"later", "normal"}, 1, []string{"a-later-9", "a-normal-9", "b-normal-9"}},
		{[]string{"a"}, []string{"unknown"}, 2, nil},
		{[]string{"c"}, []string{"normal"}, 2, nil},
	} {
		rows := d.load(store.Keys{VMs: test.vms, Queues: test.queues, Depth: test.depth})
		require.Equal(t, test.want, ids(rows.Commands, commandID), test)
		for _, c := range rows.Commands {
			want := aCommand(c.ID, c.VM, c.Queue)
			want.Seq, want.Version = d.command(c.ID).Seq, 1
			require.Equal(t, want, c)
		}
	}
}

func loadOnce(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	queued(d)
	rows := d.load(store.Keys{
		VMs: []string{"a", "b", "a"}, Queues: []string{"normal", "normal"}, Depth: 1,
		Commands: []string{"b-none", "a-normal-9", "a-normal-8", "b-none"},
	})
	require.Equal(t, []string{"a", "b"}, ids(rows.VMs, vmID))
	require.Equal(t, []string{"a-normal-8", "a-normal-9", "b-none", "b-normal-9"}, ids(rows.Commands, commandID))
}

func loadMoved(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	queued(d)
	move := func(id, queue string) {
		c := d.command(id)
		c.Queue = queue
		d.commit(store.Writes{Commands: []store.CommandRow{c}})
	}
	first := func(queue string, depth int) []string {
		return ids(d.load(store.Keys{VMs: []string{"a"}, Queues: []string{queue}, Depth: depth}).Commands, commandID)
	}
	move("a-normal-9", "urgent")
	require.Equal(t, []string{"a-normal-8"}, first("normal", 1))
	require.Equal(t, []string{"a-normal-9"}, first("urgent", 1), "its position is by its Seq, not by its arrival")
	require.Equal(t, []string{"a-normal-9", "a-urgent-9"}, first("urgent", 2))
	move("a-normal-9", "")
	require.Equal(t, []string{"a-urgent-9"}, first("urgent", 1))
	require.Equal(t, []string{"a-normal-7", "a-normal-8"}, first("normal", 9))
	move("a-none", "normal")
	require.Equal(t, []string{"a-none"}, first("normal", 1))
	for _, id := range []string{"a-none", "a-normal-7", "a-normal-8"} {
		move(id, "")
	}
	require.Empty(t, first("normal", 9))
	require.Equal(t, []string{"a-normal-7"}, ids(d.load(store.Keys{Commands: []string{"a-normal-7"}}).Commands, commandID), "it is still found by its id")
}

func loadWithoutVM(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	d.commit(store.Writes{Commands: []store.CommandRow{aCommand("c", "missing", "normal")}})
	rows := d.load(store.Keys{VMs: []string{"missing"}, Queues: []string{"normal"}, Depth: 1})
	require.Empty(t, rows.VMs)
	require.Equal(t, []string{"c"}, ids(rows.Commands, commandID))
}

func loadMany(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	const vms = 1000
	var w store.Writes
	for n := range vms {
		w.VMs = append(w.VMs, aVM(numbered("vm", n)))
	}
	for _, queue := range []string{"normal", "urgent", "", "normal"} {
		for n := range vms {
			w.Commands = append(w.Commands, aCommand(numbered("c", len(w.Commands)), numbered("vm", n), queue))
		}
	}
	want := shown(w, d.commit(w))
	byID := d.load(store.Keys{Commands: ids(w.Commands, commandID)})
	require.Len(t, byID.Commands, 4*vms)

	rows := d.load(store.Keys{VMs: ids(w.VMs, vmID), Queues: []string{"urgent", "normal"}, Depth: 1, Commands: ids(w.Commands[3*vms:3*vms+5], commandID)})
	require.Equal(t, want.VMs, rows.VMs)
	require.Equal(t, append(byID.Commands[:2*vms:2*vms], byID.Commands[3*vms:3*vms+5]...), rows.Commands)
}
