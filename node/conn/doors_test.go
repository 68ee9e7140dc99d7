package conn

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"tideline/node/hub"
	"tideline/shared/limit"
	"tideline/shared/token"
)

// streamFormats are those of HTTP streams that both sides speak.
var streamFormats = map[string]hub.Format{"http_stream": formatStreamJSON, "http_stream protobuf": formatStreamProtobuf, "sse": formatSSE}

// opened is a connected stream of a node.
func (n *node) opened(t *testing.T, f hub.Format) (*raw, *stream) {
	t.Helper()
	r := n.speaking(f).connect(t, token.Claims{User: "ann"})
	return r, r.ws.(*stream)
}

func TestChunks(t *testing.T) {
	for _, size := range []int{1, 9, 15, 16, 255, 256, 4095, 4096, 65535, 65536, limit.MessageBytes} {
		data := bytes.Repeat([]byte("x"), size)
		frame := chunk(func(b []byte) []byte { return append(b, data...) })
		got, err := io.ReadAll(httputil.NewChunkedReader(strings.NewReader(string(frame) + lastChunk)))
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes: %d came, %v", size, len(got), err)
		}
		if frame[0] == '0' {
			t.Errorf("%d bytes: chunk begins with %q", size, frame[:4])
		}
	}
}

// What JSON may hold between its tokens would end a line, or an event.
func TestLineBreaksInsideAMessage(t *testing.T) {
	n := startNode(t, startRedis(t).Addr(), "n1", nil)
	for name, f := range streamFormats {
		t.Run(name, func(t *testing.T) {
			n := n.speaking(f)
			ann := n.dial(t)
			ann.send(fmt.Sprintf(`{"id":1,"connect":{"token":%q}}`, n.token(t, token.Claims{User: "ann", Info: []byte("{\r\n\t\"name\": \"Ann\\n\"\n}")})))
			ann.want(`{"id":1,"connect":{}}`)
			ann.send(`{"id":2,"subscribe":{"channel":"chat:lines"}}`)
			ann.want(`{"id":2,"subscribe":{}}`)
			ann.send(`{"id":3,"presence":{"channel":"chat:lines"}}`)
			if got := ann.read(); !strings.Contains(got, `"Ann\n"`) {
				t.Errorf("presence %s", got)
			}
		})
	}
}

func TestHeadOfAStream(t *testing.T) {
	n := startNode(t, startRedis(t).Addr(), "n1", func(o *Options) { o.AllowedOrigins = []string{"https://app.example"} })
	for name, f := range streamFormats {
		t.Run(name, func(t *testing.T) {
			s := &stream{t: t, n: n, format: f}
			r := n.request(t, f, (&raw{t: t, format: f}).encode(`{"id":1,"connect":{}}`))
			r.Header.Set("Origin", "https://app.example")
			s.open(r)
			want := map[string]string{"Content-Type": "application/octet-stream", "X-Accel-Buffering": "no", "Vary": "Origin",
				"Cache-Control":               "private, no-cache, no-store, must-revalidate, max-age=0, no-transform",
				"Access-Control-Allow-Origin": "https://app.example", "Access-Control-Allow-Credentials": "true"}
			if f == formatSSE {
				want["Content-Type"] = "text/event-stream"
			}
			for k, v := range want {
				if got := s.head.Header.Get(k); got != v {
					t.Errorf("%s: %q, want %q", k, got, v)
				}
			}
			if len(s.head.TransferEncoding) != 1 || !s.head.Close || s.head.StatusCode != 200 {
				t.Errorf("%s, transfer encoding %v, close %v", s.head.Status, s.head.TransferEncoding, s.head.Close)
			}
			if line, err := s.next(); err != nil || !strings.Contains(line, `"code":101`) {
				t.Errorf("answer %s, %v", line, err)
			}
		})
	}
}

// exchange sends bytes over a connection of its own and reads the answer; the rest is what comes after its head.
func (n *node) exchange(t *testing.T, sent string) (*http.Response, []byte) {
	t.Helper()
	tcp, err := net.Dial("tcp", strings.TrimPrefix(n.base(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	if err := tcp.SetDeadline(time.Now().Add(2 * patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(tcp, sent); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(sent, " ")
	res, err := http.ReadResponse(bufio.NewReader(tcp), &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Errorf("the response breaks off after %q: %v", body, err)
	}
	return res, body
}

func TestRequestsThatGetNoStream(t *testing.T) {
	redis := startRedis(t)
	n := startNode(t, redis.Addr(), "n1", nil)
	hasty := startNode(t, redis.Addr(), "n2", func(o *Options) { o.HandshakeTimeout = 300 * time.Millisecond }) // for what doesn't come
	connect := `{"id":1,"connect":{}}`
	query := PathSSE + "?cf_connect=" + url.QueryEscape(connect)
	body := func(path, version string, n int, headers, data string) string {
		return fmt.Sprintf("POST %s HTTP/%s\r\nHost: node\r\nContent-Length: %d\r\n%s\r\n%s", path, version, n, headers, data)
	}
	get := func(path, headers string) string {
		return fmt.Sprintf("GET %s HTTP/1.1\r\nHost: node\r\nConnection: close\r\n%s\r\n", path, headers)
	}
	foreign := "Origin: https://evil.example\r\n"
	long := strings.Repeat(" ", limit.MessageBytes+1)
	for _, c := range []struct {
		name, sent string
		status     int
		says       string
	}{
		{"http_stream by GET", get(PathStream, ""), 405, "only POST"},
		{"sse by POST", body(PathSSE, "1.1", 0, "", ""), 405, "only GET"},
		{"emulation by GET", get(PathEmulation, ""), 405, "only POST"},
		{"no body", body(PathStream, "1.1", 0, "", ""), 400, "no connect command"},
		{"no query", get(PathSSE, ""), 400, "no connect command"},
		{"an empty query", get(PathSSE+"?cf_connect=", ""), 400, "no connect command"},
		{"a body past the limit", body(PathStream, "1.1", len(long), "", long), 413, "131072"},
		{"a body past the limit, not announced", "POST " + PathStream + " HTTP/1.1\r\nHost: node\r\nTransfer-Encoding: chunked\r\n\r\n" +
			string(chunk(func(b []byte) []byte { return append(b, long...) })) + lastChunk, 413, "131072"},
		{"emulation past the limit", body(PathEmulation, "1.1", len(long), "", long), 413, "131072"},
		{"a body that doesn't come", body(PathStream, "1.1", 2, "", "{"), 408, "did not come"},
		{"emulation that doesn't come", body(PathEmulation, "1.1", 2, "", "{"), 408, "did not come"},
		{"no UTF-8", body(PathStream, "1.1", 3, "", "{\"\xff"), 400, "UTF-8"},
		{"no UTF-8 in the query", get(PathSSE+"?cf_connect=%ff", ""), 400, "UTF-8"},
		{"HTTP/1.0", body(PathStream, "1.0", len(connect), "", connect), 505, "HTTP/1.1"},
		{"sse over HTTP/1.0", strings.Replace(get(query, ""), "1.1", "1.0", 1), 505, "HTTP/1.1"},
		{"somebody else's page", body(PathStream, "1.1", len(connect), foreign, connect), 403, "origin"},
		{"somebody else's page, sse", get(query, foreign), 403, "origin"},
		{"somebody else's page, emulation", body(PathEmulation, "1.1", 2, foreign, "{}"), 403, "origin"},
		{"somebody else's image", get(query, "Sec-Fetch-Site: cross-site\r\n"), 403, "origin"},
		{"a neighbour's image", get(query, "Sec-Fetch-Site: same-site\r\n"), 403, "origin"},
		{"somebody else's preflight", "OPTIONS " + PathStream + " HTTP/1.1\r\nHost: node\r\n" + foreign + "\r\n", 403, "origin"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := n
			if c.status == http.StatusRequestTimeout {
				n = hasty
			}
			res, said := n.exchange(t, c.sent)
			if res.StatusCode != c.status || !strings.Contains(string(said), c.says) {
				t.Errorf("%s: %s", res.Status, said)
			}
			if c.status == 405 && !strings.Contains(c.says, strings.Split(res.Header.Get("Allow"), ",")[0]) {
				t.Errorf("Allow: %s", res.Header.Get("Allow"))
			}
			if c.status == 403 && res.Header.Get("Access-Control-Allow-Origin") != "" {
				t.Error("a refused origin may read the answer")
			}
		})
	}
	n.wantNobody(t)
	hasty.wantNobody(t)
}

// wantNobody waits until the node has no connection, no session and no body.
func (n *node) wantNobody(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		n.mu.Lock()
		clients, sessions, pending := len(n.clients), len(n.sessions), n.pending
		n.mu.Unlock()
		if clients+sessions+pending == 0 && n.bodies.bytes.Load() == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d clients, %d sessions, %d not connected, %d bytes of bodies are left", clients, sessions, pending, n.bodies.bytes.Load())
		}
	}
}

func TestPreflight(t *testing.T) {
	n := startNode(t, startRedis(t).Addr(), "n1", func(o *Options) { o.AllowedOrigins = []string{"https://app.example"} })
	for path, method := range map[string]string{PathStream: "POST", PathEmulation: "POST", PathSSE: "GET"} {
		res, _ := n.exchange(t, "OPTIONS "+path+" HTTP/1.1\r\nHost: node\r\nOrigin: https://app.example\r\nAccess-Control-Request-Method: "+method+
			"\r\nAccess-Control-Request-Headers: content-type\r\nConnection: close\r\n\r\n")
		h := res.Header
		if res.StatusCode != 204 || h.Get("Access-Control-Allow-Origin") != "https://app.example" || h.Get("Access-Control-Allow-Methods") != method ||
			!strings.Contains(h.Get("Access-Control-Allow-Headers"), "Content-Type") || h.Get("Access-Control-Allow-Credentials") != "true" {
			t.Errorf("%s: %s %v", path, res.Status, h)
		}
	}
}

// What the first commands are worth is found on the stream: the goodbye is its last push, and then it ends.
func TestGarbageInTheFirstCommands(t *testing.T) {
	n := startNode(t, startRedis(t).Addr(), "n1", nil)
	for _, c := range []struct {
		name  string
		f     hub.Format
		first string
	}{
		{"no JSON", formatStreamJSON, "hello"},
		{"an array", formatStreamJSON, "[]"},
		{"a pong", formatStreamJSON, "{}"},
		{"no JSON, sse", formatSSE, "hello"},
		{"an event that breaks off", formatSSE, `{"id":1,"connect":{`},
		{"no Protobuf", formatStreamProtobuf, "\x02\xff\xff"},
		{"JSON for Protobuf", formatStreamProtobuf, `{"id":1,"connect":{}}`},
		{"a length that breaks off", formatStreamProtobuf, "\x80"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &stream{t: t, n: n, format: c.f}
			if err := s.WriteMessage(0, []byte(c.first)); err != nil {
				t.Fatal(err)
			}
			(&raw{t: t, ws: s, format: c.f}).wantClose(3501)
		})
	}
	n.wantNobody(t)
}

func TestALongestFirstMessageIsTaken(t *testing.T) {
	n := startNode(t, startRedis(t).Addr(), "n1", nil)
	connect := `{"id":1,"connect":{}}`
	s := &stream{t: t, n: n, format: formatStreamJSON}
	if err := s.WriteMessage(0, []byte(connect+strings.Repeat(" ", limit.MessageBytes-len(connect)))); err != nil {
		t.Fatal(err)
	}
	if line, err := s.next(); err != nil || !strings.Contains(line, `"code":101`) {
		t.Errorf("%s, %v", line, err)
	}
}

// A request for a stream is the last thing that a connection carries: a pipelined one, or anything else, ends it.
func TestBytesAfterTheRequest(t *testing.T) {
	n := startNode(t, startRedis(t).Addr(), "n1", nil)
	for name, together := range map[string]bool{"in one piece": true, "later": false} {
		t.Run(name, func(t *testing.T) {
			r, s := n.opened(t, formatStreamJSON)
			if together {
				var b bytes.Buffer
				req := n.request(t, formatStreamJSON, []byte(fmt.Sprintf(`{"id":1,"connect":{"token":%q}}`, n.token(t, token.Claims{User: "ann"}))))
				if err := req.Write(&b); err != nil {
					t.Fatal(err)
				}
				b.WriteString("GET / HTTP/1.1\r\nHost: node\r\n\r\n")
				res, said := n.exchange(t, b.String())
				if res.StatusCode != 200 || !strings.Contains(string(said), `"code":3501`) {
					t.Errorf("%s: %s", res.Status, said)
				}
				return
			}
			if _, err := io.WriteString(s.tcp, "GET / HTTP/1.1\r\nHost: node\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			r.wantClose(3501)
		})
	}
}

// A stream whose reader goes away, in whichever way, leaves nothing behind.
func TestAStreamThatIsLeft(t *testing.T) {
	n := startNode(t, startRedis(t).Addr(), "n1", nil)
	for name, leave := range map[string]func(*net.TCPConn) error{
		"closed": (*net.TCPConn).Close,
		"reset":  func(c *net.TCPConn) error { return errors.Join(c.SetLinger(0), c.Close()) },
		"half":   (*net.TCPConn).CloseWrite,
	} {
		for format, f := range streamFormats {
			t.Run(name+" "+format, func(t *testing.T) {
				_, s := n.opened(t, f)
				if err := leave(s.tcp.(*net.TCPConn)); err != nil {
					t.Fatal(err)
				}
				n.wantNobody(t)
				if status := s.post((&raw{t: t, format: f}).encode(`{"id":2,"rpc":{"method":"time"}}`)); status != 404 {
					t.Errorf("commands for it: %d", status)
				}
			})
		}
	}
}

func TestADrainingNodeEndsStreams(t *testing.T) {
	n := startNode(t, startRedis(t).Addr(), "n1", nil)
	var all []*raw
	for _, f := range streamFormats {
		r, _ := n.opened(t, f)
		all = append(all, r)
	}
	if err := n.Drain(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	for _, r := range all {
		r.wantClose(3001)
	}
	n.wantNobody(t)
	if res, said := n.exchange(t, "GET "+PathSSE+"?cf_connect=x HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n"); res.StatusCode != 503 || res.Header.Get("Retry-After") != "1" {
		t.Errorf("%s: %s", res.Status, said)
	}
}

// A server that can't give its connection away, as over HTTP/2, is told apart from a fault.
func TestAConnectionThatCannotBeTakenOver(t *testing.T) {
	n := startNode(t, startRedis(t).Addr(), "n1", nil)
	w := httptest.NewRecorder()
	n.serveStream(noHijack{w}, httptest.NewRequest(http.MethodPost, PathStream, strings.NewReader(`{"id":1,"connect":{}}`)))
	if w.Code != http.StatusHTTPVersionNotSupported {
		t.Errorf("a connection that can't be had: %d", w.Code)
	}
	second := httptest.NewRequest(http.MethodPost, PathStream, strings.NewReader("{}"))
	second.ProtoMajor, second.ProtoMinor = 2, 0
	w = httptest.NewRecorder()
	n.serveStream(noHijack{w}, second)
	if w.Code != http.StatusHTTPVersionNotSupported {
		t.Errorf("HTTP/2: %d", w.Code)
	}
	n.wantNobody(t)
}

type noHijack struct{ *httptest.ResponseRecorder }

func (noHijack) SetReadDeadline(time.Time) error { return nil }

var _ messages = (*websocket.Conn)(nil)
