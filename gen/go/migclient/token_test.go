package migclient_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/gen/go/internal/clienttest"
	"github.com/mig-controller/mig-controller/gen/go/migclient"
	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
)

// Over plaintext http a token is sent to this machine only, unless that is allowed.
func TestPlaintextToken(t *testing.T) {
	t.Parallel()
	for _, address := range []string{
		"http://localhost:8080", "http://LOCALHOST", "http://127.0.0.1:8080", "http://127.1.2.3", "http://[::1]:8080/path",
		"https://controller.example", "https://192.0.2.1",
	} {
		_, err := migclient.WithToken(address, "s3cret")
		require.NoError(t, err, address)
	}
	for _, address := range []string{
		"http://controller.example:8080", "http://localhost.example", "http://a.localhost", "http://10.0.0.1", "http://0.0.0.0", "http://127.0.0.1.example",
	} {
		_, err := migclient.WithToken(address, "s3cret")
		require.ErrorIs(t, err, migclient.ErrPlaintextToken, address)
		_, err = migclient.WithToken(address, "s3cret", migclient.PlaintextToken)
		require.NoError(t, err, address)
	}
}

// An invalid token or address is rejected without being shown.
func TestInvalidToken(t *testing.T) {
	t.Parallel()
	for _, token := range []string{"", "s3cret word", "s3cret\n", "s3crét"} {
		_, err := migclient.WithToken("https://controller.example", token)
		require.ErrorContains(t, err, "token must be printable ASCII")
		require.NotContains(t, err.Error(), "s3cr")
	}
	for _, address := range []string{"", "localhost:8080", "ftp://localhost", "http://", "http://a b"} {
		_, err := migclient.WithToken(address, "s3cret")
		require.ErrorContains(t, err, "address must be", address)
	}
}

// The token is sent with calls and with streams, and only to the host of the address.
func TestTokenIsSent(t *testing.T) {
	t.Parallel()
	for _, same := range []bool{true, false} {
		sent := make(chan string, 2)
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			sent <- r.Header.Get("Authorization")
			http.NotFound(w, r)
		}))
		t.Cleanup(server.Close)
		address, want := server.URL, "Bearer s3cret"
		if !same {
			address, want = "http://localhost:1", ""
		}
		auth, err := migclient.WithToken(address, "s3cret")
		require.NoError(t, err)
		admin := migcontrollerv1connect.NewAdminServiceClient(clienttest.NewHTTPClient(t, false), server.URL, auth)

		_, err = admin.GetServerInfo(t.Context(), &migcontrollerv1.GetServerInfoRequest{})
		require.Error(t, err)
		require.Equal(t, want, <-sent)
		changes, err := admin.WatchFleet(t.Context(), &migcontrollerv1.WatchFleetRequest{})
		require.NoError(t, err)
		require.False(t, changes.Receive())
		require.NoError(t, changes.Close())
		require.Equal(t, want, <-sent)
	}
}
