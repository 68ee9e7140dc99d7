package faults

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"tideline/shared/bus"
	"tideline/shared/token"
	"tideline/test/fleet"
)

// patience is how long a test waits for what must happen and has no length of its own. It normally takes milliseconds, but the machine may stand
// still for some seconds.
const patience = 30 * time.Second

// stage of every bus and node here.
const stage = "test"

// node is one node process.
type node struct {
	*fleet.Process
	id, socket, private string // socket: ws://…/connection/websocket, private: http://…
	redis               string
}

// startNode starts a node process on free ports and waits until it is ready. Later settings win.
func startNode(t *testing.T, id, redis string, env ...string) *node {
	t.Helper()
	n := &node{id: id, redis: redis}
	env = append([]string{"PORT=127.0.0.1:0", "PRIVATE_PORT=127.0.0.1:0", "NODE_ID=" + id, "REDIS_URL=" + redis, "TOKEN_SECRETS=" + fleet.Secret,
		"STAGE=" + stage, "TRUSTED_HOPS=1", "DRAIN_GRACE=100ms", "DRAIN_WINDOW=500ms"}, env...)
	n.Process = fleet.Run(t, id, fleet.Binary(t, "node"), env)
	m := n.Await(`"node ready".*"public":"([^"]+)","private":"([^"]+)"`)
	n.socket, n.private = "ws://"+m[1]+"/connection/websocket", "http://"+m[2]
	return n
}

// at leads every dial to one node.
func at(n *node) func() string { return func() string { return n.socket } }

// inTurn leads dials to the nodes one after the other, those that have ended left out: a load balancer without connections to fail.
func inTurn(start int, nodes ...*node) func() string {
	i := start
	return func() string {
		for range nodes {
			i++
			if n := nodes[i%len(nodes)]; n.Running() {
				return n.socket
			}
		}
		return nodes[0].socket
	}
}

// openBus is the bus that functions and other publishers use.
func openBus(t *testing.T, url string) *bus.Bus {
	t.Helper()
	b, err := bus.Open(t.Context(), bus.Options{URL: url, Stage: stage})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// signed makes an access token for a user, whom the server subscribes to the channels.
func signed(t *testing.T, user string, channels ...string) string {
	t.Helper()
	s, err := token.NewSecrets([]string{fleet.Secret}, nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := s.Sign(token.Claims{User: user, Channels: channels, Expires: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// metric adds up a metric of the node over its labels, as /metrics has it. With must the line has to contain it: `result="redis"`.
func (n *node) metric(t *testing.T, name string, must ...string) float64 {
	t.Helper()
	res, err := fleet.Client(nil).Get(n.private + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Fatalf("%s: /metrics answers %d", n.id, res.StatusCode)
	}
	sum, found := 0.0, false
lines:
	for s := bufio.NewScanner(res.Body); s.Scan(); {
		key, value, ok := strings.Cut(s.Text(), " ")
		if bare, _, _ := strings.Cut(key, "{"); !ok || bare != name {
			continue
		}
		for _, m := range must {
			if !strings.Contains(key, m) {
				continue lines
			}
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			t.Fatalf("%s: %q: %v", n.id, s.Text(), err)
		}
		sum, found = sum+v, true
	}
	if !found {
		t.Fatalf("%s has no metric %s", n.id, name)
	}
	return sum
}

// within polls until the condition holds.
func within(t *testing.T, limit time.Duration, what string, condition func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := condition()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s: %v", limit, what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

var errNotYet = errors.New("not yet")

// check turns a comparison into a condition for within.
func check(ok bool, format string, args ...any) error {
	if ok {
		return nil
	}
	return fmt.Errorf("%w: "+format, append([]any{errNotYet}, args...)...)
}

// pass waits for a length of time in which the scenario's load goes on. It ends early with the test.
func pass(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-t.Context().Done():
	case <-time.After(d):
	}
}

// portOf is the port of host:port.
func portOf(t *testing.T, addr string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// addrOf is the host:port of a URL.
func addrOf(t *testing.T, raw string) string {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return u.Host
}
