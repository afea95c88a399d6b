package config

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

// names is a fake resolver.
type names map[string][]string

func (n names) lookup(_ context.Context, host string) ([]netip.Addr, error) {
	ips, known := n[host]
	if !known {
		return nil, errors.New("no such host")
	}
	var addrs []netip.Addr
	for _, ip := range ips {
		addrs = append(addrs, netip.MustParseAddr(ip))
	}
	return addrs, nil
}

// Only loopback addresses are served while agents would have to be authenticated, whatever
// their names; with --agent-auth off, all are.
func TestLoopbackRule(t *testing.T) {
	t.Parallel()
	dns := names{
		"localhost": {"::1", "127.0.0.1"},
		"only6":     {"::1"},
		"mapped":    {"::ffff:127.0.0.1"},
		"both":      {"127.0.0.1", "192.0.2.1"},
		"mixed":     {"192.0.2.1", "127.0.0.1"},
		"public":    {"192.0.2.1"},
		"nothing":   {},
	}
	for addr, want := range map[string]struct {
		listen  string
		exposed bool
		rule    string
	}{
		"localhost:8080":           {listen: "127.0.0.1:8080"},
		"only6:8080":               {listen: "[::1]:8080"},
		"mapped:8080":              {listen: "127.0.0.1:8080"},
		"127.0.0.1:0":              {listen: "127.0.0.1:0"},
		"127.8.9.10:1":             {listen: "127.8.9.10:1"},
		"[::1]:8080":               {listen: "[::1]:8080"},
		"[::ffff:127.0.0.1]:65535": {listen: "[::ffff:127.0.0.1]:65535"},
		":8080":                    {listen: ":8080", exposed: true},
		"0.0.0.0:8080":             {listen: "0.0.0.0:8080", exposed: true},
		"[::]:8080":                {listen: "[::]:8080", exposed: true},
		"192.0.2.1:8080":           {listen: "192.0.2.1:8080", exposed: true},
		"public:8080":              {listen: "192.0.2.1:8080", exposed: true},
		"mixed:8080":               {listen: "192.0.2.1:8080", exposed: true},
		"both:8080":                {listen: "127.0.0.1:8080", exposed: true},
		"nothing:8080":             {rule: "must have a host that resolves"},
		"unknown:8080":             {rule: "must have a host that resolves"},
	} {
		for _, mode := range []string{AgentAuthStrict, AgentAuthOff} {
			o := Options{AgentAuth: mode, HTTPAddr: "127.0.0.1:0", GRPCAddr: addr}
			e, err := o.Endpoints(t.Context(), dns.lookup)
			rule := want.rule
			if want.exposed && mode == AgentAuthStrict {
				rule = "must be a loopback address"
			}
			if rule != "" {
				require.ErrorContains(t, err, "--grpc-addr "+rule, addr)
				continue
			}
			require.NoError(t, err, addr)
			require.Equal(t, want.listen, net.JoinHostPort(e.GRPC.Host, e.GRPC.Port))
			require.Equal(t, want.exposed, e.Exposed(), addr)
		}
	}
}

// The error for an exposed address says what to do.
func TestRefusalOfExposedAddress(t *testing.T) {
	t.Parallel()
	o := Options{AgentAuth: AgentAuthStrict, HTTPAddr: ":8080", GRPCAddr: "127.0.0.1:0", origins: map[string]string{"http-addr": "here"}}
	_, err := o.Endpoints(t.Context(), names{}.lookup)
	require.EqualError(t, err, "--http-addr must be a loopback address such as localhost:8080: "+
		"this version cannot authenticate agents, so anyone who can reach another address can pose as a VM and get a registration token. "+
		"To serve it nevertheless, behind a firewall, set --agent-auth off (from here)")
}

// Only default ports of a simulation are replaceable.
func TestReplaceablePorts(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name        string
		options     Options
		replaceable bool
	}{
		{"simulation, default port", Options{Simulate: 3}, true},
		{"simulation, port was set", Options{Simulate: 3, origins: map[string]string{"http-addr": "here"}}, false},
		{"no simulation", Options{}, false},
	} {
		e, err := test.options.resolve(t.Context(), "http-addr", "127.0.0.1:8080", LookupHost)
		require.NoError(t, err)
		require.Equal(t, test.replaceable, e.Replaceable, test.name)
		require.Equal(t, "http-addr", e.Option)
	}
}

// The wildcard address is not an allowed host of a loopback listener.
func TestWildcardAddressIsNotAHost(t *testing.T) {
	t.Parallel()
	for _, addr := range []string{"0.0.0.0:8080", "[::]:8080", "[::ffff:0.0.0.0]:8080"} {
		require.Equal(t, []string{"127.0.0.1"}, Options{HTTPAddr: addr, GRPCAddr: "127.0.0.1:50051"}.OwnHosts(), addr)
	}
}
