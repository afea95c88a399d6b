package migcontrollerv1connect_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/gen/go/internal/clienttest"
	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
)

// The interceptor of the example sends its token with calls and with streams.
func TestTokenIsSent(t *testing.T) {
	t.Parallel()
	sent := make(chan string, 2)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent <- r.Header.Get("Authorization")
		http.NotFound(w, r)
	}))
	t.Cleanup(server.Close)
	admin := migcontrollerv1connect.NewAdminServiceClient(
		clienttest.NewHTTPClient(t, false), server.URL, connect.WithInterceptors(bearer("abc")))

	_, err := admin.GetServerInfo(t.Context(), &migcontrollerv1.GetServerInfoRequest{})
	require.Error(t, err)
	require.Equal(t, "Bearer abc", <-sent)
	changes, err := admin.WatchFleet(t.Context(), &migcontrollerv1.WatchFleetRequest{})
	require.NoError(t, err)
	defer changes.Close()
	require.False(t, changes.Receive())
	require.Equal(t, "Bearer abc", <-sent)
}
