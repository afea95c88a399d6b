package config

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A configuration file may have every kind of value, in its natural YAML form.
func TestConfigFile(t *testing.T) {
	t.Parallel()
	file := writeConfig(t, `# the controller
http-addr: localhost:1
journal: false
simulate: 7
retain-events: 0
retain-vms: 90d
runner-labels: [linux, "x64"]
runner-group: "123"
registration-token: &t hush
data-dir: *t
`)
	o, err := Parse([]string{"--config", file}, nil)
	require.NoError(t, err)
	require.Equal(t, "localhost:1", o.HTTPAddr)
	require.False(t, o.Journal)
	require.Equal(t, 7, o.Simulate)
	require.Zero(t, o.RetainEvents)
	require.Equal(t, 90*24*time.Hour, o.RetainVMs)
	require.Equal(t, []string{"linux", "x64"}, o.RunnerLabels)
	require.Equal(t, "123", o.RunnerGroup)
	require.Equal(t, "hush", o.RegistrationToken.Reveal())
	require.Equal(t, "hush", o.DataDir)
	require.Equal(t, file+", line 5", o.origins["retain-events"])
}

// An empty file sets nothing.
func TestEmptyConfigFile(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "# nothing\n", "---\n", "{}\n", "null\n"} {
		_, err := Parse([]string{"--config", writeConfig(t, text)}, nil)
		require.NoError(t, err, text)
	}
}

// All of a file must be valid: an error names the line, even if a flag overrides the value,
// and does not contain the value.
func TestWrongConfigFiles(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"\nnonsense: hush":                              `there is no option "nonsense" (from FILE, line 2)`,
		"http_addr: localhost:1":                        `there is no option "http_addr"; did you mean "http-addr"? (from FILE, line 1)`,
		"--http-addr: localhost:1":                      `there is no option "--http-addr"; did you mean "http-addr"? (from FILE, line 1)`,
		"help: true":                                    `there is no option "help" (from FILE, line 1)`,
		"version: true":                                 `there is no option "version" (from FILE, line 1)`,
		"config: other.yaml":                            "--config must be a flag or in the environment: a file cannot name another file (from FILE, line 1)",
		"data-dir: a\ndata-dir: b":                      "--data-dir must be set once in a file (from FILE, line 2)",
		"http-addr: 8080":                               "--http-addr must be a text: put it in quotes (from FILE, line 1)",
		"http-addr:":                                    "--http-addr must be a text: put it in quotes (from FILE, line 1)",
		"http-addr: [hush]":                             "--http-addr must be a text: put it in quotes (from FILE, line 1)",
		"registration-token: 5417":                      "--registration-token must be a text: put it in quotes (from FILE, line 1)",
		"registration-token: {hush: hush}":              "--registration-token must be a text: put it in quotes (from FILE, line 1)",
		"journal: maybe":                                "--journal must be true or false (from FILE, line 1)",
		"journal: 1":                                    "--journal must be true or false (from FILE, line 1)",
		`journal: "true"`:                               "--journal must be true or false (from FILE, line 1)",
		"simulate: \"3\"":                               "--simulate must be a whole number (from FILE, line 1)",
		"simulate: 1.5":                                 "--simulate must be a whole number (from FILE, line 1)",
		"retain-events: 30":                             "--retain-events " + durationRule + " (from FILE, line 1)",
		"retain-events: [1d]":                           "--retain-events " + durationRule + " (from FILE, line 1)",
		"runner-labels: 5":                              "--runner-labels must be a list of texts, or one text with commas (from FILE, line 1)",
		"runner-labels: [a, 5]":                         "--runner-labels must be a list of texts, or one text with commas (from FILE, line 1)",
		"runner-labels: [[a]]":                          "--runner-labels must be a list of texts, or one text with commas (from FILE, line 1)",
		"data-dir: &a x\nregistration-token: {*a : *a}": "--registration-token must be a text: put it in quotes (from FILE, line 2)",
		"hush":                          "--config must name a file with lines of the form option: value, not FILE (from the command line)",
		"- a":                           "--config must name a file with lines of the form option: value, not FILE (from the command line)",
		"data-dir: a\n---\ndata-dir: b": "--config must name a file with one YAML document, not FILE (from the command line)",
		"registration-token: *hush":     "--config must name a file of YAML: FILE uses an alias without its anchor; quote values that begin with * (from the command line)",
	} {
		file := writeConfig(t, text)
		_, err := Parse([]string{"--config", file, "--http-addr=localhost:1", "--journal"}, nil)
		require.EqualError(t, err, strings.ReplaceAll(want, "FILE", file), text)
	}
	for _, text := range []string{"data-dir: [a", "data-dir: 'a", "\tdata-dir: a", "data-dir: a: b", "\x00", "a: @b"} {
		file := writeConfig(t, text)
		_, err := Parse(nil, []string{"CONTROLLER_CONFIG=" + file})
		require.ErrorContains(t, err, "--config must name a file of YAML: "+file, text)
		require.ErrorContains(t, err, "(from the environment variable CONTROLLER_CONFIG)")
	}
}

// The error for a missing file has the origin of its name.
func TestMissingConfigFile(t *testing.T) {
	t.Parallel()
	missing := filepath.Join(t.TempDir(), "missing.yaml")
	_, err := Parse([]string{"--config=" + missing}, nil)
	require.ErrorContains(t, err, "--config must name a file that can be read: open "+missing)
	require.ErrorContains(t, err, "(from the command line)")
	_, err = Parse(nil, []string{"CONTROLLER_CONFIG=" + filepath.Dir(missing)})
	require.ErrorContains(t, err, "(from the environment variable CONTROLLER_CONFIG)")
}

// A database is a file, in any of the documented forms.
func TestDatabasePath(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"":                       "data/_state/controller.db",
		"fleet.db":               "fleet.db",
		"/var/lib/fleet.db":      "/var/lib/fleet.db",
		"./a:b/fleet.db":         "./a:b/fleet.db",
		"file:fleet.db":          "fleet.db",
		"file:/var/lib/fleet.db": "/var/lib/fleet.db",
		"file:///var/lib/a.db":   "/var/lib/a.db",
		"sqlite:///var/lib/a.db": "/var/lib/a.db",
		"sqlite:///a%20b.db":     "/a b.db",
		"sqlite:a.db":            "a.db",
	} {
		got, err := Options{DataDir: "data", DatabaseURL: url}.DatabasePath()
		require.NoError(t, err, url)
		require.Equal(t, want, got, url)
	}
	for url, rule := range map[string]string{
		"postgres://u:hush@h/d":   "only SQLite is supported in this version",
		"postgresql://u:hush@h/d": "only SQLite is supported in this version",
		"mysql://u:hush@h/d":      "must be a path, file:PATH or sqlite:///PATH",
		"sqlite://fleet.db":       "three slashes",
		"sqlite:":                 "must be a path",
		"sqlite:///":              "must be a path",
		"sqlite:///%zz":           "must be a path",
		"file:a.db?mode=memory":   "must not have parameters",
		":memory:":                "must name a file",
		"file::memory:":           "must name a file",
	} {
		_, err := Options{DatabaseURL: url}.DatabasePath()
		require.ErrorContains(t, err, "--database-url must", url)
		require.ErrorContains(t, err, rule, url)
		require.NotContains(t, err.Error(), "hush")
	}
}
