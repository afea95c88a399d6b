package control_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/control"
	"github.com/mig-controller/mig-controller/internal/fleet"
)

// watcher is one call of Watch and the updates that it received.
type watcher struct {
	updates chan control.Update
	leave   context.CancelFunc
	ended   chan error
}

// watch begins a watch that accepts everything immediately.
func watch(t *testing.T, c *control.Control, cursor, vm string) *watcher {
	t.Helper()
	return watchAs(anyone(t), t, c, cursor, vm)
}

// watchAs is watch by the caller of ctx.
func watchAs(ctx context.Context, t *testing.T, c *control.Control, cursor, vm string) *watcher {
	t.Helper()
	w := &watcher{updates: make(chan control.Update, 5000), ended: make(chan error, 1)}
	ctx, leave := context.WithCancel(ctx)
	w.leave = leave
	go func() {
		w.ended <- c.Watch(ctx, cursor, vm, func(u control.Update) error {
			w.updates <- u
			return nil
		})
	}()
	t.Cleanup(leave)
	return w
}

// next waits for the next update.
func (w *watcher) next(t *testing.T) control.Update {
	t.Helper()
	select {
	case u := <-w.updates:
		return u
	case err := <-w.ended:
		require.FailNow(t, "the watch has ended", "%v", err)
		return control.Update{}
	}
}

// bare waits for the next update, which must have only a cursor.
func (w *watcher) bare(t *testing.T) (cursor string) {
	t.Helper()
	u := w.next(t)
	require.Nil(t, u.Change)
	require.NotEmpty(t, u.Cursor)
	return u.Cursor
}

// seqs waits for n updates with changes.
func (w *watcher) seqs(t *testing.T, n int) (seqs []int64, cursors []string) {
	t.Helper()
	for range n {
		u := w.next(t)
		require.NotNil(t, u.Change)
		seqs, cursors = append(seqs, u.Change.Seq), append(cursors, u.Cursor)
	}
	return seqs, cursors
}

func event(vm fleet.VMID) fleet.Event {
	return fleet.Event{Origin: fleet.Origin{VM: vm, ReceivedAt: start}, Type: "error"}
}

// manyChanges is more than an engine holds in memory, and more than a watch reads at a
// time.
const manyChanges = 3000

func from(first, last int64) (seqs []int64) {
	for seq := first; seq <= last; seq++ {
		seqs = append(seqs, seq)
	}
	return seqs
}

// A watch without a cursor begins now: earlier changes are not sent, later ones are, in
// order, with what changed.
func TestWatchBeginsNow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newWorld(t)
		c := newControl(t, s)
		s.know("vm-1", "vm-2")
		s.addEvent(event("vm-1"))
		began := time.Now()
		w := watch(t, c, "", "")
		w.bare(t)
		synctest.Wait()

		_, err := c.Send(anyone(t), drain("c1"), 0)
		require.NoError(t, err)
		s.open(fleet.Hello{VM: "vm-1"})
		s.addEvent(event("vm-2"))
		require.Equal(t, fleet.CommandID("c1"), w.next(t).Change.Command.ID)
		require.Equal(t, fleet.VMID("vm-1"), w.next(t).Change.VM.ID)
		require.Equal(t, fleet.VMID("vm-2"), w.next(t).Change.Event.VM)
		require.Zero(t, time.Since(began), "each is sent when it is made")
	})
}

// From the cursor of any answer a new watch continues right after it: nothing is missed or
// duplicated, across more changes than are read at a time, even if they are read from the
// store.
func TestWatchGoesOnFromAnyCursor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const n = 1203
		s := newWorld(t)
		c := newControl(t, s)
		w := watch(t, c, "", "")
		beginning := w.bare(t)
		s.know("vm-1")
		for range n - 1 {
			s.addEvent(event("vm-1"))
		}
		seqs, cursors := w.seqs(t, n)
		require.Equal(t, from(1, n), seqs)
		cursors = append([]string{beginning}, cursors...)

		for _, c := range []*control.Control{c, newControl(t, s.another())} {
			for _, at := range []int64{0, 1, 500, n - 500, n - 1, n} {
				again := watch(t, c, cursors[at], "")
				require.Equal(t, cursors[at], again.bare(t), "the first answer has only the cursor")
				seqs, _ := again.seqs(t, int(n-at))
				require.Equal(t, from(at+1, n), seqs)
				synctest.Wait()
				require.Empty(t, again.updates)
			}
		}
	})
}

// A watch of one VM gets only the changes of that VM.
func TestWatchOfOneVM(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newWorld(t)
		c := newControl(t, s)
		s.know("vm-1", "vm-2")
		w := watch(t, c, "", "vm-1")
		w.bare(t)
		for range 3 {
			s.addEvent(event("vm-1"))
			s.addEvent(event("vm-2"))
		}
		seqs, _ := w.seqs(t, 3)
		require.Equal(t, []int64{3, 5, 7}, seqs)
		synctest.Wait()
		require.Empty(t, w.updates)
	})
}

// After 30 seconds without a change, and every 30 seconds from then on, a cursor is sent; a
// change restarts the period.
func TestWatchBreaksTheQuiet(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newWorld(t)
		c := newControl(t, s)
		s.know("vm-1")
		w := watch(t, c, "", "")
		began := time.Now()
		w.bare(t)
		require.Zero(t, time.Since(began))
		for range 3 {
			w.bare(t)
		}
		require.Equal(t, 90*time.Second, time.Since(began))

		time.Sleep(20 * time.Second) // fake clock
		s.addEvent(event("vm-1"))
		w.seqs(t, 1)
		began = time.Now()
		w.bare(t)
		require.Equal(t, 30*time.Second, time.Since(began))
	})
}

// A watch of one VM starts reading at that VM's change, however many changes others have.
func TestWatchOfOneVMSkipsTheOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newWorld(t)
		s.know("vm-1", "vm-2")
		w := watch(t, newControl(t, s), "", "vm-1")
		w.bare(t)
		synctest.Wait()
		s.driver.before = func(method string) error {
			if method == "Changes" {
				t.Error("changes are read that are no longer in memory")
			}
			return nil
		}
		for range manyChanges {
			s.addEvent(event("vm-2"))
		}
		s.addEvent(event("vm-1"))
		seqs, _ := w.seqs(t, 1)
		require.Equal(t, []int64{manyChanges + 3}, seqs)
	})
}

// Changes of other VMs do not keep a watch of a quiet VM from sending cursors, and its
// cursors advance past them: they remain valid when those changes are purged.
func TestWatchOfAQuietVMMovesOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newWorld(t)
		c := newControl(t, s)
		s.know("vm-1", "vm-2")
		w := watch(t, c, "", "vm-1")
		began := time.Now()
		first := w.bare(t)
		for range 29 {
			time.Sleep(time.Second) // fake clock
			s.addEvent(event("vm-2"))
		}
		moved := w.bare(t)
		require.Equal(t, 30*time.Second, time.Since(began))
		require.NotEqual(t, first, moved)

		s.forget()
		other := newControl(t, s.another()) // with an empty cache
		err := other.Watch(anyone(t), first, "vm-1", func(control.Update) error { return errors.New("something was sent") })
		require.ErrorIs(t, err, fleet.ErrCursorExpired)
		again := watch(t, other, moved, "vm-1")
		require.Equal(t, moved, again.bare(t))
		s.addEvent(event("vm-1"))
		seqs, _ := again.seqs(t, 1)
		require.Equal(t, []int64{32}, seqs)
		seqs, _ = w.seqs(t, 1)
		require.Equal(t, []int64{32}, seqs)
	})
}

// A change made between the reads of the last change and of the batch, in whichever order,
// is sent and not skipped.
func TestWatchSkipsNothingThatIsMadeMeanwhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newWorld(t)
		s.know("vm-1", "vm-2")
		beginning := watch(t, newControl(t, s), "", "vm-1").bare(t)
		s.addEvent(event("vm-2"))

		other := s.another() // reads the changes from the driver
		reads := 0
		other.driver.before = func(method string) error {
			if method != "Changes" {
				return nil
			}
			reads++
			if reads == 2 { // the first checks whether the changes are kept
				other.addEvent(event("vm-1"))
				other.addEvent(event("vm-2"))
			}
			return nil
		}
		began := time.Now()
		w := watch(t, newControl(t, other), beginning, "vm-1")
		w.bare(t)
		seqs, _ := w.seqs(t, 1)
		require.Equal(t, []int64{4}, seqs)
		require.Zero(t, time.Since(began))
	})
}

// A change made after the batch was read and before the watch waits wakes it: it is sent
// immediately, not after the next quiet period.
func TestWatchMissesNoWakeUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newWorld(t)
		s.know("vm-1")
		c := newControl(t, s)
		began := time.Now()
		more := 10
		ctx, leave := context.WithCancel(anyone(t))
		var seqs []int64
		err := c.Watch(ctx, "", "vm-1", func(u control.Update) error {
			if u.Change != nil {
				seqs = append(seqs, u.Change.Seq)
			}
			if len(seqs) == 10 {
				leave()
			}
			if more > 0 {
				// The batch has been read and is being sent.
				more--
				s.addEvent(event("vm-1"))
			}
			return nil
		})
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, from(2, 11), seqs)
		require.Zero(t, time.Since(began))
	})
}

// A watcher that accepts nothing delays neither writers nor other watchers, and gets all
// changes in the end.
func TestASlowWatcherSlowsOnlyItself(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const n = manyChanges
		s := newWorld(t)
		s.know("vm-1")
		c := newControl(t, s)
		var (
			slow    []int64
			release = make(chan struct{})
			done    = make(chan error, 1)
		)
		ctx, leave := context.WithCancel(anyone(t))
		defer leave()
		go func() {
			done <- c.Watch(ctx, "", "", func(u control.Update) error {
				<-release
				if u.Change != nil {
					slow = append(slow, u.Change.Seq)
				}
				return nil
			})
		}()
		quick := watch(t, c, "", "")
		quick.bare(t)
		synctest.Wait()
		for range n {
			s.addEvent(event("vm-1"))
		}
		seqs, _ := quick.seqs(t, n)
		require.Equal(t, from(2, n+1), seqs)

		close(release)
		synctest.Wait()
		leave()
		require.ErrorIs(t, <-done, context.Canceled)
		require.Equal(t, from(2, n+1), slow)
	})
}

// Concurrent changes reach every watcher in the order of the log.
func TestWatchUnderConcurrentChanges(t *testing.T) {
	t.Parallel()
	const writers, each = 8, 100
	s := newWorld(t)
	for i := range writers {
		s.know(fleet.VMID(fmt.Sprintf("vm-%d", i)))
	}
	c := newControl(t, s)
	all, one := watch(t, c, "", ""), watch(t, c, "", "vm-1")
	all.bare(t)
	one.bare(t)
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for range each {
				s.addEvent(event(fleet.VMID(fmt.Sprintf("vm-%d", i))))
			}
		})
	}
	wg.Wait()
	seqs, _ := all.seqs(t, writers*each)
	require.Equal(t, from(writers+1, writers+writers*each), seqs)
	seqs, _ = one.seqs(t, each)
	require.True(t, slices.IsSorted(seqs))
}
