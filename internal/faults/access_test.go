package faults

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/testkit"
)

// pageRequest is a browser's request from a web page.
type pageRequest struct {
	method, path, body string
	host               string // of the page, or of its target
	origin, site       string
}

// browse sends a request as a browser does, and returns the status and the body.
func (c *controller) browse(t *testing.T, p pageRequest) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), p.method, "http://"+c.addr+p.path, strings.NewReader(p.body))
	require.NoError(t, err)
	r.Header.Set("Content-Type", "application/json")
	if p.host != "" {
		r.Host = p.host
	}
	if p.origin != "" {
		r.Header.Set("Origin", p.origin)
	}
	if p.site != "" {
		r.Header.Set("Sec-Fetch-Site", p.site)
	}
	transport := new(http.Transport)
	defer transport.CloseIdleConnections()
	answer, err := (&http.Client{Transport: transport}).Do(r)
	require.NoError(t, err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	return answer.StatusCode, string(body)
}

const (
	sendPath  = "/migcontroller.v1.AdminService/SendCommand"
	pollPath  = "/api/v1/vms/vm-1/commands"
	tokenPath = "/api/v1/vms/vm-1/registration-token"
	shutdown  = `{"vmId": "vm-1", "command": {"type": "shutdown"}}`
)

// Web pages of other sites can neither command VMs, nor take their commands, nor read a
// token.
func testBrowserPages(t *testing.T) {
	const own = "https://ci.example.com"
	c := startController(t, "--allowed-hosts=ci.example.com", "--allow-origins="+own)
	c.send(t, "vm-1", "kept")
	for name, p := range map[string]pageRequest{
		"Host":           {host: "evil.example:8080", origin: "http://evil.example:8080"},
		"Origin":         {origin: "https://evil.example", site: "cross-site"},
		"Sec-Fetch-Site": {site: "cross-site"},
	} {
		for _, call := range []pageRequest{
			{method: http.MethodPost, path: sendPath, body: shutdown},
			{method: http.MethodPost, path: tokenPath, body: `{}`},
			{method: http.MethodGet, path: pollPath},
			{method: http.MethodGet, path: "/ready"},
		} {
			p.method, p.path, p.body = call.method, call.path, call.body
			status, body := c.browse(t, p)
			require.Equal(t, http.StatusForbidden, status, "%s: %s: %s", name, p.path, body)
			require.Contains(t, body, `"permission_denied"`)
			require.Contains(t, body, "the header "+name+" must be ")
			require.NotContains(t, body, "token\"")
		}
	}
	require.Len(t, c.commands(t, "vm-1"), 1)
	require.Zero(t, c.command(t, "kept").GetAttempts())

	for _, p := range []pageRequest{
		{method: http.MethodPost, path: sendPath, body: shutdown, origin: own, site: "cross-site"},
		{method: http.MethodPost, path: sendPath, body: shutdown, origin: "http://" + c.addr, site: "same-origin"},
		{method: http.MethodPost, path: tokenPath, body: `{}`, host: "ci.example.com"},
		{method: http.MethodGet, path: "/ready", site: "none"},
		{method: http.MethodGet, path: "/ready", host: "ci.example.com:8443"},
	} {
		status, body := c.browse(t, p)
		require.Equal(t, http.StatusOK, status, "%+v: %s", p, body)
	}
	require.Len(t, c.commands(t, "vm-1"), 3)
	_, polled := c.browse(t, pageRequest{method: http.MethodGet, path: pollPath})
	require.Contains(t, polled, `"kept"`)
}

// While peers open and reset streams, as fast as the controller accepts them and on a new
// connection each time one is closed, an agent is served as before.
func testRapidReset(t *testing.T) {
	const peers, rounds = 4, 3 * time.Second
	c := startController(t)
	a := c.connectRegistered(t, "vm-1")
	ctx, cancel := context.WithTimeout(t.Context(), rounds+patience)
	defer cancel()
	over := time.Now().Add(rounds)
	ends := make(chan error, 1000)
	ended := make(chan struct{}, peers)
	for range peers {
		go func() {
			defer func() { ended <- struct{}{} }()
			for i := 0; i < 2 || time.Now().Before(over); i++ {
				ends <- testkit.RapidReset(ctx, c.addr, "/miglet.commands.CommandService/StreamCommands")
			}
		}()
	}
	c.requirePromptUntil(t, a, "round", over)
	for range peers {
		<-ended
	}
	require.GreaterOrEqual(t, len(ends), 2*peers)
	for range len(ends) {
		require.ErrorIs(t, <-ends, testkit.ErrCutOff)
	}
	c.awaitLine(t, ofMessage("connection closed: its peer resets too many streams"), `"source":"127.0.0.1"`)
	requireSameSession(t, c, a)
}
