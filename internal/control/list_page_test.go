package control_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/control"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

// Following the tokens yields every entry once, in the promised order, and the last page
// has no token, whatever the size.
func TestPages(t *testing.T) {
	t.Parallel()
	_, c := populated(t)
	lists := []struct {
		name string
		list lister
		want []string
	}{
		{"commands", listCommands(t, c, store.CommandQuery{}), []string{"c7", "c6", "c5", "c4", "c3", "c2", "c1"}},
		{"VMs", listVMs(t, c, store.VMQuery{}), []string{"vm-1", "vm-2", "vm-3", "vm-4", "vm-5", "vm-6", "vm-7"}},
		{"events", listEvents(t, c, store.EventQuery{}), []string{"e7", "e6", "e5", "e4", "e3", "e2", "e1"}},
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

// New entries neither shift the pages nor appear twice.
func TestPagesAreStable(t *testing.T) {
	t.Parallel()
	_, c := populated(t)
	list := listCommands(t, c, store.CommandQuery{})
	first, next, err := list(4, "")
	require.NoError(t, err)
	_, err = c.Send(anyone(t), drain("late"), 0)
	require.NoError(t, err)
	second, next, err := list(4, next)
	require.NoError(t, err)
	require.Empty(t, next)
	require.Equal(t, []string{"c7", "c6", "c5", "c4", "c3", "c2", "c1"}, append(first, second...))
}

// The default page size is a hundred entries.
func TestDefaultPageSize(t *testing.T) {
	t.Parallel()
	s := newWorld(t)
	c := newControl(t, s)
	for range control.DefaultPageSize + 1 {
		s.addEvent(fleet.Event{Origin: fleet.Origin{VM: "vm-1"}, Type: "error"})
	}
	page, next, err := c.Events(anyone(t), store.EventQuery{}, 0, "")
	require.NoError(t, err)
	require.Len(t, page, control.DefaultPageSize)
	require.NotEmpty(t, next)
}

// Large entries make pages short, but never endless or empty.
func TestPagesOfLargeEntries(t *testing.T) {
	t.Parallel()
	s := newWorld(t)
	c := newControl(t, s)
	body := func(size int) []byte {
		text, err := json.Marshal(map[string]string{"x": strings.Repeat("x", size)})
		require.NoError(t, err)
		return text
	}
	for range 5 {
		s.addEvent(fleet.Event{Origin: fleet.Origin{VM: "vm-1"}, Type: "error", Body: body(1 << 20)})
	}
	s.addEvent(fleet.Event{Origin: fleet.Origin{VM: "vm-1"}, Type: "error", Body: body(5 << 20)})
	var seen []int64
	token := ""
	for {
		page, next, err := c.Events(anyone(t), store.EventQuery{}, 0, token)
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

// However large the entries are and however many are requested, no more is read than fits
// on a page, and following the tokens yields every entry.
func TestListsReadNoMoreThanAPage(t *testing.T) {
	t.Parallel()
	s := newWorld(t)
	c := newControl(t, s)
	const size = 960 << 10
	for i := range 7 {
		r := drain(fmt.Sprintf("c%d", i+1))
		r.VM = fmt.Sprintf("vm-%d", i+1)
		for n := range size >> 14 {
			r.Params.Strings[fmt.Sprint("text-", n)] = strings.Repeat("x", 1<<14)
		}
		_, err := c.Send(anyone(t), r, 0)
		require.NoError(t, err)
		s.addEvent(fleet.Event{
			Origin: fleet.Origin{VM: "vm-1", ReceivedAt: start}, Type: "error",
			Body: []byte(`"` + strings.Repeat("x", size) + `"`),
		})
	}
	for name, list := range map[string]lister{
		"commands": listCommands(t, c, store.CommandQuery{}),
		"events":   listEvents(t, c, store.EventQuery{}),
	} {
		var seen []string
		for token, pages := "", 0; pages == 0 || token != ""; pages++ {
			before := s.driver.read.Load()
			page, next, err := list(control.MaxPageSize, token)
			require.NoError(t, err)
			require.NotEmpty(t, page, name)
			require.LessOrEqual(t, s.driver.read.Load()-before, int64(store.MaxBytes), name)
			seen, token = append(seen, page...), next
		}
		require.Len(t, seen, 7, name)
	}
}
