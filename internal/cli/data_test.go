package cli

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
)

// stamp returns the time at this offset from epoch.
func stamp(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(epoch.Add(d)) }

func newFakeFleet() *fakeFleet {
	return &fakeFleet{clock: epoch, vms: fixedVMs(), commands: fixedCommands(), events: fixedEvents()}
}

func fixedVMs() []*migcontrollerv1.VM {
	return []*migcontrollerv1.VM{
		{
			VmId: "vm-1", PoolId: "builders", OrgId: "tools", Connected: true, Status: "job_running",
			Runner: &migcontrollerv1.Runner{State: "running", Configured: true, Name: "vm-1", Labels: []string{"linux", "x64"}},
			Registration: &migcontrollerv1.Registration{
				State:     migcontrollerv1.RegistrationState_REGISTRATION_STATE_REGISTERED,
				CommandId: "reg-0001", RequestedAt: stamp(-2 * time.Hour), RegisteredAt: stamp(-2*time.Hour + 3*time.Second),
			},
			CurrentJob: &migcontrollerv1.Job{
				JobId: "job-7", RunId: "1234567890", Repository: "example/app", Branch: "main", StartedAt: stamp(-4 * time.Minute),
			},
			Health: &migcontrollerv1.Health{
				CpuUsagePercent: new(68.7), MemoryUsagePercent: new(50.0), MemoryTotalBytes: 8 << 30, MemoryUsedBytes: 4 << 30,
			},
			Machine: &migcontrollerv1.Machine{
				MachineType: "e2-standard-2", Region: "europe-west1", Cpu: 2, MemoryBytes: 8 << 30, DiskBytes: 251 << 30,
			},
			AgentVersion: "1.4.0", SessionEpoch: 3, Boot: 1, FirstSeenAt: stamp(-72 * time.Hour), LastSeenAt: stamp(-3 * time.Second),
			ConnectedAt: stamp(-2 * time.Hour), LastHeartbeatAt: stamp(-3 * time.Second), LastAckAt: stamp(-time.Hour),
		},
		{
			VmId: "vm-2", PoolId: "builders", OrgId: "tools", Status: "idle",
			Registration: &migcontrollerv1.Registration{
				State: migcontrollerv1.RegistrationState_REGISTRATION_STATE_FAILED, CommandId: "reg-0002", ConsecutiveFailures: 3,
				LastFailure: &migcontrollerv1.RegistrationFailure{
					FailedAt: stamp(-2 * time.Minute), CommandId: "reg-0002", Reason: "its agent was started again before the runner was registered",
				},
				NextAttemptAt: stamp(time.Minute),
			},
			SessionEpoch: 9, Boot: 4, LastSeenAt: stamp(-3 * time.Minute), DisconnectedAt: stamp(-3 * time.Minute),
		},
		{
			VmId: "vm-3", PoolId: "testers", Connected: true, Status: "err\x1b[2Jor\n",
			Registration: &migcontrollerv1.Registration{State: migcontrollerv1.RegistrationState_REGISTRATION_STATE_UNREGISTERED},
			SessionEpoch: 1, Boot: 1, LastSeenAt: stamp(0),
		},
	}
}

func fixedCommands() []*migcontrollerv1.CommandRecord {
	return []*migcontrollerv1.CommandRecord{
		{
			Command: &commands.Command{Id: "ctl-aa03", Type: "update_config"}, VmId: "vm-2",
			State: migcontrollerv1.CommandState_COMMAND_STATE_PENDING, AcceptedAt: stamp(-30 * time.Second), ExpiresAt: stamp(59 * time.Minute), MaxDeliveries: 5,
			Reason: "waits for command ctl-aa01", Waiting: &migcontrollerv1.Waiting{Reason: "waits for command ctl-aa01", Since: stamp(-30 * time.Second)},
		},
		{
			Command: &commands.Command{
				Id: "ctl-aa02", Type: "set_log_level", StringParams: map[string]string{"level": "debug"},
				IntParams: map[string]int64{"minutes": 5}, BoolParams: map[string]bool{"trace": true}, StringArrayParams: []string{"a", "b"},
			},
			VmId: "vm-1", State: migcontrollerv1.CommandState_COMMAND_STATE_FAILED, Attempts: 1,
			AcceptedAt: stamp(-5 * time.Minute), DeliveredAt: stamp(-5 * time.Minute), AckedAt: stamp(-4 * time.Minute),
			FinishedAt: stamp(-4 * time.Minute), ExpiresAt: stamp(55 * time.Minute), AckTimeout: durationpb.New(30 * time.Second),
			Ack: &commands.CommandAck{
				CommandId: "ctl-aa02", Message: "the log cannot be opened: no space left on device",
				Result: map[string]string{"level": "info"},
			},
			Reason: "the agent answered that it failed", MaxDeliveries: 5, TraceId: "0af7651916cd43dd8448eb211c80319c",
		},
		{
			Command: &commands.Command{Id: "reg-0001", Type: "register_runner"}, VmId: "vm-1",
			State: migcontrollerv1.CommandState_COMMAND_STATE_SUCCEEDED, Attempts: 1, AcceptedAt: stamp(-2 * time.Hour),
			FinishedAt: stamp(-2 * time.Hour), ExpiresAt: stamp(-time.Hour), Reason: "the agent acked it", MaxDeliveries: 5,
		},
	}
}

func fixedEvent(id int64, vm, kind string, at time.Duration, data map[string]any) *migcontrollerv1.Event {
	body, err := structpb.NewStruct(map[string]any{"type": kind, "vm_id": vm, "data": data, "timestamp": 1.0})
	if err != nil {
		panic(err)
	}
	return &migcontrollerv1.Event{
		EventId: id, VmId: vm, PoolId: "builders", Type: kind, ReceivedAt: stamp(at), OccurredAt: stamp(at),
		Source: migcontrollerv1.ReportSource_REPORT_SOURCE_STREAM, Body: body,
	}
}

func fixedEvents() []*migcontrollerv1.Event {
	return []*migcontrollerv1.Event{
		fixedEvent(3, "vm-1", "job_started", -4*time.Minute, map[string]any{"repository": "example/app", "run_id": "1234567890", "steps": []any{"build", 2.0}}),
		fixedEvent(2, "vm-2", "runner_crashed", -10*time.Minute, map[string]any{"exit_code": 137.0}),
		fixedEvent(1, "vm-1", "vm_started", -72*time.Hour, nil),
	}
}

func cursorOnly(cursor string) *migcontrollerv1.WatchFleetResponse {
	return &migcontrollerv1.WatchFleetResponse{Cursor: cursor}
}

func vmChange(cursor string, v *migcontrollerv1.VM) *migcontrollerv1.WatchFleetResponse {
	return &migcontrollerv1.WatchFleetResponse{Cursor: cursor, ChangedAt: stamp(0), Change: &migcontrollerv1.WatchFleetResponse_Vm{Vm: v}}
}

func commandChange(cursor string, c *migcontrollerv1.CommandRecord) *migcontrollerv1.WatchFleetResponse {
	return &migcontrollerv1.WatchFleetResponse{Cursor: cursor, ChangedAt: stamp(0), Change: &migcontrollerv1.WatchFleetResponse_Command{Command: c}}
}

func eventChange(cursor string, e *migcontrollerv1.Event) *migcontrollerv1.WatchFleetResponse {
	return &migcontrollerv1.WatchFleetResponse{Cursor: cursor, ChangedAt: stamp(0), Change: &migcontrollerv1.WatchFleetResponse_Event{Event: e}}
}
