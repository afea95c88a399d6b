package httpserver

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/rpc"
)

// How long tests wait for a condition, and how often they check it.
const (
	atMost   = 20 * time.Second
	interval = 5 * time.Millisecond
)

// The source of a connection is the address of its peer, or the network for IPv6.
func TestSourceOf(t *testing.T) {
	t.Parallel()
	for peer, source := range map[string]string{
		"192.0.2.7:1":              "192.0.2.7/32",
		"[::ffff:192.0.2.7]:1":     "192.0.2.7/32",
		"[2001:db8:1:2:3:4:5:6]:1": "2001:db8:1:2::/64",
		"[fe80::1%eth0]:1":         "fe80::/64",
	} {
		require.Equal(t, source, sourceOf(net.TCPAddrFromAddrPort(netip.MustParseAddrPort(peer))).String())
	}
	require.Equal(t, netip.Prefix{}, sourceOf(&net.UnixAddr{}))
}

// Only peers at a configured address are proxies; that includes loopback addresses.
func TestIsProxy(t *testing.T) {
	t.Parallel()
	o := plaintext(nil)
	for _, proxies := range []string{"127.0.0.1/32", "10.1.0.0/16", "2001:db8::/32", "192.0.2.7/32"} {
		o.Proxies = append(o.Proxies, netip.MustParsePrefix(proxies))
	}
	s := New(o)
	for peer, proxy := range map[string]bool{
		"127.0.0.1:1": true, "[::ffff:127.0.0.1]:1": true, "127.0.0.2:1": false, "[::1]:1": false,
		"10.1.2.3:1": true, "10.2.0.1:1": false, "[2001:db8::5]:1": true, "[2001:db9::5]:1": false, "192.0.2.7:1": true,
	} {
		require.Equal(t, proxy, s.isProxy(net.TCPAddrFromAddrPort(netip.MustParseAddrPort(peer))), peer)
	}
	require.False(t, New(plaintext(nil)).isProxy(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}))
}

// A configured proxy may have more streams than others.
func TestProxiesMayHaveMoreStreams(t *testing.T) {
	t.Parallel()
	for name, makeHTTP2 := range implementations {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for proxy, streams := range map[string]int{"127.0.0.1": 1000, "127.0.0.2": 100} {
				o := plaintext(http.NotFoundHandler())
				o.Proxies = []netip.Prefix{netip.MustParsePrefix(proxy + "/32")}
				c := dialFrom(t, "127.0.0.1", serveOn(t, newServer(o, makeHTTP2)))
				_, err := io.WriteString(c, preface)
				require.NoError(t, err)
				got, err := readSettings(c)
				require.NoError(t, err)
				require.EqualValues(t, streams, got[0x3], proxy)
			}
		})
	}
}

// A foreign Host is refused on a loopback listener, whatever others listen on, but the
// hosts of the addresses are never foreign.
func TestHostIsCheckedOnLoopback(t *testing.T) {
	t.Parallel()
	s := New(plaintext(RestrictBrowsers(http.NotFoundHandler(), BrowserRules{
		Hosts: []string{"ci.example", "controller.example"}, Refuse: rpc.WriteForbidden, Log: quiet(),
	})))
	var serving sync.WaitGroup
	t.Cleanup(func() {
		require.NoError(t, s.Close())
		serving.Wait()
	})
	for addr, foreign := range map[string]int{"127.0.0.1:0": http.StatusForbidden, "0.0.0.0:0": http.StatusNotFound} {
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp4", addr)
		require.NoError(t, err)
		serving.Go(func() { _ = s.Serve(l) })
		_, port, err := net.SplitHostPort(l.Addr().String())
		require.NoError(t, err)
		for host, status := range map[string]int{
			"evil.example": foreign, "controller.example": http.StatusNotFound, "ci.example:1": http.StatusNotFound,
		} {
			c := dialFrom(t, "127.0.0.1", "127.0.0.1:"+port)
			_, err = io.WriteString(c, "GET / HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n")
			require.NoError(t, err)
			answer, err := io.ReadAll(c)
			require.NoError(t, err)
			require.Contains(t, string(answer), "HTTP/1.1 "+strconv.Itoa(status)+" ", "%s at %s", host, addr)
		}
	}
}

// dialFrom connects from a loopback address.
func dialFrom(t *testing.T, from, addr string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.DialContext(t.Context(), "tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// requireClosed requires that the server closes c without sending anything.
func requireClosed(t *testing.T, c net.Conn) {
	t.Helper()
	said, err := io.ReadAll(c)
	require.NoError(t, err)
	require.Empty(t, said)
}

// requireServed requires a response to a request on c, and leaves c open.
func requireServed(t *testing.T, c net.Conn) {
	t.Helper()
	_, err := io.WriteString(c, "GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n")
	require.NoError(t, err)
	answer := make([]byte, len("HTTP/1.1 404"))
	_, err = io.ReadFull(c, answer)
	require.NoError(t, err)
	require.Equal(t, "HTTP/1.1 404", string(answer))
}

// When there are too many connections, of any protocol, a source that has ten gets no more,
// and another is served. Closed connections no longer count.
func TestManyConnectionsDoNotLockOutOthers(t *testing.T) {
	t.Parallel()
	const crowded = 12
	o := plaintext(http.NotFoundHandler())
	o.Crowded = crowded
	s := New(o)
	addr := serveOn(t, s)
	entered := func(n int) func() bool {
		return func() bool {
			s.limit.mu.Lock()
			defer s.limit.mu.Unlock()
			return s.limit.all == n
		}
	}
	var many []net.Conn
	for i := range crowded {
		c := dialFrom(t, "127.0.0.1", addr)
		many = append(many, c)
		switch i % 3 {
		case 0:
			requireServed(t, c) // and stays idle
		case 1:
			_, err := io.WriteString(c, preface)
			require.NoError(t, err)
			_, err = readSettings(c)
			require.NoError(t, err)
		}
	}
	require.Eventually(t, entered(crowded), atMost, interval)
	requireClosed(t, dialFrom(t, "127.0.0.1", addr))

	if other, err := net.Listen("tcp", "127.0.0.2:0"); err == nil { //nolint:noctx // it is closed at once
		require.NoError(t, other.Close())
		requireServed(t, dialFrom(t, "127.0.0.2", addr)) // elsewhere than on Linux it may not exist
	}
	for _, c := range many {
		require.NoError(t, c.Close())
	}
	require.Eventually(t, func() bool { return entered(0)() || entered(1)() }, atMost, interval)
	requireServed(t, dialFrom(t, "127.0.0.1", addr))
}

// Sources with few connections always get more, those with many below the limit, and all of
// them if there is no limit.
func TestCrowd(t *testing.T) {
	t.Parallel()
	source := func(i int) netip.Prefix { return netip.MustParsePrefix("192.0.2." + strconv.Itoa(i) + "/32") }
	c := newConnectionLimit(20)
	for range 20 {
		require.True(t, c.enter(source(1)))
	}
	require.False(t, c.enter(source(1)))
	for range fewConnections {
		require.True(t, c.enter(source(2)))
	}
	require.False(t, c.enter(source(2)))
	for range 11 {
		c.leave(source(1))
	}
	require.True(t, c.enter(source(2)), "the total is below the limit again")
	require.True(t, c.enter(source(1)), "it has few now")

	unlimited := newConnectionLimit(0)
	for range 1000 {
		require.True(t, unlimited.enter(source(1)))
	}
	for range 1000 {
		unlimited.leave(source(1))
	}
	require.Empty(t, unlimited.of, "sources without connections are forgotten")
	require.Zero(t, unlimited.all)
}

// A tenth of the open files is reserved, in addition to those of the controller.
func TestCrowdedAt(t *testing.T) {
	t.Parallel()
	require.Equal(t, 20_000-2_000-OwnFiles, crowdedAt(20_000, true, 0))
	require.Equal(t, 20_000-2_000-OwnFiles-1_000, crowdedAt(20_000, true, 1_000))
	require.Equal(t, 128, crowdedAt(256, true, 0), "half at least")
	require.Zero(t, crowdedAt(0, false, 0), "it is not known")
	require.Zero(t, crowdedAt(1<<63, true, 0), "there is none")
}

// At most ten closed connections a minute are logged for each source.
func TestClosedConnectionsAreLogged(t *testing.T) {
	t.Parallel()
	var out output
	s := New(Options{Crowded: 1, Log: logTo(&out, slog.LevelInfo)})
	source := netip.MustParsePrefix("2001:db8::/64")
	for range 100 {
		s.admit(source)
	}
	require.Equal(t, 10, strings.Count(out.String(), "few open files are left"))
	require.Contains(t, out.String(), " source=2001:db8::\n")
}
