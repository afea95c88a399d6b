package load

import (
	"fmt"
	"time"

	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
	"google.golang.org/protobuf/proto"
)

// kinds is how many different heartbeats a VM has to send. An agent's load
// varies; two heartbeats in a row are never the same.
const kinds = 4

// heartbeats encodes the heartbeats of an idle VM.
func heartbeats(vm string) ([kinds]encoded, error) {
	var all [kinds]encoded
	for i := range all {
		h := &commands.Heartbeat{
			VmId: vm, PoolId: pool, OrgId: org,
			Health: &commands.VMHealth{
				CpuUsagePercent: 1.5 + float64(i)/7, MemoryUsagePercent: 17.25 + float64(i)/9, DiskUsagePercent: 31.5,
				MemoryTotalBytes: 8 << 30, MemoryUsedBytes: 1_482_184_792 + int64(i)<<12,
				DiskTotalBytes: 64 << 30, DiskUsedBytes: 21_646_635_171,
			},
			RunnerState: &commands.RunnerState{
				State: "idle", Configured: true, RunnerName: vm, Labels: []string{"self-hosted"},
			},
			Timestamp: time.Now().Unix(), MigletState: "idle",
		}
		b, err := proto.Marshal(&commands.MIGletMessage{Message: &commands.MIGletMessage_Heartbeat{Heartbeat: h}})
		if err != nil {
			return all, fmt.Errorf("encode heartbeat: %w", err)
		}
		all[i] = b
	}
	return all, nil
}
