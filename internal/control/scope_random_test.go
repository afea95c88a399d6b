package control_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/control"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

// limitedCaller is a caller in a random history, with the watch that it keeps open.
type limitedCaller struct {
	ctx   context.Context //nolint:containedctx // it is the caller
	pools []string
	watch *watcher
	first string // its first cursor
}

// history is a random history. Its truth is what an unlimited caller sees, and the pool of each
// VM before and after each change, which the test records by itself.
type history struct {
	*world
	control *control.Control
	rand    *rand.Rand
	vms     []string
	pools   map[string]string // of VMs, now
	// after and before are the pools of VMs around each change, by Seq.
	after, before []map[string]string
	callers       []*limitedCaller
	commands      int
}

// In random histories a limited caller sees exactly what an unlimited one does, filtered by the
// pools of the VMs: in watches, live and resumed from any cursor, from memory and from the
// store; in all pages of all lists; and in single records. It can act on nothing else.
func TestRandomHistoriesOfPools(t *testing.T) {
	t.Parallel()
	for range 2 {
		seed := rand.Uint64()
		if given, err := strconv.ParseUint(os.Getenv("SCOPE_SEED"), 10, 64); err == nil {
			seed = given
		}
		t.Run(fmt.Sprint("SCOPE_SEED=", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { newHistory(t, seed).run() })
		})
	}
}

func newHistory(t *testing.T, seed uint64) *history {
	t.Helper()
	h := &history{world: newWorld(t), rand: rand.New(rand.NewPCG(seed, 1)), pools: map[string]string{}}
	h.control = newControl(t, h.world)
	for i := range 12 {
		h.vms = append(h.vms, fmt.Sprintf("vm-%d", i))
	}
	for _, pools := range [][]string{{"a"}, {"b", "a"}, {"rare"}, {"a", "b", "c", "rare"}, {"unused"}, {}} {
		caller := &limitedCaller{ctx: limitedTo(t, pools...), pools: pools}
		caller.watch = watchAs(caller.ctx, t, h.control, "", "")
		caller.first = caller.watch.bare(t)
		h.callers = append(h.callers, caller)
	}
	synctest.Wait()
	return h
}

func (h *history) run() {
	h.t.Helper()
	for step := range 1000 {
		h.step()
		if step%500 == 499 {
			synctest.Wait()
			h.checkLists()
			h.checkRecords()
		}
	}
	synctest.Wait()
	for _, caller := range h.callers {
		h.checkWatches(caller)
	}
}

// step does one thing, and records the pools around the changes that it made.
func (h *history) step() {
	h.t.Helper()
	vm := h.vms[h.rand.IntN(len(h.vms))]
	was := maps.Clone(h.pools)
	switch n := h.rand.IntN(100); {
	case n < 15:
		h.pools[vm] = h.anyPool()
		h.move(fleet.VMID(vm), h.pools[vm])
	case n < 30: // a report keeps the pool, or names another one
		e := event(fleet.VMID(vm))
		if e.Pool = h.anyPool(); e.Pool != "" {
			h.pools[vm] = e.Pool
		}
		h.addEvent(e)
	case n < 40:
		beat := fleet.Heartbeat{Origin: fleet.Origin{VM: fleet.VMID(vm), ReceivedAt: start.Add(time.Duration(h.rand.IntN(1e6)))}, Status: "idle"}
		h.heartbeat(beat)
	case n < 55:
		_, err := h.control.Send(anyone(h.t), drainOf(h.newCommand(), vm), 0)
		require.NoError(h.t, err)
	case n < 75:
		h.send(h.anyCaller(), vm)
	case n < 95:
		h.cancel(h.anyCaller())
	default:
		if v, err := h.VM(h.t.Context(), fleet.VMID(vm)); err == nil && v.Connected {
			h.end(fleet.VMID(vm), start)
		}
	}
	is := maps.Clone(h.pools)
	for int64(len(h.after)) < h.LastChange() {
		h.after, h.before = append(h.after, is), append(h.before, was)
	}
}

func (h *history) anyPool() string {
	if h.rand.IntN(20) == 0 {
		return "rare"
	}
	return []string{"a", "b", "c", ""}[h.rand.IntN(4)]
}

func (h *history) anyCaller() *limitedCaller { return h.callers[h.rand.IntN(len(h.callers))] }

func (h *history) newCommand() string {
	h.commands++
	return fmt.Sprint("c", h.commands)
}

// sees reports whether a caller sees a VM.
func (h *history) sees(caller *limitedCaller, vm fleet.VMID) bool {
	return slices.Contains(caller.pools, h.pools[string(vm)])
}

// send sends a command, sometimes with an id in use.
func (h *history) send(caller *limitedCaller, vm string) {
	h.t.Helper()
	id := h.newCommand()
	if h.rand.IntN(3) == 0 {
		id = fmt.Sprint("c", 1+h.rand.IntN(h.commands))
	}
	kept, known := h.Command(h.t.Context(), fleet.CommandID(id))
	last := h.LastChange()
	got, err := h.control.Send(caller.ctx, drainOf(id, vm), 0)
	switch {
	case !h.sees(caller, fleet.VMID(vm)):
		require.EqualError(h.t, err, fmt.Sprintf("VM %q: not found", vm))
	case known == nil && string(kept.VM) != vm:
		require.EqualError(h.t, err, fmt.Sprintf("command %q: %v", id, fleet.ErrIDTaken))
	default:
		require.NoError(h.t, err)
		require.EqualValues(h.t, vm, got.VM)
		return
	}
	require.Zero(h.t, got)
	require.Equal(h.t, last, h.LastChange())
}

// cancel cancels a command, and sometimes one that does not exist.
func (h *history) cancel(caller *limitedCaller) {
	h.t.Helper()
	id := fmt.Sprint("c", 1+h.rand.IntN(h.commands+1))
	kept, known := h.Command(h.t.Context(), fleet.CommandID(id))
	last := h.LastChange()
	_, err := h.control.Cancel(caller.ctx, id)
	if known != nil || !h.sees(caller, kept.VM) {
		require.EqualError(h.t, err, fmt.Sprintf("command %q: not found", id))
		require.Equal(h.t, last, h.LastChange())
		return
	}
	require.True(h.t, err == nil || errors.Is(err, fleet.ErrEnded), "%v", err)
}

// all requests all pages of a list.
func all[R any](t *testing.T, list func(token string) ([]R, string, error)) (rows []R) {
	t.Helper()
	for token := ""; ; {
		page, next, err := list(token)
		require.NoError(t, err)
		require.True(t, len(page) > 0 || next == "")
		if rows = append(rows, page...); next == "" {
			return rows
		}
		token = next
	}
}

// only returns the rows of VMs that the caller sees.
func only[R any](h *history, caller *limitedCaller, rows []R, vm func(R) fleet.VMID) (list []R) {
	for _, row := range rows {
		if h.sees(caller, vm(row)) {
			list = append(list, row)
		}
	}
	return list
}

func (h *history) checkLists() {
	h.t.Helper()
	ctx := anyone(h.t)
	vms := func(ctx context.Context, q store.VMQuery, size int) []fleet.VM {
		return all(h.t, func(token string) ([]fleet.VM, string, error) { return h.control.VMs(ctx, q, size, token) })
	}
	commands := func(ctx context.Context, q store.CommandQuery, size int) []fleet.Command {
		return all(h.t, func(token string) ([]fleet.Command, string, error) { return h.control.Commands(ctx, q, size, token) })
	}
	events := func(ctx context.Context, q store.EventQuery, size int) []fleet.Event {
		return all(h.t, func(token string) ([]fleet.Event, string, error) { return h.control.Events(ctx, q, size, token) })
	}
	for _, caller := range h.callers {
		for _, q := range []store.VMQuery{{}, {Pool: "a"}, {Status: "idle"}} {
			require.Equal(h.t, only(h, caller, vms(ctx, q, 100), func(v fleet.VM) fleet.VMID { return v.ID }), vms(caller.ctx, q, 2))
		}
		for _, q := range []store.CommandQuery{{}, {VM: "vm-1"}, {States: []string{"PENDING"}}, {Type: "drain"}} {
			require.Equal(h.t, only(h, caller, commands(ctx, q, 1000), func(c fleet.Command) fleet.VMID { return c.VM }), commands(caller.ctx, q, 7))
		}
		for _, q := range []store.EventQuery{{}, {VM: "vm-1"}, {Type: "error"}} {
			require.Equal(h.t, only(h, caller, events(ctx, q, 1000), func(e fleet.Event) fleet.VMID { return e.VM }), events(caller.ctx, q, 7))
		}
	}
}

func (h *history) checkRecords() {
	h.t.Helper()
	same := func(caller *limitedCaller, vm fleet.VMID, what string, read func(ctx context.Context) (any, error)) {
		h.t.Helper()
		want, wanted := read(anyone(h.t))
		got, err := read(caller.ctx)
		if h.sees(caller, vm) {
			require.Equal(h.t, wanted, err)
			require.Equal(h.t, want, got)
		} else {
			require.EqualError(h.t, err, what+": not found")
			require.Zero(h.t, got)
		}
	}
	for _, caller := range h.callers {
		for _, vm := range append(h.vms, "never") {
			same(caller, fleet.VMID(vm), fmt.Sprintf("VM %q", vm), func(ctx context.Context) (any, error) { return h.control.VM(ctx, vm) })
			same(caller, fleet.VMID(vm), fmt.Sprintf("VM %q", vm), func(ctx context.Context) (any, error) {
				page, _, err := h.control.Heartbeats(ctx, vm, 0, "")
				return page, err
			})
		}
		for range 20 {
			id := fmt.Sprint("c", 1+h.rand.IntN(h.commands+1))
			c, _ := h.Command(h.t.Context(), fleet.CommandID(id))
			same(caller, c.VM, fmt.Sprintf("command %q", id), func(ctx context.Context) (any, error) { return h.control.Command(ctx, id) })
		}
	}
}

// shown is what is compared of an update.
type shown struct {
	Change  fleet.Change
	Removed bool
}

// expected returns what a caller sees of all changes, of one VM if it is not empty.
func (h *history) expected(caller *limitedCaller, changes []fleet.Change, vm string) (list []shown) {
	for _, c := range changes {
		sees := func(pool string) bool { return slices.Contains(caller.pools, pool) }
		switch {
		case vm != "" && string(c.Subject) != vm:
		case sees(h.after[c.Seq-1][string(c.Subject)]):
			list = append(list, shown{Change: c})
		case c.VM != nil && sees(h.before[c.Seq-1][string(c.Subject)]):
			list = append(list, shown{fleet.Change{Seq: c.Seq, At: c.At, Subject: c.Subject}, true})
		}
	}
	return list
}

// received returns all updates with changes that a watcher has received, and their cursors.
func received(w *watcher) (list []shown, cursors []string) {
	for len(w.updates) > 0 {
		if u := <-w.updates; u.Change != nil {
			u.Change.RequestID = "" // of the log
			list, cursors = append(list, shown{*u.Change, u.Removed}), append(cursors, u.Cursor)
		}
	}
	return list, cursors
}

func (h *history) checkWatches(caller *limitedCaller) {
	h.t.Helper()
	fresh := h.another() // reads from the store
	changes, _, err := fresh.Changes(h.t.Context(), store.ChangeQuery{}, 100_000)
	require.NoError(h.t, err)
	require.Len(h.t, changes, int(h.LastChange()))
	want := h.expected(caller, changes, "")
	got, cursors := received(caller.watch)
	require.Equal(h.t, len(want), len(got)) //nolint:testifylint // The lists would be too long to read.
	for i := range want {
		require.Equal(h.t, want[i], got[i], caller.pools)
	}
	cursors = append([]string{caller.first}, cursors...)
	for _, c := range []*control.Control{h.control, newControl(h.t, fresh)} {
		for range 3 {
			from := h.rand.IntN(len(cursors))
			vm := []string{"", h.vms[h.rand.IntN(len(h.vms))]}[h.rand.IntN(2)]
			again := watchAs(caller.ctx, h.t, c, cursors[from], vm)
			require.Equal(h.t, cursors[from], again.bare(h.t))
			synctest.Wait()
			got, _ := received(again)
			again.leave()
			var rest []shown
			for _, s := range want[from:] {
				if vm == "" || string(s.Change.Subject) == vm {
					rest = append(rest, s)
				}
			}
			require.Equal(h.t, rest, got)
		}
	}
}
