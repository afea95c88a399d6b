package control_test

import (
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

// lister requests a page of one of the lists, and returns the names of its entries.
type lister func(size int, token string) (names []string, next string, err error)

func listCommands(t *testing.T, c *control.Control, f store.CommandQuery) lister {
	t.Helper()
	return func(size int, token string) (names []string, next string, err error) {
		page, next, err := c.Commands(anyone(t), f, size, token)
		for _, cmd := range page {
			names = append(names, string(cmd.ID))
		}
		return names, next, err
	}
}

func listVMs(t *testing.T, c *control.Control, f store.VMQuery) lister {
	t.Helper()
	return func(size int, token string) (names []string, next string, err error) {
		page, next, err := c.VMs(anyone(t), f, size, token)
		for _, v := range page {
			names = append(names, string(v.ID))
		}
		return names, next, err
	}
}

func listEvents(t *testing.T, c *control.Control, f store.EventQuery) lister {
	t.Helper()
	return func(size int, token string) (names []string, next string, err error) {
		page, next, err := c.Events(anyone(t), f, size, token)
		for _, e := range page {
			names = append(names, fmt.Sprintf("e%d", e.Seq))
		}
		return names, next, err
	}
}

// walk requests all pages, and returns all names and the number of pages.
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
func populated(t *testing.T) (*world, *control.Control) {
	t.Helper()
	s := newWorld(t)
	c := newControl(t, s)
	s.know("vm-1")
	for i := range 7 {
		s.addEvent(fleet.Event{
			Origin: fleet.Origin{VM: "vm-1", ReceivedAt: start.Add(time.Duration(i) * time.Second)},
			Type:   "vm_started",
		})
	}
	for i := range 7 {
		_, err := c.Send(anyone(t), drain(fmt.Sprintf("c%d", i+1)), 0)
		require.NoError(t, err)
		s.know(fleet.VMID(fmt.Sprintf("vm-%d", 7-i)))
	}
	return s, c
}

// Every filter reaches the store.
func TestFilters(t *testing.T) {
	t.Parallel()
	s, c := populated(t)
	yes := true
	other := drain("other")
	other.VM, other.Type = "vm-other", "shutdown"
	_, err := c.Send(anyone(t), other, 0)
	require.NoError(t, err)
	s.heartbeat(fleet.Heartbeat{
		Origin: fleet.Origin{VM: "vm-other", Pool: "p", Org: "o", ReceivedAt: start}, Status: "idle",
		Runner: &fleet.Runner{Configured: true},
	})
	s.deliver("other")
	s.addEvent(fleet.Event{Origin: fleet.Origin{VM: "vm-other", ReceivedAt: start.Add(time.Hour)}, Type: "error"})

	states := []string{string(fleet.Delivered), string(fleet.Failed)}
	for name, f := range map[string]store.CommandQuery{
		"VM": {VM: "vm-other"}, "type": {Type: "shutdown"}, "states": {States: states},
	} {
		got, _, err := c.Commands(anyone(t), f, 0, "")
		require.NoError(t, err)
		require.Len(t, got, 1, name)
		require.Equal(t, fleet.CommandID("other"), got[0].ID, name)
	}
	for name, f := range map[string]store.VMQuery{
		"pool": {Pool: "p"}, "org": {Org: "o"}, "status": {Status: "idle"}, "connected": {Connected: &yes},
	} {
		got, _, err := c.VMs(anyone(t), f, 0, "")
		require.NoError(t, err)
		require.Len(t, got, 1, name)
		require.Equal(t, fleet.VMID("vm-other"), got[0].ID, name)
	}
	for name, f := range map[string]store.EventQuery{
		"VM": {VM: "vm-other"}, "type": {Type: "error"}, "since": {Since: start.Add(time.Hour)},
	} {
		got, _, err := c.Events(anyone(t), f, 0, "")
		require.NoError(t, err)
		require.Len(t, got, 1, name)
		require.Equal(t, fleet.VMID("vm-other"), got[0].VM, name)
	}
	got, _, err := c.Events(anyone(t), store.EventQuery{Since: start, Until: start.Add(time.Second)}, 0, "")
	require.NoError(t, err)
	require.Len(t, got, 1)
}

// A token is valid with the filters that it was issued for, in whatever order they are
// written, and rejected with any others, for any other list and by another store.
func TestTokensBelongToTheirFilters(t *testing.T) {
	t.Parallel()
	s, c := populated(t)
	yes, no := true, false
	pending := []string{string(fleet.Pending), string(fleet.Delivered)}
	swapped := []string{string(fleet.Delivered), string(fleet.Pending), string(fleet.Pending)}
	since := start.Add(-time.Hour)
	for i := range 7 {
		s.open(fleet.Hello{VM: fleet.VMID(fmt.Sprintf("vm-%d", i+1))})
	}
	token := func(list lister) string {
		_, next, err := list(2, "")
		require.NoError(t, err)
		require.NotEmpty(t, next)
		return next
	}
	commands := token(listCommands(t, c, store.CommandQuery{States: pending}))
	vms := token(listVMs(t, c, store.VMQuery{Connected: &yes}))
	events := token(listEvents(t, c, store.EventQuery{Since: since}))

	local := since.In(time.FixedZone("local", 3600))
	for name, good := range map[string]struct {
		list  lister
		token string
	}{
		"states in another order": {listCommands(t, c, store.CommandQuery{States: swapped}), commands},
		"connected":               {listVMs(t, c, store.VMQuery{Connected: &yes}), vms},
		"time in another zone":    {listEvents(t, c, store.EventQuery{Since: local}), events},
	} {
		_, _, err := good.list(5, good.token)
		require.NoError(t, err, name)
	}

	elsewhere := newControl(t, newWorld(t))
	for name, bad := range map[string]struct {
		list  lister
		token string
	}{
		"no states":         {listCommands(t, c, store.CommandQuery{}), commands},
		"a VM":              {listCommands(t, c, store.CommandQuery{States: pending, VM: "vm-1"}), commands},
		"a type":            {listCommands(t, c, store.CommandQuery{States: pending, Type: "drain"}), commands},
		"another store":     {listCommands(t, elsewhere, store.CommandQuery{States: pending}), commands},
		"not connected":     {listVMs(t, c, store.VMQuery{Connected: &no}), vms},
		"either":            {listVMs(t, c, store.VMQuery{}), vms},
		"a pool":            {listVMs(t, c, store.VMQuery{Connected: &yes, Pool: "p"}), vms},
		"an org":            {listVMs(t, c, store.VMQuery{Connected: &yes, Org: "p"}), vms},
		"a status":          {listVMs(t, c, store.VMQuery{Connected: &yes, Status: "idle"}), vms},
		"no since":          {listEvents(t, c, store.EventQuery{}), events},
		"until":             {listEvents(t, c, store.EventQuery{Since: since, Until: start.Add(time.Hour)}), events},
		"an event type":     {listEvents(t, c, store.EventQuery{Since: since, Type: "error"}), events},
		"a VM's events":     {listEvents(t, c, store.EventQuery{Since: since, VM: "vm-1"}), events},
		"of commands":       {listEvents(t, c, store.EventQuery{}), commands},
		"garbage":           {listVMs(t, c, store.VMQuery{}), "garbage"},
		"garbage, commands": {listCommands(t, c, store.CommandQuery{}), "!"},
	} {
		_, _, err := bad.list(5, bad.token)
		require.Error(t, err, name)
		requireField(t, err, "page_token")
		require.NotContains(t, err.Error(), bad.token)
	}
}

func TestListsNameTheFieldThatIsWrong(t *testing.T) {
	t.Parallel()
	c := newControl(t, newWorld(t))
	tests := []struct {
		field string
		list  lister
		size  int
	}{
		{"page_size", listCommands(t, c, store.CommandQuery{}), -1},
		{"page_size", listCommands(t, c, store.CommandQuery{}), control.MaxPageSize + 1},
		{"page_size", listVMs(t, c, store.VMQuery{}), -1},
		{"page_size", listEvents(t, c, store.EventQuery{}), control.MaxPageSize + 1},
		{"vm_id", listCommands(t, c, store.CommandQuery{VM: "_"}), 0},
		{"type", listCommands(t, c, store.CommandQuery{Type: "_"}), 0},
		{"states", listCommands(t, c, store.CommandQuery{States: []string{"LOST"}}), 0},
		{"pool_id", listVMs(t, c, store.VMQuery{Pool: "_"}), 0},
		{"org_id", listVMs(t, c, store.VMQuery{Org: "_"}), 0},
		{"status", listVMs(t, c, store.VMQuery{Status: "_"}), 0},
		{"vm_id", listEvents(t, c, store.EventQuery{VM: "_"}), 0},
		{"type", listEvents(t, c, store.EventQuery{Type: "_"}), 0},
		{"until", listEvents(t, c, store.EventQuery{Since: start, Until: start}), 0},
		{"until", listEvents(t, c, store.EventQuery{Since: start, Until: start.Add(-1)}), 0},
	}
	for i, test := range tests {
		t.Run(fmt.Sprint(i, test.field), func(t *testing.T) {
			t.Parallel()
			_, _, err := test.list(test.size, "")
			requireField(t, err, test.field)
		})
	}
}

// An error of a list includes its cause.
func TestListsPassOnErrors(t *testing.T) {
	t.Parallel()
	s := newWorld(t)
	broken := errors.New("broken")
	s.driver.before = func(string) error { return broken }
	c := newControl(t, s)
	for _, list := range []lister{
		listCommands(t, c, store.CommandQuery{}), listVMs(t, c, store.VMQuery{}), listEvents(t, c, store.EventQuery{}),
	} {
		_, _, err := list(0, "")
		require.ErrorIs(t, err, broken)
	}
}

// The heartbeats of a VM are paged, latest first, with tokens that are valid for that VM
// only; a VM that was never seen is an error, not an empty list.
func TestHeartbeats(t *testing.T) {
	t.Parallel()
	s := newWorld(t)
	for i := range 5 {
		at := start.Add(time.Duration(i-4) * time.Minute)
		s.heartbeat(
			fleet.Heartbeat{Origin: fleet.Origin{VM: "vm-1", ReceivedAt: at}},
			fleet.Heartbeat{Origin: fleet.Origin{VM: "vm-2", ReceivedAt: at}},
		)
	}
	c := newControl(t, s)
	var got []time.Time
	token := ""
	for page := 0; page == 0 || token != ""; page++ {
		beats, next, err := c.Heartbeats(anyone(t), "vm-1", 2, token)
		require.NoError(t, err)
		for _, h := range beats {
			require.Equal(t, fleet.VMID("vm-1"), h.VM)
			got = append(got, h.ReceivedAt)
		}
		if next != "" {
			_, _, err = c.Heartbeats(anyone(t), "vm-2", 2, next)
			require.ErrorContains(t, err, "page_token")
		}
		token = next
	}
	require.Len(t, got, 5)
	require.True(t, slices.IsSortedFunc(got, func(a, b time.Time) int { return b.Compare(a) }))
	_, _, err := c.Heartbeats(anyone(t), "vm-9", 0, "")
	require.ErrorIs(t, err, fleet.ErrNotFound)
	for field, try := range map[string]func() error{
		"vm_id":      func() error { _, _, err := c.Heartbeats(anyone(t), "", 0, ""); return err },
		"page_size":  func() error { _, _, err := c.Heartbeats(anyone(t), "vm-1", -1, ""); return err },
		"page_token": func() error { _, _, err := c.Heartbeats(anyone(t), "vm-1", 0, "!"); return err },
	} {
		invalid, ok := errors.AsType[*fleet.FieldError](try())
		require.True(t, ok, field)
		require.Equal(t, field, invalid.Field)
	}
}
