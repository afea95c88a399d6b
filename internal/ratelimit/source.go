package ratelimit

import "net/netip"

// Source returns the addresses that share the limits of one: an IPv4 address alone, or an IPv6
// network of 64 bits, since those are assigned as a whole. Of the zero Addr it is the zero
// Prefix.
func Source(ip netip.Addr) netip.Prefix {
	ip = ip.Unmap().WithZone("")
	bits := ip.BitLen()
	if ip.Is6() {
		bits = 64
	}
	source, err := ip.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return source
}
