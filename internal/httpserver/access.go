package httpserver

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// isProxy reports whether a peer is one of the proxies.
func (s *Server) isProxy(peer net.Addr) bool {
	ip := addressOf(peer)
	return slices.ContainsFunc(s.proxies, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// addressOf returns the IP address of a peer; the zero Addr if it has none.
func addressOf(peer net.Addr) netip.Addr {
	tcp, ok := peer.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return tcp.AddrPort().Addr().Unmap().WithZone("")
}

// warn logs some of many lines about a source of connections.
func (s *Server) warn(message string, source netip.Prefix) {
	s.limiter.Limited(s.log, message, source.String(), time.Now()).
		Warn(message, sourceKey, source.Masked().Addr().String()) //nolint:sloglint // the callers have constants
}

func (s *Server) warnOfResets(c net.Conn) {
	s.warn("connection closed: its peer opens streams and resets them", sourceOf(c.RemoteAddr()))
}

// fewConnections is how many connections a source may have when others must not get
// more.
const fewConnections = 10

// crowd counts the open connections of each source. Once there are as many as there may
// be, only sources with few of them get more: a source that has many cannot lock out one
// that has none, such as an operator looking for the cause. It is safe for concurrent
// use.
type crowd struct {
	crowded int // 0 is without limit

	mu  sync.Mutex
	all int
	of  map[netip.Prefix]int
}

func newCrowd(crowded int) *crowd { return &crowd{crowded: crowded, of: map[netip.Prefix]int{}} }

// enter reports whether a source may have one connection more, and counts it if so.
func (c *crowd) enter(source netip.Prefix) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.crowded > 0 && c.all >= c.crowded && c.of[source] >= fewConnections {
		return false
	}
	c.all++
	c.of[source]++
	return true
}

// leave follows each enter that was true, when the connection is closed.
func (c *crowd) leave(source netip.Prefix) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all--
	c.of[source]--
	if c.of[source] == 0 {
		delete(c.of, source)
	}
}

// admit reports whether a source may have one connection more; crowd.leave must follow
// if so.
func (s *Server) admit(source netip.Prefix) bool {
	if s.crowd.enter(source) {
		return true
	}
	s.warn("connection closed: few open files are left, and its source has many connections", source)
	return false
}

// sourceOf returns what counts as one source: an address of IPv4, or a network of IPv6,
// since those are assigned as a whole.
func sourceOf(peer net.Addr) netip.Prefix {
	ip := addressOf(peer)
	bits := ip.BitLen()
	if ip.Is6() {
		bits = 64
	}
	source, err := ip.Prefix(bits)
	if err != nil {
		return netip.Prefix{} // not of TCP, as in tests
	}
	return source
}
