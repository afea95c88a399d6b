package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

// completeWord is the hidden first argument with which the completion scripts request
// what may come next. With completeBash the words are as they were typed, and the answers
// are quoted so that bash can replace them.
const (
	completeWord = "__complete"
	completeBash = "__complete-bash"
)

// completionTimeout is how long completion waits for the ids of VMs.
const completionTimeout = 2 * time.Second

var completionScripts = map[string]string{
	"bash": `_migctl() {
  local word
  COMPREPLY=()
  while IFS= read -r word; do COMPREPLY+=("$word"); done < <(migctl __complete-bash "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -o default -F _migctl migctl
`,
	"zsh": `#compdef migctl
_migctl() {
  local -a found
  found=("${(@f)$(migctl __complete "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)}")
  compadd -a found
}
compdef _migctl migctl
`,
	"fish": `function __migctl
  set -l words (commandline -opc)
  set -l last (commandline -ct | string unescape)
  migctl __complete $words[2..-1] "$last" 2>/dev/null
end
complete -c migctl -f -a '(__migctl)'
`,
}

type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"The shell: bash, zsh or fish."`
}

// Help says how to use the script.
func (completionCmd) Help() string {
	return "Completes commands, flags, their values and the ids of VMs. Add one line to the startup file of your shell:\n\n" +
		"\tbash:  source <(migctl completion bash)\n" +
		"\tzsh:   source <(migctl completion zsh)   # after compinit\n" +
		"\tfish:  migctl completion fish | source"
}

// Run prints the script.
func (cmd completionCmd) Run(in *invocation) error {
	_, err := io.WriteString(in.stdout, completionScripts[cmd.Shell])
	return err
}

// complete prints the completions of the last word. It never fails: if it knows none, it
// prints nothing.
func (p program) complete(ctx context.Context, model *kong.Application, how string, words []string) {
	if len(words) == 0 {
		words = []string{""}
	}
	written := func(word string) string { return word }
	if how == completeBash {
		words, written = fromBash(words)
	}
	for _, word := range p.completions(ctx, model, words) {
		fmt.Fprintln(p.stdout, written(word))
	}
}

// completions returns the completions of the last word.
func (p program) completions(ctx context.Context, model *kong.Application, words []string) (fitting []string) {
	last := words[len(words)-1]
	spot := locate(model, words[:len(words)-1])
	lead := ""
	switch name, value, inline := strings.Cut(last, "="); {
	case inline && spot.flag != nil: // bash makes = a word of its own
		last = value
	case inline && strings.HasPrefix(name, "-"):
		lead, last = name+"=", value
		spot.flag = flagOf(spot.node, strings.TrimLeft(name, "-"))
	}
	var found []string
	switch {
	case spot.flag != nil:
		found = p.flagValues(ctx, spot)
	case strings.HasPrefix(last, "-"):
		found = flagNames(spot.node)
	case spot.argument != nil:
		found = p.argumentValues(ctx, spot)
	default:
		for _, child := range spot.node.Children {
			found = append(found, child.Name)
		}
	}
	for _, word := range found {
		if strings.HasPrefix(word, last) && printable(word) == word {
			fitting = append(fitting, lead+word)
		}
	}
	return fitting
}

// place is a position in the grammar: where a line of words leads.
type place struct {
	node *kong.Node
	// flag is the one whose value comes next; nil when none does.
	flag *kong.Flag
	// argument is the positional one that comes next; nil when none does.
	argument *kong.Positional
	// given are the values of flags so far.
	given map[string]string
}

// locate follows the words through the grammar.
func locate(model *kong.Application, words []string) place {
	spot := place{node: model.Node, given: map[string]string{}}
	arguments := 0
	for _, word := range words {
		switch {
		case spot.flag != nil && word == "=":
		case spot.flag != nil:
			spot.given[spot.flag.Name] = word
			spot.flag = nil
		case strings.HasPrefix(word, "-"):
			name, value, inline := strings.Cut(strings.TrimLeft(word, "-"), "=")
			flag := flagOf(spot.node, name)
			switch {
			case flag == nil:
			case inline:
				spot.given[flag.Name] = value
			case !flag.IsBool():
				spot.flag = flag
			}
		default:
			if child := childOf(spot.node, word); child != nil {
				spot.node = child
				continue
			}
			arguments++
		}
	}
	positional := spot.node.Positional
	switch {
	case arguments < len(positional):
		spot.argument = positional[arguments]
	case len(positional) > 0 && positional[len(positional)-1].IsCumulative():
		spot.argument = positional[len(positional)-1]
	}
	return spot
}

func childOf(node *kong.Node, name string) *kong.Node {
	for _, child := range node.Children {
		if child.Name == name {
			return child
		}
	}
	return nil
}

func flagOf(node *kong.Node, name string) *kong.Flag {
	for _, group := range node.AllFlags(false) {
		for _, flag := range group {
			if flag.Name == name || flag.Short != 0 && string(flag.Short) == name {
				return flag
			}
		}
	}
	return nil
}

func flagNames(node *kong.Node) []string {
	var names []string
	for _, group := range node.AllFlags(true) {
		for _, flag := range group {
			names = append(names, "--"+flag.Name)
		}
	}
	return names
}

func (p program) flagValues(ctx context.Context, spot place) []string {
	switch spot.flag.Name {
	case "vm":
		return p.vmIDs(ctx, spot.given)
	case "state":
		return []string{"pending", "delivered", "succeeded", "failed", "timed_out", "expired", "cancelled"}
	case "context":
		return p.contextNames()
	default:
		return enum(spot.flag.Value)
	}
}

func (p program) argumentValues(ctx context.Context, spot place) []string {
	switch {
	case spot.argument.Name == "vm":
		return p.vmIDs(ctx, spot.given)
	case spot.argument.Name == "type":
		return commandTypes
	case spot.argument.Name == "name" && slices.Contains([]string{"use-context", "set-context", "delete-context"}, spot.node.Name):
		return p.contextNames()
	default:
		return enum(spot.argument)
	}
}

func enum(v *kong.Value) []string {
	if v.Enum == "" {
		return nil
	}
	return v.EnumSlice()
}

// vmIDs returns the ids of VMs, from the controller that the words so far specify.
func (p program) vmIDs(ctx context.Context, given map[string]string) []string {
	in := newInvocation(p, globals{
		Address: given["address"], Context: given["context"], Timeout: span(completionTimeout),
	})
	if file, ok := given["ca-file"]; ok {
		in.CAFile = &file
	}
	if file, ok := given["token-file"]; ok {
		in.TokenFile = &file
	}
	if in.dial() != nil {
		return nil
	}
	defer in.close()
	vms, _, err := vmFilter{}.list(ctx, in, pageSize)
	if err != nil {
		return nil
	}
	ids := make([]string, len(vms))
	for i, v := range vms {
		ids[i] = v.GetVmId()
	}
	return ids
}

func (p program) contextNames() []string {
	c, err := p.loadConfig()
	if err != nil {
		return nil
	}
	var names []string
	for name := range c.Contexts {
		names = append(names, name)
	}
	return names
}
