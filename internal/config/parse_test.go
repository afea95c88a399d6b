package config

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/journal"
)

// trial is test data of an option: two valid texts, and some invalid ones.
type trial struct {
	read func(Options) any
	// texts are two values; want are the values they are parsed to.
	texts [2]string
	want  [2]any
	wrong map[string]string // text → part of the rule
}

func durations(read func(Options) any, wrong map[string]string) trial {
	all := map[string]string{"soon": durationRule, "1x": durationRule, "d": durationRule, "1.5d": durationRule, "-1h": "must be"}
	maps.Copy(all, wrong)
	return trial{read, [2]string{"90m", "2d12h"}, [2]any{90 * time.Minute, 60 * time.Hour}, all}
}

func texts(read func(Options) any, a, b string, wrong map[string]string) trial {
	return trial{read, [2]string{a, b}, [2]any{a, b}, wrong}
}

func switches(read func(Options) any) trial {
	return trial{read, [2]string{"true", "false"}, [2]any{true, false}, map[string]string{"perhaps": switchRule, "2": switchRule}}
}

const badAddress = "must be HOST:PORT with a port from 0 to 65535"

// trials has every option that can be set except --config.
func trials() map[string]trial {
	address := map[string]string{
		"8080": badAddress, "localhost": badAddress, "localhost:http": badAddress, "localhost:65536": badAddress,
		"localhost:-1": badAddress, "::1:80": badAddress, "a b:80": badAddress, "http://localhost:80": badAddress,
	}
	age := map[string]string{"-1h": retentionRule}
	limit := map[string]string{"0": "must be more than 0 and at most", "31d": "must be more than 0 and at most"}
	url := map[string]string{"example.com/org": "must be an http", "ftp://a/b": "must be an http", "https://u:p@a/b": "without user", "https:///x": "must be an http"}
	return map[string]trial{
		"http-addr":               texts(func(o Options) any { return o.HTTPAddr }, "localhost:1", "[::1]:0", address),
		"grpc-addr":               texts(func(o Options) any { return o.GRPCAddr }, "localhost:1", ":65535", address),
		"insecure-operators":      switches(func(o Options) any { return o.InsecureOperators }),
		"agent-auth":              texts(func(o Options) any { return o.AgentAuth }, "off", "strict", map[string]string{"warn": "must be strict or off"}),
		"tls-cert":                texts(func(o Options) any { return o.TLSCert }, "a", "b", nil),
		"tls-key":                 texts(func(o Options) any { return o.TLSKey }, "a", "b", nil),
		"operator-client-ca":      texts(func(o Options) any { return o.OperatorClientCA }, "a", "b", nil),
		"drain-delay":             {func(o Options) any { return o.DrainDelay }, [2]string{"2m", "1m30s"}, [2]any{2 * time.Minute, 90 * time.Second}, map[string]string{"soon": durationRule, "-1s": "must be from 0 to 5m", "6m": "must be from 0 to 5m"}},
		"data-dir":                texts(func(o Options) any { return o.DataDir }, "a", "/b c", nil),
		"database-url":            texts(func(o Options) any { return o.DatabaseURL }, "a.db", "file:b.db", map[string]string{"postgres://u:p@h/d": "only SQLite is supported in this version", "mysql://h": "must be a path"}),
		"journal":                 switches(func(o Options) any { return o.Journal }),
		"retain-events":           durations(func(o Options) any { return o.RetainEvents }, age),
		"retain-heartbeats":       durations(func(o Options) any { return o.RetainHeartbeats }, age),
		"retain-commands":         durations(func(o Options) any { return o.RetainCommands }, age),
		"retain-vms":              durations(func(o Options) any { return o.RetainVMs }, age),
		"retain-changes":          durations(func(o Options) any { return o.RetainChanges }, age),
		"retain-audit":            durations(func(o Options) any { return o.RetainAudit }, age),
		"retain-files":            durations(func(o Options) any { return o.RetainFiles }, age),
		"min-free-space":          {func(o Options) any { return o.MinFreeSpace }, [2]string{"auto", "2GiB"}, [2]any{Size(-1), Size(2 << 30)}, map[string]string{"-1": sizeRule, "5": sizeRule, "1.5GiB": sizeRule, "GiB": sizeRule, "9TiBs": sizeRule, "9999999999TiB": sizeRule, "much": sizeRule}},
		"report-rate":             {func(o Options) any { return o.ReportRate }, [2]string{"0", "1MiB"}, [2]any{Size(0), Size(1 << 20)}, map[string]string{"auto": reportRateRule, "15KiB": reportRateRule, "2GiB": reportRateRule, "64": sizeRule, "fast": sizeRule}},
		"runner-url":              texts(func(o Options) any { return o.RunnerURL }, "https://a/b", "http://c/d", url),
		"runner-group":            texts(func(o Options) any { return o.RunnerGroup }, "a b", "ü", map[string]string{"a\tb": "printable"}),
		"runner-labels":           {func(o Options) any { return o.RunnerLabels }, [2]string{"a", "b, c d"}, [2]any{[]string{"a"}, []string{"b", "c d"}}, map[string]string{"a,,b": "printable text, with no comma", "a,": "printable text, with no comma", strings.Repeat("a,", 100) + "a": "at most 100"}},
		"allow-origins":           {func(o Options) any { return o.AllowOrigins }, [2]string{"https://a.example", "http://b:1,https://c"}, [2]any{[]string{"https://a.example"}, []string{"http://b:1", "https://c"}}, map[string]string{"*": originRule, "https://*.example": originRule, "null": originRule, "https://a/": originRule, "a.example": originRule, "ftp://a": originRule, "https://A.example": originRule, "https://u@a": originRule}},
		"allowed-hosts":           {func(o Options) any { return o.AllowedHosts }, [2]string{"ci.example.com", "a,B_1., 192.0.2.7,2001:db8::1"}, [2]any{[]string{"ci.example.com"}, []string{"a", "B_1.", "192.0.2.7", "2001:db8::1"}}, map[string]string{"*": hostRule, "a:80": hostRule, "http://a": hostRule, "a,": hostRule, "a b": hostRule, "a..b": hostRule, "[::1]": hostRule, "192.0.2.7:80": hostRule, "*.a": hostRule}},
		"proxies":                 {func(o Options) any { return o.Proxies }, [2]string{"127.0.0.1", "10.0.0.0/8, ::1,2001:db8::/32"}, [2]any{[]string{"127.0.0.1"}, []string{"10.0.0.0/8", "::1", "2001:db8::/32"}}, map[string]string{"localhost": prefixRule, "10.0.0.0/33": prefixRule, "10.0.0.1:80": prefixRule, "10.0.0.1,": prefixRule, "fe80::1%eth0": prefixRule, "::ffff:10.0.0.0/104": prefixRule}},
		"metrics-addr":            texts(func(o Options) any { return o.MetricsAddr }, "localhost:9464", ":0", address),
		"metrics-pools":           {func(o Options) any { return o.MetricsPools }, [2]string{"0", "1000"}, [2]any{0, 1000}, map[string]string{"-1": "from 0 to 1000", "1001": "from 0 to 1000", "many": "must be a whole number"}},
		"registration-token":      texts(func(o Options) any { return o.RegistrationToken.Reveal() }, "a", "b", map[string]string{"hush\tup": "must be without white space"}),
		"registration-token-file": texts(func(o Options) any { return o.RegistrationTokenFile }, "a", "b", nil),
		"token-in-vm-started":     switches(func(o Options) any { return o.TokenInVMStarted }),
		"command-ttl":             durations(func(o Options) any { return o.CommandTTL }, limit),
		"ack-timeout":             {func(o Options) any { return o.AckTimeout }, [2]string{"1m", "1d"}, [2]any{time.Minute, 24 * time.Hour}, map[string]string{"0s": "must be more than 0 and at most 24h", "25h": "must be more than 0 and at most 24h", "x": durationRule}},
		"registration-timeout":    {func(o Options) any { return o.RegistrationTimeout }, [2]string{"10m", "1d"}, [2]any{10 * time.Minute, 24 * time.Hour}, map[string]string{"0s": "must be more than 0 and at most 24h", "25h": "must be more than 0 and at most 24h", "x": durationRule}},
		"max-deliveries":          {func(o Options) any { return o.MaxDeliveries }, [2]string{"1", "100"}, [2]any{1, 100}, map[string]string{"0": "from 1 to 100", "101": "from 1 to 100", "many": "must be a whole number"}},
		"log-level":               texts(func(o Options) any { return o.LogLevel }, "debug", "error", map[string]string{"loud": "must be debug, info, warn or error", "INFO": "must be debug"}),
		"log-format":              {func(o Options) any { return o.LogFormat }, [2]string{"json", "text"}, [2]any{"json", "text"}, map[string]string{"xml": "must be text or json"}},
		"simulate":                {func(o Options) any { return o.Simulate }, [2]string{"3", "1000"}, [2]any{3, 1000}, map[string]string{"many": "must be a whole number", "-1": "from 0 to 1000", "1001": "from 0 to 1000", "1.5": "whole number"}},
	}
}

// layer is a place where options can be set.
type layer struct {
	name string
	// set returns arguments and environment that set the option to text, and its origin.
	set func(t *testing.T, option, text string) (args, environ []string, origin string)
}

var layers = []layer{
	{"file", func(t *testing.T, option, text string) ([]string, []string, string) {
		t.Helper()
		file := writeConfig(t, option+": "+yamlForm(option, text)+"\n")
		return []string{"--config=" + file}, nil, file + ", line 1"
	}},
	{"environment", func(_ *testing.T, option, text string) ([]string, []string, string) {
		name := "CONTROLLER_" + strings.ToUpper(strings.ReplaceAll(option, "-", "_"))
		return nil, []string{name + "=" + text}, "the environment variable " + name
	}},
	{"flag", func(_ *testing.T, option, text string) ([]string, []string, string) {
		return []string{"--" + option + "=" + text}, nil, "the command line"
	}},
}

func writeConfig(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "controller.yaml")
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	return file
}

// yamlForm returns text in YAML, quoted if it must be a string.
func yamlForm(option, text string) string {
	switch option {
	case "insecure-operators", "journal", "simulate", "max-deliveries", "metrics-pools", "token-in-vm-started":
		return text
	}
	return fmt.Sprintf("%q", text)
}

// There is a trial for every option.
func TestTrialsAreComplete(t *testing.T) {
	t.Parallel()
	known := trials()
	for _, f := range optionFlags() {
		if isSettable(f) && f.Name != configOption {
			require.Contains(t, known, f.Name)
			delete(known, f.Name)
		}
	}
	require.Empty(t, known)
}

// A flag takes precedence over the environment, the environment over the file, and the file
// over the default: for every option and every pair, in both orders.
func TestPrecedence(t *testing.T) {
	t.Parallel()
	for option, tr := range trials() {
		t.Run(option, func(t *testing.T) {
			t.Parallel()
			require.NotEqual(t, tr.want[0], tr.want[1], "the values of a trial differ")
			for high := range layers {
				for i := range tr.texts {
					args, environ, origin := layers[high].set(t, option, tr.texts[i])
					o, err := Parse(args, environ)
					require.NoError(t, err)
					require.Equal(t, tr.want[i], tr.read(o), "default against %s", layers[high].name)
					require.Equal(t, origin, o.origins[option])
					for low := range high {
						lowArgs, lowEnviron, _ := layers[low].set(t, option, tr.texts[1-i])
						o, err := Parse(append(lowArgs, args...), append(lowEnviron, environ...))
						require.NoError(t, err)
						require.Equal(t, tr.want[i], tr.read(o), "%s against %s", layers[low].name, layers[high].name)
						require.Equal(t, origin, o.origins[option])
					}
				}
			}
		})
	}
}

// The error for an invalid value from any place names option, rule and origin.
func TestWrongValues(t *testing.T) {
	t.Parallel()
	for option, tr := range trials() {
		for text, rule := range tr.wrong {
			for _, l := range layers {
				args, environ, origin := l.set(t, option, text)
				_, err := Parse(args, environ)
				require.ErrorAs(t, err, new(*OptionError), "%s %s %q", l.name, option, text)
				require.Regexp(t, "^--"+option+" ", err)
				require.ErrorContains(t, err, rule)
				require.ErrorContains(t, err, "(from "+origin+")")
				require.NotContains(t, err.Error(), "hush")
				require.NotContains(t, err.Error(), "\n")
			}
		}
	}
}

// The error for an unknown option or argument says what is wrong.
func TestWrongCommandLines(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"--nonsense":                       "unknown flag --nonsense",
		"--nonsense=hush":                  "unknown flag --nonsense",
		"--registration-tokens=hush":       "unknown flag --registration-tokens",
		"-x":                               "unknown flag -x",
		"serve":                            "unexpected argument serve",
		"--registration-token a hush":      "unexpected argument",
		"--registration-token=a -- hush":   "unexpected argument",
		"--registration-token -hush":       "--registration-token needs a value",
		"--registration-token":             "--registration-token needs a value",
		"--http-addr --insecure-operators": "--http-addr needs a value",
		"--http-addr=":                     "--http-addr " + badAddress,
		"--data-dir=":                      "--data-dir must name a directory",
		"--no-journal=perhaps":             "--no-journal must be true or false",
		"--no-insecure-operators":          "unknown flag --no-insecure-operators",
		"--registration-token=hush --registration-token-file=f": "--registration-token must not be given with --registration-token-file",
	} {
		_, err := Parse(strings.Fields(line), nil)
		require.ErrorContains(t, err, want, line)
		require.True(t, strings.HasPrefix(err.Error(), want), err)
		require.NotContains(t, err.Error(), "hush", line)
	}
}

// The defaults are the documented ones.
func TestDefaults(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	o := Defaults()
	o.origins = nil
	require.Equal(t, Options{
		HTTPAddr: "localhost:8080", GRPCAddr: "localhost:50051", AgentAuth: "strict", MetricsPools: 50, DataDir: "./controller_data", Journal: true,
		RetainEvents: 30 * day, RetainHeartbeats: time.Hour, RetainCommands: 30 * day, RetainVMs: 30 * day,
		RetainChanges: 6 * time.Hour, RetainAudit: 400 * day, RetainFiles: day, MinFreeSpace: journal.AutoMinFree, ReportRate: 64 << 10, CommandTTL: time.Hour, AckTimeout: 30 * time.Second, RegistrationTimeout: 5 * time.Minute, MaxDeliveries: 5,
		LogLevel: "info", LogFormat: "text",
	}, o)
}

// Switches need no value, and 0 is a valid retention.
func TestForms(t *testing.T) {
	t.Parallel()
	o, err := Parse([]string{
		"--no-journal", "--insecure-operators", "--retain-events=0", "--retain-files", "1d", "--runner-labels=a,b", "--runner-labels", "c",
	}, []string{"CONTROLLER_JOURNAL=true", "CONTROLLER_DATA_DIR=", "PATH=/bin"})
	require.NoError(t, err)
	require.False(t, o.Journal)
	require.True(t, o.InsecureOperators)
	require.Zero(t, o.RetainEvents)
	require.Equal(t, 24*time.Hour, o.RetainFiles)
	require.Equal(t, []string{"a", "b", "c"}, o.RunnerLabels)
	require.Equal(t, "./controller_data", o.DataDir, "an empty variable is not set")
}

// --config itself can be a flag or a variable; the flag takes precedence.
func TestConfigPrecedence(t *testing.T) {
	t.Parallel()
	one, two := writeConfig(t, "data-dir: one"), writeConfig(t, "data-dir: two")
	o, err := Parse(nil, []string{"CONTROLLER_CONFIG=" + one})
	require.NoError(t, err)
	require.Equal(t, "one", o.DataDir)
	require.Equal(t, one, o.Config)
	o, err = Parse([]string{"--config", two}, []string{"CONTROLLER_CONFIG=" + one})
	require.NoError(t, err)
	require.Equal(t, "two", o.DataDir)
}

// The two options for a token exclude each other in all places, and the error names both
// places.
func TestTokenTwice(t *testing.T) {
	t.Parallel()
	file := writeConfig(t, "registration-token-file: /token")
	_, err := Parse([]string{"--config=" + file}, []string{"CONTROLLER_REGISTRATION_TOKEN=hush"})
	require.EqualError(t, err, "--registration-token must not be given with --registration-token-file, which is from "+
		file+", line 1 (from the environment variable CONTROLLER_REGISTRATION_TOKEN)")
}

// Unknown variables with the prefix of options are reported, except those of Kubernetes.
func TestUnknownVariables(t *testing.T) {
	t.Parallel()
	o, err := Parse(nil, []string{
		"CONTROLLER_HTPP_ADDR=x", "CONTROLLER_VERSION=1", "CONTROLLER_HELP=me", "CONTROLLER_SERVICE_HOST=10.0.0.1",
		"CONTROLLER_PORT_8080_TCP=tcp://10.0.0.1:8080", "CONTROLLER_PORT=tcp://x", "CONTROLLER_LOG_LEVEL=warn", "HOME=/",
	})
	require.NoError(t, err)
	require.Equal(t, []string{"CONTROLLER_HTPP_ADDR", "CONTROLLER_VERSION", "CONTROLLER_HELP"}, o.UnknownVariables())
}

// No form of printing options reveals the token.
func TestTokenIsNeverPrinted(t *testing.T) {
	t.Parallel()
	o, err := Parse([]string{"--registration-token=hush"}, nil)
	require.NoError(t, err)
	require.Equal(t, "hush", o.RegistrationToken.Reveal())
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		text := fmt.Sprintf(verb, o) + fmt.Sprintf(verb, o.RegistrationToken) + fmt.Sprintf(verb, &o)
		require.NotContains(t, text, "hush", verb)
		require.NotContains(t, text, fmt.Sprintf("%x", "hush"), verb)
	}
	require.Equal(t, hidden, o.RegistrationToken.String())
}

// A duration may begin with days, and does not overflow.
func TestParseDuration(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"0": 0, "0d": 0, "30s": 30 * time.Second, "1h30m": 90 * time.Minute, "30d": 720 * time.Hour, "1d1ms": 24*time.Hour + time.Millisecond,
	} {
		d, err := parseDuration(text)
		require.NoError(t, err, text)
		require.Equal(t, want, d, text)
	}
	for _, text := range []string{"", "30", "d", "-1d", "1d1", "1d1d", "99999999d", "d1h", "1D", "9999999h"} {
		_, err := parseDuration(text)
		require.Error(t, err, text)
	}
}
