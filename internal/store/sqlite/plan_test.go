package sqlite

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/store"
)

// No query scans a table to find a few rows, or sorts its result.
func TestQueriesUseIndexes(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	yes, after := true, int64(7)
	type selected struct {
		q    string
		args []any
	}
	of := func(q string, args []any) selected { return selected{q, args} }
	for index, query := range map[string]selected{
		"USING INDEX sqlite_autoindex_vms_1":           {vmByID, []any{"a"}},
		"USING INDEX sqlite_autoindex_commands_1":      {commandByID, []any{"c"}},
		"USING INDEX commands_queue":                   {queuesQuery(2), []any{"a", "out", 1, "a", "plain", 1}},
		"USING INDEX vms_due":                          {dueVMs, []any{1, 1}},
		"USING INDEX commands_due":                     {dueCommands, []any{1, 1}},
		"USING INDEX vms_by_pool":                      of(selectVMs(store.VMQuery{Pool: "p", After: "a"}, 1)),
		"USING INDEX vms_by_org":                       of(selectVMs(store.VMQuery{Org: "o", After: "a"}, 1)),
		"USING INDEX vms_by_status":                    of(selectVMs(store.VMQuery{Status: "s", After: "a"}, 1)),
		"USING INDEX vms_connected":                    of(selectVMs(store.VMQuery{Connected: &yes, After: "a"}, 1)),
		"USING INDEX sqlite_autoindex_vms_1 (vm_id>?)": of(selectVMs(store.VMQuery{After: "a"}, 1)),
		"USING INDEX commands_by_vm":                   of(selectCommands(store.CommandQuery{VM: "a", Before: 9}, 1)),
		"USING INDEX commands_by_type":                 of(selectCommands(store.CommandQuery{Type: "t", Before: 9}, 1)),
		"commands USING INDEX commands_finished":       of(selectLastFinished(store.FinishedQuery{States: []string{"SUCCEEDED"}, Since: t0}, 1)),
		"commands USING INTEGER PRIMARY KEY":           of(selectCommands(store.CommandQuery{Before: 9}, 1)),
		"USING INDEX events_by_vm":                     of(selectEvents(store.EventQuery{VM: "a", Before: 9}, 1)),
		"USING INDEX events_by_type":                   of(selectEvents(store.EventQuery{Type: "a", After: &after}, 1)),
		"events USING INTEGER PRIMARY KEY":             of(selectEvents(store.EventQuery{After: &after}, 1)),
		"USING INDEX heartbeats_by_time":               of(selectHeartbeats(store.HeartbeatQuery{VM: "a", Before: t0}, 1)),
		"c USING INTEGER PRIMARY KEY":                  of(selectChanges(store.ChangeQuery{After: 5}, 1)),
		"e USING INTEGER PRIMARY KEY":                  of(selectChanges(store.ChangeQuery{After: 5, VM: "a"}, 1)),
		"USING INDEX audit_by_principal":               of(selectAudit(store.AuditQuery{Principal: "p", Before: 9}, 1)),
		"USING INDEX audit_by_action":                  of(selectAudit(store.AuditQuery{Action: "a", Before: 9}, 1)),
		"USING INDEX audit_by_vm":                      of(selectAudit(store.AuditQuery{VM: "a", Before: 9}, 1)),
		"USING INDEX audit_by_command":                 of(selectAudit(store.AuditQuery{Command: "c", VM: "a", Principal: "p"}, 1)),
		"USING INDEX audit_by_outcome":                 of(selectAudit(store.AuditQuery{Outcome: "internal", Before: 9}, 1)),
		"audit USING INTEGER PRIMARY KEY":              of(selectAudit(store.AuditQuery{Outcome: "ok", Pools: []string{"p"}, Before: 9}, 1)),
		"INDEX audit_by_time":                          {purgeAudit, []any{1, 1}},
		"INDEX events_by_time":                         {purgeEvents, []any{1, 1, 1}},
		"INDEX commands_finished":                      {purgeCommands, []any{1, 1}},
		"INDEX vms_gone":                               {purgeVMs, []any{1, 1}},
	} {
		steps := plan(t, db, query.q, query.args...)
		require.Contains(t, steps, index, query.q)
		require.NotContains(t, strings.ReplaceAll(steps, "SCAN (subquery", ""), "SCAN ", query.q)
		require.NotContains(t, steps, "TEMP B-TREE FOR ORDER BY", query.q)
	}
}

// Lists of pools search indexes, and sort at most keys: never rows with their documents.
func TestQueriesOfPoolsUseIndexes(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	pools, after := []string{"p", "q", "r"}, int64(7)
	type selected struct {
		q    string
		args []any
	}
	of := func(q string, args []any) selected { return selected{q, args} }
	for name, test := range map[string]struct {
		query selected
		steps []string
		// sorts is whether the keys are sorted.
		sorts bool
	}{
		"VMs of a pool": {
			query: of(selectVMs(store.VMQuery{Pools: pools[:1], After: "a"}, 1)),
			steps: []string{"SEARCH vms USING INDEX vms_by_pool (pool_id=? AND vm_id>?)"},
		},
		"VMs of pools": {
			query: of(selectVMs(store.VMQuery{Pools: pools, After: "a"}, 1)),
			steps: []string{
				"SEARCH vms USING INDEX sqlite_autoindex_vms_1 (vm_id=?)",
				"SEARCH vms USING COVERING INDEX vms_by_pool (pool_id=? AND vm_id>?)",
			},
			sorts: true,
		},
		"VMs of pools by status": {
			query: of(selectVMs(store.VMQuery{Pools: pools, Status: "idle"}, 1)),
			steps: []string{"SEARCH vms USING COVERING INDEX vms_by_pool (pool_id=?)"},
			sorts: true,
		},
		"commands of a VM": {
			query: of(selectCommands(store.CommandQuery{VM: "a", Pools: pools, Before: 9}, 1)),
			steps: []string{
				"SEARCH commands USING INDEX commands_by_vm (vm_id=? AND seq<?)",
				"SEARCH vms USING COVERING INDEX vms_by_pool (pool_id=? AND vm_id=?)",
			},
		},
		"open commands": {
			query: of(selectCommands(store.CommandQuery{States: []string{"PENDING"}, Pools: pools}, 1)),
			steps: []string{"SEARCH commands USING INTEGER PRIMARY KEY (rowid=?)", "vms_by_pool (pool_id=? AND vm_id=?)", "INDEX commands_queue"},
		},
		"recent commands": {
			query: of(selectRecentCommands(store.CommandQuery{Type: "drain", Pools: pools}, 1)),
			steps: []string{
				"SEARCH commands USING INTEGER PRIMARY KEY (rowid>?)",
				"SEARCH vms USING COVERING INDEX vms_by_pool (pool_id=? AND vm_id=?)",
			},
		},
		"all commands": {
			query: of(selectCommandsOfPools(store.CommandQuery{Pools: pools, Before: 9}, 1)),
			steps: []string{
				"SEARCH commands USING INTEGER PRIMARY KEY (rowid=?)",
				"SEARCH commands USING COVERING INDEX commands_by_vm (vm_id=? AND seq<?)",
				"SEARCH vms USING COVERING INDEX vms_by_pool (pool_id=?)",
			},
			sorts: true,
		},
		"commands of a type": {
			query: of(selectCommandsOfPools(store.CommandQuery{Type: "drain", States: []string{"SUCCEEDED"}, Pools: pools}, 1)),
			steps: []string{"SEARCH commands USING INDEX commands_by_vm (vm_id=?)"},
			sorts: true,
		},
		"recent events": {
			query: of(selectRecentEvents(store.EventQuery{Type: "a", Since: t0, Pools: pools, Before: 9}, 1)),
			steps: []string{
				"SEARCH events USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)",
				"SEARCH vms USING COVERING INDEX vms_by_pool (pool_id=? AND vm_id=?)",
			},
		},
		"all events": {
			query: of(selectEventsOfPools(store.EventQuery{Pools: pools, Before: 9}, 1)),
			steps: []string{
				"SEARCH events USING INTEGER PRIMARY KEY (rowid=?)",
				"SEARCH events USING COVERING INDEX events_by_vm (vm_id=? AND seq<?)",
				"SEARCH vms USING COVERING INDEX vms_by_pool (pool_id=?)",
			},
			sorts: true,
		},
		"later events": {
			query: of(selectEventsOfPools(store.EventQuery{Pools: pools, After: &after}, 1)),
			steps: []string{"SEARCH events USING COVERING INDEX events_by_vm (vm_id=? AND seq>?)"},
			sorts: true,
		},
		"changes": {
			query: of(selectChanges(store.ChangeQuery{Pools: pools, After: 5}, 1)),
			steps: []string{"SEARCH c USING INTEGER PRIMARY KEY (rowid>?)"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			steps := plan(t, db, test.query.q, test.query.args...)
			for _, step := range test.steps {
				require.Contains(t, steps, step, test.query.q)
			}
			require.NotContains(t, strings.ReplaceAll(steps, "SCAN commands USING", ""), "SCAN ", "only indexes of open commands are scanned")
			outer, inner, _ := strings.Cut(steps, "LIST SUBQUERY")
			require.NotContains(t, outer, "TEMP B-TREE", test.query.q)
			require.Equal(t, test.sorts, strings.Contains(inner, "TEMP B-TREE FOR ORDER BY"), steps)
		})
	}
}

// Rows are counted in indexes alone, which take a small part of the space of the tables.
func TestCountsReadIndexesOnly(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	require.Contains(t, plan(t, db, countVMs), "SCAN vms USING COVERING INDEX vms_by_pool\n")
	require.Contains(t, plan(t, db, countQueues), "SCAN commands USING COVERING INDEX commands_queue\n")
	require.Contains(t, plan(t, db, countQueues), "SEARCH vms USING COVERING INDEX vms_connected (vm_id=?)\n")
}

// What is damaged is not counted, and does not prevent the count.
func TestCountsWithDamage(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	commit(t, db, store.Writes{VMs: []store.VMRow{vm("a"), vm("b")}, Commands: []store.CommandRow{command("c"), command("d")}})
	require.NoError(t, db.write(t.Context(), func(ctx context.Context, c *conn) (int64, error) {
		_, err := c.exec(ctx, `UPDATE vms SET pool_id = x'01' WHERE vm_id = 'a'`)
		if err == nil {
			_, err = c.exec(ctx, `UPDATE commands SET queue = x'01' WHERE id = 'c'`)
		}
		return 0, err
	}))
	counts, err := db.Counts(t.Context())
	require.NoError(t, err)
	require.Len(t, counts.VMs, 1)
	require.EqualValues(t, 1, counts.VMs[0].N)
	require.Len(t, counts.Queues, 1)
	require.EqualValues(t, 2, counts.Queues[0].First)
}

// A query for commands in rare states does not read all commands.
func TestFewCommandsAreFoundByIndex(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	for index, states := range map[string][]string{
		"commands_queue":    {"PENDING", "DELIVERED"},
		"commands_unqueued": {"PENDING", "DELIVERED"},
		"commands_failed":   {"FAILED", "TIMED_OUT", "EXPIRED", "CANCELLED"},
	} {
		for _, before := range []int64{0, 9} {
			for n := range states {
				for _, query := range []store.CommandQuery{
					{States: states[n:], Before: before},
					{States: []string{"PENDING", "FAILED"}, Before: before},
				} {
					q, args := selectCommands(query, 100)
					steps := plan(t, db, q, args...)
					require.Contains(t, steps, "INDEX "+index, q)
					require.NotContains(t, steps, "SCAN commands\n", q)
				}
			}
		}
	}
}

// Every combination of state and queue is found: a driver has no rule about which states go
// with a queue.
func TestStatesFindAll(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	states := []string{"PENDING", "DELIVERED", "SUCCEEDED", "FAILED", "OTHER"}
	var w store.Writes
	want := map[string][]string{}
	for _, state := range states {
		for _, queue := range []string{"", "plain"} {
			c := command(state + "-" + queue)
			c.State, c.Queue = state, queue
			w.Commands = append(w.Commands, c)
			want[state] = append(want[state], c.ID)
		}
	}
	commit(t, db, w)
	for chosen := 1; chosen < 1<<len(states); chosen++ {
		var q store.CommandQuery
		var ids, found []string
		for i, state := range states {
			if chosen&(1<<i) != 0 {
				q.States = append(q.States, state, state)
				ids = append(ids, want[state]...)
			}
		}
		commands, _, err := db.Commands(t.Context(), q, 100)
		require.NoError(t, err)
		for _, c := range commands {
			found = append(found, c.ID)
		}
		require.ElementsMatch(t, ids, found, q.States)
	}
}

// plan is SQLite's plan for a query, one step per line.
func plan(t *testing.T, db *DB, q string, args ...any) string {
	t.Helper()
	var steps strings.Builder
	require.NoError(t, db.read(t.Context(), func(c *conn) error {
		rows, err := c.sql.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+q, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id, parent, unused int
			var step string
			require.NoError(t, rows.Scan(&id, &parent, &unused, &step))
			fmt.Fprintln(&steps, step)
		}
		return rows.Err()
	}))
	return steps.String()
}

// An update of a VM whose filter columns are unchanged does not write to their indexes.
func TestUpdatesLeaveIndexesAlone(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	var written []string
	require.NoError(t, db.read(t.Context(), func(c *conn) error {
		rows, err := c.sql.QueryContext(t.Context(), "EXPLAIN "+touchVM, 1, 2, 3, 4, 5, 6, 7, 8, 9)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var op string
			var index, unused any
			require.NoError(t, rows.Scan(&unused, &op, &unused, &unused, &unused, &index, &unused, &unused))
			if op == "IdxDelete" {
				written = append(written, fmt.Sprint(index))
			}
		}
		return rows.Err()
	}))
	require.ElementsMatch(t, []string{"vms_gone", "vms_due"}, written) // the indexes for disconnected VMs and for times
}

// A VM is listed by its current values, whichever of them have changed.
func TestListsFollowUpdates(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	v := vm("vm")
	commit(t, db, store.Writes{VMs: []store.VMRow{v}})
	for _, change := range []func(){
		func() {},
		func() { v.Pool = "p2" },
		func() { v.Org = "o2" },
		func() { v.Status = "busy" },
		func() { v.Connected = true },
		func() { v.LastSeenAt, v.DueAt = t0.Add(time.Second), t0.Add(time.Minute) },
		func() { v.Connected, v.DueAt = false, time.Time{} },
	} {
		change()
		v.Version++
		commit(t, db, store.Writes{VMs: []store.VMRow{v}})
		want := v
		want.Row = 1
		want.Version++
		for _, q := range []store.VMQuery{{Pool: v.Pool}, {Org: v.Org}, {Status: v.Status}, {Connected: &v.Connected}} {
			vms, _, err := db.VMs(t.Context(), q, 10)
			require.NoError(t, err)
			require.Equal(t, []store.VMRow{want}, vms, q)
		}
		for _, q := range []store.VMQuery{{Pool: "none"}, {Org: "none"}, {Status: "none"}, {Connected: new(!v.Connected)}} {
			vms, _, err := db.VMs(t.Context(), q, 10)
			require.NoError(t, err)
			require.Empty(t, vms, q)
		}
		due, _, err := db.Due(t.Context(), t0.Add(time.Hour), 10)
		require.NoError(t, err)
		require.Equal(t, !v.DueAt.IsZero(), len(due.VMs) == 1)
	}
}
