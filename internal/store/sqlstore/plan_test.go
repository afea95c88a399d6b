package sqlstore

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

// Looking for commands that are few does not read all that there are.
func TestFewCommandsAreFoundByIndex(t *testing.T) {
	t.Parallel()
	db := openTest(t, filepath.Join(t.TempDir(), "controller.db"))
	for index, states := range map[string][]fleet.CommandState{
		"commands_due":    {fleet.Pending, fleet.Delivered},
		"commands_failed": {fleet.Failed, fleet.TimedOut, fleet.Expired, fleet.Cancelled},
	} {
		for _, page := range []store.Page{{Size: 100}, {Size: 100, Before: 9}} {
			for n := range states {
				q, args := selectCommands(store.CommandFilter{States: states[n:]}, page)
				require.Contains(t, plan(t, db, q, args...), "INDEX "+index, q)
			}
			mixed, args := selectCommands(store.CommandFilter{States: []fleet.CommandState{fleet.Pending, fleet.Failed}}, page)
			require.Contains(t, plan(t, db, mixed, args...), "INDEX "+index, mixed)
		}
	}
}

// So does looking for those that ended last.
func TestLastAcksAreFoundByIndex(t *testing.T) {
	t.Parallel()
	db := openTest(t, filepath.Join(t.TempDir(), "controller.db"))
	require.Equal(t, 2, strings.Count(plan(t, db, lastAcked, 0), "INDEX commands_finished"))
}

// plan is how SQLite goes about a query.
func plan(t *testing.T, db *DB, q string, args ...any) string {
	t.Helper()
	rows, err := db.read.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+q, args...)
	require.NoError(t, err)
	defer func() { require.NoError(t, rows.Close()) }()
	var steps []string
	for rows.Next() {
		var id, parent, unused int
		var step string
		require.NoError(t, rows.Scan(&id, &parent, &unused, &step))
		steps = append(steps, step)
	}
	require.NoError(t, rows.Err())
	return strings.Join(steps, "\n")
}
