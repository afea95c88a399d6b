package session

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
	"github.com/mig-controller/mig-controller/internal/store/sqlite"
)

// EndSessions ends every session at once, including held ones, and no new one can begin.
func TestEndSessions(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		older, newer, other := s.connect("vm-1"), s.connect("vm-1"), s.connect("vm-2")
		refused := make(chan struct{})
		go func() {
			defer close(refused)
			s.Hold(t.Context())
		}()
		synctest.Wait()
		s.EndSessions(t.Context())
		s.elapsed(0)
		<-refused
		<-s.Stopping()
		for _, a := range []*agent{older, newer, other} {
			<-a.ended
		}
		require.ErrorIs(t, older.session.Cause(), fleet.ErrSuperseded)
		require.ErrorIs(t, newer.session.Cause(), fleet.ErrUnavailable)
		require.False(t, s.vm("vm-1").Connected)
		require.False(t, s.vm("vm-2").Connected)
		require.Empty(t, s.holds)
		_, err := s.Open(t.Context(), fleet.Hello{VM: "vm-3"}, newTransport())
		require.ErrorIs(t, err, fleet.ErrUnavailable)
		_, err = s.store.VM(t.Context(), "vm-3")
		require.ErrorIs(t, err, fleet.ErrNotFound)
		s.EndSessions(t.Context())
		s.elapsed(0)
	})
}

// EndSessions waits for a session that is being opened, and ends it.
func TestEndSessionsDuringOpen(t *testing.T) {
	t.Parallel()
	for _, step := range []string{"OpenSession", "after OpenSession"} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSystem(t)
				var ended chan struct{}
				s.store.on(step, func() error {
					s.store.up(step)
					ended = make(chan struct{})
					go func() {
						defer close(ended)
						s.EndSessions(t.Context())
					}()
					synctest.Wait()
					select {
					case <-ended:
						return errors.New("it did not wait")
					default:
						return nil
					}
				})
				a := s.connect("vm-1")
				<-ended
				<-a.ended
				require.ErrorIs(t, a.session.Cause(), fleet.ErrStopping)
				require.False(t, s.vm("vm-1").Connected)
				a.requireNothing()
				s.elapsed(0)
			})
		})
	}
}

// EndSessions does not wait for a session whose reader does not return.
func TestEndSessionsGivesUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		session, err := s.Open(t.Context(), fleet.Hello{VM: "vm-1"}, newTransport())
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		s.EndSessions(ctx)
		s.elapsed(3 * time.Second)
		s.Close()
		s.elapsed(lastTries)
		require.ErrorIs(t, session.Heartbeat(fleet.Heartbeat{}, noFile), fleet.ErrStopping)
		session.Close(nil)
		require.False(t, s.vm("vm-1").Connected)
	})
}

// Messages that arrived before the stop are applied, although they are read after it.
func TestStopAppliesReceivedMessages(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		transport := newTransport()
		session, err := s.Open(t.Context(), fleet.Hello{VM: "vm-1"}, transport)
		require.NoError(t, err)
		id := (<-transport.got).Command.ID
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			s.Close()
		}()
		<-transport.interrupted
		require.NoError(t, session.Ack(fleet.Ack{CommandID: id, Success: true}))
		require.NoError(t, session.Event(fleet.Event{Type: "vm_shutting_down"}))
		require.NoError(t, session.Heartbeat(fleet.Heartbeat{Status: "shutting_down"}, noFile))
		session.Close(nil)
		<-stopped
		s.elapsed(0)
		require.Equal(t, fleet.Succeeded, s.command(id).State)
		require.Equal(t, []string{"vm_shutting_down"}, s.events("vm-1"))
		require.Equal(t, []string{"shutting_down"}, s.beats("vm-1"))
		// The file of the heartbeat may not be written yet.
		require.Contains(t, strings.Join(s.files("vm-1"), " "), "grpc-event-vm_shutting_down-")
	})
}

// A command that is accepted during the stop is not sent: the next controller sends it.
func TestStopSendsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		transport := newTransport()
		session, err := s.Open(t.Context(), fleet.Hello{VM: "vm-1"}, transport)
		require.NoError(t, err)
		require.NoError(t, session.Ack(fleet.Ack{CommandID: (<-transport.got).Command.ID, Success: true}))
		synctest.Wait() // it rests
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			s.Close()
		}()
		<-transport.interrupted
		s.send("vm-1", "late")
		synctest.Wait()
		require.Empty(t, transport.got)
		session.Close(nil)
		<-stopped
		s.start()
		require.Equal(t, fleet.CommandID("late"), s.connect("vm-1").next().ID)
	})
}

// After a stop the next controller continues: no VM is connected, and commands that were in
// flight are sent again.
func TestNextController(t *testing.T) {
	t.Parallel()
	for name, stop := range map[string]func(*system){"closed": func(s *system) { s.Close() }, "crashed": (*system).crash} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSystem(t)
				a := s.registered("vm-1")
				s.send("vm-1", "a")
				a.next()
				stop(s)
				s.Close() // closing again is not an error
				s.elapsed(0)
				require.Equal(t, name == "crashed", s.vm("vm-1").Connected)

				time.Sleep(10 * defaults.AckTimeout) // fake clock
				s.start()
				require.False(t, s.vm("vm-1").Connected)
				again := s.connect("vm-1").next()
				require.Equal(t, fleet.CommandID("a"), again.ID)
				require.Equal(t, 2, again.Attempts)
			})
		})
	}
}

// The same with a database in a file and a new process.
func TestNextProcess(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "controller.db")
		s := newSystemOn(t, openFile(t, path))
		a := s.registered("vm-1")
		s.send("vm-1", "a", "b")
		require.Equal(t, fleet.CommandID("a"), a.next(true).ID)
		require.Equal(t, fleet.CommandID("b"), a.next().ID)
		a.event("job_started")
		a.beat("job_running")
		s.report("vm-2", fleet.EventVMStarted)
		s.Close()
		require.NoError(t, s.store.Close())

		s.open(openFile(t, path))
		s.start()
		require.Equal(t, []string{"job_started"}, s.events("vm-1"))
		require.Equal(t, []string{"job_running"}, s.beats("vm-1"))
		require.Equal(t, "job_running", s.vm("vm-1").Status)
		require.False(t, s.vm("vm-1").Connected)
		require.Equal(t, fleet.Succeeded, s.command("a").State)
		leases, err := s.Poll(t.Context(), "vm-2")
		require.NoError(t, err)
		require.Equal(t, fleet.RegisterRunner, leases[0].Command.Type)
		a = s.connect("vm-1")
		again := a.next(true)
		require.Equal(t, fleet.CommandID("b"), again.ID)
		require.Equal(t, 2, again.Attempts)
		s.send("vm-1", "c")
		require.Equal(t, fleet.CommandID("c"), a.next(true).ID)
		require.Contains(t, strings.Join(s.files("vm-2"), " "), "event-vm_started-")
	})
}

// openFile opens the database in a file. The caller closes it.
func openFile(t *testing.T, path string) store.Driver {
	t.Helper()
	db, err := sqlite.Open(t.Context(), path, slog.New(slog.DiscardHandler), nil)
	require.NoError(t, err)
	return db
}
