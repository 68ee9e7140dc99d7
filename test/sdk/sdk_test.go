// Package sdk runs the public clients for JavaScript and Go against real node processes.
package sdk

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tideline/shared/limit"
	"tideline/test/fleet"
)

func TestMain(m *testing.M) {
	code := m.Run()
	fleet.RemoveBinaries()
	if code == 0 {
		// The SDK's timers for commands that it has given up live for its read timeout, also after Close.
		if err := goleak.Find(goleak.IgnoreAnyFunction("github.com/centrifugal/centrifuge-go.(*Client).sendAsync.func1")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// namespaces beside the shipped ones' likes: open to all who are signed in, and one that needs a subscription token.
const namespaces = `{"namespaces": [
  {"name": "open", "subscribe": "signed-in", "publish": "signed-in", "history": {"size": 100, "ttl": "1h"}, "recover": true, "presence": true, "joinLeave": true},
  {"name": "room", "subscribe": "signed-in", "publish": "subscribers", "token": true, "history": {"size": 100, "ttl": "1h"}, "recover": true},
  {"name": "todos", "subscribe": "owner", "history": {"size": 100, "ttl": "1h"}, "recover": true},
  {"name": "user", "subscribe": "owner", "history": {"size": 100, "ttl": "1h"}, "recover": true},
  {"name": "bytes", "subscribe": "signed-in", "publish": "signed-in", "binary": true},
  {"name": "docker", "subscribe": "role:operator"},
  {"name": "logs", "subscribe": "role:operator"}
]}`

// start runs two nodes behind the load balancer, and answers the address of the socket.
func start(t *testing.T) (f *fleet.Fleet, url string) {
	t.Helper()
	return startNodes(t, 2)
}

func startNodes(t *testing.T, n int) (f *fleet.Fleet, url string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "channels.json")
	if err := os.WriteFile(file, []byte(namespaces), 0o600); err != nil {
		t.Fatal(err)
	}
	f = fleet.Start(t, fleet.Options{Nodes: n, NodeEnv: []string{"CHANNELS_FILE=" + file}})
	return f, strings.Replace(f.URL, "http", "ws", 1) + "/connection/websocket"
}

var result = regexp.MustCompile(`^\s*(not ok|ok) \d+ - (.*)$`)

func TestJavaScript(t *testing.T) {
	_, url := start(t)
	playAll(t, url)
}

// playAll runs all tests of sdk.mjs.
func playAll(t *testing.T, url string, env ...string) {
	t.Helper()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatalf("Node.js is needed: %v; make setup says what to install", err)
	}
	p := fleet.Run(t, "sdk.mjs", node, append(env, "URL="+url, "SECRET="+fleet.Secret, fmt.Sprint("MESSAGE_BYTES=", limit.MessageBytes)),
		"--test-reporter=tap", "--test", "--test-timeout=120000", "sdk.mjs")
	deadline := time.After(8 * time.Minute)
	for p.Running() {
		select {
		case <-deadline:
			t.Fatalf("not done:\n%s", p.Tail())
		case <-time.After(50 * time.Millisecond):
		}
	}
	code, seen := p.Wait(), 0
	script, err := os.ReadFile("sdk.mjs")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(p.Output()) {
		m := result.FindStringSubmatch(strings.TrimRight(line, "\n"))
		if m == nil || strings.HasSuffix(m[2], ".mjs") {
			continue
		}
		seen++
		t.Run(m[2], func(t *testing.T) {
			if m[1] != "ok" {
				t.Error("failed; see the output below")
			}
		})
	}
	if want := strings.Count(string(script), "\ntest(") + strings.Count(string(script), "\nwaiting("); code != 0 || seen != want { // a run that ends early must not pass
		t.Errorf("exit code %d after %d of %d tests:\n%s", code, seen, want, p.Output())
	}
}
