package config

import (
	"fmt"
	"strings"

	"github.com/alecthomas/kong"
)

// helpWidth is the maximum width of a line of the help; helpIndent is the column of its texts.
const (
	helpWidth  = 80
	helpIndent = 30
)

const helpHead = `controller commands a fleet of short-lived CI machines: it keeps a stream open
to the agent on each VM, delivers commands, and keeps what the agents report.

Usage: controller [--option=value ...]
       controller token create NAME --role ROLE [--data-dir DIR]
       controller token list | revoke ID

Operators and tools need a token, unless they are on the controller's machine
and no token was ever created. "controller token" works without one for the
controller's user; "controller token --help" says more.

Beside each option are its [default] and its environment variable.
`

const helpFoot = `
A flag takes precedence over the environment, and the environment over the YAML
file that --config names, in which options have their names:

    http-addr: localhost:8080
    retain-events: 90d
    runner-labels: [linux, x64]

A TIME or an AGE is written 30s, 15m, 24h or 30d, a SIZE 500MiB or 2GiB.
`

// HelpText returns the text of --help.
func HelpText() string {
	var b strings.Builder
	b.WriteString(helpHead)
	group := ""
	for _, f := range optionFlags() {
		if f.Group.Key != group {
			group = f.Group.Key
			fmt.Fprintf(&b, "\n%s\n", group)
		}
		writeOption(&b, f)
	}
	b.WriteString(helpFoot)
	return b.String()
}

// OptionTable returns a Markdown table of all options.
func OptionTable() string {
	var b strings.Builder
	b.WriteString("| option | environment | default | meaning |\n|---|---|---|---|\n")
	for _, f := range optionFlags() {
		if !isSettable(f) {
			continue
		}
		def := f.Default
		if def != "" {
			def = "`" + def + "`"
		}
		meaning := strings.ReplaceAll(f.Help, "|", `\|`)
		fmt.Fprintf(&b, "| `%s` | `%s` | %s | %s |\n", flagForm(f), envName(f.Name), def, meaning)
	}
	return b.String()
}

func optionFlags() []*kong.Flag {
	parser, err := newParser(&commandLine{sources: &sources{}})
	if err != nil {
		panic(fmt.Sprintf("the options are invalid: %v", err))
	}
	return parser.Model.Flags
}

// writeOption writes the form and the meaning of the option, and on the last line its default
// and its environment variable.
func writeOption(b *strings.Builder, f *kong.Flag) {
	lines := wrap(f.Help, helpWidth-helpIndent)
	var notes []string
	if f.Default != "" && f.Default != "0" {
		notes = append(notes, "["+f.Default+"]")
	}
	if isSettable(f) {
		notes = append(notes, envName(f.Name))
	}
	if len(notes) > 0 {
		lines = append(lines, strings.Join(notes, " "))
	}
	left := "  " + flagForm(f)
	if f.Short != 0 {
		left = fmt.Sprintf("  -%c, %s", f.Short, flagForm(f))
	}
	for i, line := range lines {
		switch {
		case i > 0:
			left = ""
		case len(left) >= helpIndent:
			fmt.Fprintln(b, left)
			left = ""
		}
		fmt.Fprintf(b, "%-*s%s\n", helpIndent, left, line)
	}
}

// flagForm returns the form of the option as a flag.
func flagForm(f *kong.Flag) string {
	switch {
	case !f.IsBool():
		return "--" + f.Name + "=" + f.PlaceHolder
	case f.Tag.Negatable != "":
		return "--[no-]" + f.Name
	default:
		return "--" + f.Name
	}
}

func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines, line = append(lines, line), ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}
