package main

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"testing"

	"tideline/test/fleet"
)

func TestMain(m *testing.M) {
	code := m.Run()
	fleet.RemoveBinaries()
	os.Exit(code)
}

// system is make run, on a free port, and a proxy before it that a test may spoil.
func system(t *testing.T, nodes string, spoil func(w http.ResponseWriter, r *http.Request) (handled bool)) string {
	t.Helper()
	p := fleet.Run(t, "local", fleet.Binary(t, "local"), []string{"PORT=127.0.0.1:0", "NODES=" + nodes, "DATA_DIR=" + t.TempDir()})
	origin := p.Await(`^ready (http://\S+)`)[1]
	if spoil == nil {
		return origin
	}
	to, err := url.Parse(origin)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(to)
		if r.Out.Header.Get("Origin") != "" { // as if the system stood here
			r.Out.Header.Set("Origin", origin)
		}
	}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !spoil(w, r) {
			proxy.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func TestVerifyPassesASystemThatWorks(t *testing.T) {
	out, err := command(t, "verify", system(t, "2", nil))
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, what := range []string{"page", "affinity cookie", "private endpoints", "session", "todo", "socket", "second socket", "chat", "recovery"} {
		if !strings.Contains(out, "ok  "+what) {
			t.Errorf("no %q in\n%s", what, out)
		}
	}
}

func TestVerifyNamesWhatIsBroken(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(w http.ResponseWriter, r *http.Request) bool
		want  string
	}{
		"metrics in the open": {func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != "/metrics" {
				return false
			}
			_, _ = w.Write([]byte("websocket_connections_active 3\n"))
			return true
		}, "no  private endpoints      open to the world: /metrics"},
		"writes that are not announced": {func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodPost || r.URL.Path != "/api/todos" {
				return false
			}
			w.WriteHeader(http.StatusCreated)
			_, _ = w.Write([]byte(`{"id":"lost"}`))
			return true
		}, "no  todo                   was written, but todo.created: not heard"},
		"no sockets": {func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasPrefix(r.URL.Path, "/connection/") {
				return false
			}
			w.WriteHeader(http.StatusBadGateway)
			return true
		}, "no  todo "},
		"a page from elsewhere": {func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != "/" {
				return false
			}
			w.Header().Set("Content-Type", "text/html")
			_, _ = w.Write([]byte("hello"))
			return true
		}, "no  page                   did not come from a node"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, err := command(t, "verify", system(t, "2", c.spoil))
			if err == nil || !strings.Contains(out, c.want) {
				t.Errorf("%v, want %q in\n%s", err, c.want, out)
			}
		})
	}
}

func TestVerifyWantsASecondNode(t *testing.T) {
	out, err := command(t, "verify", system(t, "1", nil))
	if err == nil || !strings.Contains(out, "no  second socket") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestVerifySaysThatNobodyAnswers(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	if out, err := command(t, "verify", server.URL); err == nil || !strings.Contains(out, "no  page") {
		t.Errorf("%v\n%s", err, out)
	}
}
