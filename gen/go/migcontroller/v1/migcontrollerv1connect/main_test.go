package migcontrollerv1connect_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/mig-controller/mig-controller/gen/go/internal/clienttest"
	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
)

// The controller that tests and examples share, with three simulated VMs, the first of
// which is ideal and gets the commands, and its program for tests that need their own.
var (
	shared  *clienttest.Controller
	program string
)

func TestMain(m *testing.M) {
	ready := func(path string, c *clienttest.Controller) error {
		program, shared = path, c
		return awaitSessions(3)
	}
	code := clienttest.Main(m, "../../../../..", ready, "--simulate=3")
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// awaitSessions waits until this many VMs are connected to the shared controller.
func awaitSessions(n int64) error {
	ctx, cancel := context.WithTimeout(context.Background(), clienttest.Patience)
	defer cancel()
	admin := migcontrollerv1connect.NewAdminServiceClient(http.DefaultClient, "http://"+shared.HTTP)
	for {
		info, err := admin.GetServerInfo(ctx, &migcontrollerv1.GetServerInfoRequest{})
		if err != nil || info.GetLiveSessions() == n {
			return err
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return errors.New("the simulated VMs do not connect")
		}
	}
}

// overEach runs a test over every protocol, with a client of the shared
// controller.
func overEach(t *testing.T, test func(t *testing.T, admin migcontrollerv1connect.AdminServiceClient)) {
	t.Helper()
	get := clienttest.Protocol{Name: "Connect with GET", Options: []connect.ClientOption{connect.WithHTTPGet()}}
	for _, protocol := range append(slices.Clip(clienttest.Protocols), get) {
		t.Run(protocol.Name, func(t *testing.T) {
			t.Parallel()
			test(t, newAdmin(t, shared, protocol))
		})
	}
}

func newAdmin(
	t *testing.T, c *clienttest.Controller, protocol clienttest.Protocol,
) migcontrollerv1connect.AdminServiceClient {
	t.Helper()
	return migcontrollerv1connect.NewAdminServiceClient(
		clienttest.NewHTTPClient(t, protocol.HTTP2), "http://"+c.HTTP, protocol.Options...)
}

// requireRefused requires an error with this code and a single detail, the ErrorDetail, and
// returns that.
func requireRefused(t *testing.T, err error, code connect.Code) *migcontrollerv1.ErrorDetail {
	t.Helper()
	var refused *connect.Error
	require.ErrorAs(t, err, &refused)
	require.Equal(t, code, refused.Code(), err)
	require.NotEmpty(t, refused.Message())
	require.Len(t, refused.Details(), 1)
	message, err := refused.Details()[0].Value()
	require.NoError(t, err)
	require.IsType(t, &migcontrollerv1.ErrorDetail{}, message)
	return message.(*migcontrollerv1.ErrorDetail)
}
