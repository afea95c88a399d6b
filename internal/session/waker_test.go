package session

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// A session whose lock is held delays neither the engine nor other sessions.
func TestWriterWaitsForNoSession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		locked, free := s.registered("vm-1"), s.registered("vm-2")
		synctest.Wait()
		locked.session.mu.Lock()
		s.send("vm-1", "a") // returns once it is committed
		s.send("vm-1", "b")
		s.report("vm-1", "error")
		require.Equal(t, fleet.Delivered, s.command("a").State)
		locked.session.mu.Unlock()
		require.Equal(t, fleet.CommandID("a"), locked.next(true).ID)
		require.Equal(t, fleet.CommandID("b"), locked.next(true).ID)
		s.send("vm-2", "c")
		require.Equal(t, fleet.CommandID("c"), free.next(true).ID)
	})
}

// However often a VM is to be woken before the waker runs, it is woken once, and asked for a
// token if any of these wake-ups was for that.
func TestWakerMergesWakeUps(t *testing.T) {
	t.Parallel()
	type wakeUp struct {
		vm      fleet.VMID
		prepare bool
	}
	var woken []wakeUp
	w := newWaker(func(vm fleet.VMID, prepare bool) { woken = append(woken, wakeUp{vm, prepare}) })
	w.add("vm-1", fleet.Ready{})
	w.add("vm-1", fleet.Ready{Prepare: true})
	w.add("vm-1", fleet.Ready{})
	w.add("vm-2", fleet.Ready{})
	w.stop()
	w.run()
	require.ElementsMatch(t, []wakeUp{{"vm-1", true}, {"vm-2", false}}, woken)
}
