package rpc

import (
	"cmp"
	"context"
	"math"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/registration"
	"github.com/mig-controller/mig-controller/internal/session"
)

// agents is what AgentService needs from package session.
type agents interface {
	// ReportEvent stores an event, durably, and returns the VM as it is afterwards and the
	// event as stored.
	ReportEvent(ctx context.Context, e fleet.Event) (fleet.VM, fleet.Event, error)
	// AnswerStarted delivers the VM's register_runner in the response to vm_started. It
	// returns nil when there is nothing to deliver or the option is off.
	AnswerStarted(ctx context.Context, vm fleet.VM) (*session.Lease, error)
	// ReportHeartbeat stores a heartbeat.
	ReportHeartbeat(ctx context.Context, h fleet.Heartbeat) error
	// Poll leases the VM's next command. It returns at most one.
	Poll(ctx context.Context, vm fleet.VMID) ([]session.Lease, error)
	// Token mints a runner configuration.
	Token(ctx context.Context, vm fleet.VMID, group string, labels []string) (registration.Runner, error)
}

var _ agents = (*session.Registry)(nil)

// The statuses that agents look for in the responses to their reports.
const (
	statusAcknowledged = "acknowledged"
	statusReceived     = "received"
)

// Limits of the fields that an agent may send.
const (
	maxRunnerStateLength = 128
	maxRunnerGroupLength = 128
	maxRunnerLabels      = 100
	maxRunnerLabelLength = 256
	// maxDepth is how deep objects and lists may be nested. By default the Protobuf decoders
	// of other languages stop at 100 nested messages, and each object of an event in a
	// response takes three.
	maxDepth = 32
)

// agentService implements AgentService, for agents without a stream. It returns domain errors.
type agentService struct{ agents agents }

// ReportEvent implements AgentService.
func (s agentService) ReportEvent(ctx context.Context, req *migcontrollerv1.ReportEventRequest) (*migcontrollerv1.ReportEventResponse, error) {
	e, err := eventOf(ctx, req.GetVmId(), req.GetEvent())
	if err != nil {
		return nil, err
	}
	vm, e, err := s.agents.ReportEvent(ctx, e)
	if err != nil {
		return nil, err
	}
	if e.Type != fleet.EventVMStarted {
		return &migcontrollerv1.ReportEventResponse{
			Status: statusReceived, VmId: req.GetVmId(), Message: "the event is recorded",
		}, nil
	}
	resp := &migcontrollerv1.ReportEventResponse{
		Status: statusAcknowledged, Acknowledged: true, VmId: req.GetVmId(), PoolId: &vm.Pool, OrgId: &vm.Org,
		Message: "the start of the VM is recorded", Timestamp: timeToProto(e.ReceivedAt),
	}
	o, err := s.agents.AnswerStarted(ctx, vm)
	if err != nil {
		return nil, err
	}
	if o != nil {
		addRegistration(resp, *o)
	}
	return resp, nil
}

// addRegistration adds a register_runner to the response to vm_started.
func addRegistration(resp *migcontrollerv1.ReportEventResponse, o session.Lease) {
	text := func(name string) *string { return new(o.Params.Strings[name]) }
	resp.RegistrationToken, resp.ExpiresAt = text(fleet.RegistrationTokenParam), timeToProto(o.TokenExpiresAt)
	resp.RunnerUrl, resp.RunnerGroup = text("runner_url"), text("runner_group")
	resp.Labels = listValue(o.Params.List).GetListValue()
}

// ReportHeartbeat implements AgentService.
func (s agentService) ReportHeartbeat(ctx context.Context, req *migcontrollerv1.ReportHeartbeatRequest) (*migcontrollerv1.ReportHeartbeatResponse, error) {
	h, err := heartbeatOf(ctx, req.GetVmId(), req.GetHeartbeat())
	if err != nil {
		return nil, err
	}
	if err := s.agents.ReportHeartbeat(ctx, h); err != nil {
		return nil, err
	}
	return &migcontrollerv1.ReportHeartbeatResponse{
		Status: statusReceived, VmId: req.GetVmId(), Message: "the heartbeat is recorded",
	}, nil
}

// PollCommands implements AgentService.
func (s agentService) PollCommands(ctx context.Context, req *migcontrollerv1.PollCommandsRequest) (*migcontrollerv1.PollCommandsResponse, error) {
	vm, err := fleet.ParseVMID(req.GetVmId())
	if err != nil {
		return nil, err
	}
	offers, err := s.agents.Poll(ctx, vm)
	if err != nil {
		return nil, err
	}
	resp := &migcontrollerv1.PollCommandsResponse{VmId: req.GetVmId()}
	for _, o := range offers {
		resp.Commands = append(resp.Commands, polledCommand(o))
	}
	return resp, nil
}

// RequestRegistrationToken implements AgentService.
func (s agentService) RequestRegistrationToken(ctx context.Context, req *migcontrollerv1.RequestRegistrationTokenRequest) (*migcontrollerv1.RequestRegistrationTokenResponse, error) {
	vm, err := fleet.ParseVMID(req.GetVmId())
	if err != nil {
		return nil, err
	}
	if err := checkTokenRequest(req); err != nil {
		return nil, err
	}
	runner, err := s.agents.Token(ctx, vm, req.GetRunnerGroup(), req.GetLabels())
	if err != nil {
		return nil, err
	}
	return &migcontrollerv1.RequestRegistrationTokenResponse{
		RegistrationToken: runner.Token, ExpiresAt: timeToProto(runner.ExpiresAt),
		RunnerUrl: runner.URL, RunnerGroup: runner.Group, Labels: runner.Labels,
	}, nil
}

func checkTokenRequest(req *migcontrollerv1.RequestRegistrationTokenRequest) error {
	if err := cmp.Or(
		fleet.CheckOptionalID("org_id", req.GetOrgId()), fleet.CheckOptionalID("pool_id", req.GetPoolId()),
	); err != nil {
		return err
	}
	if len(req.GetRunnerGroup()) > maxRunnerGroupLength {
		return fleet.Invalid("runner_group", "must be a text of at most %d bytes", maxRunnerGroupLength)
	}
	if len(req.GetLabels()) > maxRunnerLabels {
		return fleet.Invalid("labels", "must have at most %d entries", maxRunnerLabels)
	}
	for _, label := range req.GetLabels() {
		if label == "" || len(label) > maxRunnerLabelLength {
			return fleet.Invalid("labels", "must have texts of 1 to %d bytes", maxRunnerLabelLength)
		}
	}
	return nil
}

// polledCommand returns a command in the form that polling agents understand.
func polledCommand(o session.Lease) *migcontrollerv1.PolledCommand {
	params := flatParams(o.Params)
	if o.Command.Type == fleet.RegisterRunner {
		for _, name := range []string{fleet.RegistrationTokenParam, "runner_url", "runner_group"} {
			params[name] = structpb.NewStringValue(o.Params.Strings[name])
		}
		params["labels"] = listValue(o.Params.List)
		if !o.TokenExpiresAt.IsZero() {
			params["expires_at"] = structpb.NewStringValue(o.TokenExpiresAt.UTC().Format(time.RFC3339))
		}
	} else if len(o.Params.List) > 0 {
		params["string_array_params"] = listValue(o.Params.List)
	}
	return &migcontrollerv1.PolledCommand{
		Id: string(o.Command.ID), Type: o.Command.Type,
		Parameters: &structpb.Struct{Fields: params}, CreatedAt: timeToProto(o.Command.CreatedAt),
	}
}

// flatParams puts all named parameters into one object. If parameters of different types have
// the same name, a string takes precedence over an integer, and an integer over a boolean. An
// integer that a double cannot represent exactly becomes a string, as in ProtoJSON.
func flatParams(p fleet.Params) map[string]*structpb.Value {
	flat := make(map[string]*structpb.Value, len(p.Strings)+len(p.Ints)+len(p.Bools)+2)
	for name, v := range p.Bools {
		flat[name] = structpb.NewBoolValue(v)
	}
	for name, v := range p.Ints {
		flat[name] = structpb.NewNumberValue(float64(v))
		if v > 1<<53 || v < -1<<53 {
			flat[name] = structpb.NewStringValue(strconv.FormatInt(v, 10))
		}
	}
	for name, v := range p.Strings {
		flat[name] = structpb.NewStringValue(v)
	}
	return flat
}

func listValue(texts []string) *structpb.Value {
	list := &structpb.ListValue{}
	for _, text := range texts {
		list.Values = append(list.Values, structpb.NewStringValue(text))
	}
	return structpb.NewListValue(list)
}

// eventOf reads an event. Its body keeps all members, including unknown ones.
func eventOf(ctx context.Context, vm string, sent *structpb.Struct) (fleet.Event, error) {
	body, o, err := sentReport(ctx, "event", sent)
	if err != nil {
		return fleet.Event{}, err
	}
	e := fleet.Event{Origin: originOf(vm, o), Type: o.text("type"), Body: body}
	o.object("metadata")
	if err := cmp.Or(*o.err, e.Check()); err != nil {
		return fleet.Event{}, err
	}
	return e, nil
}

// heartbeatOf reads a heartbeat. Its body keeps all members, including unknown ones.
func heartbeatOf(ctx context.Context, vm string, sent *structpb.Struct) (fleet.Heartbeat, error) {
	body, o, err := sentReport(ctx, "heartbeat", sent)
	if err != nil {
		return fleet.Heartbeat{}, err
	}
	o.text("type")
	h := fleet.Heartbeat{
		Origin: originOf(vm, o), Status: o.text("miglet_state"), RunnerState: o.text("runner_state"),
		Job: jobOf(o.object("current_job")), Health: healthOf(o.object("vm_health")),
		Body: body,
	}
	if len(h.RunnerState) > maxRunnerStateLength {
		o.breaks("runner_state", "must be a text of at most %d bytes", maxRunnerStateLength)
	}
	if err := cmp.Or(*o.err, h.Check()); err != nil {
		return fleet.Heartbeat{}, err
	}
	return h, nil
}

func originOf(vm string, o object) fleet.Origin {
	return fleet.Origin{
		VM: o.vm(vm), Pool: o.text("pool_id"), Org: o.text("org_id"),
		Via: fleet.HTTP, SentAt: o.time("timestamp"),
	}
}

// jobOf returns nil when the agent reports no job.
func jobOf(o object) *fleet.Job {
	j := fleet.Job{
		JobID: o.name("job_id"), RunID: o.name("run_id"), Repository: o.text("repository"),
		Branch: o.text("branch"), Commit: o.text("commit"), Status: o.text("status"),
		StartedAt: o.time("started_at"),
	}
	if j == (fleet.Job{}) {
		return nil
	}
	return &j
}

// healthOf returns nil when the agent reports no load. Memory is in MB (2²⁰ bytes) and disk in
// GB (2³⁰ bytes), without percentages.
func healthOf(o object) *fleet.Health {
	h := fleet.Health{
		CPUPercent:      o.number("cpu_load"),
		MemoryUsedBytes: o.bytes("memory_used", 1<<20), MemoryTotalBytes: o.bytes("memory_total", 1<<20),
		DiskUsedBytes: o.bytes("disk_used", 1<<30), DiskTotalBytes: o.bytes("disk_total", 1<<30),
	}
	if h == (fleet.Health{}) {
		return nil
	}
	h.MemoryPercent = usedPercent(math.NaN(), h.MemoryUsedBytes, h.MemoryTotalBytes)
	h.DiskPercent = usedPercent(math.NaN(), h.DiskUsedBytes, h.DiskTotalBytes)
	return &h
}
