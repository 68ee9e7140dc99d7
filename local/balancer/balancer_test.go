package balancer

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"tideline/test/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

// node is a stand-in target: it names itself, shows what it was sent, echoes lines over an upgraded connection, and can be ill.
type node struct {
	*httptest.Server
	name  string
	ready atomic.Bool
}

func newNode(t *testing.T, name string) *node {
	n := &node{name: name}
	n.ready.Store(true)
	mux := http.NewServeMux()
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !n.ready.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("/connection/websocket", n.echo)
	mux.HandleFunc("/connection/sink", n.sink)
	mux.HandleFunc("POST /connection/http_stream", n.stream)
	mux.HandleFunc("/silent", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("/headers", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "Host: %s\n", r.Host)
		r.Header.Write(w)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, n.name) })
	n.Server = httptest.NewServer(mux)
	t.Cleanup(n.Close)
	return n
}

func (n *node) echo(w http.ResponseWriter, _ *http.Request) {
	n.upgrade(w, func(conn net.Conn, r io.Reader) { io.Copy(conn, r) })
}

// stream answers a request with its body as the first chunk of a response that goes on until the visitor leaves.
func (n *node) stream(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n%x\r\n%s\r\n", len(body), body)
	io.Copy(io.Discard, conn)
}

// sink only listens, and says so at the end.
func (n *node) sink(w http.ResponseWriter, _ *http.Request) {
	n.upgrade(w, func(conn net.Conn, r io.Reader) {
		for s := bufio.NewScanner(r); s.Scan() && s.Text() != "end"; {
		}
		fmt.Fprintln(conn, "heard")
	})
}

func (n *node) upgrade(w http.ResponseWriter, talk func(net.Conn, io.Reader)) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Node: %s\r\n\r\n", n.name)
	talk(conn, rw)
}

func (n *node) target(t *testing.T) Target {
	u, err := url.Parse(n.URL)
	if err != nil {
		t.Fatal(err)
	}
	return Target{Name: n.name, URL: u, Health: u.JoinPath("readyz")}
}

// start runs a balancer over the nodes and waits until all are healthy.
func start(t *testing.T, o Options, nodes ...*node) (*Balancer, string) {
	t.Helper()
	for _, n := range nodes {
		o.Targets = append(o.Targets, n.target(t))
	}
	if o.HealthEvery == 0 {
		o.HealthEvery = 10 * time.Millisecond
	}
	o.Log = slog.New(slog.DiscardHandler)
	b, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); b.Run(ctx) }()
	front := httptest.NewServer(b)
	t.Cleanup(func() {
		front.CloseClientConnections()
		front.Close()
		cancel()
		<-done
	})
	await(t, "all targets healthy", b.Ready)
	return b, front.URL
}

// patience is how long a test waits for what must happen. It normally takes milliseconds, but the machine may stand still for some seconds.
const patience = 30 * time.Second

func await(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// get answers status, body and the balancer's cookie; cookie is sent when not nil.
func get(t *testing.T, url string, cookie *http.Cookie) (int, string, *http.Cookie) {
	t.Helper()
	res, body := do(t, url, cookie)
	for _, c := range res.Cookies() {
		if c.Name == CookieName {
			return res.StatusCode, body, c
		}
	}
	return res.StatusCode, body, nil
}

func do(t *testing.T, url string, cookie *http.Cookie, header ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequest("GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	if cookie != nil {
		r.AddCookie(cookie)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	return res, string(body)
}

// dial opens a socket through the balancer and answers the node that holds it.
func dial(t *testing.T, front string, cookie *http.Cookie) (net.Conn, *bufio.Reader, string) {
	t.Helper()
	return dialPath(t, front, "/connection/websocket", cookie)
}

func dialPath(t *testing.T, front, path string, cookie *http.Cookie) (net.Conn, *bufio.Reader, string) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(front, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(2 * patience))
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n", path)
	if cookie != nil {
		fmt.Fprintf(conn, "Cookie: %s=%s\r\n", cookie.Name, cookie.Value)
	}
	fmt.Fprint(conn, "\r\n")
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != 101 {
		t.Fatalf("upgrade: %v %v", res, err)
	}
	return conn, r, res.Header.Get("X-Node")
}

func TestNewVisitorsTakeTurnsAndCookiesStay(t *testing.T) {
	_, front := start(t, Options{Sticky: true}, newNode(t, "a"), newNode(t, "b"))
	_, first, cookie := get(t, front, nil)
	_, second, other := get(t, front, nil)
	if first == second {
		t.Fatalf("two visitors met %s", first)
	}
	for range 5 {
		if _, body, renewed := get(t, front, cookie); body != first || renewed == nil || renewed.Value != cookie.Value {
			t.Errorf("the first visitor met %s, cookie %v", body, renewed)
		}
		if _, body, _ := get(t, front, other); body != second {
			t.Errorf("the second visitor met %s", body)
		}
	}
	if !cookie.HttpOnly || cookie.MaxAge != 300 || cookie.Path != "/" || strings.Contains(cookie.Value, first) && len(cookie.Value) < 10 {
		t.Errorf("cookie %v", cookie)
	}
	if _, _, c := get(t, front, &http.Cookie{Name: CookieName, Value: "forged"}); c == nil || c.Value == "forged" {
		t.Errorf("an unknown cookie was answered with %v", c)
	}
}

func TestWithoutStickinessEveryRequestTakesTurns(t *testing.T) {
	b, front := start(t, Options{}, newNode(t, "a"), newNode(t, "b"))
	met := map[string]int{}
	for range 10 {
		_, body, cookie := get(t, front, nil)
		met[body]++
		// A response is read before the balancer has counted its end.
		await(t, "nothing is outstanding", func() bool { return outstanding(b) == 0 })
		if cookie != nil {
			t.Fatal("a cookie was set")
		}
	}
	if met["a"] != 5 || met["b"] != 5 {
		t.Errorf("%v", met)
	}
}

// What a stream's target sends comes at once, and a stream ends when one of its sides does.
func TestStreamsPassAndStay(t *testing.T) {
	b, front := start(t, Options{}, newNode(t, "a"), newNode(t, "b"))
	const at, each = 16, 100
	done := make(chan error, at)
	for range at {
		go func() {
			for range each {
				if err := openAndLeave(front); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range at {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	await(t, "nothing is outstanding", func() bool { return outstanding(b) == 0 })
}

func openAndLeave(front string) error {
	res, err := http.Post(front+"/connection/http_stream", "application/json", strings.NewReader("hello"))
	if err != nil {
		return err
	}
	defer res.Body.Close()
	first := make([]byte, len("hello"))
	if _, err := io.ReadFull(res.Body, first); err != nil || string(first) != "hello" {
		return fmt.Errorf("first %q, %v", first, err)
	}
	ended := make(chan error, 1)
	go func() { _, err := res.Body.Read(first); ended <- err }()
	select {
	case err := <-ended:
		return fmt.Errorf("the stream has ended: %v", err)
	case <-time.After(2 * time.Millisecond): // in which one that is going to be cut is
		res.Body.Close()
		<-ended
		return nil
	}
}

func TestASocketCountsAsOneOutstandingRequest(t *testing.T) {
	b, front := start(t, Options{Sticky: true}, newNode(t, "a"), newNode(t, "b"))
	conn, r, holder := dial(t, front, nil)
	for range 4 {
		if _, body, _ := get(t, front, nil); body == holder {
			t.Errorf("a new visitor was sent to the busier %s", body)
		}
		// A response is read before the balancer has counted its end.
		await(t, "nothing but the socket is outstanding", func() bool { return outstanding(b) == 1 })
	}
	fmt.Fprintln(conn, "echo")
	if line, err := r.ReadString('\n'); err != nil || line != "echo\n" {
		t.Errorf("%q %v", line, err)
	}
	conn.Close()
	await(t, "the closed socket is no longer counted", func() bool { return outstanding(b) == 0 })
}

func outstanding(b *Balancer) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range b.targets {
		n += t.outstanding
	}
	return n
}

func TestUnhealthyTargetIsReplacedInTheCookie(t *testing.T) {
	a, c := newNode(t, "a"), newNode(t, "b")
	nodes := map[string]*node{"a": a, "b": c}
	b, front := start(t, Options{Sticky: true}, a, c)
	_, first, cookie := get(t, front, nil)
	conn, r, holder := dial(t, front, cookie)
	if holder != first {
		t.Fatalf("the cookie of %s led to %s", first, holder)
	}
	nodes[first].ready.Store(false)
	await(t, "unhealthy", func() bool { return !b.Ready() })
	_, second, replaced := get(t, front, cookie)
	if second == first || replaced.Value == cookie.Value {
		t.Errorf("met %s again", second)
	}
	fmt.Fprintln(conn, "still here")
	if line, err := r.ReadString('\n'); err != nil || line != "still here\n" {
		t.Errorf("the open socket of an unhealthy target was cut: %q %v", line, err)
	}
	nodes[first].ready.Store(true)
	await(t, "healthy again", b.Ready)
}

func TestDeregisteredTargetKeepsWhatItHas(t *testing.T) {
	b, front := start(t, Options{Sticky: true}, newNode(t, "a"), newNode(t, "b"))
	_, first, cookie := get(t, front, nil)
	conn, r, _ := dial(t, front, cookie)
	if !b.Deregister(first) || b.Deregister("nobody") {
		t.Fatal("Deregister")
	}
	for range 4 {
		if _, body, _ := get(t, front, cookie); body == first {
			t.Error("a draining target got a request")
		}
	}
	fmt.Fprintln(conn, "still here")
	if line, err := r.ReadString('\n'); err != nil || line != "still here\n" {
		t.Errorf("%q %v", line, err)
	}
}

func TestFailsOpenWhenNoTargetIsHealthy(t *testing.T) {
	a := newNode(t, "a")
	b, front := start(t, Options{Sticky: true}, a)
	a.ready.Store(false)
	await(t, "unhealthy", func() bool { return !b.Ready() })
	if status, body, _ := get(t, front, nil); status != 200 || body != "a" {
		t.Errorf("%d %s", status, body)
	}
}

func TestWhatFailuresAnswer(t *testing.T) {
	gone := newNode(t, "gone")
	_, none := start(t, Options{})
	b, dead := start(t, Options{}, gone)
	_, silent := start(t, Options{IdleTimeout: 100 * time.Millisecond}, newNode(t, "silent"))
	gone.Close()
	await(t, "unhealthy", func() bool { return !b.Ready() })
	for _, c := range []struct {
		name, url string
		status    int
	}{
		{"no target", none + "/", 503}, {"no functions", none + "/api/todos", 503},
		{"target gone", dead + "/", 502}, {"target silent", silent + "/silent", 504},
	} {
		res, body := do(t, c.url, nil)
		if res.StatusCode != c.status || !strings.Contains(body, fmt.Sprint("<center><h1>", c.status)) || res.Header.Get("Server") != "awselb/2.0" {
			t.Errorf("%s: %d %q %v", c.name, res.StatusCode, body, res.Header)
		}
	}
	b.Deregister("gone")
	if status, _, _ := get(t, dead, nil); status != 503 {
		t.Errorf("all deregistered: %d", status)
	}
}

func TestABusySocketIsNotCut(t *testing.T) {
	t.Parallel()                 // it waits for longer than the idle timeout,
	const idle = 6 * time.Second // in which a machine may stand still
	const talk = idle + idle/4
	_, front := start(t, Options{IdleTimeout: idle}, newNode(t, "a"))
	t.Run("both talk", func(t *testing.T) {
		t.Parallel()
		conn, r, _ := dial(t, front, nil)
		for began := time.Now(); time.Since(began) < talk; {
			fmt.Fprintln(conn, "busy")
			if _, err := r.ReadString('\n'); err != nil {
				t.Fatalf("cut after %v although busy: %v", time.Since(began), err)
			}
			time.Sleep(idle / 30) // the traffic of a client that talks now and then
		}
	})
	t.Run("one direction is enough", func(t *testing.T) {
		t.Parallel()
		talker, heard, _ := dialPath(t, front, "/connection/sink", nil)
		for began := time.Now(); time.Since(began) < talk; time.Sleep(idle / 30) {
			fmt.Fprintln(talker, "busy")
		}
		fmt.Fprintln(talker, "end")
		if line, err := heard.ReadString('\n'); err != nil || line != "heard\n" {
			t.Errorf("a socket on which only the client talks was cut: %q %v", line, err)
		}
	})
}

func TestAnIdleSocketIsCut(t *testing.T) {
	const idle = 200 * time.Millisecond
	_, front := start(t, Options{IdleTimeout: idle}, newNode(t, "a"))
	began := time.Now()
	conn, r, _ := dial(t, front, nil)
	_, err := r.ReadString('\n')
	if took := time.Since(began); err != io.EOF || took < idle {
		t.Errorf("an idle socket ended after %v with %v", took, err)
	}
	conn.Close()
}

func TestHeadersThatTheTargetSees(t *testing.T) {
	_, front := start(t, Options{}, newNode(t, "a"))
	res, body := do(t, front+"/headers", nil, "X-Forwarded-For", "203.0.113.7", "X-Forwarded-Proto", "https", "X-Forwarded-Host", "evil.example",
		"X-Forwarded-Port", "1", "Forwarded", "for=203.0.113.7")
	host := strings.TrimPrefix(front, "http://")
	_, port, _ := net.SplitHostPort(host)
	for _, want := range []string{"Host: " + host + "\n", "X-Forwarded-For: 203.0.113.7, 127.0.0.1\r\n", "X-Forwarded-Proto: http\r\n",
		"X-Forwarded-Port: " + port + "\r\n", "X-Amzn-Trace-Id: Root=1-"} {
		if !strings.Contains(body, want) {
			t.Errorf("%q is missing in\n%s", want, body)
		}
	}
	if strings.Contains(body, "evil.example") || res.StatusCode != 200 {
		t.Errorf("%d\n%s", res.StatusCode, body)
	}
}

func TestPathsGoWhereTheListenerRulesSay(t *testing.T) {
	api, page := newNode(t, "api"), newNode(t, "page")
	_, front := start(t, Options{API: api.target(t).URL, Page: page.target(t).URL, Sticky: true}, newNode(t, "a"))
	for _, c := range []struct{ path, body string }{{"/api/todos", "api"}, {"/api/", "api"}, {"/api", "page"}, {"/apis/x", "page"},
		{"/", "page"}, {"/src/main.tsx", "page"}, {"/connection/sse", "a"}, {"/emulation", "a"}} {
		if _, body, cookie := get(t, front+c.path, nil); body != c.body || (cookie != nil) != (c.body == "a") {
			t.Errorf("%s went to %s, cookie %v", c.path, body, cookie)
		}
	}
	_, front = start(t, Options{API: api.target(t).URL}, newNode(t, "a"))
	if _, body, _ := get(t, front+"/api", nil); body != "a" {
		t.Errorf("/api went to %s", body)
	}
}
