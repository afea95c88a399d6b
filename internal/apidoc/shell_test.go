package apidoc

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// shell runs bash commands against a controller, and records their requests and responses.
type shell struct {
	addr string

	mu        sync.Mutex
	exchanges []exchange
}

// exchange is a request with its response.
type exchange struct {
	request      *http.Request
	response     *http.Response
	sent, answer []byte
}

// newShell returns a shell for the controller at addr.
func newShell(t *testing.T, addr string) *shell {
	t.Helper()
	for _, tool := range []string{"bash", "curl", "grep", "tr"} {
		_, err := exec.LookPath(tool)
		require.NoError(t, err, "the calls of docs/api.md are made with %s: install it (on Debian: apt-get install %s)", tool, tool)
	}
	transport := &http.Transport{}
	s := &shell{}
	relay := httptest.NewServer(&httputil.ReverseProxy{
		Transport: s.recorder(transport),
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: addr}) },
	})
	t.Cleanup(func() {
		relay.Close()
		transport.CloseIdleConnections()
	})
	s.addr = relay.Listener.Addr().String()
	return s
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func (s *shell) recorder(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		var sent, answer []byte
		var err error
		if sent, r.Body, err = replayed(r.Body); err != nil {
			return nil, err
		}
		response, err := next.RoundTrip(r)
		if err != nil {
			return nil, err
		}
		if answer, response.Body, err = replayed(response.Body); err != nil {
			return nil, err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.exchanges = append(s.exchanges, exchange{r, response, sent, answer})
		return response, nil
	})
}

// replayed returns the content of a body, and a new body with the same content.
func replayed(body io.ReadCloser) ([]byte, io.ReadCloser, error) {
	if body == nil {
		return nil, nil, nil
	}
	defer func() { _ = body.Close() }()
	content, err := io.ReadAll(body)
	return content, io.NopCloser(bytes.NewReader(content)), err
}

// run runs a command of the page and returns its response.
func (s *shell) run(t *testing.T, command string) Answer {
	t.Helper()
	s.mu.Lock()
	before := len(s.exchanges)
	s.mu.Unlock()
	cmd := exec.CommandContext(t.Context(), "bash", "-c", strings.ReplaceAll(command, address, s.addr))
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s\n%s", command, out)
	s.mu.Lock()
	defer s.mu.Unlock()
	require.Len(t, s.exchanges, before+1, "a command must make one call: %s", command)
	return Answer{Status: s.exchanges[before].response.StatusCode, Text: indented(t, out)}
}

// runUntil runs a command until its response contains text.
func (s *shell) runUntil(t *testing.T, command, text string) Answer {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		a := s.run(t, command)
		if strings.Contains(strings.ReplaceAll(a.Text, `": `, `":`), text) {
			return a
		}
		require.True(t, time.Now().Before(deadline), "%s\nis not answered with %s but with\n%s", command, text, a.Text)
		select {
		case <-time.After(100 * time.Millisecond):
		case <-t.Context().Done():
		}
	}
}

// indented returns JSON messages in the form of the page.
func indented(t *testing.T, out []byte) string {
	t.Helper()
	var texts []string
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var message json.RawMessage
		err := dec.Decode(&message)
		if errors.Is(err, io.EOF) {
			return strings.Join(texts, "\n")
		}
		require.NoError(t, err, "%s", out)
		text, err := indent(message)
		require.NoError(t, err)
		texts = append(texts, text)
	}
}
