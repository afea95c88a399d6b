package app

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/config"
)

// A configuration with which runners cannot register is logged at the start, once. The token
// and its expiry are never logged.
func TestRunnerWarnings(t *testing.T) {
	t.Parallel()
	const (
		sampleToken = "WARN  agents receive a sample registration token"
		sampleURL   = "WARN  agents receive a registration token with a sample URL, where no runner can register: set --runner-url\n"
		noToken     = "WARN  the token file contains no valid registration token  token_file="
		inAnswer    = "WARN  --token-in-vm-started: everyone who can reach these addresses can get a registration token by reporting vm_started\n"
		old         = "WARN  the token file is old: its registration token has expired, unless it is valid for longer than an hour  token_file="
	)
	dir := t.TempDir()
	fresh, stale, missing := filepath.Join(dir, "fresh"), filepath.Join(dir, "stale"), filepath.Join(dir, "missing")
	longAgo := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
	for _, file := range []string{fresh, stale} {
		require.NoError(t, os.WriteFile(file, []byte("hush"), 0o600))
	}
	require.NoError(t, os.Chtimes(stale, longAgo, longAgo))
	for name, test := range map[string]struct {
		set  func(*config.Options)
		want []string
	}{
		"no token":            {func(*config.Options) {}, []string{sampleToken}},
		"a token, no URL":     {func(o *config.Options) { o.RegistrationToken = "hush" }, []string{sampleURL}},
		"a file, no URL":      {func(o *config.Options) { o.RegistrationTokenFile = fresh }, []string{sampleURL}},
		"a file and a URL":    {func(o *config.Options) { o.RegistrationTokenFile, o.RunnerURL = fresh, "https://ci.example/o" }, nil},
		"an old file":         {func(o *config.Options) { o.RegistrationTokenFile, o.RunnerURL = stale, "https://ci.example/o" }, []string{old + stale}},
		"an old file, no URL": {func(o *config.Options) { o.RegistrationTokenFile = stale }, []string{sampleURL, old + stale}},
		"a token in answers":  {func(o *config.Options) { o.RegistrationToken, o.TokenInVMStarted = "hush", true }, []string{sampleURL, inAnswer}},
		"no file": {
			func(o *config.Options) { o.RegistrationTokenFile = missing },
			[]string{sampleURL, noToken + missing + ` reason="no such file or directory"`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := testOptions(t)
			test.set(&o)
			var out, logged output
			a, err := newApp(t.Context(), o, newLogger(o, &logged), &out, defaultWiring())
			require.NoError(t, err)
			stop := startApp(t, a)
			require.Eventually(t, func() bool {
				for _, want := range test.want {
					if strings.Count(logged.String(), want) != 1 {
						return false
					}
				}
				return true
			}, time.Minute, time.Millisecond, "%s", test.want)
			require.NoError(t, stop())
			require.Equal(t, len(test.want), strings.Count(logged.String(), "WARN "), logged.String())
			require.NotContains(t, out.String()+logged.String(), "hush")
			require.NotContains(t, out.String()+logged.String(), "2001-02-03T05:05")
		})
	}
}
