package storetest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/store"
)

// all is a limit that no test reaches.
const all = 10_000

// database is a driver under test. Its methods fail the test on errors, and return rows in
// comparable form.
type database struct {
	*testing.T
	store.Driver
}

func newDatabase(t *testing.T, d Drivers) *database {
	t.Helper()
	return opened(t, d.New(t))
}

// opened closes the driver at the end of the test.
func opened(t *testing.T, d store.Driver) *database {
	t.Helper()
	t.Cleanup(func() { _ = d.Close() })
	return &database{t, d}
}

// at returns a time that increases with n and whose digits are not zero by chance.
func at(n int) time.Time {
	return time.Date(2026, 2, 3, 4, 5, 6, 123456789, time.UTC).Add(time.Duration(n) * (time.Second + 1))
}

// These return a row of each kind with a value in every column.
func aVM(id string) store.VMRow {
	return store.VMRow{
		ID: id, Pool: "pool of " + id, Org: "org of " + id, Status: "idle", Connected: true,
		LastSeenAt: at(1), DueAt: at(2), Doc: []byte("VM " + id),
	}
}

func aCommand(id, vm, queue string) store.CommandRow {
	return store.CommandRow{
		ID: id, VM: vm, Type: "drain", State: "PENDING", Queue: queue,
		DueAt: at(3), FinishedAt: at(4), Doc: []byte("command " + id),
	}
}

func anEvent(vm, text string) store.EventRow {
	return store.EventRow{VM: vm, Type: "job_started", ReceivedAt: at(5), Doc: []byte("event " + text)}
}

func someHeartbeats(when time.Time, vms ...string) store.HeartbeatRow {
	return store.HeartbeatRow{At: when, VMs: vms, Doc: []byte("heartbeats of " + strings.Join(vms, " "))}
}

func aChange(vm, text string) store.ChangeRow {
	return store.ChangeRow{At: at(6), VM: vm, Pool: "pool of " + vm, Left: "another", Kind: "vm", Doc: []byte("change " + text)}
}

func aToken(id string) store.TokenRow {
	return store.TokenRow{ID: id, Doc: []byte("token " + id)}
}

func anAudit(vm, text string) store.AuditRow {
	return store.AuditRow{
		At: at(10), Principal: "alice", Action: "AdminService/SendCommand", VM: vm, Command: "c of " + vm, Outcome: "ok", Doc: []byte("audit " + text),
	}
}

// aChangeOf refers to the event at this position in a commit.
func aChangeOf(vm string, event int) store.ChangeRow {
	return store.ChangeRow{At: at(7), VM: vm, Pool: "pool of " + vm, Kind: "event", Event: event}
}

// full is a commit with several rows of each kind: some with a value in every column, and
// some with the minimum.
func full() store.Writes {
	return store.Writes{
		VMs:        []store.VMRow{aVM("vm-2"), aVM("vm-1"), {ID: "vm-3"}},
		Commands:   []store.CommandRow{aCommand("c-1", "vm-1", "normal"), {ID: "c-2", VM: "vm-2"}},
		Events:     []store.EventRow{anEvent("vm-1", "one"), {VM: "vm-2", ReceivedAt: at(6)}, anEvent("vm-2", "three")},
		Heartbeats: []store.HeartbeatRow{someHeartbeats(at(8), "vm-1", "vm-2"), {At: at(9), VMs: []string{"vm-3"}}},
		Changes:    []store.ChangeRow{aChange("vm-1", "one"), aChangeOf("vm-2", 3), {At: at(8), VM: "vm-3"}, aChangeOf("vm-1", 1)},
		Tokens:     []store.TokenRow{aToken("t-2"), aToken("t-1"), {ID: "t-3"}},
		Audit:      []store.AuditRow{anAudit("vm-1", "one"), {At: at(11)}, anAudit("vm-2", "three")},
		Marks:      map[string]int64{"journaled": 1<<62 + 1, "swept": -2},
	}
}

// contents is the whole content of a database, as lists return it.
type contents struct {
	VMs        []store.VMRow
	Commands   []store.CommandRow
	Events     []store.EventRow
	Heartbeats []store.HeartbeatRow
	Changes    []store.ChangeRow
	Tokens     []store.TokenRow
	Audit      []store.AuditRow
	LastChange int64
	Marks      map[string]int64
}

// shown returns the content of a database that has had only this commit.
func shown(w store.Writes, c store.Committed) contents {
	var want contents
	for _, row := range w.VMs {
		row.Version = 1
		want.VMs = append(want.VMs, row)
	}
	for i, row := range w.Commands {
		row.Version, row.Seq = 1, c.Commands[i]
		want.Commands = append(want.Commands, row)
	}
	for i, row := range w.Events {
		row.Seq = c.Events[i]
		want.Events = append(want.Events, row)
	}
	for i, row := range w.Changes {
		row.Seq = c.FirstChange + int64(i)
		if row.Event > 0 {
			event := want.Events[row.Event-1]
			row.Event, row.EventSeq, row.Doc = 0, event.Seq, event.Doc
		}
		want.Changes, want.LastChange = append(want.Changes, row), row.Seq
	}
	slices.SortFunc(want.VMs, func(a, b store.VMRow) int { return strings.Compare(a.ID, b.ID) })
	slices.Reverse(want.Commands)
	slices.Reverse(want.Events)
	want.Heartbeats = slices.SortedFunc(slices.Values(w.Heartbeats), func(a, b store.HeartbeatRow) int { return b.At.Compare(a.At) })
	want.Heartbeats = tidy(want.Heartbeats, tidyHeartbeats)
	for _, row := range w.Tokens {
		row.Version = 1
		want.Tokens = append(want.Tokens, row)
	}
	slices.SortFunc(want.Tokens, byTokenID)
	want.Audit = tidy(w.Audit, tidyAudit)
	slices.Reverse(want.Audit)
	want.Marks = map[string]int64{"journaled": w.Marks["journaled"], "swept": w.Marks["swept"]}
	return want
}

func (d *database) contents() contents {
	d.Helper()
	return contents{
		VMs:        d.vms(store.VMQuery{}, all),
		Commands:   d.commands(store.CommandQuery{}, all),
		Events:     d.events(store.EventQuery{}, all),
		Heartbeats: d.heartbeats(store.HeartbeatQuery{}, all),
		Changes:    d.changes(store.ChangeQuery{After: d.purgedChanges()}, all),
		Tokens:     d.tokens(),
		Audit:      tidy(d.audit(store.AuditQuery{}, all), tidyAudit),
		LastChange: d.lastChange(),
		Marks:      map[string]int64{"journaled": d.mark("journaled"), "swept": d.mark("swept")},
	}
}

// purgedChanges returns the number of the last change that was purged.
func (d *database) purgedChanges() int64 {
	d.Helper()
	for after := int64(0); ; after++ {
		_, _, err := d.Changes(d.Context(), store.ChangeQuery{After: after}, 1)
		if !errors.Is(err, store.ErrPurged) {
			require.NoError(d, err)
			return after
		}
	}
}

func (d *database) commit(w store.Writes) store.Committed {
	d.Helper()
	c, err := d.Commit(d.Context(), w)
	require.NoError(d, err)
	require.Len(d, c.Commands, len(w.Commands))
	require.Len(d, c.Events, len(w.Events))
	return c
}

// conflict makes a commit that must conflict.
func (d *database) conflict(w store.Writes) *store.ConflictError {
	d.Helper()
	_, err := d.Commit(d.Context(), w)
	var conflict *store.ConflictError
	require.ErrorAs(d, err, &conflict)
	return conflict
}

// load returns rows in order of their ids.
func (d *database) load(k store.Keys) store.Rows {
	d.Helper()
	rows, err := d.Load(d.Context(), k)
	require.NoError(d, err)
	rows.VMs = tidy(rows.VMs, tidyVM)
	rows.Commands = tidy(rows.Commands, tidyCommand)
	slices.SortFunc(rows.VMs, func(a, b store.VMRow) int { return strings.Compare(a.ID, b.ID) })
	slices.SortFunc(rows.Commands, func(a, b store.CommandRow) int { return strings.Compare(a.ID, b.ID) })
	return rows
}

func (d *database) vm(id string) store.VMRow {
	d.Helper()
	rows := d.load(store.Keys{VMs: []string{id}})
	require.Len(d, rows.VMs, 1, id)
	return rows.VMs[0]
}

func (d *database) command(id string) store.CommandRow {
	d.Helper()
	rows := d.load(store.Keys{Commands: []string{id}})
	require.Len(d, rows.Commands, 1, id)
	return rows.Commands[0]
}

func (d *database) vms(q store.VMQuery, limit int) []store.VMRow {
	d.Helper()
	rows, _, err := d.VMs(d.Context(), q, limit)
	require.NoError(d, err)
	return tidy(rows, tidyVM)
}

func (d *database) commands(q store.CommandQuery, limit int) []store.CommandRow {
	d.Helper()
	rows, _, err := d.Commands(d.Context(), q, limit)
	require.NoError(d, err)
	return tidy(rows, tidyCommand)
}

func (d *database) events(q store.EventQuery, limit int) []store.EventRow {
	d.Helper()
	rows, _, err := d.Events(d.Context(), q, limit)
	require.NoError(d, err)
	return tidy(rows, tidyEvent)
}

// tokens returns the tokens in order of their ids.
func (d *database) tokens() []store.TokenRow {
	d.Helper()
	rows, err := d.Tokens(d.Context())
	require.NoError(d, err)
	rows = tidy(rows, tidyToken)
	slices.SortFunc(rows, byTokenID)
	return rows
}

func byTokenID(a, b store.TokenRow) int { return strings.Compare(a.ID, b.ID) }

func (d *database) audit(q store.AuditQuery, limit int) []store.AuditRow {
	d.Helper()
	rows, _, err := d.Audit(d.Context(), q, limit)
	require.NoError(d, err)
	return rows
}

func (d *database) heartbeats(q store.HeartbeatQuery, limit int) []store.HeartbeatRow {
	d.Helper()
	rows, _, err := d.Heartbeats(d.Context(), q, limit)
	require.NoError(d, err)
	return tidy(rows, tidyHeartbeats)
}

func (d *database) changes(q store.ChangeQuery, limit int) []store.ChangeRow {
	d.Helper()
	rows, _, err := d.Changes(d.Context(), q, limit)
	require.NoError(d, err)
	return tidy(rows, tidyChange)
}

func (d *database) due(now time.Time, limit int) store.Rows {
	d.Helper()
	rows, _, err := d.Due(d.Context(), now, limit)
	require.NoError(d, err)
	return store.Rows{VMs: tidy(rows.VMs, tidyVM), Commands: tidy(rows.Commands, tidyCommand)}
}

func (d *database) lastChange() int64 {
	d.Helper()
	n, err := d.LastChange(d.Context())
	require.NoError(d, err)
	return n
}

func (d *database) mark(name string) int64 {
	d.Helper()
	n, err := d.Mark(d.Context(), name)
	require.NoError(d, err)
	return n
}

func (d *database) purge(c store.Cutoffs, limit int) int {
	d.Helper()
	n, err := d.Purge(d.Context(), c, limit)
	require.NoError(d, err)
	return n
}

// tidy normalizes what the contract leaves open: an empty document may be nil, the VMs of
// heartbeats may be missing, and their places and those of VMs are arbitrary.
func tidy[R any](rows []R, row func(*R)) []R {
	if len(rows) == 0 {
		return nil
	}
	rows = slices.Clone(rows)
	for i := range rows {
		row(&rows[i])
	}
	return rows
}

func tidyVM(r *store.VMRow)                { r.Row, r.Doc = 0, tidyDoc(r.Doc) }
func tidyCommand(r *store.CommandRow)      { r.Doc = tidyDoc(r.Doc) }
func tidyEvent(r *store.EventRow)          { r.Doc = tidyDoc(r.Doc) }
func tidyHeartbeats(r *store.HeartbeatRow) { r.Seq, r.VMs, r.Doc = 0, nil, tidyDoc(r.Doc) }
func tidyChange(r *store.ChangeRow)        { r.Doc = tidyDoc(r.Doc) }

func tidyToken(r *store.TokenRow) { r.Row, r.Doc = 0, tidyDoc(r.Doc) }
func tidyAudit(r *store.AuditRow) { r.Seq, r.Doc = 0, tidyDoc(r.Doc) }

func tidyDoc(doc []byte) []byte {
	if len(doc) == 0 {
		return nil
	}
	return doc
}

// ids returns a short name of each row, for comparisons.
func ids[R any](rows []R, id func(R) string) []string {
	var list []string
	for _, row := range rows {
		list = append(list, id(row))
	}
	return list
}

func vmID(r store.VMRow) string              { return r.ID }
func commandID(r store.CommandRow) string    { return r.ID }
func docOfEvent(r store.EventRow) string     { return string(r.Doc) }
func docOfBeats(r store.HeartbeatRow) string { return string(r.Doc) }
func docOfChange(r store.ChangeRow) string   { return string(r.Doc) }
func docOfAudit(r store.AuditRow) string     { return string(r.Doc) }
func tokenID(r store.TokenRow) string        { return r.ID }

// numbered returns a name that sorts by its number.
func numbered(prefix string, n int) string { return fmt.Sprintf("%s-%04d", prefix, n) }
