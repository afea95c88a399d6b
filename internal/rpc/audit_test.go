package rpc

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/durationpb"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
	"github.com/mig-controller/mig-controller/internal/audit"
	"github.com/mig-controller/mig-controller/internal/auth"
	"github.com/mig-controller/mig-controller/internal/control"
	"github.com/mig-controller/mig-controller/internal/engine"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/readiness"
	"github.com/mig-controller/mig-controller/internal/store"
	"github.com/mig-controller/mig-controller/internal/store/memory"
)

// everybody admits everybody as this principal.
type everybody struct{ auth.Principal }

func (e everybody) Admit(*http.Request, auth.Requirement) (auth.Principal, error) {
	return e.Principal, nil
}
func (everybody) Required() bool { return true }

var ann = auth.Principal{Name: "ann", Method: auth.ByToken, Role: auth.Admin, Scope: auth.AllPools(), TokenID: "tok-1"}

// auditedSystem is the handler of the controller on a store, with a log.
type auditedSystem struct {
	*engine.Engine
	url    string
	admin  migcontrollerv1connect.AdminServiceClient
	access migcontrollerv1connect.AccessServiceClient
	log    *syncLog
}

// syncLog is a log that is read while it is written.
type syncLog struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *syncLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *syncLog) lines(part string) (found []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.text.String()) {
		if strings.Contains(line, part) {
			found = append(found, line)
		}
	}
	return found
}

// startAudited serves everything. events replaces the recorder of the interceptor, if not nil.
func startAudited(t *testing.T, events audit.Recorder, change ...func(*Config)) *auditedSystem {
	t.Helper()
	s := &auditedSystem{log: new(syncLog)}
	log := slog.New(slog.NewTextHandler(s.log, nil))
	s.Engine = startEngine(t, memory.New(), adminDefaults, slog.New(slog.DiscardHandler))
	tokens, err := auth.OpenTokens(t.Context(), s.Engine, adminNow, log, nil)
	require.NoError(t, err)
	c := control.New(control.Options{Engine: s.Engine, Tokens: tokens, Defaults: adminDefaults, Clock: adminNow, Log: log})
	t.Cleanup(c.Close)
	if events == nil {
		events = s.Engine
	}
	cfg := config(&fakeAgents{})
	cfg.Admin, cfg.Access, cfg.Operators = NewAdminService(c, testServer), NewAccessService(tokens, c), everybody{ann}
	cfg.Ready = readiness.New()
	cfg.Options = []connect.HandlerOption{connect.WithInterceptors(NewErrorInterceptor(log, nil), NewAuditInterceptor(events, log, adminNow))}
	for _, fn := range change {
		fn(&cfg)
	}
	s.url = "http://" + serve(t, NewHandler(cfg))
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	s.admin = migcontrollerv1connect.NewAdminServiceClient(&http.Client{Transport: transport}, s.url)
	s.access = migcontrollerv1connect.NewAccessServiceClient(&http.Client{Transport: transport}, s.url)
	return s
}

func (s *auditedSystem) audited(t *testing.T) []audit.Event {
	t.Helper()
	events, _, err := s.Audit(t.Context(), store.AuditQuery{}, 1000)
	require.NoError(t, err)
	return events
}

// Each call that requests a change leaves one event, whatever its outcome, with all that is
// known, and one line.
func TestCallsAreAudited(t *testing.T) {
	t.Parallel()
	s := startAudited(t, nil)
	send := sendDrain("c1", "vm-1")
	send.Reason = "maintenance"
	for range 2 { // a repeated request changes nothing, and is not audited again
		_, err := s.admin.SendCommand(t.Context(), send)
		require.NoError(t, err)
	}
	_, err := s.admin.CancelCommand(t.Context(), &migcontrollerv1.CancelCommandRequest{CommandId: "c1", Reason: "a mistake"})
	require.NoError(t, err)
	_, err = s.admin.CancelCommand(t.Context(), &migcontrollerv1.CancelCommandRequest{CommandId: "none"})
	require.Error(t, err)
	_, err = s.admin.CancelCommand(t.Context(), &migcontrollerv1.CancelCommandRequest{CommandId: "not an id"})
	require.Error(t, err)
	_, err = s.admin.SetLogLevel(t.Context(), &migcontrollerv1.SetLogLevelRequest{Level: migcontrollerv1.LogLevel_LOG_LEVEL_DEBUG})
	require.NoError(t, err)
	token, err := s.access.CreateToken(t.Context(), &migcontrollerv1.CreateTokenRequest{Name: "ci", Role: migcontrollerv1.Role_ROLE_VIEWER, Reason: "for the CI"})
	require.NoError(t, err)
	id := token.GetToken().GetId()
	_, err = s.access.RevokeToken(t.Context(), &migcontrollerv1.RevokeTokenRequest{TokenId: id})
	require.NoError(t, err)

	list, err := s.access.ListAuditEvents(t.Context(), &migcontrollerv1.ListAuditEventsRequest{})
	require.NoError(t, err)
	var got [][]string
	for _, e := range list.GetEvents() {
		require.Equal(t, "ann", e.GetPrincipal().GetName())
		require.Equal(t, migcontrollerv1.AuthMethod_AUTH_METHOD_TOKEN, e.GetPrincipal().GetMethod())
		require.Equal(t, "127.0.0.1", e.GetAddress())
		require.EqualValues(t, 1, e.GetCount())
		require.WithinDuration(t, time.Now(), e.GetAt().AsTime(), time.Minute)
		require.Equal(t, e.GetOutcome() == "ok", e.GetError() == "")
		got = append(got, []string{e.GetAction(), e.GetVmId(), e.GetCommandId(), e.GetDetail(), e.GetOutcome(), e.GetReason()})
	}
	require.Equal(t, [][]string{
		{"AccessService/RevokeToken", "", "", id, "ok", ""},
		{"AccessService/CreateToken", "", "", id, "ok", "for the CI"},
		{"AdminService/SetLogLevel", "", "", "debug", "ok", ""},
		{"AdminService/CancelCommand", "", "", "", "invalid_argument", ""},
		{"AdminService/CancelCommand", "", "none", "", "not_found", ""},
		{"AdminService/CancelCommand", "vm-1", "c1", "drain", "ok", "a mistake"},
		{"AdminService/SendCommand", "vm-1", "c1", "drain", "ok", "maintenance"},
	}, got)
	require.Len(t, s.log.lines("msg=audit"), len(got))
	require.Empty(t, s.log.lines(token.GetSecret()))
	record, err := s.admin.GetCommand(t.Context(), &migcontrollerv1.GetCommandRequest{CommandId: "c1"})
	require.NoError(t, err)
	require.Equal(t, []string{"ann", "ann"}, []string{record.GetCommand().GetRequestedBy(), record.GetCommand().GetCancelledBy()})
}

// All methods of operators that may change something are audited, and no others: that follows
// from the schema.
func TestAuditedMethods(t *testing.T) {
	t.Parallel()
	s := startAudited(t, nil, func(c *Config) {
		c.Admin, c.Access = migcontrollerv1connect.UnimplementedAdminServiceHandler{}, migcontrollerv1connect.UnimplementedAccessServiceHandler{}
	})
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	want := map[string]bool{}
	for _, m := range operatorMethods() {
		if m.IsStreamingServer() || m.IsStreamingClient() {
			require.False(t, isAudited(m))
			continue
		}
		if isAudited(m) {
			want[actionOf(m)] = true
			require.Equal(t, protoreflect.StringKind, m.Input().Fields().ByName("reason").Kind(), "%s has no reason", m.FullName())
		}
		body, err := protojson.Marshal(dynamicpb.NewMessage(m.Input()))
		require.NoError(t, err)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+procedureOf(m), bytes.NewReader(body))
		require.NoError(t, err)
		req.Header.Set("Content-Type", "application/json")
		resp, err := client.Do(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, http.StatusNotImplemented, resp.StatusCode)
	}
	require.Contains(t, want, "AdminService/SendCommand")
	require.NotContains(t, want, "AdminService/GetCommand")
	require.Contains(t, want, "AccessService/RevokeToken")
	got := map[string]bool{}
	for _, e := range s.audited(t) {
		got[e.Action] = true
		require.Equal(t, "unimplemented", e.Outcome)
	}
	require.Equal(t, want, got)
	require.False(t, isAudited(nil))
	require.False(t, isAudited(migcontrollerv1.File_migcontroller_v1_agent_service_proto.Services().Get(0).Methods().Get(0)))
}

// A reason has at most 1000 characters; the rejected call is audited with the first of them.
func TestReasonIsBounded(t *testing.T) {
	t.Parallel()
	s := startAudited(t, nil)
	send := sendDrain("c1", "vm-1")
	send.Reason = strings.Repeat("ä", 1001)
	_, err := s.admin.SendCommand(t.Context(), send)
	require.Equal(t, connect.CodeInvalidArgument, connect.CodeOf(err))
	require.ErrorContains(t, err, "reason must have at most 1000 characters")
	events := s.audited(t)
	require.Len(t, events, 1)
	require.Equal(t, strings.Repeat("ä", 1000), events[0].Reason)
	require.Equal(t, "invalid_argument", events[0].Outcome)
	send.Reason = strings.Repeat("ä", 1000)
	_, err = s.admin.SendCommand(t.Context(), send)
	require.NoError(t, err)
}

// A call that waits for its command has its event, and its line, once the command is accepted.
func TestWaitingCallIsAudited(t *testing.T) {
	t.Parallel()
	s := startAudited(t, nil)
	send := sendDrain("c1", "vm-1")
	send.Wait = durationpb.New(time.Minute)
	done := make(chan error, 1)
	go func() {
		_, err := s.admin.SendCommand(t.Context(), send)
		done <- err
	}()
	require.Eventually(t, func() bool { return len(s.log.lines("msg=audit")) == 1 }, 10*time.Second, time.Millisecond)
	require.Len(t, s.audited(t), 1)
	require.Empty(t, done)
	_, err := s.admin.CancelCommand(t.Context(), &migcontrollerv1.CancelCommandRequest{CommandId: "c1"})
	require.NoError(t, err)
	require.NoError(t, <-done)
	require.Len(t, s.audited(t), 2)
	require.Len(t, s.log.lines("msg=audit"), 2)
}

// brokenRecorder cannot store events.
type brokenRecorder struct{}

func (brokenRecorder) RecordAudit(context.Context, ...audit.Event) error {
	return errors.Join(fleet.ErrUnavailable, errors.New("the disk is full"))
}

// Without its event, a change that was made outside the database does not look complete; the
// error of a call that failed stays. The event is in the log in any case.
func TestEventThatCannotBeStored(t *testing.T) {
	t.Parallel()
	s := startAudited(t, brokenRecorder{})
	_, err := s.admin.SetLogLevel(t.Context(), &migcontrollerv1.SetLogLevelRequest{Level: migcontrollerv1.LogLevel_LOG_LEVEL_INFO})
	requireOnly(t, err, connect.CodeUnavailable, fleet.ErrUnavailable.Error())
	_, err = s.admin.CancelCommand(t.Context(), &migcontrollerv1.CancelCommandRequest{CommandId: "none"})
	require.Equal(t, connect.CodeNotFound, connect.CodeOf(err))
	_, err = s.admin.SendCommand(t.Context(), sendDrain("c1", "vm-1"))
	require.NoError(t, err, "it is committed with its event")
	require.Len(t, s.log.lines("audit event not stored"), 2)
	require.Len(t, s.log.lines("msg=audit "), 3)
}

// panicking panics in SendCommand.
type panicking struct {
	migcontrollerv1connect.UnimplementedAdminServiceHandler
}

func (panicking) SendCommand(context.Context, *migcontrollerv1.SendCommandRequest) (*migcontrollerv1.SendCommandResponse, error) {
	panic("a bug")
}

// A call that panics is audited as an internal error, and its stack is logged.
func TestPanicIsAudited(t *testing.T) {
	t.Parallel()
	s := startAudited(t, nil, func(c *Config) { c.Admin = panicking{} })
	_, err := s.admin.SendCommand(t.Context(), sendDrain("c1", "vm-1"))
	require.Equal(t, connect.CodeInternal, connect.CodeOf(err))
	events := s.audited(t)
	require.Len(t, events, 1)
	require.Equal(t, []string{"internal", "vm-1", "c1"}, []string{events[0].Outcome, events[0].VM, events[0].Command})
	require.Contains(t, s.log.lines("call panicked")[0], "panicking.SendCommand")
}

// Callers of the control socket have no address.
func TestAddresses(t *testing.T) {
	t.Parallel()
	require.Equal(t, "10.0.0.1", hostOf("10.0.0.1:80"))
	require.Equal(t, "fe80::1", hostOf("[fe80::1%eth0]:80"))
	require.Equal(t, "@", hostOf("@"))
	s := startAudited(t, nil, func(c *Config) { c.Operators = everybody{auth.Local()} })
	_, err := s.admin.SendCommand(t.Context(), sendDrain("c1", "vm-1"))
	require.NoError(t, err)
	require.Empty(t, s.audited(t)[0].Address)
	require.Equal(t, auth.Socket, s.audited(t)[0].By.Method)
}

// Every field of an event is converted.
func TestAuditConversionIsComplete(t *testing.T) {
	t.Parallel()
	by := ann
	by.ExpiresAt, by.Scope = adminNow(), auth.OnlyPools("p")
	requireComplete(t, auditToProto(audit.Event{
		At: adminNow(), By: by, Address: "a", Action: "b", VM: "c", Command: "d", Detail: "e", Outcome: "f", Error: "g", Reason: "h", RequestID: "i", Count: 1,
	}))
}

// The outcomes are all of Connect's codes.
func TestOutcomesAreCodes(t *testing.T) {
	t.Parallel()
	want := []string{audit.OK}
	for code := connect.CodeCanceled; code <= connect.CodeUnauthenticated; code++ {
		want = append(want, code.String())
	}
	require.Equal(t, want, audit.Outcomes)
}
