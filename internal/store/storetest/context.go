package storetest

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/store"
)

// Every method called with a context that has ended fails and does nothing.
func doneContext(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	d.commit(full())
	before := d.contents()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, call := range d.calls() {
		require.Error(t, call(ctx), name)
	}
	require.Equal(t, before, d.contents())
	require.NoError(t, d.Check(t.Context()), "the database remains usable")
	d.commit(store.Writes{VMs: []store.VMRow{aVM("another")}})
}

// calls are calls of every method that takes a context.
func (d *database) calls() map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"Load": func(ctx context.Context) error {
			_, err := d.Load(ctx, store.Keys{VMs: []string{"vm-1"}, Queues: []string{"normal"}, Depth: 1, Commands: []string{"c-1"}})
			return err
		},
		"Commit": func(ctx context.Context) error {
			w := full()
			for i := range w.VMs {
				w.VMs[i].ID = numbered("late", i)
			}
			for i := range w.Commands {
				w.Commands[i].ID = numbered("late", i)
			}
			for i := range w.Tokens {
				w.Tokens[i].ID = numbered("late", i)
			}
			_, err := d.Commit(ctx, w)
			return err
		},
		"Purge": func(ctx context.Context) error {
			_, err := d.Purge(ctx, store.Cutoffs{Now: at(99), Changes: at(99), Heartbeats: at(99), Events: at(99), EventsThrough: 99, Commands: at(99), VMs: at(99), Audit: at(99)}, all)
			return err
		},
		"LastFinished": func(ctx context.Context) error {
			_, _, err := d.LastFinished(ctx, store.FinishedQuery{States: []string{"done"}, Since: at(0)}, 1)
			return err
		},
		"Check":      d.Check,
		"VMs":        func(ctx context.Context) error { _, _, err := d.VMs(ctx, store.VMQuery{}, 1); return err },
		"Commands":   func(ctx context.Context) error { _, _, err := d.Commands(ctx, store.CommandQuery{}, 1); return err },
		"Events":     func(ctx context.Context) error { _, _, err := d.Events(ctx, store.EventQuery{}, 1); return err },
		"Heartbeats": func(ctx context.Context) error { _, _, err := d.Heartbeats(ctx, store.HeartbeatQuery{}, 1); return err },
		"Tokens":     func(ctx context.Context) error { _, err := d.Tokens(ctx); return err },
		"Audit":      func(ctx context.Context) error { _, _, err := d.Audit(ctx, store.AuditQuery{}, 1); return err },
		"Due":        func(ctx context.Context) error { _, _, err := d.Due(ctx, at(9), 1); return err },
		"Changes":    func(ctx context.Context) error { _, _, err := d.Changes(ctx, store.ChangeQuery{}, 1); return err },
		"Counts":     func(ctx context.Context) error { _, err := d.Counts(ctx); return err },
		"LastChange": func(ctx context.Context) error { _, err := d.LastChange(ctx); return err },
		"Mark":       func(ctx context.Context) error { _, err := d.Mark(ctx, "journaled"); return err },
	}
}

// If a context ends during a commit, the outcome is unknown to the caller, but the commit
// exists whole or not at all.
func endingContext(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	answered := map[string]bool{}
	for n := range 30 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(n)*20*time.Microsecond)
		id := numbered("n", n)
		_, err := d.Commit(ctx, store.Writes{
			VMs: []store.VMRow{aVM(id)}, Commands: []store.CommandRow{aCommand(id, id, "normal")}, Changes: []store.ChangeRow{aChange(id, id)},
		})
		cancel()
		answered[id] = err == nil
	}
	d.commit(store.Writes{Marks: map[string]int64{"swept": 1}})
	made := ids(d.changes(store.ChangeQuery{}, all), func(r store.ChangeRow) string { return r.VM })
	for id, answered := range answered {
		rows := d.load(store.Keys{VMs: []string{id}, Commands: []string{id}})
		require.Equal(t, slices.Contains(made, id), len(rows.VMs) == 1)
		require.Equal(t, slices.Contains(made, id), len(rows.Commands) == 1)
		require.True(t, slices.Contains(made, id) || !answered, "an acknowledged commit exists")
	}
}
