// Package openapi serves the OpenAPI 3.1 document of all functions, and a page to read it in.
//
// The document is generated from the handlers (go generate ./functions/openapi) and checked in; a test holds it to them. The page is HTML made at the
// same time, without a script of anybody's, so that it needs no exception in the content security policy.
package openapi

import (
	"bytes"
	_ "embed"
	"net/http"
	"time"
)

//go:generate go run ./gen .

//go:embed openapi.json
var document []byte

//go:embed docs.html
var page []byte

//go:embed docs.css
var style []byte

// Paths that Handler serves.
const (
	DocumentPath = "/api/openapi.json"
	DocsPath     = "/api/docs"
	StylePath    = "/api/docs/style.css"
)

// Document is the document, as checked in.
func Document() []byte { return bytes.Clone(document) }

// Handler serves the document, the page and its style sheet, to GET and HEAD.
func Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET "+DocumentPath, static("application/json", document))
	mux.Handle("GET "+StylePath, static("text/css; charset=utf-8", style))
	mux.Handle("GET "+DocsPath, static("text/html; charset=utf-8", page))
	return mux
}

func static(contentType string, content []byte) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Type", contentType)
		h.Set("Cache-Control", "no-cache")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	})
}
