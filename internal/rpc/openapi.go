package rpc

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"net/http"
	"time"
)

// openAPI describes the services for operators and the agents' routes for tools. Package
// apidoc generates it.
//
//go:embed openapi.json
var openAPI []byte

// serveOpenAPI returns the handler of the OpenAPI document, which supports conditional
// requests by ETag.
func serveOpenAPI() http.HandlerFunc {
	sum := sha256.Sum256(openAPI)
	tag := `"` + hex.EncodeToString(sum[:8]) + `"`
	return func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Type", contentJSON)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-cache")
		h.Set("ETag", tag)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(openAPI))
	}
}
