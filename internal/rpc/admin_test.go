package rpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
	"github.com/mig-controller/mig-controller/internal/auth"
	"github.com/mig-controller/mig-controller/internal/control"
	"github.com/mig-controller/mig-controller/internal/engine"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
	"github.com/mig-controller/mig-controller/internal/store/sqlite"
)

var adminDefaults = fleet.CommandDefaults{TTL: time.Hour, AckTimeout: 30 * time.Second}

// adminSystem is AdminService on a real store. The tests act as its agents.
type adminSystem struct {
	*engine.Engine
	control *control.Control
	url     string
	clients map[string]migcontrollerv1connect.AdminServiceClient
}

func startAdmin(t *testing.T) *adminSystem {
	t.Helper()
	db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "controller.db"), slog.New(slog.DiscardHandler), nil)
	require.NoError(t, err)
	return startAdminOn(t, db)
}

// startAdminOn starts an adminSystem on this store, which others may use too.
func startAdminOn(t *testing.T, db store.Driver) *adminSystem {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	e := startEngine(t, db, adminDefaults, log)
	c := control.New(control.Options{Engine: e, Defaults: adminDefaults, Clock: adminNow, Log: log})
	url := serveAdmin(t, NewAdminService(c, testServer), log)
	t.Cleanup(c.Close)
	return &adminSystem{Engine: e, control: c, url: url, clients: adminClients(t, url)}
}

// startEngine starts an engine, which is closed with its driver at the end of the test.
func startEngine(t *testing.T, db store.Driver, d fleet.CommandDefaults, log *slog.Logger) *engine.Engine {
	t.Helper()
	e, err := engine.Start(t.Context(), engine.Options{
		Driver: db, Rules: fleet.Rules{Defaults: d, NewID: fleet.NewRegistrationID}, Clock: adminNow, Log: log,
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, e.Close()) })
	return e
}

func adminNow() time.Time { return time.Now().UTC().Round(0) }

// connect opens a session of a VM.
func (s *adminSystem) connect(t *testing.T, vm fleet.VMID, pool string) fleet.VM {
	t.Helper()
	out, err := s.Apply(t.Context(), fleet.SessionOpened{Hello: fleet.Hello{VM: vm, Pool: pool, AgentVersion: "1.2"}}, adminNow())
	require.NoError(t, err)
	return out.State.VM
}

// deliver leases a command, and ack answers it.
func (s *adminSystem) deliver(t *testing.T, v fleet.VM, id fleet.CommandID) {
	t.Helper()
	now := adminNow()
	_, err := s.Apply(t.Context(), fleet.LeaseRequested{
		VM: v.ID, Command: id, Request: fleet.LeaseRequest{Via: fleet.Stream, Epoch: v.Epoch, At: now},
	}, now)
	require.NoError(t, err)
}

func (s *adminSystem) ack(t *testing.T, v fleet.VM, id fleet.CommandID) {
	t.Helper()
	a := fleet.Ack{CommandID: id, Success: true, Message: "done"}
	_, err := s.Apply(t.Context(), fleet.AckReceived{VM: v.ID, Epoch: v.Epoch, Ack: a}, adminNow())
	require.NoError(t, err)
}

// report records an event that was received at this time.
func (s *adminSystem) report(t *testing.T, vm fleet.VMID, kind string, at time.Time) {
	t.Helper()
	_, err := s.Apply(t.Context(), fleet.EventReceived{Event: fleet.Event{
		Type: kind, Body: []byte(`{"exit_code":3}`),
		Origin: fleet.Origin{VM: vm, Via: fleet.HTTP, ReceivedAt: at},
	}}, at)
	require.NoError(t, err)
}

func sendDrain(id, vm string) *migcontrollerv1.SendCommandRequest {
	return &migcontrollerv1.SendCommandRequest{
		VmId: vm, Command: &commands.Command{Id: id, Type: "drain", StringParams: map[string]string{"why": "rest"}},
	}
}

// A command for an unknown VM is accepted, shown, delivered, acked and waited for.
func TestAdminCommandLife(t *testing.T) {
	t.Parallel()
	for _, protocol := range adminProtocols {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			s := startAdmin(t)
			client := s.clients[protocol]
			sent, err := client.SendCommand(t.Context(), sendDrain("c1", "vm-1"))
			require.NoError(t, err)
			record := sent.GetCommand()
			require.Equal(t, migcontrollerv1.CommandState_COMMAND_STATE_PENDING, record.GetState())
			require.Equal(t, "rest", record.GetCommand().GetStringParams()["why"])
			require.Equal(t, 30*time.Second, record.GetAckTimeout().AsDuration())
			require.Equal(t, time.Hour, record.GetExpiresAt().AsTime().Sub(record.GetAcceptedAt().AsTime()))

			waited := make(chan *migcontrollerv1.CommandRecord, 1)
			go func() {
				again := sendDrain("c1", "vm-1")
				again.Wait = durationpb.New(time.Minute)
				got, err := client.SendCommand(t.Context(), again)
				if err != nil {
					t.Error(err)
				}
				waited <- got.GetCommand()
			}()
			v := s.connect(t, "vm-1", "p")
			s.deliver(t, v, "c1")
			got, err := client.GetCommand(t.Context(), &migcontrollerv1.GetCommandRequest{CommandId: "c1"})
			require.NoError(t, err)
			require.Equal(t, migcontrollerv1.CommandState_COMMAND_STATE_DELIVERED, got.GetCommand().GetState())
			s.ack(t, v, "c1")
			record = <-waited
			require.Equal(t, migcontrollerv1.CommandState_COMMAND_STATE_SUCCEEDED, record.GetState())
			require.Equal(t, "done", record.GetAck().GetMessage())
			require.Equal(t, "rest", record.GetCommand().GetStringParams()["why"])

			_, err = client.CancelCommand(t.Context(), &migcontrollerv1.CancelCommandRequest{CommandId: "c1"})
			require.Equal(t, connect.CodeFailedPrecondition, connect.CodeOf(err))
			require.ErrorContains(t, err, `"c1"`)
		})
	}
}

// The command has the timeouts of its request.
func TestAdminCommandTimes(t *testing.T) {
	t.Parallel()
	for _, protocol := range adminProtocols {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			client := startAdmin(t).clients[protocol]
			req := sendDrain("", "vm-1")
			req.Ttl, req.AckTimeout = durationpb.New(2*time.Hour), durationpb.New(time.Second)
			sent, err := client.SendCommand(t.Context(), req)
			require.NoError(t, err)
			record := sent.GetCommand()
			require.NotEmpty(t, record.GetCommand().GetId())
			require.Equal(t, time.Second, record.GetAckTimeout().AsDuration())
			require.Equal(t, 2*time.Hour, record.GetExpiresAt().AsTime().Sub(record.GetAcceptedAt().AsTime()))
		})
	}
}

// An id in use for another command is refused, cancelling is idempotent, and an unknown id is
// not found.
func TestAdminRefusals(t *testing.T) {
	t.Parallel()
	for _, protocol := range adminProtocols {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			client := startAdmin(t).clients[protocol]
			ctx := t.Context()
			_, err := client.SendCommand(ctx, sendDrain("c1", "vm-1"))
			require.NoError(t, err)
			_, err = client.SendCommand(ctx, sendDrain("c1", "vm-2"))
			require.Equal(t, connect.CodeAlreadyExists, connect.CodeOf(err))
			for range 2 {
				got, err := client.CancelCommand(ctx, &migcontrollerv1.CancelCommandRequest{CommandId: "c1"})
				require.NoError(t, err)
				require.Equal(t, migcontrollerv1.CommandState_COMMAND_STATE_CANCELLED, got.GetCommand().GetState())
			}
			_, err = client.CancelCommand(ctx, &migcontrollerv1.CancelCommandRequest{CommandId: "c2"})
			require.Equal(t, connect.CodeNotFound, connect.CodeOf(err))
			_, err = client.GetCommand(ctx, &migcontrollerv1.GetCommandRequest{CommandId: "c2"})
			require.Equal(t, connect.CodeNotFound, connect.CodeOf(err))
			require.ErrorContains(t, err, `command "c2": not found`)
			_, err = client.GetVM(ctx, &migcontrollerv1.GetVMRequest{VmId: "vm-9"})
			require.Equal(t, connect.CodeNotFound, connect.CodeOf(err))
			require.ErrorContains(t, err, `VM "vm-9": not found`)
		})
	}
}

// Lists are paginated, filtered and ordered.
func TestAdminLists(t *testing.T) {
	t.Parallel()
	for _, protocol := range adminProtocols {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			s := startAdmin(t)
			client := s.clients[protocol]
			ctx, began := t.Context(), adminNow().Truncate(time.Second)
			for i := range 5 {
				_, err := client.SendCommand(ctx, sendDrain(fmt.Sprintf("c%d", i), "vm-1"))
				require.NoError(t, err)
				s.report(t, "vm-1", "error", began.Add(time.Duration(i)*time.Second))
			}
			s.connect(t, "vm-2", "p")
			s.connect(t, "vm-3", "p")

			var ids []string
			list := &migcontrollerv1.ListCommandsRequest{
				VmId: "vm-1", Type: "drain", PageSize: 2,
				States: []migcontrollerv1.CommandState{migcontrollerv1.CommandState_COMMAND_STATE_PENDING},
			}
			for {
				page, err := client.ListCommands(ctx, list)
				require.NoError(t, err)
				for _, c := range page.GetCommands() {
					ids = append(ids, c.GetCommand().GetId())
				}
				if list.PageToken = page.GetNextPageToken(); list.PageToken == "" {
					break
				}
				require.Len(t, page.GetCommands(), 2)
			}
			require.Equal(t, []string{"c4", "c3", "c2", "c1", "c0"}, ids)
			all, err := client.ListCommands(ctx, &migcontrollerv1.ListCommandsRequest{
				VmId: "vm-1", States: []migcontrollerv1.CommandState{migcontrollerv1.CommandState_COMMAND_STATE_UNSPECIFIED},
			})
			require.NoError(t, err)
			require.Len(t, all.GetCommands(), 5, "unspecified is any state")

			connected := true
			vms, err := client.ListVMs(ctx, &migcontrollerv1.ListVMsRequest{PoolId: "p", Connected: &connected, PageSize: 1})
			require.NoError(t, err)
			require.Len(t, vms.GetVms(), 1)
			require.Equal(t, "vm-2", vms.GetVms()[0].GetVmId())
			vms, err = client.ListVMs(ctx, &migcontrollerv1.ListVMsRequest{
				PoolId: "p", Connected: &connected, PageToken: vms.GetNextPageToken(),
			})
			require.NoError(t, err)
			require.Len(t, vms.GetVms(), 1)
			require.Equal(t, "vm-3", vms.GetVms()[0].GetVmId())
			require.Empty(t, vms.GetNextPageToken())
			connected = false
			vms, err = client.ListVMs(ctx, &migcontrollerv1.ListVMsRequest{Connected: &connected})
			require.NoError(t, err)
			require.Len(t, vms.GetVms(), 1, "vm-1 has only reported")

			events, err := client.ListEvents(ctx, &migcontrollerv1.ListEventsRequest{
				VmId: "vm-1", Type: "error",
				Since: timestamppb.New(began.Add(time.Second)), Until: timestamppb.New(began.Add(3 * time.Second)),
			})
			require.NoError(t, err)
			require.Len(t, events.GetEvents(), 2)
			require.Equal(t, began.Add(2*time.Second), events.GetEvents()[0].GetReceivedAt().AsTime())
			require.InDelta(t, 3, events.GetEvents()[0].GetBody().GetFields()["exit_code"].GetNumberValue(), 0)
			require.Equal(t, migcontrollerv1.ReportSource_REPORT_SOURCE_HTTP, events.GetEvents()[0].GetSource())

			got, err := client.GetVM(ctx, &migcontrollerv1.GetVMRequest{VmId: "vm-2"})
			require.NoError(t, err)
			require.True(t, got.GetVm().GetConnected())
			require.Equal(t, "1.2", got.GetVm().GetAgentVersion())
			require.Equal(t, int64(1), got.GetVm().GetSessionEpoch())
			require.Equal(t, migcontrollerv1.RegistrationState_REGISTRATION_STATE_REQUESTED, got.GetVm().GetRegistration().GetState())
		})
	}
}

// curl works: JSON, with names in either spelling, and GET for methods without side effects.
func TestAdminByCurl(t *testing.T) {
	t.Parallel()
	s := startAdmin(t)
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	curl := func(method, path, body string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), method, s.url+path, bytes.NewReader([]byte(body)))
		require.NoError(t, err)
		req.Header.Set("Content-Type", "application/json")
		res, err := transport.RoundTrip(req)
		require.NoError(t, err)
		defer res.Body.Close()
		answer, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		return res.StatusCode, string(answer)
	}
	const service = "/migcontroller.v1.AdminService/"
	for _, body := range []string{
		`{"vm_id": "vm-1", "command": {"id": "c1", "type": "drain"}, "ttl": "60s"}`,
		`{"vmId": "vm-1", "command": {"id": "c1", "type": "drain"}, "wait": "0s"}`,
	} {
		status, answer := curl(http.MethodPost, service+"SendCommand", body)
		require.Equal(t, http.StatusOK, status, answer)
		require.Contains(t, answer, "COMMAND_STATE_PENDING")
	}
	status, answer := curl(http.MethodGet, service+"GetCommand?encoding=json&message=%7B%22command_id%22%3A%22c1%22%7D", "")
	require.Equal(t, http.StatusOK, status, answer)
	require.Contains(t, answer, `"c1"`)
	status, answer = curl(http.MethodPost, service+"SendCommand", `{"vm_id": "vm-1"}`)
	require.Equal(t, http.StatusBadRequest, status)
	require.JSONEq(t, `{"code": "invalid_argument", "message": "command must be given", "details": [{
		"type": "migcontroller.v1.ErrorDetail", "value": "CAESB2NvbW1hbmQaDW11c3QgYmUgZ2l2ZW4",
		"debug": {"reason": "ERROR_REASON_INVALID_FIELD", "field": "command", "rule": "must be given"}}]}`, answer)
}

// brokenDriver fails every read with err, or returns damaged rows if err is nil.
type brokenDriver struct {
	store.Driver
	err error
}

var damaged = []byte("disk of /var/lib/x")

func (d brokenDriver) Load(context.Context, store.Keys) (store.Rows, error) {
	return store.Rows{Commands: []store.CommandRow{{ID: "c1", VM: "vm-1", Doc: damaged}}}, d.err
}

func (d brokenDriver) Changes(context.Context, store.ChangeQuery, int) ([]store.ChangeRow, bool, error) {
	return []store.ChangeRow{{Seq: 1, VM: "vm-1", Kind: "command", Doc: damaged}}, false, d.err
}

func (d brokenDriver) VMs(context.Context, store.VMQuery, int) ([]store.VMRow, bool, error) {
	return []store.VMRow{{ID: "vm-1", Doc: damaged}}, false, d.err
}

// The cause of a store error is not disclosed.
func TestAdminHidesInternalErrors(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		err  error
		code connect.Code
		text string
	}{
		{nil, connect.CodeUnavailable, fleet.ErrUnavailable.Error()},
		{errors.New("disk of /var/lib/x is full"), connect.CodeUnavailable, fleet.ErrUnavailable.Error()},
	} {
		whole := startAdmin(t)
		_, cursor := watchFrom(t, whole.clients["gRPC"], "", "")
		_, err := whole.clients["gRPC"].SendCommand(t.Context(), sendDrain("c1", "vm-1"))
		require.NoError(t, err)
		s := startAdminOn(t, brokenDriver{whole.Driver, test.err})
		for _, client := range s.clients {
			_, err := client.GetCommand(t.Context(), &migcontrollerv1.GetCommandRequest{CommandId: "c1"})
			requireOnly(t, err, test.code, test.text)
			_, err = client.ListVMs(t.Context(), &migcontrollerv1.ListVMsRequest{})
			requireOnly(t, err, test.code, test.text)
			stream, err := client.WatchFleet(t.Context(), &migcontrollerv1.WatchFleetRequest{Cursor: cursor})
			require.NoError(t, err)
			require.False(t, stream.Receive())
			requireOnly(t, stream.Err(), test.code, test.text)
			require.NoError(t, stream.Close())
		}
	}
}

// requireOnly requires an error with this code and text and nothing else.
func requireOnly(t *testing.T, err error, code connect.Code, text string) {
	t.Helper()
	require.Equal(t, code, connect.CodeOf(err))
	require.EqualError(t, err, code.String()+": "+text)
}

var testServer = Server{
	Version: "v1.2.3", StartedAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Sessions: func() int { return 7 },
	LiveVMs: func() []fleet.VMID { return nil },
	Log:     newFakeLog(),
}

// GetServerInfo identifies the controller.
func TestGetServerInfo(t *testing.T) {
	t.Parallel()
	got, err := NewAdminService(nil, testServer).GetServerInfo(auth.With(t.Context(), auth.Anyone()), &migcontrollerv1.GetServerInfoRequest{})
	require.NoError(t, err)
	require.Equal(t, "v1.2.3", got.GetVersion())
	require.Equal(t, testServer.StartedAt, got.GetStartedAt().AsTime())
	require.EqualValues(t, 7, got.GetLiveSessions())
	require.Positive(t, got.GetGoroutines())

	// Without all pools it does not tell how many sessions there are.
	limited := auth.With(t.Context(), auth.Principal{Role: auth.Viewer})
	got, err = NewAdminService(nil, testServer).GetServerInfo(limited, &migcontrollerv1.GetServerInfoRequest{})
	require.NoError(t, err)
	require.Equal(t, "v1.2.3", got.GetVersion())
	require.Zero(t, got.GetLiveSessions()+got.GetGoroutines())
}
