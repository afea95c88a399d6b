package engine

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

// wrecked is a database file with random damaged values.
type wrecked struct {
	*testing.T
	rand *rand.Rand
	path string
	// The contents before the damage.
	vms      map[string]fleet.VM
	commands map[string]fleet.Command
	events   map[int64]fleet.Event
	// bad are the damaged rows, by table and rowid, and rows are all rows, by id.
	bad  map[store.Place]string
	rows map[store.Place]string
}

// Whichever values of a database are damaged, the engine starts on it: all undamaged
// records survive, VMs connect and get commands, and every other command ends in time. The
// next start finds no further damage.
func TestRandomDamage(t *testing.T) {
	t.Parallel()
	for range 3 {
		seed := rand.Uint64()
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			w := &wrecked{
				T: t, rand: rand.New(rand.NewPCG(seed, 0)),
				path: filepath.Join(t.TempDir(), "controller.db"), vms: map[string]fleet.VM{}, commands: map[string]fleet.Command{},
				events: map[int64]fleet.Event{}, bad: map[store.Place]string{}, rows: map[store.Place]string{},
			}
			w.populate()
			w.damage(1 + w.rand.IntN(60))
			w.requireServed(w.open())
			again := w.open()
			log := again.logged()
			again.reset(t0)
			w.requireLists(again)
			require.Empty(t, log.lines, "all damage was found before")
		})
	}
}

func (w *wrecked) open() *rig {
	w.Helper()
	r := openFile(w.T, w.path)
	r.Engine.Log = slog.New(slog.DiscardHandler)
	return r
}

// populate fills the file as a run that is killed would.
func (w *wrecked) populate() {
	w.Helper()
	r := w.open()
	for i := range 80 {
		vm := fleet.VMID(fmt.Sprint("vm-", w.rand.IntN(12)))
		now := t0.Add(time.Duration(i) * time.Second)
		switch w.rand.IntN(7) {
		case 0:
			r.connect(vm, now)
		case 1:
			r.event(vm, now)
		case 2:
			r.record(fleet.Heartbeat{Origin: fleet.Origin{VM: vm, Via: fleet.HTTP, ReceivedAt: now}, Status: "idle"})
		case 3:
			c := r.accept(name(i), vm)
			if c.State == fleet.Delivered {
				r.ack(c.ID, r.vm(vm), now)
			}
		default:
			r.accept(name(i), vm)
		}
	}
	vms, _, err := r.VMs(w.Context(), store.VMQuery{}, 1000)
	require.NoError(w, err)
	for _, v := range vms {
		w.vms[string(v.ID)] = v
	}
	cs, _, err := r.Commands(w.Context(), store.CommandQuery{}, 1000)
	require.NoError(w, err)
	for _, c := range cs {
		w.commands[string(c.ID)] = c
	}
	events, _, err := r.Events(w.Context(), store.EventQuery{}, 1000)
	require.NoError(w, err)
	for _, e := range events {
		w.events[e.Seq] = e
	}
	require.NoError(w, r.Close())
}

// columns are the columns that are damaged, by table.
var columns = map[store.Class][]string{
	store.ClassVMs:        {"vm_id", "pool_id", "org_id", "status", "connected", "last_seen_at", "due_at", "version", "doc"},
	store.ClassCommands:   {"id", "vm_id", "type", "state", "queue", "due_at", "finished_at", "version", "doc"},
	store.ClassEvents:     {"vm_id", "type", "received_at", "doc"},
	store.ClassHeartbeats: {"at", "docs"},
	store.ClassChanges:    {"at", "vm_id", "kind", "event_seq", "doc"},
	store.ClassTokens:     {"id", "version", "doc"},
	store.ClassAudit:      {"at", "principal", "action", "vm_id", "command_id", "outcome", "doc"},
}

// damage damages random values.
func (w *wrecked) damage(values int) {
	w.Helper()
	db, err := sql.Open("sqlite", "file:"+w.path)
	require.NoError(w, err)
	defer func() { require.NoError(w, db.Close()) }()
	var places []store.Place
	for class := range columns {
		id := map[store.Class]string{store.ClassVMs: "vm_id", store.ClassCommands: "id"}[class]
		if id == "" {
			id = "''"
		}
		rows, err := db.QueryContext(w.Context(), fmt.Sprintf("SELECT rowid, %s FROM %s", id, class))
		require.NoError(w, err)
		for rows.Next() {
			p := store.Place{Class: class}
			var id string
			require.NoError(w, rows.Scan(&p.Row, &id))
			w.rows[p] = id
			places = append(places, p)
		}
		require.NoError(w, errors.Join(rows.Err(), rows.Close())) //nolint:sqlclosecheck // before the next query
	}
	for range values {
		p := places[w.rand.IntN(len(places))]
		column := columns[p.Class][w.rand.IntN(len(columns[p.Class]))]
		value := []any{nil, "x", "", 7, -1, 1.5, []byte{0xff, 0}, []byte("{{{"), []byte("{}"), []byte("null")}[w.rand.IntN(10)]
		_, err := db.ExecContext(w.Context(), fmt.Sprintf("UPDATE %s SET %s = ? WHERE rowid = ?", p.Class, column), value, p.Row)
		if err == nil { // SQLite enforces NOT NULL and UNIQUE
			w.bad[p] = fmt.Sprintf("%s = %v", column, value)
		}
	}
}

// isBad reports whether the row with this id was damaged.
func (w *wrecked) isBad(class store.Class, id string) (bad bool) {
	for p := range w.bad {
		bad = bad || p.Class == class && w.rows[p] == id
	}
	return bad
}

// requireServed uses every record.
func (w *wrecked) requireServed(r *rig) {
	w.Helper()
	r.reset(t0.Add(time.Hour / 2))
	w.requireLists(r)
	for id, c := range w.commands {
		got, err := r.Command(w.Context(), fleet.CommandID(id))
		if !w.isBad(store.ClassCommands, id) {
			require.NoError(w, err)
			require.Equal(w, c.Params, got.Params)
		} else if err != nil && !errors.Is(err, fleet.ErrNotFound) {
			require.ErrorIs(w, err, fleet.ErrDamaged)
			_, err = r.Accept(w.Context(), drain(w.T, id, c.VM))
			require.ErrorIs(w, err, fleet.ErrDamaged, "its id remains in use")
		}
	}
	for id, v := range w.vms {
		now := r.connect(v.ID, t0.Add(time.Hour/2))
		if !w.isBad(store.ClassVMs, id) {
			require.Equal(w, v.Epoch+1, now.Epoch)
			require.Equal(w, v.FirstSeenAt, now.FirstSeenAt)
		}
		_, err := r.next(now, "", t0.Add(time.Hour/2))
		require.NotErrorIs(w, err, fleet.ErrUnavailable)
	}
	for more := true; more; {
		var err error
		_, more, err = r.Tick(w.Context(), t0.Add(100*time.Hour), alive(0, "", t0), 10)
		require.NoError(w, err)
	}
	for id := range w.commands {
		if !w.isBad(store.ClassCommands, id) {
			require.True(w, r.command(fleet.CommandID(id)).State.Terminal(), id)
		}
	}
	_, err := r.Purge(w.Context(), Retention{Commands: time.Hour, Events: time.Hour, Heartbeats: time.Hour}, t0.Add(time.Hour/2))
	require.NoError(w, err)
	require.NoError(w, r.Close())
}

// requireLists reads every list, with and without filters.
func (w *wrecked) requireLists(r *rig) {
	w.Helper()
	ctx := context.Background()
	vms, _, err := r.VMs(ctx, store.VMQuery{}, 1000)
	require.NoError(w, err)
	listed := map[string]bool{}
	for _, v := range vms {
		require.False(w, listed["vm "+string(v.ID)])
		listed["vm "+string(v.ID)] = true
	}
	cs, _, err := r.Commands(ctx, store.CommandQuery{}, 1000)
	require.NoError(w, err)
	for _, c := range cs {
		listed["command "+string(c.ID)] = true
	}
	events, _, err := r.Events(ctx, store.EventQuery{}, 1000)
	require.NoError(w, err)
	for _, e := range events {
		listed[fmt.Sprint("event ", e.Seq)] = true
	}
	for id := range w.vms {
		require.True(w, listed["vm "+id] || w.isBad(store.ClassVMs, id), id)
		_, _, err := r.Heartbeats(ctx, fleet.VMID(id), time.Time{}, 100)
		require.NoError(w, err)
		_, _, err = r.Commands(ctx, store.CommandQuery{VM: id}, 100)
		require.NoError(w, err)
		_, err = r.State(ctx, fleet.VMID(id))
		require.NoError(w, err)
	}
	for id := range w.commands {
		require.True(w, listed["command "+id] || w.isBad(store.ClassCommands, id), id)
	}
	for seq := range w.events {
		_, bad := w.bad[store.Place{Class: store.ClassEvents, Row: seq}]
		require.True(w, listed[fmt.Sprint("event ", seq)] || bad, seq)
	}
	for after := range r.LastChange() {
		if _, _, err := r.Changes(ctx, store.ChangeQuery{After: after}, 1000); err != nil {
			require.ErrorIs(w, err, fleet.ErrCursorExpired)
		}
	}
	_, err = r.UnjournaledEvents(ctx, 10)
	require.NoError(w, err)
	require.NoError(w, r.Check(ctx))
}
