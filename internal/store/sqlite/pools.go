package sqlite

import (
	"context"
	"slices"
	"strings"

	"github.com/mig-controller/mig-controller/internal/store"
)

// The VMs of some pools are found in vms_by_pool alone, without reading the table. Conditions
// on the pools end this text.
const vmsByPool = "SELECT vm_id FROM vms INDEXED BY vms_by_pool WHERE "

// andOneOf requires one of these values in a column.
func (s *selection) andOneOf(column string, values []string) {
	condition, args := oneOf(column, values)
	s.and(condition, args...)
}

// oneOf is the condition that a column has one of these values. The last value is repeated, so
// that lists of different lengths share few statements.
func oneOf(column string, values []string) (condition string, args []any) {
	n := 1
	for n < len(values) {
		n *= 2
	}
	for i := range n {
		args = append(args, values[min(i, len(values)-1)])
	}
	return column + " IN (" + strings.TrimSuffix(strings.Repeat("?,", n), ",") + ")", args
}

// andOfPools requires that the VM of a row of this table is in one of the pools: one search in
// an index per row and pool. It does nothing without pools. With EXISTS, SQLite might begin
// with the VMs instead, and sort the rows.
func (s *selection) andOfPools(table string, pools []string) {
	if len(pools) == 0 {
		return
	}
	in, args := oneOf("pool_id", pools)
	s.and("("+vmsByPool+in+" AND vms.vm_id = "+table+".vm_id LIMIT 1) IS NOT NULL", args...)
}

// byKey is query for a selection that no index has in its order: keys selects the keys of its
// rows, and only as many keys as the list needs are sorted, not rows with documents.
func (s *selection) byKey(from, keys, key, order string, limit int) (string, []any) {
	inner, args := s.query(keys, order, limit)
	return from + " WHERE " + key + " IN (" + inner + ") ORDER BY " + order + " LIMIT ?", append(args, oneMore(limit))
}

// recentShare is how many of the latest rows are looked at for each row of a list before the
// rows of the pools are collected. If the pools have more than this share of all rows, the
// list is complete by then.
const recentShare = 20

// andRecent limits the rows to the latest ones.
func (s *selection) andRecent(table string, before int64, limit int) {
	window := recentShare * oneMore(limit)
	if before != 0 {
		s.and("seq >= ?", before-int64(window))
		return
	}
	s.and("seq > (SELECT COALESCE(MAX(seq), 0) FROM "+table+") - ?", window)
}

// commandsOfPools lists commands of VMs in some pools, when neither their VM nor their states
// limit them to a few. Its work is bounded by what the pools have, and not by what all others
// have.
func (db *DB) commandsOfPools(ctx context.Context, q store.CommandQuery, limit int) ([]store.CommandRow, bool, error) {
	text, args := selectRecentCommands(q, limit)
	rows, more, err := list(ctx, db, scanCommand, limit, text, args)
	if err != nil || more { // otherwise there may be others before these
		return rows, more, err
	}
	text, args = selectCommandsOfPools(q, limit)
	return list(ctx, db, scanCommand, limit, text, args)
}

func selectRecentCommands(q store.CommandQuery, limit int) (string, []any) {
	var s selection
	s.andIs("+type", q.Type) // the range of numbers is smaller
	s.andStates(q.States)
	s.andBefore(q.Before)
	s.andRecent("commands", q.Before, limit)
	s.andOfPools("commands", q.Pools)
	return s.query("SELECT "+commandColumns+" FROM commands", "seq DESC", limit)
}

func selectCommandsOfPools(q store.CommandQuery, limit int) (string, []any) {
	var s selection
	in, args := oneOf("pool_id", q.Pools)
	s.and("vm_id IN ("+vmsByPool+in+")", args...)
	s.andIs("type", q.Type)
	s.andStates(q.States)
	s.andBefore(q.Before)
	return s.byKey("SELECT "+commandColumns+" FROM commands", "SELECT seq FROM commands INDEXED BY commands_by_vm",
		"seq", "seq DESC", limit)
}

// spansPools reports whether commandsOfPools lists the commands.
func spansPools(q store.CommandQuery) bool {
	return len(q.Pools) > 0 && q.VM == "" && (len(q.States) == 0 || slices.Contains(q.States, commonState))
}

// eventsOfPools is commandsOfPools for events.
func (db *DB) eventsOfPools(ctx context.Context, q store.EventQuery, limit int) ([]store.EventRow, bool, error) {
	if q.After == nil {
		text, args := selectRecentEvents(q, limit)
		rows, more, err := list(ctx, db, scanEvent, limit, text, args)
		if err != nil || more {
			return rows, more, err
		}
	}
	text, args := selectEventsOfPools(q, limit)
	return list(ctx, db, scanEvent, limit, text, args)
}

func selectRecentEvents(q store.EventQuery, limit int) (string, []any) {
	var s selection
	s.andIs("+type", q.Type)
	s.andReceived(q, "+received_at")
	s.andBefore(q.Before)
	s.andRecent("events", q.Before, limit)
	s.andOfPools("events", q.Pools)
	return s.query("SELECT "+eventColumns+" FROM events", "seq DESC", limit)
}

func selectEventsOfPools(q store.EventQuery, limit int) (string, []any) {
	var s selection
	in, args := oneOf("pool_id", q.Pools)
	s.and("vm_id IN ("+vmsByPool+in+")", args...)
	s.andIs("type", q.Type)
	s.andReceived(q, "received_at")
	s.andBefore(q.Before)
	order := s.andAfter(q.After)
	return s.byKey("SELECT "+eventColumns+" FROM events", "SELECT seq FROM events INDEXED BY events_by_vm",
		"seq", order, limit)
}
