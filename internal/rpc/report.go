package rpc

import (
	"math"

	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
	"github.com/mig-controller/mig-controller/internal/fleet"
)

func ackFromProto(a *commands.CommandAck) fleet.Ack {
	return fleet.Ack{
		CommandID: fleet.CommandID(a.GetCommandId()), Success: a.GetSuccess(),
		Message: a.GetMessage(), Result: a.GetResult(),
	}
}

func eventFromProto(e *commands.EventNotification) (fleet.Event, error) {
	body, err := messageJSON(e)
	return fleet.Event{
		Origin: fleet.Origin{
			VM: fleet.VMID(e.GetVmId()), Pool: e.GetPoolId(), Org: e.GetOrgId(),
			SentAt: fleet.AgentTime(e.GetTimestamp()),
		},
		Type: e.GetType(), Body: body,
	}, err
}

func heartbeatFromProto(h *commands.Heartbeat) fleet.Heartbeat {
	return fleet.Heartbeat{
		Origin: fleet.Origin{
			VM: fleet.VMID(h.GetVmId()), Pool: h.GetPoolId(), Org: h.GetOrgId(),
			SentAt: fleet.AgentTime(h.GetTimestamp()),
		},
		Status: h.GetMigletState(),
		Runner: runnerFromProto(h.GetRunnerState()),
		Job:    jobFromProto(h.GetCurrentJob()),
		Health: healthFromProto(h.GetHealth()),
	}
}

func runnerFromProto(r *commands.RunnerState) *fleet.Runner {
	if r == nil {
		return nil
	}
	return &fleet.Runner{
		State: r.GetState(), Configured: r.GetConfigured(), Name: r.GetRunnerName(), Labels: r.GetLabels(),
	}
}

func jobFromProto(j *commands.JobInfo) *fleet.Job {
	if j == nil {
		return nil
	}
	return &fleet.Job{
		JobID: j.GetJobId(), RunID: j.GetRunId(), Repository: j.GetRepository(), Branch: j.GetBranch(),
		Commit: j.GetCommit(), Status: j.GetStatus(), StartedAt: fleet.AgentTime(j.GetStartedAt()),
	}
}

func healthFromProto(h *commands.VMHealth) *fleet.Health {
	if h == nil {
		return nil
	}
	return &fleet.Health{
		CPUPercent:       finite(h.GetCpuUsagePercent()),
		MemoryPercent:    usedPercent(h.GetMemoryUsagePercent(), h.GetMemoryUsedBytes(), h.GetMemoryTotalBytes()),
		DiskPercent:      usedPercent(h.GetDiskUsagePercent(), h.GetDiskUsedBytes(), h.GetDiskTotalBytes()),
		MemoryTotalBytes: h.GetMemoryTotalBytes(), MemoryUsedBytes: h.GetMemoryUsedBytes(),
		DiskTotalBytes: h.GetDiskTotalBytes(), DiskUsedBytes: h.GetDiskUsedBytes(),
	}
}

// usedPercent is fleet.UsedPercent, or nil if that is not known.
func usedPercent(reported float64, used, total int64) *float64 {
	return finite(fleet.UsedPercent(reported, used, total))
}

// finite returns nil for NaN and infinities, which agents send when they could not measure a
// value.
func finite(f float64) *float64 {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return nil
	}
	return &f
}
