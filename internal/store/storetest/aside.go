package storetest

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/store"
)

// broken is the document of damaged rows.
const broken = "{{{"

var errBroken = errors.New("it is broken")

func faultOf(doc []byte) error {
	if string(doc) == broken {
		return errBroken
	}
	return nil
}

var damagedDocs = store.Check{
	VM:         func(r store.VMRow) error { return faultOf(r.Doc) },
	Command:    func(r store.CommandRow) error { return faultOf(r.Doc) },
	Event:      func(r store.EventRow) error { return faultOf(r.Doc) },
	Heartbeats: func(r store.HeartbeatRow) error { return faultOf(r.Doc) },
	Change:     func(r store.ChangeRow) error { return faultOf(r.Doc) },
	Token:      func(r store.TokenRow) error { return faultOf(r.Doc) },
	Audit:      func(r store.AuditRow) error { return faultOf(r.Doc) },
}

// places returns the places of all rows.
func (d *database) places() (all []store.Place) {
	d.Helper()
	vms, _, err := d.VMs(d.Context(), store.VMQuery{}, 100)
	require.NoError(d, err)
	for _, r := range vms {
		all = append(all, store.Place{Class: store.ClassVMs, Row: r.Row})
	}
	commands, _, err := d.Commands(d.Context(), store.CommandQuery{}, 100)
	require.NoError(d, err)
	for _, r := range commands {
		all = append(all, store.Place{Class: store.ClassCommands, Row: r.Seq})
	}
	events, _, err := d.Events(d.Context(), store.EventQuery{}, 100)
	require.NoError(d, err)
	for _, r := range events {
		all = append(all, store.Place{Class: store.ClassEvents, Row: r.Seq})
	}
	beats, _, err := d.Heartbeats(d.Context(), store.HeartbeatQuery{}, 100)
	require.NoError(d, err)
	for _, r := range beats {
		all = append(all, store.Place{Class: store.ClassHeartbeats, Row: r.Seq})
	}
	changes, _, err := d.Changes(d.Context(), store.ChangeQuery{After: d.purgedChanges()}, 100)
	require.NoError(d, err)
	for _, r := range changes {
		all = append(all, store.Place{Class: store.ClassChanges, Row: r.Seq})
	}
	tokens, err := d.Tokens(d.Context())
	require.NoError(d, err)
	for _, r := range tokens {
		all = append(all, store.Place{Class: store.ClassTokens, Row: r.Row})
	}
	for _, r := range d.audit(store.AuditQuery{}, 100) {
		all = append(all, store.Place{Class: store.ClassAudit, Row: r.Seq})
	}
	return all
}

// setAside sets all damaged rows aside.
func (d *database) setAside() []store.Aside {
	d.Helper()
	moved, err := d.SetAside(d.Context(), at(50), d.places(), damagedDocs)
	require.NoError(d, err)
	return moved
}

// withDamage returns a database with a damaged row of each kind between others.
func withDamage(t *testing.T, drivers Drivers) *database {
	d := newDatabase(t, drivers)
	w := full()
	w.VMs = append(w.VMs, store.VMRow{ID: "bad", Connected: true, DueAt: at(0), Doc: []byte(broken)})
	bad := aCommand("bad", "vm-1", "normal")
	bad.Doc = []byte(broken)
	w.Commands = slices.Insert(w.Commands, 1, bad)
	w.Events = append(w.Events, store.EventRow{VM: "vm-2", ReceivedAt: at(9), Doc: []byte(broken)})
	w.Heartbeats = append(w.Heartbeats, store.HeartbeatRow{At: at(7), VMs: []string{"vm-1"}, Doc: []byte(broken)})
	w.Changes = slices.Insert(w.Changes, 2, store.ChangeRow{At: at(6), VM: "vm-2", Kind: "vm", Doc: []byte(broken)})
	w.Tokens = slices.Insert(w.Tokens, 1, store.TokenRow{ID: "bad", Doc: []byte(broken)})
	w.Audit = slices.Insert(w.Audit, 1, store.AuditRow{At: at(9), VM: "vm-2", Doc: []byte(broken)})
	d.commit(w)
	return d
}

func asideIsGone(t *testing.T, drivers Drivers) {
	d := withDamage(t, drivers)
	want := d.contents()
	moved := d.setAside()
	require.Len(t, moved, 7)
	for i, a := range moved {
		require.EqualValues(t, i+1, a.Number)
		require.Contains(t, a.Why, errBroken.Error())
		require.Equal(t, at(50), a.At)
	}
	var names [][2]string
	for _, a := range moved {
		names = append(names, [2]string{a.ID, a.VM})
	}
	require.Equal(t, [][2]string{{"bad", "bad"}, {"bad", "vm-1"}, {"", "vm-2"}, {"", ""}, {"", "vm-2"}, {"bad", ""}, {"", "vm-2"}}, names)

	want.VMs = slices.DeleteFunc(want.VMs, func(r store.VMRow) bool { return faultOf(r.Doc) != nil })
	want.Commands = slices.DeleteFunc(want.Commands, func(r store.CommandRow) bool { return faultOf(r.Doc) != nil })
	want.Events = slices.DeleteFunc(want.Events, func(r store.EventRow) bool { return faultOf(r.Doc) != nil })
	want.Heartbeats = slices.DeleteFunc(want.Heartbeats, func(r store.HeartbeatRow) bool { return faultOf(r.Doc) != nil })
	want.Changes = want.Changes[3:]
	want.Tokens = slices.DeleteFunc(want.Tokens, func(r store.TokenRow) bool { return faultOf(r.Doc) != nil })
	want.Audit = slices.DeleteFunc(want.Audit, func(r store.AuditRow) bool { return faultOf(r.Doc) != nil })
	require.Equal(t, want, d.contents())
	rows := d.load(store.Keys{VMs: []string{"vm-1", "bad"}, Queues: []string{"normal"}, Depth: 9})
	require.Equal(t, []string{"c-1"}, ids(rows.Commands, commandID), "it is in no queue")
	require.Equal(t, []string{"vm-1"}, ids(rows.VMs, vmID))
	due := d.due(at(90), all)
	require.NotContains(t, ids(due.VMs, vmID), "bad")
	require.NotContains(t, ids(due.Commands, commandID), "bad")
	require.Empty(t, d.setAside(), "once")
}

func asideIsNamed(t *testing.T, drivers Drivers) {
	d := withDamage(t, drivers)
	k := store.Keys{VMs: []string{"bad", "vm-1", "none"}, Commands: []string{"bad", "c-1", "none"}}
	require.Equal(t, store.Asides{}, d.load(k).Aside)
	moved := d.setAside()
	require.Equal(t, store.Asides{
		VMs: map[string]int64{"bad": moved[0].Number}, Commands: map[string]int64{"bad": moved[1].Number},
	}, d.load(k).Aside)
	require.Equal(t, store.Asides{}, d.load(store.Keys{VMs: []string{"none"}, Commands: []string{"none"}}).Aside)
}

func asideKeepsID(t *testing.T, drivers Drivers) {
	d := withDamage(t, drivers)
	d.setAside()
	conflict := d.conflict(store.Writes{Commands: []store.CommandRow{aCommand("new", "vm-1", ""), aCommand("bad", "vm-9", "")}})
	require.Equal(t, []string{"bad"}, conflict.Commands)
	require.Empty(t, d.load(store.Keys{Commands: []string{"new", "bad"}}).Commands)
	d.commit(store.Writes{Commands: []store.CommandRow{aCommand("new", "vm-1", "")}})
}

func asideFreesVM(t *testing.T, drivers Drivers) {
	d := withDamage(t, drivers)
	first := d.setAside()[0].Number
	again := store.VMRow{ID: "bad", Doc: []byte(broken)}
	d.commit(store.Writes{VMs: []store.VMRow{again}})
	require.Empty(t, d.load(store.Keys{VMs: []string{"bad"}}).Aside.VMs, "it has a row")
	second := d.setAside()
	require.Len(t, second, 1)
	require.Greater(t, second[0].Number, first)
	require.Equal(t, second[0].Number, d.load(store.Keys{VMs: []string{"bad"}}).Aside.VMs["bad"], "the latest")
	again.Doc = []byte("fine")
	d.commit(store.Writes{VMs: []store.VMRow{again}})
	require.EqualValues(t, 1, d.vm("bad").Version)
}

// The numbers of changes continue, even after the latest was set aside, and a later purge
// does not bring back what was before it.
func asideChange(t *testing.T, drivers Drivers) {
	d := newDatabase(t, drivers)
	damaged := aChange("vm", "")
	damaged.Doc = []byte(broken)
	d.commit(store.Writes{Changes: []store.ChangeRow{aChange("vm", "1"), aChange("vm", "2"), damaged}})
	l := d.listen()
	require.Len(t, d.setAside(), 1)
	require.EqualValues(t, 3, d.lastChange())
	for _, vm := range []string{"", "vm", "none"} {
		for after := range int64(3) {
			_, _, err := d.Changes(t.Context(), store.ChangeQuery{VM: vm, After: after}, 9)
			require.ErrorIs(t, err, store.ErrPurged, "VM %q after %d", vm, after)
		}
		require.Empty(t, d.changes(store.ChangeQuery{VM: vm, After: 3}, 9))
	}
	require.Empty(t, l.calls)
	require.EqualValues(t, 4, d.commit(store.Writes{Changes: []store.ChangeRow{aChange("vm", "4")}}).FirstChange)
	require.Equal(t, []string{"change 4"}, ids(d.changes(store.ChangeQuery{After: 3}, all), docOfChange))
	cut := store.Cutoffs{Now: at(99), Changes: at(99)}
	d.purge(cut, 1)
	_, _, err := d.Changes(t.Context(), store.ChangeQuery{After: 2}, 9)
	require.ErrorIs(t, err, store.ErrPurged)
	require.Eventually(t, func() bool { return d.purge(cut, all) == 0 }, 10*time.Second, time.Microsecond)
	require.Equal(t, []string{"change 4"}, ids(d.changes(store.ChangeQuery{After: 3}, all), docOfChange))
}

// A row is checked when it is set aside: it may have been rewritten or purged.
func asideChecks(t *testing.T, drivers Drivers) {
	d := withDamage(t, drivers)
	places := d.places()
	vm, c := d.vm("bad"), d.command("bad")
	vm.Doc, c.Doc = []byte("mended"), []byte("mended")
	token := aToken("bad")
	token.Version = 1
	d.commit(store.Writes{VMs: []store.VMRow{vm}, Commands: []store.CommandRow{c}, Tokens: []store.TokenRow{token}})
	d.purge(store.Cutoffs{Now: at(90), Events: at(89), EventsThrough: 99, Heartbeats: at(89)}, all)
	moved, err := d.SetAside(t.Context(), at(0), append(places, store.Place{Class: store.ClassVMs, Row: 1 << 40}), damagedDocs)
	require.NoError(t, err)
	require.Len(t, moved, 2)
	require.Equal(t, store.ClassChanges, moved[0].Class)
	require.Equal(t, store.ClassAudit, moved[1].Class)
	require.Equal(t, "mended", string(d.vm("bad").Doc))
	require.Equal(t, "mended", string(d.command("bad").Doc))
	moved, err = d.SetAside(t.Context(), at(0), places, store.Check{})
	require.NoError(t, err)
	require.Empty(t, moved, "nothing is damaged without a check")
}

func asideSurvives(t *testing.T, drivers Drivers) {
	d := withDamage(t, drivers)
	d.setAside()
	want := d.contents()
	d = opened(t, drivers.Crash(t, d.Driver))
	require.Equal(t, want, d.contents())
	require.Equal(t, []string{"bad"}, d.conflict(store.Writes{Commands: []store.CommandRow{aCommand("bad", "vm-1", "")}}).Commands)
	require.Len(t, d.load(store.Keys{VMs: []string{"bad"}, Commands: []string{"bad"}}).Aside.VMs, 1)
	damaged := store.VMRow{ID: "another", Doc: []byte(broken)}
	d.commit(store.Writes{VMs: []store.VMRow{damaged}})
	require.EqualValues(t, 8, d.setAside()[0].Number, "numbers continue")
}
