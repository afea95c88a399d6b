package session

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/loglimit"
)

// While the store is unavailable, storing a message is retried and nothing after it is read:
// agents send no report twice.
func TestReportsOutlastAnOutage(t *testing.T) {
	t.Parallel()
	for _, outage := range []time.Duration{time.Second, 20 * time.Minute} {
		t.Run(outage.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSystem(t)
				a := s.connect("vm-1")
				id := a.next().ID
				s.store.down("RecordEvent", "Ack")
				said := make(chan string, 4)
				go func() {
					a.event("vm_shutting_down")
					said <- "event"
					a.ack(id, true)
					said <- "ack"
				}()
				time.Sleep(outage - 1) // fake clock
				synctest.Wait()
				require.Empty(t, said)

				s.store.up("RecordEvent")
				require.Equal(t, "event", <-said)
				require.Equal(t, []string{"vm_shutting_down"}, s.events("vm-1"))
				require.LessOrEqual(t, time.Since(s.began), outage+lastRetry)
				synctest.Wait()
				require.Empty(t, said)
				require.NotEqual(t, fleet.Succeeded, s.command(id).State)

				s.store.up("Ack")
				require.Equal(t, "ack", <-said)
				require.Equal(t, fleet.Succeeded, s.command(id).State)
				require.NoError(t, a.session.Cause())
			})
		})
	}
}

// The end of the stream or of the controller ends the retries; lost reports are logged.
func TestReportsWaitNoLongerThanTheirStream(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(s *system, a *agent){
		"stream": func(_ *system, a *agent) { a.disconnect() },
		"stop":   func(s *system, _ *agent) { s.EndSessions(s.Context()) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSystem(t)
				a := s.registered("vm-1")
				s.store.down("RecordEvent")
				said := make(chan error, 1)
				go func() { said <- a.do(eventOf("error")) }()
				synctest.Wait()
				require.Empty(t, said)
				end(s, a)
				require.ErrorIs(t, <-said, fleet.ErrUnavailable)
				<-a.ended
				s.elapsed(0)
				require.Equal(t, 1, s.log.count("report lost"))
			})
		})
	}
}

// A write that has begun is not aborted when its stream ends.
func TestReportUnderWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a := s.registered("vm-1")
		s.store.on("RecordEvent", func() error {
			a.disconnect()
			<-a.session.stream.Done()
			return nil
		})
		a.event("job_completed")
		<-a.ended
		require.Equal(t, []string{"job_completed"}, s.events("vm-1"))
	})
}

// An outage does not flood the log, however many sessions there are and however long it lasts.
func TestOutageDoesNotFloodTheLog(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		const sessions, minutes = 20, 10
		s.tokens.on(func() error { return fleet.ErrNoToken })
		var agents []*agent
		for i := range sessions {
			agents = append(agents, s.connect(fleet.VMID(fmt.Sprintf("vm-%d", i))))
		}
		s.store.down("RecordEvent", "RecordHeartbeats", "Sweep", "CloseSession")
		for i, a := range agents {
			a.beat("idle")
			if i%2 == 0 {
				a.quit()
				continue
			}
			go func() { _ = a.do(eventOf("error")) }()
		}
		time.Sleep(minutes * time.Minute) // fake clock
		for message, most := range map[string]int{
			"register_runner waits for a registration token": (minutes + 1) * loglimit.Lines,
			"store unavailable, retrying":                    (minutes + 1) * loglimit.Lines,
			"session end not recorded, trying again":         (minutes + 1) * loglimit.Lines,
			"heartbeats not stored, trying again":            1,
			"maintenance failed, trying again":               1,
		} {
			n := s.log.count(message)
			require.Positive(t, n, message)
			require.LessOrEqual(t, n, most, message)
		}
		require.Less(t, s.store.called("RecordEvent"), sessions*minutes*6)
		s.store.up("RecordEvent", "RecordHeartbeats", "Sweep", "CloseSession")
		time.Sleep(lastRetry) // fake clock
		synctest.Wait()
		es, _, err := s.store.Events(t.Context(), allEvents, onePage)
		require.NoError(t, err)
		require.Len(t, es, sessions/2)
	})
}

// A VM whose stream ends while the store is unavailable does not stay connected: its polls
// would get no commands.
func TestSessionEndOutlastsAnOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, withoutJournal)
		const sessions = endBatch + 2
		s.store.down("CloseSession")
		for i := range sessions {
			s.connect(fleet.VMID(fmt.Sprintf("vm-%d", i))).quit()
		}
		back := s.connect("vm-0")
		s.send("vm-1", "a")
		leases, err := s.Poll(t.Context(), "vm-1")
		require.NoError(t, err)
		require.Empty(t, leases)
		require.True(t, s.vm("vm-2").Connected)

		s.store.up("CloseSession")
		time.Sleep(sweepEvery + 1) // fake clock
		synctest.Wait()
		connected := 0
		for i := range sessions {
			if s.vm(fleet.VMID(fmt.Sprintf("vm-%d", i))).Connected {
				connected++
			}
		}
		require.Equal(t, 1, connected, "only the reconnected one")
		require.NoError(t, back.session.Cause())
		leases, err = s.Poll(t.Context(), "vm-1")
		require.NoError(t, err)
		require.Len(t, leases, 1)
		require.Empty(t, s.pendingEnds.sessions)
	})
}

// Only the newest end of a VM's sessions is kept.
func TestUnendedKeepsTheNewest(t *testing.T) {
	t.Parallel()
	u := pendingEnds{sessions: map[fleet.VMID]ending{}}
	for _, e := range []fleet.Epoch{2, 3, 1} {
		u.put(ending{vm: "vm-1", epoch: e})
	}
	u.done(ending{vm: "vm-1", epoch: 2})
	require.Equal(t, []ending{{vm: "vm-1", epoch: 3}}, u.some())
	u.done(ending{vm: "vm-1", epoch: 3})
	require.Empty(t, u.some())
}

// A store that cannot be read at the start is an error, and starts nothing.
func TestStartFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		s.store.down("ResetSessions")
		o := s.Registry.Options
		_, err := Start(context.WithoutCancel(t.Context()), o)
		require.ErrorIs(t, err, fleet.ErrUnavailable)
		require.NotErrorIs(t, err, fleet.ErrStopping)
	})
}
