package engine

import (
	"database/sql"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
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

func (r *rig) damageVM(vm string) {
	r.Helper()
	r.damage(store.Writes{VMs: r.rows(store.Keys{VMs: []string{vm}}).VMs})
}

func (r *rig) damageCommands(ids ...string) {
	r.Helper()
	r.damage(store.Writes{Commands: r.rows(store.Keys{Commands: ids}).Commands})
}

// execute runs a statement on a database file, as an administrator would.
func execute(tb testing.TB, path, statement string, args ...any) {
	tb.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(5000)")
	require.NoError(tb, err)
	_, err = db.ExecContext(tb.Context(), statement, args...)
	require.NoError(tb, err)
	require.NoError(tb, db.Close())
}

func (r *rig) rows(k store.Keys) store.Rows {
	r.Helper()
	rows, err := r.db.Driver.Load(r.Context(), k)
	require.NoError(r, err)
	return rows
}

// errorLog collects the lines of a log at error level.
type errorLog struct {
	mu    sync.Mutex
	lines []string
}

func (l *errorLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(p))
	return len(p), nil
}

// logged redirects the rig's log to an errorLog, one entry per line.
func (r *rig) logged() *errorLog {
	l := new(errorLog)
	r.Engine.Log = slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelError}))
	return l
}

// requireAside requires exactly one line for each of these rows.
func (l *errorLog) requireAside(t *testing.T, rows ...string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	require.Len(t, l.lines, len(rows), "%q", l.lines)
	all := strings.Join(l.lines, "")
	for _, row := range rows {
		require.Contains(t, all, `msg="damaged row set aside" `+row)
	}
}

// A damaged VM is set aside by the first operation that needs it, and starts over; all
// other operations continue, even in the same group.
func TestDamagedVM(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	r.event("vm", t0)
	r.event("other", t0)
	log := r.logged()
	r.damageVM("vm")
	r.group(
		func() { r.apply(fleet.Polled{VM: "vm"}, t0.Add(time.Minute)) },
		func() { r.record(polledHeartbeats("vm", "other")...) },
		func() { r.event("other", t0) },
	)
	log.requireAside(t, "table=vms row=1 id=vm vm_id=vm number=1")
	require.Equal(t, t0.Add(time.Minute), r.vm("vm").FirstSeenAt, "the VM is new")
	require.Len(t, r.beats("vm"), 1)
	require.Equal(t, t0.Add(time.Second), r.vm("other").LastHeartbeatAt)
	vms, _, err := r.VMs(t.Context(), store.VMQuery{}, 10)
	require.NoError(t, err)
	require.Len(t, vms, 2)
	r.reset(t0)
}

// Until it reports again, a damaged VM is an error for requests that name it, and for no
// others.
func TestDamagedVMIsNamed(t *testing.T) {
	t.Parallel()
	for name, meet := range map[string]func(*rig) error{
		"VM":    func(r *rig) error { _, err := r.VM(t.Context(), "vm"); return err },
		"State": func(r *rig) error { s, err := r.State(t.Context(), "vm"); require.False(t, s.Known()); return err },
		"VMs": func(r *rig) error {
			vms, _, err := r.VMs(t.Context(), store.VMQuery{}, 1)
			require.Len(t, vms, 1)
			return err
		},
		"reset": func(r *rig) error { r.reset(t0); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := inMemory(t)
			r.connect("vm", t0)
			r.event("z", t0)
			log := r.logged()
			r.damageVM("vm")
			if err := meet(r); name == "VM" {
				require.ErrorIs(t, err, fleet.ErrDamaged)
			} else {
				require.NoError(t, err)
			}
			_, err := r.VM(t.Context(), "vm")
			require.ErrorIs(t, err, fleet.ErrDamaged)
			require.NotErrorIs(t, err, fleet.ErrUnavailable)
			_, err = r.VM(t.Context(), "none")
			require.ErrorIs(t, err, fleet.ErrNotFound)
			log.requireAside(t, "table=vms row=1 id=vm")
			r.event("vm", t0)
			r.vm("vm")
		})
	}
}

func polledHeartbeats(vms ...fleet.VMID) (hs []fleet.Heartbeat) {
	for _, vm := range vms {
		hs = append(hs, fleet.Heartbeat{Origin: fleet.Origin{VM: vm, Via: fleet.HTTP, ReceivedAt: t0.Add(time.Second)}})
	}
	return hs
}

// After the record of a VM was lost, none of its sessions is mistaken for an earlier one:
// the epochs continue, however often that happens, and earlier deliveries have ended.
// Reports on an earlier session are not evidence about the VM.
func TestEpochsOutliveTheirRecord(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	var looks []fleet.VMID
	r.OnReady(func(vm fleet.VMID, ready fleet.Ready) {
		if ready == (fleet.Ready{}) {
			looks = append(looks, vm)
		}
	})
	old := r.connect("vm", t0)
	r.accept("c", "vm")
	require.Equal(t, fleet.Delivered, r.command("c").State)
	for lost := range 3 {
		looks = nil
		r.damageVM("vm")
		s, err := r.State(t.Context(), "vm")
		require.NoError(t, err)
		require.Equal(t, []fleet.VMID{"vm"}, looks, "its session looks for commands")
		_, err = s.Next(fleet.LeaseRequest{Via: fleet.Stream, Epoch: old.Epoch, At: t0})
		require.ErrorIs(t, err, fleet.ErrNotFound, "and ends")
		if lost == 1 {
			r.record(beat(old, t0.Add(time.Second), 1))
			require.Empty(t, r.beats("vm"), "what arrives on it is stale")
			_, err = r.VM(t.Context(), "vm")
			require.ErrorIs(t, err, fleet.ErrDamaged)
		}
		_, err = r.Apply(t.Context(), fleet.AckReceived{VM: "vm", Epoch: old.Epoch, Ack: fleet.Ack{CommandID: "c"}}, t0)
		require.Error(t, err)
		next := r.connect("vm", t0)
		require.Greater(t, next.Epoch, old.Epoch+epochGap/2)
		require.True(t, r.vm("vm").Stale(fleet.Origin{Via: fleet.Stream, Epoch: old.Epoch}))
		id, err := r.next(next, "", t0)
		require.NoError(t, err)
		require.EqualValues(t, "c", id, "its command is delivered again")
		require.Equal(t, lost+2, r.command("c").Attempts)
		old = next
	}
	require.True(t, r.ack("c", old, t0).Command.State.Terminal())
}

// The same holds if the row is missing, for example because its id is damaged: the cached
// VM, or the commands delivered to it, show which epochs were used.
func TestEpochsOutliveAMissingRow(t *testing.T) {
	t.Parallel()
	for _, forget := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "controller.db")
		r := openFile(t, path)
		var old fleet.VM
		for range 5 {
			old = r.connect("vm", t0)
		}
		if forget {
			r.accept("c", "vm")
		}
		execute(t, path, "UPDATE vms SET vm_id = 'another'")
		if forget {
			r.cache.clear()
		} else {
			r.cache.invalidate("vm")
		}
		s, err := r.State(t.Context(), "vm")
		require.NoError(t, err)
		_, err = s.Next(fleet.LeaseRequest{Via: fleet.Stream, Epoch: old.Epoch, At: t0})
		require.ErrorIs(t, err, fleet.ErrNotFound, "its session ends")
		r.record(beat(old, t0.Add(time.Second), 1))
		require.Empty(t, r.beats("vm"), "what arrives on it is stale")
		require.Greater(t, r.connect("vm", t0).Epoch, old.Epoch)
	}
}

// A damaged command is an error for requests that name it, including an attempt to send it
// again. An open one blocks no other command of its VM, and all the others end in time.
func TestDamagedCommand(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	for _, id := range []string{"ended", "fine"} {
		r.accept(id, "vm")
		r.apply(fleet.CancelRequested{VM: "vm", Command: fleet.CommandID(id)}, t0)
	}
	r.accept("open", "stopped")
	log := r.logged()
	r.damageCommands("ended", "open")
	var ended, again, open error
	r.group(
		func() { _, ended = r.Apply(t.Context(), fleet.CancelRequested{VM: "vm", Command: "ended"}, t0) },
		func() { _, again = r.Accept(t.Context(), drain(t, "ended", "vm")) },
		func() { _, open = r.Accept(t.Context(), drain(t, "open", "stopped")) },
		func() { r.accept("new", "stopped") },
		func() { r.accept("good", "vm") },
	)
	for _, err := range []error{ended, again, open} {
		require.ErrorIs(t, err, fleet.ErrDamaged)
		require.NotErrorIs(t, err, fleet.ErrUnavailable)
	}
	log.requireAside(t, "table=commands row=1 id=ended vm_id=vm", "table=commands row=3 id=open vm_id=stopped")
	r.command("good")
	for _, id := range []fleet.CommandID{"ended", "open"} {
		_, err := r.Command(t.Context(), id)
		require.ErrorIs(t, err, fleet.ErrDamaged)
	}
	cs, _, err := r.Commands(t.Context(), store.CommandQuery{VM: "stopped"}, 10)
	require.NoError(t, err)
	require.Len(t, cs, 1)
	id, err := r.next(r.connect("stopped", t0), "", t0)
	require.NoError(t, err)
	require.EqualValues(t, "new", id)
	n, _, err := r.Tick(t.Context(), t0.Add(2*time.Hour), alive(0, "", t0), 10)
	require.NoError(t, err)
	require.Equal(t, 2, n)
	require.Equal(t, fleet.Expired, r.command("good").State)
	r.reset(t0)
}

// A command that another reader sets aside while its VM is cached is not delivered any
// more.
func TestDamagedCommandOfCachedVM(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	v := r.connect("vm", t0)
	r.accept("first", "vm")
	r.accept("second", "vm")
	held := r.cache.vms["vm"]
	r.damageCommands("first")
	r.cache.vms["vm"] = held // still with the command "first"
	_, err := r.Command(t.Context(), "first")
	require.ErrorIs(t, err, fleet.ErrDamaged)
	_, err = r.Apply(t.Context(), fleet.AckReceived{VM: "vm", Epoch: v.Epoch, Ack: fleet.Ack{CommandID: "first"}}, t0)
	require.ErrorIs(t, err, fleet.ErrDamaged)
	id, err := r.next(v, "first", t0)
	require.NoError(t, err)
	require.EqualValues(t, "second", id)
}

// The start finds a damaged open command that nothing else would read.
func TestStartFindsDamagedCommands(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "controller.db")
	r := openFile(t, path)
	r.accept("c", "vm")
	execute(t, path, "UPDATE commands SET due_at = 'x'")
	r.cache.clear()
	log := r.logged()
	r.reset(t0)
	log.requireAside(t, "table=commands row=1 id=c")
}

// A damaged row that is due does not delay the others, however many there are.
func TestDamagedDueRows(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	var ids []string
	for i := range 50 {
		ids = append(ids, string(r.accept(name(i), fleet.VMID(fmt.Sprint("vm-", i%7))).ID))
	}
	r.damageCommands(ids[:40]...)
	for more := true; more; {
		var err error
		_, more, err = r.Tick(t.Context(), t0.Add(2*time.Hour), alive(0, "", t0), 3)
		require.NoError(t, err)
	}
	for i, id := range ids {
		c, err := r.Command(t.Context(), fleet.CommandID(id))
		if i < 40 {
			require.ErrorIs(t, err, fleet.ErrDamaged)
		} else {
			require.Equal(t, fleet.Expired, c.State)
		}
	}
}
