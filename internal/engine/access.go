package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/mig-controller/mig-controller/internal/audit"
	"github.com/mig-controller/mig-controller/internal/auth"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

var (
	_ auth.TokenStore = (*Engine)(nil)
	_ audit.Recorder  = (*Engine)(nil)
)

// tokensMark is the mark that is set when the first token is stored, and never removed.
const tokensMark = "tokens_created"

// errTokenChanged occurs when a token has changed since it was last read or stored by this
// engine.
var errTokenChanged = fmt.Errorf("%w: the token has changed since it was read", fleet.ErrUnavailable)

// tokenVersions are the versions of the tokens as last read or stored.
type tokenVersions struct {
	mu sync.Mutex
	of map[string]store.Version
}

func (v *tokenVersions) get(id string) store.Version {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.of[id]
}

func (v *tokenVersions) update(change func(of map[string]store.Version)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.of == nil {
		v.of = map[string]store.Version{}
	}
	change(v.of)
}

// Tokens returns all tokens, in no order. One that is damaged is set aside.
func (e *Engine) Tokens(ctx context.Context) ([]auth.Token, error) {
	var tokens []auth.Token
	err := e.undamaged(ctx, func() error {
		rows, err := e.Driver.Tokens(ctx)
		if err != nil {
			return err
		}
		tokens, err = decoded(rows, placesOfToken, decodeToken)
		if err == nil {
			e.tokens.update(func(of map[string]store.Version) {
				for _, row := range rows {
					of[row.ID] = max(of[row.ID], row.Version) // one may just have been stored
				}
			})
		}
		return err
	})
	if err != nil {
		return nil, unavailable(ctx, err)
	}
	return tokens, nil
}

// HadTokens reports whether a token was ever stored in the database, whether or not it still
// exists and is readable.
func (e *Engine) HadTokens(ctx context.Context) (bool, error) {
	n, err := e.Driver.Mark(ctx, tokensMark)
	return n > 0, unavailable(ctx, err)
}

// SaveToken stores a token, new or changed. If another program has changed it since this
// engine has read or stored it, SaveToken returns an error: Tokens returns its new state.
func (e *Engine) SaveToken(ctx context.Context, t auth.Token) error {
	call := audit.From(ctx)
	err := e.do(ctx, &op{run: func(g *group) error {
		if err := g.saveToken(t); err != nil {
			return err
		}
		g.record(call, "", "", t.ID)
		return nil
	}})
	call.Announce()
	return err
}

// RemoveTokens removes the tokens with these ids, if they exist.
func (e *Engine) RemoveTokens(ctx context.Context, ids []string) error {
	return e.do(ctx, &op{run: func(g *group) error {
		for _, id := range ids {
			delete(g.tokens, id)
			if !slices.Contains(g.removedTokens, id) {
				g.removedTokens = append(g.removedTokens, id)
			}
		}
		return nil
	}})
}

// saveToken stores a token with the group.
func (g *group) saveToken(t auth.Token) error {
	if g.staleTokens[t.ID] || slices.Contains(g.removedTokens, t.ID) {
		return errTokenChanged
	}
	doc, err := json.Marshal(t)
	if err != nil {
		return fmt.Errorf("write token: %w", err)
	}
	if g.tokens == nil {
		g.tokens = map[string]store.TokenRow{}
	}
	g.tokens[t.ID] = store.TokenRow{ID: t.ID, Version: g.e.tokens.get(t.ID), Doc: doc}
	g.mark(tokensMark, 1)
	return nil
}

// tokenRows returns the tokens of the group.
func (g *group) tokenRows() (rows []store.TokenRow) {
	for _, id := range slices.Sorted(maps.Keys(g.tokens)) {
		rows = append(rows, g.tokens[id])
	}
	return rows
}

// finishTokens notes the versions of the tokens that the group has committed.
func (g *group) finishTokens() {
	if len(g.tokens)+len(g.removedTokens) == 0 {
		return
	}
	g.e.tokens.update(func(of map[string]store.Version) {
		for id, row := range g.tokens {
			of[id] = row.Version + 1
		}
		for _, id := range g.removedTokens {
			delete(of, id)
		}
	})
}

func placesOfToken(row store.TokenRow) []store.Place {
	return []store.Place{{Class: store.ClassTokens, Row: row.Row}}
}

func decodeToken(row store.TokenRow) (t auth.Token, err error) {
	if err := json.Unmarshal(row.Doc, &t); err != nil {
		return auth.Token{}, err
	}
	switch {
	case !sameTexts(t.ID, row.ID):
		return auth.Token{}, errColumns
	case t.Hash == auth.Hash{} || !t.Role.Valid():
		return auth.Token{}, errToken
	}
	return t, nil
}

// errToken occurs when a token has no hash, or a role that is not known.
var errToken = errors.New("its hash is missing, or its role is not known")

// recording is an audit event that a group commits.
type recording struct {
	pending *audit.Pending // nil for an event that is not of a call in progress
	event   audit.Event
	row     store.AuditRow
}

// Audit lists audit events, latest first, as VMs does.
func (e *Engine) Audit(ctx context.Context, q store.AuditQuery, limit int) (events []audit.Event, more bool, err error) {
	err = e.undamaged(ctx, func() (err error) {
		var rows []store.AuditRow
		if rows, more, err = e.Driver.Audit(ctx, q, limit); err != nil {
			return err
		}
		events, err = decoded(rows, placesOfAudit, decodeAudit)
		return err
	})
	if err != nil {
		return nil, false, unavailable(ctx, err)
	}
	return events, more, nil
}

// RecordAudit stores audit events, all or none; they are durable when RecordAudit returns nil.
func (e *Engine) RecordAudit(ctx context.Context, events ...audit.Event) error {
	var all []recording
	for _, event := range events {
		row, err := encodeAudit(event)
		if err != nil {
			return err
		}
		all = append(all, recording{event: event, row: row})
	}
	return e.do(ctx, &op{run: func(g *group) error {
		g.recordings = append(g.recordings, all...)
		return nil
	}})
}

// record commits the event of a call together with the change that it has made. An event
// that cannot be written is left to the end of the call.
func (g *group) record(p *audit.Pending, vm fleet.VMID, command fleet.CommandID, detail string) {
	if p == nil {
		return
	}
	event := p.Made(string(vm), string(command), detail)
	if row, err := encodeAudit(event); err == nil {
		g.recordings = append(g.recordings, recording{pending: p, event: event, row: row})
	}
}

// auditRows returns the audit events of the group.
func (g *group) auditRows() (rows []store.AuditRow) {
	for _, r := range g.recordings {
		rows = append(rows, r.row)
	}
	return rows
}

// finishAudit notes that the audit events of the group are durable.
func (g *group) finishAudit() {
	for _, r := range g.recordings {
		g.e.metrics.audit[indexOf(audit.Outcomes, r.event.Outcome)].Inc()
		if r.pending != nil {
			r.pending.MarkRecorded(r.event)
		}
	}
}

func placesOfAudit(row store.AuditRow) []store.Place {
	return []store.Place{{Class: store.ClassAudit, Row: row.Seq}}
}

func encodeAudit(e audit.Event) (store.AuditRow, error) {
	doc, err := json.Marshal(e)
	if err != nil {
		return store.AuditRow{}, fmt.Errorf("write audit event: %w", err)
	}
	row := columnsOfAudit(e)
	row.Doc = doc
	return row, nil
}

// columnsOfAudit is columnsOfVM for an audit event.
func columnsOfAudit(e audit.Event) store.AuditRow {
	return store.AuditRow{At: e.At, Principal: e.By.Name, Action: e.Action, VM: e.VM, Command: e.Command, Outcome: e.Outcome}
}

func decodeAudit(row store.AuditRow) (e audit.Event, err error) {
	if err := json.Unmarshal(row.Doc, &e); err != nil {
		return audit.Event{}, err
	}
	want := columnsOfAudit(e)
	if !sameTexts(want.Principal, row.Principal, want.Action, row.Action, want.VM, row.VM, want.Command, row.Command, want.Outcome, row.Outcome) ||
		!sameTimes(want.At, row.At) {
		return audit.Event{}, errColumns
	}
	e.Seq = row.Seq
	return e, nil
}
