package migclient_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/gen/go/internal/clienttest"
	"github.com/mig-controller/mig-controller/gen/go/migclient"
	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
)

// Over plaintext http a token is sent to this machine only, unless that is allowed.
func TestPlaintextToken(t *testing.T) {
	t.Parallel()
	content, err := os.ReadFile("../../testdata/plaintext-token.json") // the same for every language
	require.NoError(t, err)
	var addresses struct{ Allowed, Refused []string }
	require.NoError(t, json.Unmarshal(content, &addresses))
	require.NotEmpty(t, addresses.Allowed)
	require.NotEmpty(t, addresses.Refused)
	for _, address := range addresses.Allowed {
		_, err := migclient.WithToken(address, "s3cret")
		require.NoError(t, err, address)
		_, err = migclient.Connect(address, migclient.Options{Token: "s3cret"})
		require.NoError(t, err, address)
	}
	source := func(context.Context) (string, error) { return "s3cret", nil }
	for _, address := range addresses.Refused {
		_, err := migclient.WithToken(address, "s3cret")
		require.ErrorIs(t, err, migclient.ErrPlaintextToken, address)
		_, err = migclient.WithTokenSource(address, source)
		require.ErrorIs(t, err, migclient.ErrPlaintextToken, address)
		_, err = migclient.Connect(address, migclient.Options{TokenSource: source})
		require.ErrorIs(t, err, migclient.ErrPlaintextToken, address)
		_, err = migclient.WithToken(address, "s3cret", migclient.PlaintextToken)
		require.NoError(t, err, address)
		_, err = migclient.Connect(address, migclient.Options{Token: "s3cret", PlaintextToken: true})
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

// A source is asked before each call and each stream. Its error ends the call, with a code
// that says whether another call may help, and nothing is sent.
func TestTokenSource(t *testing.T) {
	t.Parallel()
	sent := make(chan string, 2)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent <- r.Header.Get("Authorization")
		http.NotFound(w, r)
	}))
	t.Cleanup(server.Close)
	tokens := []string{"first", "second", "two words"}
	errNoKey := errors.New("no key")
	last := errNoKey
	auth, err := migclient.WithTokenSource(server.URL, func(context.Context) (string, error) {
		if len(tokens) == 0 {
			return "", last
		}
		token := tokens[0]
		tokens = tokens[1:]
		return token, nil
	})
	require.NoError(t, err)
	admin := migcontrollerv1connect.NewAdminServiceClient(clienttest.NewHTTPClient(t, false), server.URL, auth)
	call := func(ctx context.Context) error {
		_, err := admin.GetServerInfo(ctx, &migcontrollerv1.GetServerInfoRequest{})
		return err
	}
	watch := func(ctx context.Context) error {
		_, err := admin.WatchFleet(ctx, &migcontrollerv1.WatchFleetRequest{})
		return err
	}
	require.Error(t, call(t.Context()))
	require.Equal(t, "Bearer first", <-sent)
	changes, err := admin.WatchFleet(t.Context(), &migcontrollerv1.WatchFleetRequest{})
	require.NoError(t, err)
	require.NoError(t, changes.Close())
	require.Equal(t, "Bearer second", <-sent)

	err = call(t.Context())
	require.ErrorContains(t, err, "unauthenticated: get a token: token must be printable ASCII")
	require.NotContains(t, err.Error(), "words")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, do := range []func(context.Context) error{call, watch} {
		last = errNoKey
		require.ErrorContains(t, do(t.Context()), "unauthenticated: get a token: no key")
		require.ErrorIs(t, do(t.Context()), errNoKey)
		require.False(t, migclient.Retryable(do(t.Context())))
		require.Equal(t, connect.CodeCanceled, connect.CodeOf(do(ended)))
		last = connect.NewError(connect.CodeUnavailable, errNoKey)
		require.True(t, migclient.Retryable(do(t.Context())))
	}
	require.Empty(t, sent)
	_, err = migclient.WithTokenSource(server.URL, nil)
	require.ErrorContains(t, err, "must not be nil")
}
