package config

import (
	"errors"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// maxSimulated limits the simulated agents, which run in the controller's process.
const maxSimulated = 1000

// maxMetricsPools limits the series of metrics that have the pool as a label.
const maxMetricsPools = 1000

// maxDrainDelay limits the time between a signal and the stop: supervisors kill what takes
// longer, and a mistyped unit would delay each restart by hours.
const maxDrainDelay = 5 * time.Minute

// Check returns an *OptionError for the first invalid option. It does not use the network or
// files: Endpoints and Certificate do.
func (o Options) Check() error {
	tokenTwice := o.RegistrationToken != "" && o.RegistrationTokenFile != ""
	for _, r := range []struct {
		option string
		kept   bool
		rule   string
	}{
		{"http-addr", isAddress(o.HTTPAddr), addressRule},
		{"grpc-addr", isAddress(o.GRPCAddr), addressRule},
		{"metrics-addr", isOptionalAddress(o.MetricsAddr), addressRule},
		{"metrics-pools", o.MetricsPools >= 0 && o.MetricsPools <= maxMetricsPools, "must be a whole number from 0 to 1000"},
		{"allow-origins", !slices.ContainsFunc(o.AllowOrigins, isNotOrigin), originRule},
		{"allowed-hosts", !slices.ContainsFunc(o.AllowedHosts, isNotHost), hostRule},
		{"proxies", !slices.ContainsFunc(o.Proxies, isNotPrefix), prefixRule},
		{"agent-auth", slices.Contains(agentAuths, o.AgentAuth), "must be strict or off"},
		{"drain-delay", o.DrainDelay >= 0 && o.DrainDelay <= maxDrainDelay, "must be from 0 to 5m"},
		{"data-dir", o.DataDir != "", "must name a directory"},
		{"registration-token", !strings.ContainsFunc(o.RegistrationToken.Reveal(), unicode.IsSpace), "must be without white space"},
		{"command-ttl", o.CommandTTL > 0 && o.CommandTTL <= fleet.MaxTTL, "must be more than 0 and at most 30d"},
		{"ack-timeout", o.AckTimeout > 0 && o.AckTimeout <= fleet.MaxAckTimeout, "must be more than 0 and at most 24h"},
		{"registration-timeout", o.RegistrationTimeout > 0 && o.RegistrationTimeout <= fleet.MaxAckTimeout, "must be more than 0 and at most 24h"},
		{"max-deliveries", o.MaxDeliveries >= 1 && o.MaxDeliveries <= fleet.MaxDeliveriesLimit, "must be a whole number from 1 to 100"},
		{"retain-events", o.RetainEvents >= 0, retentionRule},
		{"retain-heartbeats", o.RetainHeartbeats >= 0, retentionRule},
		{"retain-commands", o.RetainCommands >= 0, retentionRule},
		{"retain-vms", o.RetainVMs >= 0, retentionRule},
		{"retain-changes", o.RetainChanges >= 0, retentionRule},
		{"retain-audit", o.RetainAudit >= 0, retentionRule},
		{"retain-files", o.RetainFiles >= 0, retentionRule},
		{"report-rate", o.ReportRate == 0 || o.ReportRate >= 16<<10 && o.ReportRate <= 1<<30, reportRateRule},
		{"log-level", slices.Contains(logLevels, o.LogLevel), "must be debug, info, warn or error"},
		{"log-format", slices.Contains(logFormats, o.LogFormat), "must be text or json"},
		{"simulate", o.Simulate >= 0 && o.Simulate <= maxSimulated, "must be a whole number from 0 to 1000"},
	} {
		if !r.kept {
			return o.invalid(r.option, "%s", r.rule)
		}
	}
	if tokenTwice {
		return o.tokenTwice()
	}
	if _, err := o.Registrar(nil); err != nil {
		return err
	}
	_, err := o.DatabasePath()
	return err
}

// isNotOrigin reports whether text is not an Origin that a browser may send. A pattern for any
// origin is refused: it would allow every page that an operator visits to command the fleet.
func isNotOrigin(text string) bool {
	u, err := url.Parse(text)
	return err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" ||
		strings.Contains(u.Host, "*") || text != u.Scheme+"://"+u.Host || text != strings.ToLower(text)
}

const originRule = "must each be a scheme, a host and optionally a port in lower case, such as https://ci.example.com"

// isNotHost reports whether text is neither a host name nor an IP address.
func isNotHost(text string) bool {
	_, err := netip.ParseAddr(text)
	return err != nil && !hostNames.MatchString(text)
}

// hostNames matches names of labels of any length.
var hostNames = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?$`)

const hostRule = "must be host names or IP addresses without scheme and port, such as ci.example.com"

func isNotPrefix(text string) bool {
	_, err := parsePrefix(text)
	return err != nil
}

const prefixRule = "must be IP addresses such as 10.1.2.3, or ranges such as 10.1.0.0/16"

// parsePrefix parses an IP address, possibly an IPv4-mapped IPv6 address, or a range.
func parsePrefix(text string) (netip.Prefix, error) {
	if ip, err := netip.ParseAddr(text); err == nil && ip.Zone() == "" {
		ip = ip.Unmap()
		return netip.PrefixFrom(ip, ip.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(text)
	if err == nil && prefix.Addr().Is4In6() {
		return netip.Prefix{}, errors.New("an IPv4 range must not be written as IPv6")
	}
	return prefix, err
}

// ProxyPrefixes returns the parsed Proxies. o must have been checked.
func (o Options) ProxyPrefixes() []netip.Prefix {
	var prefixes []netip.Prefix
	for _, text := range o.Proxies {
		if prefix, err := parsePrefix(text); err == nil {
			prefixes = append(prefixes, prefix)
		}
	}
	return prefixes
}

// The values of AgentAuth.
const (
	AgentAuthStrict = "strict"
	AgentAuthOff    = "off"
)

var agentAuths = []string{AgentAuthStrict, AgentAuthOff}

// FormatJSON is the value of LogFormat for a log of JSON records.
const FormatJSON = "json"

var (
	logLevels  = []string{"debug", "info", "warn", "error"}
	logFormats = []string{"text", FormatJSON}
)

const reportRateRule = "must be 0 (no limit) or from 16KiB to 1GiB"

const retentionRule = "must be 0 (forever) or more"

func (o Options) tokenTwice() error {
	const file = "registration-token-file"
	rule := "must not be given with --" + file
	if origin := o.origins[file]; origin != "" {
		rule += ", which is from " + origin
	}
	return o.invalid("registration-token", "%s", rule)
}
