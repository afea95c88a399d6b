package control_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/control"
	"github.com/mig-controller/mig-controller/internal/fleet"
)

func drain(id string) fleet.CommandRequest {
	return fleet.CommandRequest{
		ID: id, VM: "vm-1", Type: "drain",
		Params: fleet.Params{Strings: map[string]string{"why": "rest"}},
	}
}

// Send without a wait returns the stored record, with the defaults filled in.
func TestSendAnswersTheKeptRecord(t *testing.T) {
	t.Parallel()
	s := newWorld(t)
	c := newControl(t, s)

	got, err := c.Send(anyone(t), fleet.CommandRequest{VM: "vm-1", Type: "drain"}, 0)
	require.NoError(t, err)
	require.NotEmpty(t, got.ID)
	require.Equal(t, fleet.Pending, got.State)
	require.Equal(t, start, got.AcceptedAt)
	require.Equal(t, start.Add(time.Hour), got.ExpiresAt)
	require.Equal(t, 30*time.Second, got.AckTimeout)

	kept, err := c.Command(anyone(t), string(got.ID))
	require.NoError(t, err)
	require.Equal(t, kept, got)
}

// The same id with the same request is the same command; with another request it is
// rejected and the error names the id.
func TestSendIsIdempotent(t *testing.T) {
	t.Parallel()
	c := newControl(t, newWorld(t))

	first, err := c.Send(anyone(t), drain("c1"), 0)
	require.NoError(t, err)
	again, err := c.Send(anyone(t), drain("c1"), 0)
	require.NoError(t, err)
	require.Equal(t, first, again)

	other := drain("c1")
	other.Type = "shutdown"
	_, err = c.Send(anyone(t), other, 0)
	require.ErrorIs(t, err, fleet.ErrIDTaken)
	require.ErrorContains(t, err, `"c1"`)
}

// A wait ends at the first of its conditions, no earlier and no later, and returns the
// current record.
func TestSendWaits(t *testing.T) {
	t.Parallel()
	const wait = time.Minute
	tests := []struct {
		name string
		// during happens 10 seconds into the wait.
		during func(t *testing.T, s *world, c *control.Control, leave context.CancelFunc)
		state  fleet.CommandState
		took   time.Duration
	}{
		{"until the ack", func(_ *testing.T, s *world, _ *control.Control, _ context.CancelFunc) {
			s.deliver("c1")
			s.ack("c1")
		}, fleet.Succeeded, 10 * time.Second},
		{"until it is cancelled", func(t *testing.T, _ *world, c *control.Control, _ context.CancelFunc) {
			t.Helper()
			_, _ = c.Cancel(anyone(t), "c1")
		}, fleet.Cancelled, 10 * time.Second},
		{"past its delivery", func(_ *testing.T, s *world, _ *control.Control, _ context.CancelFunc) {
			s.deliver("c1")
		}, fleet.Delivered, wait},
		{"past the end of another command", func(t *testing.T, _ *world, c *control.Control, _ context.CancelFunc) {
			t.Helper()
			_, _ = c.Send(anyone(t), drain("c2"), 0)
			_, _ = c.Cancel(anyone(t), "c2")
		}, fleet.Pending, wait},
		{"until the caller leaves", func(_ *testing.T, s *world, _ *control.Control, leave context.CancelFunc) {
			s.deliver("c1")
			leave()
		}, fleet.Delivered, 10 * time.Second},
		{"until the control closes", func(_ *testing.T, s *world, c *control.Control, _ context.CancelFunc) {
			s.deliver("c1")
			c.Close()
		}, fleet.Delivered, 10 * time.Second},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newWorld(t)
				c := newControl(t, s)
				ctx, leave := context.WithCancel(anyone(t))
				defer leave()
				time.AfterFunc(10*time.Second, func() { test.during(t, s, c, leave) })

				began := time.Now()
				got, err := c.Send(ctx, drain("c1"), wait)
				require.NoError(t, err)
				require.Equal(t, test.state, got.State)
				require.Equal(t, test.took, time.Since(began))
				require.Equal(t, drain("").Params, got.Params, "the whole record is returned")
			})
		})
	}
}

// A caller whose deadline is before the end of the wait gets the record in time: an error
// would not show that the command was accepted.
func TestSendAnswersBeforeTheDeadline(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ deadline, wait, took time.Duration }{
		{time.Minute, time.Hour, 59500 * time.Millisecond},
		{time.Minute, time.Minute, 59500 * time.Millisecond},
		{time.Second, time.Minute, 500 * time.Millisecond},
		{200 * time.Millisecond, time.Minute, 100 * time.Millisecond},
		{time.Minute, 10 * time.Second, 10 * time.Second},
	} {
		t.Run(fmt.Sprint(test.deadline, test.wait), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := newControl(t, newWorld(t))
				ctx, cancel := context.WithTimeout(anyone(t), test.deadline)
				defer cancel()
				began := time.Now()
				got, err := c.Send(ctx, drain("c1"), test.wait)
				require.NoError(t, err)
				require.Equal(t, fleet.Pending, got.State)
				require.Equal(t, test.took, time.Since(began))
			})
		})
	}
}

// A command that ends between being enqueued and being waited for is not missed.
func TestSendMissesNoEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newWorld(t)
		agent := s.another()
		s.driver.committed = func() {
			agent.deliver("c1")
			agent.ack("c1")
		}
		c := newControl(t, s)
		began := time.Now()
		got, err := c.Send(anyone(t), drain("c1"), time.Hour)
		require.NoError(t, err)
		require.Equal(t, fleet.Succeeded, got.State, "the engine returned PENDING")
		require.Zero(t, time.Since(began))
	})
}

// Repeating a command with a wait waits for the existing one, and returns immediately if it
// has ended.
func TestSendWaitsForTheExisting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newWorld(t)
		c := newControl(t, s)
		_, err := c.Send(anyone(t), drain("c1"), 0)
		require.NoError(t, err)
		time.AfterFunc(time.Second, func() {
			s.deliver("c1")
			s.ack("c1")
		})
		for _, took := range []time.Duration{time.Second, 0} {
			began := time.Now()
			got, err := c.Send(anyone(t), drain("c1"), time.Hour)
			require.NoError(t, err)
			require.Equal(t, fleet.Succeeded, got.State)
			require.Equal(t, took, time.Since(began))
		}
	})
}

// All callers that wait for a command get an answer.
func TestSendAnswersEveryWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newWorld(t)
		c := newControl(t, s)
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				got, err := c.Send(anyone(t), drain("c1"), time.Hour)
				if err != nil || got.State != fleet.Succeeded {
					t.Errorf("answered %s, %v", got.State, err)
				}
			})
		}
		synctest.Wait()
		began := time.Now()
		s.deliver("c1")
		s.ack("c1")
		wg.Wait()
		require.Zero(t, time.Since(began))
	})
}

// Once a command is accepted, a store that cannot be read does not make Send look as if the
// command was rejected.
func TestSendAnswersAnAcceptedCommandAllTheSame(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newWorld(t)
		broken := false
		s.driver.committed = func() { broken = true }
		s.driver.before = func(string) error {
			if broken {
				return errors.New("disk on fire")
			}
			return nil
		}
		c := newControl(t, s)
		got, err := c.Send(anyone(t), drain("c1"), time.Second)
		require.NoError(t, err)
		require.Equal(t, fleet.CommandID("c1"), got.ID)
		require.Equal(t, fleet.Pending, got.State)
	})
}

func TestSendNamesTheFieldThatIsWrong(t *testing.T) {
	t.Parallel()
	tests := []struct {
		field string
		wrong func(*fleet.CommandRequest)
		wait  time.Duration
	}{
		{field: "wait", wait: -1},
		{field: "wait", wait: control.MaxWait + 1},
		{field: "vm_id", wrong: func(r *fleet.CommandRequest) { r.VM = "" }},
		{field: "command.type", wrong: func(r *fleet.CommandRequest) { r.Type = "two words" }},
		{field: "command.id", wrong: func(r *fleet.CommandRequest) { r.ID = "../c1" }},
		{field: "ttl", wrong: func(r *fleet.CommandRequest) { r.TTL = -1 }},
		{field: "ack_timeout", wrong: func(r *fleet.CommandRequest) { r.AckTimeout = fleet.MaxAckTimeout + 1 }},
	}
	for _, test := range tests {
		t.Run(fmt.Sprint(test.field, test.wait), func(t *testing.T) {
			t.Parallel()
			s := newWorld(t)
			r := drain("c1")
			if test.wrong != nil {
				test.wrong(&r)
			}
			_, err := newControl(t, s).Send(anyone(t), r, test.wait)
			requireField(t, err, test.field)
			require.Zero(t, s.LastChange(), "nothing is enqueued")
		})
	}
}

// The longest permitted wait is accepted.
func TestSendTakesTheLongestWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newControl(t, newWorld(t))
		began := time.Now()
		_, err := c.Send(anyone(t), drain("c1"), control.MaxWait)
		require.NoError(t, err)
		require.Equal(t, control.MaxWait, time.Since(began))
	})
}

// Cancel returns the record of a cancelled command, the second time too; for one that ended
// otherwise it returns ErrEnded and the record.
func TestCancel(t *testing.T) {
	t.Parallel()
	s := newWorld(t)
	c := newControl(t, s)
	for _, id := range []string{"c1", "c2"} {
		_, err := c.Send(anyone(t), drain(id), 0)
		require.NoError(t, err)
	}
	for range 2 {
		got, err := c.Cancel(anyone(t), "c1")
		require.NoError(t, err)
		require.Equal(t, fleet.Cancelled, got.State)
	}
	s.deliver("c2")
	s.ack("c2")
	got, err := c.Cancel(anyone(t), "c2")
	require.ErrorIs(t, err, fleet.ErrEnded)
	require.ErrorContains(t, err, `"c2"`)
	require.Equal(t, fleet.Succeeded, got.State)
}

// The error names the record that does not exist, but does not repeat an invalid id.
func TestWhatIsNotThere(t *testing.T) {
	t.Parallel()
	c := newControl(t, newWorld(t))
	ctx := anyone(t)
	tests := []struct {
		name, field, what string
		call              func(id string) error
	}{
		{"Command", "command_id", "command", func(id string) error { _, err := c.Command(ctx, id); return err }},
		{"Cancel", "command_id", "command", func(id string) error { _, err := c.Cancel(ctx, id); return err }},
		{"VM", "vm_id", "VM", func(id string) error { _, err := c.VM(ctx, id); return err }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			err := test.call("x-1")
			require.ErrorIs(t, err, fleet.ErrNotFound)
			require.EqualError(t, err, test.what+` "x-1": not found`)
			for _, bad := range []string{"", "_x", "a/b"} {
				err := test.call(bad)
				requireField(t, err, test.field)
				if bad != "" {
					require.NotContains(t, err.Error(), bad)
				}
			}
		})
	}
}

// The engine's own words do not appear in errors for callers; all other errors keep their
// cause.
func TestErrorsOfTheStore(t *testing.T) {
	t.Parallel()
	s := newWorld(t)
	c := newControl(t, s)
	_, err := c.Command(anyone(t), "c1")
	require.EqualError(t, err, `command "c1": not found`)

	broken := errors.New("disk on fire")
	s.driver.before = func(string) error { return broken }
	for name, try := range map[string]func() error{
		"Send":    func() error { _, err := c.Send(anyone(t), drain("c1"), time.Hour); return err },
		"Command": func() error { _, err := c.Command(anyone(t), "c1"); return err },
		"VM":      func() error { _, err := c.VM(anyone(t), "vm-1"); return err },
		"Cancel":  func() error { _, err := c.Cancel(anyone(t), "c1"); return err },
	} {
		err := try()
		require.ErrorIs(t, err, fleet.ErrUnavailable, name)
		require.ErrorIs(t, err, broken, name)
	}
}
