package storetest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/store"
)

// counting has writers that each increment numbers in rows, some of them shared, rounds
// times, and followers that read the log.
type counting struct {
	writers, rounds, rows int
	// latest is the highest change of an acknowledged commit.
	latest atomic.Int64
}

// keys are the rows that a writer increments.
func (c *counting) keys(writer, round int) store.Keys {
	n := (writer + round) % c.rows
	return store.Keys{VMs: []string{numbered("vm", n)}, Commands: []string{numbered("c", (n+round)%c.rows)}}
}

// write increments the numbers in a VM and a command, and retries on conflicts.
func (c *counting) write(ctx context.Context, d store.Driver, writer int) error {
	for round := range c.rounds {
		keys := c.keys(writer, round)
		for done := false; !done; {
			rows, err := d.Load(ctx, keys)
			if err != nil {
				return err
			}
			if done, err = c.add(ctx, d, keys, rows); err != nil {
				return fmt.Errorf("writer %d, round %d: %w", writer, round, err)
			}
		}
	}
	return nil
}

func (c *counting) add(ctx context.Context, d store.Driver, keys store.Keys, rows store.Rows) (done bool, err error) {
	if len(rows.VMs) == 0 {
		rows.VMs = []store.VMRow{{ID: keys.VMs[0]}}
	}
	if len(rows.Commands) == 0 {
		rows.Commands = []store.CommandRow{{ID: keys.Commands[0], VM: "vm"}}
	}
	vm, command := rows.VMs[0], rows.Commands[0]
	vm.Doc, command.Doc = increment(vm.Doc), increment(command.Doc)
	before := c.latest.Load()
	given, err := d.Commit(ctx, store.Writes{
		VMs: []store.VMRow{vm}, Commands: []store.CommandRow{command},
		Changes: []store.ChangeRow{{VM: vm.ID, At: at(0), Doc: vm.Doc}, {VM: command.ID, At: at(0), Doc: command.Doc}},
	})
	var conflict *store.ConflictError
	switch {
	case errors.As(err, &conflict):
		if len(conflict.VMs)+len(conflict.Commands) == 0 {
			return false, errors.New("a conflict without rows")
		}
		return false, nil
	case err != nil:
		return false, err
	case given.FirstChange <= before:
		return false, fmt.Errorf("change %d came after change %d", given.FirstChange, before)
	}
	for last := given.FirstChange + 1; ; {
		latest := c.latest.Load()
		if latest >= last || c.latest.CompareAndSwap(latest, last) {
			return true, nil
		}
	}
}

func increment(doc []byte) []byte {
	n, _ := strconv.Atoi(string(doc))
	return strconv.AppendInt(nil, int64(n)+1, 10)
}

// follow reads the changes after each call, and once when all are written, until it has
// seen all of them. It returns an error if one is missing, duplicated, or out of order.
func (c *counting) follow(ctx context.Context, d store.Driver, calls <-chan int64, written <-chan struct{}) error {
	counts := map[string]int{}
	var last int64
	for cursor := int64(0); cursor < int64(2*c.writers*c.rounds); {
		previous := last
		select {
		case last = <-calls:
		case <-written:
			written, previous = nil, -1 // not from a call
		case <-ctx.Done():
			return fmt.Errorf("no call after change %d: %w", cursor, ctx.Err())
		}
		if last <= previous {
			return fmt.Errorf("called for change %d after change %d", last, previous)
		}
		for page := []store.ChangeRow{{}}; len(page) > 0; {
			var err error
			if page, _, err = d.Changes(ctx, store.ChangeQuery{After: cursor}, 7); err != nil {
				return err
			}
			for _, row := range page {
				cursor++
				counts[row.VM]++
				if row.Seq != cursor || string(row.Doc) != strconv.Itoa(counts[row.VM]) {
					return fmt.Errorf("change %d has number %d; it is count %d of %s and says %s", cursor, row.Seq, counts[row.VM], row.VM, row.Doc)
				}
			}
		}
		if cursor < last {
			return fmt.Errorf("called for change %d, and found only %d", last, cursor)
		}
	}
	return nil
}

// run runs writers on the drivers in turn, and a follower at each.
func (c *counting) run(t *testing.T, drivers ...store.Driver) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	errs := make([]error, c.writers+len(drivers))
	var written chan struct{} // commits of others need not be reported before the next own commit
	if len(drivers) > 1 {
		written = make(chan struct{})
	}
	var wg, writing sync.WaitGroup
	for i, d := range drivers {
		calls := make(chan int64, 2*c.writers*c.rounds)
		t.Cleanup(d.Listen(func(last int64) { calls <- last }))
		wg.Go(func() { errs[i] = c.follow(ctx, d, calls, written) })
	}
	for i := range c.writers {
		writing.Go(func() { errs[len(drivers)+i] = c.write(ctx, drivers[i%len(drivers)], i) })
	}
	writing.Wait()
	if written != nil {
		close(written)
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
}

func concurrentWriters(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	c := &counting{writers: 8, rounds: 25, rows: 3}
	c.run(t, d.Driver)
	c.counted(t, d)
}

// counted requires that the rows contain what the writers added.
func (c *counting) counted(t *testing.T, d *database) {
	t.Helper()
	vms, commands := 0, 0
	for n := range c.rows {
		vm, command := d.vm(numbered("vm", n)), d.command(numbered("c", n))
		require.Equal(t, fmt.Sprint(vm.Version), string(vm.Doc), "each commit increments the version")
		require.Equal(t, fmt.Sprint(command.Version), string(command.Doc))
		vms, commands = vms+int(vm.Version), commands+int(command.Version)
	}
	require.Equal(t, c.writers*c.rounds, vms)
	require.Equal(t, c.writers*c.rounds, commands)
	require.EqualValues(t, 2*c.writers*c.rounds, d.lastChange())
}

// Rows that are always committed together are loaded consistently.
func loadOneMoment(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	pair := store.Writes{VMs: []store.VMRow{{ID: "a"}, {ID: "b"}}, Commands: []store.CommandRow{{ID: "c", VM: "a", Queue: "normal"}, {ID: "d", VM: "b"}}}
	d.commit(pair)
	var wg sync.WaitGroup
	var err error
	done := make(chan struct{})
	wg.Go(func() {
		defer close(done)
		for n := 1; n <= 100 && err == nil; n++ {
			for i := range 2 {
				pair.VMs[i].Version, pair.Commands[i].Version = store.Version(n), store.Version(n)
			}
			_, err = d.Commit(t.Context(), pair)
		}
	})
	defer wg.Wait()
	for ended := false; !ended; {
		select {
		case <-done:
			ended = true
		default:
		}
		rows := d.load(store.Keys{VMs: []string{"a", "b"}, Queues: []string{"normal"}, Depth: 1, Commands: []string{"d"}})
		require.Len(t, rows.VMs, 2)
		require.Len(t, rows.Commands, 2)
		for _, version := range []store.Version{rows.VMs[1].Version, rows.Commands[0].Version, rows.Commands[1].Version} {
			require.Equal(t, rows.VMs[0].Version, version)
		}
	}
	require.NoError(t, err)
	require.EqualValues(t, 101, d.vm("a").Version)
}

// shared opens a database twice, or skips the test.
func shared(t *testing.T, drivers Drivers) (a, b *database) {
	t.Helper()
	if drivers.Shared == nil {
		t.Skip("only one process has a database of this kind")
	}
	a = newDatabase(t, drivers)
	return a, opened(t, drivers.Shared(t, a.Driver))
}

func sharedDatabase(t *testing.T, drivers Drivers) {
	a, b := shared(t, drivers)
	require.Equal(t, a.ID(), b.ID())
	here, there := a.listen(), b.listen()
	want := shown(full(), a.commit(full()))
	require.Equal(t, want, b.contents(), "a commit of one is immediately visible to the other")

	loaded := b.vm("vm-1")
	a.commit(store.Writes{VMs: []store.VMRow{loaded}})
	require.Equal(t, &store.ConflictError{VMs: []string{"vm-1"}}, tidyConflict(b.conflict(store.Writes{VMs: []store.VMRow{loaded}})))
	c := b.commit(store.Writes{VMs: []store.VMRow{b.vm("vm-1")}, Changes: []store.ChangeRow{aChange("vm-1", "")}})
	require.Equal(t, want.LastChange+1, c.FirstChange)
	there.await(c.FirstChange) // earlier commits of others are covered
	c = a.commit(store.Writes{Changes: []store.ChangeRow{aChange("vm-1", "")}})
	here.await(c.FirstChange)
	require.EqualValues(t, 3, a.vm("vm-1").Version)
}

func sharedWriters(t *testing.T, drivers Drivers) {
	a, b := shared(t, drivers)
	c := &counting{writers: 4, rounds: 25, rows: 3}
	c.run(t, a.Driver, b.Driver)
	c.counted(t, a)
	c.counted(t, b)
}
