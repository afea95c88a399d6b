package e2e

import (
	"fmt"
	"math"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
)

// TestPercentagesAgreeWithTheBytes defends the figures of today's agent, whose disk
// percentage is always 0: the VM and its heartbeats show the percentage computed from the
// bytes, and the file shows what was sent.
func TestPercentagesAgreeWithTheBytes(t *testing.T) {
	t.Parallel()
	vm := newVM()
	a := shared.connectRegistered(t, vm)
	a.beat("idle", func(h *commands.Heartbeat) {
		h.Health = &commands.VMHealth{
			MemoryUsagePercent: math.NaN(), MemoryUsedBytes: 1 << 30, MemoryTotalBytes: 4 << 30,
			DiskUsagePercent: 0, DiskUsedBytes: 178 << 30, DiskTotalBytes: 251 << 30,
		}
	})
	v := shared.awaitVM(t, vm, "idle", func(v *migcontrollerv1.VM) bool { return v.GetStatus() == "idle" })
	res, err := shared.admin.ListHeartbeats(t.Context(), &migcontrollerv1.ListHeartbeatsRequest{VmId: vm, PageSize: 1})
	require.NoError(t, err)
	for _, h := range []*migcontrollerv1.Health{v.GetHealth(), res.GetHeartbeats()[0].GetHealth()} {
		require.InDelta(t, 25, h.GetMemoryUsagePercent(), 0)
		require.InDelta(t, 70.9, h.GetDiskUsagePercent(), 0.1)
	}
	file := string(shared.awaitFile(t, vm, "grpc-heartbeat-"))
	require.Contains(t, file, `"NaN"`)
	require.NotContains(t, file, "disk_usage_percent", "0 is not written")
}

// TestStartedVMShowsItsMachine defends the machine data in vm_started, by both routes.
func TestStartedVMShowsItsMachine(t *testing.T) {
	t.Parallel()
	const gib = 1 << 30
	vm := newVM()
	machine := func() []any {
		m := shared.vm(t, vm).GetMachine()
		return []any{m.GetMachineType(), m.GetRegion(), m.GetCpu(), m.GetMemoryBytes(), m.GetDiskBytes()}
	}
	status, answer := shared.call(t, http.MethodPost, shared.httpAddr, "/api/v1/vms/"+vm+"/events",
		fmt.Sprintf(`{"type":"vm_started","vm_id":%q,"machine_type":"m1","region":"r1","cpu":8,"memory":16384,"disk":100}`, vm))
	require.Equal(t, http.StatusOK, status, string(answer))
	require.Equal(t, []any{"m1", "r1", int32(8), int64(16 * gib), int64(100 * gib)}, machine())

	a := shared.connect(t, vm)
	require.NoError(t, a.event(&commands.EventNotification{Type: "vm_started", VmId: vm, Timestamp: time.Now().Unix(), Data: map[string]string{
		"machine_type": "m2", "region": "r1", "cpu": "four", "memory": "2048", "disk": "50",
	}}))
	await(t, "the other machine", machine, func(m []any) bool { return m[0] == "m2" })
	require.Equal(t, []any{"m2", "r1", int32(0), int64(2 * gib), int64(50 * gib)}, machine())
}
