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

// The forms of output.
const (
	outTable = "table"
	outWide  = "wide"
	outJSON  = "json"
	outYAML  = "yaml"
)

// globals are the flags that every command has.
type globals struct {
	Address        string  `placeholder:"URL" help:"Where the controller is. Without it: --context, then MIGCTL_ADDRESS, then the current context, then http://localhost:8080."`
	Context        string  `placeholder:"NAME" help:"Use this context of the config file."`
	CAFile         *string `name:"ca-file" placeholder:"FILE" help:"Trust the certificates in this PEM file, in place of the system's. Without it: those of --context, then MIGCTL_CA_FILE, then those of the current context."`
	TokenFile      *string `placeholder:"FILE" help:"Send the token in this file. Without it: that of --context, then MIGCTL_TOKEN, then that of the current context."`
	PlaintextToken *bool   `help:"Send the token over http to other machines too."`
	Timeout        span    `default:"10s" placeholder:"TIME" help:"Give up on an answer after this time (${default})."`
	Output         string  `short:"o" enum:"table,wide,json,yaml" default:"table" placeholder:"FORM" help:"table, wide, json or yaml (${default})."`
	Color          string  `enum:"auto,always,never" default:"auto" placeholder:"WHEN" help:"auto, always or never (${default}): auto is on a terminal, unless NO_COLOR is set."`
	NoHeaders      bool    `help:"Leave out the titles of columns."`
}

// commandLine is the whole grammar.
type commandLine struct {
	globals
	ShowVersion kong.VersionFlag `name:"version" help:"Show the version of migctl."`

	VMs   vmsCmd   `cmd:"" name:"vms" group:"Look" help:"List VMs."`
	VM    vmCmd    `cmd:"" name:"vm" group:"Look" help:"Show one VM."`
	Pools poolsCmd `cmd:"" group:"Look" help:"Count the VMs of each pool."`

	Commands   commandsCmd   `cmd:"" group:"Look" help:"List commands, the latest first."`
	Command    commandCmd    `cmd:"" group:"Look" help:"Show one command and what became of it."`
	Events     eventsCmd     `cmd:"" group:"Look" help:"List what VMs reported, the latest first."`
	Heartbeats heartbeatsCmd `cmd:"" group:"Look" help:"List the heartbeats of a VM that are kept, the latest first."`
	Watch      watchCmd      `cmd:"" group:"Look" help:"Show every change of the fleet as it happens."`

	Send      sendCmd      `cmd:"" group:"Act" help:"Send a command to a VM."`
	Broadcast broadcastCmd `cmd:"" group:"Act" help:"Send a command to every VM that fits."`
	Drain     drainCmd     `cmd:"" group:"Act" help:"Send drain to VMs, so that they take no more jobs, and wait for their acks."`
	Cancel    cancelCmd    `cmd:"" group:"Act" help:"Take commands back."`

	Config     configCmd     `cmd:"" group:"migctl itself" help:"Name controllers, and choose among them."`
	Options    optionsCmd    `cmd:"" group:"migctl itself" help:"Show the flags that every command has."`
	Help       helpCmd       `cmd:"" group:"migctl itself" help:"Show the help of a command."`
	Completion completionCmd `cmd:"" group:"migctl itself" help:"Print the completion script of a shell."`
	Version    versionCmd    `cmd:"" group:"migctl itself" help:"Show the versions of migctl and of the controller."`
}

const helpHead = `migctl shows and commands a fleet of short-lived CI machines, by way of their
controller.`

const helpFoot = `
A TIME is written 30s, 15m, 24h or 30d. All times shown are UTC.

Exit status:
  0    done
  1    the operation did not work: a command that was waited for ended otherwise
       than SUCCEEDED, or a part of a broadcast failed
  2    wrong usage, or an argument that the controller refused
  3    what was named does not exist, or no VM fits a broadcast
  4    the controller cannot be reached, or cannot answer now
  5    the wait is over, and a command has not ended
  6    the controller, or what stands before it, does not let you in
  130  interrupted

Start here:
  migctl vms                      what there is, and how it is
  migctl vms --offline            what is gone
  migctl watch                    what is going on
  migctl drain vm-1               take a VM out of service
`

// helpWidth is how many columns help takes: those of the terminal, 80 at most, and 80 in
// a pipe.
func (p program) helpWidth() int {
	if width := p.width(); width > 0 {
		return min(width, usualWidth)
	}
	return usualWidth
}

func (p program) helpOptions() kong.HelpOptions {
	return kong.HelpOptions{
		Compact: true, NoExpandSubcommands: true, FlagsLast: true, WrapUpperBound: p.helpWidth(),
		ValueFormatter: kong.DefaultHelpValueFormatter,
	}
}

// grammar says how kong treats the command line; exit is called after a help.
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
			{Key: "Look", Title: "See how things are:"},
			{Key: "Act", Title: "Change something:"},
			{Key: "migctl itself", Title: "About migctl itself:"},
		}),
	}
}

// help shows the flags of a command, without those that every command has.
func (p program) help(options kong.HelpOptions, ctx *kong.Context) error {
	for _, flag := range ctx.Model.Flags {
		flag.Hidden = flag.Name != "help"
	}
	if err := kong.DefaultHelpPrinter(options, ctx); err != nil {
		return err
	}
	fmt.Fprint(ctx.Stdout, "\nmigctl options shows the flags that every command has.\n")
	if ctx.Selected() == nil {
		_, err := io.WriteString(wrapping{ctx.Stdout, p.helpWidth}, helpFoot)
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

// helpCmd is for the list of commands and completion: migctl help COMMAND is taken as
// migctl COMMAND --help.
type helpCmd struct {
	Command []string `arg:"" optional:"" help:"The command."`
}

// withHelp returns the arguments with a leading help as a trailing --help.
func withHelp(args []string) []string {
	if len(args) == 0 || args[0] == "help" {
		return append(slices.Clone(args[min(1, len(args)):]), "--help")
	}
	return args
}

// word is a text that, once its flag is given, is not empty: a filter whose shell
// variable is not set would let every VM through.
type word string

// UnmarshalText reads a word.
func (w *word) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		return errors.New("must not be empty")
	}
	*w = word(text)
	return nil
}

// span is a length of time; 0 when it was not given.
type span time.Duration

// UnmarshalText reads a span as Go writes durations, with days of 24 hours before the
// rest: 30d, or 1d12h.
func (s *span) UnmarshalText(text []byte) error {
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
		return fmt.Errorf("%q is not a time: write 30s, 15m, 24h or 30d", text)
	}
	*s = span(d)
	return nil
}

// written writes a length of time as people do: 30s, 1h30m, 30d.
func written(d time.Duration) string {
	const day = 24 * time.Hour
	rest := (d % day).String()
	for _, nought := range []string{"m0s", "h0m"} { // but the unit before it
		if strings.HasSuffix(rest, nought) {
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

// moment is a point in time as typed: how long ago, or RFC 3339; empty when it
// was not given.
type moment string

// at returns the point in time that the flag of this name means.
func (m moment) at(flag string, now time.Time) (time.Time, error) {
	if m == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339, string(m)); err == nil {
		return t, nil
	}
	var ago span
	if err := ago.UnmarshalText([]byte(m)); err != nil {
		return time.Time{}, usage("--%s: %q is no point in time: write 1h for an hour ago, or 2006-01-02T15:04:05Z", flag, string(m))
	}
	return now.Add(-time.Duration(ago)), nil
}
