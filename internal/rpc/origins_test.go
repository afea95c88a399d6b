package rpc

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

// Pages of an allowed origin may call the controller, and no others.
func TestAllowOrigins(t *testing.T) {
	t.Parallel()
	const own, other = "https://ci.example.com", "https://elsewhere.example.com"
	reached := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	ask := func(origins []string, method, from string) *httptest.ResponseRecorder {
		r := httptest.NewRequestWithContext(t.Context(), method, "/migcontroller.v1.AdminService/ListVMs", nil)
		r.Header.Set("Origin", from)
		r.Header.Set("Access-Control-Request-Method", http.MethodPost)
		r.Header.Set("Access-Control-Request-Headers", "authorization,connect-protocol-version,content-type")
		w := httptest.NewRecorder()
		AllowOrigins(reached, origins).ServeHTTP(w, r)
		return w
	}
	const allowed = "Access-Control-Allow-Origin"
	for _, method := range []string{http.MethodOptions, http.MethodPost} {
		require.Equal(t, own, ask([]string{own}, method, own).Header().Get(allowed), method)
		require.Empty(t, ask([]string{own}, method, other).Header().Get(allowed), method)
		require.Empty(t, ask(nil, method, own).Header().Get(allowed), method)
	}
	preflight := ask([]string{own}, http.MethodOptions, own)
	require.Equal(t, http.StatusNoContent, preflight.Code)
	require.NotEmpty(t, preflight.Header().Get("Access-Control-Allow-Headers"))
	require.Equal(t, "3600", preflight.Header().Get("Access-Control-Max-Age"))
	require.Contains(t, ask([]string{own}, http.MethodPost, own).Header().Get("Access-Control-Expose-Headers"), "Grpc-Status")
}
