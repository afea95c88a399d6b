package httpserver

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/mig-controller/mig-controller/internal/logkey"
)

// BrowserRules are the rules for requests that a web page may have caused. A browser sends
// such requests for every page that its user visits, to the loopback interface too, and a GET
// without a preflight request.
type BrowserRules struct {
	// Origins are those whose pages may call, each a scheme, a host and optionally a port.
	Origins []string
	// Hosts are the names and addresses by which a loopback listener may be called, in
	// addition to those of loopback.
	Hosts []string
	// Refuse answers a request with 403 and the message, in the form of the API's errors.
	Refuse func(w http.ResponseWriter, message string)
	// Log receives each refusal, at debug level.
	Log *slog.Logger
}

type loopbackKey struct{}

// withLoopback marks requests as received on a loopback listener.
func withLoopback(ctx context.Context) context.Context {
	return context.WithValue(ctx, loopbackKey{}, true)
}

// RestrictBrowsers returns a handler that passes requests on to next unless a foreign web
// page may have caused them; those it refuses. The rules are:
//
//   - The Host of an HTTP/1.1 request in plaintext to a loopback listener is a loopback
//     name, or one of the hosts: the name of a foreign page can be made to resolve to a
//     loopback address, and the browser then treats the controller as the page's own
//     server. With TLS the certificate prevents that, and no browser uses HTTP/2 in
//     plaintext.
//   - The Origin, if there is one, is the request's own or one of the origins.
//   - Sec-Fetch-Site, if there is one, is same-origin or none, unless the Origin is one of
//     the origins. A GET for an image has no Origin, and some GETs deliver commands.
//
// The browser sets these headers, and a page cannot change them. Clients other than
// browsers do not send the last two.
func RestrictBrowsers(next http.Handler, rules BrowserRules) http.Handler {
	hosts := make(map[string]bool, len(rules.Hosts))
	for _, host := range rules.Hosts {
		hosts[hostName(host)] = true
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v := violatedHost(r, hosts)
		if v == nil {
			v = violatedOrigin(r, rules.Origins)
		}
		if v == nil {
			next.ServeHTTP(w, r)
			return
		}
		rules.Log.LogAttrs(r.Context(), slog.LevelDebug, "request refused: a web page may have caused it",
			slog.String(headerKey, v.header), slog.String(valueKey, v.value),
			slog.String(logkey.Path, r.URL.Path))
		rules.Refuse(w, fmt.Sprintf("the header %s %s, and is %.100q", v.header, v.rule, v.value))
	})
}

// violation is the header of a request that violates a rule.
type violation struct{ header, value, rule string }

// violatedHost checks the Host. An empty one passes: browsers always send it.
func violatedHost(r *http.Request, allowed map[string]bool) *violation {
	judged := r.ProtoMajor == 1 && r.TLS == nil && r.Context().Value(loopbackKey{}) != nil
	if name := hostName(r.Host); judged && r.Host != "" && !isLoopback(name) && !allowed[name] {
		return &violation{"Host", r.Host, "must be localhost, a loopback address or one of --allowed-hosts"}
	}
	return nil
}

// violatedOrigin checks Origin and Sec-Fetch-Site.
func violatedOrigin(r *http.Request, allowed []string) *violation {
	const sameOrigin, none = "same-origin", "none"
	// A repeated header matches no expected value.
	origin := strings.Join(r.Header.Values("Origin"), ", ")
	site := strings.Join(r.Header.Values("Sec-Fetch-Site"), ", ")
	switch {
	case slices.Contains(allowed, origin):
		return nil
	case origin != "" && site != sameOrigin && !isOwnOrigin(origin, r):
		return &violation{"Origin", origin, "must be the controller's own origin or one of --allow-origins"}
	case site != "" && site != sameOrigin && site != none:
		return &violation{
			"Sec-Fetch-Site", site,
			"must be same-origin or none, unless there is an Origin that is one of --allow-origins",
		}
	default:
		return nil
	}
}

// isOwnOrigin reports whether the request was sent to its own origin. That is always false
// behind a proxy that terminates TLS, where Sec-Fetch-Site decides.
func isOwnOrigin(origin string, r *http.Request) bool {
	scheme, port := "http", "80"
	if r.TLS != nil {
		scheme, port = "https", "443"
	}
	u, err := url.Parse(origin)
	return err == nil && u.Scheme == scheme && u.Host != "" && hostPort(u.Host, port) == hostPort(r.Host, port)
}

// hostPort returns hostName with the port, or with the implied one.
func hostPort(host, implied string) string {
	_, port, err := net.SplitHostPort(host)
	if err != nil || port == "" {
		port = implied
	}
	return net.JoinHostPort(hostName(host), port)
}

// hostName returns the normalised name or address of a Host header: without port, brackets and
// trailing dot, in lower case.
func hostName(host string) string {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	}
	name = strings.TrimSuffix(strings.ToLower(name), ".")
	if ip, err := netip.ParseAddr(name); err == nil {
		return ip.Unmap().String()
	}
	return name
}

// isLoopback reports whether a name always resolves to loopback: by RFC 6761, 6.3, browsers
// resolve localhost and names below it themselves.
func isLoopback(name string) bool {
	ip, err := netip.ParseAddr(name)
	return err == nil && ip.IsLoopback() || name == "localhost" || strings.HasSuffix(name, ".localhost")
}
