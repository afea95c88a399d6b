package cli

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
)

// Beyond the status that the agent reports, tables show that a VM is spent and that its
// registration failed before.
func TestVMState(t *testing.T) {
	t.Parallel()
	registered := migcontrollerv1.RegistrationState_REGISTRATION_STATE_REGISTERED
	requested := migcontrollerv1.RegistrationState_REGISTRATION_STATE_REQUESTED
	idle := &migcontrollerv1.VM{PoolId: "p", Connected: true, Status: "idle", Registration: &migcontrollerv1.Registration{State: registered}}
	spent := &migcontrollerv1.VM{PoolId: "p", Connected: true, Status: "idle", SpentAt: stamp(-time.Minute)}
	noStatus := &migcontrollerv1.VM{PoolId: "p", Connected: true, SpentAt: stamp(-time.Minute)}
	offline := &migcontrollerv1.VM{PoolId: "p", Status: "idle", SpentAt: stamp(-time.Minute)}
	require.Equal(t, cell{text: "idle", tone: good}, vmStatusCell(idle))
	require.Equal(t, cell{text: "idle, spent", tone: waiting}, vmStatusCell(spent))
	require.Equal(t, "spent", vmStatusCell(noStatus).text)

	require.Equal(t, "registered", registrationCell(&migcontrollerv1.Registration{State: registered}).text)
	retried := registrationCell(&migcontrollerv1.Registration{State: requested, ConsecutiveFailures: 2})
	require.Equal(t, cell{text: "requested (2 failed)", tone: waiting}, retried)

	pools := countPools([]*migcontrollerv1.VM{idle, spent, noStatus, offline})
	require.Equal(t, []poolCount{{
		Pool: "p", VMs: 4, Connected: 3, Offline: 1, Registered: 1, Statuses: map[string]int{"idle": 1, "spent": 2},
	}}, pools)
}

// Sizes below 1 GiB are shown in MiB.
func TestSize(t *testing.T) {
	t.Parallel()
	require.Equal(t, "251.0 GiB", size(251<<30))
	require.Equal(t, "1.0 GiB", size(1<<30))
	require.Equal(t, "9.5 MiB", size(19<<19))
}
