package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
)

// pageOf is one page of a list: the ids on it, and the token for the next.
type pageOf func(token string) (ids []string, next string)

func (c *controller) commandPages(t *testing.T, r *migcontrollerv1.ListCommandsRequest) pageOf {
	t.Helper()
	return func(token string) (ids []string, next string) {
		r := proto.CloneOf(r)
		r.PageToken = token
		res, err := c.admin.ListCommands(t.Context(), r)
		require.NoError(t, err)
		for _, e := range res.GetCommands() {
			ids = append(ids, e.GetCommand().GetId())
		}
		return ids, res.GetNextPageToken()
	}
}

func (c *controller) eventPages(t *testing.T, r *migcontrollerv1.ListEventsRequest) pageOf {
	t.Helper()
	return func(token string) (ids []string, next string) {
		r := proto.CloneOf(r)
		r.PageToken = token
		res, err := c.grpcAdmin.ListEvents(t.Context(), r)
		require.NoError(t, err)
		for _, e := range res.GetEvents() {
			ids = append(ids, e.GetType())
		}
		return ids, res.GetNextPageToken()
	}
}

func (c *controller) vmPages(t *testing.T, r *migcontrollerv1.ListVMsRequest) pageOf {
	t.Helper()
	return func(token string) (ids []string, next string) {
		r := proto.CloneOf(r)
		r.PageToken = token
		res, err := c.admin.ListVMs(t.Context(), r)
		require.NoError(t, err)
		for _, e := range res.GetVms() {
			ids = append(ids, e.GetVmId())
		}
		return ids, res.GetNextPageToken()
	}
}

// all returns the ids of all pages; it calls disturb between them.
func (p pageOf) all(disturb func()) (ids []string, pages int) {
	for token := ""; ; {
		page, next := p(token)
		ids = append(ids, page...)
		pages++
		if token = next; token == "" {
			return ids, pages
		}
		disturb()
	}
}

// TestPagesAreStable defends callers that page through lists while the fleet changes: every
// entry that existed at the first page is listed once, in order.
func TestPagesAreStable(t *testing.T) {
	t.Parallel()
	const rows, size = 35, 10
	c := start(t)
	var cmds, events, vms []string
	add := func(i int) {
		vm := fmt.Sprintf("paged-%03d", i)
		event := fmt.Sprintf("event-%03d", i)
		c.report(t, vm, event)
		cmds = append(cmds, c.send(t, vm, "drain").GetCommand().GetId())
		events, vms = append(events, event), append(vms, vm)
	}
	for i := range rows {
		add(2 * i)
	}
	before := slices.Clone(vms)
	wantCommands, wantEvents := slices.Clone(cmds), slices.Clone(events)
	slices.Reverse(wantCommands)
	slices.Reverse(wantEvents)
	i := -1
	disturb := func() { i += 2; add(i) }

	got, pages := c.commandPages(t, &migcontrollerv1.ListCommandsRequest{PageSize: size}).all(disturb)
	require.Equal(t, 4, pages)
	require.Equal(t, wantCommands, got)
	got, pages = c.eventPages(t, &migcontrollerv1.ListEventsRequest{PageSize: size}).all(func() { c.report(t, "later", "later") })
	require.Equal(t, 4, pages)
	require.Equal(t, 3, len(got)-rows, "those created before the first page")
	require.Equal(t, wantEvents, got[3:])
	got, pages = c.vmPages(t, &migcontrollerv1.ListVMsRequest{PageSize: size}).all(disturb)
	require.GreaterOrEqual(t, pages, 4)
	require.True(t, slices.IsSorted(got))
	require.Len(t, slices.Compact(slices.Clone(got)), len(got), "no duplicates")
	require.Subset(t, got, before)
}

// TestFiltersChoose defends the filters of the lists, alone and combined.
func TestFiltersChoose(t *testing.T) {
	t.Parallel()
	c := start(t)
	on := c.connectRegistered(t, "vm-on")
	on.beat("idle", withRunner(true))
	c.awaitVM(t, "vm-on", "idle", func(v *migcontrollerv1.VM) bool { return v.GetStatus() == "idle" })
	begin := c.events(t, "vm-on", "")[0].GetReceivedAt().AsTime()
	status, answer := c.call(t, http.MethodPost, c.httpAddr, "/api/v1/vms/vm-off/events",
		`{"type":"job_started","pool_id":"pool-b","org_id":"org-a"}`)
	require.Equal(t, http.StatusOK, status, string(answer))
	end := c.events(t, "vm-off", "")[0].GetReceivedAt().AsTime()
	c.send(t, "vm-off", "drain", withID("off-1"))
	c.send(t, "vm-off", "shutdown", withID("off-2"))
	c.cancelCommand(t, "off-2")
	c.send(t, "vm-on", "drain", withID("on-1"))
	on.expect("on-1")

	for _, test := range []struct {
		filter *migcontrollerv1.ListVMsRequest
		want   []string
	}{
		{&migcontrollerv1.ListVMsRequest{}, []string{"vm-off", "vm-on"}},
		{&migcontrollerv1.ListVMsRequest{PoolId: "pool-a"}, []string{"vm-on"}},
		{&migcontrollerv1.ListVMsRequest{OrgId: "org-a"}, []string{"vm-off", "vm-on"}},
		{&migcontrollerv1.ListVMsRequest{Status: "idle"}, []string{"vm-on"}},
		{&migcontrollerv1.ListVMsRequest{Connected: new(true)}, []string{"vm-on"}},
		{&migcontrollerv1.ListVMsRequest{Connected: new(false)}, []string{"vm-off"}},
		{&migcontrollerv1.ListVMsRequest{PoolId: "pool-b", Connected: new(true)}, nil},
	} {
		got, _ := c.vmPages(t, test.filter)("")
		require.Equal(t, test.want, got, "%v", test.filter)
	}
	for _, test := range []struct {
		filter *migcontrollerv1.ListCommandsRequest
		want   []string
	}{
		{&migcontrollerv1.ListCommandsRequest{Type: "drain"}, []string{"on-1", "off-1"}},
		{&migcontrollerv1.ListCommandsRequest{VmId: "vm-off"}, []string{"off-2", "off-1"}},
		{&migcontrollerv1.ListCommandsRequest{States: []migcontrollerv1.CommandState{delivered}}, []string{"on-1"}},
		{&migcontrollerv1.ListCommandsRequest{States: []migcontrollerv1.CommandState{pending, cancelled}}, []string{"off-2", "off-1"}},
		{&migcontrollerv1.ListCommandsRequest{VmId: "vm-off", Type: "drain", States: []migcontrollerv1.CommandState{cancelled}}, nil},
	} {
		got, _ := c.commandPages(t, test.filter)("")
		require.Equal(t, test.want, got, "%v", test.filter)
	}
	later := timestamppb.New(end.Add(time.Nanosecond))
	for _, test := range []struct {
		filter *migcontrollerv1.ListEventsRequest
		want   []string
	}{
		{&migcontrollerv1.ListEventsRequest{}, []string{"job_started", "runner_registered"}},
		{&migcontrollerv1.ListEventsRequest{Type: "job_started"}, []string{"job_started"}},
		{&migcontrollerv1.ListEventsRequest{VmId: "vm-on"}, []string{"runner_registered"}},
		{&migcontrollerv1.ListEventsRequest{Since: timestamppb.New(end)}, []string{"job_started"}},
		{&migcontrollerv1.ListEventsRequest{Until: timestamppb.New(end)}, []string{"runner_registered"}},
		{&migcontrollerv1.ListEventsRequest{Since: timestamppb.New(begin), Until: later}, []string{"job_started", "runner_registered"}},
		{&migcontrollerv1.ListEventsRequest{Since: later}, nil},
	} {
		got, _ := c.eventPages(t, test.filter)("")
		require.Equal(t, test.want, got, "%v", test.filter)
	}
}

// TestBadPageIsRefused defends lists against tokens that are invalid or for another list or
// other filters, and against sizes and filters out of range.
func TestBadPageIsRefused(t *testing.T) {
	t.Parallel()
	vm := newVM()
	for range 2 {
		shared.send(t, vm, "drain")
	}
	_, token := shared.commandPages(t, &migcontrollerv1.ListCommandsRequest{VmId: vm, PageSize: 1})("")
	require.NotEmpty(t, token)
	for _, test := range []struct {
		r    *migcontrollerv1.ListCommandsRequest
		word string
	}{
		{&migcontrollerv1.ListCommandsRequest{PageToken: "x"}, "page_token"},
		{&migcontrollerv1.ListCommandsRequest{PageToken: "!!!"}, "page_token"},
		{&migcontrollerv1.ListCommandsRequest{PageToken: token}, "page_token"},
		{&migcontrollerv1.ListCommandsRequest{PageToken: token, VmId: vm, Type: "drain"}, "page_token"},
		{&migcontrollerv1.ListCommandsRequest{PageToken: token[:len(token)-1], VmId: vm}, "page_token"},
		{&migcontrollerv1.ListCommandsRequest{PageSize: -1}, "page_size"},
		{&migcontrollerv1.ListCommandsRequest{PageSize: 1001}, "page_size"},
		{&migcontrollerv1.ListCommandsRequest{VmId: "a/b"}, "vm_id"},
		{&migcontrollerv1.ListCommandsRequest{Type: "a/b"}, "type"},
		{&migcontrollerv1.ListCommandsRequest{States: []migcontrollerv1.CommandState{99}}, "states"},
	} {
		_, err := shared.admin.ListCommands(t.Context(), test.r)
		requireCode(t, err, codeInvalid, test.word)
	}
	_, err := shared.admin.ListVMs(t.Context(), &migcontrollerv1.ListVMsRequest{PageToken: token})
	requireCode(t, err, codeInvalid, "page_token")
	_, err = shared.admin.ListEvents(t.Context(), &migcontrollerv1.ListEventsRequest{VmId: vm, PageToken: token})
	requireCode(t, err, codeInvalid, "page_token")
	now := timestamppb.Now()
	_, err = shared.admin.ListEvents(t.Context(), &migcontrollerv1.ListEventsRequest{Since: now, Until: now})
	requireCode(t, err, codeInvalid, "until")
}
