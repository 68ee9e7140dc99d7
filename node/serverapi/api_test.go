package serverapi

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/prometheus/client_golang/prometheus"

	"tideline/node/conn"
	"tideline/shared/bus"
	"tideline/shared/channel"
	"tideline/shared/token"
	"tideline/test/leak"
	"tideline/test/redistest"
)

func TestMain(m *testing.M) {
	// These tests wait for deadlines and servers more than they compute.
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	leak.Main(m)
}

const (
	secret = "0123456789abcdef0123456789abcdef"
	key    = "the tests hold this key of the API"
	older  = "and this one is on its way out: ok"
)

// spaces are the namespaces of the tests, and of the page's examples.
const spaces = `{"namespaces": [
  {"name": "open", "subscribe": "signed-in", "publish": "signed-in", "history": {"size": 100, "ttl": "1h"}, "recover": true, "presence": true, "joinLeave": true},
  {"name": "plain", "subscribe": "signed-in", "dataBytes": 1000},
  {"name": "bytes", "subscribe": "signed-in", "binary": true, "history": {"size": 100, "ttl": "1h"}},
  {"name": "room", "subscribe": "signed-in", "publish": "subscribers", "stamped": true}
]}`

// node is one node: its sockets, and its API on a port of its own.
type node struct {
	t       *testing.T
	sockets *conn.Service
	bus     *bus.Bus
	api     *API
	url     string // of the API, without /api
	socket  string
	tokens  *token.Secrets
	stop    func()
}

func startNode(t *testing.T, redisURL, id string, change func(*conn.Options)) *node {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	b, err := bus.Open(t.Context(), bus.Options{URL: redisURL, Stage: "test", Log: log})
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := token.NewSecrets([]string{secret}, nil)
	if err != nil {
		t.Fatal(err)
	}
	table, err := channel.Parse([]byte(spaces))
	if err != nil {
		t.Fatal(err)
	}
	o := conn.Options{NodeID: id, Version: "test", Bus: b, Table: table, Verifier: tokens, Metrics: prometheus.NewRegistry(), Log: log, AnnounceWindow: time.Millisecond,
		PingInterval: 5 * time.Minute} // tests' clients read, and answer pings, only when they wait for something
	if change != nil {
		change(&o)
	}
	sockets, err := conn.New(o)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := ParseKeys(strings.ReplaceAll(key+","+older, " ", "-"))
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, sockets: sockets, bus: b, tokens: tokens, api: New(Options{Sockets: sockets, Bus: b, Keys: keys, Log: log})}
	public, private := http.NewServeMux(), http.NewServeMux()
	sockets.Register(public)
	n.api.Register(private)
	front, back := httptest.NewServer(public), httptest.NewServer(private)
	n.url, n.socket = back.URL, "ws"+strings.TrimPrefix(front.URL, "http")+conn.Path
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- sockets.Run(ctx) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("node %s: %v", id, err)
		}
		front.Close()
		back.Close()
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(n.stop)
	return n
}

// fleet is two nodes that answer each other.
func fleet(t *testing.T, change func(*conn.Options)) (n1, n2 *node) {
	t.Helper()
	redis := redistest.Start(t)
	n1, n2 = startNode(t, redis.URL(), "n1", change), startNode(t, redis.URL(), "n2", change)
	eventually(t, "both nodes answer", func() bool {
		nodes, err := n1.bus.Nodes(t.Context())
		if err != nil || len(nodes) != 2 {
			return false
		}
		l, err := n1.sockets.Connections(t.Context(), conn.Query{})
		return err == nil && len(l.Missing) == 0
	})
	return n1, n2
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// post answers the status and the body of a call with a good key.
func (n *node) post(path, body string, headers ...string) (int, string) {
	n.t.Helper()
	r, err := http.NewRequestWithContext(n.t.Context(), http.MethodPost, n.url+path, strings.NewReader(body))
	if err != nil {
		n.t.Fatal(err)
	}
	r.Header.Set("X-API-Key", strings.ReplaceAll(key, " ", "-"))
	for i := 0; i < len(headers); i += 2 {
		if r.Header.Set(headers[i], headers[i+1]); headers[i+1] == "" {
			r.Header.Del(headers[i])
		}
	}
	return do(n.t, r)
}

func do(t *testing.T, r *http.Request) (int, string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
	res, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, strings.TrimSpace(string(body))
}

// call is a call that must be answered with 200 and these parts.
func (n *node) call(method, body, parts string) map[string]any {
	n.t.Helper()
	status, got := n.post("/api/"+method, body)
	if status != http.StatusOK {
		n.t.Fatalf("%s %s: %d %s", method, body, status, got)
	}
	return want(n.t, got, parts)
}

// want compares the given parts of a JSON object; … stands for anything.
func want(t *testing.T, got, parts string) map[string]any {
	t.Helper()
	var g, w map[string]any
	if err := json.Unmarshal([]byte(got), &g); err != nil {
		t.Fatalf("%s: %v", got, err)
	}
	if err := json.Unmarshal([]byte(parts), &w); err != nil {
		t.Fatalf("%s: %v", parts, err)
	}
	if !contains(g, w) {
		t.Fatalf("got  %s\nwant %s", got, parts)
	}
	return g
}

func contains(got, want any) bool {
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		for k := range w {
			ok = ok && contains(g[k], w[k])
		}
		return ok
	case []any:
		g, ok := got.([]any)
		ok = ok && len(g) == len(w)
		for i := range w {
			ok = ok && contains(g[i], w[i])
		}
		return ok
	}
	if want == "…" {
		return got != nil
	}
	return fmt.Sprint(got) == fmt.Sprint(want)
}

// client is one that says what the test says, in JSON.
type client struct {
	t       *testing.T
	ws      *websocket.Conn
	id      string
	pending []string
}

func (n *node) connect(c token.Claims) *client {
	n.t.Helper()
	if c.Expires.IsZero() {
		c.Expires = time.Now().Add(time.Hour)
	}
	raw, err := n.tokens.Sign(c)
	if err != nil {
		n.t.Fatal(err)
	}
	ws, _, err := websocket.DefaultDialer.Dial(n.socket, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { ws.Close() })
	r := &client{t: n.t, ws: ws}
	r.send(fmt.Sprintf(`{"id":1,"connect":{"token":%q}}`, raw))
	r.id = r.want(`{"id":1,"connect":{}}`)["connect"].(map[string]any)["client"].(string)
	return r
}

func (c *client) send(frame string) {
	c.t.Helper()
	if err := c.ws.WriteMessage(websocket.TextMessage, []byte(frame)); err != nil {
		c.t.Fatal(err)
	}
}

// subscribe succeeds in the end: a node that has just started may not have its lease yet.
func (c *client) subscribe(name string) {
	c.t.Helper()
	eventually(c.t, "subscribed to "+name, func() bool {
		c.send(fmt.Sprintf(`{"id":2,"subscribe":{"channel":%q}}`, name))
		return c.want(`{"id":2}`)["subscribe"] != nil
	})
}

func (c *client) read() ([]byte, error) {
	if err := c.ws.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return nil, err
	}
	_, data, err := c.ws.ReadMessage()
	return data, err
}

// line reads the next value that is neither a ping, which is answered, nor a join or leave: whether one hears of oneself is a matter of time.
func (c *client) line() string {
	c.t.Helper()
	for late := time.Now().Add(30 * time.Second); ; {
		if time.Now().After(late) {
			c.t.Fatal("heard nothing but pings")
		}
		for len(c.pending) == 0 {
			data, err := c.read()
			if err != nil {
				c.t.Fatal(err)
			}
			c.pending = strings.Split(string(data), "\n")
		}
		line := c.pending[0]
		c.pending = c.pending[1:]
		switch {
		case line == "{}":
			c.send("{}")
		case strings.Contains(line, `"join":`) || strings.Contains(line, `"leave":`):
		default:
			return line
		}
	}
}

func (c *client) want(parts string) map[string]any {
	c.t.Helper()
	return want(c.t, c.line(), parts)
}

// pings waits for so many pings, and answers them.
func (c *client) pings(n int) {
	c.t.Helper()
	for n > 0 {
		data, err := c.read()
		if err != nil {
			c.t.Fatal(err)
		}
		if bytes.Equal(data, []byte("{}")) {
			c.send("{}")
			n--
		}
	}
}

func (c *client) wantClose(code int, reason string) {
	c.t.Helper()
	for late := time.Now().Add(30 * time.Second); ; {
		if time.Now().After(late) {
			c.t.Fatalf("not closed, want %d %s", code, reason)
		}
		data, err := c.read()
		if err == nil {
			if bytes.Equal(data, []byte("{}")) {
				c.send("{}")
			}
			continue
		}
		if e, ok := err.(*websocket.CloseError); !ok || e.Code != code || e.Text != reason {
			c.t.Fatalf("closed with %v, want %d %s", err, code, reason)
		}
		return
	}
}

func TestPublicationsArriveOnTheOtherNode(t *testing.T) {
	t.Parallel()
	n1, n2 := fleet(t, nil)
	ann := n2.connect(token.Claims{User: "ann"})
	ann.subscribe("open:a")
	first := n1.call("publish", `{"channel":"open:a","data":{"text":"<hello>"},"tags":{"k":"v"}}`, `{"result":{"offset":1,"epoch":"…"}}`)
	ann.want(`{"push":{"channel":"open:a","pub":{"data":{"text":"<hello>"},"offset":1,"tags":{"k":"v"}}}}`)
	// The same id publishes once, whichever node is asked, and is answered with the first position.
	epoch := first["result"].(map[string]any)["epoch"].(string)
	n1.call("publish", `{"channel":"open:a","data":2,"idempotency_key":"x"}`, `{"result":{"offset":2}}`)
	for _, n := range []*node{n1, n2} {
		n.call("publish", `{"channel":"open:a","data":3,"idempotency_key":"x"}`, fmt.Sprintf(`{"result":{"offset":2,"epoch":%q,"duplicate":true}}`, epoch))
	}
	ann.want(`{"push":{"pub":{"data":2,"offset":2}}}`)
	// An older version is not published, another epoch's or key's is.
	for _, c := range []struct{ body, answer string }{
		{`"version":5`, `{"offset":3}`}, {`"version":5`, `{"offset":3,"superseded":true}`}, {`"version":4`, `{"offset":3,"superseded":true}`},
		{`"version":1,"version_epoch":"b"`, `{"offset":4}`}, {`"version":1,"key":"todo-1"`, `{"offset":5}`}, {`"version":1,"key":"todo-1"`, `{"offset":5,"superseded":true}`},
		{`"b64data":"eyJuIjogN30=","version":6`, `{"offset":6}`},
	} {
		data := `,"data":4`
		if strings.Contains(c.body, "b64data") {
			data = ""
		}
		n2.call("publish", `{"channel":"open:a",`+c.body+data+`}`, `{"result":`+c.answer+`}`)
	}
	for _, offset := range []int{3, 4, 5} {
		ann.want(fmt.Sprintf(`{"push":{"pub":{"data":4,"offset":%d}}}`, offset))
	}
	ann.want(`{"push":{"pub":{"data":{"n":7},"offset":6}}}`)
	// Data is sent on one line, whatever it came on; bytes that are no JSON where the namespace takes them.
	n1.call("publish", "{\"channel\":\"open:a\",\"data\":{ \"a\" :\r\n[ 1 ]}}", `{"result":{"offset":7}}`)
	n1.call("publish", `{"channel":"open:a","b64data":"ewp9"}`, `{"result":{"offset":8}}`) // {, a line break, }
	for _, data := range []string{`{"a":[1]}`, `{}`} {
		if line := ann.line(); !strings.Contains(line, `"data":`+data+`,`) {
			t.Errorf("%s, want %s", line, data)
		}
	}
	n1.call("publish", `{"channel":"bytes:a","b64data":"/w=="}`, `{"result":{"offset":1}}`)
	n1.call("history", `{"channel":"bytes:a","limit":1}`, `{"result":{"publications":[{"b64data":"/w==","offset":1}]}}`)
	// What clients publish stamped, servers do, too.
	ann.subscribe("room:a")
	n1.call("publish", `{"channel":"room:a","data":{"n":1},"idempotency_key":"id-1"}`, `{"result":{"offset":1}}`)
	ann.want(`{"push":{"channel":"room:a","pub":{"data":{"id":"id-1","user":"","node":"n1","time":"…","data":{"n":1}}}}}`)
	// One call for many channels: each has its own answer, in the order of the question.
	n1.call("broadcast", `{"channels":["open:a","nope:a","room:a","open:a b"],"data":"all","idempotency_key":"b"}`,
		`{"result":{"responses":[{"result":{"offset":9}},{"error":{"code":102,"message":"unknown channel"}},{"result":{"offset":2}},{"error":{"code":107,"message":"bad request: channel"}}]}}`)
	n2.call("broadcast", `{"channels":["open:a","open:b"],"data":"all","idempotency_key":"b"}`,
		`{"result":{"responses":[{"result":{"offset":9,"duplicate":true}},{"result":{"offset":1}}]}}`)
}

func TestOrdersReachAClientOnTheOtherNode(t *testing.T) {
	t.Parallel()
	n1, n2 := fleet(t, nil)
	ann := n2.connect(token.Claims{User: "ann", Session: "s1"})
	other := n2.connect(token.Claims{User: "ann"})
	who := fmt.Sprintf(`"user":"ann","client":%q`, ann.id)

	n1.call("send", `{`+who+`,"data":{"text":"psst"}}`, `{"result":{"total":1}}`)
	ann.want(`{"push":{"message":{"data":{"text":"psst"}}}}`)
	n1.call("send", `{"session":"s1","data":1}`, `{"result":{"total":1}}`)
	ann.want(`{"push":{"message":{"data":1}}}`)
	n1.call("send", `{"client":"nobody","data":1}`, `{"error":{"code":104,"message":"not found: client: no such connection"}}`)
	n1.call("send", `{"user":"nobody","data":1}`, `{"result":{"total":0}}`)

	for i := range 3 {
		n1.call("publish", fmt.Sprintf(`{"channel":"open:a","data":%d}`, i+1), `{"result":{}}`)
	}
	top := n1.call("history", `{"channel":"open:a"}`, `{"result":{"offset":3,"publications":[]}}`)["result"].(map[string]any)
	n1.call("subscribe", `{`+who+`,"channel":"open:a","data":{"why":"invited"},"info":{"seat":7},"recover_since":{"offset":1,"epoch":"`+top["epoch"].(string)+`"}}`,
		`{"result":{"total":1}}`)
	ann.want(`{"push":{"channel":"open:a","subscribe":{"recoverable":true,"positioned":true,"offset":1,"epoch":"…","data":{"why":"invited"}}}}`)
	ann.want(`{"push":{"channel":"open:a","pub":{"data":2,"offset":2}}}`)
	ann.want(`{"push":{"channel":"open:a","pub":{"data":3,"offset":3}}}`)
	n1.call("presence", `{"channel":"open:a"}`, fmt.Sprintf(`{"result":{"presence":{%q:{"client":%q,"user":"ann","chan_info":{"seat":7}}}}}`, ann.id, ann.id))
	n1.call("presence_stats", `{"channel":"open:a"}`, `{"result":{"num_clients":1,"num_users":1}}`)
	n1.call("subscribe", `{"client":"`+other.id+`","channel":"open:a","recover_since":{"offset":1,"epoch":"another"}}`,
		`{"error":{"code":112,"message":"unrecoverable position: at 1 of 1 connections"}}`)

	n1.call("unsubscribe", `{"user":"ann","channel":"open:a","unsubscribe":{"code":2700,"reason":"come back"}}`, `{"result":{"total":1}}`)
	ann.want(`{"push":{"channel":"open:a","unsubscribe":{"code":2700,"reason":"come back"}}}`)
	n1.call("subscribe", `{`+who+`,"channel":"open:a"}`, `{"result":{"total":1}}`)
	ann.want(`{"push":{"channel":"open:a","subscribe":{"offset":3}}}`)
	n1.call("unsubscribe", `{"user":"ann","channel":"open:a"}`, `{"result":{"total":1}}`)
	ann.want(`{"push":{"channel":"open:a","unsubscribe":{"code":2000,"reason":"server unsubscribe"}}}`)

	n1.call("refresh", fmt.Sprintf(`{%s,"expire_at":%d}`, who, time.Now().Add(2*time.Hour).Unix()), `{"result":{"total":1}}`)
	push := ann.want(`{"push":{"refresh":{"expires":true,"ttl":"…"}}}`)["push"].(map[string]any)["refresh"].(map[string]any)
	if ttl := push["ttl"].(float64); ttl < 7100 || ttl > 7200 {
		t.Errorf("ttl %v", ttl)
	}
	n1.call("refresh", `{`+who+`}`, `{"result":{"total":1}}`)
	ann.want(`{"push":{"refresh":{}}}`)

	n1.call("disconnect", fmt.Sprintf(`{"user":"ann","whitelist":[%q],"disconnect":{"code":4321,"reason":"moved house"}}`, ann.id), `{"result":{"total":1}}`)
	other.wantClose(4321, "moved house")
	n1.call("refresh", `{`+who+`,"expired":true}`, `{"result":{"total":1}}`)
	ann.wantClose(3005, "connection expired")
	last := n2.connect(token.Claims{User: "ann"})
	n1.call("disconnect", `{"user":"ann"}`, `{"result":{"total":1}}`)
	n1.call("disconnect", `{"user":"ann"}`, `{"result":{"total":0}}`) // although it has not answered the goodbye yet
	last.wantClose(3503, "force disconnect")
}

// hasty is a fleet that looks for what has expired every two seconds.
func hasty(o *conn.Options) {
	o.PingInterval, o.PongTimeout, o.ExpiredGrace = 2*time.Second, 1900*time.Millisecond, time.Second
}

// soon is when something ends that the machine must have set up by then, whatever else it does.
const soon = 6 * time.Second

// A subscription whose end has come does not live on, nor does a connection that was given a new end.
func TestRefreshBringsTheEndNearer(t *testing.T) {
	t.Parallel()
	n1, n2 := fleet(t, hasty)
	ann := n2.connect(token.Claims{User: "ann"})
	n1.call("subscribe", fmt.Sprintf(`{"user":"ann","channel":"plain:a","expire_at":%d}`, time.Now().Add(soon).Unix()), `{"result":{"total":1}}`)
	ann.want(`{"push":{"channel":"plain:a","subscribe":{}}}`)
	ann.want(`{"push":{"channel":"plain:a","unsubscribe":{"code":2501}}}`)
	n1.call("refresh", fmt.Sprintf(`{"user":"ann","expire_at":%d}`, time.Now().Add(soon).Unix()), `{"result":{"total":1}}`)
	ann.want(`{"push":{"refresh":{"expires":true}}}`)
	ann.wantClose(3005, "connection expired")
}

// A refreshed connection outlives its token.
func TestRefreshMovesTheEndAway(t *testing.T) {
	t.Parallel()
	n1, n2 := fleet(t, hasty)
	end := time.Now().Add(soon)
	ann := n2.connect(token.Claims{User: "ann", Expires: end})
	n1.call("refresh", `{"user":"ann"}`, `{"result":{"total":1}}`)
	ann.want(`{"push":{"refresh":{}}}`)
	ann.subscribe("open:a")
	for time.Until(end.Add(time.Second)) > 0 { // the grace
		ann.pings(1)
	}
	ann.pings(2) // with the second at the latest its token would have ended it
	n1.call("publish", `{"channel":"open:a","data":1}`, `{"result":{}}`)
	ann.want(`{"push":{"pub":{"data":1}}}`)
}

func TestAsking(t *testing.T) {
	t.Parallel()
	n1, n2 := fleet(t, nil)
	ann, bob := n1.connect(token.Claims{User: "ann"}), n2.connect(token.Claims{User: "bob"})
	ann.subscribe("open:a")
	bob.subscribe("open:a")
	bob.subscribe("plain:x")
	n1.call("channels", `{}`, `{"result":{"channels":{"open:a":{"num_clients":2},"plain:x":{"num_clients":1}}}}`)
	for pattern, names := range map[string][]string{"open:*": {"open:a"}, "*:?": {"open:a", "plain:x"}, "{open,room}:[!b-z]": {"open:a"}, "nope*": nil, "[op]*": {"open:a", "plain:x"}} {
		got := n2.call("channels", fmt.Sprintf(`{"pattern":%q}`, pattern), `{"result":{"channels":{}}}`)["result"].(map[string]any)["channels"].(map[string]any)
		var all []string
		for name := range got {
			all = append(all, name)
		}
		slices.Sort(all)
		if !slices.Equal(all, names) {
			t.Errorf("%s: %v", pattern, all)
		}
	}
	got := n1.call("connections", `{"user":"bob","expression":""}`, fmt.Sprintf(
		`{"result":{"total":1,"connections":{%q:{"user":"bob","transport":"websocket","protocol":"json","node":"n2","connected_at_ms":"…","state":{"channels":{"open:a":{},"plain:x":{}}}}}}}`, bob.id))
	if n := len(got["result"].(map[string]any)["connections"].(map[string]any)); n != 1 {
		t.Errorf("%d connections of bob's", n)
	}
	eventually(t, "the next heartbeat", func() bool {
		_, body := n1.post("/api/info", "")
		return strings.Count(body, `"num_clients":1`) == 2 && strings.Contains(body, `"num_subs":2`) && strings.Contains(body, `"num_users":1`)
	})
	n1.call("info", `{}`, `{"result":{"nodes":[{"name":"n1","uid":"…","version":"test","state":"ready"},{"name":"n2","uid":"…"}]}}`)
	n1.call("rpc", `{"method":"connections","params":{"user":"ann"}}`, `{"result":{"data":{"total":1}}}`)
	n1.call("rpc", `{"method":"nodes"}`, `{"result":{"data":{"nodes":"…"}}}`)
	n1.call("rpc", `{"method":"revoke","params":{"user":"bob"}}`, `{"result":{"data":{}}}`)
	bob.wantClose(3503, "force disconnect")
	n1.call("rpc", `{"method":"revoke","params":{}}`, `{"error":{"code":107,"message":"bad request: params"}}`)
	n1.call("rpc", `{"method":"ack"}`, `{"error":{"code":104,"message":"not found: method: no such call"}}`)
}

func TestHistoryAndItsRemoval(t *testing.T) {
	t.Parallel()
	n1, n2 := fleet(t, nil)
	ann := n2.connect(token.Claims{User: "ann"})
	ann.subscribe("open:a")
	for i := range 4 {
		n1.call("publish", fmt.Sprintf(`{"channel":"open:a","data":%d,"tags":{"n":"%d"}}`, i+1, i+1), `{"result":{}}`)
		ann.want(`{"push":{"pub":{}}}`)
	}
	page := n1.call("history", `{"channel":"open:a","limit":2}`, `{"result":{"offset":4,"publications":[{"data":1,"offset":1,"tags":{"n":"1"}},{"data":2,"offset":2}]}}`)
	epoch := page["result"].(map[string]any)["epoch"].(string)
	n1.call("history", `{"channel":"open:a","limit":-1,"since":{"offset":2,"epoch":"`+epoch+`"}}`, `{"result":{"publications":[{"data":3},{"data":4}]}}`)
	n1.call("history", `{"channel":"open:a","limit":1,"since":{"offset":2}}`, `{"result":{"publications":[{"data":3}]}}`)
	n1.call("history", `{"channel":"open:a","limit":2,"reverse":true}`, `{"result":{"publications":[{"data":4},{"data":3}]}}`)
	n1.call("history", `{"channel":"open:a","limit":2,"since":{"offset":2,"epoch":"x"}}`, `{"error":{"code":112}}`)

	n1.call("history_remove", `{"channel":"open:a"}`, `{"result":{}}`)
	n2.call("history", `{"channel":"open:a","limit":-1}`, `{"result":{"offset":4,"epoch":"`+epoch+`","publications":[]}}`)
	// Whoever is subscribed goes on; whoever recovers from before is told, also by the node that had it all in memory.
	n1.call("publish", `{"channel":"open:a","data":5}`, `{"result":{"offset":5,"epoch":"`+epoch+`"}}`)
	ann.want(`{"push":{"pub":{"data":5,"offset":5}}}`)
	bob := n2.connect(token.Claims{User: "bob"})
	bob.send(`{"id":3,"subscribe":{"channel":"open:a","recover":true,"offset":3,"epoch":"` + epoch + `"}}`)
	if got := bob.want(`{"id":3,"subscribe":{"was_recovering":true}}`)["subscribe"].(map[string]any); got["recovered"] != nil || got["publications"] != nil {
		t.Errorf("recovered from before: %v", got)
	}
	cid := n2.connect(token.Claims{User: "cid"})
	cid.send(`{"id":3,"subscribe":{"channel":"open:a","recover":true,"offset":4,"epoch":"` + epoch + `"}}`)
	cid.want(`{"id":3,"subscribe":{"recovered":true,"publications":[{"data":5}]}}`)
}
