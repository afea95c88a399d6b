package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"go.yaml.in/yaml/v3"
)

const configEnv = "MIGCTL_CONFIG"

// config is the file of contexts.
type config struct {
	Current  string            `yaml:"current-context,omitempty"`
	Contexts map[string]target `yaml:"contexts,omitempty"`
}

// target is one context: a controller that has a name.
type target struct {
	Address string `yaml:"address"`
}

// configPath is MIGCTL_CONFIG, or migctl/config.yaml in XDG_CONFIG_HOME or
// ~/.config.
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
	return "", usage("there is no HOME to find the config file in: set %s", configEnv)
}

// loadConfig reads the file of contexts. One that does not exist is empty.
func (p program) loadConfig() (config, error) {
	path, err := p.configPath()
	if err != nil {
		return config{}, nil //nolint:nilerr // without a home there are no contexts
	}
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return config{}, nil
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
	return c, nil
}

// saveConfig replaces the file of contexts as a whole.
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

// replaceFile leaves the old content or the new, never a part.
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
	return &failure{exitNotFound, fmt.Sprintf("there is no context %q", name), "migctl config get-contexts lists them; set-context makes one."}
}

type configCmd struct {
	GetContexts getContextsCmd `cmd:"" help:"List the contexts."`
	UseContext  useContextCmd  `cmd:"" help:"Choose the context that is used from now on."`
	SetContext  setContextCmd  `cmd:"" help:"Make or change a context: migctl config set-context NAME --address URL."`
}

// Help says what contexts are.
func (configCmd) Help() string {
	return "A context is a controller that has a name. They are kept in the file that\n" +
		"MIGCTL_CONFIG names, else in ~/.config/migctl/config.yaml."
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
	in.writeTable(t, "There is no context yet: migctl config set-context NAME --address URL")
	return nil
}

type useContextCmd struct {
	Name string `arg:"" help:"The context."`
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
	fmt.Fprintf(in.stderr, "migctl now talks to %s at %s.\n", cmd.Name, chosen.Address)
	return nil
}

type setContextCmd struct {
	Name string `arg:"" help:"The context."`
}

// Run makes or changes a context. The first one becomes the current one.
func (cmd setContextCmd) Run(in *invocation) error {
	if in.Address == "" {
		return usage("--address must say where the controller is")
	}
	address, err := checkAddress("--address", in.Address)
	if err != nil {
		return err
	}
	c, err := in.loadConfig()
	if err != nil {
		return err
	}
	if c.Contexts == nil {
		c.Contexts = map[string]target{}
	}
	c.Contexts[cmd.Name] = target{Address: address}
	if c.Current == "" {
		c.Current = cmd.Name
	}
	if err := in.saveConfig(c); err != nil {
		return err
	}
	fmt.Fprintf(in.stderr, "Context %s is %s; the current one is %s.\n", cmd.Name, address, c.Current)
	return nil
}
