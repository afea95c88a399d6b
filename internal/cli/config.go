package cli

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

const configEnv = "MIGCTL_CONFIG"

// config is the content of the config file.
type config struct {
	Current  string            `yaml:"current_context,omitempty" json:"current_context,omitempty"`
	Contexts map[string]target `yaml:"contexts,omitempty" json:"contexts"`
}

// configPath returns MIGCTL_CONFIG, or migctl/config.yaml in XDG_CONFIG_HOME or ~/.config.
func (p program) configPath() (string, error) {
	if path := p.environ[configEnv]; path != "" {
		return path, nil
	}
	if dir := p.environ["XDG_CONFIG_HOME"]; filepath.IsAbs(dir) {
		return filepath.Join(dir, "migctl", "config.yaml"), nil
	}
	if home := p.environ["HOME"]; home != "" {
		return filepath.Join(home, ".config", "migctl", "config.yaml"), nil
	}
	return "", usage("HOME is not set, so there is no place for the config file: set %s", configEnv)
}

// loadConfig reads the config file. If it does not exist, the config is empty. Contexts is
// never nil unless there is an error.
func (p program) loadConfig() (config, error) {
	path, err := p.configPath()
	if err != nil {
		return config{Contexts: map[string]target{}}, nil //nolint:nilerr // without a home there are no contexts
	}
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return config{Contexts: map[string]target{}}, nil
	}
	if err != nil {
		return config{}, fmt.Errorf("config file: %w", err)
	}
	var c config
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	decoder.KnownFields(true)
	if err := decoder.Decode(&c); err != nil && !errors.Is(err, io.EOF) {
		return config{}, &failure{code: exitUsage, text: fmt.Sprintf("config file %s: %v", path, err)}
	}
	if c.Contexts == nil {
		c.Contexts = map[string]target{}
	}
	for name, t := range c.Contexts {
		c.Contexts[name] = t.absolute(filepath.Dir(path))
	}
	return c, nil
}

// saveConfig replaces the config file atomically.
func (p program) saveConfig(c config) error {
	path, err := p.configPath()
	if err != nil {
		return err
	}
	content, err := yaml.Marshal(c)
	if err != nil {
		return fmt.Errorf("config file: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("config file: %w", err)
	}
	if err := replaceFile(path, content); err != nil {
		return fmt.Errorf("config file: %w", err)
	}
	return nil
}

// replaceFile replaces a file atomically. The new file is readable by its owner only.
func replaceFile(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".config-*")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

func noContext(name string) error {
	return &failure{
		code: exitNotFound, text: fmt.Sprintf("there is no context %q", name),
		hint: "migctl config get-contexts lists the contexts; migctl config set-context creates one.",
	}
}

type configCmd struct {
	GetContexts   getContextsCmd   `cmd:"" help:"List the contexts."`
	UseContext    useContextCmd    `cmd:"" help:"Choose the context to use from now on."`
	SetContext    setContextCmd    `cmd:"" help:"Create or change a context."`
	DeleteContext deleteContextCmd `cmd:"" help:"Delete a context."`
	View          viewConfigCmd    `cmd:"" help:"Show the config file with its tokens masked."`
}

// Help returns the command's help text.
func (configCmd) Help() string {
	return examples(
		"A context is a controller with a name. Contexts are stored in the file that MIGCTL_CONFIG names, by default "+
			"migctl/config.yaml in $XDG_CONFIG_HOME or ~/.config.",
		"migctl config set-context lab --address http://localhost:8080",
		"migctl config use-context lab",
	)
}

type getContextsCmd struct{}

// Run lists the contexts.
func (getContextsCmd) Run(in *invocation) error {
	c, err := in.loadConfig()
	if err != nil {
		return err
	}
	type entry struct {
		Name    string `json:"name"`
		Address string `json:"address"`
		Current bool   `json:"current"`
	}
	entries := []entry{}
	t := table{columns: []column{{title: "CURRENT"}, {title: "NAME"}, {title: "ADDRESS"}}}
	for _, name := range slices.Sorted(maps.Keys(c.Contexts)) {
		address := c.Contexts[name].Address
		mark := ""
		if name == c.Current {
			mark = "*"
		}
		entries = append(entries, entry{name, address, name == c.Current})
		t.add(cell{text: mark, blank: true}, plain(name), plain(address))
	}
	if in.structured() {
		return in.writeValue(entries)
	}
	in.writeTable(t, "There is no context yet. To create one: migctl config set-context NAME --address URL")
	return nil
}

type useContextCmd struct {
	Name string `arg:"" help:"The name of the context."`
}

// Run makes a context the current one.
func (cmd useContextCmd) Run(in *invocation) error {
	c, err := in.loadConfig()
	if err != nil {
		return err
	}
	chosen, known := c.Contexts[cmd.Name]
	if !known {
		return noContext(cmd.Name)
	}
	c.Current = cmd.Name
	if err := in.saveConfig(c); err != nil {
		return err
	}
	fmt.Fprintf(in.stderr, "migctl now uses the context %s at %s.\n", cmd.Name, chosen.Address)
	return nil
}

type setContextCmd struct {
	Name               string  `arg:"" help:"The name of the context."`
	CertFile           *string `placeholder:"FILE" help:"PEM file of the client certificate to present."`
	KeyFile            *string `placeholder:"FILE" help:"PEM file of the client certificate's key."`
	ServerName         *string `placeholder:"NAME" help:"The name that the controller's certificate must have. Default: the host of the address."`
	InsecureSkipVerify *bool   `help:"Accept any certificate. Unsafe: any server that answers is trusted."`
	TokenStdin         bool    `help:"Read a token from stdin and store it in the config file."`
	TokenCommand       *string `placeholder:"COMMAND" help:"Send the token that this shell command prints."`
}

// Help returns the command's help text.
func (setContextCmd) Help() string {
	return examples(
		"Stores --address, --ca-file, --token-file and --plaintext-token as well. In an existing context only what is "+
			"given changes; an empty value, as in --ca-file=, removes a setting. The file that --token-file names is "+
			"read at each call. The command of --token-command runs once for each command of migctl, and again when the "+
			"controller refuses its token, for at most 30 seconds.",
		"migctl config set-context lab --address http://localhost:8080",
		"migctl config set-context lab --token-file token",
	)
}

// Run validates the settings, and creates or changes a context. If there is no current
// context, it becomes the current one.
func (cmd setContextCmd) Run(in *invocation) error {
	c, err := in.loadConfig()
	if err != nil {
		return err
	}
	t, err := cmd.change(in, c.Contexts[cmd.Name])
	if err != nil {
		return err
	}
	c.Contexts[cmd.Name] = t
	if c.Current == "" {
		c.Current = cmd.Name
	}
	if err := in.saveConfig(c); err != nil {
		return err
	}
	fmt.Fprintf(in.stderr, "Saved context %s for %s. The current context is %s.\n", cmd.Name, t.Address, c.Current)
	return nil
}

// change returns t with the changes that the flags make.
func (cmd setContextCmd) change(in *invocation, t target) (target, error) {
	if cmd.Name == "" || printable(cmd.Name) != cmd.Name {
		return t, usage("the name of a context must be printable and not empty")
	}
	if in.Address == "" && t.Address == "" {
		return t, usage("--address is required for a new context")
	}
	var err error
	if t.Address, err = checkAddress("--address", cmp.Or(in.Address, t.Address)); err != nil {
		return t, err
	}
	set := func(field, given *string) {
		if given != nil {
			*field = *given
		}
	}
	set(&t.CAFile, in.CAFile)
	set(&t.CertFile, cmd.CertFile)
	set(&t.KeyFile, cmd.KeyFile)
	set(&t.ServerName, cmd.ServerName)
	if cmd.InsecureSkipVerify != nil {
		t.InsecureSkipVerify = *cmd.InsecureSkipVerify
	}
	if in.TokenFile != nil {
		t = t.withToken("")
		t.TokenFile = *in.TokenFile
	}
	if cmd.TokenCommand != nil {
		t = t.withToken("")
		t.TokenCommand = *cmd.TokenCommand
	}
	if in.PlaintextToken != nil {
		t.PlaintextToken = *in.PlaintextToken
	}
	if cmd.TokenStdin {
		content, err := io.ReadAll(io.LimitReader(in.stdin, tokenLimit+3))
		if err != nil {
			return t, fmt.Errorf("read the token: %w", err)
		}
		t = t.withToken("--token-stdin")
		t.Token = strings.TrimSpace(string(content))
		if t.Token == "" {
			return t, usage("--token-stdin: there is no token on stdin")
		}
	}
	cwd, err := os.Getwd()
	if err != nil {
		return t, fmt.Errorf("config file: %w", err)
	}
	t = t.absolute(cwd)
	return t, in.checkTarget(t)
}

type deleteContextCmd struct {
	Name string `arg:"" help:"The name of the context."`
}

// Run deletes a context. Deleting the current context leaves none selected.
func (cmd deleteContextCmd) Run(in *invocation) error {
	c, err := in.loadConfig()
	if err != nil {
		return err
	}
	if _, known := c.Contexts[cmd.Name]; !known {
		return noContext(cmd.Name)
	}
	delete(c.Contexts, cmd.Name)
	if c.Current == cmd.Name {
		c.Current = ""
	}
	if err := in.saveConfig(c); err != nil {
		return err
	}
	fmt.Fprintf(in.stderr, "Deleted context %s.\n", cmd.Name)
	return nil
}

type viewConfigCmd struct{}

// Run prints the config file as YAML, or as JSON with -o json.
func (viewConfigCmd) Run(in *invocation) error {
	c, err := in.loadConfig()
	if err != nil {
		return err
	}
	for name, t := range c.Contexts {
		if t.Token != "" {
			t.Token = "***"
			c.Contexts[name] = t
		}
	}
	if in.Output != outJSON {
		in.Output = outYAML
	}
	return in.writeValue(c)
}
