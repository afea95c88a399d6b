package monitoring

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/mig-controller/mig-controller/internal/testkit"
)

// rule is an alert.
type rule struct {
	Alert, Expr, For    string
	Labels, Annotations map[string]string
}

// unitTest is a test of rules by promtool.
type unitTest struct {
	AlertRuleTest []struct {
		Alertname string
		ExpAlerts []any `yaml:"exp_alerts"`
	} `yaml:"alert_rule_test"`
}

// prometheusDir has the configuration of Prometheus.
var prometheusDir = filepath.Join(testkit.Repository, "deploy", "prometheus")

// readYAML reads a file in prometheusDir.
func readYAML(t *testing.T, name string, into any) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(prometheusDir, name))
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(content, into))
}

func readRules(t *testing.T) (all []rule) {
	t.Helper()
	var file struct{ Groups []struct{ Rules []rule } }
	readYAML(t, "alerts.yml", &file)
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	require.NotEmpty(t, all)
	return all
}

// promtool runs promtool in prometheusDir and requires that it succeeds.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), testkit.Prometheus(t, "promtool"), args...)
	cmd.Dir = prometheusDir
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
}

// Prometheus accepts the configuration and the rules, and the rules pass their tests.
func TestPromtool(t *testing.T) {
	t.Parallel()
	promtool(t, "check", "config", "prometheus.yml")
	promtool(t, "check", "rules", "--lint-fatal", "alerts.yml")
	promtool(t, "test", "rules", "alerts_test.yml")
}

// The rules and the dashboard use the job in the configuration, and no other.
func TestJob(t *testing.T) {
	t.Parallel()
	var config struct {
		RuleFiles     []string `yaml:"rule_files"`
		ScrapeConfigs []struct {
			JobName string `yaml:"job_name"`
		} `yaml:"scrape_configs"`
	}
	readYAML(t, "prometheus.yml", &config)
	require.Equal(t, []string{"alerts.yml"}, config.RuleFiles)
	require.Len(t, config.ScrapeConfigs, 1)
	used := map[string]bool{}
	for _, expr := range queries(t) {
		for _, match := range regexp.MustCompile(`\bjob="([^"]*)"`).FindAllStringSubmatch(expr, -1) {
			used[match[1]] = true
		}
	}
	require.Equal(t, map[string]bool{config.ScrapeConfigs[0].JobName: true}, used)
}

// Each alert is tested by promtool: that it fires, and that it does not.
func TestAlertsAreTested(t *testing.T) {
	t.Parallel()
	var file struct{ Tests []unitTest }
	readYAML(t, "alerts_test.yml", &file)
	fires, silent := map[string]bool{}, map[string]bool{}
	for _, test := range file.Tests {
		for _, c := range test.AlertRuleTest {
			fires[c.Alertname] = fires[c.Alertname] || len(c.ExpAlerts) > 0
			silent[c.Alertname] = silent[c.Alertname] || len(c.ExpAlerts) == 0
		}
	}
	for _, r := range readRules(t) {
		require.True(t, fires[r.Alert], "no test in alerts_test.yml makes %s fire", r.Alert)
		require.True(t, silent[r.Alert], "no test in alerts_test.yml expects that %s does not fire", r.Alert)
	}
}

// Each alert has a severity, texts, and a link to its section of the runbook. Each section that
// is named like an alert belongs to one, and has the parts that readers look for.
func TestAlertsHaveARunbook(t *testing.T) {
	t.Parallel()
	const page = "https://github.com/mig-controller/mig-controller/blob/main/docs/runbook.md#"
	content, err := os.ReadFile(filepath.Join(testkit.Repository, "docs", "runbook.md"))
	require.NoError(t, err)
	var alerts []string
	for _, r := range readRules(t) {
		require.Regexp(t, `^MIG[A-Z]\w+$`, r.Alert)
		require.Contains(t, []string{"critical", "warning"}, r.Labels["severity"], r.Alert)
		require.NotEmpty(t, r.Annotations["summary"], r.Alert)
		require.NotEmpty(t, r.Annotations["description"], r.Alert)
		require.Equal(t, page+strings.ToLower(r.Alert), r.Annotations["runbook_url"])
		alerts = append(alerts, r.Alert)
	}
	var sections []string
	for section := range strings.SplitSeq(string(content), "\n## ") {
		name, text, _ := strings.Cut(section, "\n")
		if !strings.HasPrefix(name, "MIG") {
			continue
		}
		sections = append(sections, name)
		for _, part := range []string{"**Meaning.**", "**Inspect.**", "**Act.**", "migctl "} {
			require.Contains(t, text, part, name)
		}
	}
	require.Equal(t, alerts, sections, "the sections of docs/runbook.md, in the order of alerts.yml")
}

// metricName matches the metrics of the controller in queries.
var metricName = regexp.MustCompile(`\bmigcontroller_\w+`)

// Every metric in a rule, in the dashboard or in a document is one that the controller has.
func TestMetricsExist(t *testing.T) {
	t.Parallel()
	content, err := os.ReadFile(filepath.Join(testkit.Repository, "docs", "metrics.md"))
	require.NoError(t, err)
	types := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(migcontroller_\\w+)` \\| (\\w+) \\|").FindAllStringSubmatch(string(content), -1) {
		types[row[1]] = row[2]
	}
	require.NotEmpty(t, types)
	for _, expr := range queries(t) {
		for _, name := range metricName.FindAllString(expr, -1) {
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				if base := strings.TrimSuffix(name, suffix); types[base] == "histogram" {
					name = base
				}
			}
			require.Contains(t, types, name, "docs/metrics.md does not have it, but this does: %s", expr)
		}
	}
}

// queries returns the queries of all rules and of the dashboard, with its variables, and the
// documents about both.
func queries(t *testing.T) (all []string) {
	t.Helper()
	for _, r := range readRules(t) {
		all = append(all, r.Expr)
	}
	d := testkit.ReadDashboard(t)
	for _, p := range d.Panels {
		for _, q := range p.Targets {
			all = append(all, q.Expr)
		}
	}
	for _, v := range d.Templating.List {
		all = append(all, v.Definition)
	}
	for _, page := range []string{"monitoring.md", "runbook.md"} {
		content, err := os.ReadFile(filepath.Join(testkit.Repository, "docs", page))
		require.NoError(t, err)
		all = append(all, string(content))
	}
	return all
}
