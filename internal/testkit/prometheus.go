package testkit

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// Repository is the root of the repository, as seen from a package in internal/.
const Repository = "../.."

// Prometheus returns the path of a program of Prometheus: the one in PATH, or the one that
// tools/require has unpacked.
func Prometheus(t *testing.T, name string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	path, err := filepath.Abs(filepath.Join(Repository, "tools", "prometheus", name))
	require.NoError(t, err)
	require.FileExists(t, path, "%s is missing: run tools/require prometheus", name)
	return path
}

// Dashboard is what tests need of the Grafana dashboard in deploy/grafana.
type Dashboard struct {
	UID           string  `json:"uid"`
	Title         string  `json:"title"`
	ID            *int    `json:"id"`
	SchemaVersion int     `json:"schemaVersion"`
	Panels        []Panel `json:"panels"`
	Templating    struct {
		List []Variable `json:"list"`
	} `json:"templating"`
	Annotations struct {
		List []Query `json:"list"`
	} `json:"annotations"`
}

// Panel is a panel of a dashboard, or the title of a row of panels.
type Panel struct {
	ID          int        `json:"id"`
	Type        string     `json:"type"`
	Title       string     `json:"title"`
	Description string     `json:"description"`
	Datasource  Datasource `json:"datasource"`
	GridPos     struct {
		X int `json:"x"`
		Y int `json:"y"`
		W int `json:"w"`
		H int `json:"h"`
	} `json:"gridPos"`
	FieldConfig struct {
		Defaults struct {
			Unit string `json:"unit"`
		} `json:"defaults"`
	} `json:"fieldConfig"`
	Targets []Query `json:"targets"`
}

// Query is a query of a panel, or of annotations.
type Query struct {
	RefID      string     `json:"refId"`
	Datasource Datasource `json:"datasource"`
	Expr       string     `json:"expr"`
}

// Datasource is where a query is evaluated.
type Datasource struct {
	Type string `json:"type"`
	UID  string `json:"uid"`
}

// Variable is a value that readers of a dashboard choose.
type Variable struct {
	Name       string     `json:"name"`
	Type       string     `json:"type"`
	Datasource Datasource `json:"datasource"`
	Definition string     `json:"definition"`
}

// ReadDashboard returns the dashboard.
func ReadDashboard(t *testing.T) Dashboard {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(Repository, "deploy", "grafana", "dashboard.json"))
	require.NoError(t, err)
	var d Dashboard
	require.NoError(t, json.Unmarshal(content, &d))
	return d
}
