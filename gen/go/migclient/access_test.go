package migclient_test

import (
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/gen/go/internal/clienttest"
	"github.com/mig-controller/mig-controller/gen/go/migclient"
	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
)

// The first token ends the access without credentials; its holder may do what its role
// allows, until it is revoked.
func TestAccess(t *testing.T) {
	t.Parallel()
	c, err := clienttest.Start(program, t.TempDir(), "--simulate=1")
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Stop()) }()
	as := func(token string) *migclient.Controller {
		clients, err := migclient.Connect("http://"+c.HTTP, migclient.Options{Token: token})
		require.NoError(t, err)
		t.Cleanup(clients.Close)
		return clients
	}
	create := func(clients *migclient.Controller, name string, role migcontrollerv1.Role) (id, secret string) {
		res, err := clients.Access.CreateToken(t.Context(), &migcontrollerv1.CreateTokenRequest{Name: name, Role: role})
		require.NoError(t, err)
		return res.GetToken().GetId(), res.GetSecret()
	}
	nobody := as("")
	_, secret := create(nobody, "root", migcontrollerv1.Role_ROLE_ADMIN)
	_, err = nobody.Admin.ListVMs(t.Context(), &migcontrollerv1.ListVMsRequest{})
	require.Equal(t, connect.CodeUnauthenticated, connect.CodeOf(err))
	require.Equal(t, migcontrollerv1.ErrorReason_ERROR_REASON_UNAUTHENTICATED, migclient.ErrorDetail(err).GetReason())

	root := as(secret)
	id, secret := create(root, "ann", migcontrollerv1.Role_ROLE_VIEWER)
	ann := as(secret)
	who, err := ann.Access.WhoAmI(t.Context(), &migcontrollerv1.WhoAmIRequest{})
	require.NoError(t, err)
	require.Equal(t, "ann", who.GetPrincipal().GetName())
	_, err = ann.Admin.CancelCommand(t.Context(), &migcontrollerv1.CancelCommandRequest{CommandId: "none"})
	require.Equal(t, migcontrollerv1.ErrorReason_ERROR_REASON_PERMISSION_DENIED, migclient.ErrorDetail(err).GetReason())

	var ended error
	for _, err := range (migclient.Follower{Admin: ann.Admin}).Follow(t.Context(), &migcontrollerv1.WatchFleetRequest{VmId: "none"}) {
		if ended = err; err == nil {
			_, err = root.Access.RevokeToken(t.Context(), &migcontrollerv1.RevokeTokenRequest{TokenId: id, Reason: "left"})
			require.NoError(t, err)
		}
	}
	require.Equal(t, connect.CodeUnauthenticated, connect.CodeOf(ended), "another try would not help")
}
