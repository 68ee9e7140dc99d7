package session_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"tideline/functions/session"
)

// No input makes a 5xx, whatever comes as method, path, header, cookie or body.
func FuzzNoServerError(f *testing.F) {
	for _, path := range []string{"/api/session", "/api/session/token", "/api/session/link", session.LinkPath + "X"} {
		for _, method := range []string{"GET", "POST", "DELETE", "HEAD"} {
			f.Add(method, path, "tideline_session=x", `{"idToken":"a.b.c"}`, "application/json")
		}
	}
	f.Add("POST", "/api/session/link/%2e%2e", "tideline_session=\"", "\xff", "text/plain")
	service := newWorld(f, nil)
	f.Fuzz(func(t *testing.T, method, path, cookie, body, contentType string) {
		r, err := http.NewRequestWithContext(t.Context(), method, "http://x.example/", strings.NewReader(body))
		if err != nil || !strings.HasPrefix(path, "/") {
			t.Skip()
		}
		u, err := r.URL.Parse(path)
		if err != nil || u.Host != "x.example" {
			t.Skip()
		}
		r.URL = u
		r.Header = http.Header{"Cookie": {cookie}, "Content-Type": {contentType}, "Accept": {contentType}, "X-Request-Id": {cookie}, "User-Agent": {body}}
		w := httptest.NewRecorder()
		service.ServeHTTP(w, r)
		if w.Code >= 500 {
			t.Errorf("%s %q: %d %s", method, path, w.Code, w.Body)
		}
		if w.Code >= 400 && w.Header().Get("Content-Type") != "application/problem+json" && !strings.Contains(contentType, "text/html") {
			t.Errorf("%s %q: %d as %q", method, path, w.Code, w.Header().Get("Content-Type"))
		}
	})
}
