package control_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/control"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
	"github.com/mig-controller/mig-controller/internal/store/memory"
)

// Close ends every watch with an error that says to reconnect.
func TestCloseEndsWatches(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newWorld(t)
		c := newControl(t, s)
		w := watch(t, c, "", "")
		cursor := w.bare(t)
		synctest.Wait()
		began := time.Now()
		c.Close()
		err := <-w.ended
		require.Zero(t, time.Since(began))
		require.ErrorIs(t, err, fleet.ErrUnavailable)
		require.ErrorContains(t, err, "stopping")

		err = c.Watch(anyone(t), cursor, "", func(control.Update) error { return nil })
		require.ErrorIs(t, err, fleet.ErrUnavailable, "and so does a later watch")
	})
}

// A watch with a thousand changes to send ends at Close, not after them.
func TestCloseEndsABusyWatch(t *testing.T) {
	t.Parallel()
	s := newWorld(t)
	c := newControl(t, s)
	w := watch(t, c, "", "")
	beginning := w.bare(t)
	for range 1000 {
		s.addEvent(event("vm-1"))
	}
	sent := 0
	err := c.Watch(anyone(t), beginning, "", func(control.Update) error {
		sent++
		if sent == 10 {
			c.Close()
		}
		return nil
	})
	require.ErrorIs(t, err, fleet.ErrUnavailable)
	require.Equal(t, 10, sent)
}

// A watch ends with the error of its ctx, its send or its store.
func TestWatchEnds(t *testing.T) {
	t.Parallel()
	t.Run("when its caller leaves", func(t *testing.T) {
		t.Parallel()
		w := watch(t, newControl(t, newWorld(t)), "", "")
		w.bare(t)
		w.leave()
		require.ErrorIs(t, <-w.ended, context.Canceled)
	})
	broken := errors.New("broken")
	t.Run("when it cannot send", func(t *testing.T) {
		t.Parallel()
		c := newControl(t, newWorld(t))
		require.ErrorIs(t, c.Watch(anyone(t), "", "", func(control.Update) error { return broken }), broken)
	})
	t.Run("when it cannot read", func(t *testing.T) {
		t.Parallel()
		s := newWorld(t)
		w := watch(t, newControl(t, s), "", "")
		cursor := w.bare(t)
		s.addEvent(event("vm-1"))
		other := s.another() // with an empty cache
		other.driver.before = func(method string) error {
			if method == "Changes" {
				return broken
			}
			return nil
		}
		err := newControl(t, other).Watch(anyone(t), cursor, "vm-1", func(control.Update) error { return nil })
		require.ErrorIs(t, err, broken)
		require.ErrorIs(t, err, fleet.ErrUnavailable)
	})
	t.Run("when it is too slow for what is kept", func(t *testing.T) {
		t.Parallel()
		s := newWorld(t)
		c := newControl(t, s)
		err := c.Watch(anyone(t), "", "", func(control.Update) error {
			for range manyChanges {
				s.addEvent(event("vm-1"))
			}
			s.forget()
			return nil
		})
		require.ErrorIs(t, err, fleet.ErrCursorExpired)
	})
}

// An invalid cursor is rejected before anything is sent, and is not repeated in the error.
func TestWatchRefusesCursors(t *testing.T) {
	t.Parallel()
	s := newWorld(t)
	c := newControl(t, s)
	w := watch(t, c, "", "")
	w.bare(t)
	s.know("vm-1")
	w.seqs(t, 1)
	for range 3 {
		s.addEvent(event("vm-1"))
	}
	_, cursors := w.seqs(t, 3)
	last := cursors[2]

	other := newWorld(t)
	for range 3 {
		other.addEvent(event("vm-1"))
	}
	restored := openWorld(t, &driver{DB: memory.New(), id: s.ID()})
	restored.addEvent(event("vm-1"))
	_, next, err := c.Events(anyone(t), store.EventQuery{}, 1, "")
	require.NoError(t, err)

	tests := []struct {
		name       string
		store      *world
		cursor, vm string
		field      string
	}{
		{"garbage", s, "garbage", "", "cursor"},
		{"changed", s, last + "A", "", "cursor"},
		{"a page token", s, next, "", "cursor"},
		{"of another store", other, last, "", "cursor"},
		{"beyond the last change", restored, last, "", "cursor"},
		{"a VM that cannot be", s, last, "_", "vm_id"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			err := newControl(t, test.store).Watch(anyone(t), test.cursor, test.vm, func(control.Update) error {
				return errors.New("something was sent")
			})
			requireField(t, err, test.field)
			require.NotContains(t, err.Error(), test.cursor)
		})
	}
}

// A cursor outlives the controller: it is valid as long as the store exists.
func TestCursorsOutliveTheController(t *testing.T) {
	t.Parallel()
	s := newWorld(t)
	s.know("vm-1")
	before := newControl(t, s)
	w := watch(t, before, "", "")
	cursor := w.bare(t)
	before.Close()
	require.ErrorIs(t, <-w.ended, fleet.ErrUnavailable)
	s.addEvent(event("vm-1"))
	require.NoError(t, s.Close())

	again := watch(t, newControl(t, openWorld(t, &driver{DB: s.driver.Crash()})), cursor, "")
	again.bare(t)
	seqs, _ := again.seqs(t, 1)
	require.Equal(t, []int64{2}, seqs)
}
