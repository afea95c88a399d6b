package monitoring

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/testkit"
)

// width is the number of columns of Grafana's grid.
const width = 24

// variables are those that Grafana itself has in queries of Prometheus.
var variables = []string{"$instance", "$pool", "$__rate_interval"}

// chosen is the data source that the reader of the dashboard has chosen.
var chosen = testkit.Datasource{Type: "prometheus", UID: "${datasource}"}

// The dashboard is one that Grafana imports: it has a stable uid and no id, and lets readers
// choose the data source, controllers and pools.
func TestDashboard(t *testing.T) {
	t.Parallel()
	d := testkit.ReadDashboard(t)
	require.Equal(t, "mig-controller", d.UID, "links to the dashboard contain it")
	require.Nil(t, d.ID, "Grafana assigns it")
	require.NotEmpty(t, d.Title)
	require.Equal(t, 39, d.SchemaVersion, "that of Grafana 10.4, which later ones migrate")
	types := map[string]string{}
	for _, v := range d.Templating.List {
		types[v.Name] = v.Type
		require.Equal(t, v.Type == "query", v.Datasource == chosen, v.Name)
	}
	for _, q := range d.Annotations.List {
		require.Equal(t, q.Expr != "", q.Datasource == chosen, "%s: Grafana's own annotations have no query", q.Expr)
	}
	require.Equal(t, map[string]string{"datasource": "datasource", "instance": "query", "pool": "query"}, types)
}

// Each panel has an id of its own, a title, a description, a unit, and queries of the data
// source that the reader chose.
func TestPanels(t *testing.T) {
	t.Parallel()
	ids := map[int]bool{}
	for _, p := range testkit.ReadDashboard(t).Panels {
		require.NotEmpty(t, p.Title, "panel %d", p.ID)
		require.False(t, ids[p.ID], "two panels have the id %d, one is %s", p.ID, p.Title)
		ids[p.ID] = true
		if p.Type == "row" {
			require.Empty(t, p.Targets, p.Title)
			continue
		}
		require.Contains(t, []string{"stat", "timeseries"}, p.Type, p.Title)
		require.NotEmpty(t, p.Description, p.Title)
		require.NotEmpty(t, p.FieldConfig.Defaults.Unit, p.Title)
		require.Equal(t, chosen, p.Datasource, p.Title)
		require.NotEmpty(t, p.Targets, p.Title)
		requireQueries(t, p)
	}
}

// requireQueries requires that the queries of a panel have different names and only variables
// that exist.
func requireQueries(t *testing.T, p testkit.Panel) {
	t.Helper()
	names := map[string]bool{}
	for _, q := range p.Targets {
		require.NotEmpty(t, q.RefID, p.Title)
		require.False(t, names[q.RefID], "%s has two queries %s", p.Title, q.RefID)
		names[q.RefID] = true
		require.Equal(t, chosen, q.Datasource, p.Title)
		rest := q.Expr
		for _, v := range variables {
			rest = strings.ReplaceAll(rest, v, "")
		}
		require.NotContains(t, rest, "$", p.Title)
		require.Equal(t, strings.Contains(q.Expr, "ALERTS"), !strings.Contains(q.Expr, `instance=~"$instance"`),
			"%s: only alerts are those of all controllers", p.Title)
	}
}

// No panel covers another one or the edge.
func TestPanelsDoNotOverlap(t *testing.T) {
	t.Parallel()
	taken := map[[2]int]string{}
	for _, p := range testkit.ReadDashboard(t).Panels {
		g := p.GridPos
		require.Positive(t, g.W, p.Title)
		require.Positive(t, g.H, p.Title)
		require.LessOrEqual(t, g.X+g.W, width, p.Title)
		for x := range g.W {
			for y := range g.H {
				cell := [2]int{g.X + x, g.Y + y}
				require.Empty(t, taken[cell], "%s covers it", p.Title)
				taken[cell] = p.Title
			}
		}
	}
}
