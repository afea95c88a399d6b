package rpc

import (
	"cmp"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/tracing"
)

// Enum values are named after the domain's values, with these prefixes.
const (
	commandStatePrefix      = "COMMAND_STATE_"
	registrationStatePrefix = "REGISTRATION_STATE_"
)

// commandToProto converts a command. Its secrets are hidden, also while it is open.
func commandToProto(c fleet.Command) *migcontrollerv1.CommandRecord {
	params := c.Params.WithoutSecrets()
	waiting := c.Waiting
	if waiting == (fleet.Waiting{}) {
		waiting = c.WaitsAlone()
	}
	return &migcontrollerv1.CommandRecord{
		Command: &commands.Command{
			Id:                string(c.ID),
			Type:              c.Type,
			StringParams:      params.Strings,
			IntParams:         params.Ints,
			BoolParams:        params.Bools,
			StringArrayParams: params.List,
			CreatedAt:         c.CreatedAt.Unix(),
		},
		VmId:        string(c.VM),
		State:       commandStateToProto(c.State),
		AcceptedAt:  timeToProto(c.AcceptedAt),
		ExpiresAt:   timeToProto(c.ExpiresAt),
		AckTimeout:  durationpb.New(c.AckTimeout),
		DeliveredAt: timeToProto(c.Last.At),
		FinishedAt:  timeToProto(c.FinishedAt),
		Attempts:    int32(c.Attempts),
		Ack:         ackToProto(c.Ack),
		AckedAt:     timeToProto(c.AckedAt),
		Reason:      cmp.Or(c.Reason, waiting.Reason),

		MaxDeliveries: int32(c.MaxDeliveriesOrDefault()),
		Waiting:       waitingToProto(waiting),
		TraceId:       tracing.ID(c.Trace),
		RequestedBy:   c.RequestedBy,
		CancelledBy:   c.CancelledBy,
	}
}

// waitingToProto returns nil if nothing is waited for.
func waitingToProto(w fleet.Waiting) *migcontrollerv1.Waiting {
	if w == (fleet.Waiting{}) {
		return nil
	}
	return &migcontrollerv1.Waiting{Reason: w.Reason, Since: timeToProto(w.Since)}
}

func ackToProto(a *fleet.Ack) *commands.CommandAck {
	if a == nil {
		return nil
	}
	return &commands.CommandAck{
		CommandId: string(a.CommandID), Success: a.Success, Message: a.Message,
		Result: fleet.WithoutSecrets(a.Result), // those of earlier versions may have some
	}
}

func commandStateToProto(s fleet.CommandState) migcontrollerv1.CommandState {
	return migcontrollerv1.CommandState(migcontrollerv1.CommandState_value[commandStatePrefix+string(s)])
}

// commandStatesFromProto returns the states that a filter accepts; nil means any, which is
// also the result if one of them is unspecified. It returns a *fleet.FieldError for the field
// states when one of them is unknown.
func commandStatesFromProto(states []migcontrollerv1.CommandState) ([]string, error) {
	var out []string
	anyState := false
	for _, s := range states {
		name, known := migcontrollerv1.CommandState_name[int32(s)]
		if !known {
			return nil, fleet.Invalid("states", "must be states of a command; without any, all fit")
		}
		anyState = anyState || s == migcontrollerv1.CommandState_COMMAND_STATE_UNSPECIFIED
		out = append(out, strings.TrimPrefix(name, commandStatePrefix))
	}
	if anyState {
		return nil, nil
	}
	return out, nil
}

// commandFromProto converts the command of a request. c must not be nil.
func commandFromProto(c *commands.Command) fleet.CommandRequest {
	return fleet.CommandRequest{
		ID: c.GetId(), Type: c.GetType(), CreatedAt: c.GetCreatedAt(),
		Params: fleet.Params{
			Strings: c.GetStringParams(), Ints: c.GetIntParams(),
			Bools: c.GetBoolParams(), List: c.GetStringArrayParams(),
		},
	}
}

// vmToProto converts v, including what it waits for as of now.
func vmToProto(v fleet.VM, now time.Time) *migcontrollerv1.VM {
	return &migcontrollerv1.VM{
		VmId:            string(v.ID),
		PoolId:          v.Pool,
		OrgId:           v.Org,
		Connected:       v.Connected,
		Status:          v.Status,
		Runner:          runnerToProto(v.Runner),
		Registration:    registrationToProto(v.Registration),
		CurrentJob:      jobToProto(v.Job),
		Health:          healthToProto(v.Health),
		Machine:         machineToProto(v.Machine),
		AgentVersion:    v.AgentVersion,
		SessionEpoch:    int64(v.Epoch),
		Boot:            v.Boot,
		FirstSeenAt:     timeToProto(v.FirstSeenAt),
		LastSeenAt:      timeToProto(v.LastSeenAt),
		ConnectedAt:     timeToProto(v.ConnectedAt),
		DisconnectedAt:  timeToProto(v.DisconnectedAt),
		LastHeartbeatAt: timeToProto(v.LastHeartbeatAt),
		LastAckAt:       timeToProto(v.LastAckAt),
		Waiting:         waitingToProto(v.Waiting(now)),
		SpentAt:         timeToProto(v.SpentAt),
		RunnerCrashedAt: timeToProto(v.CrashedAt),
		ContestedAt:     timeToProto(v.ContestedAt),
	}
}

func runnerToProto(r *fleet.Runner) *migcontrollerv1.Runner {
	if r == nil {
		return nil
	}
	return &migcontrollerv1.Runner{State: r.State, Configured: r.Configured, Name: r.Name, Labels: r.Labels}
}

func registrationToProto(r fleet.Registration) *migcontrollerv1.Registration {
	return &migcontrollerv1.Registration{
		State: migcontrollerv1.RegistrationState(
			migcontrollerv1.RegistrationState_value[registrationStatePrefix+string(r.State)]),
		CommandId:    string(r.Command),
		RequestedAt:  timeToProto(r.RequestedAt),
		RegisteredAt: timeToProto(r.ProvenAt),

		ConsecutiveFailures: int32(r.Failures), LastFailure: failureToProto(r.LastFailure),
		NextAttemptAt: timeToProto(r.Next()),
	}
}

func failureToProto(f fleet.RegistrationFailure) *migcontrollerv1.RegistrationFailure {
	if f == (fleet.RegistrationFailure{}) {
		return nil
	}
	return &migcontrollerv1.RegistrationFailure{FailedAt: timeToProto(f.At), CommandId: string(f.Command), Reason: f.Reason}
}

func jobToProto(j *fleet.Job) *migcontrollerv1.Job {
	if j == nil {
		return nil
	}
	return &migcontrollerv1.Job{
		JobId: j.JobID, RunId: j.RunID, Repository: j.Repository, Branch: j.Branch,
		Commit: j.Commit, Status: j.Status, StartedAt: timeToProto(j.StartedAt),
	}
}

func healthToProto(h *fleet.Health) *migcontrollerv1.Health {
	if h == nil {
		return nil
	}
	return &migcontrollerv1.Health{
		CpuUsagePercent: h.CPUPercent, MemoryUsagePercent: h.MemoryPercent, DiskUsagePercent: h.DiskPercent,
		MemoryTotalBytes: h.MemoryTotalBytes, MemoryUsedBytes: h.MemoryUsedBytes,
		DiskTotalBytes: h.DiskTotalBytes, DiskUsedBytes: h.DiskUsedBytes,
	}
}

func machineToProto(m *fleet.Machine) *migcontrollerv1.Machine {
	if m == nil {
		return nil
	}
	return &migcontrollerv1.Machine{
		MachineType: m.Type, Region: m.Region, Cpu: int32(m.CPU), MemoryBytes: m.MemoryBytes, DiskBytes: m.DiskBytes,
	}
}

func eventToProto(e fleet.Event) *migcontrollerv1.Event {
	return &migcontrollerv1.Event{
		EventId:    e.Seq,
		VmId:       string(e.VM),
		PoolId:     e.Pool,
		OrgId:      e.Org,
		Type:       e.Type,
		ReceivedAt: timeToProto(e.ReceivedAt),
		OccurredAt: timeToProto(e.SentAt),
		Source:     sourceToProto(e.Via),
		Body:       bodyToProto(e.Body),
	}
}

func heartbeatToProto(h fleet.Heartbeat) *migcontrollerv1.HeartbeatRecord {
	runner := h.Runner
	if runner == nil && h.RunnerState != "" {
		runner = &fleet.Runner{State: h.RunnerState}
	}
	return &migcontrollerv1.HeartbeatRecord{
		VmId:         string(h.VM),
		PoolId:       h.Pool,
		OrgId:        h.Org,
		ReceivedAt:   timeToProto(h.ReceivedAt),
		SentAt:       timeToProto(h.SentAt),
		Source:       sourceToProto(h.Via),
		SessionEpoch: int64(h.Epoch),
		Status:       h.Status,
		Runner:       runnerToProto(runner),
		CurrentJob:   jobToProto(h.Job),
		Health:       healthToProto(h.Health),
		Body:         bodyToProto(h.Body),
	}
}

func sourceToProto(r fleet.Route) migcontrollerv1.ReportSource {
	switch r {
	case fleet.Stream:
		return migcontrollerv1.ReportSource_REPORT_SOURCE_STREAM
	case fleet.HTTP:
		return migcontrollerv1.ReportSource_REPORT_SOURCE_HTTP
	default:
		return migcontrollerv1.ReportSource_REPORT_SOURCE_UNSPECIFIED
	}
}

// timeToProto returns nil for the zero time.
func timeToProto(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// timeFromProto returns the zero time if t is unset, and a *fleet.FieldError if t is invalid.
func timeFromProto(field string, t *timestamppb.Timestamp) (time.Time, error) {
	if t == nil {
		return time.Time{}, nil
	}
	if !t.IsValid() {
		return time.Time{}, fleet.Invalid(field, "must be a time of the years 1 to 9999, its nanos between 0 and 999999999")
	}
	return t.AsTime(), nil
}

// periodFromProto returns the times of a list's request, as timeFromProto does.
func periodFromProto(req interface {
	GetSince() *timestamppb.Timestamp
	GetUntil() *timestamppb.Timestamp
},
) (since, until time.Time, err error) {
	if since, err = timeFromProto("since", req.GetSince()); err != nil {
		return time.Time{}, time.Time{}, err
	}
	until, err = timeFromProto("until", req.GetUntil())
	return since, until, err
}

// durationFromProto returns zero if d is unset, and a *fleet.FieldError if d is invalid.
// Callers check the range.
func durationFromProto(field string, d *durationpb.Duration) (time.Duration, error) {
	if d == nil {
		return 0, nil
	}
	if !d.IsValid() {
		return 0, fleet.Invalid(field, "must be a duration of at most 10000 years, seconds and nanos of the same sign")
	}
	return d.AsDuration(), nil
}
