package maintenance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/engine"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/metric"
	"github.com/mig-controller/mig-controller/internal/readiness"
	"github.com/mig-controller/mig-controller/internal/store"
	"github.com/mig-controller/mig-controller/internal/testkit"
)

// connect opens a session of a VM and reports a state, unless that is empty.
func (s *rig) connect(vm fleet.VMID, pool, status string) fleet.VM {
	s.Helper()
	out, err := s.Apply(s.Context(), fleet.SessionOpened{Hello: fleet.Hello{VM: vm, Pool: pool}}, s.clock.Now())
	require.NoError(s, err)
	v := out.State.VM
	if status != "" {
		s.reports++
		require.NoError(s, s.RecordHeartbeats(s.Context(), []fleet.Heartbeat{{
			Origin: fleet.Origin{VM: vm, Pool: pool, Via: fleet.Stream, Epoch: v.Epoch, ReceivedAt: s.clock.Now().Add(s.reports)}, Status: status,
		}}))
	}
	return v
}

func (s *rig) vms(pool, state string) float64 {
	s.Helper()
	return s.value(fmt.Sprintf("vms{pool=%q,state=%q}", pool, state))
}

// counted waits until everything was counted again.
func (s *rig) counted() {
	time.Sleep(countEvery) // fake clock
	synctest.Wait()
}

// VMs are counted by pool and state every 15 seconds.
func TestVMsAreCounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newRig(t, engine.Retention{})
		synctest.Wait()
		require.Zero(t, s.vms("", "idle"))
		for i, status := range []string{"idle", "idle", "ready", "own", ""} {
			s.connect(fleet.VMID(fmt.Sprintf("a%d", i)), "pool-a", status)
		}
		for i := range 3 {
			v := s.connect(fleet.VMID(fmt.Sprintf("b%d", i)), "pool-b", "idle")
			_, err := s.Apply(t.Context(), fleet.SessionClosed{VM: v.ID, Epoch: v.Epoch}, s.clock.Now())
			require.NoError(t, err)
		}
		s.connect("c", "pool-c", "idle") // the smallest
		s.connect("none", "", "idle")
		s.counted()
		require.InDelta(t, 2, s.vms("pool-a", "idle"), 0)
		require.InDelta(t, 1, s.vms("pool-a", "ready"), 0)
		require.InDelta(t, 1, s.vms("pool-a", "other"), 0)
		require.InDelta(t, 1, s.vms("pool-a", "unknown"), 0)
		require.InDelta(t, 3, s.vms("pool-b", "offline"), 0)
		require.Zero(t, s.vms("pool-b", "idle"))
		require.InDelta(t, 1, s.vms("other", "idle"), 0, "more pools than may have names")
		require.InDelta(t, 1, s.vms("", "idle"), 0)
		require.InDelta(t, float64(s.clock.Now().Unix()), s.value("counted_timestamp_seconds"), 1)
		s.connect("a0", "pool-a", "job_running")
		s.counted()
		require.InDelta(t, 1, s.vms("pool-a", "idle"), 0)
		require.InDelta(t, 1, s.vms("pool-a", "job_running"), 0)
	})
}

// A pool whose VMs are gone has none.
func TestVanishedPools(t *testing.T) {
	t.Parallel()
	metrics := prometheus.NewRegistry()
	c := newCensus(Options{Pools: metric.NewPools(5)}, newMetrics(metrics, time.Now))
	c.setVMs([]store.VMCount{{Pool: "p", Status: "idle", Connected: true, N: 2}, {Pool: "p", Status: "own", Connected: true, N: 1}, {Pool: "p", Status: "x", Connected: true, N: 4}})
	require.InDelta(t, 5, testkit.Metrics(t, metrics)[`vms{pool="p",state="other"}`], 0)
	c.setVMs([]store.VMCount{{Pool: "q", N: 3}})
	all := testkit.Metrics(t, metrics)
	require.InDelta(t, 3, all[`vms{pool="q",state="offline"}`], 0)
	require.Zero(t, all[`vms{pool="p",state="idle"}`])
	require.Zero(t, all[`vms{pool="p",state="other"}`])
}

// Open commands are counted by their queue, with the age of the oldest pending one.
func TestOpenCommandsAreCounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newRig(t, engine.Retention{})
		s.counted()
		connected, offline := `commands_oldest_pending_seconds{connected="true"}`, `commands_oldest_pending_seconds{connected="false"}`
		require.Zero(t, s.value(connected))
		require.Zero(t, s.value(offline))
		send := func(id string, vm fleet.VMID, kind string) {
			now := s.clock.Now()
			_, err := s.Accept(t.Context(), fleet.Command{
				ID: fleet.CommandID(id), VM: vm, Type: kind, State: fleet.Pending, AcceptedAt: now, ExpiresAt: now.Add(time.Hour),
				DueAt: now.Add(time.Hour), AckTimeout: time.Hour, MaxDeliveries: 5,
			})
			require.NoError(t, err)
		}
		send("in flight", "vm-2", "drain")
		v := s.connect("vm-2", "", "")
		_, err := s.Apply(t.Context(), fleet.LeaseRequested{VM: "vm-2", Command: "in flight", Request: fleet.LeaseRequest{
			Via: fleet.Stream, Epoch: v.Epoch, At: s.clock.Now(), WithoutToken: true,
		}}, s.clock.Now())
		require.NoError(t, err)
		send("token", "vm-3", fleet.RegisterRunner)
		time.Sleep(5 * time.Second) // fake clock
		send("a", "vm-3", "drain")
		send("b", "vm-3", "drain")
		s.counted()
		require.InDelta(t, 1, s.value(`commands_open{queue="delivered"}`), 0)
		require.InDelta(t, 2, s.value(`commands_open{queue="pending"}`), 0)
		require.InDelta(t, 1, s.value(`commands_open{queue="pending_token"}`), 0)
		require.InDelta(t, (countEvery + 5*time.Second).Seconds(), s.value(offline), .5)
		time.Sleep(7 * time.Second) // fake clock
		require.InDelta(t, (countEvery + 12*time.Second).Seconds(), s.value(offline), .5)
		require.Zero(t, s.value(connected), "what is delivered is not pending")

		send("behind it", "vm-2", "drain")
		s.counted()
		require.InDelta(t, 3, s.value(`commands_open{queue="pending"}`), 0)
		require.InDelta(t, countEvery.Seconds(), s.value(connected), .5)
		_, err = s.Apply(t.Context(), fleet.SessionClosed{VM: v.ID, Epoch: v.Epoch}, s.clock.Now())
		require.NoError(t, err)
		s.counted()
		require.Zero(t, s.value(connected))
	})
}

// While nothing can be counted the metrics keep their values, and the first error is logged.
func TestFailedCounts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newRig(t, engine.Retention{})
		s.connect("vm", "p", "idle")
		s.counted()
		at := s.value("counted_timestamp_seconds")
		s.fail("Counts", errors.New("no answer"))
		s.counted()
		s.counted()
		require.InDelta(t, 1, s.vms("p", "idle"), 0)
		require.InDelta(t, at, s.value("counted_timestamp_seconds"), 0)
		require.Contains(t, s.log.String(), `"service":"count","error":"no answer"`)
		require.Equal(t, 1, s.log.count("maintenance failed, trying again"))
		s.fail("Counts", nil)
		s.counted()
		require.Greater(t, s.value("counted_timestamp_seconds"), at)
	})
}

// slowCounts are counts that take a second.
type slowCounts struct {
	Engine
	calls int
}

func (s *slowCounts) Counts(context.Context) (engine.Counts, error) {
	s.calls++
	time.Sleep(time.Second) // fake clock
	return engine.Counts{}, nil
}

// Counting takes at most a hundredth of the time.
func TestSlowCounts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		slow := new(slowCounts)
		c := newCensus(Options{Engine: slow, Clock: time.Now, Log: slog.New(slog.DiscardHandler), Pools: metric.NewPools(1)}, newMetrics(nil, time.Now))
		s := start(c.run)
		time.Sleep(time.Hour) // fake clock
		s.stop()
		require.InDelta(t, 3600/105, slow.calls, 2)
	})
}

// The checks show whether the store and the journal can be written.
func TestChecksAreRepeated(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newRig(t, engine.Retention{})
		require.Zero(t, s.value(`check_ok{check="store"}`))
		checks := start(s.RepeatChecks)
		defer checks.stop()
		synctest.Wait()
		require.InDelta(t, 1, s.value(`check_ok{check="store"}`), 0)
		require.InDelta(t, 1, s.value(`check_ok{check="journal"}`), 0)
		s.fail("Check", fleet.ErrUnavailable)
		time.Sleep(checkEvery) // fake clock
		synctest.Wait()
		require.Zero(t, s.value(`check_ok{check="store"}`))
		require.InDelta(t, 1, s.value(`check_ok{check="journal"}`), 0)
		s.fail("Check", nil)
		time.Sleep(checkEvery) // fake clock
		synctest.Wait()
		require.InDelta(t, 1, s.value(`check_ok{check="store"}`), 0)
	})
}

// Anyone who can connect can read why the controller is not ready, so paths are left out.
func TestReasonsHaveNoPath(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newRig(t, engine.Retention{})
		s.fail("Check", fmt.Errorf("%w: /srv/controller.db", fleet.ErrDatabaseRemoved))
		require.Equal(t, fleet.ErrDatabaseRemoved.Error(), s.checks.Run(t.Context()).Reason())
	})
}

// A check that blocks has not passed, and neither has one before the first results. Changes are
// logged.
func TestBlockedCheck(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		blocked := make(chan struct{})
		calls := 0
		checks := readiness.New(readiness.Check{Name: "disk", Run: func(context.Context) error {
			calls++
			if calls == 2 {
				<-blocked
			}
			return nil
		}})
		metrics := prometheus.NewRegistry()
		var log bytes.Buffer
		c := newChecker(Options{Checks: checks, Metrics: metrics, Log: slog.New(slog.NewTextHandler(&log, nil))})
		value := func() float64 {
			return testkit.Metrics(t, metrics)[`check_ok{check="disk"}`]
		}
		require.Zero(t, value())
		s := start(c.run)
		synctest.Wait()
		require.InDelta(t, 1, value(), 0)
		time.Sleep(checkEvery + readiness.Timeout) // fake clock
		synctest.Wait()
		require.Zero(t, value())
		close(blocked)
		time.Sleep(checkEvery) // fake clock
		synctest.Wait()
		require.InDelta(t, 1, value(), 0)
		s.stop()
		checks.Close()
		require.Equal(t, 1, strings.Count(log.String(), "readiness check failed"))
		require.Equal(t, 1, strings.Count(log.String(), "readiness check passed again"))
	})
}
