package storetest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/store"
)

// listed is the result of a list: the documents, and whether there are more rows.
type listed struct {
	docs []string
	more bool
}

// anyList is a list without filters that begins after this many rows.
type anyList func(ctx context.Context, after, limit int) (listed, error)

func listOf[R any](rows []R, more bool, err error, doc func(R) []byte) (listed, error) {
	l := listed{more: more}
	for _, row := range rows {
		l.docs = append(l.docs, string(doc(row)))
	}
	return l, err
}

// lists returns every list of a database whose rows were created by large.
func (d *database) lists(rows int) map[string]anyList {
	docOfCommand := func(r store.CommandRow) []byte { return r.Doc }
	return map[string]anyList{
		"VMs": func(ctx context.Context, after, limit int) (listed, error) {
			rows, more, err := d.VMs(ctx, store.VMQuery{After: lastOf("vm", after)}, limit)
			return listOf(rows, more, err, func(r store.VMRow) []byte { return r.Doc })
		},
		"commands": func(ctx context.Context, after, limit int) (listed, error) {
			list, more, err := d.Commands(ctx, store.CommandQuery{Before: int64(rows - after + 1)}, limit)
			return listOf(list, more, err, docOfCommand)
		},
		"last finished": func(ctx context.Context, after, limit int) (listed, error) {
			q := store.FinishedQuery{States: []string{"PENDING"}, Since: at(0), After: lastOf("vm", after)}
			rows, more, err := d.LastFinished(ctx, q, limit)
			return listOf(rows, more, err, docOfCommand)
		},
		"events": func(ctx context.Context, after, limit int) (listed, error) {
			list, more, err := d.Events(ctx, store.EventQuery{Before: int64(rows - after + 1)}, limit)
			return listOf(list, more, err, func(r store.EventRow) []byte { return r.Doc })
		},
		"later events": func(ctx context.Context, after, limit int) (listed, error) {
			seq := int64(after)
			rows, more, err := d.Events(ctx, store.EventQuery{After: &seq}, limit)
			return listOf(rows, more, err, func(r store.EventRow) []byte { return r.Doc })
		},
		"heartbeats": func(ctx context.Context, after, limit int) (listed, error) {
			list, more, err := d.Heartbeats(ctx, store.HeartbeatQuery{Before: at(rows - after)}, limit)
			return listOf(list, more, err, func(r store.HeartbeatRow) []byte { return r.Doc })
		},
		"changes": func(ctx context.Context, after, limit int) (listed, error) {
			rows, more, err := d.Changes(ctx, store.ChangeQuery{After: int64(after)}, limit)
			return listOf(rows, more, err, func(r store.ChangeRow) []byte { return r.Doc })
		},
		"audit": func(ctx context.Context, after, limit int) (listed, error) {
			list, more, err := d.Audit(ctx, store.AuditQuery{Before: int64(rows - after + 1)}, limit)
			return listOf(list, more, err, func(r store.AuditRow) []byte { return r.Doc })
		},
	}
}

func lastOf(prefix string, after int) string {
	if after == 0 {
		return ""
	}
	return numbered(prefix, after-1)
}

// large commits rows of each kind with documents of this size. Every other change refers to
// an event.
func (d *database) large(rows, size int) {
	d.Helper()
	for n := range rows {
		doc := fmt.Appendf(make([]byte, 0, size), "%04d", n)
		doc = doc[:size]
		vm, c, e := aVM(numbered("vm", n)), aCommand(numbered("c", n), numbered("vm", n), "normal"), anEvent("vm", "")
		h, change, audit := someHeartbeats(at(n), "vm"), aChange("vm", ""), anAudit("vm", "")
		vm.Doc, c.Doc, e.Doc, h.Doc, change.Doc, audit.Doc = doc, doc, doc, doc, doc, doc
		vm.DueAt, c.DueAt = at(n), at(n)
		if n%2 == 0 {
			change = aChangeOf("vm", 1)
		}
		d.commit(store.Writes{
			VMs: []store.VMRow{vm}, Commands: []store.CommandRow{c}, Events: []store.EventRow{e},
			Heartbeats: []store.HeartbeatRow{h}, Changes: []store.ChangeRow{change}, Audit: []store.AuditRow{audit},
		})
	}
}

// A list ends before the row that would exceed its bound, but contains at least one row:
// three rows of 700,000 bytes are more than MaxBytes.
func listsBounded(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	d.large(5, 700_000)
	for name, list := range d.lists(5) {
		for after, want := range map[int]int{0: 2, 2: 2, 3: 2, 4: 1} {
			got, err := list(t.Context(), after, all)
			require.NoError(t, err)
			require.Len(t, got.docs, want, "%s after %d", name, after)
			require.Equal(t, after+want < 5, got.more, "%s after %d", name, after)
		}
	}
	for _, limit := range []int{1, all} {
		due, more, err := d.Due(t.Context(), at(99), limit)
		require.NoError(t, err)
		require.Equal(t, []string{"vm-0000", "vm-0001"}[:min(limit, 2)], ids(due.VMs, vmID))
		require.Equal(t, []string{"c-0000", "c-0001"}[:min(limit, 2)], ids(due.Commands, commandID))
		require.True(t, more)
	}

	d = newDatabase(t, drivers)
	d.large(2, store.MaxBytes+1)
	for name, list := range d.lists(2) {
		for after := range 2 {
			got, err := list(t.Context(), after, all)
			require.NoError(t, err)
			require.Len(t, got.docs, 1, "%s after %d", name, after)
			require.Equal(t, after == 0, got.more, "%s after %d", name, after)
		}
	}
}

func listsSayMore(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	d.large(4, 10)
	for name, list := range d.lists(4) {
		for limit, more := range map[int]bool{1: true, 3: true, 4: false, 5: false, all: false} {
			got, err := list(t.Context(), 0, limit)
			require.NoError(t, err)
			require.Len(t, got.docs, min(limit, 4), name)
			require.Equal(t, more, got.more, "%s, %d", name, limit)
		}
	}
	for now, more := range map[time.Time]bool{at(0): false, at(1): false, at(2): true} {
		_, got, err := d.Due(t.Context(), now, 2)
		require.NoError(t, err)
		require.Equal(t, more, got, now)
	}
	empty := newDatabase(t, drivers)
	for name, list := range empty.lists(0) {
		got, err := list(t.Context(), 0, all)
		require.NoError(t, err)
		require.Empty(t, got, name)
	}
}

func pageLarge(t *testing.T, drivers Drivers) {
	const rows = 7
	d := newDatabase(t, drivers)
	d.large(rows, 600_000)
	for name, list := range d.lists(rows) {
		var seen []string
		for more := true; more; {
			page, err := list(t.Context(), len(seen), all)
			require.NoError(t, err)
			require.NotEmpty(t, page.docs, name)
			for _, doc := range page.docs {
				seen = append(seen, doc[:4])
			}
			more = page.more
		}
		require.Len(t, seen, rows, name)
		for i := range seen {
			require.Contains(t, []string{fmt.Sprintf("%04d", i), fmt.Sprintf("%04d", rows-1-i)}, seen[i], name)
		}
	}
}
