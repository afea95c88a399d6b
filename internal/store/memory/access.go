package memory

import (
	"cmp"
	"context"
	"slices"

	"github.com/mig-controller/mig-controller/internal/store"
)

// access stores tokens and audit events.
func (c *content) access(w store.Writes) {
	for _, row := range w.Tokens {
		row.Version++
		if row.Row = c.tokens[row.ID].Row; row.Row == 0 {
			c.lastToken++
			row.Row = c.lastToken
		}
		c.tokens[row.ID] = own(row)
	}
	for _, id := range w.RemovedTokens {
		delete(c.tokens, id)
	}
	for _, row := range w.Audit {
		c.lastAudit++
		row.Seq = c.lastAudit
		c.audit[row.Seq] = own(row)
	}
}

// Tokens returns all tokens.
func (db *DB) Tokens(ctx context.Context) (rows []store.TokenRow, err error) {
	db.mu.RLock()
	defer db.mu.RUnlock()
	if err := db.usable(ctx); err != nil {
		return nil, err
	}
	for _, row := range db.tokens {
		rows = append(rows, own(row))
	}
	return rows, nil
}

// Audit lists audit events, highest Seq first.
func (db *DB) Audit(ctx context.Context, q store.AuditQuery, limit int) ([]store.AuditRow, bool, error) {
	order := func(a, b store.AuditRow) int { return cmp.Compare(b.Seq, a.Seq) }
	return choose(ctx, db, db.audit, limit, order, func(row store.AuditRow) bool {
		return lets(q.Principal, row.Principal) && lets(q.Action, row.Action) && lets(q.VM, row.VM) &&
			lets(q.Command, row.Command) && lets(q.Outcome, row.Outcome) &&
			!row.At.Before(q.Since) && (q.Until.IsZero() || row.At.Before(q.Until)) &&
			(q.Before == 0 || row.Seq < q.Before) && db.isIn(row.VM, q.Pools)
	})
}

// isIn reports whether a VM is in one of the pools at the moment; always if there are none.
func (c *content) isIn(vm string, pools []string) bool {
	row, found := c.vms[vm]
	return len(pools) == 0 || found && slices.Contains(pools, row.Pool)
}

// tokenAt returns the token with this Row.
func (c *content) tokenAt(row int64) (t store.TokenRow, found bool) {
	for _, t := range c.tokens {
		if t.Row == row {
			return t, true
		}
	}
	return t, false
}
