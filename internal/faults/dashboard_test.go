package faults

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/internal/testkit"
)

// Every query of the dashboard returns data for a fleet in which everything happens that the
// dashboard shows, and no alert fires.
func testDashboard(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(token, []byte("TOKEN"), 0o600))
	c := startController(t, "--registration-token-file="+token, "--runner-url=https://github.com/example/app")
	options := []string{"--agent=ideal", "--pool=pool-1", "--heartbeat-interval=500ms", "--register-time=100ms", "--job-every=1s", "--job-length=1s"}
	c.startSim(t, append(options, "--vms=5")...)
	c.startSim(t, append(options, "--vms=1", "--vm-prefix=restarted-", "--restart-every=5s")...)
	secure := startSecure(t)
	p := startPrometheus(t, []string{c.url(), "https://" + secure.addr}, "# tls_config:", "tls_config:",
		"#   ca_file: /etc/prometheus/controller.pem", "  insecure_skip_verify: true")
	dashboard, open := testkit.ReadDashboard(t), map[string]string{}
	for _, q := range dashboard.Annotations.List {
		if q.Expr != "" {
			require.Empty(t, p.query(t, substituted(q.Expr)), "nothing has been restarted")
		}
	}
	for _, panel := range dashboard.Panels {
		for _, q := range panel.Targets {
			open[panel.Title+" "+q.RefID] = substituted(q.Expr)
		}
	}
	objectives(t, open)
	awaitFor(t, 2*patience, func() bool {
		c.operate(t)
		for title, expr := range open {
			if len(p.query(t, expr)) > 0 {
				delete(open, title)
			}
		}
		return len(open) == 0
	}, "queries without data: %v", open)
	p.awaitQuiet(t)
}

// objectives adds the queries of docs/monitoring.md.
func objectives(t *testing.T, queries map[string]string) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(testkit.Repository, "docs", "monitoring.md"))
	require.NoError(t, err)
	_, section, found := strings.Cut(string(content), "\n## Objectives\n")
	require.True(t, found)
	for _, code := range regexp.MustCompile("`([^`]+\\[.+?)`").FindAllStringSubmatch(section, -1) {
		queries["docs/monitoring.md: "+code[1]] = strings.NewReplacer(`\|`, "|", "[30d:1m]", "[30s:1s]").Replace(code[1])
	}
	require.Greater(t, len(queries), 4)
}

// operate does what operators do: a call that succeeds, one that fails, and a command.
func (c *controller) operate(t *testing.T) {
	t.Helper()
	_, err := c.admin.GetVM(t.Context(), &migcontrollerv1.GetVMRequest{VmId: "unknown"})
	require.Error(t, err)
	for _, vm := range c.vms(t) {
		c.send(t, vm.GetVmId(), "", withTTL(time.Minute))
	}
}

// startSecure starts a controller with TLS.
func startSecure(t *testing.T) *controller {
	t.Helper()
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "controller.pem"), filepath.Join(dir, "key.pem")
	testkit.NewIdentity(t, testkit.FarOff).Write(t, cert, key)
	return startController(t, "--tls-cert="+cert, "--tls-key="+key)
}

// substituted returns a query as Grafana sends it: every controller, every pool, and a time
// that contains several scrapes.
func substituted(expr string) string {
	return strings.NewReplacer("$instance", ".*", "$pool", ".*", "$__rate_interval", "10s").Replace(expr)
}

// The command in docs/monitoring.md starts a Prometheus that has all rules and scrapes the
// controller of make run.
func TestMonitoringPage(t *testing.T) {
	t.Parallel()
	content, err := os.ReadFile(filepath.Join(testkit.Repository, "docs", "monitoring.md"))
	require.NoError(t, err)
	command := regexp.MustCompile(`(?m)^prometheus (--config\.file=\S+) --storage\.tsdb\.path=\S+$`).FindSubmatch(content)
	require.NotNil(t, command)
	p := &prometheus{addr: freePorts(t, 1)[0], client: &http.Client{Timeout: patience}}
	cmd := exec.CommandContext(t.Context(), testkit.Prometheus(t, "prometheus"), string(command[1]),
		"--storage.tsdb.path="+t.TempDir(), "--web.listen-address="+p.addr)
	cmd.Dir = testkit.Repository
	p.serve(t, cmd)
	var rules struct{ Groups []struct{ Rules []any } }
	p.get(t, "rules", &rules)
	require.Len(t, rules.Groups, 1)
	require.Greater(t, len(rules.Groups[0].Rules), 10)
	var targets struct{ ActiveTargets []struct{ ScrapeURL string } }
	await(t, func() bool {
		p.get(t, "targets", &targets)
		return len(targets.ActiveTargets) == 1
	}, "it has no target")
	require.Equal(t, "http://localhost:8080/metrics", targets.ActiveTargets[0].ScrapeURL)
}
