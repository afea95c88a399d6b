package faults

import (
	"bytes"
	"net/http"
	"os/exec"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
)

// caller makes calls with credentials.
type caller struct {
	migcontrollerv1connect.AdminServiceClient

	access migcontrollerv1connect.AccessServiceClient
}

// tokenTransport sends a token with each request; none if it is empty.
type tokenTransport struct {
	token string
	to    http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (b tokenTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if b.token != "" {
		r = r.Clone(r.Context())
		r.Header.Set("Authorization", "Bearer "+b.token)
	}
	return b.to.RoundTrip(r)
}

// caller returns one with a token, or without credentials.
func (c *controller) caller(t *testing.T, token string) caller {
	t.Helper()
	return callerAt("http://"+c.addr, &http.Client{Transport: tokenTransport{token, newTransport(t)}})
}

func callerAt(url string, client *http.Client) caller {
	return caller{migcontrollerv1connect.NewAdminServiceClient(client, url), migcontrollerv1connect.NewAccessServiceClient(client, url)}
}

// code returns the code with which a caller gets information about the controller.
func (c caller) code(t *testing.T) connect.Code {
	t.Helper()
	_, err := c.GetServerInfo(t.Context(), &migcontrollerv1.GetServerInfoRequest{})
	if err == nil {
		return 0
	}
	return connect.CodeOf(err)
}

// who returns the caller according to the controller.
func (c caller) who(t *testing.T) *migcontrollerv1.Principal {
	t.Helper()
	answer, err := c.access.WhoAmI(t.Context(), &migcontrollerv1.WhoAmIRequest{})
	require.NoError(t, err)
	return answer.GetPrincipal()
}

// create creates a token, and returns it with its secret.
func (c caller) create(t *testing.T, name string, role migcontrollerv1.Role, pools ...string) (token *migcontrollerv1.Token, secret string) {
	t.Helper()
	answer, err := c.access.CreateToken(t.Context(), &migcontrollerv1.CreateTokenRequest{Name: name, Role: role, Pools: pools})
	require.NoError(t, err)
	return answer.GetToken(), answer.GetSecret()
}

func (c caller) revoke(t *testing.T, id string) {
	t.Helper()
	_, err := c.access.RevokeToken(t.Context(), &migcontrollerv1.RevokeTokenRequest{TokenId: id})
	require.NoError(t, err)
}

// audit returns all audit events.
func (c caller) audit(t *testing.T) []*migcontrollerv1.AuditEvent {
	t.Helper()
	answer, err := c.access.ListAuditEvents(t.Context(), &migcontrollerv1.ListAuditEventsRequest{PageSize: 1000})
	require.NoError(t, err)
	require.Empty(t, answer.GetNextPageToken())
	return answer.GetEvents()
}

// tryCreateAdmin runs controller token create, as the controller's user on its machine.
func (c *controller) tryCreateAdmin(t *testing.T, name string) (secret, stderr string, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program(t, "controller"), "token", "create", name, "--role=admin", "--data-dir="+c.dataDir(t))
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return strings.TrimSpace(out.String()), errs.String(), err
}

// createAdmin returns a caller with a new token for admins.
func (c *controller) createAdmin(t *testing.T, name string) caller {
	t.Helper()
	secret, stderr, err := c.tryCreateAdmin(t, name)
	require.NoError(t, err, stderr)
	return c.caller(t, secret)
}

// startWithAdmin starts a controller that needs credentials, and returns a caller who may do
// everything. The controller's own calls are made by it.
func startWithAdmin(t *testing.T, options ...string) (*controller, caller) {
	t.Helper()
	c := startController(t, options...)
	root := c.createAdmin(t, "root")
	c.admin = root
	return c, root
}
