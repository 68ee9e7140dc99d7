package streams

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/centrifugal/centrifuge-go"

	"tideline/shared/channel"
	"tideline/shared/token"
	"tideline/test/enginetest"
	"tideline/test/fleet"
	"tideline/test/redistest"
)

const (
	// patience is how long a test waits for what needs no takeover, on a machine that may stand still for some seconds.
	patience = time.Minute
	image    = "tideline/chatter:test"
)

// buildChatter builds the containers' program: static, so that it runs in an image FROM scratch.
func buildChatter(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "chatter")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "tideline/test/streams/chatter")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

// node is one node process, whose way to Redis can be cut.
type node struct {
	*fleet.Process
	url   string
	redis *redistest.Proxy
}

// startNodes starts node processes over one Redis, each through a proxy of its own.
func startNodes(t *testing.T, n int, docker ...string) []*node {
	t.Helper()
	redis := redistest.Start(t)
	nodes := make([]*node, n)
	for i := range nodes {
		p := redistest.StartProxy(t, redis.Addr())
		id := fmt.Sprint("node-", i)
		nodes[i] = &node{redis: p, Process: fleet.Run(t, id, fleet.Binary(t, "node"), append([]string{"PORT=127.0.0.1:0", "PRIVATE_PORT=127.0.0.1:0", "NODE_ID=" + id,
			"REDIS_URL=" + p.URL(), "TOKEN_SECRETS=" + fleet.Secret, "STAGE=test", "DRAIN_GRACE=100ms", "DRAIN_WINDOW=200ms"}, docker...))}
	}
	for _, n := range nodes {
		n.url = "ws://" + n.Await(`"node ready".*"public":"([^"]+)"`)[1] + "/connection/websocket"
	}
	return nodes
}

// line is what browsers get.
type line struct {
	Time    int64  `json:"t,omitempty"`
	Stream  string `json:"s,omitempty"`
	Text    string `json:"m,omitempty"`
	Cut     bool   `json:"cut,omitempty"`
	Note    string `json:"note,omitempty"`
	Gap     string `json:"gap,omitempty"`
	Dropped int    `json:"dropped,omitempty"`
	Data    *data  `json:"data,omitempty"`
}

// data is an event.
type data struct{ Type, Action, Name, Exit string }

func (l line) String() string {
	b, _ := json.Marshal(l)
	return string(b)
}

// viewer watches one channel through one node.
type viewer struct {
	t   *testing.T
	sub *centrifuge.Subscription

	mu    sync.Mutex
	lines []line
}

// signed is an access token of somebody with these roles.
func signed(t *testing.T, roles ...string) string {
	t.Helper()
	secrets, err := token.NewSecrets([]string{fleet.Secret}, nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := secrets.Sign(token.Claims{User: "ann", Roles: roles, Expires: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// connect makes a client of the public SDK.
func connect(t *testing.T, n *node, roles ...string) *centrifuge.Client {
	t.Helper()
	c := centrifuge.NewJsonClient(n.url, centrifuge.Config{Token: signed(t, roles...), MinReconnectDelay: 100 * time.Millisecond, MaxReconnectDelay: time.Second})
	t.Cleanup(c.Close)
	if err := c.Connect(); err != nil {
		t.Fatal(err)
	}
	return c
}

// watch subscribes an operator through a node and waits until it is.
func watch(t *testing.T, n *node, name string) *viewer {
	t.Helper()
	c := connect(t, n, channel.RoleOperator)
	v := &viewer{t: t}
	var err error
	if v.sub, err = c.NewSubscription(name); err != nil {
		t.Fatal(err)
	}
	v.sub.OnPublication(func(e centrifuge.PublicationEvent) { v.take(e.Data) })
	subscribed, once := make(chan struct{}), sync.Once{}
	v.sub.OnSubscribed(func(centrifuge.SubscribedEvent) { once.Do(func() { close(subscribed) }) })
	if err := v.sub.Subscribe(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-subscribed:
	case <-time.After(patience):
		t.Fatalf("not subscribed to %s", name)
	}
	return v
}

// take takes one publication.
func (v *viewer) take(data []byte) {
	var batch struct {
		Type  string `json:"type"`
		Lines []line `json:"lines"`
	}
	if err := json.Unmarshal(data, &batch); err != nil || batch.Type != "lines" || len(batch.Lines) == 0 {
		v.t.Errorf("publication %.200s: %v", data, err)
	}
	v.mu.Lock()
	v.lines = append(v.lines, batch.Lines...)
	v.mu.Unlock()
}

func (v *viewer) seen() []line {
	v.mu.Lock()
	defer v.mu.Unlock()
	return append([]line(nil), v.lines...)
}

// until waits for a line after the first n, and answers how many there are up to it. Each line is looked at once, in turn.
func (v *viewer) until(after int, within time.Duration, what string, is func(line) bool) int {
	v.t.Helper()
	for deadline := time.Now().Add(within); ; time.Sleep(10 * time.Millisecond) {
		v.mu.Lock()
		all := v.lines
		v.mu.Unlock()
		for ; after < len(all); after++ {
			if is(all[after]) {
				return after + 1
			}
		}
		if time.Now().After(deadline) {
			v.t.Fatalf("not within %v: %s; the last of %d lines: %v; those that are not numbered by the container: %v", within, what, len(all), all[max(0, len(all)-10):], marked(all))
		}
	}
}

// marked are the lines that are no container's numbers, with their neighbours, for messages.
func marked(all []line) (found []string) {
	for i, l := range all {
		if _, ok := number(l); !ok {
			found = append(found, fmt.Sprintf("%d of %v", i, all[max(0, i-2):min(len(all), i+3)]))
		}
	}
	return found[max(0, len(found)-20):]
}

func note(text string) func(line) bool {
	return func(l line) bool { return strings.Contains(l.Note, text) }
}

// ofNow is a line that was written after the call.
func ofNow() func(line) bool {
	now := time.Now().UnixMilli()
	return func(l line) bool { return l.Time >= now }
}

func text(s string) func(line) bool { return func(l line) bool { return l.Text == s } }

func numbered(l line) bool { return strings.HasPrefix(l.Text, "n=") }

// from waits for the numbered line n, or a later one.
func from(n int) func(line) bool {
	return func(l line) bool { i, ok := number(l); return ok && i >= n }
}

func number(l line) (int, bool) {
	s, ok := strings.CutPrefix(l.Text, "n=")
	n, err := strconv.Atoi(s)
	return n, ok && err == nil
}

// engineAway is a line that says so. On a machine that stands still for a moment one may come at any time; nothing is lost for it.
func engineAway(l line) bool { return strings.Contains(l.Gap, "does not answer") }

// complete fails unless the numbered lines of each stream follow each other without a hole or a repetition, anew after each start of the container; nothing
// may be said to be lost. The note of a start is made when somebody looks, which may be after the first lines.
func complete(t *testing.T, who string, lines []line) {
	t.Helper()
	starts := 0
	last, anew := map[string]int{}, map[string]int{}
	for i, l := range lines {
		if l.Gap != "" && !engineAway(l) || l.Dropped > 0 {
			t.Errorf("%s: line %d is %v", who, i, l)
		}
		if strings.Contains(l.Note, "was started") {
			starts++
		}
		n, ok := number(l)
		if !ok {
			continue
		}
		switch before, known := last[l.Stream]; {
		case !known || n == before+2:
		case n < 2: // the first of the stream
			anew[l.Stream]++
		default:
			t.Errorf("%s: line %d of %s is %d after %d", who, i, l.Stream, n, before)
		}
		last[l.Stream] = n
	}
	if len(last) != 2 {
		t.Errorf("%s: lines of %d streams", who, len(last))
	}
	for stream, n := range anew {
		if n != starts {
			t.Errorf("%s: %s counts anew %d times, the container was started %d times", who, stream, n, starts)
		}
	}
}

// reader is the node that reads a channel now.
func reader(t *testing.T, nodes []*node, name string) *node {
	t.Helper()
	var found *node
	fleet.Poll(t, "one node reads "+name, func() error {
		found = nil
		for _, n := range nodes {
			if reads(n, name) {
				if found != nil {
					return fmt.Errorf("%s and %s do", found.Name, n.Name)
				}
				found = n
			}
		}
		if found == nil {
			return fmt.Errorf("none does")
		}
		return nil
	})
	return found
}

// turn is a line of a node's log about a stream.
type turn struct {
	Time    time.Time `json:"time"`
	Msg     string    `json:"msg"`
	Channel string    `json:"channel"`
}

const (
	begins = "stream begins here"
	ends   = "stream ends here"
)

// turns are the beginnings and ends of a stream on a node.
func turns(n *node, name string) (all []turn) {
	for s := range strings.SplitSeq(n.Output(), "\n") {
		var l turn
		if json.Unmarshal([]byte(s), &l) == nil && l.Channel == name && (l.Msg == begins || l.Msg == ends) {
			all = append(all, l)
		}
	}
	return all
}

func reads(n *node, name string) bool {
	all := turns(n, name)
	return n.Running() && len(all) > 0 && all[len(all)-1].Msg == begins
}

// engineOf starts the engine that all tests of a file share, with the chatter's image.
func engineOf(t *testing.T) *enginetest.Engine {
	t.Helper()
	e := enginetest.Start(t, enginetest.Options{})
	e.Image(image, buildChatter(t))
	return e
}
