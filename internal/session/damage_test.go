package session

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

// damage makes the documents of a key unreadable, bypassing the engine.
func (s *system) damage(k store.Keys) {
	s.Helper()
	rows, err := s.driver.Load(s.Context(), k)
	require.NoError(s, err)
	w := store.Writes{VMs: rows.VMs, Commands: rows.Commands}
	for i := range w.VMs {
		w.VMs[i].Doc = []byte("{{{")
	}
	for i := range w.Commands {
		w.Commands[i].Doc = []byte("{{{")
	}
	_, err = s.driver.Commit(s.Context(), w)
	require.NoError(s, err)
}

// When the record of a VM is lost, its session ends as soon as that is detected, without being
// superseded. The next session gets its command.
func TestSessionOfDamagedVM(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a := s.registered("vm-1")
		s.send("vm-1", "c")
		synctest.Wait()
		s.damage(store.Keys{VMs: []string{"vm-1"}})
		a.event("error")
		<-a.ended
		require.ErrorIs(t, a.session.Cause(), fleet.ErrDamaged)
		s.elapsed(0)
		synctest.Wait()
		require.Contains(t, s.log.String(), `"cause":"record damaged"`)
		b := s.connect("vm-1")
		require.Greater(t, b.session.Epoch(), a.session.Epoch())
		for id := fleet.CommandID(""); id != "c"; {
			select {
			case o := <-b.delivered:
				if id = o.Command.ID; id != "c" {
					b.ack(id, true)
				}
			case <-b.ended:
				require.FailNow(t, "the session has ended")
			}
		}
		b.ack("c", true)
		require.Equal(t, fleet.Succeeded, s.command("c").State)
	})
}

// An ack of a command that was set aside is refused, and the session continues.
func TestAckOfDamagedCommand(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a := s.registered("vm-1")
		s.send("vm-1", "c", "next")
		<-a.delivered
		s.damage(store.Keys{Commands: []string{"c"}})
		a.ack("c", true)
		require.EqualValues(t, 1, s.Stats().Refused)
		a.event("error")
		o := <-a.delivered
		require.EqualValues(t, "next", o.Command.ID)
	})
}
