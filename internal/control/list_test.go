package control_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/control"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

// lister asks one of the lists for a page, and answers the names of its entries.
type lister func(size int, token string) (names []string, next string, err error)

func listCommands(t *testing.T, c *control.Control, f store.CommandFilter) lister {
	t.Helper()
	return func(size int, token string) (names []string, next string, err error) {
		page, next, err := c.Commands(t.Context(), f, size, token)
		for _, cmd := range page {
			names = append(names, string(cmd.ID))
		}
		return names, next, err
	}
}

func listVMs(t *testing.T, c *control.Control, f store.VMFilter) lister {
	t.Helper()
	return func(size int, token string) (names []string, next string, err error) {
		page, next, err := c.VMs(t.Context(), f, size, token)
		for _, v := range page {
			names = append(names, string(v.ID))
		}
		return names, next, err
	}
}

func listEvents(t *testing.T, c *control.Control, f store.EventFilter) lister {
	t.Helper()
	return func(size int, token string) (names []string, next string, err error) {
		page, next, err := c.Events(t.Context(), f, size, token)
		for _, e := range page {
			names = append(names, fmt.Sprintf("e%d", e.Seq))
		}
		return names, next, err
	}
}

// walk asks for page after page, and answers all names and how many pages there
// were.
func walk(t *testing.T, list lister, size int) (names []string, pages int) {
	t.Helper()
	token := ""
	for {
		page, next, err := list(size, token)
		require.NoError(t, err)
		names, pages = append(names, page...), pages+1
		if next == "" {
			return names, pages
		}
		require.Len(t, page, size, "only the last page is short")
		token = next
	}
}

// populated is a store with seven commands, seven VMs and seven events.
func populated(t *testing.T) (*fakeStore, *control.Control) {
	t.Helper()
	s := newFakeStore()
	c := newControl(t, s)
	for i := range 7 {
		s.addEvent(fleet.Event{
			Origin: fleet.Origin{VM: "vm-1", ReceivedAt: start.Add(time.Duration(i) * time.Second)},
			Type:   "vm_started",
		})
	}
	for i := range 7 {
		_, err := c.Send(t.Context(), drain(fmt.Sprintf("c%d", i+1)), 0)
		require.NoError(t, err)
		s.putVM(fleet.NewVM(fleet.VMID(fmt.Sprintf("vm-%d", 7-i)), start))
	}
	return s, c
}

// Following the tokens, every entry is seen once, in the promised order, and the
// last page has no token, whatever the size.
func TestPages(t *testing.T) {
	t.Parallel()
	_, c := populated(t)
	lists := []struct {
		name string
		list lister
		want []string
	}{
		{"commands", listCommands(t, c, store.CommandFilter{}), []string{"c7", "c6", "c5", "c4", "c3", "c2", "c1"}},
		{"VMs", listVMs(t, c, store.VMFilter{}), []string{"vm-1", "vm-2", "vm-3", "vm-4", "vm-5", "vm-6", "vm-7"}},
		{"events", listEvents(t, c, store.EventFilter{}), []string{"e7", "e6", "e5", "e4", "e3", "e2", "e1"}},
	}
	for _, test := range lists {
		for size, pages := range map[int]int{1: 7, 2: 4, 3: 3, 6: 2, 7: 1, 8: 1, 0: 1, control.MaxPageSize: 1} {
			t.Run(fmt.Sprintf("%s by %d", test.name, size), func(t *testing.T) {
				t.Parallel()
				names, got := walk(t, test.list, size)
				require.Equal(t, test.want, names)
				require.Equal(t, pages, got)
			})
		}
	}
}

// Entries that come while someone is turning pages neither shift the pages nor
// appear twice.
func TestPagesAreStable(t *testing.T) {
	t.Parallel()
	_, c := populated(t)
	list := listCommands(t, c, store.CommandFilter{})
	first, next, err := list(4, "")
	require.NoError(t, err)
	_, err = c.Send(t.Context(), drain("late"), 0)
	require.NoError(t, err)
	second, next, err := list(4, next)
	require.NoError(t, err)
	require.Empty(t, next)
	require.Equal(t, []string{"c7", "c6", "c5", "c4", "c3", "c2", "c1"}, append(first, second...))
}

// A page of zero entries asked for is one of a hundred.
func TestDefaultPageSize(t *testing.T) {
	t.Parallel()
	s := newFakeStore()
	c := newControl(t, s)
	for range control.DefaultPageSize + 1 {
		s.addEvent(fleet.Event{Origin: fleet.Origin{VM: "vm-1"}, Type: "error"})
	}
	page, next, err := c.Events(t.Context(), store.EventFilter{}, 0, "")
	require.NoError(t, err)
	require.Len(t, page, control.DefaultPageSize)
	require.NotEmpty(t, next)
}

// Large entries make short pages, never an endless or an empty one.
func TestPagesOfLargeEntries(t *testing.T) {
	t.Parallel()
	s := newFakeStore()
	c := newControl(t, s)
	body, err := json.Marshal(map[string]string{"x": string(bytes.Repeat([]byte("x"), 1<<20))})
	require.NoError(t, err)
	for range 5 {
		s.addEvent(fleet.Event{Origin: fleet.Origin{VM: "vm-1"}, Type: "error", Body: body})
	}
	s.addEvent(fleet.Event{
		Origin: fleet.Origin{VM: "vm-1"}, Type: "error", Body: bytes.Repeat([]byte("x"), 5<<20),
	})
	var seen []int64
	token := ""
	for {
		page, next, err := c.Events(t.Context(), store.EventFilter{}, 0, token)
		require.NoError(t, err)
		require.NotEmpty(t, page)
		size := 0
		for _, e := range page {
			seen = append(seen, e.Seq)
			size += len(e.Body)
		}
		require.True(t, len(page) == 1 || size < 3<<20, "%d bytes in %d entries", size, len(page))
		if token = next; token == "" {
			break
		}
	}
	require.Equal(t, []int64{6, 5, 4, 3, 2, 1}, seen)
}

// Every filter reaches the store.
func TestFilters(t *testing.T) {
	t.Parallel()
	s, c := populated(t)
	yes := true
	other := drain("other")
	other.VM, other.Type = "vm-other", "shutdown"
	_, err := c.Send(t.Context(), other, 0)
	require.NoError(t, err)
	s.deliver("other")
	v := fleet.NewVM("vm-other", start)
	v.Pool, v.Org, v.Status, v.Connected = "p", "o", "idle", true
	s.putVM(v)
	s.addEvent(fleet.Event{Origin: fleet.Origin{VM: "vm-other", ReceivedAt: start.Add(time.Hour)}, Type: "error"})

	states := []fleet.CommandState{fleet.Delivered, fleet.Failed}
	for name, f := range map[string]store.CommandFilter{
		"VM": {VM: "vm-other"}, "type": {Type: "shutdown"}, "states": {States: states},
	} {
		got, _, err := c.Commands(t.Context(), f, 0, "")
		require.NoError(t, err)
		require.Len(t, got, 1, name)
		require.Equal(t, fleet.CommandID("other"), got[0].ID, name)
	}
	for name, f := range map[string]store.VMFilter{
		"pool": {Pool: "p"}, "org": {Org: "o"}, "status": {Status: "idle"}, "connected": {Connected: &yes},
	} {
		got, _, err := c.VMs(t.Context(), f, 0, "")
		require.NoError(t, err)
		require.Len(t, got, 1, name)
		require.Equal(t, fleet.VMID("vm-other"), got[0].ID, name)
	}
	for name, f := range map[string]store.EventFilter{
		"VM": {VM: "vm-other"}, "type": {Type: "error"}, "since": {Since: start.Add(time.Hour)},
	} {
		got, _, err := c.Events(t.Context(), f, 0, "")
		require.NoError(t, err)
		require.Len(t, got, 1, name)
		require.Equal(t, fleet.VMID("vm-other"), got[0].VM, name)
	}
	got, _, err := c.Events(t.Context(), store.EventFilter{Since: start, Until: start.Add(time.Second)}, 0, "")
	require.NoError(t, err)
	require.Len(t, got, 1)
}

// A token is good with the filters it was issued for, in whatever order they are
// written, and refused with any others, on any other list and by another store.
func TestTokensBelongToTheirFilters(t *testing.T) {
	t.Parallel()
	s, c := populated(t)
	yes, no := true, false
	pending := []fleet.CommandState{fleet.Pending, fleet.Delivered}
	swapped := []fleet.CommandState{fleet.Delivered, fleet.Pending, fleet.Pending}
	since := start.Add(-time.Hour)
	for i := range 7 {
		v := fleet.NewVM(fleet.VMID(fmt.Sprintf("vm-%d", i+1)), start)
		v.Connected = true
		s.putVM(v)
	}
	token := func(list lister) string {
		_, next, err := list(2, "")
		require.NoError(t, err)
		require.NotEmpty(t, next)
		return next
	}
	commands := token(listCommands(t, c, store.CommandFilter{States: pending}))
	vms := token(listVMs(t, c, store.VMFilter{Connected: &yes}))
	events := token(listEvents(t, c, store.EventFilter{Since: since}))

	local := since.In(time.FixedZone("local", 3600))
	for name, good := range map[string]struct {
		list  lister
		token string
	}{
		"states in another order": {listCommands(t, c, store.CommandFilter{States: swapped}), commands},
		"connected":               {listVMs(t, c, store.VMFilter{Connected: &yes}), vms},
		"time in another zone":    {listEvents(t, c, store.EventFilter{Since: local}), events},
	} {
		_, _, err := good.list(5, good.token)
		require.NoError(t, err, name)
	}

	other := newFakeStore()
	other.id = "store-2"
	elsewhere := newControl(t, other)
	for name, bad := range map[string]struct {
		list  lister
		token string
	}{
		"no states":         {listCommands(t, c, store.CommandFilter{}), commands},
		"a VM":              {listCommands(t, c, store.CommandFilter{States: pending, VM: "vm-1"}), commands},
		"a type":            {listCommands(t, c, store.CommandFilter{States: pending, Type: "drain"}), commands},
		"another store":     {listCommands(t, elsewhere, store.CommandFilter{States: pending}), commands},
		"not connected":     {listVMs(t, c, store.VMFilter{Connected: &no}), vms},
		"either":            {listVMs(t, c, store.VMFilter{}), vms},
		"a pool":            {listVMs(t, c, store.VMFilter{Connected: &yes, Pool: "p"}), vms},
		"an org":            {listVMs(t, c, store.VMFilter{Connected: &yes, Org: "p"}), vms},
		"a status":          {listVMs(t, c, store.VMFilter{Connected: &yes, Status: "idle"}), vms},
		"no since":          {listEvents(t, c, store.EventFilter{}), events},
		"until":             {listEvents(t, c, store.EventFilter{Since: since, Until: start.Add(time.Hour)}), events},
		"an event type":     {listEvents(t, c, store.EventFilter{Since: since, Type: "error"}), events},
		"a VM's events":     {listEvents(t, c, store.EventFilter{Since: since, VM: "vm-1"}), events},
		"of commands":       {listEvents(t, c, store.EventFilter{}), commands},
		"garbage":           {listVMs(t, c, store.VMFilter{}), "garbage"},
		"garbage, commands": {listCommands(t, c, store.CommandFilter{}), "!"},
	} {
		_, _, err := bad.list(5, bad.token)
		require.Error(t, err, name)
		requireField(t, err, "page_token")
		require.NotContains(t, err.Error(), bad.token)
	}
}

func TestListsNameTheFieldThatIsWrong(t *testing.T) {
	t.Parallel()
	c := newControl(t, newFakeStore())
	tests := []struct {
		field string
		list  lister
		size  int
	}{
		{"page_size", listCommands(t, c, store.CommandFilter{}), -1},
		{"page_size", listCommands(t, c, store.CommandFilter{}), control.MaxPageSize + 1},
		{"page_size", listVMs(t, c, store.VMFilter{}), -1},
		{"page_size", listEvents(t, c, store.EventFilter{}), control.MaxPageSize + 1},
		{"vm_id", listCommands(t, c, store.CommandFilter{VM: "_"}), 0},
		{"type", listCommands(t, c, store.CommandFilter{Type: "_"}), 0},
		{"states", listCommands(t, c, store.CommandFilter{States: []fleet.CommandState{"LOST"}}), 0},
		{"pool_id", listVMs(t, c, store.VMFilter{Pool: "_"}), 0},
		{"org_id", listVMs(t, c, store.VMFilter{Org: "_"}), 0},
		{"status", listVMs(t, c, store.VMFilter{Status: "_"}), 0},
		{"vm_id", listEvents(t, c, store.EventFilter{VM: "_"}), 0},
		{"type", listEvents(t, c, store.EventFilter{Type: "_"}), 0},
		{"until", listEvents(t, c, store.EventFilter{Since: start, Until: start}), 0},
		{"until", listEvents(t, c, store.EventFilter{Since: start, Until: start.Add(-1)}), 0},
	}
	for i, test := range tests {
		t.Run(fmt.Sprint(i, test.field), func(t *testing.T) {
			t.Parallel()
			_, _, err := test.list(test.size, "")
			requireField(t, err, test.field)
		})
	}
}

// What a list could not read is said with its cause.
func TestListsPassOnErrors(t *testing.T) {
	t.Parallel()
	s := newFakeStore()
	broken := errors.New("broken")
	s.before = func(string) error { return broken }
	c := newControl(t, s)
	for _, list := range []lister{
		listCommands(t, c, store.CommandFilter{}), listVMs(t, c, store.VMFilter{}), listEvents(t, c, store.EventFilter{}),
	} {
		_, _, err := list(0, "")
		require.ErrorIs(t, err, broken)
	}
}

// The heartbeats of a VM come in pages, the latest first, whose tokens are good for
// that VM alone; a VM that was never seen is an error, not an empty list.
func TestHeartbeats(t *testing.T) {
	t.Parallel()
	s := newFakeStore()
	s.vms = []fleet.VM{{ID: "vm-1"}, {ID: "vm-2"}}
	for i := range 5 {
		for _, vm := range []fleet.VMID{"vm-1", "vm-2"} {
			s.beats = append(s.beats, fleet.Heartbeat{Origin: fleet.Origin{VM: vm, ReceivedAt: start.Add(-time.Duration(i) * time.Minute)}})
		}
	}
	c := newControl(t, s)
	var got []time.Time
	token := ""
	for page := 0; page == 0 || token != ""; page++ {
		beats, next, err := c.Heartbeats(t.Context(), "vm-1", 2, token)
		require.NoError(t, err)
		for _, h := range beats {
			require.Equal(t, fleet.VMID("vm-1"), h.VM)
			got = append(got, h.ReceivedAt)
		}
		if next != "" {
			_, _, err = c.Heartbeats(t.Context(), "vm-2", 2, next)
			require.ErrorContains(t, err, "page_token")
		}
		token = next
	}
	require.Len(t, got, 5)
	require.True(t, slices.IsSortedFunc(got, func(a, b time.Time) int { return b.Compare(a) }))
	_, _, err := c.Heartbeats(t.Context(), "vm-9", 0, "")
	require.ErrorIs(t, err, fleet.ErrNotFound)
	for field, try := range map[string]func() error{
		"vm_id":      func() error { _, _, err := c.Heartbeats(t.Context(), "", 0, ""); return err },
		"page_size":  func() error { _, _, err := c.Heartbeats(t.Context(), "vm-1", -1, ""); return err },
		"page_token": func() error { _, _, err := c.Heartbeats(t.Context(), "vm-1", 0, "!"); return err },
	} {
		invalid, ok := errors.AsType[*fleet.FieldError](try())
		require.True(t, ok, field)
		require.Equal(t, field, invalid.Field)
	}
}
