package browser

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"tideline/shared/token"
	"tideline/test/fleet"
	"tideline/test/redistest"
)

// blocked is a page of its own, with the public client beside it, in front of a proxy that lets only some requests pass.
func blocked(t *testing.T, target *atomic.Pointer[url.URL], refuses func(*http.Request) bool) *httptest.Server {
	t.Helper()
	proxy := &httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(target.Load()); p.Out.Host = p.In.Host }, FlushInterval: -1,
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /blank.html", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte(`<!doctype html><html lang="en"><link rel="icon" href="data:,"><title>blank</title></html>`))
	})
	mux.HandleFunc("GET /sdk.js", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFile(w, r, "../node_modules/centrifuge/dist/centrifuge.js")
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if refuses(r) {
			http.Error(w, "blocked", http.StatusForbidden)
			return
		}
		_ = http.NewResponseController(w).EnableFullDuplex() // as local/balancer says
		proxy.ServeHTTP(w, r)
	})
	s := httptest.NewServer(mux)
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return s
}

func TestTransports(t *testing.T) {
	needBrowser(t)
	t.Parallel()
	var target atomic.Pointer[url.URL]
	upgrade := func(r *http.Request) bool { return r.Header.Get("Upgrade") != "" }
	noSocket := blocked(t, &target, upgrade)
	getsOnly := blocked(t, &target, func(r *http.Request) bool { return upgrade(r) || strings.HasSuffix(r.URL.Path, "/http_stream") })
	elsewhere := blocked(t, &target, func(*http.Request) bool { return true })
	cable := redistest.StartProxy(t, strings.TrimPrefix(noSocket.URL, "http://"))
	origins := strings.Join([]string{noSocket.URL, getsOnly.URL, elsewhere.URL}, ",")
	f := fleet.Start(t, fleet.Options{Nodes: 3, Unsticky: true, NodeEnv: []string{"ALLOWED_ORIGINS=" + origins}})
	to, err := url.Parse(f.URL)
	if err != nil {
		t.Fatal(err)
	}
	target.Store(to)
	secrets, err := token.NewSecrets([]string{fleet.Secret}, nil)
	if err != nil {
		t.Fatal(err)
	}
	pass, err := secrets.Sign(token.Claims{User: "ann", Expires: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	play(t, "transports", f.URL, verbs{
		"kill":  func(id string) string { f.Node(id).Kill(); return "" },
		"again": func(id string) string { startAgain(t, f, id); return "" },
		"cut":   func(string) string { cable.Refuse(true); cable.Cut(); return "" },
		"mend":  func(string) string { cable.Refuse(false); return "" },
	}, "TOKEN="+pass, "NO_WEBSOCKET="+noSocket.URL, "GETS_ONLY="+getsOnly.URL, "ELSEWHERE="+elsewhere.URL, "CABLE=http://"+cable.Addr())
}
