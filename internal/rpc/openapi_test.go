package rpc

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

// The controller serves its OpenAPI document, with an ETag.
func TestOpenAPI(t *testing.T) {
	t.Parallel()
	at := "http://" + serve(t, NewHandler(config(&fakeAgents{}))) + "/openapi.json"
	for name, version := range httpVersions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := client(t, version)
			got := do(t, c, "GET", at, "")
			require.Equal(t, 200, got.status)
			require.Equal(t, "application/json", got.header.Get("Content-Type"))
			require.Equal(t, "nosniff", got.header.Get("X-Content-Type-Options"))
			require.Equal(t, "no-cache", got.header.Get("Cache-Control"))
			var document struct {
				OpenAPI string         `json:"openapi"`
				Paths   map[string]any `json:"paths"`
			}
			require.NoError(t, json.Unmarshal([]byte(got.body), &document))
			require.Equal(t, "3.1.0", document.OpenAPI)
			require.Contains(t, document.Paths, "/migcontroller.v1.AdminService/SendCommand")

			tag := got.header.Get("ETag")
			require.NotEmpty(t, tag)
			again := do(t, c, "GET", at, "", "If-None-Match", tag)
			require.Equal(t, 304, again.status)
			require.Empty(t, again.body)
			require.Equal(t, 200, do(t, c, "GET", at, "", "If-None-Match", `"another"`).status)

			head := do(t, c, "HEAD", at, "")
			require.Equal(t, 200, head.status)
			require.Empty(t, head.body)
			require.Equal(t, tag, head.header.Get("ETag"))

			refused := do(t, c, "POST", at, "")
			require.Equal(t, 405, refused.status)
			require.Equal(t, "GET, HEAD", refused.header.Get("Allow"))
			requireError(t, refused)
		})
	}
}
