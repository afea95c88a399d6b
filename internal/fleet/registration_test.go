package fleet

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// afterDrop is a VM in a state of registration that has come back on session 2.
func afterDrop(s RegistrationState) VM {
	v := NewVM("vm", t0).SessionOpened(Hello{VM: "vm"}, t0)
	v = v.RegistrationRequested(Command{ID: "r"})
	if s == Registered {
		v = v.RegistrationProven(t0)
	}
	return v.SessionOpened(Hello{VM: "vm"}, t0)
}

// Without a runner an agent that works, or is on its way down, was not started
// anew; any other was.
func TestUnconfiguredRunner(t *testing.T) {
	t.Parallel()
	for status, boot := range map[string]int64{
		StatusJobRunning: 1, StatusDraining: 1, StatusShuttingDown: 1, "idle": 2, "ready": 2, "": 2,
	} {
		for _, s := range []RegistrationState{Requested, Registered} {
			v := afterDrop(s).Heartbeat(Heartbeat{
				Origin: Origin{VM: "vm", Via: Stream, Epoch: 2, ReceivedAt: t0.Add(time.Second)}, Status: status, Runner: &Runner{},
			}, false)
			require.Equal(t, boot, v.Boot, "%s, %s", s, status)
		}
	}
}

// A heartbeat from before the start of the VM proves nothing for the boot after,
// also when the command for that boot was already on its way.
func TestHeartbeatFromBeforeTheStart(t *testing.T) {
	t.Parallel()
	started := t0.Add(time.Minute)
	v := afterDrop(Requested).Started(Event{
		Origin: Origin{VM: "vm", Via: HTTP, ReceivedAt: started, SentAt: started}, Type: EventVMStarted,
	}, true)
	require.EqualValues(t, 2, v.Boot)
	beat := func(at time.Time) VM {
		return v.Heartbeat(Heartbeat{
			Origin: Origin{VM: "vm", Via: Stream, Epoch: 2, ReceivedAt: at}, Runner: &Runner{Configured: true},
		}, true)
	}
	require.Equal(t, Requested, beat(started.Add(-1)).Registration.State)
	require.Equal(t, Registered, beat(started.Add(1)).Registration.State)
}
