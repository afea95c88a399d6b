package load

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"time"

	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
	"google.golang.org/protobuf/proto"
)

// kinds is how many different heartbeats a VM sends. An agent's load varies in all digits,
// and differs between agents.
const kinds = 16

const gib = 1 << 30

// heartbeats returns the encoded heartbeats of an idle VM.
func heartbeats(vm string) ([kinds]encoded, error) {
	seed := fnv.New64a()
	_, _ = seed.Write([]byte(vm))               // never fails
	r := rand.New(rand.NewPCG(seed.Sum64(), 0)) //nolint:gosec // a load, not a secret
	var all [kinds]encoded
	for i := range all {
		memory, disk := 1+3*r.Float64(), 20+r.Float64()
		h := &commands.Heartbeat{
			VmId: vm, PoolId: pool, OrgId: org,
			Health: &commands.VMHealth{
				CpuUsagePercent: 10 * r.Float64(), MemoryUsagePercent: 100 * memory / 8, DiskUsagePercent: 100 * disk / 64,
				MemoryTotalBytes: 8 * gib, MemoryUsedBytes: int64(memory * gib),
				DiskTotalBytes: 64 * gib, DiskUsedBytes: int64(disk * gib),
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
