package faults

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/testkit"
)

// prometheus is Debian's Prometheus, or the one in PATH, with the configuration and the rules in
// deploy/prometheus. For it time runs 60 times as fast: seconds replace the minutes of the
// rules. It scrapes each second.
type prometheus struct {
	*child
	client *http.Client
	addr   string
}

// startPrometheus starts a Prometheus that scrapes these targets, http:// or https:// URLs,
// and waits until it has scraped each. Replacements change the configuration or the rules.
func startPrometheus(t *testing.T, targets []string, replaced ...string) *prometheus {
	t.Helper()
	dir := t.TempDir()
	var list strings.Builder
	for _, target := range targets {
		scheme, addr, _ := strings.Cut(target, "://")
		list.WriteString("- {targets: ['" + addr + "'], labels: {__scheme__: " + scheme + "}}\n      ")
	}
	replaced = append([]string{"- targets: [localhost:8080]", list.String(), "_interval: 15s", "_interval: 1s"}, replaced...)
	for _, name := range []string{"prometheus.yml", "alerts.yml"} {
		content, err := os.ReadFile(filepath.Join(testkit.Repository, "deploy", "prometheus", name))
		require.NoError(t, err)
		text := faster(strings.NewReplacer(replaced...).Replace(string(content)))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	p := &prometheus{addr: freePorts(t, 1)[0], client: &http.Client{Timeout: patience}}
	p.serve(t, exec.CommandContext(t.Context(), testkit.Prometheus(t, "prometheus"),
		"--config.file="+filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+p.addr, "--log.level=warn"))
	await(t, func() bool { return len(p.query(t, "up == 1")) == len(targets) }, "not every target is scraped")
	return p
}

// serve starts the program, and waits until it is ready.
func (p *prometheus) serve(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	p.child = startChild(t, cmd)
	t.Cleanup(p.client.CloseIdleConnections)
	awaitListener(t, p.addr, p.child)
	await(t, func() bool {
		status, _ := p.fetch(t, "/-/ready")
		return status == http.StatusOK
	}, "it is not ready")
}

// duration matches a duration in the rules: after for:, or as a range or its resolution.
var duration = regexp.MustCompile(`(for: |\[|:)(\d+)([mh])`)

// faster returns rules in which seconds replace minutes, and minutes replace hours.
func faster(rules string) string {
	return duration.ReplaceAllStringFunc(rules, func(s string) string {
		return strings.NewReplacer("m", "s", "h", "m").Replace(s)
	})
}

// sample is a value of a time series, without its time.
type sample struct {
	Metric map[string]string
	Value  []any
}

// query returns the result of a query now.
func (p *prometheus) query(t *testing.T, expr string) []sample {
	t.Helper()
	var result struct{ Result []sample }
	p.get(t, "query?query="+url.QueryEscape(expr), &result)
	return result.Result
}

// alert is an alert that is pending or firing.
type alert struct {
	Labels   map[string]string
	State    string
	ActiveAt time.Time
}

// firing returns the alerts that are firing.
func (p *prometheus) firing(t *testing.T) (all []alert) {
	t.Helper()
	var list struct{ Alerts []alert }
	p.get(t, "alerts", &list)
	for _, a := range list.Alerts {
		if a.State == "firing" {
			all = append(all, a)
		}
	}
	return all
}

// get reads a response of Prometheus' API.
func (p *prometheus) get(t *testing.T, path string, data any) {
	t.Helper()
	status, body := p.fetch(t, "/api/v1/"+path)
	require.Equal(t, http.StatusOK, status, string(body))
	var envelope struct {
		Data json.RawMessage `json:"data"`
	}
	require.NoError(t, json.Unmarshal(body, &envelope))
	require.NoError(t, json.Unmarshal(envelope.Data, data))
}

func (p *prometheus) fetch(t *testing.T, path string) (status int, body []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+p.addr+path, http.NoBody)
	require.NoError(t, err)
	answer, err := p.client.Do(req)
	require.NoError(t, err)
	defer answer.Body.Close()
	body, err = io.ReadAll(answer.Body)
	require.NoError(t, err)
	return answer.StatusCode, body
}

// awaitQuiet waits until no alert fires. At the start of Prometheus, MIGControllerDown may fire
// because nothing has been scraped yet.
func (p *prometheus) awaitQuiet(t *testing.T) {
	t.Helper()
	await(t, func() bool { return len(p.firing(t)) == 0 }, "an alert fires before the fault")
}

// awaitAlert waits until an alert with these labels fires, and returns it. Labels are names,
// each followed by its value.
func (p *prometheus) awaitAlert(t *testing.T, name string, labels ...string) (found alert) {
	t.Helper()
	awaitFor(t, 2*patience, func() bool {
		for _, found = range p.firing(t) {
			if found.has(append(labels, "alertname", name)) {
				return true
			}
		}
		return false
	}, "%s does not fire", name)
	return found
}

func (a alert) has(labels []string) bool {
	for i := 0; i < len(labels); i += 2 {
		if a.Labels[labels[i]] != labels[i+1] {
			return false
		}
	}
	return true
}

// awaitEnd waits until an alert no longer fires.
func (p *prometheus) awaitEnd(t *testing.T, name string) {
	t.Helper()
	awaitFor(t, 2*patience, func() bool { return !p.fires(t, name) }, "%s still fires", name)
}

// fires reports whether an alert fires.
func (p *prometheus) fires(t *testing.T, name string) bool {
	t.Helper()
	return slices.ContainsFunc(p.firing(t), func(a alert) bool { return a.Labels["alertname"] == name })
}
