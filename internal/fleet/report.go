package fleet

import (
	"encoding/json"
	"slices"
	"time"
)

// The event types that the controller reacts to. Events of any other valid type are stored
// as well.
const (
	EventVMStarted        = "vm_started"
	EventRunnerRegistered = "runner_registered"
	EventRunnerCrashed    = "runner_crashed"
	EventJobStarted       = "job_started"
	EventJobCompleted     = "job_completed"
)

// EventTypes lists the types that the agent protocol defines.
var EventTypes = []string{
	EventVMStarted, EventRunnerRegistered, EventJobStarted, EventJobCompleted, EventRunnerCrashed, "vm_shutting_down", "error",
}

// The miglet_states that an agent is in right after it was started.
const (
	StatusInitializing = "initializing"
	StatusConnecting   = "connecting"
	StatusReady        = "ready"
)

// The miglet_states that no agent is in right after it was started.
const (
	StatusRegistering  = "registering_runner"
	StatusJobRunning   = "job_running"
	StatusDraining     = "draining"
	StatusShuttingDown = "shutting_down"
	StatusError        = "error"
)

// Statuses lists the miglet_states that the agent protocol defines.
var Statuses = []string{
	StatusInitializing, StatusConnecting, StatusReady, StatusRegistering, "idle", StatusJobRunning, StatusDraining,
	StatusShuttingDown, StatusError,
}

// Hello is the opening message of a session.
type Hello struct {
	VM           VMID
	Pool         string
	Org          string
	AgentVersion string
}

// Check returns a *FieldError when one of the ids is invalid.
func (h Hello) Check() error {
	if err := CheckID("vm_id", string(h.VM)); err != nil {
		return err
	}
	return checkPlace(h.Pool, h.Org)
}

// Origin is where a report came from: what all reports have in common.
type Origin struct {
	VM   VMID   `json:"vm"`
	Pool string `json:"pool,omitempty"`
	Org  string `json:"org,omitempty"`
	// Via is the route of the report.
	Via Route `json:"via"`
	// Epoch is the session of the report; zero over HTTP.
	Epoch Epoch `json:"epoch,omitempty"`
	// ReceivedAt is the controller's time, unique within the controller.
	ReceivedAt time.Time `json:"received_at"`
	// SentAt is the agent's time; its clock may be wrong. Zero if not given.
	SentAt time.Time `json:"sent_at,omitzero"`
}

// Check returns a *FieldError when one of the ids is invalid.
func (o Origin) Check() error {
	if err := CheckID("vm_id", string(o.VM)); err != nil {
		return err
	}
	return checkPlace(o.Pool, o.Org)
}

// Event is something that happened on a VM.
type Event struct {
	// Seq is the order of arrival in the fleet, assigned by the database.
	Seq int64 `json:"-"`
	Origin
	Type string `json:"type"`
	// Body is the event as the agent sent it, as a JSON object; what is stored is without its
	// secrets.
	Body json.RawMessage `json:"body,omitempty"`
}

// Check returns a *FieldError when an id of the event is invalid.
func (e Event) Check() error {
	if err := CheckID("type", e.Type); err != nil {
		return err
	}
	return e.Origin.Check()
}

// Heartbeat is an agent's periodic state report. Fields that the agent did not send are nil
// or empty.
type Heartbeat struct {
	Origin
	// Status is the agent's miglet_state.
	Status string `json:"status,omitempty"`
	// Runner is the runner as reported on the stream.
	Runner *Runner `json:"runner,omitempty"`
	// RunnerState is all that agents without a stream report about their runner.
	RunnerState string  `json:"runner_state,omitempty"`
	Job         *Job    `json:"job,omitempty"`
	Health      *Health `json:"health,omitempty"`
	// Body is the heartbeat as it was sent over HTTP, as a JSON object; what is stored is
	// without its secrets.
	Body json.RawMessage `json:"body,omitempty"`
}

// Check returns a *FieldError when an id of the heartbeat or its status is invalid.
func (h Heartbeat) Check() error {
	if err := CheckOptionalID("miglet_state", h.Status); err != nil {
		return err
	}
	return h.Origin.Check()
}

// Runner is the GitHub Actions runner on a VM.
type Runner struct {
	State      string   `json:"state,omitempty"`
	Configured bool     `json:"configured,omitempty"`
	Name       string   `json:"name,omitempty"`
	Labels     []string `json:"labels,omitempty"`
}

func (r *Runner) equal(o *Runner) bool {
	if r == nil || o == nil {
		return r == o
	}
	return r.State == o.State && r.Configured == o.Configured && r.Name == o.Name && slices.Equal(r.Labels, o.Labels)
}

// offline returns the runner with this state, whatever the agent reports.
func (r *Runner) offline() *Runner {
	var o Runner
	if r != nil {
		o = *r
	}
	o.State = "offline"
	return &o
}

// Job is the job a VM runs.
type Job struct {
	JobID      string    `json:"job_id,omitempty"`
	RunID      string    `json:"run_id,omitempty"`
	Repository string    `json:"repository,omitempty"`
	Branch     string    `json:"branch,omitempty"`
	Commit     string    `json:"commit,omitempty"`
	Status     string    `json:"status,omitempty"`
	StartedAt  time.Time `json:"started_at,omitzero"`
}

func (j *Job) equal(o *Job) bool {
	if j == nil || o == nil {
		return j == o
	}
	return *j == *o
}

// Health is the load of a VM. A percentage that could not be measured is nil. The
// percentages of memory and disk agree with the bytes: see UsedPercent.
type Health struct {
	CPUPercent       *float64 `json:"cpu_percent,omitempty"`
	MemoryPercent    *float64 `json:"memory_percent,omitempty"`
	DiskPercent      *float64 `json:"disk_percent,omitempty"`
	MemoryTotalBytes int64    `json:"memory_total_bytes,omitempty"`
	MemoryUsedBytes  int64    `json:"memory_used_bytes,omitempty"`
	DiskTotalBytes   int64    `json:"disk_total_bytes,omitempty"`
	DiskUsedBytes    int64    `json:"disk_used_bytes,omitempty"`
}

func checkPlace(pool, org string) error {
	if err := CheckOptionalID("pool_id", pool); err != nil {
		return err
	}
	return CheckOptionalID("org_id", org)
}

// AgentTime converts an agent's time in Unix seconds: zero if the agent gave none, or one
// that is out of range.
func AgentTime(seconds int64) time.Time {
	if seconds <= 0 || seconds > maxUnixSeconds {
		return time.Time{}
	}
	return time.Unix(seconds, 0).UTC()
}
