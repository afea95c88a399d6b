package httpserver

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/mig-controller/mig-controller/internal/ratelimit"
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

// warn logs a warning about a source of connections, at a limited rate.
func (s *Server) warn(message string, source netip.Prefix) {
	s.limiter.Limited(s.log, message, source.String(), time.Now()).
		Warn(message, sourceKey, source.Masked().Addr().String()) //nolint:sloglint // the callers have constants
}

func (s *Server) warnOfResets(c net.Conn) {
	s.metrics.refused[refusedResets].Inc()
	s.warn("connection closed: its peer resets too many streams", sourceOf(c.RemoteAddr()))
}

// fewConnections is how many connections a source may have even if there are many in total.
const fewConnections = 10

// connectionLimit counts the open connections of each source. When the total limit is reached,
// only sources with few connections get more: a source that has many cannot lock out one that
// has none, such as an operator who is looking for the cause. It is safe for concurrent use.
type connectionLimit struct {
	crowded int // 0 means no limit

	mu  sync.Mutex
	all int
	of  map[netip.Prefix]int
}

func newConnectionLimit(crowded int) *connectionLimit {
	return &connectionLimit{crowded: crowded, of: map[netip.Prefix]int{}}
}

// enter reports whether a source may have one more connection, and counts it if so.
func (c *connectionLimit) enter(source netip.Prefix) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.crowded > 0 && c.all >= c.crowded && c.of[source] >= fewConnections {
		return false
	}
	c.all++
	c.of[source]++
	return true
}

// leave must be called once for each enter that returned true, when the connection is closed.
func (c *connectionLimit) leave(source netip.Prefix) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all--
	c.of[source]--
	if c.of[source] == 0 {
		delete(c.of, source)
	}
}

// open returns how many connections are open.
func (c *connectionLimit) open() float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return float64(c.all)
}

// admit reports whether a source may have one more connection; if so, limit.leave must follow.
func (s *Server) admit(source netip.Prefix) bool {
	if s.limit.enter(source) {
		return true
	}
	s.warn("connection closed: few open files are left, and its source has many connections", source)
	return false
}

// sourceOf returns the source of a connection; the zero Prefix if it is not TCP, as in tests.
func sourceOf(peer net.Addr) netip.Prefix { return ratelimit.Source(addressOf(peer)) }
