package sqlite

import (
	"context"

	"github.com/mig-controller/mig-controller/internal/store"
)

// putTokens writes the rows and returns the ids of those that have changed since they were
// loaded.
func (c *conn) putTokens(ctx context.Context, tokens []store.TokenRow) (conflicts []string, err error) {
	for i := range tokens {
		t := &tokens[i]
		var n int64
		if t.Version == 0 {
			n, err = c.affect(ctx, `INSERT INTO tokens (id, version, doc) VALUES (?, 1, ?) ON CONFLICT (id) DO NOTHING`, t.ID, blob(t.Doc))
		} else {
			n, err = c.affect(ctx, `UPDATE tokens SET version = version + 1, doc = ? WHERE id = ? AND version = ?`,
				blob(t.Doc), t.ID, int64(t.Version))
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			conflicts = append(conflicts, t.ID)
		}
	}
	return conflicts, nil
}

func (c *conn) removeTokens(ctx context.Context, ids []string) error {
	for _, id := range ids {
		if _, err := c.exec(ctx, `DELETE FROM tokens WHERE id = ?`, id); err != nil {
			return err
		}
	}
	return nil
}

func (c *conn) addAudit(ctx context.Context, rows []store.AuditRow) error {
	for i := range rows {
		r := &rows[i]
		_, err := c.exec(ctx, `INSERT INTO audit (at, principal, action, vm_id, command_id, outcome, doc) VALUES (?, ?, ?, ?, ?, ?, ?)`,
			r.At.UnixNano(), r.Principal, r.Action, textOrNull(r.VM), textOrNull(r.Command), r.Outcome, blob(r.Doc))
		if err != nil {
			return err
		}
	}
	return nil
}

// Tokens returns all tokens.
func (db *DB) Tokens(ctx context.Context) (rows []store.TokenRow, err error) {
	err = db.read(ctx, func(c *conn) (err error) {
		rows, err = query(ctx, c, scanToken, "SELECT "+tokenColumns+" FROM tokens")
		return err
	})
	if err != nil {
		return nil, err
	}
	return rows, nil
}

// Audit lists audit events, highest Seq first.
func (db *DB) Audit(ctx context.Context, q store.AuditQuery, limit int) ([]store.AuditRow, bool, error) {
	text, args := selectAudit(q, limit)
	return list(ctx, db, scanAudit, limit, text, args)
}

func selectAudit(q store.AuditQuery, limit int) (string, []any) {
	var s selection
	s.andIs("command_id", q.Command)
	s.andIs("vm_id", q.VM)
	s.andIs("principal", q.Principal)
	s.andIs("action", q.Action)
	s.andIs("outcome", q.Outcome)
	if q.Outcome != "" && q.Outcome != commonOutcome {
		s.and(isRareOutcome) // excludes no rows: it allows SQLite to use the partial index
	}
	if !q.Since.IsZero() {
		s.and("at >= ?", q.Since.UnixNano())
	}
	if !q.Until.IsZero() {
		s.and("at < ?", q.Until.UnixNano())
	}
	s.andBefore(q.Before)
	s.andOfPools("audit", q.Pools)
	return s.query("SELECT "+auditColumns+" FROM audit", "seq DESC", limit)
}

const (
	// Most events have this outcome, which has no index.
	commonOutcome = "ok"
	// This must equal the condition of the partial index.
	isRareOutcome = "outcome <> 'ok'"
)
