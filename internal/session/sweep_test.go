package session

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// An ack that arrived in time is in time, however long it could not be stored, and so is one
// that was not read because a message before it was being stored.
func TestDeadlinesAreJudgedByArrival(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]func(*Session) error{
		"the ack waits":             func(*Session) error { return nil },
		"an event before it waits":  eventOf("error"),
		"a heartbeat before it too": beatOf("idle"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSystem(t)
				a := s.registered("vm-1")
				s.send("vm-1", "a")
				a.next()
				time.Sleep(20 * time.Second) // fake clock
				s.store.down("Ack", "RecordEvent", "RecordHeartbeats")
				go func() {
					_ = a.do(before)
					_ = a.do(func(s *Session) error { return s.Ack(fleet.Ack{CommandID: "a", Success: true}) })
				}()
				time.Sleep(5 * time.Minute) // fake clock
				synctest.Wait()
				require.Equal(t, fleet.Delivered, s.command("a").State)
				s.store.up("Ack", "RecordEvent", "RecordHeartbeats")
				time.Sleep(2 * lastRetry) // fake clock
				synctest.Wait()
				require.Equal(t, fleet.Succeeded, s.command("a").State)
				require.Less(t, s.log.count("command timed out"), 1)
			})
		})
	}
}

// A message is stamped and recorded as unstored in one step: otherwise the sweeper could run
// between the two.
func TestStampedIsUnstored(t *testing.T) {
	t.Parallel()
	var u unstored
	at := time.Unix(1000, 0)
	looked := make(chan time.Time, 1)
	arrived, done := u.add(func() time.Time {
		go func() { looked <- u.oldest(at.Add(time.Second)) }()
		select {
		case early := <-looked:
			looked <- early
		case <-time.After(10 * time.Millisecond): // it waits
		}
		return at
	})
	require.Equal(t, at, arrived)
	require.Equal(t, at, <-looked)
	done()
	require.Equal(t, at.Add(time.Second), u.oldest(at.Add(time.Second)))
}

// An ack that arrived before a newer session was opened counts, even if it is stored after
// that.
func TestAckBeforeTheNewerSession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a := s.registered("vm-1")
		s.send("vm-1", "a", "b")
		a.next()
		s.store.down("Ack")
		go func() { _ = a.do(func(s *Session) error { return s.Ack(fleet.Ack{CommandID: "a", Success: true}) }) }()
		time.Sleep(firstRetry / 2) // fake clock
		b := s.connect("vm-1")
		require.Equal(t, 2, b.next().Attempts)
		s.store.up("Ack")
		time.Sleep(2 * firstRetry) // fake clock
		synctest.Wait()
		require.Equal(t, fleet.Succeeded, s.command("a").State)
		require.Equal(t, fleet.CommandID("b"), b.next().ID)
	})
}

// After a long wait the reader of the stream has a second to read the messages behind it, and
// these two attempts.
func TestReadersCatchUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var u unstored
		at, done := u.add(clock)
		time.Sleep(time.Minute) // fake clock
		done()
		time.Sleep(firstRetry + readersGrace - 1) // fake clock
		require.Equal(t, at, u.oldest(clock()))
		time.Sleep(time.Nanosecond) // fake clock
		synctest.Wait()
		require.Equal(t, clock(), u.oldest(clock()))
	})
}

// The time of an ack is its time of arrival.
func TestAckIsStampedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a := s.registered("vm-1")
		s.send("vm-1", "a")
		a.next()
		arrived := clock()
		s.store.down("Ack")
		go func() { _ = a.do(func(s *Session) error { return s.Ack(fleet.Ack{CommandID: "a", Success: true}) }) }()
		time.Sleep(10 * time.Second) // fake clock
		s.store.up("Ack")
		time.Sleep(lastRetry) // fake clock
		synctest.Wait()
		require.WithinDuration(t, arrived, s.command("a").AckedAt, time.Millisecond)
	})
}

// A command that was sent on a dead link is delivered again, not timed out.
func TestDeadLink(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a := s.registered("vm-1")
		time.Sleep(time.Millisecond) // fake clock
		s.send("vm-1", "a")
		require.Equal(t, 1, a.next().Attempts)
		time.Sleep(3 * defaults.AckTimeout) // fake clock
		synctest.Wait()
		require.Equal(t, fleet.Delivered, s.command("a").State)
		a.quit()
		b := s.connect("vm-1")
		require.Equal(t, 2, b.next(true).Attempts)
	})
}

// Nothing is written after its deadline, even if that passes between the lease and the write;
// the command ends as never delivered.
func TestDeadlineBeforeTheWrite(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a := s.connect("vm-1")
		register := a.next()
		short := defaults
		short.TTL = 10 * time.Second
		s.sendWith("vm-1", "a", short)
		s.send("vm-1", "b")
		s.store.on("after Lease", func() error {
			s.store.up("after Lease")
			time.Sleep(11 * time.Second) // fake clock
			return nil
		})
		a.ack(register.ID, true)
		require.Equal(t, fleet.CommandID("b"), a.next(true).ID)
		time.Sleep(readersGrace) // fake clock
		synctest.Wait()
		require.Equal(t, fleet.Expired, s.command("a").State)
		require.Zero(t, s.command("a").Attempts)
	})
}

// Each committed step of a command is logged once, in the order of the commits.
func TestCommandLog(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a := s.registered("vm-1")
		s.send("vm-1", "a")
		s.send("vm-1", "a") // the same again
		a.next(true)
		s.send("vm-1", "b")
		a.next()
		s.cancel("b")
		a.ack("b", true)
		a.ack("b", true)
		short := defaults
		short.TTL = time.Second
		s.sendWith("vm-2", "c", short)
		s.sendWith("vm-1", "d", defaults)
		a.next()
		a.sendSignOfLife()
		time.Sleep(defaults.AckTimeout + time.Second) // fake clock
		synctest.Wait()
		for _, id := range []string{"a", "b", "c", "d"} {
			var got []string
			for _, l := range s.log.about(id) {
				got = append(got, l["msg"].(string)) //nolint:errcheck,forcetypeassert // of slog
				require.NotEmpty(t, l["vm_id"])
				require.Equal(t, "drain", l["command_type"])
			}
			require.Equal(t, map[string][]string{
				"a": {"command accepted", "command delivered", "command acked"},
				"b": {"command accepted", "command delivered", "command cancelled", "command acked late: it had ended before"},
				"c": {"command accepted", "command expired"},
				"d": {"command accepted", "command delivered", "command timed out"},
			}[id], got)
		}
		require.Equal(t, "no ack within 30s", s.log.about("d")[2]["reason"])
	})
}

// An agent may ack a command that counts as undelivered: a delivery whose write was aborted
// can arrive in full, and its command end meanwhile. The ack is not stored.
func TestAckOfUndeliveredCommand(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		s.send("vm-1", "a")
		s.cancel("a")
		x := s.registered("vm-1")
		time.Sleep(time.Second) // fake clock
		x.ack("a", true)
		synctest.Wait()
		require.Equal(t, fleet.Cancelled, s.command("a").State)
		require.Equal(t, int64(1), s.Stats().LateAcks)
		require.Len(t, s.log.about("a"), 2, "accepted and cancelled")
	})
}

// Every command ends at its deadline, whether its VM is connected or not.
func TestSweep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		enqueue := func(vm fleet.VMID, id string, ttl, timeout time.Duration) {
			c, err := fleet.CommandRequest{ID: id, VM: string(vm), Type: "drain", TTL: ttl, AckTimeout: timeout}.Accept(defaults, clock())
			require.NoError(t, err)
			_, err = s.store.Accept(t.Context(), c)
			require.NoError(t, err)
		}
		enqueue("vm-offline", "never", 3*time.Second, 0)
		a := s.registered("vm-1")
		enqueue("vm-1", "unanswered", time.Minute, 2*time.Second)
		a.next()
		a.sendSignOfLife()
		time.Sleep(2*time.Second - time.Millisecond - 1) // fake clock
		synctest.Wait()
		require.Equal(t, fleet.Delivered, s.command("unanswered").State)
		time.Sleep(sweepEvery + 1) // fake clock
		synctest.Wait()
		require.Equal(t, fleet.TimedOut, s.command("unanswered").State)
		require.Equal(t, fleet.Pending, s.command("never").State)
		time.Sleep(time.Second) // fake clock
		synctest.Wait()
		require.Equal(t, fleet.Expired, s.command("never").State)
	})
}
