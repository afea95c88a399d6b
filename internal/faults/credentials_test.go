package faults

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
	"github.com/mig-controller/mig-controller/internal/testkit"
)

// startIssuer serves an issuer of identity tokens, and returns the option of a controller that
// accepts them.
func startIssuer(t *testing.T) (issuer *testkit.Issuer, option string) {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	url := "http://" + server.Listener.Addr().String()
	issuer = testkit.NewIssuer(t, url)
	server.Config.Handler = issuer
	server.Start()
	t.Cleanup(server.Close)
	return issuer, issuerConfig(t, url)
}

// issuerConfig is the option of a controller for which everyone whom the issuer knows is a
// viewer.
func issuerConfig(t *testing.T, url string) string {
	t.Helper()
	return writeConfig(t, "operators:\n  oidc:\n    - issuer: "+url+
		"\n      audience: migctl\n      rules:\n        - claims: {sub: '*'}\n          role: viewer\n")
}

// credential plants a token: what identifies its holder, without a prefix that is the same for
// all.
func (p plants) credential(token, what string) {
	parts := strings.Split(strings.TrimPrefix(token, "migc_"), ".")
	p[parts[len(parts)-1]] = what
}

// authorize makes the calls of p with a token, whose answers are recorded, and uses all methods
// of AccessService.
func (p *planted) authorize(t *testing.T, issuer *testkit.Issuer) {
	t.Helper()
	secret, stderr, err := p.tryCreateAdmin(t, "root")
	require.NoError(t, err, stderr)
	p.credential(secret, "an operator's token")
	p.operator = secret
	p.admin = p.recorded(t, secret)
	require.Empty(t, p.found([]byte(stderr)))

	// The one answer that has a secret is not recorded.
	token, revoked := p.caller(t, secret).create(t, "leaver", migcontrollerv1.Role_ROLE_OPERATOR)
	p.answers.paths[migcontrollerv1connect.AccessServiceCreateTokenProcedure] = true
	p.credential(revoked, "a revoked token")
	leaver := p.recorded(t, revoked)
	leaver.who(t)
	root := p.recorded(t, secret)
	root.revoke(t, token.GetId())
	require.Equal(t, connect.CodeUnauthenticated, leaver.code(t))

	identity := issuer.Token(t, map[string]any{"aud": "migctl", "sub": "ann"})
	p.credential(identity, "an identity token")
	require.Equal(t, "ann", p.recorded(t, identity).who(t).GetName())
	foreign := issuer.Token(t, map[string]any{"aud": "another", "sub": "ann"})
	p.credential(foreign, "an identity token for another service")
	require.Equal(t, connect.CodeUnauthenticated, p.recorded(t, foreign).code(t))
	_, err = root.access.RevokeToken(t.Context(), &migcontrollerv1.RevokeTokenRequest{TokenId: secret}) // by mistake
	require.Equal(t, connect.CodeInvalidArgument, connect.CodeOf(err), err)
	_, err = root.access.ListTokens(t.Context(), &migcontrollerv1.ListTokensRequest{IncludeEnded: true})
	require.NoError(t, err)
}

// recorded returns a caller whose answers are recorded.
func (p *planted) recorded(t *testing.T, token string) caller {
	t.Helper()
	client := &http.Client{Transport: tokenTransport{token, recorder{p.answers, newTransport(t)}}}
	options := []connect.ClientOption{connect.WithAcceptCompression("gzip", nil, nil), connect.WithProtoJSON()}
	return caller{
		migcontrollerv1connect.NewAdminServiceClient(client, "http://"+p.addr, options...),
		migcontrollerv1connect.NewAccessServiceClient(client, "http://"+p.addr, options...),
	}
}

// ask requests a page, whose answer is recorded.
func (p *planted) ask(t *testing.T, path string, authorization ...string) (status int) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+p.addr+path, http.NoBody)
	require.NoError(t, err)
	for _, value := range authorization {
		r.Header.Add("Authorization", value)
	}
	answer, err := (&http.Client{Transport: recorder{p.answers, newTransport(t)}}).Do(r)
	require.NoError(t, err)
	require.NoError(t, answer.Write(p.answers)) // which reads it
	require.NoError(t, answer.Body.Close())
	return answer.StatusCode
}

// useCredentials sends headers that are not valid credentials.
func (p *planted) useCredentials(t *testing.T) {
	t.Helper()
	const unknown = "an unknown token"
	for _, values := range [][]string{
		{"Bearer " + p.text(unknown)},
		{"Bearer migc_" + p.text(unknown)},
		{"Bearer " + p.text(unknown) + "." + p.text(unknown) + "." + p.text(unknown)},
		{"Basic " + p.text("basic authentication")},
		{p.text("a token without a scheme")},
		{"Bearer " + p.text("one of two tokens"), "Bearer " + p.text("another of two tokens")},
		{"Bearer " + p.text("a token with a space") + " x"},
		{"Bearer " + p.text("a long token") + strings.Repeat("x", 8<<10)},
	} {
		require.Equal(t, http.StatusUnauthorized, p.ask(t, "/openapi.json", values...), values)
		require.Equal(t, http.StatusUnauthorized, p.ask(t, getCommand+"?encoding=json&message={}&connect=v1", values...), values)
	}
	require.NotEmpty(t, p.recorded(t, p.operator).audit(t))
	require.Empty(t, p.inFiles(t))
	p.requireNone(t)
}
