package ratelimit

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSource(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"192.0.2.1": "192.0.2.1/32", "::ffff:192.0.2.1": "192.0.2.1/32",
		"2001:db8::1": "2001:db8::/64", "2001:db8::2": "2001:db8::/64", "fe80::1%eth0": "fe80::/64",
	} {
		require.Equal(t, want, Source(netip.MustParseAddr(address)).String(), address)
	}
	require.Equal(t, netip.Prefix{}, Source(netip.Addr{}))
}
