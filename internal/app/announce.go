package app

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"time"

	"github.com/mig-controller/mig-controller/internal/config"
	"github.com/mig-controller/mig-controller/internal/sim"
)

// announce reports what has been started: as one log record if the log is JSON, otherwise as
// text on stdout. Warnings are always logged.
func (a *App) announce(ctx context.Context) {
	s := a.service.Summary()
	facts := a.facts(s)
	if a.options.LogFormat == config.FormatJSON {
		facts = append(facts, slog.String(versionKey, Version()), slog.String(goVersionKey, runtime.Version()))
		a.log.LogAttrs(ctx, slog.LevelInfo, "controller started", facts...)
	} else {
		a.print(facts)
	}
	a.warn(s.Warnings)
}

func (a *App) facts(s summary) []slog.Attr {
	journal := "off"
	if a.options.Journal {
		journal = "on"
	}
	web, agents := a.HTTPAddr(), a.GRPCAddr()
	if a.cert != nil && a.options.LogFormat != config.FormatJSON {
		web, agents = "https://"+web, agents+" with TLS"
	}
	facts := []slog.Attr{
		slog.String(httpAddrKey, web),
		slog.String(grpcAddrKey, agents),
		slog.String(dataDirKey, absolute(a.options.DataDir)),
		slog.String(databaseKey, s.Database),
		slog.String(journalKey, journal),
		slog.String(operatorsKey, s.Operators),
		slog.String(runnersKey, s.Runners),
	}
	if addr := a.MetricsAddr(); addr != "" {
		facts = append(facts, slog.String(metricsKey, addr))
	}
	if s.Traces != "" {
		facts = append(facts, slog.String(tracesKey, s.Traces))
	}
	if a.cert != nil {
		facts = append(facts, slog.String(tlsKey, fmt.Sprintf("%s, valid until %s",
			absolute(a.options.TLSCert), a.cert.ValidUntil().UTC().Format(time.RFC3339))))
	}
	if a.options.Config != "" {
		facts = append(facts, slog.String(configKey, absolute(a.options.Config)))
	}
	if a.options.Simulate > 0 {
		facts = append(facts, slog.Int(simulatedKey, a.options.Simulate))
	}
	return facts
}

func (a *App) print(facts []slog.Attr) {
	var b strings.Builder
	fmt.Fprintf(&b, "MIG Controller %s\n", Version())
	for _, f := range facts {
		fmt.Fprintf(&b, "  %-10s  %s\n", strings.ReplaceAll(f.Key, "_", " "), f.Value)
	}
	if a.options.Simulate > 0 {
		for _, line := range sim.DemoLegend(a.options.Simulate) {
			fmt.Fprintf(&b, "  %-10s  %s\n", "", line)
		}
	}
	fmt.Fprint(a.stdout, b.String())
}

func (a *App) warn(warnings []string) {
	if len(a.options.UnknownVariables()) > 0 {
		a.log.Warn("environment variables with the prefix of options that are not options", namesKey, a.options.UnknownVariables())
	}
	for _, w := range warnings {
		a.log.Warn(w) //nolint:sloglint // the texts are constant; which of them apply varies
	}
}
