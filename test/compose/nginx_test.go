package compose

import (
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"os"
	"strings"
	"testing"
	"time"

	"tideline/shared/limit"
	"tideline/test/fleet"
)

const root = "../.."

func TestMain(m *testing.M) {
	code := m.Run()
	if built != "" {
		_ = os.RemoveAll(built) // it is in the temporary folder
	}
	os.Exit(code)
}

// The topology of compose.yaml as processes, behind the nginx configuration that ships.
func TestTopology(t *testing.T) {
	t.Parallel()
	s := start(t)
	idle := s.visit(t)
	idle.connect(nil, "chat:idle")
	idleSince := time.Now()

	t.Run("the application", func(t *testing.T) { application(t, s) })
	t.Run("affinity", func(t *testing.T) { affinity(t, s) })
	t.Run("headers", func(t *testing.T) { headers(t, s) })
	t.Run("nothing private", func(t *testing.T) { nothingPrivate(t, s) })
	t.Run("an operator", func(t *testing.T) { operator(t, s) })
	t.Run("HTTP streams", func(t *testing.T) { streams(t, s) })
	t.Run("idle", func(t *testing.T) {
		if testing.Short() {
			t.Skip("waits for a ping")
		}
		// Nothing but the protocol's pings goes over this socket: without one, or its pong, it would be closed by now.
		time.Sleep(time.Until(idleSince.Add(limit.PingInterval + limit.PongTimeout + 5*time.Second))) // the very thing that is tested
		idle.says("chat:idle", "still here")
		idle.hears("still here")
		idle.mu.Lock()
		defer idle.mu.Unlock()
		if idle.connected != 1 {
			t.Errorf("connected %d times", idle.connected)
		}
	})
	t.Run("a node is killed", func(t *testing.T) { nodeKilled(t, s) })
}

func application(t *testing.T, s *topology) {
	v := s.visit(t)
	v.connect(nil, "todos:#"+v.user, "user:#"+v.user)
	if code, body := v.do("POST", "/api/todos", `{"title":"by nginx"}`, nil); code != http.StatusCreated {
		t.Fatalf("create: %d %s", code, body)
	}
	v.hears("by nginx")
	if code, body := v.do("POST", "/api/tasks", `{"kind":"import","format":"json","data":"[{\"title\":\"by a task\"}]"}`, nil); code != http.StatusAccepted {
		t.Fatalf("task: %d %s", code, body)
	}
	v.hears("task.completed") // over DynamoDB's stream and the worker
	if code, body := v.do("GET", "/api/todos", "", nil); code != http.StatusOK || !strings.Contains(body, "by nginx") || !strings.Contains(body, "by a task") {
		t.Errorf("list: %d %s", code, body)
	}
	if code, body := v.do("GET", "/api/openapi.json", "", nil); code != http.StatusOK || !strings.Contains(body, "/api/todos") {
		t.Errorf("reference: %d", code)
	}
}

func affinity(t *testing.T, s *topology) {
	met := map[string]int{}
	var moved *visitor
	for i := range 20 {
		v := s.visit(t)
		first := v.request("GET", "/", "", nil)
		first.Body.Close()
		node := first.Header.Get("X-Tideline-Node")
		met[node]++
		for range 5 {
			res := v.request("GET", "/", "", nil)
			res.Body.Close()
			if again := res.Header.Get("X-Tideline-Node"); again != node {
				t.Fatalf("a visitor of %s met %s", node, again)
			}
		}
		if i < 5 {
			v.connect(nil)
			if v.node != node {
				t.Errorf("the page came from %s, the socket is on %s", node, v.node)
			}
			moved = v
		}
	}
	if len(met) != 2 || met[""] > 0 {
		t.Errorf("20 visitors met %v", met)
	}
	// Who asks for another node gets a new value.
	nodes := map[string]bool{}
	for range 20 {
		if code, _ := moved.do("DELETE", "/api/session/node", "", nil); code/100 != 2 {
			t.Fatalf("forget the node: %d", code)
		}
		res := moved.request("GET", "/", "", nil)
		res.Body.Close()
		nodes[res.Header.Get("X-Tideline-Node")] = true
	}
	if len(nodes) != 2 {
		t.Errorf("asking for another node led to %v", nodes)
	}
	// A value that is not ours is replaced.
	res := s.anonymous(t, http.Header{"Cookie": {"AWSALB=forged"}})
	set := res.Header.Get("Set-Cookie")
	if !strings.HasPrefix(set, "AWSALB=") || strings.Contains(set, "forged") || !strings.Contains(set, "HttpOnly") ||
		!strings.Contains(set, fmt.Sprintf("Max-Age=%d", int(limit.StickyTTL/time.Second))) {
		t.Errorf("cookie: %q", set)
	}
}

// anonymous opens the page without anything but a header.
func (s *topology) anonymous(t *testing.T, h http.Header) *http.Response {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	res := (&visitor{t: t, s: s, http: fleet.Client(jar)}).request("GET", "/", "", h)
	res.Body.Close()
	return res
}

func headers(t *testing.T, s *topology) {
	big := http.Header{"X-Large": {strings.Repeat("x", 10_000)}}
	v := s.visit(t)
	for _, path := range []string{"/", "/api/todos", "/api/session"} {
		if code, body := v.do("GET", path, "", big); code != http.StatusOK {
			t.Errorf("%s with a header of 10,000 bytes: %d %.200s", path, code, body)
		}
	}
	v.connect(big, "chat:headers")
	v.says("chat:headers", "with a large header")
	v.hears("with a large header")
	if res := s.anonymous(t, http.Header{"X-Large": {strings.Repeat("x", 17_000)}}); res.StatusCode != http.StatusBadRequest {
		t.Errorf("a header of 17,000 bytes: %s", res.Status)
	}
}

func nothingPrivate(t *testing.T, s *topology) {
	v := s.visit(t)
	for _, path := range []string{"/metrics", "/readyz", "/healthz", "/debug/pprof/", "/health/websocket", "/api/metrics", "/api/healthz"} {
		_, body := v.do("GET", path, "", nil)
		for _, private := range []string{"websocket_connections", "request_latency", "promotion_proof", "redis_connected", "goroutine"} {
			if strings.Contains(body, private) {
				t.Errorf("%s tells %s", path, private)
			}
		}
	}
	for _, path := range []string{"/2015-03-31/functions/function/invocations", "/api/../2015-03-31/functions/function/invocations"} {
		if code, body := v.do("POST", path, `{"Records":[]}`, nil); code/100 == 2 || strings.Contains(body, "batchItemFailures") {
			t.Errorf("POST %s: %d %s", path, code, body)
		}
	}
}

// operator: the link that the helper prints signs in as operator.
func operator(t *testing.T, s *topology) {
	p := fleet.Run(t, "operator", binary(t, "compose"), s.env, "operator", s.url)
	if code := p.Wait(); code != 0 {
		t.Fatalf("operator: %s", p.Output())
	}
	link := p.Await(`^http://[^/]+(/\S+) \(until `)[1]
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	v := &visitor{t: t, s: s, http: fleet.Client(jar)}
	if code, body := v.do("POST", link, "", nil); code != http.StatusSeeOther {
		t.Fatalf("link: %d %s", code, body)
	}
	if code, body := v.do("POST", "/api/session", "{}", nil); code/100 != 2 || !strings.Contains(body, `"roles":["operator"]`) {
		t.Errorf("session: %d %s", code, body)
	}
}

func nodeKilled(t *testing.T, s *topology) {
	stays, moves := s.visit(t), s.visit(t)
	moves.connect(nil, "chat:moves")
	for stays.connect(nil, "chat:moves"); stays.node == moves.node; stays.connect(nil, "chat:moves") {
		stays.client.Close()
		stays = s.visit(t)
	}
	moves.says("chat:moves", "before")
	stays.hears("before")
	moves.hears("before")
	for _, n := range s.nodes {
		if n.Name == moves.node {
			n.Kill()
		}
	}
	stays.says("chat:moves", "meanwhile")
	moves.until("moved", func() bool { return moves.connected > 1 && moves.node == stays.node })
	moves.hears("meanwhile") // recovered, or live
	stays.says("chat:moves", "afterwards")
	moves.hears("afterwards")
	moves.mu.Lock()
	defer moves.mu.Unlock()
	if len(moves.lost) > 0 || len(moves.got) != 3 {
		t.Errorf("not recovered: %v, got %v", moves.lost, moves.got)
	}
	// The page, too, comes from the other one, for everybody.
	for range 10 {
		if res := s.anonymous(t, nil); res.StatusCode != http.StatusOK || res.Header.Get("X-Tideline-Node") != stays.node {
			t.Errorf("page: %s from %q", res.Status, res.Header.Get("X-Tideline-Node"))
		}
	}
}
