package rpc

import (
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
	"github.com/mig-controller/mig-controller/internal/auth"
	"github.com/mig-controller/mig-controller/internal/control"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store/memory"
)

// scoped is AdminService for one principal, with a VM in each pool, one in none and a command
// for one that was never seen.
type scoped struct {
	*adminSystem
	client migcontrollerv1connect.AdminServiceClient
	// mark is a VM that the principal sees.
	mark fleet.VMID
	// live is the VM that has a session.
	live atomic.Value
}

// targets are the VMs by their pools.
var targets = map[string]string{"a": "vm-a", "b": "vm-b", "no pool": "vm-bare", "never seen": "vm-never"}

func startScoped(t *testing.T, scope auth.Scope, mark fleet.VMID) *scoped {
	t.Helper()
	s := &scoped{adminSystem: startAdminOn(t, memory.New()), mark: mark}
	server := testServer
	server.LiveVMs = func() []fleet.VMID { return []fleet.VMID{fleet.VMID(s.live.Load().(string))} } //nolint:errcheck,forcetypeassert // it fails the test
	log := slog.New(slog.DiscardHandler)
	c := control.New(control.Options{Engine: s.Engine, Defaults: adminDefaults, Clock: adminNow, Log: log})
	t.Cleanup(c.Close)
	p := auth.Principal{Name: "tester", Method: auth.ByToken, Role: auth.Admin, Scope: scope}
	s.client = adminClients(t, serveAdminAs(t, p, NewAdminService(c, server), log))["gRPC"]
	for vm, pool := range map[fleet.VMID]string{"vm-a": "a", "vm-b": "b", "vm-bare": "", "mark-a": "a", "mark-b": "b"} {
		v := s.connect(t, vm, pool)
		s.report(t, vm, "error", adminNow())
		require.NoError(t, s.RecordHeartbeats(t.Context(), []fleet.Heartbeat{{Origin: fleet.Origin{
			VM: vm, Pool: pool, Via: fleet.Stream, Epoch: v.Epoch, ReceivedAt: adminNow(),
		}}}))
	}
	for _, vm := range targets {
		_, err := s.clients["gRPC"].SendCommand(t.Context(), sendDrain("of-"+vm, vm))
		require.NoError(t, err)
	}
	return s
}

// scopeEntry is what a method has to do with VMs.
type scopeEntry struct {
	// call calls the method about a VM, and returns whether the answer shows it.
	call func(t *testing.T, s *scoped, vm string) (shows bool, err error)
	// missing is whether a VM that the caller does not see is NOT_FOUND. Otherwise the answer
	// does not show it.
	missing bool
	// allPools is whether a principal that is limited to some pools may not call the method.
	allPools bool
}

// scopeEntries has an entry for each method of AdminService.
var scopeEntries = map[string]scopeEntry{
	"SendCommand": {missing: true, call: func(t *testing.T, s *scoped, vm string) (bool, error) {
		t.Helper()
		got, err := s.client.SendCommand(t.Context(), sendDrain("new-"+vm, vm))
		return got.GetCommand().GetVmId() == vm, err
	}},
	"GetCommand": {missing: true, call: func(t *testing.T, s *scoped, vm string) (bool, error) {
		t.Helper()
		got, err := s.client.GetCommand(t.Context(), &migcontrollerv1.GetCommandRequest{CommandId: "of-" + vm})
		return got.GetCommand().GetVmId() == vm, err
	}},
	"CancelCommand": {missing: true, call: func(t *testing.T, s *scoped, vm string) (bool, error) {
		t.Helper()
		got, err := s.client.CancelCommand(t.Context(), &migcontrollerv1.CancelCommandRequest{CommandId: "of-" + vm})
		return got.GetCommand().GetVmId() == vm, err
	}},
	"ListCommands": {call: func(t *testing.T, s *scoped, vm string) (bool, error) {
		t.Helper()
		return listShows(vm, func(filter string) ([]*migcontrollerv1.CommandRecord, error) {
			got, err := s.client.ListCommands(t.Context(), &migcontrollerv1.ListCommandsRequest{VmId: filter})
			return got.GetCommands(), err
		})
	}},
	"GetVM": {missing: true, call: func(t *testing.T, s *scoped, vm string) (bool, error) {
		t.Helper()
		got, err := s.client.GetVM(t.Context(), &migcontrollerv1.GetVMRequest{VmId: vm})
		return got.GetVm().GetVmId() == vm, err
	}},
	"ListVMs": {call: func(t *testing.T, s *scoped, vm string) (bool, error) {
		t.Helper()
		got, err := s.client.ListVMs(t.Context(), &migcontrollerv1.ListVMsRequest{})
		return slices.ContainsFunc(got.GetVms(), func(v *migcontrollerv1.VM) bool { return v.GetVmId() == vm }), err
	}},
	"ListEvents": {call: func(t *testing.T, s *scoped, vm string) (bool, error) {
		t.Helper()
		return listShows(vm, func(filter string) ([]*migcontrollerv1.Event, error) {
			got, err := s.client.ListEvents(t.Context(), &migcontrollerv1.ListEventsRequest{VmId: filter})
			return got.GetEvents(), err
		})
	}},
	"ListHeartbeats": {missing: true, call: func(t *testing.T, s *scoped, vm string) (bool, error) {
		t.Helper()
		got, err := s.client.ListHeartbeats(t.Context(), &migcontrollerv1.ListHeartbeatsRequest{VmId: vm})
		return len(got.GetHeartbeats()) > 0, err
	}},
	"WatchFleet": {call: func(t *testing.T, s *scoped, vm string) (shows bool, err error) {
		t.Helper()
		stream, _ := watchFrom(t, s.client, "", "")
		if _, err := s.clients["gRPC"].SendCommand(t.Context(), sendDrain("watched-"+vm, vm)); err != nil {
			return false, err
		}
		s.report(t, s.mark, "the end", adminNow())
		for {
			change := nextChange(t, stream)
			if change.GetEvent().GetType() == "the end" {
				return shows, nil
			}
			require.Equal(t, vm, change.GetCommand().GetVmId())
			shows = true
		}
	}},
	"GetServerInfo": {call: func(t *testing.T, s *scoped, vm string) (bool, error) {
		t.Helper()
		s.live.Store(vm)
		got, err := s.client.GetServerInfo(t.Context(), &migcontrollerv1.GetServerInfoRequest{})
		return got.GetLiveSessions() > 0, err
	}},
	"SetLogLevel": {allPools: true},
}

// listShows reports whether a list shows a VM; the list that is filtered by the VM must agree.
func listShows[R interface{ GetVmId() string }](vm string, list func(filter string) ([]R, error)) (bool, error) {
	var shows [2]bool
	for i, filter := range []string{"", vm} {
		rows, err := list(filter)
		if err != nil {
			return false, err
		}
		shows[i] = slices.ContainsFunc(rows, func(r R) bool { return r.GetVmId() == vm })
	}
	if shows[0] != shows[1] {
		return false, fmt.Errorf("without and with a filter: %v", shows)
	}
	return shows[0], nil
}

// Every method shows and touches the VMs of the caller's pools and no others. One without an
// entry fails.
func TestEveryMethodObeysTheScope(t *testing.T) {
	t.Parallel()
	methods := migcontrollerv1.File_migcontroller_v1_admin_service_proto.Services().ByName("AdminService").Methods()
	require.Len(t, scopeEntries, methods.Len())
	principals := map[string]struct {
		scope auth.Scope
		mark  fleet.VMID
		sees  []string
	}{
		"all pools":  {auth.AllPools(), "mark-a", []string{"a", "b", "no pool", "never seen"}},
		"pool a":     {auth.OnlyPools("a"), "mark-a", []string{"a"}},
		"pool b":     {auth.OnlyPools("b", "unused"), "mark-b", []string{"b"}},
		"both pools": {auth.OnlyPools("b", "a"), "mark-b", []string{"a", "b"}},
	}
	for who, principal := range principals {
		t.Run(who, func(t *testing.T) {
			t.Parallel()
			s := startScoped(t, principal.scope, principal.mark)
			for i := range methods.Len() {
				method := methods.Get(i)
				entry, found := scopeEntries[string(method.Name())]
				require.True(t, found, "%s has no entry", method.Name())
				require.Equal(t, entry.allPools, requiresAllPools(method), method.Name())
				if entry.allPools {
					continue
				}
				for pool, vm := range targets {
					requireScope(t, s, string(method.Name()), vm, pool, slices.Contains(principal.sees, pool))
				}
			}
		})
	}
}

func requireScope(t *testing.T, s *scoped, method, vm, pool string, sees bool) {
	t.Helper()
	entry := scopeEntries[method]
	before := s.LastChange()
	shows, err := entry.call(t, s, vm)
	what := fmt.Sprintf("%s of a VM in %s", method, pool)
	switch {
	case sees && pool == "never seen" && (method == "GetVM" || method == "ListHeartbeats"):
		require.Equal(t, connect.CodeNotFound, connect.CodeOf(err), what)
	case sees && pool == "never seen" && (method == "ListVMs" || method == "ListEvents"):
		require.NoError(t, err, what)
		require.False(t, shows, what)
	case sees:
		require.NoError(t, err, what)
		require.True(t, shows, what)
	case entry.missing:
		require.Equal(t, connect.CodeNotFound, connect.CodeOf(err), what)
		require.NotContains(t, err.Error(), "pool", what)
		require.Equal(t, before, s.LastChange(), what)
	default:
		require.NoError(t, err, what)
		require.False(t, shows, what)
	}
}

func requiresAllPools(method protoreflect.MethodDescriptor) bool {
	required, _ := proto.GetExtension(method.Options(), migcontrollerv1.E_Requires).(*migcontrollerv1.Requirement)
	return required.GetAllPools()
}

// A VM that leaves the pools of a watcher is sent as removed, with the time and without more.
func TestWatchSendsRemovals(t *testing.T) {
	t.Parallel()
	s := startScoped(t, auth.OnlyPools("a"), "mark-a")
	stream, _ := watchFrom(t, s.client, "", "")
	s.connect(t, "vm-a", "b")
	removed := nextChange(t, stream)
	require.Equal(t, "vm-a", removed.GetRemovedVmId())
	require.NotNil(t, removed.GetChangedAt())
	s.connect(t, "vm-a", "a")
	require.Equal(t, "vm-a", nextChange(t, stream).GetVm().GetVmId())
}

// An id in use outside the scope is ALREADY_EXISTS, exactly as one in use inside; and a page
// token or a cursor of another scope is an invalid field.
func TestErrorsRevealNothing(t *testing.T) {
	t.Parallel()
	s := startScoped(t, auth.OnlyPools("a"), "mark-a")
	for _, id := range []string{"of-vm-b", "of-vm-never", "of-vm-bare"} {
		_, err := s.client.SendCommand(t.Context(), sendDrain(id, "vm-a"))
		requireReason(t, err, connect.CodeAlreadyExists, migcontrollerv1.ErrorReason_ERROR_REASON_COMMAND_ID_TAKEN)
		require.EqualError(t, err, fmt.Sprintf("already_exists: command %q: %v", id, fleet.ErrIDTaken))
	}
	list := &migcontrollerv1.ListVMsRequest{PageSize: 1}
	page, err := s.clients["gRPC"].ListVMs(t.Context(), list)
	require.NoError(t, err)
	list.PageToken = page.GetNextPageToken()
	_, err = s.client.ListVMs(t.Context(), list)
	requireReason(t, err, connect.CodeInvalidArgument, migcontrollerv1.ErrorReason_ERROR_REASON_INVALID_FIELD)
	_, cursor := watchFrom(t, s.clients["gRPC"], "", "")
	stream, err := s.client.WatchFleet(t.Context(), &migcontrollerv1.WatchFleetRequest{Cursor: cursor})
	require.NoError(t, err)
	defer stream.Close()
	require.False(t, stream.Receive())
	requireReason(t, stream.Err(), connect.CodeInvalidArgument, migcontrollerv1.ErrorReason_ERROR_REASON_INVALID_FIELD)
}

// requireReason requires an error with this code and reason.
func requireReason(t *testing.T, err error, code connect.Code, reason migcontrollerv1.ErrorReason) {
	t.Helper()
	require.Equal(t, code, connect.CodeOf(err), "%v", err)
	var failed *connect.Error
	require.ErrorAs(t, err, &failed)
	require.Len(t, failed.Details(), 1)
	detail, bad := failed.Details()[0].Value()
	require.NoError(t, bad)
	require.Equal(t, reason, detail.(*migcontrollerv1.ErrorDetail).GetReason()) //nolint:errcheck,forcetypeassert // it fails the test
}
