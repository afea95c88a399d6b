package control_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/auth"
	"github.com/mig-controller/mig-controller/internal/control"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

// limitedTo is the context of a caller who is limited to some pools, or to none.
func limitedTo(t *testing.T, pools ...string) context.Context {
	t.Helper()
	return auth.With(t.Context(), auth.Principal{Name: "limited", Method: auth.ByToken, Role: auth.Admin, Scope: auth.OnlyPools(pools...)})
}

// pooled is a world with the VMs own in pool a, foreign in pool b and bare in no pool. Each has
// an event and a command named after it, and the VM never, which was never seen, has a command.
func pooled(t *testing.T) (*world, *control.Control) {
	t.Helper()
	s := newWorld(t)
	c := newControl(t, s)
	for vm, pool := range map[fleet.VMID]string{"own": "a", "foreign": "b", "bare": ""} {
		s.heartbeat(fleet.Heartbeat{Origin: fleet.Origin{VM: vm, Pool: pool, ReceivedAt: start}, Runner: &fleet.Runner{Configured: true}})
		s.addEvent(event(vm))
	}
	for _, vm := range []string{"own", "foreign", "bare", "never"} {
		_, err := c.Send(anyone(t), drainOf("of-"+vm, vm), 0)
		require.NoError(t, err)
	}
	return s, c
}

func drainOf(id, vm string) fleet.CommandRequest {
	r := drain(id)
	r.VM = vm
	return r
}

// move moves a VM to a pool: one change.
func (w *world) move(vm fleet.VMID, pool string) {
	w.t.Helper()
	w.open(fleet.Hello{VM: vm, Pool: pool})
}

// For a limited caller the VMs of other pools, those without a pool and those that were never
// seen are the same: they do not exist, and neither does what belongs to them.
func TestOthersDoNotExist(t *testing.T) {
	t.Parallel()
	s, c := pooled(t)
	ctx := limitedTo(t, "a", "unused")
	calls := map[string]func(vm string) error{
		"VM":         func(vm string) error { _, err := c.VM(ctx, vm); return err },
		"heartbeats": func(vm string) error { _, _, err := c.Heartbeats(ctx, vm, 0, ""); return err },
		"command":    func(vm string) error { _, err := c.Command(ctx, "of-"+vm); return err },
		"cancel":     func(vm string) error { _, err := c.Cancel(ctx, "of-"+vm); return err },
		"send":       func(vm string) error { _, err := c.Send(ctx, drainOf("new-"+vm, vm), 0); return err },
		"send again": func(vm string) error { _, err := c.Send(ctx, drainOf("of-"+vm, vm), 0); return err },
		"wait":       func(vm string) error { _, err := c.Send(ctx, drainOf("wait-"+vm, vm), time.Minute); return err },
		"reuse":      func(vm string) error { _, err := c.Send(ctx, drainOf("of-own", vm), 0); return err },
	}
	last := s.LastChange()
	for name, call := range calls {
		for _, vm := range []string{"foreign", "bare", "never"} {
			subject := fmt.Sprintf("VM %q", vm)
			if name == "command" || name == "cancel" {
				subject = fmt.Sprintf("command %q", "of-"+vm)
			}
			err := call(vm)
			require.ErrorIs(t, err, fleet.ErrNotFound, "%s of %s", name, vm)
			require.EqualError(t, err, subject+": not found", name)
		}
	}
	require.Equal(t, last, s.LastChange(), "nothing was changed")
	delete(calls, "wait")
	for _, name := range []string{"VM", "heartbeats", "command", "send", "send again", "cancel"} {
		require.NoError(t, calls[name]("own"), name)
	}
}

// An id that is in use outside the scope is rejected exactly like one that is in use inside.
func TestIDsInUseRevealNothing(t *testing.T) {
	t.Parallel()
	_, c := pooled(t)
	ctx := limitedTo(t, "a")
	shutdown := drainOf("of-own", "own")
	shutdown.Type = "shutdown"
	for _, r := range []fleet.CommandRequest{shutdown, drainOf("of-foreign", "own"), drainOf("of-never", "own"), drainOf("of-bare", "own")} {
		got, err := c.Send(ctx, r, 0)
		require.Zero(t, got)
		require.ErrorIs(t, err, fleet.ErrIDTaken)
		require.EqualError(t, err, fmt.Sprintf("command %q: %v", r.ID, fleet.ErrIDTaken))
	}
	kept, err := c.Send(ctx, drainOf("of-own", "own"), 0)
	require.NoError(t, err)
	require.Equal(t, fleet.CommandID("of-own"), kept.ID)
}

// Damaged records, whose VM may not be known, do not exist for a limited caller, and their ids
// are in use.
func TestDamageIsHidden(t *testing.T) {
	t.Parallel()
	s, _ := pooled(t)
	damage := func(q store.CommandQuery) {
		rows, _, err := s.driver.DB.Commands(t.Context(), q, 1)
		require.NoError(t, err)
		rows[0].Doc = []byte("damaged")
		_, err = s.driver.DB.Commit(t.Context(), store.Writes{Commands: rows})
		require.NoError(t, err)
	}
	damage(store.CommandQuery{VM: "own"})
	damage(store.CommandQuery{VM: "foreign"})
	c := newControl(t, s.another()) // with an empty cache
	ctx := limitedTo(t, "a")
	for _, id := range []string{"of-own", "of-foreign"} {
		_, err := c.Command(anyone(t), id)
		require.ErrorIs(t, err, fleet.ErrDamaged)
		_, err = c.Command(ctx, id)
		require.EqualError(t, err, fmt.Sprintf("command %q: not found", id))
		_, err = c.Cancel(ctx, id)
		require.EqualError(t, err, fmt.Sprintf("command %q: not found", id))
		_, err = c.Send(ctx, drainOf(id, "own"), 0)
		require.EqualError(t, err, fmt.Sprintf("command %q: %v", id, fleet.ErrIDTaken))
		_, err = c.Send(ctx, drainOf(id, "foreign"), 0)
		require.EqualError(t, err, `VM "foreign": not found`)
	}
	vms, _, err := s.driver.DB.VMs(t.Context(), store.VMQuery{}, 10)
	require.NoError(t, err)
	for i := range vms {
		vms[i].Doc = []byte("damaged")
	}
	_, err = s.driver.DB.Commit(t.Context(), store.Writes{VMs: vms})
	require.NoError(t, err)
	c = newControl(t, s.another())
	_, err = c.VM(anyone(t), "own")
	require.ErrorIs(t, err, fleet.ErrDamaged)
	_, err = c.VM(ctx, "own")
	require.EqualError(t, err, `VM "own": not found`)
	_, _, err = c.Heartbeats(ctx, "own", 0, "")
	require.EqualError(t, err, `VM "own": not found`)
	_, err = c.Send(ctx, drainOf("new", "own"), 0)
	require.EqualError(t, err, `VM "own": not found`)
}

// A caller without a principal, without pools, or with only an empty one sees nothing, and
// nothing is read from the store for its lists.
func TestNoPoolsIsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := pooled(t)
		s.driver.before = func(method string) error {
			switch method {
			case "VMs", "Commands", "Events", "Changes":
				t.Error(method)
			}
			return nil
		}
		for _, ctx := range []context.Context{t.Context(), limitedTo(t), limitedTo(t, "")} {
			vms, next, err := c.VMs(ctx, store.VMQuery{}, 0, "")
			require.NoError(t, err)
			require.Empty(t, vms)
			require.Empty(t, next)
			commands, next, err := c.Commands(ctx, store.CommandQuery{VM: "bare"}, 0, "")
			require.NoError(t, err)
			require.Empty(t, commands)
			require.Empty(t, next)
			events, next, err := c.Events(ctx, store.EventQuery{}, 0, "")
			require.NoError(t, err)
			require.Empty(t, events)
			require.Empty(t, next)
			for _, vm := range []string{"own", "bare", "never"} {
				_, err = c.VM(ctx, vm)
				require.ErrorIs(t, err, fleet.ErrNotFound)
				_, err = c.Send(ctx, drainOf("x", vm), 0)
				require.ErrorIs(t, err, fleet.ErrNotFound)
			}
			n, err := c.CountSeen(ctx, []fleet.VMID{"own", "foreign", "bare"})
			require.NoError(t, err)
			require.Zero(t, n)
			w := watchAs(ctx, t, c, "", "")
			w.bare(t)
			s.addEvent(event("bare"))
			s.move("bare", "a")
			s.move("bare", "")
			synctest.Wait()
			require.Empty(t, w.updates)
			w.leave()
		}
	})
}

// VMs are counted by the pool that they are in now.
func TestCountSeen(t *testing.T) {
	t.Parallel()
	s, c := pooled(t)
	vms := []fleet.VMID{"own", "foreign", "bare", "never"}
	count := func(ctx context.Context) int {
		n, err := c.CountSeen(ctx, vms)
		require.NoError(t, err)
		return n
	}
	require.Equal(t, 4, count(anyone(t)))
	require.Equal(t, 1, count(limitedTo(t, "a")))
	require.Equal(t, 2, count(limitedTo(t, "a", "b")))
	s.move("foreign", "a")
	require.Equal(t, 2, count(limitedTo(t, "a")))
	require.Zero(t, count(limitedTo(t, "b")))
}

// A token is refused with other pools than those that it was issued for, whether they are more,
// fewer or all.
func TestTokensAreOfOneScope(t *testing.T) {
	t.Parallel()
	s, c := pooled(t)
	s.move("own2", "a")
	s.addEvent(event("own"))
	s.heartbeat(fleet.Heartbeat{Origin: fleet.Origin{VM: "own", Pool: "a", ReceivedAt: start.Add(time.Second)}})
	s.heartbeat(fleet.Heartbeat{Origin: fleet.Origin{VM: "own", Pool: "a", ReceivedAt: start.Add(2 * time.Second)}})
	_, err := c.Send(anyone(t), drainOf("more", "own"), 0)
	require.NoError(t, err)
	callers := map[string]context.Context{
		"all": anyone(t), "a": limitedTo(t, "a"), "a and b": limitedTo(t, "a", "b"), "b": limitedTo(t, "b"), "none": limitedTo(t),
	}
	lists := map[string]func(ctx context.Context, token string) (next string, err error){
		"VMs": func(ctx context.Context, token string) (string, error) {
			_, next, err := c.VMs(ctx, store.VMQuery{}, 1, token)
			return next, err
		},
		"commands": func(ctx context.Context, token string) (string, error) {
			_, next, err := c.Commands(ctx, store.CommandQuery{}, 1, token)
			return next, err
		},
		"events": func(ctx context.Context, token string) (string, error) {
			_, next, err := c.Events(ctx, store.EventQuery{}, 1, token)
			return next, err
		},
		"heartbeats": func(ctx context.Context, token string) (string, error) {
			_, next, err := c.Heartbeats(ctx, "own", 1, token)
			return next, err
		},
	}
	for list, next := range lists {
		for issued := range map[string]bool{"all": true, "a": true, "a and b": true} {
			token, err := next(callers[issued], "")
			require.NoError(t, err)
			require.NotEmpty(t, token, "%s of %s", list, issued)
			for name, ctx := range callers {
				_, err := next(ctx, token)
				if name == issued {
					require.NoError(t, err)
				} else {
					requireField(t, err, "page_token")
				}
			}
		}
	}
	for issued, ctx := range callers {
		w := watchAs(ctx, t, c, "", "")
		cursor := w.bare(t)
		w.leave()
		for name, ctx := range callers {
			ctx, leave := context.WithCancel(ctx)
			err := c.Watch(ctx, cursor, "", func(control.Update) error { leave(); return nil })
			if name == issued {
				require.ErrorIs(t, err, context.Canceled)
			} else {
				requireField(t, err, "cursor")
			}
			leave()
		}
	}
}
