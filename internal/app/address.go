package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

const addressRule = "must be HOST:PORT with a port from 0 to 65535"

// lookupFunc returns the addresses of a host name.
type lookupFunc func(ctx context.Context, host string) ([]netip.Addr, error)

func lookupHost(ctx context.Context, host string) ([]netip.Addr, error) {
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

// endpoint is an address to listen on.
type endpoint struct {
	option string
	// host is an IP address; empty for all interfaces.
	host, port string
	// exposed is whether other machines may reach it.
	exposed bool
	// replaceable is whether a taken port may be replaced by a free one.
	replaceable bool
}

func (e endpoint) String() string { return net.JoinHostPort(e.host, e.port) }

// resolve finds the IP address of the option's host. Judging the addresses that
// are then listened on, and not the name, leaves nothing to change in between.
// It returns an *OptionError when the host has no address, or when one of its
// addresses is exposed and --insecure is not given.
func (o Options) resolve(ctx context.Context, option, addr string, lookup lookupFunc) (endpoint, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return endpoint{}, o.invalid(option, addressRule)
	}
	e := endpoint{option: option, port: port, exposed: true}
	e.replaceable = o.Simulate > 0 && o.origins[option] == ""
	if host != "" {
		ips, err := hostIPs(ctx, host, lookup)
		if err != nil {
			return endpoint{}, o.invalid(option, "must have a host that resolves: %v", err)
		}
		e.host, e.exposed = ips[0].String(), false
		for _, ip := range ips {
			e.exposed = e.exposed || !ip.IsLoopback()
		}
	}
	if e.exposed && !o.Insecure {
		return endpoint{}, o.invalid(option, "must be a loopback address such as localhost:%s: "+
			"callers are not authenticated in this version, so anyone who can reach another address can command the fleet. "+
			"To serve it all the same, behind a firewall or an authenticating proxy, give --insecure", port)
	}
	return e, nil
}

// ownHosts are the names by which the addresses may be called, besides those of loopback.
// The address of all interfaces is none: it leads to loopback, and to a call of it browsers
// add no Sec-Fetch-Site.
func (o Options) ownHosts() []string {
	hosts := slices.Clone(o.AllowedHosts)
	for _, addr := range []string{o.HTTPAddr, o.GRPCAddr} {
		host, _, err := net.SplitHostPort(addr)
		ip, _ := netip.ParseAddr(host)
		if err == nil && host != "" && !ip.Unmap().IsUnspecified() {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// hostIPs returns the addresses of host, IPv4 first, as net.Listen prefers it.
func hostIPs(ctx context.Context, host string, lookup lookupFunc) ([]netip.Addr, error) {
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

// bound is the listeners of both addresses; the same one when they are equal.
type bound struct{ http, grpc net.Listener }

// all returns each listener once.
func (b bound) all() []net.Listener {
	if b.http == b.grpc {
		return []net.Listener{b.http}
	}
	return []net.Listener{b.http, b.grpc}
}

func (b bound) close() {
	for _, l := range b.all() {
		_ = l.Close() // The server may have closed it before.
	}
}

// endpoints resolves both addresses.
func (o Options) endpoints(ctx context.Context, lookup lookupFunc) (http, grpc endpoint, err error) {
	if http, err = o.resolve(ctx, "http-addr", o.HTTPAddr, lookup); err != nil {
		return endpoint{}, endpoint{}, err
	}
	if grpc, err = o.resolve(ctx, "grpc-addr", o.GRPCAddr, lookup); err != nil {
		return endpoint{}, endpoint{}, err
	}
	return http, grpc, nil
}

// bind listens on both, with one listener when they are equal. Port 0 is never
// equal: each takes its own free port.
func bind(ctx context.Context, http, grpc endpoint, log *slog.Logger) (bound, error) {
	h, err := http.listen(ctx, log)
	if err != nil {
		return bound{}, err
	}
	if http.String() == grpc.String() && http.port != "0" {
		return bound{http: h, grpc: h}, nil
	}
	g, err := grpc.listen(ctx, log)
	if err != nil {
		_ = h.Close() // Nothing has been accepted on it.
		return bound{}, err
	}
	return bound{http: h, grpc: g}, nil
}

func (e endpoint) listen(ctx context.Context, log *slog.Logger) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", e.String())
	if errors.Is(err, syscall.EADDRINUSE) && e.replaceable {
		log.Warn("the default port is taken; a free one is used", optionKey, e.option, addressKey, e.String())
		l, err = lc.Listen(ctx, "tcp", net.JoinHostPort(e.host, "0"))
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%w: another program listens there; --%s names another port", err, e.option)
	}
	return l, err
}
