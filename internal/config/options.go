package config

import (
	"fmt"
	"strings"
	"time"
)

// The groups of options, as the help shows them.
const (
	groupAddresses = "Addresses"
	groupHelp      = "Help"
)

// Options is everything that can be set. A value of its own making starts from
// Defaults.
type Options struct {
	HTTPAddr string `name:"http-addr" group:"Addresses" default:"localhost:8080" placeholder:"HOST:PORT" help:"Where people, tools and agents that use HTTP find the controller. Port 0 takes any free port; no host means all interfaces."`
	GRPCAddr string `name:"grpc-addr" group:"Addresses" default:"localhost:50051" placeholder:"HOST:PORT" help:"Where agents expect gRPC. Both addresses serve everything and may be the same."`
	Insecure bool   `name:"insecure" group:"Addresses" help:"Serve addresses that other machines can reach, although callers are not authenticated: anyone who can reach them can command the fleet."`
	// TLSCert and TLSKey are given both or not at all.
	TLSCert string `name:"tls-cert" group:"Addresses" placeholder:"FILE" help:"Serve both addresses with TLS, with the certificate in this PEM file, where those of its issuers follow it. The file is read again when it changes. Without it both addresses are plaintext."`
	TLSKey  string `name:"tls-key" group:"Addresses" placeholder:"FILE" help:"PEM file of that certificate's key."`
	// AllowOrigins are scheme, host and perhaps port.
	AllowOrigins []string `name:"allow-origins" group:"Addresses" placeholder:"ORIGIN,..." help:"Web origins, such as https://ci.example.com, whose pages may call the controller from a browser, separated by commas."`
	// AllowedHosts are names and addresses without port.
	AllowedHosts []string `name:"allowed-hosts" group:"Addresses" placeholder:"HOST,..." help:"Names and IP addresses, without port, by which HTTP/1.1 requests may call a loopback address, besides localhost and those of the two addresses: what a proxy on this machine passes on as Host. Separated by commas."`
	// Proxies are IP addresses and prefixes.
	Proxies []string `name:"proxies" group:"Addresses" placeholder:"ADDRESS,..." help:"IP addresses and ranges, such as 10.1.2.3 or 10.1.0.0/16, of proxies that carry many agents on one connection: each may have 1000 streams on it, others 100. Separated by commas."`

	DataDir          string        `name:"data-dir" group:"Data" default:"./controller_data" placeholder:"DIR" help:"Directory of the database and of the JSON files of each VM. One controller at a time uses it."`
	DatabaseURL      string        `name:"database-url" group:"Data" placeholder:"URL" help:"SQLite file to use instead of the one in the data directory: a path, file:PATH or sqlite:///PATH."`
	Journal          bool          `name:"journal" group:"Data" default:"true" negatable:"" help:"Also write events and heartbeats as JSON files, a directory for each VM."`
	RetainEvents     time.Duration `name:"retain-events" group:"Data" default:"30d" placeholder:"AGE" help:"How long events are kept; 0 is forever."`
	RetainHeartbeats time.Duration `name:"retain-heartbeats" group:"Data" default:"1h" placeholder:"AGE" help:"How long heartbeats are kept; 0 is forever."`
	RetainCommands   time.Duration `name:"retain-commands" group:"Data" default:"30d" placeholder:"AGE" help:"How long commands are kept once they have ended; 0 is forever."`
	RetainVMs        time.Duration `name:"retain-vms" group:"Data" default:"30d" placeholder:"AGE" help:"How long a VM that is gone is remembered; 0 is forever."`
	RetainChanges    time.Duration `name:"retain-changes" group:"Data" default:"6h" placeholder:"AGE" help:"How far back a watch of the fleet can resume; 0 is forever."`
	RetainFiles      time.Duration `name:"retain-files" group:"Data" default:"24h" placeholder:"AGE" help:"How long JSON files are kept; 0 is forever."`
	MinFreeSpace     Size          `name:"min-free-space" group:"Data" default:"auto" placeholder:"SIZE" help:"How much space must be free for JSON files to be written, such as 2GiB; with less, there is the database alone. 0 is no limit, and auto is 1GiB, or a twentieth of the file system if that is less."`

	ReportRate Size `name:"report-rate" group:"Data" default:"64KiB" placeholder:"SIZE" help:"How much a VM may report in a second in the long run, and 64 times that at once: beyond it, its agent has to wait. From 16KiB to 1GiB; 0 is no limit."`

	RunnerURL    string   `name:"runner-url" group:"Runners" placeholder:"URL" help:"The organisation or repository that runners register with."`
	RunnerGroup  string   `name:"runner-group" group:"Runners" placeholder:"NAME" help:"Runner group that runners join."`
	RunnerLabels []string `name:"runner-labels" group:"Runners" placeholder:"LABEL,..." help:"Labels that runners get, separated by commas."`
	// RegistrationToken and RegistrationTokenFile exclude each other.
	RegistrationToken     Secret `name:"registration-token" group:"Runners" placeholder:"TOKEN" help:"Token that runners register with. Prefer the environment or a file: flags are visible in the list of processes."`
	RegistrationTokenFile string `name:"registration-token-file" group:"Runners" placeholder:"FILE" help:"File that holds the token; instead of --registration-token."`

	TokenInVMStarted bool `name:"token-in-vm-started" group:"Runners" help:"Put the token into the answer to vm_started, for agents of 2025-11, which exit without it: every sender of vm_started then gets a token."`

	CommandTTL time.Duration `name:"command-ttl" group:"Commands" default:"1h" placeholder:"TIME" help:"How long a command waits to be delivered when its sender does not say; at most 30d."`
	AckTimeout time.Duration `name:"ack-timeout" group:"Commands" default:"30s" placeholder:"TIME" help:"How long an agent has to acknowledge a command when its sender does not say; at most 24h."`

	RegistrationTimeout time.Duration `name:"registration-timeout" group:"Commands" default:"5m" placeholder:"TIME" help:"How long a runner may take to register once its agent has acknowledged register_runner; after that the registration has failed, and is tried again. At most 24h."`

	MaxDeliveries int `name:"max-deliveries" group:"Commands" default:"5" placeholder:"N" help:"How many times a command is delivered at most, when its sender does not say: after the last it ends as TIMED_OUT; 1 to 100."`

	LogLevel  string `name:"log-level" group:"Log" default:"info" placeholder:"LEVEL" help:"Least level that is logged: debug, info, warn or error."`
	LogFormat string `name:"log-format" group:"Log" default:"text" placeholder:"FORMAT" help:"Form of the log, which goes to stderr: text or json."`

	Simulate int `name:"simulate" group:"Trying it out" default:"0" placeholder:"N" help:"Run N simulated agents in this process, at most 1000: the first obeys every command, the rest behave as today's agents do, one job and the VM is replaced; the fourth fails its first registration, the fifth restarts. Default ports that are taken are then replaced by free ones."`

	Config string `name:"config" group:"Configuration file" placeholder:"FILE" help:"YAML file that sets options by their names."`

	// origins has the place where each option was set that is set.
	origins map[string]string
	unread  []string
}

// Defaults returns the options of a controller for which nothing is set.
func Defaults() Options {
	o, err := Parse(nil, nil)
	if err != nil {
		panic(fmt.Sprintf("the defaults break a rule: %v", err))
	}
	return o
}

// OptionError names the option, the rule that it violates, and where it was set.
type OptionError struct {
	// Option is the option's name.
	Option string
	// Rule is what the option must be, without the value it had: the value may
	// be a secret.
	Rule string
	// Origin is where the option was set; empty when that is not known.
	Origin string
}

// Error names option, rule and origin.
func (e *OptionError) Error() string {
	text := "--" + e.Option + " " + e.Rule
	if e.Origin != "" {
		text += " (from " + e.Origin + ")"
	}
	return text
}

// Unread returns the names of the environment variables that look like options and are
// not: mistyped ones, mostly.
func (o Options) Unread() []string { return o.unread }

func (o Options) invalid(option, rule string, args ...any) error {
	return &OptionError{Option: option, Rule: fmt.Sprintf(rule, args...), Origin: o.origins[option]}
}

// envName is the environment variable of an option.
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
