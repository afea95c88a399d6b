package config

import (
	"fmt"
	"strings"
	"time"
)

// The groups of options in the help.
const (
	groupAddresses = "Addresses"
	groupAccess    = "Access"
	groupHelp      = "Help"
)

// Options are the options of a controller. Values that Parse does not return must start from
// Defaults.
type Options struct {
	HTTPAddr string `name:"http-addr" group:"Addresses" default:"localhost:8080" placeholder:"HOST:PORT" help:"Address for people, tools and agents that use HTTP. Port 0 selects a free port; without a host it listens on all interfaces."`
	GRPCAddr string `name:"grpc-addr" group:"Addresses" default:"localhost:50051" placeholder:"HOST:PORT" help:"Address for agents that use gRPC. Both addresses serve everything and may be the same."`
	// TLSCert and TLSKey are given both or not at all.
	TLSCert string `name:"tls-cert" group:"Addresses" placeholder:"FILE" help:"PEM file with the certificate, followed by those of its issuers. Both addresses then serve TLS only; without it both are plaintext. The file is read again when it changes."`
	TLSKey  string `name:"tls-key" group:"Addresses" placeholder:"FILE" help:"PEM file with the key of that certificate."`
	// OperatorClientCA needs TLSCert and Operators.Certificates.
	OperatorClientCA string `name:"operator-client-ca" group:"Addresses" placeholder:"FILE" help:"PEM file with the CAs of operators' client certificates. The section operators.certificates of the configuration file has the roles. Needs --tls-cert. The file is read again when it changes."`
	// AllowOrigins each have a scheme, a host and optionally a port.
	AllowOrigins []string `name:"allow-origins" group:"Addresses" placeholder:"ORIGIN,..." help:"Web origins whose pages may call the controller from a browser, such as https://ci.example.com, separated by commas."`
	// AllowedHosts are names and addresses without port.
	AllowedHosts []string `name:"allowed-hosts" group:"Addresses" placeholder:"HOST,..." help:"Host names and IP addresses, without port, that HTTP/1.1 requests to a loopback address may have in the Host header, in addition to localhost and the hosts of the addresses above and of --metrics-addr. Needed for a proxy on this machine that forwards Host. Separated by commas."`
	// Proxies are IP addresses and prefixes.
	Proxies []string `name:"proxies" group:"Addresses" placeholder:"ADDRESS,..." help:"IP addresses and ranges, such as 10.1.2.3 or 10.1.0.0/16, of proxies that share a connection among many agents: they may open 1000 streams on a connection, other peers 100. Separated by commas."`
	// DrainDelay is at most maxDrainDelay.
	DrainDelay time.Duration `name:"drain-delay" group:"Addresses" default:"0s" placeholder:"TIME" help:"Time between a signal to stop and the stop: /ready returns 503 at once, and everything else is served for this time, so that load balancers stop sending new connections before streams end. 0 stops at once; at most 5m."`

	MetricsAddr  string `name:"metrics-addr" group:"Addresses" placeholder:"HOST:PORT" help:"Address for /metrics alone, such as localhost:9464; both other addresses then do not serve it. Without a host it is localhost."`
	MetricsPools int    `name:"metrics-pools" group:"Addresses" default:"50" placeholder:"N" help:"Number of pools that have their own values in metrics, which are the first that are seen; the others are counted together as other. At most 1000."`

	// InsecureOperators is never needed on loopback, where operators need no credentials until
	// authentication is configured.
	InsecureOperators bool `name:"insecure-operators" group:"Access" help:"Let operators and tools without credentials do everything: anyone who can reach the addresses can command the fleet."`
	// AgentAuth is AgentAuthStrict or AgentAuthOff.
	AgentAuth string `name:"agent-auth" group:"Access" default:"strict" placeholder:"MODE" help:"Authentication of agents: strict or off. This version cannot authenticate agents, so strict allows only loopback addresses; with off, anyone who can reach an address can pose as a VM and get a registration token."`

	DataDir          string        `name:"data-dir" group:"Data" default:"./controller_data" placeholder:"DIR" help:"Directory for the database and the JSON files of each VM. Only one controller at a time can use it."`
	DatabaseURL      string        `name:"database-url" group:"Data" placeholder:"URL" help:"SQLite file to use instead of the one in the data directory: a path, file:PATH or sqlite:///PATH."`
	Journal          bool          `name:"journal" group:"Data" default:"true" negatable:"" help:"Also write events and heartbeats as JSON files, in a directory for each VM."`
	RetainEvents     time.Duration `name:"retain-events" group:"Data" default:"30d" placeholder:"AGE" help:"How long events are kept; 0 is forever."`
	RetainHeartbeats time.Duration `name:"retain-heartbeats" group:"Data" default:"1h" placeholder:"AGE" help:"How long heartbeats are kept; 0 is forever."`
	RetainCommands   time.Duration `name:"retain-commands" group:"Data" default:"30d" placeholder:"AGE" help:"How long commands are kept after they have ended; 0 is forever."`
	RetainVMs        time.Duration `name:"retain-vms" group:"Data" default:"30d" placeholder:"AGE" help:"How long a VM is kept after it was last seen; 0 is forever."`
	RetainChanges    time.Duration `name:"retain-changes" group:"Data" default:"6h" placeholder:"AGE" help:"How long changes are kept, which limits how far back a watch can resume; 0 is forever."`
	RetainAudit      time.Duration `name:"retain-audit" group:"Data" default:"400d" placeholder:"AGE" help:"How long audit events are kept; 0 is forever."`
	RetainFiles      time.Duration `name:"retain-files" group:"Data" default:"24h" placeholder:"AGE" help:"How long JSON files are kept; 0 is forever."`
	MinFreeSpace     Size          `name:"min-free-space" group:"Data" default:"auto" placeholder:"SIZE" help:"Free space below which no JSON files are written, such as 2GiB, so that the database has the rest. 0 is no limit, and auto is 1GiB, or a twentieth of the file system if that is less."`

	ReportRate Size `name:"report-rate" group:"Data" default:"64KiB" placeholder:"SIZE" help:"How much a VM may report per second on average, with bursts of 64 times that; beyond it, its agent has to wait. From 16KiB to 1GiB; 0 is no limit."`

	RunnerURL    string   `name:"runner-url" group:"Runners" placeholder:"URL" help:"URL of the organisation or repository that runners register with."`
	RunnerGroup  string   `name:"runner-group" group:"Runners" placeholder:"NAME" help:"Runner group that runners join."`
	RunnerLabels []string `name:"runner-labels" group:"Runners" placeholder:"LABEL,..." help:"Labels of the runners, separated by commas."`
	// RegistrationToken and RegistrationTokenFile exclude each other.
	RegistrationToken     Secret `name:"registration-token" group:"Runners" placeholder:"TOKEN" help:"Token that runners register with. Prefer the environment or a file, because flags are visible in the list of processes."`
	RegistrationTokenFile string `name:"registration-token-file" group:"Runners" placeholder:"FILE" help:"File with the token, in place of --registration-token. It is read each time a token is needed."`

	TokenInVMStarted bool `name:"token-in-vm-started" group:"Runners" help:"Include the token in the response to vm_started, for agents of 2025-11, which exit without it. Every sender of vm_started then gets a token."`

	CommandTTL time.Duration `name:"command-ttl" group:"Commands" default:"1h" placeholder:"TIME" help:"Default time that a command may wait for its delivery; at most 30d."`
	AckTimeout time.Duration `name:"ack-timeout" group:"Commands" default:"30s" placeholder:"TIME" help:"Default time that an agent has to acknowledge a command; at most 24h."`

	RegistrationTimeout time.Duration `name:"registration-timeout" group:"Commands" default:"5m" placeholder:"TIME" help:"Time that a runner has to register after its agent has acknowledged register_runner. After that the registration has failed and is retried. At most 24h."`

	MaxDeliveries int `name:"max-deliveries" group:"Commands" default:"5" placeholder:"N" help:"Default maximum number of deliveries of a command, after which it ends as TIMED_OUT; 1 to 100."`

	LogLevel  string `name:"log-level" group:"Log" default:"info" placeholder:"LEVEL" help:"Lowest level that is logged: debug, info, warn or error."`
	LogFormat string `name:"log-format" group:"Log" default:"text" placeholder:"FORMAT" help:"Format of the log on stderr: text or json."`

	Simulate int `name:"simulate" group:"Simulation" default:"0" placeholder:"N" help:"Run N simulated VMs in this process, at most 1000. The first executes every command; the others behave like today's agents and are replaced after one job; the fourth fails its first registration, the fifth restarts. If default ports are taken, free ones are used."`

	Config string `name:"config" group:"Configuration file" placeholder:"FILE" help:"YAML file with options by name."`

	// Operators is a section of the configuration file.
	Operators Operators `kong:"-"`

	// origins has the origin of each option that was set.
	origins map[string]string
	unknown []string
}

// Defaults returns the defaults of all options.
func Defaults() Options {
	o, err := Parse(nil, nil)
	if err != nil {
		panic(fmt.Sprintf("the defaults are invalid: %v", err))
	}
	return o
}

// OptionError names the option, the rule that it violates, and where it was set.
type OptionError struct {
	// Option is the option's name.
	Option string
	// Rule is what the option must be. It does not contain the value, which may be a secret.
	Rule string
	// Origin is where the option was set; empty when that is not known.
	Origin string
}

// Error implements error.
func (e *OptionError) Error() string {
	text := "--" + e.Option + " " + e.Rule
	if e.Origin != "" {
		text += " (from " + e.Origin + ")"
	}
	return text
}

// UnknownVariables returns the names of environment variables with the prefix of options that
// are not options: usually misspelt ones.
func (o Options) UnknownVariables() []string { return o.unknown }

func (o Options) invalid(option, rule string, args ...any) error {
	return &OptionError{Option: option, Rule: fmt.Sprintf(rule, args...), Origin: o.origins[option]}
}

// envName returns the environment variable of an option.
func envName(option string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(option, "-", "_"))
}

// Secret is a text that formats, marshals and logs as a placeholder.
type Secret string

const hidden = "(hidden)"

// Reveal returns the secret itself.
func (s Secret) Reveal() string { return string(s) }

// String returns the placeholder.
func (s Secret) String() string { return hidden }

// Format writes the placeholder, whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(hidden)) }

// MarshalText returns the placeholder.
func (s Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }
