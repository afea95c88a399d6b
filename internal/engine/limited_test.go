package engine

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

func inA(pool string) bool { return pool == "a" }

// move opens a session of a VM in a pool.
func (r *rig) move(vm fleet.VMID, pool string) {
	r.Helper()
	r.apply(fleet.SessionOpened{Hello: fleet.Hello{VM: vm, Pool: pool}}, t0)
}

// A limited change applies to the pool that the VM is in when its turn comes, also within a
// group.
func TestLimitFollowsTheGroup(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	r.move("leaves", "a")
	r.move("enters", "b")
	r.accept("old", "leaves")
	r.accept("open", "enters")
	var errs [4]error
	r.group(
		func() { _, errs[0] = r.AcceptWithin(t.Context(), drain(t, "early", "leaves"), inA) },
		func() { r.move("leaves", "b") },
		func() { _, errs[1] = r.AcceptWithin(t.Context(), drain(t, "late", "leaves"), inA) },
		func() {
			_, errs[2] = r.Apply(t.Context(), fleet.Limit(fleet.CancelRequested{VM: "leaves", Command: "old"}, inA), t0)
		},
		func() { r.move("enters", "a") },
		func() {
			_, errs[3] = r.Apply(t.Context(), fleet.Limit(fleet.CancelRequested{VM: "enters", Command: "open"}, inA), t0)
		},
	)
	require.NoError(t, errs[0])
	require.ErrorIs(t, errs[1], fleet.ErrNotFound)
	require.ErrorIs(t, errs[2], fleet.ErrNotFound)
	require.NoError(t, errs[3])
	require.NotEqual(t, fleet.Cancelled, r.command("old").State)
	require.Equal(t, fleet.Cancelled, r.command("open").State)
	_, err := r.Command(t.Context(), "late")
	require.ErrorIs(t, err, fleet.ErrNotFound)
}

// A VM that another writer moves to another pool between the check of the limit and the commit
// is not acted on.
func TestLimitAmongWriters(t *testing.T) {
	t.Parallel()
	for name, act := range map[string]func(r *rig) error{
		"accept": func(r *rig) error {
			_, err := r.AcceptWithin(t.Context(), drain(t, "new", "vm"), inA)
			return err
		},
		"cancel": func(r *rig) error {
			_, err := r.Apply(t.Context(), fleet.Limit(fleet.CancelRequested{VM: "vm", Command: "open"}, inA), t0)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := inMemory(t)
			r.move("vm", "a")
			r.accept("first", "vm")
			r.accept("open", "vm")
			other := r.second()
			var once sync.Once
			r.db.onCommit(func(w store.Writes, next commitFunc) (store.Committed, error) {
				once.Do(func() { other.move("vm", "b") })
				return next(w)
			})
			require.ErrorIs(t, act(r), fleet.ErrNotFound)
			require.Equal(t, fleet.Pending, r.command("open").State)
			_, err := r.Command(t.Context(), "new")
			require.ErrorIs(t, err, fleet.ErrNotFound)
		})
	}
}

// A limited input that was made before a step of the clock is shifted like any other.
func TestLimitedInputsAreShifted(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	r.jump.By, r.jump.At = time.Hour, t0
	plain, at := r.shiftInput(fleet.CancelRequested{VM: "vm", Command: "c"}, t0.Add(-time.Minute))
	limited, limitedAt := r.shiftInput(fleet.Limit(fleet.CancelRequested{VM: "vm", Command: "c"}, inA), t0.Add(-time.Minute))
	require.Equal(t, at, limitedAt)
	require.Equal(t, plain, limited.(fleet.Limited).Input) //nolint:errcheck,forcetypeassert // it fails the test
	lease := fleet.LeaseRequested{VM: "vm", Request: fleet.LeaseRequest{At: t0.Add(-time.Minute)}}
	plain, _ = r.shiftInput(lease, t0.Add(-time.Minute))
	limited, _ = r.shiftInput(fleet.Limit(lease, inA), t0.Add(-time.Minute))
	require.Equal(t, plain, limited.(fleet.Limited).Input) //nolint:errcheck,forcetypeassert // as above
}

// Every change has the pool that its VM is in after its commit, and that of a VM also the one
// that it left; lists by pools from memory equal those from the database.
func TestPoolsOfChanges(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	r.accept("early", "vm") // never seen
	r.group(
		func() { r.event("vm", t0) },
		func() { r.move("vm", "a") },
	)
	r.move("other", "b")
	r.group(
		func() { r.accept("moved", "vm") },
		func() { r.move("vm", "b") },
	)
	r.event("vm", t0.Add(time.Second))
	r.move("vm", "")
	r.event("vm", t0.Add(2*time.Second))
	r.move("vm", "b")
	fresh := r.second()
	all, _, err := r.Changes(t.Context(), store.ChangeQuery{VM: "vm"}, 100)
	require.NoError(t, err)
	var pools [][3]string
	for _, c := range all {
		kind := kindEvent
		switch {
		case c.VM != nil:
			kind = kindVM
		case c.Command != nil && c.Command.ID == "early", c.Command != nil && c.Command.ID == "moved":
			kind = kindCommand
		case c.Command != nil:
			continue
		}
		pools = append(pools, [3]string{kind, c.Pool, c.Left})
	}
	require.Equal(t, [][3]string{{kindCommand, "", ""}, {kindEvent, "a", ""}, {kindVM, "a", ""}}, pools[:3])
	require.Contains(t, pools, [3]string{kindVM, "b", "a"})
	require.Contains(t, pools, [3]string{kindVM, "", "b"})
	require.Equal(t, [3]string{kindVM, "b", ""}, pools[len(pools)-1])
	require.NotContains(t, pools[3:], [3]string{kindCommand, "a", ""}, "a commit is one step")

	for _, in := range [][]string{{"a"}, {"b"}, {"a", "b"}, {"c"}} {
		for _, limit := range []int{1, 3, 100} {
			for after := range r.LastChange() + 1 {
				q := store.ChangeQuery{After: after, Pools: in}
				got, more, err := r.Changes(t.Context(), q, limit)
				require.NoError(t, err)
				stored, storedMore, err := fresh.Changes(t.Context(), q, limit)
				require.NoError(t, err)
				require.Equal(t, len(stored), len(got)) //nolint:testifylint // the lists would be too long to read
				for i := range stored {
					require.Equal(t, stored[i].Seq, got[i].Seq)
				}
				require.Equal(t, storedMore, more)
				for _, c := range got {
					require.True(t, slices.Contains(in, c.Pool) || slices.Contains(in, c.Left))
				}
			}
		}
	}
}
