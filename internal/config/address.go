package config

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

const addressRule = "must be HOST:PORT with a port from 0 to 65535"

// LookupFunc returns the addresses of a host name.
type LookupFunc func(ctx context.Context, host string) ([]netip.Addr, error)

// LookupHost uses the resolver of this machine.
func LookupHost(ctx context.Context, host string) ([]netip.Addr, error) {
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

func isAddress(s string) bool {
	host, port, err := net.SplitHostPort(s)
	if err != nil || strings.ContainsAny(host, " \t/") {
		return false
	}
	_, err = strconv.ParseUint(port, 10, 16)
	return err == nil
}

func isOptionalAddress(s string) bool { return s == "" || isAddress(s) }

// Endpoint is an address to listen on.
type Endpoint struct {
	// Option is the name of its option.
	Option string
	// Host is an IP address; empty for all interfaces.
	Host, Port string
	// Replaceable is whether a free port may be used if this one is in use.
	Replaceable bool
	// Exposed is whether other machines may reach it.
	Exposed bool
}

// resolve returns the endpoint with the IP address of the option's host. The resolved
// addresses are checked, and not the name, because the name could resolve differently later.
// It returns an *OptionError when the host has no address.
func (o Options) resolve(ctx context.Context, option, addr string, lookup LookupFunc) (Endpoint, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return Endpoint{}, o.invalid(option, addressRule)
	}
	e := Endpoint{Option: option, Port: port, Replaceable: o.Simulate > 0 && o.origins[option] == "", Exposed: true}
	if host != "" {
		ips, err := hostIPs(ctx, host, lookup)
		if err != nil {
			return Endpoint{}, o.invalid(option, "must have a host that resolves: %v", err)
		}
		e.Host = ips[0].String()
		e.Exposed = slices.ContainsFunc(ips, func(ip netip.Addr) bool { return !ip.IsLoopback() })
	}
	return e, nil
}

// checkAgents returns an *OptionError when agents would have to be authenticated at the
// endpoint.
func (o Options) checkAgents(e Endpoint) error {
	if e.Exposed && o.AgentAuth == AgentAuthStrict {
		return o.invalid(e.Option, "must be a loopback address such as localhost:%s: "+
			"this version cannot authenticate agents, so anyone who can reach another address can pose as a VM and get a registration token. "+
			"To serve it nevertheless, behind a firewall, set --agent-auth off", e.Port)
	}
	return nil
}

// OwnHosts returns the hosts of all addresses and --allowed-hosts, which requests may name in
// addition to those of loopback. The wildcard address is not among them: it leads to loopback,
// and browsers add no Sec-Fetch-Site to a request to it.
func (o Options) OwnHosts() []string {
	hosts := slices.Clone(o.AllowedHosts)
	for _, addr := range []string{o.HTTPAddr, o.GRPCAddr, o.MetricsAddr} {
		host, _, err := net.SplitHostPort(addr)
		ip, _ := netip.ParseAddr(host)
		if err == nil && host != "" && !ip.Unmap().IsUnspecified() {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// hostIPs returns the addresses of host, IPv4 first, as net.Listen prefers it.
func hostIPs(ctx context.Context, host string, lookup LookupFunc) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip}, nil
	}
	ips, err := lookup(ctx, host)
	if err != nil {
		return nil, err
	}
	if len(ips) == 0 {
		return nil, errors.New("no addresses")
	}
	for i, ip := range ips {
		ips[i] = ip.Unmap()
	}
	if i := slices.IndexFunc(ips, netip.Addr.Is4); i > 0 {
		ips[0], ips[i] = ips[i], ips[0]
	}
	return ips, nil
}

const metricsAddr = "metrics-addr"

// Endpoints are the addresses of a controller. Metrics is nil without --metrics-addr.
type Endpoints struct {
	HTTP, GRPC Endpoint
	Metrics    *Endpoint
}

// Exposed reports whether other machines may reach an address that serves operators.
func (e Endpoints) Exposed() bool { return e.HTTP.Exposed || e.GRPC.Exposed }

// Endpoints resolves the addresses. It returns an *OptionError when a host has no address,
// when other machines can reach it and agents would have to be authenticated, or when
// --metrics-addr is one of the others.
func (o Options) Endpoints(ctx context.Context, lookup LookupFunc) (e Endpoints, err error) {
	if e.HTTP, err = o.resolve(ctx, "http-addr", o.HTTPAddr, lookup); err != nil {
		return Endpoints{}, err
	}
	if e.GRPC, err = o.resolve(ctx, "grpc-addr", o.GRPCAddr, lookup); err != nil {
		return Endpoints{}, err
	}
	if err := cmp.Or(o.checkAgents(e.HTTP), o.checkAgents(e.GRPC)); err != nil {
		return Endpoints{}, err
	}
	if o.MetricsAddr == "" {
		return e, nil
	}
	addr := o.MetricsAddr
	if strings.HasPrefix(addr, ":") {
		addr = "localhost" + addr
	}
	metrics, err := o.resolve(ctx, metricsAddr, addr, lookup)
	if err != nil {
		return Endpoints{}, err
	}
	if metrics.Port != "0" && (metrics.sameAddress(e.HTTP) || metrics.sameAddress(e.GRPC)) {
		return Endpoints{}, o.invalid(metricsAddr, "must not be --http-addr or --grpc-addr; without it both serve /metrics")
	}
	e.Metrics = &metrics
	return e, nil
}

func (e Endpoint) sameAddress(o Endpoint) bool { return e.Host == o.Host && e.Port == o.Port }
