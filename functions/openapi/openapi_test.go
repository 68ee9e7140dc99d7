package openapi_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"tideline/functions/openapi"
	"tideline/functions/openapi/gen/document"
)

func TestTheDocumentIsCurrent(t *testing.T) {
	want, err := document.Make()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(openapi.Document(), want) {
		t.Error("functions/openapi/openapi.json is not what the handlers say: go generate ./functions/openapi")
	}
	page, err := document.Page(want)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(get(t, openapi.DocsPath).Body.Bytes(), page) {
		t.Error("functions/openapi/docs.html is not what the document says: go generate ./functions/openapi")
	}
}

func get(t *testing.T, path string) *httptest.ResponseRecorder {
	t.Helper()
	rec := httptest.NewRecorder()
	openapi.Handler().ServeHTTP(rec, httptest.NewRequest(http.MethodGet, path, nil))
	if rec.Code != 200 {
		t.Fatalf("%s: %d", path, rec.Code)
	}
	return rec
}

func TestThePageShowsEveryOperationAndLinksNowhereElse(t *testing.T) {
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]struct{ OperationID string }
	}
	if err := json.Unmarshal(get(t, openapi.DocumentPath).Body.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.1") || len(doc.Paths) < 8 {
		t.Fatalf("OpenAPI %s with %d paths", doc.OpenAPI, len(doc.Paths))
	}
	rec := get(t, openapi.DocsPath)
	page := rec.Body.String()
	ids := map[string]bool{}
	for _, m := range regexp.MustCompile(` id="([^"]+)"`).FindAllStringSubmatch(page, -1) {
		if ids[m[1]] {
			t.Errorf("the id %s is there twice", m[1])
		}
		ids[m[1]] = true
	}
	for path, methods := range doc.Paths {
		for method, op := range methods {
			if !ids[op.OperationID] {
				t.Errorf("%s %s is not on the page", method, path)
			}
		}
	}
	for _, m := range regexp.MustCompile(`(?:href|src)="([^"]+)"`).FindAllStringSubmatch(page, -1) {
		if anchor, ok := strings.CutPrefix(m[1], "#"); ok && !ids[anchor] {
			t.Errorf("a link to %s leads nowhere", m[1])
		} else if !ok && m[1] != openapi.DocumentPath && m[1] != openapi.StylePath {
			t.Errorf("the page refers to %s", m[1])
		}
	}
	if strings.Contains(page, "<script") || strings.Contains(page, "style=") {
		t.Error("the page has a script or a style of its own")
	}
	if csp := rec.Header().Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") {
		t.Errorf("policy %q", csp)
	}
	get(t, openapi.StylePath)
}
