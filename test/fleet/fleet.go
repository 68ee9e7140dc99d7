// Package fleet runs Tideline's real binaries as processes for tests: Redis, functions, nodes and the load balancer, each on free ports.
//
// Everything that it starts ends with the test: process groups are killed in Cleanup, and by the kernel when the test binary dies.
package fleet

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"tideline/test/redistest"
)

// Secret is the token secret of every fleet, so that tests can sign tokens of their own.
const Secret = "the tests sign their tokens with this secret"

// Options of Start.
type Options struct {
	Nodes int // at least 1
	// Unsticky turns the load balancer's cookie off.
	Unsticky bool
	// RedisURL is where the fleet's Redis is; empty starts one.
	RedisURL string
	// NodeEnv is added to the environment of every node: "DRAIN_GRACE=1s".
	NodeEnv []string
}

// Fleet is a running system.
type Fleet struct {
	URL       string            // of the load balancer: http://127.0.0.1:port
	API       string            // of the functions, without the load balancer
	Redis     *redistest.Server // nil with Options.RedisURL
	Nodes     []*Node
	Functions *Process
	Balancer  *Process

	t       T
	options Options
	redis   string
	mu      sync.Mutex
	started int
}

// Node is one node process.
type Node struct {
	*Process
	ID           string
	URL, Private string // http://127.0.0.1:port
}

// Start starts a fleet and waits until everything answers.
func Start(t T, o Options) *Fleet {
	t.Helper()
	f := &Fleet{t: t, options: o, redis: o.RedisURL}
	if f.redis == "" {
		f.Redis = redistest.Start(t)
		f.redis = fmt.Sprintf("redis://127.0.0.1:%d", f.Redis.Port)
	}
	data, err := os.MkdirTemp("", "tideline-data-")
	if err != nil {
		t.Fatalf("fleet: %v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(data) })
	f.Functions = Run(t, "functions", Binary(t, "local"),
		[]string{"PORT=127.0.0.1:0", "REDIS_URL=" + f.redis, "TOKEN_SECRETS=" + Secret, "DATA_DIR=" + data, "LOG_FORMAT=json", "STAGE=test"}, "-functions")
	var targets []string
	for range o.Nodes {
		n := f.StartNode()
		f.Nodes = append(f.Nodes, n)
		targets = append(targets, n.URL+"="+n.Private+"/readyz")
	}
	f.API = readyURL(f.Functions)
	f.Balancer = f.Balance(f.API, !o.Unsticky, targets...)
	f.URL = readyURL(f.Balancer)
	return f
}

// StartNode starts one more node, which the load balancer doesn't know: it is Start's own, and for tests that speak to a node alone.
func (f *Fleet) StartNode(env ...string) *Node {
	f.t.Helper()
	f.mu.Lock()
	f.started++
	n := &Node{ID: fmt.Sprintf("node-%d", f.started)}
	f.mu.Unlock()
	env = append(append([]string{"PORT=127.0.0.1:0", "PRIVATE_PORT=127.0.0.1:0", "NODE_ID=" + n.ID, "REDIS_URL=" + f.redis, "TOKEN_SECRETS=" + Secret,
		"STAGE=test", "TRUSTED_HOPS=1", "DRAIN_GRACE=100ms", "DRAIN_WINDOW=500ms"}, f.options.NodeEnv...), env...)
	n.Process = Run(f.t, n.ID, Binary(f.t, "node"), env)
	m := n.Await(`"node ready".*"public":"([^"]+)","private":"([^"]+)"`)
	n.URL, n.Private = "http://"+m[1], "http://"+m[2]
	return n
}

// Balance starts a load balancer in front of targets ("URL=HEALTH-URL") and waits until all are healthy.
func (f *Fleet) Balance(api string, sticky bool, targets ...string) *Process {
	f.t.Helper()
	stickiness := "off"
	if sticky {
		stickiness = "on"
	}
	p := Run(f.t, "balancer", Binary(f.t, "local"), []string{"PORT=127.0.0.1:0", "STICKY=" + stickiness},
		"-balance", strings.Join(targets, ","), "-api", api)
	readyURL(p)
	return p
}

// readyURL waits for the line that says where a process of package local answers. The name localhost could mean ::1 to a client.
func readyURL(p *Process) string {
	return strings.Replace(p.Await(`^ready (http://\S+)`)[1], "localhost", "127.0.0.1", 1)
}

// Node finds a node by its id.
func (f *Fleet) Node(id string) *Node {
	f.t.Helper()
	for _, n := range f.Nodes {
		if n.ID == id {
			return n
		}
	}
	f.t.Fatalf("fleet: no node %q", id)
	return nil
}

// Poll waits until the condition holds, for at most a minute: how long a reconnect may take, backoff and a busy machine included.
func Poll(t T, what string, condition func() error) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		err := condition()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s: %v", what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Client is an HTTP client that keeps no connection, and no cookie unless it has a jar.
func Client(jar http.CookieJar) *http.Client {
	return &http.Client{Jar: jar, Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, ExpectContinueTimeout: 20 * time.Second},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}
