package cli

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

// The output formats.
const (
	outTable = "table"
	outWide  = "wide"
	outJSON  = "json"
	outYAML  = "yaml"
)

// globals are the flags that every command has.
type globals struct {
	Address        string   `placeholder:"URL" help:"The controller's URL. Default: that of --context, MIGCTL_ADDRESS or the current context, in this order; else http://localhost:8080."`
	Context        string   `placeholder:"NAME" help:"Use this context of the config file instead of the current one."`
	CAFile         *string  `name:"ca-file" placeholder:"FILE" help:"Trust the certificates in this PEM file instead of the system's. Default: those of --context, MIGCTL_CA_FILE or the current context, in this order."`
	TokenFile      *string  `placeholder:"FILE" help:"Send the token in this file. Default: that of --context, MIGCTL_TOKEN or the current context, in this order."`
	PlaintextToken *bool    `help:"Send the token even over unencrypted http to other machines."`
	Timeout        duration `default:"10s" placeholder:"TIME" help:"Give up if there is no answer within this time (${default})."`
	Output         string   `short:"o" enum:"table,wide,json,yaml" default:"table" placeholder:"FORMAT" help:"Output format: table, wide, json or yaml (${default})."`
	Color          string   `enum:"auto,always,never" default:"auto" placeholder:"WHEN" help:"Use colours: auto, always or never (${default}). auto uses them on a terminal, unless NO_COLOR is set."`
	NoHeaders      bool     `help:"Leave out the column titles."`
}

// commandLine is the whole grammar.
type commandLine struct {
	globals
	ShowVersion kong.VersionFlag `name:"version" help:"Show the version of migctl."`

	VMs   vmsCmd   `cmd:"" name:"vms" group:"Look" help:"List VMs."`
	VM    vmCmd    `cmd:"" name:"vm" group:"Look" help:"Show one VM."`
	Pools poolsCmd `cmd:"" group:"Look" help:"Count the VMs of each pool by state."`

	Commands   commandsCmd   `cmd:"" group:"Look" help:"List commands, latest first."`
	Command    commandCmd    `cmd:"" group:"Look" help:"Show one command and its outcome."`
	Events     eventsCmd     `cmd:"" group:"Look" help:"List the events that VMs reported, latest first."`
	Heartbeats heartbeatsCmd `cmd:"" group:"Look" help:"List the stored heartbeats of a VM, latest first."`
	Watch      watchCmd      `cmd:"" group:"Look" help:"Show every change in the fleet as it happens."`

	Send      sendCmd      `cmd:"" group:"Act" help:"Send a command to a VM."`
	Broadcast broadcastCmd `cmd:"" group:"Act" help:"Send a command to every VM that matches."`
	Drain     drainCmd     `cmd:"" group:"Act" help:"Drain VMs: make them take no more jobs, and wait for their acks."`
	Cancel    cancelCmd    `cmd:"" group:"Act" help:"Cancel commands."`
	LogLevel  logLevelCmd  `cmd:"" name:"log-level" group:"Act" help:"Show or change the level of the controller's log."`

	WhoAmI whoAmICmd `cmd:"" name:"whoami" group:"Access" help:"Show who you are for the controller, and what you may do."`
	Token  tokenCmd  `cmd:"" group:"Access" help:"Create, list and revoke tokens for operators and tools."`
	Audit  auditCmd  `cmd:"" group:"Access" help:"List who requested which changes, and rejected requests, latest first."`

	Config     configCmd     `cmd:"" group:"migctl itself" help:"Manage contexts: controllers with names."`
	Options    optionsCmd    `cmd:"" group:"migctl itself" help:"Show the flags that every command has."`
	Help       helpCmd       `cmd:"" group:"migctl itself" help:"Show the help of a command."`
	Completion completionCmd `cmd:"" group:"migctl itself" help:"Print the completion script for a shell."`
	Version    versionCmd    `cmd:"" group:"migctl itself" help:"Show the versions of migctl and of the controller."`
}

const helpHead = `migctl inspects and controls a fleet of short-lived CI machines through their
controller.`

const timeNote = "TIME is a duration such as 30s, 15m, 24h or 30d."

const helpFooter = `
` + timeNote + ` Times are shown in UTC.

Exit status:
  0    success
  1    the operation failed: for example, a command that was waited for did not
       end as SUCCEEDED, or part of a broadcast failed
  2    invalid usage, or the controller rejected an argument
  3    not found: what was named does not exist, or no VM matches a broadcast
  4    the controller cannot be reached, or cannot answer now
  5    timed out waiting for a command to end
  6    access denied by the controller or a proxy in front of it: no valid
       credentials, or not the role or the pools that the command needs
  130  interrupted

Start here:
  migctl vms                      list the VMs and their state
  migctl vms --offline            list the VMs that are not connected
  migctl watch                    follow what happens
  migctl drain vm-1               take a VM out of service
`

// helpWidth is the width of help texts: the terminal's, up to 80; 80 if stdout is not a
// terminal.
func (p program) helpWidth() int {
	if width := p.width(); width > 0 {
		return min(width, defaultWidth)
	}
	return defaultWidth
}

func (p program) helpOptions() kong.HelpOptions {
	return kong.HelpOptions{
		Compact: true, NoExpandSubcommands: true, FlagsLast: true, WrapUpperBound: p.helpWidth(),
		ValueFormatter: kong.DefaultHelpValueFormatter,
	}
}

// examples returns the help text of a command: a description, which may be empty, and
// example command lines.
func examples(text string, lines ...string) string {
	return text + "\n\nExamples:\n\n\t" + strings.Join(lines, "\n\t")
}

// grammar returns the options for kong. kong calls exit after printing help or the
// version.
func (p program) grammar(exit func(int)) []kong.Option {
	return []kong.Option{
		kong.Name("migctl"),
		kong.Description(helpHead),
		kong.Writers(p.stdout, p.stderr),
		kong.Exit(exit),
		kong.ConfigureHelp(p.helpOptions()),
		kong.Help(p.help),
		kong.Vars{"version": "migctl " + clientVersion() + " (" + platform + ")"},
		kong.ExplicitGroups([]kong.Group{
			{Key: "Look", Title: "Inspect the fleet:"},
			{Key: "Act", Title: "Control the fleet:"},
			{Key: "Access", Title: "Manage access:"},
			{Key: "migctl itself", Title: "Manage migctl:"},
		}),
	}
}

// help shows the help of a command, without the flags that every command has.
func (p program) help(options kong.HelpOptions, ctx *kong.Context) error {
	for _, flag := range ctx.Model.Flags {
		flag.Hidden = flag.Name != "help"
	}
	if err := kong.DefaultHelpPrinter(options, ctx); err != nil {
		return err
	}
	fmt.Fprintln(ctx.Stdout)
	if node := ctx.Selected(); node != nil && slices.ContainsFunc(node.Flags, func(f *kong.Flag) bool { return f.PlaceHolder == "TIME" }) {
		fmt.Fprintln(ctx.Stdout, timeNote)
	}
	fmt.Fprintln(ctx.Stdout, "migctl options shows the flags that every command has.")
	if ctx.Selected() == nil {
		_, err := io.WriteString(wrapWriter{ctx.Stdout, p.helpWidth}, helpFooter)
		return err
	}
	return nil
}

type optionsCmd struct{}

// Run shows the flags that every command has, and nothing else of the help.
func (optionsCmd) Run(ctx *kong.Context, in *invocation) error {
	whole, err := kong.Trace(ctx.Kong, nil)
	if err != nil {
		return err
	}
	whole.Model.Children = nil
	whole.Model.Help = "Every command has these flags."
	return kong.DefaultHelpPrinter(in.helpOptions(), whole)
}

type helpCmd struct {
	Command []string `arg:"" optional:"" help:"The command."`
}

// Run shows the help of a command, as its flag --help does.
func (c helpCmd) Run(ctx *kong.Context, in *invocation) error {
	about, err := kong.Trace(ctx.Kong, c.Command)
	if err != nil {
		return err
	}
	if about.Error != nil {
		in.node = about.Selected()
		return in.parseFailure(about.Error)
	}
	return in.help(in.helpOptions(), about)
}

// nonEmpty is a flag value that must not be empty: a filter with an unset shell variable
// would match every VM.
type nonEmpty string

// UnmarshalText rejects an empty value.
func (w *nonEmpty) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		return errors.New("must not be empty")
	}
	*w = nonEmpty(text)
	return nil
}

// duration is the value of a duration flag; 0 if the flag is not given.
type duration time.Duration

// UnmarshalText parses a Go duration, optionally preceded by days of 24 hours: 30d, 1d12h.
func (s *duration) UnmarshalText(text []byte) error {
	days, rest, found := strings.Cut(string(text), "d")
	if !found {
		days, rest = "0", days
	}
	n, err := strconv.ParseUint(days, 10, 16)
	d := time.Duration(n) * 24 * time.Hour
	if err == nil && (rest != "" || !found) {
		var more time.Duration
		more, err = time.ParseDuration(rest)
		d += more
	}
	if err != nil || d <= 0 {
		return fmt.Errorf("%q is not a duration such as 30s, 15m, 24h or 30d", text)
	}
	*s = duration(d)
	return nil
}

// formatDuration omits zero units: 30s, 1h30m, 30d.
func formatDuration(d time.Duration) string {
	const day = 24 * time.Hour
	rest := (d % day).String()
	for _, zeroUnit := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(rest, zeroUnit) {
			rest = rest[:len(rest)-2]
		}
	}
	switch {
	case d < day:
		return rest
	case d%day == 0:
		return fmt.Sprintf("%dd", d/day)
	default:
		return fmt.Sprintf("%dd%s", d/day, rest)
	}
}

// timeArg is a point in time: a duration before now, or RFC 3339; empty if the flag is
// not given.
type timeArg string

// at returns the point in time. Errors name the flag.
func (m timeArg) at(flag string, now time.Time) (time.Time, error) {
	if m == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339, string(m)); err == nil {
		return t, nil
	}
	var age duration
	if err := age.UnmarshalText([]byte(m)); err != nil {
		return time.Time{}, usage("--%s: %q must be a duration such as 1h, for an hour ago, or a time such as 2006-01-02T15:04:05Z", flag, string(m))
	}
	return now.Add(-time.Duration(age)), nil
}
