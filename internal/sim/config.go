// Package sim owns the simulated MIGlets: agents that use the agent stream of a real
// controller as the agents in the field do, with options for failures seen there. An Agent
// is one VM, a Fleet is many of them. The package knows only the wire protocol; it shares
// no code with the controller.
//
// Registration tokens are received and dropped: no token is kept, logged or printed.
package sim

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"time"

	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
)

// Config defines an agent and its behaviour. Start from DefaultConfig: a duration of zero
// means "immediately", or "never" where the field says so.
type Config struct {
	Controller string // host:port, or an http:// or https:// URL
	TLS        *tls.Config
	Token      string // sent as "Authorization: Bearer <token>"; empty sends none

	VMID    string // a Fleet sets it; any value is sent, even an invalid one
	PoolID  string
	OrgID   string
	Version string // of an ideal agent; builds in the field report "dev"

	Kind   Kind
	Seed   uint64 // the same seed makes the same choices in the same order
	Timing Timing
	Quirks Quirks
	Hooks  Hooks
	Logger *slog.Logger // nil discards
}

// Timing contains the durations of an agent's lifecycle.
type Timing struct {
	Heartbeat time.Duration // between heartbeats; longer than zero
	Register  time.Duration // from register_runner to runner_registered, ± half
	JobEvery  time.Duration // mean wait for the next job; zero: no jobs
	JobLength time.Duration // of a job, ± half
	Drain     time.Duration // from the end of the last job to the drained state
	Restart   time.Duration // how long a crashed agent is down
	PowerOn   time.Duration // how long a VM that was shut down is off
	Backoff   time.Duration // before each reconnect; agents in the field have none
	RetryWait time.Duration // after a dial or a vm_started that was refused
	// ReplaceAfter is how long a spent VM, whose runner has run its only job, is kept;
	// zero: forever.
	ReplaceAfter time.Duration
	Ping         time.Duration // HTTP/2 PING on an idle connection; zero: none
	ProofGrace   time.Duration // see Snapshot.RegisterRepeats
}

// Quirks are failures beyond those of the Kind, all off by default. Agents of Nov2025 open
// no stream and get no commands: quirks about streams or acks do not apply to them. A field
// named Every is the mean time until it happens to a connected VM, zero for never. A number
// is the share of cases, from 0 for never to 1 for always.
type Quirks struct {
	DropEvery    time.Duration // the TCP connection is cut; the agent keeps running
	RestartEvery time.Duration // the agent crashes and forgets its registration
	ReopenEvery  time.Duration // a hot reconnect on the same TCP connection
	ReopenBurst  int           // streams opened by one hot reconnect, at least 1

	// A registration that fails is acked like any other. Timing.Register later the agent
	// reports the state error, if its kind reports states, and exits; after Timing.Restart
	// it starts again without any state.
	FailedRegistrations    float64 // of registrations: fail
	FirstRegistrationsFail int     // this many registrations of an agent fail first, then the share above applies
	// RestartRegistered is how long after its runner is first registered the agent crashes,
	// before it takes a job; zero: never.
	RestartRegistered time.Duration
	RunnerCrashes     float64 // of jobs: the runner exits with a failure, which ends the job
	RepeatedStarts    float64 // of jobs: vm_started is sent over HTTP during the job
	Clock1970         bool    // the agent's clock starts in 1970 at each boot

	LostAcks      float64       // of acks: never sent
	SlowAcks      float64       // of acks: sent after SlowAckDelay
	SlowAckDelay  time.Duration // lost if the stream ends before
	DuplicateAcks float64       // of acks: sent twice

	HeartbeatFirst float64 // of streams: a heartbeat overtakes the ConnectRequest
	NoHealth       float64 // of heartbeats: without health
	NoRunnerState  float64 // of heartbeats: without runner_state
	NaN            float64 // of heartbeats: percentages NaN and infinite; over HTTP no CPU load
	ForeignIDs     float64 // of heartbeats: preceded by one with another VM's id
	LateHeartbeats float64 // of heartbeats: sent after one or two newer ones
	Garbage        float64 // of heartbeats: preceded by a malformed message
}

// Hooks let a test observe an agent. Any may be nil. They are called on the agent's own
// goroutine, which waits for them.
type Hooks struct {
	// OnConnect is called after every accepted ConnectAck.
	OnConnect func(vmID string)
	// OnDisconnect is called after the end of every stream, accepted or not.
	OnDisconnect func(vmID string, end error)
	// OnState is called after every change of the miglet_state.
	OnState func(vmID, state string)
	// OnCommand is called before the agent reacts to a command. The command may contain a
	// registration token.
	OnCommand func(vmID string, command *commands.Command)
}

// DefaultConfig returns the configuration of an agent of kind Today without quirks that
// connects to a controller on this machine. Only the VMID is missing.
func DefaultConfig() Config {
	return Config{
		Controller: "localhost:50051",
		Version:    "migletsim",
		Kind:       Today,
		Timing: Timing{
			Heartbeat:  15 * time.Second,
			Register:   2 * time.Second,
			JobEvery:   time.Minute,
			JobLength:  20 * time.Second,
			Drain:      2 * time.Second,
			Restart:    2 * time.Second,
			PowerOn:    20 * time.Second,
			RetryWait:  time.Second,
			Ping:       10 * time.Second,
			ProofGrace: time.Second,

			ReplaceAfter: 30 * time.Second,
		},
		Quirks: Quirks{ReopenBurst: 5, SlowAckDelay: 5 * time.Second},
	}
}

// ConfigError names the invalid field of a Config or FleetConfig and the rule that it
// violates.
type ConfigError struct {
	Field string // as "Timing.Heartbeat"
	Rule  string // as "must be longer than 0"
}

func (e *ConfigError) Error() string { return fmt.Sprintf("sim: %s %s", e.Field, e.Rule) }

// Validate returns a *ConfigError for the first invalid field.
func (c Config) Validate() error {
	if _, err := parseEndpoint(c.Controller); err != nil {
		return err
	}
	if err := c.Kind.validate(); err != nil {
		return err
	}
	if c.Timing.Heartbeat <= 0 {
		return &ConfigError{"Timing.Heartbeat", "must be longer than 0"}
	}
	if c.Quirks.ReopenBurst < 1 {
		return &ConfigError{"Quirks.ReopenBurst", "must be at least 1"}
	}
	if c.Quirks.FirstRegistrationsFail < 0 {
		return &ConfigError{"Quirks.FirstRegistrationsFail", "must not be negative"}
	}
	for _, d := range c.durations() {
		if d.value < 0 {
			return &ConfigError{d.field, "must not be negative"}
		}
	}
	for _, s := range c.shares() {
		if !(s.value >= 0 && s.value <= 1) { // written so that NaN fails
			return &ConfigError{s.field, "must be between 0 and 1"}
		}
	}
	return nil
}

type field[T any] struct {
	field string
	value T
}

func (c Config) durations() []field[time.Duration] {
	t, q := c.Timing, c.Quirks
	return []field[time.Duration]{
		{"Timing.Register", t.Register},
		{"Timing.JobEvery", t.JobEvery},
		{"Timing.JobLength", t.JobLength},
		{"Timing.Drain", t.Drain},
		{"Timing.Restart", t.Restart},
		{"Timing.PowerOn", t.PowerOn},
		{"Timing.Backoff", t.Backoff},
		{"Timing.RetryWait", t.RetryWait},
		{"Timing.Ping", t.Ping},
		{"Timing.ProofGrace", t.ProofGrace},
		{"Timing.ReplaceAfter", t.ReplaceAfter},
		{"Quirks.DropEvery", q.DropEvery},
		{"Quirks.RestartEvery", q.RestartEvery},
		{"Quirks.ReopenEvery", q.ReopenEvery},
		{"Quirks.SlowAckDelay", q.SlowAckDelay},
		{"Quirks.RestartRegistered", q.RestartRegistered},
	}
}

func (c Config) shares() []field[float64] {
	q := c.Quirks
	return []field[float64]{
		{"Quirks.FailedRegistrations", q.FailedRegistrations},
		{"Quirks.RunnerCrashes", q.RunnerCrashes},
		{"Quirks.RepeatedStarts", q.RepeatedStarts},
		{"Quirks.LateHeartbeats", q.LateHeartbeats},
		{"Quirks.LostAcks", q.LostAcks},
		{"Quirks.SlowAcks", q.SlowAcks},
		{"Quirks.DuplicateAcks", q.DuplicateAcks},
		{"Quirks.HeartbeatFirst", q.HeartbeatFirst},
		{"Quirks.NoHealth", q.NoHealth},
		{"Quirks.NoRunnerState", q.NoRunnerState},
		{"Quirks.NaN", q.NaN},
		{"Quirks.ForeignIDs", q.ForeignIDs},
		{"Quirks.Garbage", q.Garbage},
	}
}
