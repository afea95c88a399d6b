package control_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/engine"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

// A wait ends at once when the VM leaves the pools of the caller, whose answer is that of every
// later call; the command stays.
func TestWaitEndsWhenTheVMLeaves(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(s *world){
		"the VM leaves": func(s *world) { s.move("own", "b") },
		"it leaves and the command ends": func(s *world) {
			s.move("own", "b")
			s.apply(fleet.CancelRequested{VM: "own", Command: "c1"}, start)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, c := pooled(t)
				began := time.Now()
				answer := make(chan error, 1)
				go func() {
					got, err := c.Send(limitedTo(t, "a"), drainOf("c1", "own"), time.Hour)
					if got.ID != "" {
						t.Error("a record was returned")
					}
					answer <- err
				}()
				time.Sleep(time.Minute) // fake clock
				s.addEvent(event("own"))
				s.move("own", "a") // stays
				synctest.Wait()
				require.Empty(t, answer)
				leave(s)
				require.EqualError(t, <-answer, `VM "own": not found`)
				require.Equal(t, time.Minute, time.Since(began))
				_, err := s.Command(t.Context(), "c1")
				require.NoError(t, err)
			})
		})
	}
}

// A wait of a limited caller returns the record when the command ends.
func TestLimitedWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := pooled(t)
		answer := make(chan fleet.Command, 1)
		go func() {
			got, err := c.Send(limitedTo(t, "a"), drainOf("c1", "own"), time.Hour)
			if err != nil {
				t.Error(err)
			}
			answer <- got
		}()
		synctest.Wait()
		s.apply(fleet.CancelRequested{VM: "own", Command: "c1"}, start)
		require.Equal(t, fleet.Cancelled, (<-answer).State)
	})
}

// A watcher sees the change by which a VM enters, the removal when it leaves, once, and nothing
// of the VM in between; a watch of that VM too.
func TestWatchOfPools(t *testing.T) {
	t.Parallel()
	for _, vm := range []string{"", "own"} {
		t.Run("vm_id "+vm, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, c := pooled(t)
				w := watchAs(limitedTo(t, "a", "a2"), t, c, "", vm)
				cursor := w.bare(t)
				s.addEvent(event("foreign"))
				s.addEvent(event("bare"))
				s.addEvent(event("own"))
				s.move("own", "a2") // still in the scope
				s.move("own", "b")
				s.addEvent(event("own"))
				s.move("own", "c")
				s.move("own", "")
				s.move("own", "a")
				s.move("own", "")
				synctest.Wait()
				check := func(w *watcher) {
					require.NotNil(t, w.next(t).Change.Event)
					require.Equal(t, "a2", w.next(t).Change.VM.Pool)
					for range 2 {
						u := w.next(t)
						require.True(t, u.Removed)
						require.NotEmpty(t, u.Cursor)
						require.Equal(t, &fleet.Change{Seq: u.Change.Seq, At: u.Change.At, Subject: "own"}, u.Change)
						require.NotZero(t, u.Change.At)
						if len(w.updates) > 0 {
							require.Equal(t, "a", w.next(t).Change.VM.Pool)
						}
					}
					require.Empty(t, w.updates)
				}
				check(w)
				again := watchAs(limitedTo(t, "a", "a2"), t, newControl(t, s.another()), cursor, vm)
				again.bare(t)
				synctest.Wait()
				check(again)
			})
		})
	}
}

// The cursors of a watcher advance past what it does not see, so that they stay valid.
func TestLimitedCursorsMoveOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := pooled(t)
		w := watchAs(limitedTo(t, "a"), t, c, "", "")
		first := w.bare(t)
		began := time.Now()
		for range 29 {
			time.Sleep(time.Second) // fake clock
			s.addEvent(event("foreign"))
		}
		moved := w.bare(t)
		require.Equal(t, 30*time.Second, time.Since(began), "what others do shows in no answer")
		require.NotEqual(t, first, moved)
		s.forget()
		again := watchAs(limitedTo(t, "a"), t, newControl(t, s.another()), moved, "")
		again.bare(t)
		s.addEvent(event("own"))
		require.Equal(t, fleet.VMID("own"), again.next(t).Change.Subject)
	})
}

// A list that is being completed while a VM leaves reveals nothing of its new state.
func TestListWhileTheVMLeaves(t *testing.T) {
	t.Parallel()
	s, _ := pooled(t)
	moved := false
	s.driver.before = func(method string) error {
		if method == "LoadVMs" && !moved {
			moved = true
			other := s.another()
			other.move("own", "b")
			other.apply(fleet.CancelRequested{VM: "own", Command: "of-own"}, start)
		}
		return nil
	}
	other := newControl(t, &world{Engine: openWorld(t, s.driver).Engine, t: t, driver: s.driver})
	page, _, err := other.Commands(limitedTo(t, "a"), store.CommandQuery{}, 0, "")
	require.NoError(t, err)
	require.True(t, moved)
	require.Len(t, page, 1)
	require.Equal(t, fleet.Pending, page[0].State)
	require.Zero(t, page[0].Waiting)
}

// A VM that retention removes is no change for any watcher; what is kept of it is in nobody's
// pools until it returns.
func TestRetentionIsNoRemoval(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := pooled(t)
		limited, unlimited := watchAs(limitedTo(t, "a"), t, c, "", ""), watch(t, c, "", "")
		limited.bare(t)
		unlimited.bare(t)
		removed, err := s.Purge(t.Context(), engine.Retention{VMs: time.Hour}, start.Add(2*time.Hour))
		require.NoError(t, err)
		require.Equal(t, 3, removed)
		synctest.Wait()
		require.Empty(t, limited.updates)
		require.Empty(t, unlimited.updates)
		page, _, err := c.Commands(limitedTo(t, "a"), store.CommandQuery{}, 0, "")
		require.NoError(t, err)
		require.Empty(t, page)
		_, err = c.Command(limitedTo(t, "a"), "of-own")
		require.ErrorIs(t, err, fleet.ErrNotFound)
		s.move("own", "a")
		require.Equal(t, fleet.VMID("own"), limited.next(t).Change.Subject)
		_, err = c.Command(limitedTo(t, "a"), "of-own")
		require.NoError(t, err)
	})
}
