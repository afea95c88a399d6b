package faults

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"

	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
)

// plants are secrets that a test has given to the controller, and where.
type plants map[string]string

// text returns a new secret.
func (p plants) text(where string) string {
	secret := fmt.Sprintf("PLANT%dTNALP", 1_000_000+len(p))
	p[secret] = where
	return secret
}

// number returns a new secret that is a number.
func (p plants) number(where string) int64 {
	n := 918_273_645_000_000 + int64(len(p))
	p[strconv.FormatInt(n, 10)] = where
	return n
}

// params returns parameters with secrets under names in several spellings.
func (p plants) params(where string) *commands.Command {
	c := &commands.Command{
		Type: "update_config", StringParams: map[string]string{"note": visible, "config_key": "github.token", "runner_url": "https://x"},
		IntParams: map[string]int64{"pin_secret": p.number(where), "n": 1}, BoolParams: map[string]bool{"is_password": true},
		StringArrayParams: []string{"token"},
	}
	for _, name := range []string{"config_value", "api_token", "clientSecret", "db-password", "API_KEY", "encodedJitConfig"} {
		c.StringParams[name] = p.text(where + ", " + name)
	}
	return c
}

// visible is under names that are not secret, so it can be read.
const visible = "VISIBLE-PLANT"

// found returns where the secrets in a text were planted.
func (p plants) found(text []byte) (where []string) {
	for secret, at := range p {
		if bytes.Contains(text, []byte(secret)) {
			where = append(where, at)
		}
	}
	return where
}

// tape records what the controller answers and exports.
type tape struct {
	mu    sync.Mutex
	text  []byte
	paths map[string]bool
}

// Write records a text.
func (r *tape) Write(text []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.text = append(r.text, text...)
	return len(text), nil
}

func (r *tape) bytes() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.Clone(r.text)
}

// ServeHTTP records spans, as a collector.
func (r *tape) ServeHTTP(_ http.ResponseWriter, request *http.Request) {
	_, _ = io.Copy(r, request.Body)
}

// recorder records responses.
type recorder struct {
	*tape
	to http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (r recorder) RoundTrip(request *http.Request) (*http.Response, error) {
	answer, err := r.to.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.paths[request.URL.Path] = true
	r.mu.Unlock()
	_ = answer.Header.Write(r)
	answer.Body = struct {
		io.Reader
		io.Closer
	}{io.TeeReader(answer.Body, r), answer.Body}
	return answer, nil
}
