package sqlite

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/store"
)

// openOld creates a database at path with the schema of a version, and returns a function
// to write to it.
func openOld(t *testing.T, path string, version int64) (exec func(query string, args ...any)) {
	t.Helper()
	pool, err := openPool(path, "", 1, "")
	require.NoError(t, err)
	t.Cleanup(func() { _ = pool.Close() })
	p, err := migrator(pool, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	_, err = p.UpTo(t.Context(), version)
	require.NoError(t, err)
	return func(query string, args ...any) {
		_, err := pool.ExecContext(t.Context(), query, args...)
		require.NoError(t, err)
	}
}

// The schema is the same whether it was created at once or migrated step by step, and has
// these columns.
func TestSchema(t *testing.T) {
	t.Parallel()
	schema := func(db *DB) (columns map[string]string) {
		columns = map[string]string{}
		for _, table := range []string{"vms", "commands", "events", "heartbeats", "changes", "tokens", "audit", "damaged", "meta"} {
			require.NoError(t, db.read(t.Context(), func(c *conn) error {
				return c.sql.QueryRowContext(t.Context(),
					`SELECT group_concat(name, ' ') FROM pragma_table_info(?)`, table).Scan(&entryText{columns, table})
			}))
		}
		return columns
	}
	want := map[string]string{
		"vms":        "vm_id pool_id org_id status connected last_seen_at doc version due_at",
		"commands":   "seq id vm_id type state due_at finished_at doc version queue",
		"events":     "seq vm_id type received_at doc",
		"heartbeats": "seq at vms docs",
		"changes":    "seq at vm_id kind event_seq doc pool_id left_pool_id",
		"tokens":     "id version doc",
		"audit":      "seq at principal action vm_id command_id outcome doc",
		"damaged":    "number class row id vm_id why found_at restore doc",
		"meta":       "key value",
	}
	require.Equal(t, want, schema(openNew(t)))
	for version := int64(1); version <= 7; version++ {
		path := filepath.Join(t.TempDir(), "controller.db")
		openOld(t, path, version)
		require.Equal(t, want, schema(openTest(t, path)))
	}
}

// A database of a later version is rejected and stays unchanged.
func TestLaterSchema(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "controller.db")
	db := openTest(t, path)
	require.NoError(t, db.write(t.Context(), func(ctx context.Context, c *conn) (int64, error) {
		_, err := c.exec(ctx, `INSERT INTO goose_db_version (version_id, is_applied) VALUES (1000, 1)`)
		return 0, err
	}))
	require.NoError(t, db.Close())
	before, err := os.ReadFile(path)
	require.NoError(t, err)
	_, err = Open(t.Context(), path, slog.New(slog.DiscardHandler), nil)
	require.ErrorIs(t, err, ErrLaterSchema)
	require.ErrorContains(t, err, "version 1000")
	require.ErrorContains(t, err, "up to 9")
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, before, after)
}

// entryText scans into an entry of a map.
type entryText struct {
	into map[string]string
	key  string
}

func (s *entryText) Scan(v any) error { s.into[s.key] = fmt.Sprint(v); return nil }

// VMs, commands and changes of version 3 keep their values, and their new columns are
// derived from those.
func TestMigrationKeepsRows(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "controller.db")
	exec := openOld(t, path, 3)
	exec(`INSERT INTO vms (vm_id, pool_id, org_id, status, connected, last_seen_at, last_beat, doc)
		VALUES ('a', 'p', 'o', 's', 1, ?, 3, ?)`, t0.UnixNano(), []byte("v"))
	queues := map[string]string{}
	for i, c := range [][3]string{
		{"register_runner", "PENDING", "token"},
		{"drain", "PENDING", "plain"},
		{"register_runner", "DELIVERED", "out"},
		{"drain", "DELIVERED", "out"},
		{"drain", "SUCCEEDED", ""},
		{"register_runner", "FAILED", ""},
	} {
		id := strconv.Itoa(i)
		queues[id] = c[2]
		exec(`INSERT INTO commands (id, vm_id, type, state, due_at, finished_at, doc) VALUES (?, 'a', ?, ?, ?, ?, ?)`,
			id, c[0], c[1], t0.UnixNano(), nil, []byte("c"+id))
	}
	exec(`INSERT INTO events (seq, vm_id, type, received_at, doc) VALUES (5, 'a', 't', 0, ?)`, []byte("e"))
	for _, row := range []struct {
		seq              int64
		vm, command, of_ any
	}{{7, []byte("v"), nil, nil}, {8, nil, []byte("c"), nil}, {12, nil, nil, 5}, {13, nil, nil, 4}} {
		exec(`INSERT INTO changes (seq, at, vm_id, vm, command, event_seq) VALUES (?, ?, 'a', ?, ?, ?)`,
			row.seq, t0.UnixNano(), row.vm, row.command, row.of_)
	}
	exec(`UPDATE meta SET value = 6 WHERE key = 'purged_change'`)
	exec(`UPDATE meta SET value = 5 WHERE key = 'journaled_event'`)

	db := openTest(t, path)
	rows, err := db.Load(t.Context(), store.Keys{VMs: []string{"a"}, Queues: []string{"out", "token", "plain"}, Depth: 1})
	require.NoError(t, err)
	require.Equal(t, []store.VMRow{{
		Row: 1, ID: "a", Pool: "p", Org: "o", Status: "s", Connected: true, LastSeenAt: t0, Version: 1, Doc: []byte("v"),
	}}, rows.VMs)
	require.Len(t, rows.Commands, 3)
	commands, _, err := db.Commands(t.Context(), store.CommandQuery{}, 10)
	require.NoError(t, err)
	require.Len(t, commands, len(queues))
	for _, c := range commands {
		require.Equal(t, queues[c.ID], c.Queue)
		require.Equal(t, "c"+c.ID, string(c.Doc))
		require.Equal(t, t0, c.DueAt)
		require.EqualValues(t, 1, c.Version)
	}
	changes, _, err := db.Changes(t.Context(), store.ChangeQuery{After: 6}, 10)
	require.NoError(t, err)
	require.Equal(t, []store.ChangeRow{
		{Seq: 7, At: t0, VM: "a", Kind: "vm", Doc: []byte("v")},
		{Seq: 8, At: t0, VM: "a", Kind: "command", Doc: []byte("c")},
		{Seq: 12, At: t0, VM: "a", Kind: "event", Doc: []byte("e"), EventSeq: 5},
		{Seq: 13, At: t0, VM: "a", Kind: "event", EventSeq: 4},
	}, changes)
	_, _, err = db.Changes(t.Context(), store.ChangeQuery{After: 5}, 10)
	require.ErrorIs(t, err, store.ErrPurged)
	journaled, err := db.Mark(t.Context(), "journaled_event")
	require.NoError(t, err)
	require.EqualValues(t, 5, journaled)
	done := commit(t, db, store.Writes{Commands: []store.CommandRow{command("new")}, Changes: []store.ChangeRow{change("vm")}})
	require.EqualValues(t, 14, done.FirstChange)
	require.Equal(t, []int64{7}, done.Commands)
}

// at is a time as heartbeats contain it.
func at(seconds int) string {
	return t0.Add(time.Duration(seconds) * time.Second).Format(time.RFC3339Nano)
}

// Each heartbeat of version 3 becomes a whole one, even if it referred to the previous one.
// Rows that cannot be read are dropped and do no harm.
func TestMigrationOfHeartbeats(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "controller.db")
	exec := openOld(t, path, 3)
	add := func(received int, docs []byte) {
		exec(`INSERT INTO heartbeats (received_at, docs) VALUES (?, ?)`, t0.Add(time.Duration(received)*time.Second).UnixNano(), docs)
	}
	row := "a 0\n" +
		`{"vm":"a","status":"idle","received_at":"` + at(2) + `","sent_at":"` + at(0) + `","health":{"cpu_percent":1}}` + "\n" +
		`{"as_before":true,"received_at":"` + at(3) + `","health":{"cpu_percent":2}}` + "\n" +
		`{"as_before":true,"received_at":"` + at(4) + `","sent_at":"` + at(1) + `"}` + "\n" +
		"b 7\n" +
		`{"vm":"b","status":"busy","received_at":"` + at(1) + `"}` + "\n"
	add(4, []byte(row))
	var large strings.Builder
	for i := range 100 {
		fmt.Fprintf(&large, "vm-%d 1\n"+`{"vm":"vm-%d","received_at":"%s"}`+"\n"+`{"as_before":true,"received_at":"%s"}`+"\n", i, i, at(10), at(11))
	}
	add(11, append([]byte{1}, s2.EncodeSnappy(nil, []byte(large.String()))...))
	for _, damaged := range []string{"", "\x01damaged", "a 0\n", "a 0\n{\"vm\":\n", "heading\n{}\n", `{"vm":"a"}` + "\n", "a 0\n" + `{"received_at":5}` + "\n", " 0\n{\"vm\":\"a\"}\n"} {
		add(5, []byte(damaged))
	}
	add(12, []byte("a 1\n"+`{"as_before":true}`+"\n"))

	db, log := openLogged(t, path)
	require.Equal(t, 8, log.count("damaged heartbeats dropped"))
	rows, _, err := db.Heartbeats(t.Context(), store.HeartbeatQuery{}, 10)
	require.NoError(t, err)
	require.Len(t, rows, 3)
	require.JSONEq(t, `{"vm":"a"}`, linesOf(t, rows[0]), "without as_before")
	require.Equal(t, t0.Add(12*time.Second), rows[0].At)

	many := linesOf(t, rows[1])
	require.Equal(t, 200, strings.Count(many, "\n"))
	require.Contains(t, many, fmt.Sprintf(`{"vm":"vm-99","received_at":"%s"}`+"\n"+`{"received_at":"%s","vm":"vm-99"}`+"\n", at(10), at(11)))
	require.Equal(t, t0.Add(10*time.Second), rows[1].At)

	require.Equal(t, t0.Add(time.Second), rows[2].At, "the earliest time of receipt")
	want := []string{
		`{"vm":"a","status":"idle","received_at":"` + at(2) + `","sent_at":"` + at(0) + `","health":{"cpu_percent":1}}`,
		`{"vm":"a","status":"idle","received_at":"` + at(3) + `","health":{"cpu_percent":2}}`,
		`{"vm":"a","status":"idle","received_at":"` + at(4) + `","sent_at":"` + at(1) + `"}`,
		`{"vm":"b","status":"busy","received_at":"` + at(1) + `"}`,
	}
	lines := strings.Split(strings.TrimSpace(linesOf(t, rows[2])), "\n")
	require.Len(t, lines, len(want))
	for i, line := range lines {
		require.JSONEq(t, want[i], line)
		require.True(t, json.Valid([]byte(line)))
	}
	for id, n := range map[string]int{"a": 2, "b": 1, "vm-50": 1, "vm": 0} {
		rows, _, err := db.Heartbeats(t.Context(), store.HeartbeatQuery{VM: id}, 10)
		require.NoError(t, err)
		require.Len(t, rows, n, id)
	}
}

// linesOf returns the uncompressed document of a row.
func linesOf(t *testing.T, row store.HeartbeatRow) string {
	t.Helper()
	frames, err := zstd.NewReader(nil)
	require.NoError(t, err)
	defer frames.Close()
	lines, err := frames.DecodeAll(row.Doc, nil)
	require.NoError(t, err)
	return string(lines)
}

// The heartbeats of a database of the first version are converted too.
func TestMigrationFromTheFirstVersion(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "controller.db")
	exec := openOld(t, path, 1)
	for _, vm := range []string{"a", "b", "a"} {
		exec(`INSERT INTO heartbeats (vm_id, received_at, docs) VALUES (?, ?, ?)`, vm, t0.UnixNano(),
			[]byte(`{"vm":"`+vm+`","received_at":"`+at(0)+`"}`+"\n"+`{"as_before": true,"received_at":"`+at(1)+`"}`+"\n"))
	}
	rows, _, err := openTest(t, path).Heartbeats(t.Context(), store.HeartbeatQuery{VM: "a"}, 10)
	require.NoError(t, err)
	require.Len(t, rows, 2)
	for _, r := range rows {
		require.Equal(t, t0, r.At)
		require.Equal(t, 2, strings.Count(linesOf(t, r), `"vm":"a"`))
	}
}
