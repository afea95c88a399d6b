package session

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// As package fleet has them.
const (
	leastSilence = 45 * time.Second
	suspectFor   = 15 * time.Second
)

// pulse sends heartbeats at intervals.
func (a *agent) pulse(n int, every time.Duration) {
	a.Helper()
	for range n {
		time.Sleep(every) // fake clock
		a.beat("idle")
	}
}

// An agent that sent heartbeats and falls silent counts as gone after three of its intervals,
// but at least 45 seconds: a proxy may answer pings in its place.
func TestSilentAgent(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		every, within time.Duration
	}{
		"every second":     {time.Second, leastSilence},
		"every 15 seconds": {15 * time.Second, leastSilence},
		"every minute":     {time.Minute, 3 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSystem(t)
				a := s.registered("vm-1")
				a.pulse(4, test.every)
				a.beat("job_running") // a change of state is reported early
				began := time.Now()
				<-a.ended
				require.InDelta(t, test.within, time.Since(began), float64(test.within/20))
				require.ErrorIs(t, a.session.Cause(), fleet.ErrSilent)
				require.False(t, s.vm("vm-1").Connected)
			})
		})
	}
}

// An agent that sends heartbeats during a job is judged by them.
func TestSilentInAJob(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a := s.registered("vm-1")
		a.pulse(2, 15*time.Second)
		a.event(fleet.EventJobStarted)
		a.pulse(2, 15*time.Second)
		began := time.Now()
		<-a.ended
		require.InDelta(t, leastSilence, time.Since(began), float64(leastSilence/20))
	})
}

// Some agents send no heartbeats for long, or none during a job: an agent that has not sent
// two, or runs a job, does not count as gone.
func TestSilenceWithoutEvidence(t *testing.T) {
	t.Parallel()
	for name, say := range map[string]func(*agent){
		"no heartbeat":  func(*agent) {},
		"one heartbeat": func(a *agent) { a.beat("idle") },
		"a job":         func(a *agent) { a.pulse(3, 15*time.Second); a.event(fleet.EventJobStarted) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSystem(t)
				a := s.registered("vm-1")
				say(a)
				time.Sleep(10 * time.Minute) // fake clock
				synctest.Wait()
				require.NoError(t, a.session.Cause())
			})
		})
	}
}

// An agent whose messages wait for the store does not count as silent.
func TestSilenceOfTheStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a := s.registered("vm-1")
		a.pulse(3, 15*time.Second)
		s.store.down("RecordEvent")
		go func() { _ = a.do(eventOf("error")) }()
		time.Sleep(10 * time.Minute) // fake clock
		synctest.Wait()
		require.NoError(t, a.session.Cause())
		s.store.up("RecordEvent")
		a.beat("idle")        // after the event
		time.Sleep(lastRetry) // fake clock
		synctest.Wait()
		require.NoError(t, a.session.Cause())
	})
}

// A report over HTTP does not show that the stream is alive. It makes the stream suspect until
// the next message on the stream.
func TestSuspect(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		elsewhere := func() {
			require.NoError(t, s.ReportHeartbeat(t.Context(), fleet.Heartbeat{Origin: fleet.Origin{VM: "vm-1"}}))
		}
		a := s.registered("vm-1")
		elsewhere()            // as an agent does when it starts
		time.Sleep(suspectFor) // fake clock
		require.Zero(t, s.log.count("stream suspect: its agent reports over HTTP"))

		s.send("vm-1", "a")
		a.next()
		for range 3 {
			elsewhere()
			time.Sleep(suspectFor) // fake clock
			a.sendSignOfLife()
		}
		time.Sleep(suspectFor) // fake clock
		synctest.Wait()
		require.NoError(t, a.session.Cause())
		require.Equal(t, 3, s.log.count("stream suspect: its agent reports over HTTP"))

		s.send("vm-1", "b")
		b := a.next()
		elsewhere()
		began := time.Now()
		for range 10 {
			time.Sleep(suspectFor / 10) // fake clock
			elsewhere()
		}
		<-a.ended
		require.InDelta(t, suspectFor*4/3, time.Since(began), float64(time.Second), "its heartbeats came every 15 s")
		require.Equal(t, fleet.Delivered, s.command(b.ID).State, "the reports alone do not end it")
		require.Equal(t, b.ID, s.connect("vm-1").next(true).ID)
	})
}
