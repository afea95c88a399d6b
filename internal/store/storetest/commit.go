package storetest

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/store"
)

func emptyDatabase(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	require.Equal(t, contents{Marks: map[string]int64{"journaled": 0, "swept": 0}}, d.contents())
	require.Empty(t, d.load(store.Keys{VMs: []string{"vm"}, Queues: []string{"normal"}, Depth: 1, Commands: []string{"c"}}))
	require.Empty(t, d.due(at(0), all))
	require.Empty(t, d.changes(store.ChangeQuery{After: 7}, all), "a change that does not exist yet was not purged")
	require.Zero(t, d.purge(store.Cutoffs{Now: at(9), Changes: at(9), Heartbeats: at(9), Events: at(9), EventsThrough: 9, Commands: at(9), VMs: at(9), Audit: at(9)}, all))
	require.NoError(t, d.Check(t.Context()))
	require.Empty(t, d.commit(store.Writes{}), "an empty commit")
	require.Zero(t, d.lastChange())
}

func rowsComeBack(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	w := full()
	c := d.commit(w)
	want := shown(w, c)
	require.Equal(t, want, d.contents())
	require.Equal(t, full(), w, "the caller's rows are unchanged")

	slices.Reverse(want.Commands) // in order of their ids
	require.Equal(t, store.Rows{VMs: want.VMs, Commands: want.Commands},
		d.load(store.Keys{VMs: []string{"vm-1", "vm-2", "vm-3"}, Commands: []string{"c-1", "c-2"}}))
	require.Equal(t, store.Rows{VMs: want.VMs[:1], Commands: want.Commands[:1]},
		d.load(store.Keys{VMs: []string{"vm-1"}, Queues: []string{"normal"}, Depth: 1}))
	require.Equal(t, store.Rows{VMs: want.VMs[:2], Commands: want.Commands[:1]}, sortedDue(d.due(at(9), all)))
}

func versionsCount(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	seq := d.commit(store.Writes{VMs: []store.VMRow{aVM("vm")}, Commands: []store.CommandRow{aCommand("c", "vm", "")}}).Commands[0]
	for n := store.Version(1); n < 5; n++ {
		vm, c := d.vm("vm"), d.command("c")
		require.Equal(t, n, vm.Version)
		require.Equal(t, n, c.Version)
		require.Equal(t, []int64{seq}, d.commit(store.Writes{VMs: []store.VMRow{vm}, Commands: []store.CommandRow{c}}).Commands)
	}
	d.commit(store.Writes{VMs: []store.VMRow{d.vm("vm")}})
	require.EqualValues(t, 6, d.vm("vm").Version)
	require.EqualValues(t, 5, d.command("c").Version, "each row has a version of its own")
}

func updateReplaces(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	d.commit(full())
	vm, empty, c, bare := d.vm("vm-1"), d.vm("vm-3"), d.command("c-1"), d.command("c-2")
	others := []store.VMRow{d.vm("vm-2")}

	// Values that were set are cleared, and the others are set.
	emptied := store.VMRow{ID: vm.ID, Version: vm.Version}
	set := aVM(empty.ID)
	set.Version = empty.Version
	finished := store.CommandRow{Seq: c.Seq, ID: c.ID, VM: c.VM, Type: c.Type, Version: c.Version}
	begun := aCommand(bare.ID, bare.VM, "urgent")
	begun.Type, begun.Seq, begun.Version = bare.Type, bare.Seq, bare.Version
	d.commit(store.Writes{VMs: []store.VMRow{emptied, set}, Commands: []store.CommandRow{finished, begun}})

	for _, version := range []*store.Version{&emptied.Version, &set.Version, &finished.Version, &begun.Version} {
		*version = 2
	}
	require.Equal(t, []store.VMRow{emptied, others[0], set}, d.vms(store.VMQuery{}, all))
	require.Equal(t, []store.CommandRow{begun, finished}, d.commands(store.CommandQuery{}, all))
	require.Equal(t, store.Rows{VMs: []store.VMRow{emptied, set}, Commands: []store.CommandRow{finished, begun}},
		d.load(store.Keys{VMs: []string{"vm-1", "vm-3"}, Commands: []string{"c-1", "c-2"}}))
	require.Equal(t, store.Rows{VMs: []store.VMRow{others[0], set}, Commands: []store.CommandRow{begun}}, sortedDue(d.due(at(9), all)))
}

// sortedDue sorts rows by id: rows due at the same moment are in any order.
func sortedDue(rows store.Rows) store.Rows {
	slices.SortFunc(rows.VMs, func(a, b store.VMRow) int { return strings.Compare(a.ID, b.ID) })
	slices.SortFunc(rows.Commands, func(a, b store.CommandRow) int { return strings.Compare(a.ID, b.ID) })
	return rows
}

func numbersInOrder(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	var commands, events []int64
	next := int64(1)
	for n := range 4 {
		c := d.commit(store.Writes{
			VMs: []store.VMRow{aVM(numbered("vm", n))},
			Commands: []store.CommandRow{ // not in the order of their ids
				aCommand(numbered("b", 9-n), "vm", ""), aCommand(numbered("a", 9-n), "vm", ""),
			},
			Events:  []store.EventRow{anEvent("vm", "one"), anEvent("vm", "two")},
			Changes: slices.Repeat([]store.ChangeRow{aChange("vm", "")}, n+1),
		})
		require.Equal(t, next, c.FirstChange, "changes are numbered from one, without gaps")
		next += int64(n) + 1
		require.Equal(t, next-1, d.lastChange())
		commands, events = append(commands, c.Commands...), append(events, c.Events...)
		d.commit(store.Writes{VMs: []store.VMRow{d.vm(numbered("vm", n))}}) // without changes
	}
	rising(t, commands)
	rising(t, events)
	listed := d.commands(store.CommandQuery{}, all)
	require.Equal(t, []string{"a-0006", "b-0006", "a-0007", "b-0007", "a-0008", "b-0008", "a-0009", "b-0009"}, ids(listed, commandID))
}

func rising(t *testing.T, numbers []int64) {
	t.Helper()
	require.Positive(t, numbers[0])
	for i := range numbers[1:] {
		require.Less(t, numbers[i], numbers[i+1], "%v", numbers)
	}
}

func numbersStayTaken(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	w := store.Writes{
		Commands: []store.CommandRow{aCommand("c", "vm", "")},
		Events:   []store.EventRow{anEvent("vm", "purged")},
		Changes:  []store.ChangeRow{aChangeOf("vm", 1)},
	}
	before := d.commit(w)
	require.Equal(t, 2, d.purge(store.Cutoffs{Now: at(9), Events: at(9), EventsThrough: 1 << 40, Commands: at(9)}, all))
	after := d.commit(w)
	require.Greater(t, after.Commands[0], before.Commands[0])
	require.Greater(t, after.Events[0], before.Events[0])
	require.Equal(t, []string{"", "event purged"}, ids(d.changes(store.ChangeQuery{}, all), docOfChange), "the first is not of the second event")
}

func marksAreLatest(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	d.commit(store.Writes{Marks: map[string]int64{"journaled": 7, "swept": 8}})
	d.commit(store.Writes{Marks: map[string]int64{"journaled": 3}})
	d.commit(store.Writes{Events: []store.EventRow{anEvent("vm", "")}})
	require.EqualValues(t, 3, d.mark("journaled"), "the last one committed, not the highest")
	require.EqualValues(t, 8, d.mark("swept"))
	require.Zero(t, d.mark("journal"))
}

// documents commits a document in every kind of row, and returns all that are read back.
func (d *database) documents(doc []byte) [][]byte {
	d.Helper()
	d.commit(store.Writes{
		VMs:        []store.VMRow{{ID: "vm", Doc: doc}},
		Commands:   []store.CommandRow{{ID: "c", VM: "vm", Doc: doc}},
		Events:     []store.EventRow{{VM: "vm", ReceivedAt: at(0), Doc: doc}},
		Heartbeats: []store.HeartbeatRow{{At: at(0), VMs: []string{"vm"}, Doc: doc}},
		Changes:    []store.ChangeRow{{At: at(0), VM: "vm", Doc: doc}, {At: at(0), VM: "vm", Event: 1}},
		Tokens:     []store.TokenRow{{ID: "t", Doc: doc}},
		Audit:      []store.AuditRow{{At: at(0), Doc: doc}},
	})
	has := d.contents()
	return [][]byte{
		d.vm("vm").Doc, has.VMs[0].Doc, d.command("c").Doc, has.Commands[0].Doc,
		has.Events[0].Doc, has.Heartbeats[0].Doc, has.Changes[0].Doc, has.Changes[1].Doc,
		has.Tokens[0].Doc, has.Audit[0].Doc,
	}
}

func documentBytes(t *testing.T, drivers Drivers) {
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	for _, doc := range [][]byte{every, {0}, []byte("\xff\xfe"), []byte("ends with none\x00"), []byte(" \n"), []byte("'"), {}, nil} {
		d := newDatabase(t, drivers)
		require.Equal(t, slices.Repeat([][]byte{tidyDoc(doc)}, 10), d.documents(doc))
	}
}

func largeDocuments(t *testing.T, drivers Drivers) {
	doc := bytes.Repeat([]byte("0123456789abcde\x00"), 1<<16)
	for i, got := range newDatabase(t, drivers).documents(doc) {
		require.True(t, bytes.Equal(doc, got), "document %d is read with %d bytes", i, len(got))
	}
}

// Ids consist of ASCII letters, digits, dots, dashes and underscores, have up to 128
// characters, and are case-sensitive. Other columns and the names of marks are any UTF-8.
func anyCharacters(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	names := []string{"0", "00", "0x1", "1e3", "9", "A", "AB", "Aa", "Z-", "Z.", "Z_", "a", "a-b", "a.b", "aB", "a_b", "ab", "null", strings.Repeat("z", 128)}
	text := "ä 'quoted' \"too\" %_*?\\ \n 🙂 \u2028"
	var w store.Writes
	for _, name := range names {
		w.VMs = append(w.VMs, store.VMRow{ID: name, Pool: text, Org: text, Status: text})
		w.Commands = append(w.Commands, store.CommandRow{ID: name, VM: name, Type: text, State: text, Queue: text})
		w.Events = append(w.Events, store.EventRow{VM: name, Type: text, ReceivedAt: at(0)})
		w.Heartbeats = append(w.Heartbeats, store.HeartbeatRow{At: at(len(w.VMs)), VMs: []string{name}, Doc: []byte(name)})
		w.Changes = append(w.Changes, store.ChangeRow{At: at(0), VM: name, Kind: text})
		w.Tokens = append(w.Tokens, store.TokenRow{ID: name})
		w.Audit = append(w.Audit, store.AuditRow{At: at(0), Principal: text, Action: text, VM: name, Command: name, Outcome: text})
	}
	slices.Reverse(w.VMs)
	w.Marks = map[string]int64{text: 5}
	want := shown(w, d.commit(w))
	require.Equal(t, want, d.contents())
	require.Equal(t, names, ids(want.VMs, vmID), "ids are ordered byte by byte")
	require.EqualValues(t, 5, d.mark(text))
	require.Len(t, d.vms(store.VMQuery{Pool: text, Org: text, Status: text}, all), len(names))
	for i, name := range names {
		require.Equal(t, store.Rows{VMs: want.VMs[i : i+1], Commands: []store.CommandRow{want.Commands[len(names)-1-i]}},
			d.load(store.Keys{VMs: []string{name}, Queues: []string{text}, Depth: 9}))
		require.Equal(t, []string{name}, ids(d.commands(store.CommandQuery{VM: name, Type: text, States: []string{text}}, all), commandID))
		require.Len(t, d.events(store.EventQuery{VM: name, Type: text}, all), 1)
		require.Len(t, d.changes(store.ChangeQuery{VM: name}, all), 1)
		require.Len(t, d.audit(store.AuditQuery{Principal: text, Action: text, VM: name, Command: name, Outcome: text, Pools: []string{text}}, all), 1)
		require.Contains(t, ids(d.heartbeats(store.HeartbeatQuery{VM: name}, all), docOfBeats), name)
		require.Equal(t, names[i+1:], append([]string{}, ids(d.vms(store.VMQuery{After: name}, all), vmID)...))
	}
}

func exactTimes(t *testing.T, drivers Drivers) {
	for _, when := range []time.Time{
		at(0), at(0).Add(1), at(0).Truncate(time.Second), time.Unix(0, 1).UTC(),
		time.Date(1999, 12, 31, 23, 59, 59, 999999999, time.UTC), time.Date(2199, 12, 31, 23, 59, 59, 999999999, time.UTC),
	} {
		d := newDatabase(t, drivers)
		w := store.Writes{
			VMs:        []store.VMRow{{ID: "both", LastSeenAt: when, DueAt: when}, {ID: "due", DueAt: when}, {ID: "seen", LastSeenAt: when}},
			Commands:   []store.CommandRow{{ID: "both", DueAt: when, FinishedAt: when}, {ID: "due", DueAt: when}, {ID: "finished", FinishedAt: when}},
			Events:     []store.EventRow{{VM: "vm", ReceivedAt: when}},
			Heartbeats: []store.HeartbeatRow{{At: when, VMs: []string{"vm"}}},
			Changes:    []store.ChangeRow{{At: when, VM: "vm"}},
			Audit:      []store.AuditRow{{At: when}},
		}
		require.Equal(t, shown(w, d.commit(w)), d.contents())
		require.Empty(t, d.due(when.Add(-1), all))
		require.Len(t, d.due(when, all).VMs, 2)
		require.Len(t, d.due(when, all).Commands, 2)
	}
}

func ownMemory(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	given := full()
	want := shown(full(), d.commit(given))
	spoil(given.VMs, given.Commands, given.Events, given.Heartbeats, given.Changes)
	require.Equal(t, want, d.contents(), "the caller's memory is not retained")

	got, err := d.Load(t.Context(), store.Keys{VMs: []string{"vm-1"}, Commands: []string{"c-1"}})
	require.NoError(t, err)
	due, _, err := d.Due(t.Context(), at(9), all)
	require.NoError(t, err)
	has := d.contents()
	spoil(got.VMs, got.Commands, has.Events, has.Heartbeats, has.Changes)
	spoil(due.VMs, due.Commands, nil, nil, nil)
	spoil(has.VMs, has.Commands, nil, nil, nil)
	require.Equal(t, want, d.contents(), "returned memory belongs to the caller")
	require.Len(t, d.heartbeats(store.HeartbeatQuery{VM: "vm-1"}, 1), 1)
}

// spoil overwrites the memory that rows point to.
func spoil(vms []store.VMRow, commands []store.CommandRow, events []store.EventRow, beats []store.HeartbeatRow, changes []store.ChangeRow) {
	var docs [][]byte
	for _, r := range vms {
		docs = append(docs, r.Doc)
	}
	for _, r := range commands {
		docs = append(docs, r.Doc)
	}
	for _, r := range events {
		docs = append(docs, r.Doc)
	}
	for _, r := range beats {
		docs = append(docs, r.Doc)
		for i := range r.VMs {
			r.VMs[i] = "spoilt"
		}
	}
	for _, r := range changes {
		docs = append(docs, r.Doc)
	}
	for _, doc := range docs {
		for i := range doc {
			doc[i] = '!'
		}
	}
}

func largeCommit(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	var w store.Writes
	for n := range 1000 {
		vm := numbered("vm", n)
		w.VMs = append(w.VMs, aVM(vm))
		w.Commands = append(w.Commands, aCommand(numbered("c", n), vm, "normal"))
		w.Events = append(w.Events, anEvent(vm, "one"))
		w.Changes = append(w.Changes, aChange(vm, vm), aChangeOf(vm, n+1))
	}
	w.Heartbeats = []store.HeartbeatRow{someHeartbeats(at(0), ids(w.VMs, vmID)...)}
	require.Equal(t, shown(w, d.commit(w)), d.contents())
}
