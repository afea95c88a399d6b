package control

import (
	"context"
	"errors"
	"slices"

	"github.com/mig-controller/mig-controller/internal/auth"
	"github.com/mig-controller/mig-controller/internal/fleet"
)

// reach is which VMs the caller of an operation sees and may act on: those in the pools of its
// scope, as of the moment at which a record is read or changed. For a limited caller a VM
// without a pool, one that was never seen and one whose record is damaged do not exist.
type reach struct{ scope auth.Scope }

func reachOf(ctx context.Context) reach { return reach{auth.From(ctx).Scope} }

// limited reports whether the caller is limited to some pools, or to none.
func (r reach) limited() bool { return !r.scope.All() }

// pools returns the pools for a query; empty for all. ok is false if there is nothing to
// query: an empty list would match everything.
func (r reach) pools() (pools []string, ok bool) {
	if !r.limited() {
		return nil, true
	}
	pools = slices.DeleteFunc(r.scope.Pools(), func(pool string) bool { return pool == "" })
	return pools, len(pools) > 0
}

// in returns the limit for an input of the engine; nil for none.
func (r reach) in() func(pool string) bool {
	if !r.limited() {
		return nil
	}
	return r.scope.Has
}

// has reports whether the caller sees a VM in this state.
func (r reach) has(v fleet.VM) bool { return !r.limited() || v.In(r.scope.Has) }

// seal returns the scope of a token: its parts and the pools of the caller, so that the token
// is of no use to a caller with others.
func (r reach) seal(parts ...string) string {
	if r.limited() {
		parts = append(append(parts, "pools"), r.scope.Pools()...)
	}
	return scopeOf(parts...)
}

// hide returns the error that the caller gets for one about a record whose VM may not be
// known.
func (r reach) hide(err error) error {
	if r.limited() && errors.Is(err, fleet.ErrDamaged) {
		return fleet.ErrNotFound
	}
	return err
}

// sees reports whether the caller sees a VM now. Errors: fleet.ErrUnavailable.
func (c *Control) sees(ctx context.Context, r reach, vm fleet.VMID) (bool, error) {
	if !r.limited() {
		return true, nil
	}
	v, err := c.engine.VM(ctx, vm)
	switch {
	case errors.Is(err, fleet.ErrNotFound), errors.Is(err, fleet.ErrDamaged):
		return false, nil
	case err != nil:
		return false, err
	default:
		return r.has(v), nil
	}
}

// requireSeen returns fleet.ErrNotFound when the caller does not see a VM.
func (c *Control) requireSeen(ctx context.Context, r reach, vm fleet.VMID) error {
	seen, err := c.sees(ctx, r, vm)
	if err == nil && !seen {
		return fleet.ErrNotFound
	}
	return err
}

// CountSeen returns how many of the VMs the caller sees. It takes time in proportion to them.
func (c *Control) CountSeen(ctx context.Context, vms []fleet.VMID) (n int, err error) {
	r := reachOf(ctx)
	if _, ok := r.pools(); !ok {
		return 0, nil
	}
	for _, vm := range vms {
		seen, err := c.sees(ctx, r, vm)
		if err != nil {
			return 0, err
		}
		if seen {
			n++
		}
	}
	return n, nil
}
