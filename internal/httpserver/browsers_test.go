package httpserver

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/rpc"
)

const (
	allowedOrigin = "https://ci.example.com"
	pollPath      = "/api/v1/vms/vm-1/commands"
)

// pageRequest is a request that a page may have caused.
type pageRequest struct {
	method, host, origin, site string
	exposed                    bool // not to a loopback listener
	tls, http2                 bool
}

func (p pageRequest) ask(t *testing.T, log *slog.Logger) *httptest.ResponseRecorder {
	t.Helper()
	ctx := t.Context()
	if !p.exposed {
		ctx = withLoopback(ctx)
	}
	if p.method == "" {
		p.method = http.MethodGet
	}
	r := httptest.NewRequestWithContext(ctx, p.method, pollPath, http.NoBody)
	r.Host = p.host
	if p.tls {
		r.TLS = new(tls.ConnectionState)
	}
	if p.http2 {
		r.ProtoMajor, r.ProtoMinor = 2, 0
	}
	for name, value := range map[string]string{"Origin": p.origin, "Sec-Fetch-Site": p.site} {
		if value != "" {
			r.Header.Set(name, value)
		}
	}
	next := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	w := httptest.NewRecorder()
	RestrictBrowsers(next, BrowserRules{
		Origins: []string{allowedOrigin}, Hosts: []string{"Controller.example.", "192.0.2.7", "2001:db8:0::1"},
		Refuse: rpc.WriteForbidden, Log: log,
	}).ServeHTTP(w, r)
	return w
}

// Requests that no foreign page can have caused are served.
func TestRequestsOfOthersAreServed(t *testing.T) {
	t.Parallel()
	const loopback = "127.0.0.1:8080"
	for name, p := range map[string]pageRequest{
		"no Host, as HTTP/1.0":             {},
		"localhost":                        {host: "localhost"},
		"with a port":                      {host: "localhost:8080"},
		"with a dot":                       {host: "localhost.:8080"},
		"in capitals":                      {host: "LocalHost:8080"},
		"below localhost":                  {host: "ci.localhost:8080"},
		"any loopback address":             {host: "127.8.9.10"},
		"loopback of IPv6":                 {host: "[::1]:8080"},
		"loopback of IPv6 without a port":  {host: "[::1]"},
		"loopback of IPv4 as IPv6":         {host: "[::ffff:127.0.0.1]:80"},
		"a host that is allowed":           {host: "controller.example:8080"},
		"the same with a dot":              {host: "CONTROLLER.example."},
		"an address that is allowed":       {host: "192.0.2.7:1"},
		"the same of IPv6":                 {host: "[2001:DB8::1]:1"},
		"any host on other listeners":      {host: "evil.example", exposed: true},
		"any host with TLS":                {host: "evil.example", tls: true},
		"any authority with HTTP/2":        {host: "evil.example", http2: true},
		"its own page":                     {host: loopback, method: http.MethodPost, origin: "http://" + loopback},
		"the same, by Sec-Fetch-Site":      {host: loopback, method: http.MethodPost, origin: "http://" + loopback, site: "same-origin"},
		"its own page at the default port": {host: "localhost", method: http.MethodPost, origin: "http://localhost"},
		"the same with the port":           {host: "localhost:80", method: http.MethodPost, origin: "http://localhost"},
		"its own page with TLS":            {host: "localhost:443", method: http.MethodPost, origin: "https://localhost", tls: true},
		"its own page behind TLS":          {host: "localhost", method: http.MethodPost, origin: "https://ci.example:8443", site: "same-origin"},
		"an allowed page":                  {host: loopback, method: http.MethodPost, origin: allowedOrigin},
		"an allowed page, cross-site":      {host: loopback, method: http.MethodPost, origin: allowedOrigin, site: "cross-site"},
		"an allowed page asks first":       {host: loopback, method: http.MethodOptions, origin: allowedOrigin, site: "same-site"},
		"an allowed page gets":             {host: loopback, origin: allowedOrigin, site: "cross-site"},
		"an address that was typed":        {host: loopback, site: "none"},
	} {
		require.Equal(t, http.StatusOK, p.ask(t, slog.New(slog.DiscardHandler)).Code, name)
	}
}

// Requests that a foreign page can have caused are refused, for all methods and listeners. The
// message has the header, the rule and the option that changes it.
func TestForeignPagesAreRefused(t *testing.T) {
	t.Parallel()
	const (
		loopback = "127.0.0.1:8080"
		host     = "the header Host must be localhost, a loopback address or one of --allowed-hosts, and is "
		origin   = "the header Origin must be the controller's own origin or one of --allow-origins, and is "
		site     = "the header Sec-Fetch-Site must be same-origin or none, unless there is an Origin that is one of --allow-origins, and is "
	)
	for name, tt := range map[string]struct {
		request pageRequest
		message string
	}{
		"a name that was rebound":                 {pageRequest{host: "evil.example:8080", origin: "http://evil.example:8080"}, host + `"evil.example:8080"`},
		"a GET of its page":                       {pageRequest{host: "evil.example:8080"}, host + `"evil.example:8080"`},
		"one that ends with localhost":            {pageRequest{host: "evillocalhost:8080"}, host + `"evillocalhost:8080"`},
		"one that begins with localhost":          {pageRequest{host: "localhost.evil.example"}, host + `"localhost.evil.example"`},
		"one that begins with an address":         {pageRequest{host: "127.0.0.1.evil.example"}, host + `"127.0.0.1.evil.example"`},
		"below an allowed host":                   {pageRequest{host: "a.controller.example"}, host + `"a.controller.example"`},
		"the wildcard address":                    {pageRequest{host: "0.0.0.0:8080"}, host + `"0.0.0.0:8080"`},
		"another address":                         {pageRequest{host: "192.0.2.8"}, host + `"192.0.2.8"`},
		"a foreign page":                          {pageRequest{host: loopback, origin: "https://evil.example"}, origin + `"https://evil.example"`},
		"the same, posting":                       {pageRequest{host: loopback, origin: "https://evil.example", method: http.MethodPost}, origin + `"https://evil.example"`},
		"the same, asking first":                  {pageRequest{host: loopback, origin: "https://evil.example", method: http.MethodOptions}, origin + `"https://evil.example"`},
		"the same on other listeners":             {pageRequest{host: "ci.example", origin: "http://evil.example", exposed: true}, origin + `"http://evil.example"`},
		"the same over HTTP/2":                    {pageRequest{host: "ci.example", origin: "http://evil.example", tls: true, http2: true}, origin + `"http://evil.example"`},
		"a page without an origin":                {pageRequest{host: loopback, origin: "null"}, origin + `"null"`},
		"a page of another port":                  {pageRequest{host: loopback, origin: "http://127.0.0.1:9", site: "same-site"}, origin + `"http://127.0.0.1:9"`},
		"a page of another scheme":                {pageRequest{host: "localhost", origin: "https://localhost"}, origin + `"https://localhost"`},
		"an extension":                            {pageRequest{host: loopback, origin: "chrome-extension://abc", site: "none"}, origin + `"chrome-extension://abc"`},
		"an image on a foreign page":              {pageRequest{host: loopback, site: "cross-site"}, site + `"cross-site"`},
		"an image over HTTP/2":                    {pageRequest{host: "ci.example", site: "cross-site", tls: true, http2: true, exposed: true}, site + `"cross-site"`},
		"an image on another port":                {pageRequest{host: loopback, site: "same-site"}, site + `"same-site"`},
		"redirected by a foreign page":            {pageRequest{host: loopback, origin: "http://" + loopback, site: "cross-site"}, site + `"cross-site"`},
		"a value that browsers do not send today": {pageRequest{host: loopback, site: "?"}, site + `"?"`},
	} {
		var log bytes.Buffer
		w := tt.request.ask(t, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
		require.Equal(t, http.StatusForbidden, w.Code, name)
		var body struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		}
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &body), name)
		require.Equal(t, "permission_denied", body.Code, name)
		require.Equal(t, tt.message, body.Message, name)
		require.Empty(t, w.Header().Get("Access-Control-Allow-Origin"))
		require.Contains(t, log.String(), "level=DEBUG msg=\"request refused: a web page may have caused it\" header=", name)
		require.Contains(t, log.String(), "path="+pollPath)
	}
}

// A repeated header is refused: browsers send it once.
func TestRepeatedHeadersAreForeign(t *testing.T) {
	t.Parallel()
	for header, values := range map[string][]string{
		"Origin":         {allowedOrigin, "https://evil.example"},
		"Sec-Fetch-Site": {"same-origin", "cross-site"},
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, pollPath, http.NoBody)
		r.Header[header] = values
		w := httptest.NewRecorder()
		RestrictBrowsers(http.NotFoundHandler(), BrowserRules{
			Origins: []string{allowedOrigin}, Refuse: rpc.WriteForbidden, Log: slog.New(slog.DiscardHandler),
		}).ServeHTTP(w, r)
		require.Equal(t, http.StatusForbidden, w.Code, header)
	}
}
