package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
)

// completeWord is the hidden first argument with which the completion scripts request
// completions. With completeBash, the words are still quoted as typed, and completions
// are quoted for bash.
const (
	completeWord = "__complete"
	completeBash = "__complete-bash"
)

// completionTimeout limits the request for VM ids or tokens.
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

// Help returns the command's help text.
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

// complete prints the completions of the last word. On an error it prints nothing.
func (p program) complete(ctx context.Context, model *kong.Application, mode string, words []string) {
	if len(words) == 0 {
		words = []string{""}
	}
	quote := func(word string) string { return word }
	if mode == completeBash {
		words, quote = fromBash(words)
	}
	for _, word := range p.completions(ctx, model, words) {
		fmt.Fprintln(p.stdout, quote(word))
	}
}

// completions returns the completions of the last word.
func (p program) completions(ctx context.Context, model *kong.Application, words []string) (matches []string) {
	last := words[len(words)-1]
	pos := locate(model, words[:len(words)-1])
	prefix := ""
	switch name, value, inline := strings.Cut(last, "="); {
	case inline && pos.flag != nil: // bash splits at =
		last = value
	case inline && strings.HasPrefix(name, "-"):
		prefix, last = name+"=", value
		pos.flag = flagOf(pos.node, strings.TrimLeft(name, "-"))
	}
	var candidates []string
	switch {
	case pos.flag != nil:
		candidates = p.flagValues(ctx, pos)
	case strings.HasPrefix(last, "-"):
		candidates = flagNames(pos.node)
	case pos.argument != nil:
		candidates = p.argumentValues(ctx, pos)
	default:
		for _, child := range pos.node.Children {
			candidates = append(candidates, child.Name)
		}
	}
	for _, word := range candidates {
		if strings.HasPrefix(word, last) && printable(word) == word {
			matches = append(matches, prefix+word)
		}
	}
	return matches
}

// position is the place in the grammar at which the next word is parsed.
type position struct {
	node *kong.Node
	// flag is the flag that expects a value next, or nil.
	flag *kong.Flag
	// argument is the positional argument that is expected next, or nil.
	argument *kong.Positional
	// given maps the flags so far to their values.
	given map[string]string
}

// locate returns the position after the words.
func locate(model *kong.Application, words []string) position {
	pos := position{node: model.Node, given: map[string]string{}}
	arguments := 0
	for _, word := range words {
		switch {
		case pos.flag != nil && word == "=":
		case pos.flag != nil:
			pos.given[pos.flag.Name] = word
			pos.flag = nil
		case strings.HasPrefix(word, "-"):
			name, value, inline := strings.Cut(strings.TrimLeft(word, "-"), "=")
			flag := flagOf(pos.node, name)
			switch {
			case flag == nil:
			case inline:
				pos.given[flag.Name] = value
			case !flag.IsBool():
				pos.flag = flag
			}
		default:
			if child := childOf(pos.node, word); child != nil {
				pos.node = child
				continue
			}
			arguments++
		}
	}
	positional := pos.node.Positional
	switch {
	case arguments < len(positional):
		pos.argument = positional[arguments]
	case len(positional) > 0 && positional[len(positional)-1].IsCumulative():
		pos.argument = positional[len(positional)-1]
	}
	return pos
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

func (p program) flagValues(ctx context.Context, pos position) []string {
	switch pos.flag.Name {
	case "vm":
		return p.vmIDs(ctx, pos.given)
	case "state":
		return []string{"pending", "delivered", "succeeded", "failed", "timed_out", "expired", "cancelled"}
	case "action":
		return actions()
	case "context":
		return p.contextNames()
	default:
		return enum(pos.flag.Value)
	}
}

func (p program) argumentValues(ctx context.Context, pos position) []string {
	switch {
	case pos.argument.Name == "vm":
		return p.vmIDs(ctx, pos.given)
	case pos.argument.Name == "type":
		return commandTypes
	case pos.argument.Name == "token":
		return p.tokenIDs(ctx, pos.given)
	case pos.argument.Name == "level":
		return logLevels
	case pos.argument.Name == "name" && slices.Contains([]string{"use-context", "set-context", "delete-context"}, pos.node.Name):
		return p.contextNames()
	default:
		return enum(pos.argument)
	}
}

func enum(v *kong.Value) []string {
	if v.Enum == "" {
		return nil
	}
	return v.EnumSlice()
}

// vmIDs returns the VM ids of the controller that the given flags select.
func (p program) vmIDs(ctx context.Context, given map[string]string) []string {
	ctx, cancel := context.WithTimeout(ctx, completionTimeout)
	defer cancel()
	in := p.completing(given)
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

// tokenIDs returns the ids of the tokens that can be revoked.
func (p program) tokenIDs(ctx context.Context, given map[string]string) []string {
	ctx, cancel := context.WithTimeout(ctx, completionTimeout)
	defer cancel()
	in := p.completing(given)
	if in.dial() != nil {
		return nil
	}
	defer in.close()
	res, err := callRPC(ctx, in, 0, in.access.ListTokens, &migcontrollerv1.ListTokensRequest{PageSize: pageSize})
	if err != nil {
		return nil
	}
	ids := make([]string, len(res.GetTokens()))
	for i, t := range res.GetTokens() {
		ids[i] = t.GetId()
	}
	return ids
}

// completing returns an invocation with the given flags.
func (p program) completing(given map[string]string) *invocation {
	in := newInvocation(p, globals{
		Address: given["address"], Context: given["context"], Timeout: duration(completionTimeout),
	})
	if file, ok := given["ca-file"]; ok {
		in.CAFile = &file
	}
	if file, ok := given["token-file"]; ok {
		in.TokenFile = &file
	}
	return in
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
