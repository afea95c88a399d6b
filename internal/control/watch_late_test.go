package control_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// A change that is reported late, as one of another process may be, is sent as soon as it
// is reported, and restarts the quiet period.
func TestWatchSendsWhatIsReportedLate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newWorld(t)
		s.know("vm-1")
		w := watch(t, newControl(t, s), "", "")
		w.bare(t)
		synctest.Wait()
		began := time.Now()
		s.driver.mute()
		s.another().addEvent(event("vm-1"))
		synctest.Wait()
		require.Empty(t, w.updates)
		time.AfterFunc(20*time.Second, s.driver.repeat)
		seqs, _ := w.seqs(t, 1)
		require.Equal(t, []int64{2}, seqs)
		require.Equal(t, 20*time.Second, time.Since(began))
		w.bare(t)
		require.Equal(t, 50*time.Second, time.Since(began))
	})
}

// A change that is reported late is not sent after later changes of the engine itself.
func TestWatchKeepsTheOrderOfWhatIsReportedLate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newWorld(t)
		s.know("vm-1", "vm-2")
		w := watch(t, newControl(t, s), "", "")
		w.bare(t)
		s.driver.mute()
		s.another().addEvent(event("vm-1"))
		s.addEvent(event("vm-2"))
		s.driver.repeat()
		require.Equal(t, fleet.VMID("vm-1"), w.next(t).Change.Event.VM)
		require.Equal(t, fleet.VMID("vm-2"), w.next(t).Change.Event.VM)
		synctest.Wait()
		require.Empty(t, w.updates)
	})
}

// A repeated notification of a change neither sends anything nor restarts the quiet period.
func TestWatchTakesNoNoticeOfRepetitions(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newWorld(t)
		s.know("vm-1")
		c := newControl(t, s)
		w := watch(t, c, "", "")
		w.bare(t)
		s.addEvent(event("vm-1"))
		w.seqs(t, 1)
		began := time.Now()
		time.AfterFunc(20*time.Second, s.driver.repeat)
		w.bare(t)
		require.Equal(t, 30*time.Second, time.Since(began))
	})
}
