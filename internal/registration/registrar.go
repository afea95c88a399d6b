package registration

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// The defaults of Options.
const (
	DefaultURL   = "https://github.com/example/repository"
	DefaultGroup = "default"
	DefaultLabel = "self-hosted"
)

// The parameters of a register_runner command, except its token and its list.
const (
	urlParam   = "runner_url"
	groupParam = "runner_group"
)

const (
	maxURLLength  = 2048
	maxNameLength = 256 // of a group or a label, in bytes
	maxLabels     = 100
)

// Options are the settings of a Registrar.
type Options struct {
	// Source provides the tokens; it is required.
	Source TokenSource
	// URL is where runners register. Empty means DefaultURL.
	URL string
	// Group is the runner group they join. Empty means DefaultGroup.
	Group string
	// Labels are the labels of the runners. Empty means only DefaultLabel.
	Labels []string
	// Metrics registers the metrics; nil registers none.
	Metrics prometheus.Registerer
}

// Registrar creates the configurations of runners. It is safe for concurrent use.
type Registrar struct {
	source TokenSource
	url    string
	group  string
	labels []string

	metrics metrics
}

// New returns a Registrar, or a *fleet.FieldError that names the invalid option as on the
// command line. It requests no token.
func New(o Options) (*Registrar, error) {
	if o.Source == nil {
		return nil, errors.New("registration: no token source")
	}
	if o.URL == "" {
		o.URL = DefaultURL
	}
	if o.Group == "" {
		o.Group = DefaultGroup
	}
	if len(o.Labels) == 0 {
		o.Labels = []string{DefaultLabel}
	}
	if err := checkURL("--runner-url", o.URL); err != nil {
		return nil, err
	}
	if err := checkGroup("--runner-group", o.Group); err != nil {
		return nil, err
	}
	if err := checkLabels("--runner-labels", o.Labels); err != nil {
		return nil, err
	}
	return &Registrar{
		source: o.Source, url: o.URL, group: o.Group, labels: slices.Clone(o.Labels), metrics: newMetrics(o.Metrics),
	}, nil
}

// Runner mints a token for one runner. A given group and given labels replace the
// configured ones; a *fleet.FieldError says why they are invalid. The error is a
// *fleet.TokenError when no token is available.
func (r *Registrar) Runner(ctx context.Context, group string, labels []string) (Runner, error) {
	runner := Runner{URL: r.url, Group: r.group, Labels: r.labels}
	if group != "" {
		if err := checkGroup("runner_group", group); err != nil {
			return Runner{}, err
		}
		runner.Group = group
	}
	if len(labels) > 0 {
		if err := checkLabels("labels", labels); err != nil {
			return Runner{}, err
		}
		runner.Labels = labels
	}
	runner.Labels = slices.Clone(runner.Labels)
	var err error
	runner.Token, runner.ExpiresAt, err = r.mint(ctx)
	if err != nil {
		return Runner{}, err
	}
	return runner, nil
}

// Fill returns the parameters of a register_runner command as its agent gets them, with a
// token minted for it, and when that token is assumed to expire. The URL, the group and the
// labels are filled in if the sender left them empty. The error is a *fleet.TokenError when
// no token is available.
//
// The result is a copy for the agent only: c is not changed, so that the token cannot reach
// a store. A command of another type gets a copy of its parameters and no token.
func (r *Registrar) Fill(ctx context.Context, c fleet.Command) (fleet.Params, time.Time, error) {
	p := fleet.Params{
		Strings: maps.Clone(c.Params.Strings), Ints: maps.Clone(c.Params.Ints),
		Bools: maps.Clone(c.Params.Bools), List: slices.Clone(c.Params.List),
	}
	if c.Type != fleet.RegisterRunner {
		return p, time.Time{}, nil
	}
	token, expiresAt, err := r.mint(ctx)
	if err != nil {
		return fleet.Params{}, time.Time{}, err
	}
	if p.Strings == nil {
		p.Strings = make(map[string]string, 3)
	}
	p.Strings[fleet.RegistrationTokenParam] = token
	if p.Strings[urlParam] == "" {
		p.Strings[urlParam] = r.url
	}
	if p.Strings[groupParam] == "" {
		p.Strings[groupParam] = r.group
	}
	if len(p.List) == 0 {
		p.List = slices.Clone(r.labels)
	}
	return p, expiresAt, nil
}

func (r *Registrar) mint(ctx context.Context) (string, time.Time, error) {
	token, expiresAt, err := r.source.Token(ctx)
	if err == nil {
		err = checkToken(token)
	}
	if err == nil {
		r.metrics.tokens.Inc()
		return token, expiresAt, nil
	}
	r.metrics.noTokens.Inc()
	switch {
	case errors.Is(err, fleet.ErrNoToken):
		return "", time.Time{}, err
	default:
		return "", time.Time{}, noToken(r.source.String(), err)
	}
}

// Describe returns the runner configuration as text, without a token.
func (r *Registrar) Describe() string {
	return fmt.Sprintf("runners register at %s in group %q with labels %s; tokens come from %s",
		r.url, r.group, strings.Join(r.labels, ","), r.source)
}

// checkURL rejects passwords: the URL is displayed.
func checkURL(field, s string) error {
	u, err := url.Parse(s)
	if err != nil || len(s) > maxURLLength || u.Hostname() == "" || u.User != nil ||
		u.Scheme != "http" && u.Scheme != "https" || strings.Trim(u.Path, "/") == "" ||
		strings.ContainsAny(s, "?# ") || !printable(s) {
		return fleet.Invalid(field,
			"must be an http or https URL with a host and a path, without user, query and fragment, such as %s", DefaultURL)
	}
	return nil
}

func checkGroup(field, s string) error {
	if !isName(s) {
		return fleet.Invalid(field, "must be 1 to %d bytes of printable text, with no space at either end", maxNameLength)
	}
	return nil
}

func checkLabels(field string, labels []string) error {
	if len(labels) > maxLabels {
		return fleet.Invalid(field, "must be at most %d labels", maxLabels)
	}
	for _, l := range labels {
		if !isName(l) || strings.Contains(l, ",") {
			return fleet.Invalid(field,
				"must each be 1 to %d bytes of printable text, with no comma, and no space at either end", maxNameLength)
		}
	}
	return nil
}

func isName(s string) bool {
	return s != "" && len(s) <= maxNameLength && s == strings.TrimSpace(s) && printable(s)
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}
