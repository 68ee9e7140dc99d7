package sdk

import (
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tideline/test/fleet"
)

// startUnsticky runs nodes behind a load balancer that knows no cookies: a stream and the commands for it land on different nodes.
func startUnsticky(t *testing.T, n int) (f *fleet.Fleet, address string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "channels.json")
	if err := os.WriteFile(file, []byte(namespaces), 0o600); err != nil {
		t.Fatal(err)
	}
	f = fleet.Start(t, fleet.Options{Nodes: n, Unsticky: true, NodeEnv: []string{"CHANNELS_FILE=" + file}})
	return f, strings.Replace(f.URL, "http", "ws", 1) + "/connection/websocket"
}

// Everything that the client from npm is tried with over a WebSocket, over HTTP.
func TestJavaScriptOverStreams(t *testing.T) {
	for _, transport := range []string{"http_stream", "sse"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			_, url := startUnsticky(t, 2)
			playAll(t, url, "TRANSPORT="+transport)
		})
	}
}

// The scene of TestStrangers over HTTP: the client's commands land on whichever node, its own is killed, it recovers. Then its way to a WebSocket is
// blocked, as by the proxies of some companies, and it takes another by itself.
func TestStreams(t *testing.T) {
	cases := []struct {
		name, format, transports, connected string
		blocked                             func(*http.Request) int // the status that the proxy in between answers with; 0 lets pass
	}{
		{"http_stream", "json", "http_stream", "http_stream", nil},
		{"http_stream", "protobuf", "http_stream", "http_stream", nil},
		{"sse", "json", "sse", "sse", nil},
		{"no-websocket", "json", "websocket,http_stream,sse", "http_stream", func(r *http.Request) int {
			if r.Header.Get("Upgrade") != "" {
				return http.StatusForbidden
			}
			return 0
		}},
		{"gets-only", "json", "websocket,http_stream,sse", "sse", func(r *http.Request) int {
			if r.Header.Get("Upgrade") != "" || strings.HasSuffix(r.URL.Path, "http_stream") {
				return http.StatusMethodNotAllowed
			}
			return 0
		}},
	}
	f, address := startUnsticky(t, len(cases)+2)
	apart := door{url: strings.Replace(f.StartNode().URL, "http", "ws", 1) + "/connection/websocket"}
	for _, c := range cases {
		t.Run(c.name+" "+c.format, func(t *testing.T) {
			noticed(t, f)
			to := address
			if c.blocked != nil {
				to = blocking(t, f.URL, c.blocked)
			}
			s := stranger{name: c.name, protobuf: c.format == "protobuf", command: func(t *testing.T) (string, []string) {
				node, _ := npm(t)
				return "env", []string{"NAME=" + c.name, "TRANSPORTS=" + c.transports, node, "strangers/streams.mjs"}
			}}
			said := s.play(t, f, to, c.format, apart)
			for _, line := range []string{"connected " + c.connected, "calls 40", "lost 0"} {
				if !strings.Contains(said, line+"\n") {
					t.Errorf("it has not said %q", line)
				}
			}
			if n := strings.Count(said, "\nconnected "+c.connected+"\n") + 1; n < 2 {
				t.Errorf("connected %d times, want again after its node was killed", n)
			}
		})
	}
}

// noticed waits until the load balancer sends nothing to the node that was killed last: until then every command for a stream that lands there ends
// the stream.
func noticed(t *testing.T, f *fleet.Fleet) {
	t.Helper()
	fleet.Poll(t, "the load balancer knows who is gone", func() error {
		for range 3 * len(f.Nodes) {
			res, err := fleet.Client(nil).Get(f.URL + "/favicon.ico")
			if err != nil {
				return err
			}
			res.Body.Close()
			if res.StatusCode >= 500 {
				return errors.New(res.Status)
			}
		}
		return nil
	})
}

// blocking is a proxy in front of the load balancer, and answers its address as that of a WebSocket.
func blocking(t *testing.T, target string, status func(*http.Request) int) string {
	t.Helper()
	to, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(to); p.Out.Host = p.In.Host }, FlushInterval: -1,
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if code := status(r); code != 0 {
			http.Error(w, "blocked", code)
			return
		}
		_ = http.NewResponseController(w).EnableFullDuplex() // as local/balancer says
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return strings.Replace(s.URL, "http", "ws", 1) + "/connection/websocket"
}
