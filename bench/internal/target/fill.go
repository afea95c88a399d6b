package target

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"strings"
)

// fillStep is how many rows one statement adds.
const fillStep = 50_000

// Fill copies the VM with this id, and the last of its commands that succeeded, in the
// database of a stopped controller, until there are this many of each. The commands are
// spread over the VMs.
func Fill(ctx context.Context, dir, vm string, vms, commands int) error {
	db, err := openDB(filepath.Join(dataDir(dir), "_state", "controller.db"),
		"mode=rw&_pragma=synchronous(OFF)&_pragma=cache_size(-200000)")
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }() // the result is checked below
	var command string
	row := db.QueryRowContext(ctx, `SELECT id FROM commands
		WHERE vm_id = ? AND state = 'SUCCEEDED' AND type <> 'register_runner' ORDER BY seq DESC LIMIT 1`, vm)
	if err := row.Scan(&command); err != nil {
		return fmt.Errorf("find a command to copy: %w", err)
	}
	// New names have the same length as old ones, as in a real fleet.
	newVM := fmt.Sprintf("printf('filled-%%0%dd', i %% %d)", max(1, len(vm)-len("filled-")), vms)
	newCommand := fmt.Sprintf("substr('cmd-' || lower(hex(randomblob(16))), 1, %d)", max(16, len(command)))
	if err := copyRows(ctx, db, "vms", "vm_id = ?3", vms, newVM, "''", vm, command); err != nil {
		return err
	}
	return copyRows(ctx, db, "commands", "id = ?4", commands, newVM, newCommand, vm, command)
}

// copyRows copies a row n times, with the names of its VM and command replaced by new ones
// wherever they occur.
func copyRows(ctx context.Context, db *sql.DB, table, where string, n int, newVM, newCommand, vm, command string) error {
	columns, err := columnsOf(ctx, db, table)
	if err != nil {
		return err
	}
	values := make([]string, len(columns))
	for i, c := range columns {
		replaced := fmt.Sprintf("replace(replace(CAST(%s AS TEXT), ?3, new_vm), ?4, new_command)", c)
		values[i] = fmt.Sprintf("CASE typeof(%s) WHEN 'blob' THEN CAST(%s AS BLOB) WHEN 'text' THEN %s ELSE %s END",
			c, replaced, replaced, c)
	}
	//nolint:gosec // the names are the bench's own or the database's
	insert := fmt.Sprintf(`WITH RECURSIVE
		n (i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?2),
		names AS MATERIALIZED (SELECT %s AS new_vm, %s AS new_command FROM n)
		INSERT INTO %s (%s) SELECT %s FROM names, %s WHERE %s`,
		newVM, newCommand, table, strings.Join(columns, ", "), strings.Join(values, ", "), table, where)
	for first := 0; first < n; first += fillStep {
		if _, err := db.ExecContext(ctx, insert, first, min(first+fillStep, n), vm, command); err != nil {
			return fmt.Errorf("fill %s: %w", table, err)
		}
	}
	var there int
	if err := db.QueryRowContext(ctx, "SELECT count(*) FROM "+table).Scan(&there); err != nil {
		return fmt.Errorf("fill %s: %w", table, err)
	}
	if there < n {
		return fmt.Errorf("fill %s: got %d rows, want %d", table, there, n)
	}
	return nil
}

// columnsOf returns the columns of a table except the one that numbers its rows.
func columnsOf(ctx context.Context, db *sql.DB, table string) (columns []string, err error) {
	rows, err := db.QueryContext(ctx, `SELECT name FROM pragma_table_info(?) WHERE NOT (pk = 1 AND type = 'INTEGER')`, table)
	if err != nil {
		return nil, fmt.Errorf("read the columns of %s: %w", table, err)
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		columns = append(columns, name)
	}
	return columns, rows.Err()
}
