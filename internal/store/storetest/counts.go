package storetest

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/store"
)

// sorted returns counts in a fixed order.
func sorted(c store.Counts) store.Counts {
	slices.SortFunc(c.VMs, func(a, b store.VMCount) int {
		return cmp.Or(cmp.Compare(a.Pool, b.Pool), cmp.Compare(a.Status, b.Status), compareBools(a.Connected, b.Connected))
	})
	slices.SortFunc(c.Queues, func(a, b store.QueueCount) int {
		return cmp.Or(cmp.Compare(a.Queue, b.Queue), compareBools(a.Connected, b.Connected))
	})
	return c
}

// compareBools orders false before true.
func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	default:
		return -1
	}
}

// counts returns the counts in a fixed order.
func (d *database) counts() store.Counts {
	d.Helper()
	c, err := d.Counts(d.Context())
	require.NoError(d, err)
	return sorted(c)
}

// listed returns the counts of what the lists contain.
func (d *database) listed() (c store.Counts) {
	d.Helper()
	connected := map[string]bool{}
	for _, row := range d.vms(store.VMQuery{}, all) {
		connected[row.ID] = row.Connected
		i := slices.IndexFunc(c.VMs, func(n store.VMCount) bool {
			return n.Pool == row.Pool && n.Status == row.Status && n.Connected == row.Connected
		})
		if i < 0 {
			i, c.VMs = len(c.VMs), append(c.VMs, store.VMCount{Pool: row.Pool, Status: row.Status, Connected: row.Connected})
		}
		c.VMs[i].N++
	}
	for _, row := range d.commands(store.CommandQuery{}, all) { // highest Seq first
		if row.Queue == "" {
			continue
		}
		i := slices.IndexFunc(c.Queues, func(n store.QueueCount) bool {
			return n.Queue == row.Queue && n.Connected == connected[row.VM]
		})
		if i < 0 {
			i, c.Queues = len(c.Queues), append(c.Queues, store.QueueCount{Queue: row.Queue, Connected: connected[row.VM]})
		}
		c.Queues[i].N++
		c.Queues[i].First = row.Seq
	}
	return sorted(c)
}

// oneOf returns a random value.
func oneOf[V any](values ...V) V { return values[rand.IntN(len(values))] }

// countsFollow makes random changes and compares the counts with the lists after each.
func countsFollow(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	require.Equal(t, store.Counts{}, d.counts())
	for round := range 60 {
		d.changeRandomRows(round)
		switch round % 6 {
		case 2:
			d.purge(store.Cutoffs{Now: at(99), VMs: at(2), Commands: at(5)}, oneOf(1, 3))
		case 4:
			d.setAside()
		}
		require.Equal(t, d.listed(), d.counts())
	}
	require.NotEmpty(t, d.counts().VMs)
	require.NotEmpty(t, d.counts().Queues)
}

// changeRandomRows writes a VM and two commands, which may be damaged.
func (d *database) changeRandomRows(round int) {
	d.Helper()
	id := numbered("vm", rand.IntN(12))
	rows := d.load(store.Keys{VMs: []string{id}, Commands: []string{numbered("c", rand.IntN(20)), numbered("new", round)}})
	if len(rows.VMs) == 0 {
		rows.VMs = []store.VMRow{{ID: id}}
	}
	v := &rows.VMs[0]
	v.Pool, v.Status, v.Connected = oneOf("", "p", "q's \x00 pool"), oneOf("", "idle", "busy"), oneOf(true, false)
	v.LastSeenAt, v.Doc = at(rand.IntN(4)), []byte(oneOf("fine", "fine", broken))
	used := map[string]bool{}
	for _, row := range rows.Commands {
		used[row.ID] = true
	}
	for _, id := range []string{numbered("new", round), numbered("c", round)} {
		if !used[id] && rows.Aside.Commands[id] == 0 {
			rows.Commands = append(rows.Commands, store.CommandRow{ID: id, VM: numbered("vm", rand.IntN(12))})
		}
	}
	for i := range rows.Commands {
		c := &rows.Commands[i]
		c.State, c.Queue, c.Doc = oneOf("PENDING", "DONE"), oneOf("", "out", "normal"), []byte(oneOf("fine", "fine", broken))
		if c.State == "DONE" {
			c.FinishedAt = at(rand.IntN(9))
		}
	}
	d.commit(store.Writes{VMs: rows.VMs, Commands: rows.Commands})
}

// countsSurvive checks that counts are those of what is stored.
func countsSurvive(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	d.commit(full())
	want := store.Counts{
		VMs:    []store.VMCount{{N: 1}, {Pool: "pool of vm-1", Status: "idle", Connected: true, N: 1}, {Pool: "pool of vm-2", Status: "idle", Connected: true, N: 1}},
		Queues: []store.QueueCount{{Queue: "normal", Connected: true, N: 1, First: 1}},
	}
	require.Equal(t, want, d.counts())
	d = opened(t, drivers.Crash(t, d.Driver))
	require.Equal(t, want, d.counts())
}
