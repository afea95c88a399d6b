package cli

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
)

// fakeSecret is the secret of every token that fakeAccess creates.
const fakeSecret = "migc_THESECRETOFATOKEN"

// fakeAccess is an AccessService with fixed data. It records requests in the fleet.
type fakeAccess struct {
	migcontrollerv1connect.UnimplementedAccessServiceHandler

	fleet *fakeFleet
}

func fakeTokens() []*migcontrollerv1.Token {
	const day = 24 * time.Hour
	return []*migcontrollerv1.Token{
		{
			Id: "tok-aa03", Name: "nightly-report", Role: migcontrollerv1.Role_ROLE_VIEWER, CreatedAt: stamp(-time.Hour), CreatedBy: "root",
			ExpiresAt: stamp(30 * day),
		},
		{
			Id: "tok-aa02", Name: "ann", Role: migcontrollerv1.Role_ROLE_OPERATOR, Pools: []string{"builders", "testers"},
			CreatedAt: stamp(-2 * day), CreatedBy: "root", ExpiresAt: stamp(88 * day), LastUsedAt: stamp(-10 * time.Minute),
		},
		{
			Id: "tok-aa01", Name: "ben", Role: migcontrollerv1.Role_ROLE_ADMIN, CreatedAt: stamp(-9 * day), CreatedBy: "local",
			ExpiresAt: stamp(81 * day), RevokedAt: stamp(-day), RevokedBy: "root",
		},
		{
			Id: "tok-aa00", Name: "trial", Role: migcontrollerv1.Role_ROLE_VIEWER, CreatedAt: stamp(-10 * day), CreatedBy: "local",
			ExpiresAt: stamp(-9 * day),
		},
	}
}

func (f *fakeAccess) WhoAmI(_ context.Context, req *migcontrollerv1.WhoAmIRequest) (*migcontrollerv1.WhoAmIResponse, error) {
	if err := f.fleet.receive(req); err != nil {
		return nil, err
	}
	return &migcontrollerv1.WhoAmIResponse{Principal: &migcontrollerv1.Principal{
		Name: "ann", Method: migcontrollerv1.AuthMethod_AUTH_METHOD_TOKEN, Role: migcontrollerv1.Role_ROLE_OPERATOR,
		Pools: []string{"builders", "testers"}, ExpiresAt: stamp(88 * 24 * time.Hour), TokenId: "tok-aa02",
	}}, nil
}

func (f *fakeAccess) CreateToken(_ context.Context, req *migcontrollerv1.CreateTokenRequest) (*migcontrollerv1.CreateTokenResponse, error) {
	if err := f.fleet.receive(req); err != nil {
		return nil, err
	}
	ttl := 90 * 24 * time.Hour
	if req.GetTtl() != nil {
		ttl = req.GetTtl().AsDuration()
	}
	return &migcontrollerv1.CreateTokenResponse{Secret: fakeSecret, Token: &migcontrollerv1.Token{
		Id: "tok-aa04", Name: req.GetName(), Role: req.GetRole(), Pools: req.GetPools(), CreatedAt: stamp(0), CreatedBy: "root", ExpiresAt: stamp(ttl),
	}}, nil
}

func (f *fakeAccess) ListTokens(_ context.Context, req *migcontrollerv1.ListTokensRequest) (*migcontrollerv1.ListTokensResponse, error) {
	if err := f.fleet.receive(req); err != nil {
		return nil, err
	}
	tokens := fakeTokens()
	if !req.GetIncludeEnded() {
		tokens = tokens[:2]
	}
	page, next, err := paginate(tokens, f.fleet.page, req.GetPageSize(), req.GetPageToken())
	return &migcontrollerv1.ListTokensResponse{Tokens: page, NextPageToken: next}, err
}

func (f *fakeAccess) RevokeToken(_ context.Context, req *migcontrollerv1.RevokeTokenRequest) (*migcontrollerv1.RevokeTokenResponse, error) {
	if err := f.fleet.receive(req); err != nil {
		return nil, err
	}
	for _, token := range fakeTokens() {
		if token.GetId() == req.GetTokenId() {
			token.RevokedAt, token.RevokedBy = stamp(0), "root"
			return &migcontrollerv1.RevokeTokenResponse{Token: token}, nil
		}
	}
	return nil, notFound("token %q: not found", req.GetTokenId())
}

func (f *fakeAccess) ListAuditEvents(
	_ context.Context, req *migcontrollerv1.ListAuditEventsRequest,
) (*migcontrollerv1.ListAuditEventsResponse, error) {
	if err := f.fleet.receive(req); err != nil {
		return nil, err
	}
	ann := &migcontrollerv1.Principal{
		Name: "ann", Method: migcontrollerv1.AuthMethod_AUTH_METHOD_TOKEN, Role: migcontrollerv1.Role_ROLE_OPERATOR, TokenId: "tok-aa02",
	}
	events := []*migcontrollerv1.AuditEvent{
		{
			At: stamp(-time.Minute), Principal: ann, Address: "192.0.2.7", Action: "AdminService/SendCommand", VmId: "vm-1", CommandId: "ctl-aa03",
			Detail: "drain", Outcome: "ok", Reason: "kernel update", RequestId: "req-2", Count: 1,
		},
		{
			At: stamp(-2 * time.Minute), Principal: ann, Address: "192.0.2.7", Action: "AdminService/SetLogLevel", Outcome: "permission_denied",
			Error: "the role admin is required", Reason: "look for the leak", RequestId: "req-1", Count: 1,
		},
		{
			At: stamp(-time.Hour), Principal: &migcontrollerv1.Principal{}, Address: "203.0.113.9", Action: "AdminService/ListVMs",
			Outcome: "unauthenticated", Error: "the token is not known to this controller", Count: 412,
		},
	}
	if req.GetVmId() != "" && req.GetVmId() != "vm-1" {
		events = nil
	}
	page, next, err := paginate(events, f.fleet.page, req.GetPageSize(), req.GetPageToken())
	return &migcontrollerv1.ListAuditEventsResponse{Events: page, NextPageToken: next}, err
}

// token create prints the secret alone on stdout, so that it can be piped.
func TestTokenSecret(t *testing.T) {
	t.Parallel()
	d := newDriver(t)
	stdout, stderr, code := d.run("token", "create", "ann", "--role", "viewer")
	require.Zero(t, code, stderr)
	require.Equal(t, fakeSecret+"\n", stdout)
	require.NotContains(t, stderr, "THESECRET")
	request := requestsOf[*migcontrollerv1.CreateTokenRequest](d.fleet)[0]
	require.Nil(t, request.GetTtl(), "the default is the controller's")
	require.Equal(t, migcontrollerv1.Role_ROLE_VIEWER, request.GetRole())
}

// When the answer of token create is lost, it says that there may be a token.
func TestTokenUncertain(t *testing.T) {
	t.Parallel()
	d := newDriver(t)
	d.fleet.fail = func(any) error { return connect.NewError(connect.CodeUnavailable, errors.New("the connection broke")) }
	d.mustFail(exitUnavailable, "a token may have been created", "token", "create", "ann", "--role", "viewer")
	d.fleet.fail = func(any) error { return connect.NewError(connect.CodeResourceExhausted, errors.New("too many")) }
	_, stderr, code := d.run("token", "create", "ann", "--role", "viewer")
	require.Equal(t, exitFailed, code)
	require.NotContains(t, stderr, "may have been created")
}

// Every command that changes something sends --reason, a broadcast with each command.
func TestReason(t *testing.T) {
	t.Parallel()
	for _, line := range []string{
		"send vm-1 drain", "drain vm-1 vm-2", "broadcast drain --yes", "cancel ctl-aa03", "log-level debug",
		"token create ann --role viewer", "token revoke tok-aa02",
	} {
		d := newDriver(t)
		_, stderr, code := d.run(append(strings.Fields(line), "--reason", "kernel update")...)
		require.NotEqual(t, exitUsage, code, stderr)
		changes := 0
		for _, request := range d.fleet.requests {
			if r, ok := request.(interface{ GetReason() string }); ok {
				require.Equal(t, "kernel update", r.GetReason(), line)
				changes++
			}
		}
		require.Positive(t, changes, line)
	}
}

// Every method whose request has a reason is reachable with --reason.
func TestReasonOfEveryAction(t *testing.T) {
	t.Parallel()
	require.Equal(t, []string{
		"AdminService/SendCommand", "AdminService/CancelCommand", "AdminService/SetLogLevel",
		"AccessService/CreateToken", "AccessService/RevokeToken",
	}, actions(), "a new method needs a command with reasonFlag, and a line in TestReason")
}

// audit sends its filters; the name of a method stands for the whole action.
func TestAuditFilters(t *testing.T) {
	t.Parallel()
	d := newDriver(t)
	d.mustRun("audit", "--vm", "vm-1", "--command", "ctl-aa03", "--principal", "ann", "--action", "sendcommand", "--outcome", "ok",
		"--since", "1h", "--until", "2026-03-01T02:59:00Z", "--limit", "7")
	d.mustRun("audit", "--action", "Other/Method")
	requests := requestsOf[*migcontrollerv1.ListAuditEventsRequest](d.fleet)
	require.True(t, proto.Equal(&migcontrollerv1.ListAuditEventsRequest{
		VmId: "vm-1", CommandId: "ctl-aa03", Principal: "ann", Action: "AdminService/SendCommand", Outcome: "ok",
		Since: stamp(-time.Hour), Until: stamp(-time.Minute), PageSize: 7,
	}, requests[0]), requests[0])
	require.Equal(t, "Other/Method", requests[1].GetAction())
}

// denial returns an error as the controller sends it.
func denial(code connect.Code, reason migcontrollerv1.ErrorReason, text string) error {
	err := connect.NewError(code, errors.New(text))
	detail, bad := connect.NewErrorDetail(&migcontrollerv1.ErrorDetail{Reason: reason})
	if bad != nil {
		panic(bad)
	}
	err.AddDetail(detail)
	return err
}

// Errors about credentials say what is missing and how to get it.
func TestDenied(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		err   error
		token string
	}{
		"denied-no-token": {denial(connect.CodeUnauthenticated, migcontrollerv1.ErrorReason_ERROR_REASON_UNAUTHENTICATED, "credentials are required"), ""},
		"denied-token":    {denial(connect.CodeUnauthenticated, migcontrollerv1.ErrorReason_ERROR_REASON_UNAUTHENTICATED, "the token was revoked"), secret},
		"denied-role": {
			denial(connect.CodePermissionDenied, migcontrollerv1.ErrorReason_ERROR_REASON_PERMISSION_DENIED, "the role operator is required; ann has viewer"), secret,
		},
		"denied-failures": {denial(connect.CodeResourceExhausted, migcontrollerv1.ErrorReason_ERROR_REASON_TOO_MANY_FAILURES, "too many failed attempts"), secret},
		"denied-tokens":   {denial(connect.CodeResourceExhausted, migcontrollerv1.ErrorReason_ERROR_REASON_TOO_MANY_TOKENS, "there are 10000 tokens"), secret},
	} {
		d := newDriver(t)
		d.program.environ[tokenEnv] = test.token
		d.fleet.fail = func(any) error { return test.err }
		d.golden(name, "drain", "vm-1")
	}
	d := newDriver(t)
	d.fleet.fail = func(any) error {
		return denial(connect.CodePermissionDenied, migcontrollerv1.ErrorReason_ERROR_REASON_PERMISSION_DENIED, "the role admin is required")
	}
	d.golden("denied-json", "log-level", "debug", "-o", "json")
}
