package registration_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/registration"
)

// fakeSource returns its fields.
type fakeSource struct {
	token string
	err   error
}

func (s fakeSource) Token(context.Context) (string, time.Time, error) {
	return s.token, start.Add(time.Minute), s.err
}

func (fakeSource) String() string { return "a fake source" }

func registrar(t *testing.T, o registration.Options) *registration.Registrar {
	t.Helper()
	if o.Source == nil {
		o.Source = fakeSource{token: secret}
	}
	r, err := registration.New(o)
	require.NoError(t, err)
	return r
}

var configured = registration.Options{
	URL: "https://ci.example/org", Group: "builders", Labels: []string{"self-hosted", "big disk"},
}

// A runner gets the configured values, or those that its agent asks for instead.
func TestRunner(t *testing.T) {
	t.Parallel()
	r := registrar(t, configured)
	got, err := r.Runner(t.Context(), "", nil)
	require.NoError(t, err)
	want := registration.Runner{
		Token: secret, ExpiresAt: start.Add(time.Minute),
		URL: configured.URL, Group: configured.Group, Labels: configured.Labels,
	}
	require.Equal(t, want, got)

	got, err = r.Runner(t.Context(), "testers", []string{"arm64"})
	require.NoError(t, err)
	want.Group, want.Labels = "testers", []string{"arm64"}
	require.Equal(t, want, got)
}

// Without configuration a runner gets values that are obviously samples.
func TestRunnerWithoutConfiguration(t *testing.T) {
	t.Parallel()
	got, err := registrar(t, registration.Options{}).Runner(t.Context(), "", nil)
	require.NoError(t, err)
	require.Equal(t, "https://github.com/example/repository", got.URL)
	require.Equal(t, "default", got.Group)
	require.Equal(t, []string{"self-hosted"}, got.Labels)
}

// Callers do not share label slices.
func TestRunnersDoNotShareTheirLabels(t *testing.T) {
	t.Parallel()
	labels := []string{"a", "b"}
	r := registrar(t, registration.Options{Labels: labels})
	labels[0] = "changed by the caller of New"
	for range 2 {
		got, err := r.Runner(t.Context(), "", nil)
		require.NoError(t, err)
		require.Equal(t, []string{"a", "b"}, got.Labels)
		got.Labels[0] = "changed by the caller of Runner"
		p, _, err := r.Fill(t.Context(), fleet.Command{Type: fleet.RegisterRunner})
		require.NoError(t, err)
		require.Equal(t, []string{"a", "b"}, p.List)
		p.List[0] = "changed by the caller of Fill"
	}
}

// What an agent requests is validated, and the error names the field as the agent wrote it
// without repeating its value.
func TestRunnerChecksWhatIsAskedFor(t *testing.T) {
	t.Parallel()
	r := registrar(t, configured)
	for _, c := range []struct {
		field, group string
		labels       []string
	}{
		{"runner_group", "a\nb", nil},
		{"runner_group", strings.Repeat("x", 257), nil},
		{"labels", "", []string{"good", ""}},
		{"labels", "", []string{"a,b"}},
		{"labels", "", make([]string, 101)},
	} {
		got, err := r.Runner(t.Context(), c.group, c.labels)
		requireField(t, c.field, err)
		require.Empty(t, got)
	}
}

// However a source fails, the error is that no token is available.
func TestNoToken(t *testing.T) {
	t.Parallel()
	refused := errors.New("refused")
	for name, c := range map[string]struct {
		source fakeSource
		cause  error
	}{
		"an error":           {fakeSource{err: refused}, refused},
		"a token and error":  {fakeSource{token: secret, err: refused}, refused},
		"cancelled":          {fakeSource{err: context.Canceled}, context.Canceled},
		"nothing":            {fakeSource{}, fleet.ErrNoToken},
		"a token of no kind": {fakeSource{token: secret + "\n"}, fleet.ErrNoToken},
	} {
		r := registrar(t, registration.Options{Source: c.source})
		got, err := r.Runner(t.Context(), "", nil)
		require.ErrorIs(t, err, fleet.ErrNoToken, name)
		require.ErrorIs(t, err, c.cause, name)
		require.NotContains(t, err.Error(), secret)
		require.Empty(t, got)
		p, expiresAt, err := r.Fill(t.Context(), fleet.Command{Type: fleet.RegisterRunner})
		require.ErrorIs(t, err, fleet.ErrNoToken, name)
		require.Empty(t, p)
		require.Zero(t, expiresAt)
	}
}

// The agent gets the token with the sender's values and, where the sender gave none, the
// configured ones.
func TestFill(t *testing.T) {
	t.Parallel()
	r := registrar(t, configured)
	for name, c := range map[string]struct{ given, want fleet.Params }{
		"nothing given": {fleet.Params{}, fleet.Params{
			Strings: map[string]string{
				"registration_token": secret, "runner_url": configured.URL, "runner_group": "builders",
			},
			List: configured.Labels,
		}},
		"all given": {
			fleet.Params{
				Strings: map[string]string{"runner_url": "https://other.example/x", "runner_group": "g", "more": "m"},
				Ints:    map[string]int64{"i": 1}, Bools: map[string]bool{"b": true}, List: []string{"l"},
			},
			fleet.Params{
				Strings: map[string]string{
					"registration_token": secret, "runner_url": "https://other.example/x", "runner_group": "g", "more": "m",
				},
				Ints: map[string]int64{"i": 1}, Bools: map[string]bool{"b": true}, List: []string{"l"},
			},
		},
		"empty and stale": {
			fleet.Params{Strings: map[string]string{"registration_token": "stale", "runner_url": "", "runner_group": "g"}},
			fleet.Params{
				Strings: map[string]string{
					"registration_token": secret, "runner_url": configured.URL, "runner_group": "g",
				},
				List: configured.Labels,
			},
		},
	} {
		p, expiresAt, err := r.Fill(t.Context(), fleet.Command{Type: fleet.RegisterRunner, Params: c.given})
		require.NoError(t, err, name)
		require.Equal(t, c.want, p, name)
		require.Equal(t, start.Add(time.Minute), expiresAt, name)
	}
}

// The command, which is stored, never contains the token, whatever is done to the agent's
// copy.
func TestFillLeavesTheCommandAlone(t *testing.T) {
	t.Parallel()
	c := fleet.Command{Type: fleet.RegisterRunner, Params: fleet.Params{
		Strings: map[string]string{"more": "m"}, Ints: map[string]int64{"i": 1},
		Bools: map[string]bool{"b": true}, List: []string{"l"},
	}}
	before, err := json.Marshal(c)
	require.NoError(t, err)
	p, _, err := registrar(t, configured).Fill(t.Context(), c)
	require.NoError(t, err)
	p.Strings["more"], p.Ints["i"], p.Bools["b"], p.List[0] = "changed", 2, false, "changed"
	after, err := json.Marshal(c)
	require.NoError(t, err)
	require.Equal(t, string(before), string(after))
	require.NotContains(t, string(after), secret)
}

// Other types of commands neither get a token nor request one.
func TestFillGivesNoOtherCommandAToken(t *testing.T) {
	t.Parallel()
	r := registrar(t, registration.Options{Source: fakeSource{err: errors.New("asked for a token")}})
	given := fleet.Params{Strings: map[string]string{"level": "debug"}}
	p, expiresAt, err := r.Fill(t.Context(), fleet.Command{Type: "set_log_level", Params: given})
	require.NoError(t, err)
	require.Zero(t, expiresAt)
	require.Equal(t, given, p)
	p.Strings["level"] = "changed"
	require.Equal(t, "debug", given.Strings["level"])
}

// Invalid options are named as on the command line; a password in the URL is not repeated.
func TestNewNamesTheBadOption(t *testing.T) {
	t.Parallel()
	for _, u := range []string{
		"github.com/org", "/org", "ftp://ci.example/org", "https://ci.example", "https://ci.example/", "https:///org",
		"https://:443/org", "https://user:" + secret + "@ci.example/org", "https://ci.example/org?x=1",
		"https://ci.example/org#x", "https://ci.example/a b", "https://ci.example/\x00", "https://ci.example/%zz",
		"https://ci.example/" + strings.Repeat("x", 2048), " ",
	} {
		_, err := newWith(registration.Options{URL: u})
		requireField(t, "--runner-url", err)
		require.NotContains(t, err.Error(), secret)
	}
	for _, g := range []string{" ", " x", "x ", "a\tb", "\xff", strings.Repeat("x", 257)} {
		_, err := newWith(registration.Options{Group: g})
		requireField(t, "--runner-group", err)
	}
	for _, l := range []string{"", " ", " x", "a,b", "a\nb", "\xff", strings.Repeat("x", 257)} {
		_, err := newWith(registration.Options{Labels: []string{"good", l}})
		requireField(t, "--runner-labels", err)
	}
	_, err := newWith(registration.Options{Labels: make([]string, 101)})
	requireField(t, "--runner-labels", err)
	_, err = registration.New(registration.Options{})
	require.Error(t, err, "no source")
}

// Valid options are used unchanged.
func TestNewTakesGoodOptions(t *testing.T) {
	t.Parallel()
	for _, u := range []string{
		"https://github.com/org", "https://github.com/org/repo/", "http://ghes.example:8443/enterprises/e", "http://[::1]:80/x",
	} {
		got, err := registrar(t, registration.Options{URL: u}).Runner(t.Context(), "", nil)
		require.NoError(t, err)
		require.Equal(t, u, got.URL)
	}
	labels := strings.Split(strings.Repeat("big disk,größer,", 50), ",")[:100]
	_, err := newWith(registration.Options{Labels: labels, Group: strings.Repeat("x", 256)})
	require.NoError(t, err)
}

func newWith(o registration.Options) (*registration.Registrar, error) {
	o.Source = fakeSource{token: secret}
	return registration.New(o)
}

func requireField(t *testing.T, name string, err error) {
	t.Helper()
	var field *fleet.FieldError
	require.ErrorAs(t, err, &field, name)
	require.Equal(t, name, field.Field)
}

// The startup messages contain everything but the token.
func TestDescribe(t *testing.T) {
	t.Parallel()
	require.Equal(t,
		`runners register at https://ci.example/org in group "builders" with labels self-hosted,big disk; `+
			`tokens come from a fake source`,
		registrar(t, configured).Describe())
}

// A Registrar serves many sessions concurrently.
func TestRegistrarIsForConcurrentUse(t *testing.T) {
	t.Parallel()
	r := registrar(t, configured)
	c := fleet.Command{Type: fleet.RegisterRunner, Params: fleet.Params{Strings: map[string]string{"more": "m"}}}
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			for range 50 {
				p, _, err := r.Fill(t.Context(), c)
				runner, runnerErr := r.Runner(t.Context(), "", nil)
				if err != nil || runnerErr != nil || p.Strings["registration_token"] != runner.Token {
					t.Errorf("%v %v", err, runnerErr)
				}
				p.List[0], runner.Labels[0] = "mine", "mine"
			}
		})
	}
	callers.Wait()
}
