package page

import (
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"
)

var script = strings.Repeat("console.log('tideline')\n", 100)

func handler(t *testing.T, scheme string) *Handler {
	t.Helper()
	h, err := newHandler(fstest.MapFS{
		".gitkeep":              {},
		"index.html":            {Data: []byte("<!doctype html><title>built</title>")},
		"assets/app-1a2b.js":    {Data: []byte(script)},
		"assets/lib-3c4d.js":    {Data: []byte(script)},
		"assets/lib-3c4d.js.br": {Data: []byte("brotli bytes")},
		"icon.png":              {Data: []byte("png")},
	}, scheme, nil)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func get(h http.Handler, method, path string, header ...string) *http.Response {
	r := httptest.NewRequest(method, path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func TestServes(t *testing.T) {
	h := handler(t, "http")
	for _, c := range []struct {
		name, method, path, accept                 string
		status                                     int
		cache, encoding, contentType, bodyContains string
	}{
		{"index is never cached unasked", "GET", "/", "gzip", 200, "no-cache", "", "text/html; charset=utf-8", "built"},
		{"index by name", "GET", "/index.html", "", 200, "no-cache", "", "text/html; charset=utf-8", "built"},
		{"hashed asset is cached for good", "GET", "/assets/app-1a2b.js", "", 200, "public, max-age=31536000, immutable", "", "text/javascript; charset=utf-8", "tideline"},
		{"gzip when accepted", "GET", "/assets/app-1a2b.js", "deflate, gzip;q=0.5", 200, "public, max-age=31536000, immutable", "gzip", "text/javascript; charset=utf-8", ""},
		{"no gzip when refused", "GET", "/assets/app-1a2b.js", "gzip;q=0", 200, "public, max-age=31536000, immutable", "", "text/javascript; charset=utf-8", "tideline"},
		{"brotli first", "GET", "/assets/lib-3c4d.js", "gzip, br", 200, "public, max-age=31536000, immutable", "br", "text/javascript; charset=utf-8", "brotli bytes"},
		{"brotli only when accepted", "GET", "/assets/lib-3c4d.js", "gzip", 200, "public, max-age=31536000, immutable", "gzip", "text/javascript; charset=utf-8", ""},
		{"the copies are not files", "GET", "/assets/lib-3c4d.js.br", "", 404, "no-store", "", "text/plain; charset=utf-8", "not found"},
		{"hidden files are not served", "GET", "/.gitkeep", "", 404, "no-store", "", "text/plain; charset=utf-8", "not found"},
		{"a missing asset is not remembered", "GET", "/assets/old.js", "", 404, "no-store", "", "text/plain; charset=utf-8", "not found"},
		{"only reading", "POST", "/", "", 405, "", "", "text/plain; charset=utf-8", "not allowed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			res := get(h, c.method, c.path, "Accept-Encoding", c.accept)
			body, _ := io.ReadAll(res.Body)
			if res.StatusCode != c.status || res.Header.Get("Cache-Control") != c.cache || res.Header.Get("Content-Encoding") != c.encoding ||
				res.Header.Get("Content-Type") != c.contentType || !strings.Contains(string(body), c.bodyContains) {
				t.Errorf("%d %v %.60q", res.StatusCode, res.Header, body)
			}
		})
	}
}

func TestGzipUnpacksToTheFile(t *testing.T) {
	res := get(handler(t, "http"), "GET", "/assets/app-1a2b.js", "Accept-Encoding", "gzip")
	z, err := gzip.NewReader(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(z); err != nil || string(body) != script {
		t.Errorf("%v, %d bytes", err, len(body))
	}
	if res.Header.Get("Vary") != "Accept-Encoding" {
		t.Error("a cache could hand gzip to a client that can't read it")
	}
}

func TestNotModifiedPerEncoding(t *testing.T) {
	h := handler(t, "http")
	plain := get(h, "GET", "/assets/app-1a2b.js").Header.Get("ETag")
	zipped := get(h, "GET", "/assets/app-1a2b.js", "Accept-Encoding", "gzip").Header.Get("ETag")
	if plain == "" || plain == zipped {
		t.Fatalf("tags %q and %q", plain, zipped)
	}
	for _, c := range []struct {
		tag, accept string
		status      int
	}{{plain, "", 304}, {"W/" + plain, "", 304}, {zipped, "gzip", 304}, {zipped, "", 200}, {`"other", ` + plain, "", 304}, {`"other"`, "", 200}} {
		if res := get(h, "GET", "/assets/app-1a2b.js", "If-None-Match", c.tag, "Accept-Encoding", c.accept); res.StatusCode != c.status {
			t.Errorf("If-None-Match %s, Accept-Encoding %q: %d, want %d", c.tag, c.accept, res.StatusCode, c.status)
		}
	}
}

func TestSecurityHeaders(t *testing.T) {
	for _, path := range []string{"/", "/assets/app-1a2b.js", "/missing"} {
		res := get(handler(t, "https"), "GET", path)
		csp := res.Header.Get("Content-Security-Policy")
		if !strings.Contains(csp, "default-src 'self'") || strings.Contains(csp, "unsafe") || !strings.Contains(csp, "frame-ancestors 'none'") {
			t.Errorf("%s: policy %q", path, csp)
		}
		if res.Header.Get("X-Content-Type-Options") != "nosniff" || res.Header.Get("Strict-Transport-Security") == "" {
			t.Errorf("%s: %v", path, res.Header)
		}
	}
	if get(handler(t, "http"), "GET", "/").Header.Get("Strict-Transport-Security") != "" {
		t.Error("HSTS on plain http would lock people out of localhost")
	}
}

func TestHeadHasNoBody(t *testing.T) {
	res := get(handler(t, "http"), "HEAD", "/assets/app-1a2b.js")
	if body, _ := io.ReadAll(res.Body); len(body) != 0 || res.Header.Get("Content-Length") != "2400" {
		t.Errorf("%d bytes, Content-Length %s", len(body), res.Header.Get("Content-Length"))
	}
}

func TestPlaceholderSaysWhatToDo(t *testing.T) {
	h, err := newHandler(fstest.MapFS{".gitkeep": {}}, "http", nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, _ := io.ReadAll(get(h, "GET", "/").Body); !strings.Contains(string(body), "make page") {
		t.Errorf("%q", body)
	}
}

func TestEmbeddedPageLoads(t *testing.T) {
	h, err := New("http", nil)
	if err != nil {
		t.Fatal(err)
	}
	if res := get(h, "GET", "/"); res.StatusCode != 200 {
		t.Errorf("status %d", res.StatusCode)
	}
}

func TestThePolicyNamesTheOriginsThatThePageMayAsk(t *testing.T) {
	h, err := newHandler(fstest.MapFS{}, "https", []string{"https://files.example"})
	if err != nil {
		t.Fatal(err)
	}
	if csp := get(h, "GET", "/").Header.Get("Content-Security-Policy"); !strings.HasSuffix(csp, "; connect-src 'self' https://files.example") {
		t.Errorf("policy %q", csp)
	}
}
