// Package serverapi runs public server libraries against the server API of real node processes.
package serverapi

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/centrifugal/centrifuge-go"
	"go.uber.org/goleak"

	"tideline/shared/token"
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

const (
	key = "the-key-that-the-tests-show-to-the-nodes"

	namespaces = `{"namespaces": [
  {"name": "open", "subscribe": "signed-in", "publish": "signed-in", "history": {"size": 100, "ttl": "1h"}, "recover": true, "presence": true, "joinLeave": true}
]}`
	patience = 30 * time.Second
)

// start runs two nodes with the API; their clients come to the second one.
func start(t *testing.T, env ...string) *fleet.Fleet {
	t.Helper()
	file := filepath.Join(t.TempDir(), "channels.json")
	if err := os.WriteFile(file, []byte(namespaces), 0o600); err != nil {
		t.Fatal(err)
	}
	if len(env) == 0 {
		env = []string{"API_KEYS=" + key}
	}
	return fleet.Start(t, fleet.Options{Nodes: 2, NodeEnv: append(env, "CHANNELS_FILE="+file)})
}

// ann is a user's client, by the public Go SDK, with what it has said so far.
type ann struct {
	*centrifuge.Client
	t  *testing.T
	id string

	mu   sync.Mutex
	said []string
}

func (a *ann) note(format string, args ...any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.said = append(a.said, fmt.Sprintf(format, args...))
}

// heard waits until something was said.
func (a *ann) heard(what string) {
	a.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		a.mu.Lock()
		said := slices.Clone(a.said)
		a.mu.Unlock()
		if slices.Contains(said, what) {
			return
		}
		if time.Now().After(deadline) {
			a.t.Fatalf("never heard %q; heard %q", what, said)
		}
	}
}

func connect(t *testing.T, n *fleet.Node, user string) *ann {
	t.Helper()
	secrets, err := token.NewSecrets([]string{fleet.Secret}, nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := secrets.Sign(token.Claims{User: user, Expires: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	a := &ann{t: t, Client: centrifuge.NewJsonClient(strings.Replace(n.URL, "http", "ws", 1)+"/connection/websocket", centrifuge.Config{Token: raw,
		MinReconnectDelay: 20 * time.Millisecond, MaxReconnectDelay: 300 * time.Millisecond,
		HandshakeTimeout: patience, ReadTimeout: patience, WriteTimeout: patience})}
	t.Cleanup(a.Close)
	id := make(chan string, 100)
	a.OnConnected(func(e centrifuge.ConnectedEvent) { id <- e.ClientID })
	a.OnConnecting(func(e centrifuge.ConnectingEvent) { a.note("connecting %d %s", e.Code, e.Reason) })
	a.OnDisconnected(func(e centrifuge.DisconnectedEvent) { a.note("disconnected %d %s", e.Code, e.Reason) })
	a.OnMessage(func(e centrifuge.MessageEvent) { a.note("message %s", e.Data) })
	a.OnSubscribed(func(e centrifuge.ServerSubscribedEvent) { a.note("subscribed %s %s", e.Channel, e.Data) })
	a.OnUnsubscribed(func(e centrifuge.ServerUnsubscribedEvent) { a.note("unsubscribed %s", e.Channel) })
	a.OnPublication(func(e centrifuge.ServerPublicationEvent) { a.note("%s %s", e.Channel, e.Data) })
	if err := a.Connect(); err != nil {
		t.Fatal(err)
	}
	select {
	case a.id = <-id:
	case <-time.After(patience):
		t.Fatal("not connected")
	}
	return a
}

func (a *ann) subscribe(channel string) {
	a.t.Helper()
	sub, err := a.NewSubscription(channel, centrifuge.SubscriptionConfig{})
	if err != nil {
		a.t.Fatal(err)
	}
	sub.OnSubscribed(func(centrifuge.SubscribedEvent) { a.note("in %s", channel) })
	sub.OnUnsubscribed(func(e centrifuge.UnsubscribedEvent) { a.note("out of %s %d", channel, e.Code) })
	sub.OnPublication(func(e centrifuge.PublicationEvent) { a.note("%s %d %s", channel, e.Offset, e.Data) })
	if err := sub.Subscribe(); err != nil {
		a.t.Fatal(err)
	}
	a.heard("in " + channel)
}

// python is the interpreter that has what requirements.txt pins; it is made once, in .cache of the project, under a lock.
func python(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root, ".cache", "cent")
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	lock, err := os.OpenFile(dir+".lock", os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	wanted, err := os.ReadFile("requirements.txt")
	if err != nil {
		t.Fatal(err)
	}
	stamp, interpreter := filepath.Join(dir, "requirements.txt"), filepath.Join(dir, "bin", "python")
	if have, err := os.ReadFile(stamp); err == nil && string(have) == string(wanted) {
		return interpreter
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	for _, args := range [][]string{{"python3", "-m", "venv", dir}, {interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", "requirements.txt"}} {
		if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v (Python 3.9 with venv is needed: make setup)\n%s", args, err, out)
		}
	}
	if err := os.WriteFile(stamp, wanted, 0o644); err != nil {
		t.Fatal(err)
	}
	return interpreter
}

func TestPython(t *testing.T) {
	interpreter := python(t)
	f := start(t)
	a := connect(t, f.Nodes[1], "ann")
	a.subscribe("open:p")
	p := fleet.Run(t, "backend.py", interpreter, []string{"API=" + f.Nodes[0].Private + "/api", "KEY=" + key, "CLIENT=" + a.id}, "backend.py")
	deadline := time.After(4 * time.Minute)
	for p.Running() {
		select {
		case <-deadline:
			t.Fatalf("not done:\n%s", p.Tail())
		case <-time.After(20 * time.Millisecond):
		}
	}
	if code := p.Wait(); code != 0 || !strings.Contains(p.Output(), "\ndone") {
		t.Fatalf("ended with %d:\n%s", code, p.Tail())
	}
	script, err := os.ReadFile("backend.py")
	if err != nil {
		t.Fatal(err)
	}
	if said, steps := strings.Count(p.Output(), "ok "), len(regexp.MustCompile(`(?m)^\s+ok\("`).FindAll(script, -1)); said != steps || steps < 10 {
		t.Errorf("%d of %d steps:\n%s", said, steps, p.Output())
	}
	for _, what := range []string{`open:p 1 {"n":1}`, `open:p 2 {"n":3}`, `open:p 3 {"n":5}`, `subscribed open:s {"why":"invited"}`, `open:s {"n":4}`, "unsubscribed open:s",
		"disconnected 4555 moved house"} {
		a.heard(what)
	}
}

// post answers the status and body of a plain call.
func post(t *testing.T, n *fleet.Node, method, body, key string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, n.Private+"/api/"+method, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-API-Key", key)
	res, err := fleet.Client(nil).Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err.Error()
	}
	return res.StatusCode, strings.TrimSpace(string(answer))
}

// A node that is killed is missed until its lease has ended; publishing goes on, and orders reach who is left.
func TestANodeIsKilled(t *testing.T) {
	f := start(t)
	here, there := connect(t, f.Nodes[0], "ann"), connect(t, f.Nodes[1], "ann")
	if _, got := post(t, f.Nodes[0], "subscribe", `{"user":"ann","channel":"open:a"}`, key); got != `{"result":{"total":2}}` {
		t.Fatal(got)
	}
	here.heard("subscribed open:a ")
	there.heard("subscribed open:a ")
	f.Nodes[1].Kill()
	if _, got := post(t, f.Nodes[0], "publish", `{"channel":"open:a","data":1}`, key); !strings.Contains(got, `"offset":1`) {
		t.Error(got)
	}
	here.heard("open:a 1")
	if _, got := post(t, f.Nodes[0], "send", `{"user":"ann","data":"anybody?"}`, key); got != `{"error":{"code":100,"message":"internal server error: no answer from node-2; done at 1 connections"}}` {
		t.Error(got)
	}
	here.heard(`message "anybody?"`)
	fleet.Poll(t, "the node's lease has ended", func() error {
		if _, got := post(t, f.Nodes[0], "send", `{"user":"ann","data":"again"}`, key); got != `{"result":{"total":1}}` {
			return errors.New(got)
		}
		return nil
	})
}

// Keys change with their file while nodes run; without keys there is no API; the public port never has one.
func TestKeysOfANode(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(file, []byte(key), 0o600); err != nil {
		t.Fatal(err)
	}
	f := start(t, "API_KEYS_FILE="+file)
	n, next := f.Nodes[0], "another-key-that-is-long-enough-too"
	if status, got := post(t, n, "info", "{}", key); status != 200 {
		t.Errorf("%d %s", status, got)
	}
	if status, got := post(t, n, "info", "{}", next); status != 401 {
		t.Errorf("%d %s", status, got)
	}
	if err := os.WriteFile(file, []byte(next), 0o600); err != nil {
		t.Fatal(err)
	}
	fleet.Poll(t, "the keys have changed", func() error {
		was, _ := post(t, n, "info", "{}", key)
		is, _ := post(t, n, "info", "{}", next)
		if was != 401 || is != 200 {
			return fmt.Errorf("%d for the old key, %d for the new one", was, is)
		}
		return nil
	})
	res, err := fleet.Client(nil).Get(n.Private + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	metrics, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, status := range []string{"200", "401"} { // by route, never by what callers put into the path
		if !strings.Contains(string(metrics), `method="POST",route="/api/{method}",status="`+status+`"`) {
			t.Errorf("no requests with %s are counted", status)
		}
	}
	if status, _ := post(t, &fleet.Node{Private: n.URL}, "info", "{}", next); status != 404 {
		t.Errorf("the public port answered %d", status)
	}
	if status, _ := post(t, f.StartNode("API_KEYS_FILE="), "info", "{}", next); status != 404 {
		t.Errorf("a node without keys answered %d", status)
	}
}

// make run has the API too, with a key of its own that it says where to find.
func TestLocal(t *testing.T) {
	data := t.TempDir()
	p := fleet.Run(t, "local", fleet.Binary(t, "local"), []string{"PORT=127.0.0.1:0", "DATA_DIR=" + data, "STAGE=test"})
	m := p.Await(`^server API (http://127\.0\.0\.1:\d+)/api \(X-API-Key: a line of (\S+)\)`)
	made, err := os.ReadFile(m[2])
	if err != nil || filepath.Dir(m[2]) != data {
		t.Fatalf("%s: %v", m[2], err)
	}
	if status, got := post(t, &fleet.Node{Private: m[1]}, "publish", `{"channel":"system","data":{"text":"hello"}}`, strings.TrimSpace(string(made))); status != 200 || !strings.Contains(got, `"offset":1`) {
		t.Errorf("%d %s", status, got)
	}
}
