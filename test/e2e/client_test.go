package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"tideline/test/fleet"
)

// client is a Node.js process with the public Centrifuge client (client.mjs), one browser as it were.
type client struct {
	*fleet.Process
	t    *testing.T
	last atomic.Int64
	user string
}

// event is a line of client.mjs.
type event struct {
	Event   string
	ID      int64
	Node    string
	Code    int
	Reason  string
	Channel string
	Message string
	Offset  uint64
	User    string
	Data    json.RawMessage
	Tags    map[string]string
	Result  json.RawMessage
	Error   *clientError

	Recovered, WasRecovering bool
}

type clientError struct {
	Code    int
	Message string
}

func (e *clientError) Error() string { return fmt.Sprintf("%d %s", e.Code, e.Message) }

// newClient starts a client that speaks to origin, without a session.
func newClient(t *testing.T, name, origin string, env ...string) *client {
	t.Helper()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatalf("Node.js is needed: %v; make setup says what to install", err)
	}
	p := fleet.Run(t, name, node, append([]string{"ORIGIN=" + origin}, env...), "client.mjs")
	return &client{Process: p, t: t}
}

// guest starts a client with a guest's session and an open socket, and answers the node that holds it.
func guest(t *testing.T, name, origin string) (*client, string) {
	t.Helper()
	c := newClient(t, name, origin)
	var session struct{ User string }
	c.mustDo(&session, "session", nil)
	c.user = session.User
	return c, c.connect()
}

// join starts a client of the same user by a one-time link, as a second device does, and answers the node that holds its socket.
func (c *client) join(name, origin string) (*client, string) {
	c.t.Helper()
	var link struct {
		Status int
		Body   struct{ URL string }
	}
	c.mustDo(&link, "rest", args{"method": "POST", "path": "/api/session/link"})
	_, path, found := strings.Cut(strings.TrimPrefix(link.Body.URL, "http://"), "/")
	if !found {
		c.t.Fatalf("link: %+v", link)
	}
	other := newClient(c.t, name, origin)
	var opened struct{ Status int }
	// POST is what the page's button does. To GET, Node.js's fetch looks like a script that looks at the link in advance.
	if other.mustDo(&opened, "rest", args{"method": "POST", "path": "/" + path}); opened.Status != 303 {
		c.t.Fatalf("opening the link answered %d", opened.Status)
	}
	var session struct{ User string }
	other.mustDo(&session, "session", nil)
	if other.user = session.User; other.user != c.user {
		c.t.Fatalf("the link signed in %q, not %q", other.user, c.user)
	}
	return other, other.connect()
}

type args map[string]any

// do sends a command and waits for its answer.
func (c *client) do(result any, op string, a args) error {
	c.t.Helper()
	id := c.last.Add(1)
	line := args{"id": id, "op": op}
	for k, v := range a {
		line[k] = v
	}
	b, err := json.Marshal(line)
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.Stdin.Write(append(b, '\n')); err != nil {
		c.t.Fatalf("%s: %v\n%s", c.Name, err, c.Tail())
	}
	answer := c.parse(c.Await(fmt.Sprintf(`^\{"event":"answer","id":%d,.*`, id))[0])
	if answer.Error != nil {
		return answer.Error
	}
	if result != nil {
		if err := json.Unmarshal(answer.Result, result); err != nil {
			c.t.Fatalf("%s %s: %s: %v", c.Name, op, answer.Result, err)
		}
	}
	return nil
}

func (c *client) mustDo(result any, op string, a args) {
	c.t.Helper()
	if err := c.do(result, op, a); err != nil {
		c.t.Fatalf("%s: %s %v: %v\n%s", c.Name, op, a, err, c.Tail())
	}
}

func (c *client) parse(line string) event {
	c.t.Helper()
	var e event
	if err := json.Unmarshal([]byte(line), &e); err != nil {
		c.t.Fatalf("%s said %s: %v", c.Name, line, err)
	}
	return e
}

// event waits for an event after a mark: its kind, and what its line must contain.
func (c *client) event(mark int, kind string, contains ...string) event {
	c.t.Helper()
	pattern := `^\{"event":"` + kind + `"`
	for _, s := range contains {
		pattern += ".*" + regexp.QuoteMeta(s)
	}
	return c.parse(c.AwaitAfter(mark, pattern+".*")[0])
}

func (c *client) connect() string {
	c.t.Helper()
	mark := c.Lines()
	c.mustDo(nil, "connect", nil)
	return c.event(mark, "connected").Node
}

func (c *client) subscribe(channel string) event {
	c.t.Helper()
	mark := c.Lines()
	c.mustDo(nil, "subscribe", args{"channel": channel})
	return c.event(mark, "subscribed", channel)
}

// say sends a chat line, as the page does: with an id, so that a retry says it once. Error 100 is temporary: the node's Redis did not answer in time.
func (c *client) say(text string) error {
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		err := c.do(nil, "rpc", args{"method": "publish", "data": args{"channel": lobby, "id": c.Name + text, "data": args{"text": text}}})
		var refused *clientError
		if !errors.As(err, &refused) || refused.Code != 100 || time.Now().After(deadline) {
			return err
		}
	}
}

// createTodo over REST, through the load balancer.
func (c *client) createTodo(title string) (status int, id string) {
	c.t.Helper()
	var res struct {
		Status int
		Body   struct{ ID string }
	}
	c.mustDo(&res, "rest", args{"method": "POST", "path": "/api/todos", "body": args{"title": title}})
	return res.Status, res.Body.ID
}

// count of publications that contain a text, and whether offsets of a channel ever went back or repeated.
func (c *client) count(channel, text string) (n int) {
	c.t.Helper()
	var last uint64
	for line := range strings.Lines(c.Output()) {
		if !strings.HasPrefix(line, `{"event":"publication"`) {
			continue
		}
		e := c.parse(strings.TrimSpace(line))
		if e.Channel != channel {
			continue
		}
		if e.Offset <= last {
			c.t.Errorf("%s: offset %d on %s after %d", c.Name, e.Offset, channel, last)
		}
		last = e.Offset
		if strings.Contains(string(e.Data), text) {
			n++
		}
	}
	return n
}
