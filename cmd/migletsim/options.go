package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/mig-controller/mig-controller/internal/sim"
)

const description = `Run a fleet of simulated MIGlets, the agents inside CI machines, against a controller.

Without options three VMs with today's agents connect to a controller on this machine, register
their runners, take one job each, are then spent and replaced by new ones, until Ctrl-C.
--agent chooses the agents:

  today     The latest build. It reads commands until register_runner: it acks that one and
            fails any other. Later commands stay unread. It takes one job, during which its
            state stays "idle", and reports over HTTP what it cannot send on its stream.
  2025-12   The previous build. The same, but its heartbeats lack the state, and it sends none
            until its runner is registered.
  2025-11   The oldest build, HTTP only. It needs a registration token in the answer to
            vm_started; without one it exits and is restarted.
  ideal     No build in the field. It executes and acks every command, reports "job_running",
            and takes one job after the other. For demonstrations and tests of commands.

The quirks simulate other failures in the field. They work with every kind of agent, but those of
2025-11 open no stream and get no commands, so quirks about streams or acks do not apply to
them. Over HTTP, --nan omits the CPU load, because JSON has no NaN. A SHARE is a
number from 0 to 1 or a percentage: 0.05 and 5% are the same.

Exit codes: 0 done, 1 no VM ever connected, 2 invalid options.`

// options are the command line. sim checks durations and shares.
type options struct {
	Controller string `group:"Fleet" default:"localhost:50051" placeholder:"ADDR" help:"The controller: host:port, or an http:// or https:// URL. [${default}]"`
	VMs        int    `group:"Fleet" name:"vms" default:"3" placeholder:"N" help:"How many VMs. [${default}]"`
	VMPrefix   string `group:"Fleet" name:"vm-prefix" default:"sim-vm-" placeholder:"TEXT" help:"What the ids of the VMs begin with; a number follows. [${default}]"`
	Pool       string `group:"Fleet" placeholder:"ID" help:"The pool that the VMs report."`
	Org        string `group:"Fleet" placeholder:"ID" help:"The organisation that the VMs report."`

	StartRate float64       `group:"Fleet" default:"100" placeholder:"N" help:"VMs started per second. [${default}]"`
	Duration  time.Duration `group:"Fleet" default:"0s" placeholder:"TIME" help:"Stop after this long; 0 runs until Ctrl-C. [${default}]"`
	Seed      uint64        `group:"Fleet" default:"0" placeholder:"N" help:"Repeat the same random choices; 0 picks a seed and prints it. [${default}]"`

	CAFile             string `group:"Security" name:"ca-file" placeholder:"FILE" help:"Trust the certificate authorities in this PEM file, for https:// controllers."`
	InsecureSkipVerify bool   `group:"Security" name:"insecure-skip-verify" help:"Accept any certificate. For tests only."`
	TokenFile          string `group:"Security" placeholder:"FILE" help:"Send the content of this file as the bearer token of every agent."`

	Agent             string        `group:"Behaviour" default:"today" placeholder:"KIND" help:"Which agents: today, 2025-12, 2025-11 or ideal. [${default}]"`
	HeartbeatInterval time.Duration `group:"Behaviour" default:"15s" placeholder:"TIME" help:"Between two heartbeats of a VM. [${default}]"`
	RegisterTime      time.Duration `group:"Behaviour" default:"2s" placeholder:"TIME" help:"From register_runner to runner_registered, give or take half. [${default}]"`
	JobEvery          time.Duration `group:"Behaviour" default:"1m" placeholder:"TIME" help:"Mean wait of a VM for its next job; 0 for no jobs. [${default}]"`
	JobLength         time.Duration `group:"Behaviour" default:"20s" placeholder:"TIME" help:"Length of a job, give or take half. [${default}]"`
	ReplaceAfter      time.Duration `group:"Behaviour" default:"30s" placeholder:"TIME" help:"A spent VM is replaced after this long by one with a new id; 0 never. [${default}]"`
	PowerOn           time.Duration `group:"Behaviour" name:"power-on-after" default:"20s" placeholder:"TIME" help:"A VM that was shut down boots again after this long. [${default}]"`
	Backoff           time.Duration `group:"Behaviour" default:"0s" placeholder:"TIME" help:"Wait before each reconnect. Agents in the field have no such wait. [${default}]"`

	FailedRegistrations    share         `group:"Quirks" name:"failed-registrations" default:"0" placeholder:"SHARE" help:"After this share of register_runner commands, which are acked as always, the runner is not registered: the agent exits and is restarted."`
	FirstRegistrationsFail int           `group:"Quirks" name:"first-registrations-fail" default:"0" placeholder:"N" help:"The first N registrations of each VM fail in this way."`
	RestartRegistered      time.Duration `group:"Quirks" name:"restart-registered" default:"0s" placeholder:"TIME" help:"Crash each agent once, this long after its runner was registered and before its first job; 0 never."`
	RunnerCrashes          share         `group:"Quirks" name:"runner-crashes" default:"0" placeholder:"SHARE" help:"In this share of jobs the runner crashes."`
	RepeatedStarts         share         `group:"Quirks" name:"repeated-starts" default:"0" placeholder:"SHARE" help:"During this share of jobs, send vm_started over HTTP."`
	LateHeartbeats         share         `group:"Quirks" name:"late-heartbeats" default:"0" placeholder:"SHARE" help:"Send this share of heartbeats one to two intervals late, after newer ones."`
	Clock1970              bool          `group:"Quirks" name:"clock-1970" help:"The clock of each agent starts in 1970 at each boot."`

	DropEvery          time.Duration `group:"Quirks" default:"0s" placeholder:"TIME" help:"Cut the TCP connection of each VM about this often; 0 never."`
	RestartEvery       time.Duration `group:"Quirks" default:"0s" placeholder:"TIME" help:"Crash each agent about this often, so that it must register again; 0 never."`
	ReopenEvery        time.Duration `group:"Quirks" default:"0s" placeholder:"TIME" help:"Close and reopen the stream of each VM five times in a row about this often; 0 never."`
	DuplicateIDs       int           `group:"Quirks" name:"duplicate-ids" default:"0" placeholder:"N" help:"Give the first N VMs a second agent with the same id."`
	LostAcks           share         `group:"Quirks" default:"0" placeholder:"SHARE" help:"Never send this share of acks."`
	SlowAcks           share         `group:"Quirks" default:"0" placeholder:"SHARE" help:"Send this share of acks late."`
	SlowAckDelay       time.Duration `group:"Quirks" default:"5s" placeholder:"TIME" help:"How late. [${default}]"`
	DuplicateAcks      share         `group:"Quirks" default:"0" placeholder:"SHARE" help:"Send this share of acks twice."`
	HeartbeatFirst     share         `group:"Quirks" default:"0" placeholder:"SHARE" help:"On this share of streams a heartbeat overtakes the ConnectRequest."`
	MissingHealth      share         `group:"Quirks" default:"0" placeholder:"SHARE" help:"Leave health out of this share of heartbeats."`
	MissingRunnerState share         `group:"Quirks" default:"0" placeholder:"SHARE" help:"Leave runner_state out of this share of heartbeats."`
	NaN                share         `group:"Quirks" name:"nan" default:"0" placeholder:"SHARE" help:"Send NaN and infinite percentages in this share of heartbeats."`
	ForeignIDs         share         `group:"Quirks" name:"foreign-ids" default:"0" placeholder:"SHARE" help:"Before this share of heartbeats, send one with another VM's id."`
	Garbage            share         `group:"Quirks" default:"0" placeholder:"SHARE" help:"Before this share of heartbeats, send a malformed message."`

	SummaryInterval time.Duration    `group:"Output" default:"5s" placeholder:"TIME" help:"Between two summary lines. [${default}]"`
	LogLevel        string           `group:"Output" default:"info" enum:"debug,info,warn,error" placeholder:"LEVEL" help:"What is logged to stderr: debug, info, warn or error. [${default}]"`
	Version         kong.VersionFlag `group:"Output" help:"Print the version and exit."`
}

// share is a number from 0 to 1, or a percentage. sim checks its range.
type share float64

func (s *share) UnmarshalText(text []byte) error {
	number, percent := strings.CutSuffix(string(text), "%")
	f, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return fmt.Errorf("must be a number from 0 to 1 or a percentage, not %q", text)
	}
	if percent {
		f /= 100
	}
	*s = share(f)
	return nil
}

// parse reads the command line. It returns done, with the exit code, if there is nothing
// more to do: after --help, --version and invalid options.
func parse(args []string, stdout, stderr io.Writer) (opts options, code int, done bool) {
	exited := false
	parser, err := kong.New(&opts,
		kong.Name("migletsim"),
		kong.Description(description),
		kong.Vars{"version": "migletsim " + version},
		kong.Writers(stdout, stderr),
		kong.Exit(func(int) { exited = true }),
		kong.ConfigureHelp(kong.HelpOptions{WrapUpperBound: 110}),
	)
	if err != nil {
		panic(err) // the struct tags above are invalid
	}
	_, err = parser.Parse(args)
	if exited {
		return opts, exitOK, true
	}
	if err == nil {
		err = opts.check()
	}
	if err != nil {
		_, _ = fmt.Fprintf(stderr, "migletsim: %v\nRun \"migletsim --help\" for the options.\n", err)
		return opts, exitBadOption, true
	}
	for opts.Seed == 0 {
		opts.Seed = uint64(rand.Uint32()) //nolint:gosec // a seed is not a secret
	}
	return opts, exitOK, false
}

// identifier is the contract's rule for ids, which a VM's number completes.
var identifier = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

const identifierRule = "1 to 128 of the characters A-Z a-z 0-9 . _ -, the first a letter or digit"

// check returns an error that names the first invalid option and its rule, for the rules
// that sim does not check. The numbers of VMs grow with replacements.
func (o options) check() error {
	last := o.VMPrefix + strings.Repeat("9", 10)
	switch {
	case !identifier.MatchString(last):
		return fmt.Errorf("--vm-prefix must make a valid id with a number after it (%s), not %q", identifierRule, o.VMPrefix)
	case o.Pool != "" && !identifier.MatchString(o.Pool):
		return fmt.Errorf("--pool must be %s, not %q", identifierRule, o.Pool)
	case o.Org != "" && !identifier.MatchString(o.Org):
		return fmt.Errorf("--org must be %s, not %q", identifierRule, o.Org)
	case o.Duration < 0:
		return fmt.Errorf("--duration must not be negative, not %s", o.Duration)
	case o.SummaryInterval <= 0:
		return fmt.Errorf("--summary-interval must be longer than 0, not %s", o.SummaryInterval)
	}
	cfg, err := o.fleetConfig()
	if err != nil {
		return err
	}
	return nameOption(cfg.Validate())
}

// fleetConfig returns the configuration, and reads the files that the options name.
func (o options) fleetConfig() (sim.FleetConfig, error) {
	agent := sim.DefaultConfig()
	agent.Controller, agent.PoolID, agent.OrgID = o.Controller, o.Pool, o.Org
	agent.Version, agent.Seed, agent.Kind = "migletsim-"+version, o.Seed, sim.Kind(o.Agent)
	agent.Timing.Heartbeat, agent.Timing.Register = o.HeartbeatInterval, o.RegisterTime
	agent.Timing.JobEvery, agent.Timing.JobLength = o.JobEvery, o.JobLength
	agent.Timing.PowerOn, agent.Timing.Backoff = o.PowerOn, o.Backoff
	agent.Timing.ReplaceAfter = o.ReplaceAfter
	agent.Quirks = o.quirks(agent.Quirks)
	var err error
	if agent.TLS, err = o.tls(); err != nil {
		return sim.FleetConfig{}, err
	}
	if agent.Token, err = o.token(); err != nil {
		return sim.FleetConfig{}, err
	}
	return sim.FleetConfig{
		Agent:        agent,
		VMs:          o.VMs,
		VMPrefix:     o.VMPrefix,
		StartRate:    o.StartRate,
		DuplicateIDs: o.DuplicateIDs,
	}, nil
}

func (o options) quirks(q sim.Quirks) sim.Quirks {
	q.DropEvery, q.RestartEvery, q.ReopenEvery = o.DropEvery, o.RestartEvery, o.ReopenEvery
	q.FailedRegistrations, q.FirstRegistrationsFail = float64(o.FailedRegistrations), o.FirstRegistrationsFail
	q.RestartRegistered, q.RunnerCrashes = o.RestartRegistered, float64(o.RunnerCrashes)
	q.RepeatedStarts, q.LateHeartbeats = float64(o.RepeatedStarts), float64(o.LateHeartbeats)
	q.Clock1970 = o.Clock1970
	q.LostAcks, q.DuplicateAcks = float64(o.LostAcks), float64(o.DuplicateAcks)
	q.SlowAcks, q.SlowAckDelay = float64(o.SlowAcks), o.SlowAckDelay
	q.HeartbeatFirst = float64(o.HeartbeatFirst)
	q.NoHealth, q.NoRunnerState = float64(o.MissingHealth), float64(o.MissingRunnerState)
	q.NaN, q.ForeignIDs = float64(o.NaN), float64(o.ForeignIDs)
	q.Garbage = float64(o.Garbage)
	return q
}

func (o options) tls() (*tls.Config, error) {
	cfg := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: o.InsecureSkipVerify, //nolint:gosec // what the option is for
	}
	if o.CAFile == "" {
		return cfg, nil
	}
	pem, err := os.ReadFile(o.CAFile)
	if err != nil {
		return nil, fmt.Errorf("--ca-file must be a readable file: %w", err)
	}
	cfg.RootCAs = x509.NewCertPool()
	if !cfg.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("--ca-file must hold a PEM certificate: %s has none", o.CAFile)
	}
	return cfg, nil
}

func (o options) token() (string, error) {
	if o.TokenFile == "" {
		return "", nil
	}
	text, err := os.ReadFile(o.TokenFile)
	if err != nil {
		return "", fmt.Errorf("--token-file must be a readable file: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if token == "" {
		return "", errors.New("--token-file must not be empty")
	}
	if strings.ContainsAny(token, "\r\n") {
		return "", errors.New("--token-file must hold one line")
	}
	return token, nil
}

// optionNames maps fields of sim's configuration to options.
var optionNames = map[string]string{
	"VMs":                   "--vms",
	"StartRate":             "--start-rate",
	"DuplicateIDs":          "--duplicate-ids",
	"Controller":            "--controller",
	"Kind":                  "--agent",
	"Timing.Heartbeat":      "--heartbeat-interval",
	"Timing.Register":       "--register-time",
	"Timing.JobEvery":       "--job-every",
	"Timing.JobLength":      "--job-length",
	"Timing.ReplaceAfter":   "--replace-after",
	"Timing.PowerOn":        "--power-on-after",
	"Timing.Backoff":        "--backoff",
	"Quirks.DropEvery":      "--drop-every",
	"Quirks.RestartEvery":   "--restart-every",
	"Quirks.ReopenEvery":    "--reopen-every",
	"Quirks.SlowAckDelay":   "--slow-ack-delay",
	"Quirks.LostAcks":       "--lost-acks",
	"Quirks.SlowAcks":       "--slow-acks",
	"Quirks.DuplicateAcks":  "--duplicate-acks",
	"Quirks.HeartbeatFirst": "--heartbeat-first",
	"Quirks.NoHealth":       "--missing-health",
	"Quirks.NoRunnerState":  "--missing-runner-state",
	"Quirks.NaN":            "--nan",
	"Quirks.ForeignIDs":     "--foreign-ids",
	"Quirks.Garbage":        "--garbage",

	"Quirks.FailedRegistrations":    "--failed-registrations",
	"Quirks.FirstRegistrationsFail": "--first-registrations-fail",
	"Quirks.RestartRegistered":      "--restart-registered",
	"Quirks.RunnerCrashes":          "--runner-crashes",
	"Quirks.RepeatedStarts":         "--repeated-starts",
	"Quirks.LateHeartbeats":         "--late-heartbeats",
}

// nameOption replaces the field's name in the error by the option's.
func nameOption(err error) error {
	if wrong, ok := errors.AsType[*sim.ConfigError](err); ok && optionNames[wrong.Field] != "" {
		return fmt.Errorf("%s %s", optionNames[wrong.Field], wrong.Rule)
	}
	return err
}
