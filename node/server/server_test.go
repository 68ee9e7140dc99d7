package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tideline/node/conn"
	"tideline/shared/bus"
	"tideline/shared/limit"
	"tideline/test/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

// sockets stands in where a test needs a Redis in a certain state, or to see the order of a node's end. The real ones are
// behind a node in test/e2e.
type sockets struct {
	mu     sync.Mutex
	status conn.Status
	hang   chan struct{} // when not nil, Status waits until it is closed
	events []string
	fail   chan error
	drain  func(ctx context.Context, window time.Duration) error
}

var healthy = conn.Status{Connections: 3, Channels: 2, RedisReachable: true, PromotionProof: true, Subscription: bus.Health{Connected: true}}

func (s *sockets) note(event string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, event)
}

func (s *sockets) noted() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.events, ", ")
}

func (s *sockets) Register(mux *http.ServeMux) {
	mux.HandleFunc("GET /connection/websocket", func(w http.ResponseWriter, r *http.Request) {
		c, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\n\r\n")
			c.Close()
		}
	})
	mux.HandleFunc("GET /connection/sse", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
}

func (s *sockets) Run(ctx context.Context) error {
	s.note("run")
	defer s.note("ended")
	select {
	case <-ctx.Done():
		return nil
	case err := <-s.fail:
		return err
	}
}

func (s *sockets) Drain(ctx context.Context, window time.Duration) error {
	s.note(fmt.Sprint("drain ", window))
	if s.drain != nil {
		return s.drain(ctx, window)
	}
	return nil
}

func (s *sockets) Status(ctx context.Context) conn.Status {
	s.mu.Lock()
	status, hang := s.status, s.hang
	s.mu.Unlock()
	if hang != nil {
		select {
		case <-hang:
		case <-ctx.Done():
		}
	}
	return status
}

func (s *sockets) set(status conn.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = status
}

type node struct {
	*Node
	sockets         *sockets
	public, private string
	stop            func() error
}

// start runs a node on free ports and waits for the state.
func start(t *testing.T, s *sockets, want State, change func(*Options)) *node {
	t.Helper()
	o := Options{NodeID: "n1", Sockets: s, Registry: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler),
		Page: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "page") })}
	for _, l := range []*net.Listener{&o.Public, &o.Private} {
		var err error
		if *l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	if change != nil {
		change(&o)
	}
	n, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	stop := sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-ended:
			return err
		case <-time.After(patience):
			return fmt.Errorf("the node has not ended within %v", patience)
		}
	})
	t.Cleanup(func() { stop(); http.DefaultClient.CloseIdleConnections() })
	await(t, want.String(), func() bool { return n.State() == want })
	return &node{n, s, "http://" + o.Public.Addr().String(), "http://" + o.Private.Addr().String(), stop}
}

// patience is how long a test waits for what comes at once unless the machine has other things to do.
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

func get(t *testing.T, url string) (*http.Response, string) {
	t.Helper()
	return do(t, "GET", url)
}

func do(t *testing.T, method, url string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	res, err := http.DefaultClient.Do(r.WithContext(ctx))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(body)
}

func TestHealthTellsEachCheckAndRedisAwayIsOnlyDegraded(t *testing.T) {
	s := &sockets{status: healthy}
	n := start(t, s, Ready, nil)
	deaf, stale, edge := healthy, healthy, healthy
	deaf.Subscription.Connected = false
	stale.Subscription.ProbeAge = probeStale
	edge.Subscription.ProbeAge = probeStale - time.Nanosecond
	away := conn.Status{Connections: 3, Channels: 2, Subscription: bus.Health{ProbeAge: time.Hour}, PromotionProof: true}
	blind := healthy
	blind.PromotionProof = false
	for _, c := range []struct {
		name          string
		status        conn.Status
		ready, health string
		failing       []string
		redis, pubsub bool
	}{
		{"healthy", healthy, "ready", "healthy", nil, true, true},
		{"probe just in time", edge, "ready", "healthy", nil, true, true},
		{"probe late", stale, "degraded", "degraded", []string{"probe"}, true, false},
		{"subscription down", deaf, "degraded", "degraded", []string{"subscription"}, true, false},
		{"Redis away", away, "degraded", "degraded", []string{"redis", "subscription", "probe"}, false, false},
		{"no promotion proof", blind, "ready", "healthy", []string{"promotion_proof"}, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s.set(c.status)
			await(t, "the node looks again", func() bool { return n.health.status() == c.status })
			var ready struct {
				Status string
				Checks map[string]struct {
					OK     bool
					Reason string
				}
			}
			res, body := get(t, n.private+"/readyz")
			if err := json.Unmarshal([]byte(body), &ready); err != nil || res.StatusCode != 200 || ready.Status != c.ready || len(ready.Checks) != 4 {
				t.Fatalf("%d %s %v", res.StatusCode, body, err)
			}
			for name, check := range ready.Checks {
				failing := strings.Contains(" "+strings.Join(c.failing, " ")+" ", " "+name+" ")
				if check.OK == failing || (check.Reason != "") != failing {
					t.Errorf("%s: %+v", name, check)
				}
			}
			res, body = get(t, n.private+"/health/websocket")
			want := fmt.Sprintf(`{"status":%q,"checks":{"redis_connected":%v,"active_connections":3,"active_channels":2,"pubsub_active":%v}}`+"\n",
				c.health, c.redis, c.pubsub)
			if res.StatusCode != 200 || body != want {
				t.Errorf("%d %s want %s", res.StatusCode, body, want)
			}
		})
	}
}

func TestAHangingRedisDoesNotSlowHealthChecksDown(t *testing.T) {
	s := &sockets{status: healthy}
	n := start(t, s, Ready, nil)
	s.mu.Lock()
	s.hang = make(chan struct{}) // for good
	s.mu.Unlock()
	for range 5 {
		if res, body := get(t, n.private+"/readyz"); res.StatusCode != 200 {
			t.Errorf("%d %s", res.StatusCode, body)
		}
	}
}

func TestStartingNodeIsNotReadyUntilItHasWaitedForRedis(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, err := New(Options{NodeID: "n1", Sockets: &sockets{}, Registry: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler), Page: http.NotFoundHandler(),
			Public: newPipeListener(), Private: newPipeListener()})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- n.Run(ctx) }()
		private := n.private()
		answers := func(path string, status int, part string) {
			t.Helper()
			res := httptest.NewRecorder()
			private.ServeHTTP(res, httptest.NewRequest("GET", path, nil))
			if res.Code != status || !strings.Contains(res.Body.String(), part) {
				t.Errorf("%s answers %d %s, want %d and %s", path, res.Code, res.Body, status, part)
			}
		}
		time.Sleep(startWait - time.Second)
		answers("/readyz", 503, `"status":"starting"`)
		answers("/health/websocket", 503, `"unhealthy"`)
		answers("/healthz", 200, "") // the process can answer
		time.Sleep(2 * time.Second)
		answers("/readyz", 200, `"status":"degraded"`)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// The drain's order, with the times of a real deployment on a fake clock.
func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sockets{status: healthy}
		s.drain = func(ctx context.Context, window time.Duration) error {
			select {
			case <-time.After(window):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		released := false
		public, private := newPipeListener(), newPipeListener()
		n, err := New(Options{NodeID: "n1", Sockets: s, Registry: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler), Page: http.NotFoundHandler(),
			Public: public, Private: private, DrainGrace: limit.DrainGrace, DrainWindow: limit.DrainWindow, Release: func() error { released = true; return nil }})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- n.Run(ctx) }()
		time.Sleep(time.Second)
		if n.State() != Ready {
			t.Fatal(n.State())
		}
		began := time.Now()
		cancel()
		synctest.Wait()
		if n.State() != Draining || public.isClosed() {
			t.Fatalf("state %v, public closed %v: a draining node is not ready at once and serves on", n.State(), public.isClosed())
		}
		time.Sleep(limit.DrainGrace - time.Second)
		synctest.Wait()
		if got := s.noted(); got != "run" {
			t.Errorf("clients were closed within the grace: %s", got)
		}
		time.Sleep(limit.DrainWindow)
		if public.isClosed() || private.isClosed() {
			t.Error("stopped listening before the window's end")
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if d := time.Since(began); d < limit.DrainGrace+limit.DrainWindow || d > limit.DrainGrace+limit.DrainWindow+stopWait {
			t.Errorf("took %v", d)
		}
		if got := s.noted(); got != "run, drain 1m30s, ended" || !released || !public.isClosed() || !private.isClosed() {
			t.Errorf("%s; released %v", got, released)
		}
	})
}

// What a draining node doesn't hear hurts nobody, and another must publish: the canary ends before the first client is closed.
func TestTheCanarySingsWhileTheNodeIsReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sockets{status: healthy}
		n, err := New(Options{NodeID: "n1", Sockets: s, Registry: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler), Page: http.NotFoundHandler(),
			Public: newPipeListener(), Private: newPipeListener(), DrainGrace: time.Second, DrainWindow: time.Second,
			Canary: func(ctx context.Context) {
				time.Sleep(time.Millisecond) // it begins with the sockets, and either may be noted first
				s.note("sings")
				<-ctx.Done()
				time.Sleep(time.Millisecond)
				s.note("silent")
			}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- n.Run(ctx) }()
		time.Sleep(time.Minute)
		if got := s.noted(); got != "run, sings" {
			t.Errorf("ready: %s", got)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if got := s.noted(); got != "run, sings, silent, drain 1s, ended" {
			t.Error(got)
		}
	})
}

func TestAFailureEndsTheNodeAtOnceAndIsTheError(t *testing.T) {
	s := &sockets{status: healthy, fail: make(chan error, 1)}
	n := start(t, s, Ready, func(o *Options) { o.DrainGrace, o.DrainWindow = time.Hour, time.Hour })
	s.fail <- errors.New("hub broken")
	await(t, "the private port closes", func() bool {
		c, err := net.Dial("tcp", n.privateListener.Addr().String())
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	if err := n.stop(); err == nil || !strings.Contains(err.Error(), "sockets: hub broken") {
		t.Errorf("%v", err)
	}
}

func TestEveryResponseNamesTheNodeAndIsCountedByRoute(t *testing.T) {
	n := start(t, &sockets{status: healthy}, Ready, nil)
	for _, c := range []struct {
		url    string
		status int
	}{{n.public + "/", 200}, {n.public + "/anything", 200}, {n.public + "/api/todos", 404}, {n.private + "/healthz", 200}, {n.private + "/nothing", 404}} {
		if res, _ := get(t, c.url); res.StatusCode != c.status || res.Header.Get(NodeHeader) != "n1" {
			t.Errorf("%s: %d %v", c.url, res.StatusCode, res.Header)
		}
	}
	if res, _ := do(t, "POST", n.private+"/healthz"); res.StatusCode != 405 {
		t.Errorf("POST answers %d", res.StatusCode)
	}
	if _, err := http.Get(n.public + "/connection/sse"); err == nil {
		t.Error("the aborted response came through")
	}
	do(t, "BREW", n.public+"/")
	c, err := net.Dial("tcp", n.publicListener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "GET /connection/websocket HTTP/1.1\r\nHost: x\r\n\r\n")
	if b, _ := io.ReadAll(c); !strings.HasPrefix(string(b), "HTTP/1.1 101") {
		t.Errorf("%q", b)
	}
	var metrics string
	await(t, "the socket is counted", func() bool {
		_, metrics = get(t, n.private+"/metrics")
		return strings.Contains(metrics, `http_requests_total{instance="n1",method="GET",route="/connection/websocket",status="101"} 1`)
	})
	for _, want := range []string{
		`http_requests_total{instance="n1",method="GET",route="/",status="200"} 2`, `http_requests_total{instance="n1",method="other",route="/",status="200"} 1`,
		`http_requests_total{instance="n1",method="GET",route="/api/",status="404"} 1`, `http_requests_total{instance="n1",method="GET",route="none",status="404"} 1`,
		`http_requests_total{instance="n1",method="GET",route="/connection/sse",status="200"} `,
		`app_uptime_seconds{instance="n1"} `, `go_goroutines{instance="n1"} `,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("%s is missing", want)
		}
	}
}

func TestPrivateThingsAreNotPublic(t *testing.T) {
	n := start(t, &sockets{status: healthy}, Ready, nil)
	for _, path := range []string{"/metrics", "/readyz", "/healthz", "/health/websocket", "/debug/pprof/"} {
		if _, body := get(t, n.public+path); body != "page" {
			t.Errorf("%s on the public port answers %.40q", path, body)
		}
		if res, _ := get(t, n.private+path); res.StatusCode != 200 {
			t.Errorf("%s on the private port answers %d", path, res.StatusCode)
		}
	}
}

func TestHeadersAreBounded(t *testing.T) {
	n := start(t, &sockets{status: healthy}, Ready, nil)
	for _, c := range []struct{ bytes, status int }{{headerBytes - 1024, 200}, {headerBytes + 8192, 431}} {
		r, _ := http.NewRequest("GET", n.public+"/", nil)
		r.Header.Set("X-Padding", strings.Repeat("x", c.bytes))
		res, err := http.DefaultClient.Do(r)
		if err != nil || res.StatusCode != c.status {
			t.Errorf("%d bytes: %v %v", c.bytes, res, err)
			continue
		}
		res.Body.Close()
	}
}

// pipeListener is a listener that nobody connects to, fit for a fake clock.
type pipeListener struct{ closed chan struct{} }

func newPipeListener() *pipeListener { return &pipeListener{make(chan struct{})} }

func (l *pipeListener) Accept() (net.Conn, error) { <-l.closed; return nil, net.ErrClosed }
func (l *pipeListener) Addr() net.Addr            { return &net.TCPAddr{} }
func (l *pipeListener) Close() error {
	if !l.isClosed() {
		close(l.closed)
	}
	return nil
}
func (l *pipeListener) isClosed() bool {
	select {
	case <-l.closed:
		return true
	default:
		return false
	}
}

// An order drains and doesn't end: the instance is terminated from outside, and until then the load balancer must see a node that is
// up and not ready.
func TestAnOrderedDrainWaitsForTheEnd(t *testing.T) {
	orders := make(chan string, 1)
	drained := make(chan struct{})
	s := &sockets{status: healthy, drain: func(context.Context, time.Duration) error { close(drained); return nil }}
	n := start(t, s, Ready, func(o *Options) { o.Ordered = orders })
	orders <- "target lifecycle state Terminated"
	<-drained
	if res, _ := get(t, n.private+"/readyz"); res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("readyz %d after an ordered drain", res.StatusCode)
	}
	if res, _ := get(t, n.private+"/healthz"); res.StatusCode != http.StatusOK {
		t.Errorf("healthz %d after an ordered drain", res.StatusCode)
	}
	if err := n.stop(); err != nil {
		t.Error(err)
	}
	if got := s.noted(); strings.Count(got, "drain") != 1 {
		t.Errorf("events %s, want one drain", got)
	}
}
