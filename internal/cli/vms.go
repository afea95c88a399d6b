package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
)

const noVM = "No VM matches. migctl vms lists all VMs."

// vmFilter selects VMs.
type vmFilter struct {
	Pool      nonEmpty `placeholder:"POOL" help:"Only VMs in this pool."`
	Org       nonEmpty `placeholder:"ORG" help:"Only VMs in this organisation."`
	Connected bool     `xor:"connected" help:"Only VMs that are connected."`
	Offline   bool     `xor:"connected" help:"Only VMs that are not connected."`
	Status    nonEmpty `placeholder:"STATUS" help:"Only VMs with this status, such as idle or job_running."`
}

// list returns up to limit matching VMs; 0 means all.
func (f vmFilter) list(ctx context.Context, in *invocation, limit int) (vms []*migcontrollerv1.VM, more bool, err error) {
	req := &migcontrollerv1.ListVMsRequest{PoolId: string(f.Pool), OrgId: string(f.Org), Status: string(f.Status)}
	if f.Connected || f.Offline {
		req.Connected = &f.Connected
	}
	return listPages(limit, func(size int32, token string) ([]*migcontrollerv1.VM, string, error) {
		req.PageSize, req.PageToken = size, token
		res, err := callRPC(ctx, in, 0, in.client.ListVMs, req)
		return res.GetVms(), res.GetNextPageToken(), err
	})
}

type vmsCmd struct {
	vmFilter
	Limit int `placeholder:"N" help:"Show at most N VMs; 0 means all, the default."`
}

// Help returns the command's help text.
func (vmsCmd) Help() string {
	return examples(
		"Lists every VM that the controller knows, including VMs that are offline.",
		"migctl vms --offline",
		"migctl vms --pool builders --status idle",
		"migctl vms -o json | jq -r '.[].vmId'",
	)
}

// Run lists VMs.
func (cmd vmsCmd) Run(ctx context.Context, in *invocation) error {
	if err := checkLimit(cmd.Limit); err != nil {
		return err
	}
	if err := in.dial(); err != nil {
		return err
	}
	vms, more, err := cmd.list(ctx, in, cmd.Limit)
	if err != nil {
		return err
	}
	if err := writeList(in, vms, in.vmTable(vms), noVM); err != nil {
		return err
	}
	in.noteMore(more)
	return nil
}

func checkLimit(limit int) error {
	if limit < 0 {
		return usage("--limit must not be negative")
	}
	return nil
}

// noteMore reports on a terminal that a list is incomplete.
func (in *invocation) noteMore(more bool) {
	if more && in.stderrTTY && !in.structured() {
		fmt.Fprintln(in.stderr, "There are more: --limit N shows N, --limit 0 shows all.")
	}
}

func (in *invocation) vmTable(vms []*migcontrollerv1.VM) table {
	t := table{columns: []column{
		{title: "VM"},
		{title: "POOL", drop: 1},
		{title: "ORG", wide: true},
		{title: "CONNECTED"},
		{title: "STATUS"},
		{title: "REGISTRATION", drop: 4},
		{title: "JOB", drop: 2},
		{title: "SEEN", drop: 3},
		{title: "RUNNER", wide: true},
		{title: "LABELS", wide: true},
		{title: "AGENT", wide: true},
		{title: "BOOT", wide: true},
		{title: "CPU", wide: true},
		{title: "MEMORY", wide: true},
		{title: "DISK", wide: true},
	}}
	for _, v := range vms {
		cpu, memory, disk := usageCells(v.GetHealth())
		t.add(
			plain(v.GetVmId()), plain(v.GetPoolId()), plain(v.GetOrgId()), connectedCell(v), vmStatusCell(v),
			registrationCell(v.GetRegistration()), plain(jobText(v.GetCurrentJob())), in.when(v.GetLastSeenAt()),
			plain(v.GetRunner().GetState()), plain(strings.Join(v.GetRunner().GetLabels(), ",")), plain(v.GetAgentVersion()),
			plain(strconv.FormatInt(v.GetBoot(), 10)),
			cpu, memory, disk,
		)
	}
	return t
}

// usageCells shows resource usage; unreported values are empty.
func usageCells(h *migcontrollerv1.Health) (cpu, memory, disk cell) {
	if h == nil {
		return cell{}, cell{}, cell{}
	}
	return percent(h.CpuUsagePercent), percent(h.MemoryUsagePercent), percent(h.DiskUsagePercent)
}

func connectedCell(v *migcontrollerv1.VM) cell {
	if v.GetConnected() {
		return cell{text: "yes", tone: good}
	}
	return cell{text: "no", tone: bad}
}

// vmStatusCell shows the last status that the VM reported, and whether it is spent, which
// only the controller knows. An offline VM's status may be stale, so it is shown faint.
func vmStatusCell(v *migcontrollerv1.VM) cell {
	status := statusCell(v.GetStatus())
	if v.GetSpentAt() != nil {
		status = cell{text: strings.TrimPrefix(status.text+", spent", ", "), tone: waiting}
	}
	if !v.GetConnected() {
		status.tone = faint
	}
	return status
}

func statusCell(status string) cell {
	tones := map[string]tone{
		"idle": good, "ready": good, "job_running": busy, "error": bad,
		"initializing": waiting, "connecting": waiting, "registering_runner": waiting,
		"draining": waiting, "shutting_down": waiting,
	}
	return cell{text: status, tone: tones[status]}
}

func registrationCell(r *migcontrollerv1.Registration) cell {
	state, n := r.GetState(), r.GetConsecutiveFailures()
	text := strings.ToLower(strings.TrimPrefix(state.String(), "REGISTRATION_STATE_"))
	switch state {
	case migcontrollerv1.RegistrationState_REGISTRATION_STATE_UNSPECIFIED:
		return cell{}
	case migcontrollerv1.RegistrationState_REGISTRATION_STATE_REGISTERED:
		return cell{text: text, tone: good}
	case migcontrollerv1.RegistrationState_REGISTRATION_STATE_FAILED:
		if n > 0 {
			text = fmt.Sprintf("%s (%d)", text, n)
		}
		return cell{text: text, tone: bad}
	default:
		if n > 0 {
			text = fmt.Sprintf("%s (%d failed)", text, n)
		}
		return cell{text: text, tone: waiting}
	}
}

// jobText identifies a job by its repository and run, or by its id.
func jobText(job *migcontrollerv1.Job) string {
	name := job.GetRepository()
	if name == "" {
		return job.GetJobId()
	}
	if run := job.GetRunId(); run != "" {
		name += "#" + run
	}
	return name
}

// percent formats a percentage; nil is unknown.
func percent(p *float64) cell {
	if p == nil {
		return cell{}
	}
	return plain(fmt.Sprintf("%.0f%%", *p))
}

type vmCmd struct {
	VM string `arg:"" name:"vm" help:"The VM's id."`
}

// Help returns the command's help text.
func (vmCmd) Help() string {
	return examples("Shows everything that the controller knows about a VM.", "migctl vm vm-1", "migctl vm vm-1 -o json")
}

// Run shows one VM.
func (cmd vmCmd) Run(ctx context.Context, in *invocation) error {
	if err := in.dial(); err != nil {
		return err
	}
	res, err := callRPC(ctx, in, 0, in.client.GetVM, &migcontrollerv1.GetVMRequest{VmId: cmd.VM})
	if err != nil {
		if detailOf(err).GetReason() != migcontrollerv1.ErrorReason_ERROR_REASON_NOT_FOUND {
			return err
		}
		return lookupError{err, in.vmHint(ctx, cmd.VM)}
	}
	return in.writeRecord(res.GetVm(), in.vmFields(res.GetVm()))
}

// fields returns a table for one record, with a name and a value in each row.
func fields() table { return table{columns: make([]column, 2)} }

func (in *invocation) vmFields(v *migcontrollerv1.VM) table {
	t := fields()
	job, registration := v.GetCurrentJob(), v.GetRegistration()
	cpu, memory, disk := usageCells(v.GetHealth())
	t.field("VM", plain(v.GetVmId()))
	t.field("Pool", plain(v.GetPoolId()))
	t.field("Organisation", plain(v.GetOrgId()))
	t.field("Connected", connectedCell(v))
	t.field("Status", vmStatusCell(v))
	if v.GetSpentAt() != nil {
		t.field("  job ended", in.whenBoth(v.GetSpentAt()))
	}
	t.field("Runner", plain(v.GetRunner().GetState()))
	if v.GetRunnerCrashedAt() != nil {
		t.field("  crashed", in.whenBoth(v.GetRunnerCrashedAt()))
	}
	t.field("Runner name", plain(v.GetRunner().GetName()))
	t.field("Labels", plain(strings.Join(v.GetRunner().GetLabels(), ",")))
	t.field("Registration", registrationCell(registration))
	t.field("  by command", plain(registration.GetCommandId()))
	t.field("  registered", in.whenBoth(registration.GetRegisteredAt()))
	if f := registration.GetLastFailure(); f != nil {
		t.field("  last failed", in.whenBoth(f.GetFailedAt()))
		t.field("  reason", plain(f.GetReason()))
		t.field("  of command", plain(f.GetCommandId()))
	}
	if registration.GetNextAttemptAt() != nil {
		t.field("  next attempt", in.whenBoth(registration.GetNextAttemptAt()))
	}
	if v.GetContestedAt() != nil {
		t.field("  contested", in.whenBoth(v.GetContestedAt()))
	}
	if waiting := v.GetWaiting(); waiting != nil {
		t.field("  waits for", plain(waiting.GetReason()))
		t.field("  since", in.whenBoth(waiting.GetSince()))
	}
	t.field("Job", plain(jobText(job)))
	if job != nil {
		t.field("  began", in.whenBoth(job.GetStartedAt()))
		t.field("  branch", plain(job.GetBranch()))
	}
	t.field("Machine", plain(machineText(v.GetMachine())))
	if region := v.GetMachine().GetRegion(); region != "" {
		t.field("  region", plain(region))
	}
	t.field("CPU", cpu)
	t.field("Memory", withTotal(memory, v.GetHealth().GetMemoryTotalBytes()))
	t.field("Disk", withTotal(disk, v.GetHealth().GetDiskTotalBytes()))
	t.field("Agent", plain(v.GetAgentVersion()))
	t.field("Boot", plain(strconv.FormatInt(v.GetBoot(), 10)))
	t.field("Session epoch", plain(strconv.FormatInt(v.GetSessionEpoch(), 10)))
	t.field("First seen", in.whenBoth(v.GetFirstSeenAt()))
	t.field("Last seen", in.whenBoth(v.GetLastSeenAt()))
	t.field("Last heartbeat", in.whenBoth(v.GetLastHeartbeatAt()))
	t.field("Last ack", in.whenBoth(v.GetLastAckAt()))
	t.field("Connected at", in.whenBoth(v.GetConnectedAt()))
	t.field("Disconnected at", in.whenBoth(v.GetDisconnectedAt()))
	return t
}

// withTotal appends the total that a percentage refers to.
func withTotal(c cell, total int64) cell {
	if c.text != "" && total > 0 {
		c.text += " of " + size(total)
	}
	return c
}

// size formats bytes in MiB or GiB. MiB are needed because current agents report the
// memory of their own process.
func size(bytes int64) string {
	if bytes < 1<<30 {
		return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20))
	}
	return fmt.Sprintf("%.1f GiB", float64(bytes)/(1<<30))
}

// machineText describes a machine, omitting unknown properties.
func machineText(m *migcontrollerv1.Machine) string {
	var parts []string
	if m.GetMachineType() != "" {
		parts = append(parts, m.GetMachineType())
	}
	switch n := m.GetCpu(); {
	case n == 1:
		parts = append(parts, "1 CPU")
	case n > 1:
		parts = append(parts, fmt.Sprintf("%d CPUs", n))
	}
	if n := m.GetMemoryBytes(); n > 0 {
		parts = append(parts, size(n)+" memory")
	}
	if n := m.GetDiskBytes(); n > 0 {
		parts = append(parts, size(n)+" disk")
	}
	return strings.Join(parts, ", ")
}
