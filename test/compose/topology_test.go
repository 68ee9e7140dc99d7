package compose

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/centrifugal/centrifuge-go"

	"tideline/shared/channel"
	"tideline/shared/token"
	"tideline/test/dynamotest"
	"tideline/test/fleet"
	"tideline/test/port"
	"tideline/test/redistest"
)

const patience = time.Minute

// built is the folder of binaries, once a test has asked for one.
var built string

// binaries are built as the Dockerfile does: static, one folder.
var binaries = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "tideline-compose-")
	if err != nil {
		return "", err
	}
	built = dir
	for name, pkg := range map[string]string{"node": "./node", "compose": "./local/compose", "session": "./functions/session/bootstrap", "todos": "./functions/todos/bootstrap",
		"tasks": "./functions/tasks/bootstrap", "outbox": "./functions/outbox/bootstrap"} {
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, name), pkg)
		cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return dir, fmt.Errorf("go build %s: %w\n%s", pkg, err, out)
		}
	}
	return dir, nil
})

func binary(t *testing.T, name string) string {
	t.Helper()
	dir, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

// startNginx runs a shipped configuration with other addresses, and nothing else changed: each is replaced wherever it stands, and must stand somewhere.
func startNginx(t *testing.T, file string, replace map[string]string) *fleet.Process {
	t.Helper()
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		if _, err := os.Stat("/usr/sbin/nginx"); err != nil {
			t.Fatal("nginx is needed: make setup installs it on Debian")
		}
		nginx = "/usr/sbin/nginx"
	}
	data, err := os.ReadFile(filepath.Join(root, "local/compose", file))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(data), " /tmp/", " "+dir+"/")
	for from, to := range replace {
		if !strings.Contains(text, from) {
			t.Fatalf("%s does not have %q", file, from)
		}
		text = strings.ReplaceAll(text, from, to)
	}
	path := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	// A test that runs as root lets the workers be root, too: Debian's nobody can't read the test's folders. Containers have one user from the beginning.
	args := []string{"-c", path, "-p", dir, "-g", "daemon off;"}
	if os.Geteuid() == 0 {
		args[len(args)-1] += " user root;"
	}
	return fleet.Run(t, "nginx", nginx, nil, args...)
}

// topology is compose.yaml's, as processes.
type topology struct {
	url   string
	nodes []*fleet.Process
	env   []string // of the functions
}

func start(t *testing.T) *topology {
	t.Helper()
	redis, db := redistest.Start(t), dynamotest.Start(t)
	secrets := t.TempDir()
	s := &topology{env: append(db.Environment(), "STAGE=compose", "REDIS_URL="+redis.URL(), "TOKEN_SECRETS=@"+secrets+"/token", "TODO_TABLE=todos", "SESSION_TABLE=sessions",
		"FILES_DIR="+t.TempDir(), "FILES_SECRET=@"+secrets+"/files", "SECRETS_DIR="+secrets, "AWS_ENDPOINT_URL="+db.URL)}
	for range 2 { // the second start finds what the first one made
		if p := fleet.Run(t, "setup", binary(t, "compose"), s.env, "setup"); p.Wait() != 0 {
			t.Fatalf("setup: %s", p.Output())
		}
	}
	front, replace := port.Free(t), map[string]string{}
	s.url = "http://127.0.0.1:" + front
	replace["listen 8080;"] = "listen 127.0.0.1:" + front + ";"
	private := map[string]string{}
	for _, name := range []string{"session", "todos", "tasks", "outbox"} {
		public := port.Free(t)
		private[name] = "http://127.0.0.1:" + port.Free(t)
		p := fleet.Run(t, name, binary(t, name), append([]string{"PORT=" + public, "PRIVATE_PORT=" + private[name][len("http://127.0.0.1:"):]}, s.env...))
		p.Await(`"listening"`)
		if name != "outbox" {
			replace["server "+name+":8080"] = "server 127.0.0.1:" + public
		}
		healthy(t, private[name]+"/healthz")
	}
	fleet.Run(t, "carry", binary(t, "compose"), append([]string{"OUTBOX_URL=" + private["outbox"], "WORKER_URL=" + private["tasks"]}, s.env...), "carry")
	for i := range 2 {
		name := fmt.Sprint("node-", i+1)
		n := fleet.Run(t, name, binary(t, "node"), []string{"PORT=127.0.0.1:0", "PRIVATE_PORT=127.0.0.1:0", "NODE_ID=" + name, "STAGE=compose", "REDIS_URL=" + redis.URL(),
			"TOKEN_SECRETS=@" + secrets + "/token", "TRUSTED_HOPS=1", "DRAIN_GRACE=1s", "DRAIN_WINDOW=1s"})
		m := n.Await(`"node ready".*"public":"([^"]+)","private":"([^"]+)"`)
		replace["server "+name+":8000"] = "server " + m[1]
		s.nodes = append(s.nodes, n)
		healthy(t, "http://"+m[2]+"/readyz")
	}
	startNginx(t, "nginx.conf", replace)
	fleet.Poll(t, "nginx answers", func() error {
		res, err := http.Get(s.url + "/nginx-health")
		if err == nil {
			res.Body.Close()
			if res.StatusCode != http.StatusNoContent {
				err = fmt.Errorf("%s", res.Status)
			}
		}
		return err
	})
	return s
}

// healthy runs the containers' health check.
func healthy(t *testing.T, url string) {
	t.Helper()
	fleet.Poll(t, url+" is healthy", func() error {
		if p := fleet.Run(t, "health", binary(t, "compose"), nil, "health", url); p.Wait() != 0 {
			return fmt.Errorf("%s", p.Output())
		}
		return nil
	})
}

// visitor is a browser.
type visitor struct {
	t      *testing.T
	s      *topology
	http   *http.Client
	user   string
	token  string
	client *centrifuge.Client

	mu        sync.Mutex
	connected int
	node      string
	got       []string
	lost      []string // subscriptions that could not be recovered
}

// visit opens the page and begins a session.
func (s *topology) visit(t *testing.T) *visitor {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	v := &visitor{t: t, s: s, http: fleet.Client(jar)}
	if code, _ := v.do("GET", "/", "", nil); code != http.StatusOK {
		t.Fatalf("page: %d", code)
	}
	var session struct{ User, Token string }
	if code, body := v.do("POST", "/api/session", "{}", nil); code/100 != 2 || json.Unmarshal([]byte(body), &session) != nil || session.Token == "" {
		t.Fatalf("session: %d %s", code, body)
	}
	v.user, v.token = session.User, session.Token
	return v
}

// do makes a request with the visitor's cookies and token.
func (v *visitor) do(method, path, body string, header http.Header) (int, string) {
	v.t.Helper()
	res := v.request(method, path, body, header)
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		v.t.Fatal(err)
	}
	return res.StatusCode, string(data)
}

func (v *visitor) request(method, path, body string, header http.Header) *http.Response {
	v.t.Helper()
	r, err := http.NewRequestWithContext(v.t.Context(), method, v.s.url+path, strings.NewReader(body))
	if err != nil {
		v.t.Fatal(err)
	}
	for name, values := range header {
		r.Header[name] = values
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if v.token != "" {
		r.Header.Set("Authorization", "Bearer "+v.token)
	}
	res, err := v.http.Do(r)
	if err != nil {
		v.t.Fatal(err)
	}
	return res
}

// connect opens the socket with the page's cookies, and subscribes.
func (v *visitor) connect(header http.Header, channels ...string) {
	v.t.Helper()
	u, err := url.Parse(v.s.url)
	if err != nil {
		v.t.Fatal(err)
	}
	h := http.Header{}
	for name, values := range header {
		h[name] = values
	}
	for _, c := range v.http.Jar.Cookies(u) {
		h.Add("Cookie", c.String())
	}
	v.client = centrifuge.NewJsonClient("ws"+strings.TrimPrefix(v.s.url, "http")+"/connection/websocket",
		centrifuge.Config{Token: v.token, Header: h, MinReconnectDelay: 50 * time.Millisecond, MaxReconnectDelay: 500 * time.Millisecond})
	v.t.Cleanup(v.client.Close)
	v.client.OnConnected(func(e centrifuge.ConnectedEvent) {
		var data struct{ Node string }
		_ = json.Unmarshal(e.Data, &data) // an empty name fails the test
		v.mu.Lock()
		v.connected++
		v.node = data.Node
		v.mu.Unlock()
	})
	for _, name := range channels {
		sub, err := v.client.NewSubscription(name)
		if err != nil {
			v.t.Fatal(err)
		}
		sub.OnPublication(func(e centrifuge.PublicationEvent) {
			v.mu.Lock()
			v.got = append(v.got, string(e.Data))
			v.mu.Unlock()
		})
		sub.OnSubscribed(func(e centrifuge.SubscribedEvent) {
			if e.WasRecovering && !e.Recovered {
				v.mu.Lock()
				v.lost = append(v.lost, name)
				v.mu.Unlock()
			}
		})
		if err := sub.Subscribe(); err != nil {
			v.t.Fatal(err)
		}
	}
	if err := v.client.Connect(); err != nil {
		v.t.Fatal(err)
	}
	v.until("connected", func() bool { return v.connected > 0 })
	for _, sub := range v.client.Subscriptions() {
		v.until("subscribed", func() bool { return sub.State() == centrifuge.SubStateSubscribed })
	}
}

// until polls a condition about what the visitor has seen.
func (v *visitor) until(what string, is func() bool) {
	v.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		v.mu.Lock()
		ok := is()
		state := fmt.Sprint(v.connected, v.node, v.got)
		v.mu.Unlock()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			v.t.Fatalf("not within %v: %s (%.2000s)", patience, what, state)
		}
	}
}

// hears waits for a publication that contains a text.
func (v *visitor) hears(text string) {
	v.t.Helper()
	v.until("a publication with "+text, func() bool {
		for _, p := range v.got {
			if strings.Contains(p, text) {
				return true
			}
		}
		return false
	})
}

func (v *visitor) says(room, text string) {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(v.t.Context(), patience)
	defer cancel()
	sub, ok := v.client.GetSubscription(room)
	if !ok {
		v.t.Fatalf("not subscribed to %s", room)
	}
	if _, err := sub.Publish(ctx, fmt.Appendf(nil, `{"text":%q}`, text)); err != nil {
		v.t.Fatal(err)
	}
}

// watchLog subscribes an operator of a node, and answers the publications.
func watchLog(t *testing.T, socket, name string) <-chan string {
	t.Helper()
	secrets, err := token.NewSecrets([]string{fleet.Secret}, nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := secrets.Sign(token.Claims{User: "ann", Roles: []string{channel.RoleOperator}, Expires: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	c := centrifuge.NewJsonClient(socket, centrifuge.Config{Token: raw})
	t.Cleanup(c.Close)
	sub, err := c.NewSubscription(name)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 1000)
	sub.OnPublication(func(e centrifuge.PublicationEvent) { got <- string(e.Data) })
	if err := sub.Subscribe(); err != nil {
		t.Fatal(err)
	}
	if err := c.Connect(); err != nil {
		t.Fatal(err)
	}
	return got
}
