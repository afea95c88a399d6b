package config

import (
	"errors"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/registration"
)

// Registrar returns the source of runner configuration, or an *OptionError. It registers its
// metrics; nil registers none.
func (o Options) Registrar(metrics prometheus.Registerer) (*registration.Registrar, error) {
	r, err := registration.New(registration.Options{
		Source: o.tokenSource(), URL: o.RunnerURL, Group: o.RunnerGroup, Labels: o.RunnerLabels, Metrics: metrics,
	})
	if bad, ok := errors.AsType[*fleet.FieldError](err); ok {
		return nil, o.invalid(strings.TrimPrefix(bad.Field, "--"), "%s", bad.Rule)
	}
	return r, err
}

func (o Options) tokenSource() registration.TokenSource {
	switch {
	case o.RegistrationTokenFile != "":
		return registration.TokenFile(o.RegistrationTokenFile)
	case o.RegistrationToken != "":
		return registration.StaticToken(o.RegistrationToken.Reveal(), now)
	default:
		return registration.SampleToken(now)
	}
}

// now returns the time in UTC, without the monotonic part.
func now() time.Time { return time.Now().UTC().Round(0) }
