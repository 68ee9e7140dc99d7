package conn

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/gorilla/websocket"
	"github.com/prometheus/client_golang/prometheus"

	"tideline/node/front"
	"tideline/node/hub"
	"tideline/shared/bus"
	"tideline/shared/channel"
	"tideline/shared/limit"
	"tideline/shared/token"
	"tideline/test/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

const secret = "0123456789abcdef0123456789abcdef"

// patience is how long a test waits for what must happen. It normally takes milliseconds, but the machine may stand still for some seconds.
const patience = 30 * time.Second

// node is one service on its own listener, over a bus that tests can share.
type node struct {
	*Service
	url     string
	bus     *bus.Bus
	tokens  *token.Secrets
	metrics *prometheus.Registry
	format  hub.Format // of the clients that dial
}

func startRedis(t testing.TB) *miniredis.Miniredis {
	t.Helper()
	mr := miniredis.NewMiniRedis()
	mr.ClockTTL(true)
	if err := mr.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(mr.Close)
	return mr
}

func startNode(t testing.TB, addr, id string, change func(*Options)) *node {
	t.Helper()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	b, err := bus.Open(t.Context(), bus.Options{URL: "redis://" + addr, Stage: "test", Log: log})
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := token.NewSecrets([]string{secret}, nil)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{bus: b, tokens: tokens, metrics: prometheus.NewRegistry()}
	o := Options{NodeID: id, Version: "test", Bus: b, Table: channel.Shipped(), Verifier: tokens, Metrics: n.metrics, Log: log, AnnounceWindow: time.Millisecond}
	if change != nil {
		change(&o)
	}
	if n.Service, err = New(o); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	n.Register(mux)
	server := httptest.NewUnstartedServer(mux)
	before := front.Listen(server.Listener, front.Options{Handler: mux, Lines: []string{"GET " + Path, "GET " + PathUniWebSocket}, // as in a node
		First: time.Minute, Idle: time.Minute, Log: log})
	server.Listener = before
	server.Start()
	n.url = "ws" + strings.TrimPrefix(server.URL, "http") + Path
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("node %s: %v", id, err)
		}
		server.Close()
		before.Wait()
		b.Close()
	})
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) { // until it has its lease
		nodes, err := b.Nodes(t.Context())
		listed := err == nil && slices.ContainsFunc(nodes, func(i bus.NodeInfo) bool { return i.ID == id })
		if listed && n.lease.Leave(t.Context(), "chat:nowhere", "nobody", false) == nil { // the node knows that it has it, too
			return n
		}
		if time.Now().After(deadline) {
			t.Fatalf("node %s has no lease: %v", id, err)
		}
	}
}

func (n *node) token(t testing.TB, c token.Claims) string {
	t.Helper()
	if c.Expires.IsZero() {
		c.Expires = time.Now().Add(time.Hour)
	}
	s, err := n.tokens.Sign(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// raw is a client that says exactly what the test says. Tests write and read JSON whatever its format is.
type raw struct {
	t       *testing.T
	ws      messages // a WebSocket, or a stream with its requests
	format  hub.Format
	pending []string
}

func (n *node) dial(t *testing.T) *raw {
	t.Helper()
	if formats[n.format].stream {
		return &raw{t: t, ws: &stream{t: t, n: n, format: n.format}, format: n.format}
	}
	deadline := time.Now().Add(patience)
	for {
		ws, res, err := (&websocket.Dialer{Subprotocols: subprotocols[n.format]}).Dial(n.url, nil)
		if err == nil {
			t.Cleanup(func() { ws.Close() })
			ws.SetReadDeadline(time.Now().Add(2 * patience))
			return &raw{t: t, ws: ws, format: n.format}
		}
		if res == nil || res.StatusCode != http.StatusServiceUnavailable || time.Now().After(deadline) {
			t.Fatal(err) // 503 while Run begins
		}
		time.Sleep(time.Millisecond)
	}
}

func (r *raw) send(frame string) {
	r.t.Helper()
	r.write(formats[r.format].message, r.encode(frame))
}

func (r *raw) write(kind int, frame []byte) {
	r.t.Helper()
	if err := r.ws.WriteMessage(kind, frame); err != nil {
		r.t.Fatal(err)
	}
}

// read answers the next JSON value that is no ping, and pings by a pong.
func (r *raw) read() string {
	r.t.Helper()
	for len(r.pending) == 0 {
		_, data, err := r.ws.ReadMessage()
		if err != nil {
			r.t.Fatal(err)
		}
		for _, line := range r.lines(data) {
			if line != "{}" {
				r.pending = append(r.pending, line)
			} else if r.format != formatUniJSON {
				r.send("{}")
			}
		}
	}
	line := r.pending[0]
	r.pending = r.pending[1:]
	return line
}

// want reads one value and compares the given parts of it: a JSON object whose members must be there.
func (r *raw) want(parts string) map[string]any {
	r.t.Helper()
	line := r.read()
	var got, want map[string]any
	if err := json.Unmarshal([]byte(line), &got); err != nil {
		r.t.Fatalf("%s: %v", line, err)
	}
	if err := json.Unmarshal([]byte(parts), &want); err != nil {
		r.t.Fatal(err)
	}
	if !contains(got, want) {
		r.t.Fatalf("got  %s\nwant %s", line, parts)
	}
	return got
}

func contains(got, want any) bool {
	w, ok := want.(map[string]any)
	if !ok {
		return fmt.Sprint(got) == fmt.Sprint(want)
	}
	g, ok := got.(map[string]any)
	if !ok {
		return false // it must be there, however empty
	}
	for k := range w {
		if !contains(g[k], w[k]) {
			return false
		}
	}
	return true
}

// wantClose reads until the close frame and compares its code; the reason must be neither empty nor JSON (centrifuge-js).
func (r *raw) wantClose(code int) {
	r.t.Helper()
	for {
		_, _, err := r.ws.ReadMessage()
		if err == nil {
			continue
		}
		var closed *websocket.CloseError
		if c, ok := err.(*websocket.CloseError); ok {
			closed = c
		}
		if closed == nil || closed.Code != code {
			r.t.Fatalf("closed by %v, want code %d", err, code)
		}
		if code >= 3000 && (closed.Text == "" || json.Valid([]byte(closed.Text))) {
			r.t.Errorf("reason %q", closed.Text)
		}
		return
	}
}

func (n *node) connect(t *testing.T, c token.Claims) *raw {
	t.Helper()
	r := n.dial(t)
	r.send(fmt.Sprintf(`{"id":1,"connect":{"token":%q}}`, n.token(t, c)))
	r.want(fmt.Sprintf(`{"id":1,"connect":{"ping":25,"pong":true,"expires":true,"data":{"node":%q}}}`, n.o.NodeID))
	return r
}

func (n *node) publish(t *testing.T, name, data string) bus.Position {
	t.Helper()
	res, err := n.bus.Publish(t.Context(), bus.Publication{Channel: name, Data: []byte(data), History: bus.History{Size: 100, TTL: time.Minute}})
	if err != nil {
		t.Fatal(err)
	}
	return res.Position
}

func TestCommandsAndTheirErrors(t *testing.T) { eachFormat(t, testCommandsAndTheirErrors) }

func testCommandsAndTheirErrors(t *testing.T, f hub.Format) {
	n := startNode(t, startRedis(t).Addr(), "n1", nil).speaking(f)
	long := strings.Repeat("x", limit.ChannelBytes-len("chat:"))
	for _, c := range []struct{ name, command, answer string }{
		{"subscribe", `{"subscribe":{"channel":"chat:a"}}`, `{"subscribe":{"recoverable":true,"positioned":true}}`},
		{"twice", `{"subscribe":{"channel":"chat:a"}}`, `{"error":{"code":105}}`},
		{"own personal channel", `{"subscribe":{"channel":"todos:#ann"}}`, `{"subscribe":{"recoverable":true}}`},
		{"another user's channel", `{"subscribe":{"channel":"todos:#bob"}}`, `{"error":{"code":103}}`},
		{"an owner with a hash in the name", `{"subscribe":{"channel":"todos:#ann#bob"}}`, `{"error":{"code":103}}`},
		{"nobody's channel", `{"subscribe":{"channel":"todos:x"}}`, `{"error":{"code":103}}`},
		{"operators only", `{"subscribe":{"channel":"docker:events"}}`, `{"error":{"code":103}}`},
		{"unknown namespace", `{"subscribe":{"channel":"nope:x"}}`, `{"error":{"code":102}}`},
		{"internal channel", `{"subscribe":{"channel":"$control"}}`, `{"error":{"code":102}}`},
		{"empty channel", `{"subscribe":{}}`, `{"error":{"code":107}}`},
		{"longest channel", `{"subscribe":{"channel":"chat:` + long + `"}}`, `{"subscribe":{}}`},
		{"a byte too long", `{"subscribe":{"channel":"chat:x` + long + `"}}`, `{"error":{"code":107}}`},
		{"brace in a channel", `{"subscribe":{"channel":"chat:{a}"}}`, `{"error":{"code":107}}`},
		{"tags filter", `{"subscribe":{"channel":"chat:t","tf":{"op":"eq"}}}`, `{"error":{"code":108}}`},
		{"map subscription", `{"subscribe":{"channel":"chat:t","type":1}}`, `{"error":{"code":108}}`},
		{"bad subscription token", `{"subscribe":{"channel":"chat:t","token":"x"}}`, `{"error":{"code":103}}`},
		{"unrecoverable, refused on request", `{"subscribe":{"channel":"chat:u","recover":true,"epoch":"x","offset":7,"flag":2}}`, `{"error":{"code":112}}`},
		{"unrecoverable, told", `{"subscribe":{"channel":"chat:u","recover":true,"epoch":"x","offset":7}}`, `{"subscribe":{"was_recovering":true}}`},
		{"publish where subscribed", `{"publish":{"channel":"chat:a","data":{"text":"x"}}}`, `{"publish":{}}`},
		{"publish where not subscribed", `{"publish":{"channel":"chat:b","data":{}}}`, `{"error":{"code":103}}`},
		{"publish where only servers may", `{"publish":{"channel":"todos:#ann","data":{}}}`, `{"error":{"code":103}}`},
		{"publish too much", `{"publish":{"channel":"chat:a","data":"` + strings.Repeat("x", limit.DataBytes-1) + `"}}`, `{"error":{"code":106}}`},
		{"rpc publish", `{"rpc":{"method":"publish","data":{"channel":"chat:a","data":{"text":"y"},"id":"1"}}}`, `{"rpc":{"data":{"id":"1"}}}`},
		{"rpc publish again", `{"rpc":{"method":"publish","data":{"channel":"chat:a","data":{"text":"y"},"id":"1"}}}`, `{"rpc":{"data":{"id":"1","duplicate":true}}}`},
		{"rpc publish without data", `{"rpc":{"method":"publish","data":{"channel":"chat:a"}}}`, `{"error":{"code":107}}`},
		{"rpc node.info", `{"rpc":{"method":"node.info"}}`, `{"rpc":{"data":{"node":"n1","state":"ready"}}}`},
		{"rpc time", `{"rpc":{"method":"time"}}`, `{"rpc":{}}`},
		{"unknown rpc", `{"rpc":{"method":"nope"}}`, `{"error":{"code":104}}`},
		{"history", `{"history":{"channel":"chat:a","limit":1,"reverse":true}}`, `{"history":{"offset":2}}`},
		{"history of another epoch", `{"history":{"channel":"chat:a","limit":1,"since":{"epoch":"x","offset":1}}}`, `{"error":{"code":112}}`},
		{"somebody else's history", `{"history":{"channel":"todos:#bob","limit":1}}`, `{"error":{"code":103}}`},
		{"presence", `{"presence":{"channel":"chat:a"}}`, `{"presence":{}}`},
		{"presence_stats", `{"presence_stats":{"channel":"chat:a"}}`, `{"presence_stats":{"num_users":1}}`},
		{"presence where there is none", `{"presence":{"channel":"todos:#ann"}}`, `{"error":{"code":108}}`},
		{"refresh without a token", `{"refresh":{}}`, `{"error":{"code":107}}`},
		{"unsubscribe", `{"unsubscribe":{"channel":"chat:a"}}`, `{"unsubscribe":{}}`},
		{"unsubscribe from what isn't subscribed", `{"unsubscribe":{"channel":"chat:zz"}}`, `{"unsubscribe":{}}`},
		{"ping command", `{"ping":{}}`, `{"error":{"code":108}}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := n.connect(t, token.Claims{User: "ann"})
			if strings.Contains(c.command, "chat:a") && c.name != "subscribe" {
				r.send(`{"id":2,"subscribe":{"channel":"chat:a"}}`)
				r.want(`{"id":2,"subscribe":{}}`)
			}
			r.send(`{"id":3,` + c.command[1:])
			for {
				line := r.read()
				if strings.HasPrefix(line, `{"push"`) {
					continue
				}
				r.pending = append([]string{line}, r.pending...)
				r.want(`{"id":3,` + c.answer[1:])
				break
			}
		})
	}
}

func TestWhatEndsAConnection(t *testing.T) { eachFormat(t, testWhatEndsAConnection) }

func testWhatEndsAConnection(t *testing.T, f hub.Format) {
	redis := startRedis(t)
	n := startNode(t, redis.Addr(), "n1", nil).speaking(f)
	expired := n.token(t, token.Claims{User: "ann", Expires: time.Now().Add(-time.Minute)})
	for _, c := range []struct {
		name  string
		first bool // before connect
		frame string
		code  int
	}{
		{"a command before connect", true, `{"id":1,"subscribe":{"channel":"chat:a"}}`, 3501},
		{"connect twice", false, `{"id":2,"connect":{}}`, 3501},
		{"no command at all", false, `{"id":2}`, 3501},
		{"no id", false, `{"subscribe":{"channel":"chat:a"}}`, 3501},
		{"send", false, `{"send":{"data":{}}}`, 3508},
		{"bad token", true, `{"id":1,"connect":{"token":"a.b.c"}}`, 3500},
		{"pong before connect", true, `{}`, 3501},
		{"commands past the burst", false, strings.TrimSuffix(strings.Repeat(`{"id":9,"rpc":{"method":"nope"}}`+"\n", limit.CommandsBurst+100), "\n"), 3013},
		{"another user's token in refresh", false, fmt.Sprintf(`{"id":2,"refresh":{"token":%q}}`, n.token(t, token.Claims{User: "bob"})), 3500},
	} {
		t.Run(c.name, func(t *testing.T) {
			var r *raw
			if c.first {
				r = n.dial(t)
			} else {
				r = n.connect(t, token.Claims{User: "ann"})
			}
			r.send(c.frame)
			r.wantClose(c.code)
		})
	}
	if !formats[f].stream { // the request for a stream can't be empty
		t.Run("nothing within the handshake timeout", func(t *testing.T) {
			hasty := startNode(t, redis.Addr(), "n2", func(o *Options) { o.HandshakeTimeout = 300 * time.Millisecond }).speaking(f)
			hasty.dial(t).wantClose(3502)
		})
	}
	t.Run("an expired token is an error, for the SDK to fetch another", func(t *testing.T) {
		r := n.dial(t)
		r.send(fmt.Sprintf(`{"id":1,"connect":{"token":%q}}`+"\n"+`{"id":2,"subscribe":{"channel":"chat:a"}}`, expired))
		r.want(`{"id":1,"error":{"code":109}}`)
		if formats[f].stream {
			return // it has no session to send another one to, and is stale soon
		}
		r.send(fmt.Sprintf(`{"id":3,"connect":{"token":%q}}`, n.token(t, token.Claims{User: "ann"})))
		r.want(`{"id":3,"connect":{}}`) // the subscribe in between was not answered
	})
	t.Run("no token", func(t *testing.T) {
		r := n.dial(t)
		r.send(`{"id":1,"connect":{}}`)
		r.want(`{"id":1,"error":{"code":101}}`)
	})
}

func TestChannelsPerClient(t *testing.T) { eachFormat(t, testChannelsPerClient) }

func testChannelsPerClient(t *testing.T, f hub.Format) {
	n := startNode(t, startRedis(t).Addr(), "n1", nil).speaking(f)
	r := n.connect(t, token.Claims{User: "ann"})
	waiting := map[int]bool{}
	for i := range limit.ChannelsPerClient {
		waiting[i+2] = true
	}
	for end := time.Now().Add(2 * patience); len(waiting) > 0; { // a slow machine gets some temporary errors, as SDKs do, and repeats
		if time.Now().After(end) {
			t.Fatalf("%d subscribes have not succeeded", len(waiting))
		}
		var some []string
		for id := range waiting {
			some = append(some, fmt.Sprintf(`{"id":%d,"subscribe":{"channel":"system:%d"}}`, id, id))
			if len(some) == 16 { // of all together the last would be out of time there
				break
			}
		}
		r.send(strings.Join(some, "\n"))
		for range some {
			reply := r.want(`{}`)
			if reply["subscribe"] != nil {
				delete(waiting, int(reply["id"].(float64)))
			} else if !contains(reply["error"], map[string]any{"code": 100}) {
				t.Fatalf("answered %v", reply)
			}
		}
	}
	r.send(`{"id":9999,"subscribe":{"channel":"system:one-more"}}`)
	r.want(`{"id":9999,"error":{"code":106}}`)
}

func TestPublicationsCrossNodesStampedAndOnce(t *testing.T) {
	eachFormat(t, testPublicationsCrossNodesStampedAndOnce)
}

func testPublicationsCrossNodesStampedAndOnce(t *testing.T, f hub.Format) {
	redis := startRedis(t)
	n1, n2 := startNode(t, redis.Addr(), "n1", nil).speaking(f), startNode(t, redis.Addr(), "n2", nil).speaking(f)
	ann, bob := n1.connect(t, token.Claims{User: "ann"}), n2.connect(t, token.Claims{User: "bob"})
	for _, r := range []*raw{ann, bob} {
		r.send(`{"id":2,"subscribe":{"channel":"chat:a"}}`)
		r.want(`{"id":2,"subscribe":{}}`)
	}
	for range 2 { // the retry of a call whose answer was lost
		ann.send(`{"id":3,"rpc":{"method":"publish","data":{"channel":"chat:a","data":{"text":"hi","user":"eve"},"id":"m1"}}}`)
	}
	ann.send(`{"id":4,"publish":{"channel":"chat:a","data":{"text":"end"}}}`)
	bob.want(`{"push":{"channel":"chat:a","pub":{"offset":1,"data":{"id":"m1","user":"ann","node":"n1","data":{"text":"hi"}},"info":{"user":"ann"}}}}`)
	bob.want(`{"push":{"channel":"chat:a","pub":{"offset":2,"data":{"user":"ann","data":{"text":"end"}}}}}`)
}

func TestRecoveryAfterAReconnect(t *testing.T) { eachFormat(t, testRecoveryAfterAReconnect) }

func testRecoveryAfterAReconnect(t *testing.T, f hub.Format) {
	redis := startRedis(t)
	n1, n2 := startNode(t, redis.Addr(), "n1", nil).speaking(f), startNode(t, redis.Addr(), "n2", nil).speaking(f)
	r := n1.connect(t, token.Claims{User: "ann"})
	r.send(`{"id":2,"subscribe":{"channel":"todos:#ann"}}`)
	epoch := r.want(`{"id":2,"subscribe":{"recoverable":true}}`)["subscribe"].(map[string]any)["epoch"].(string)
	n1.publish(t, "todos:#ann", `{"n":1}`)
	r.want(`{"push":{"pub":{"offset":1,"data":{"n":1}}}}`)
	r.ws.Close()
	for i := 2; i <= 4; i++ {
		n1.publish(t, "todos:#ann", fmt.Sprintf(`{"n":%d}`, i))
	}
	again := n2.connect(t, token.Claims{User: "ann"})
	again.send(fmt.Sprintf(`{"id":2,"subscribe":{"channel":"todos:#ann","recover":true,"epoch":%q,"offset":1}}`, epoch))
	got := again.want(`{"id":2,"subscribe":{"was_recovering":true,"recovered":true,"offset":4}}`)
	if pubs := got["subscribe"].(map[string]any)["publications"].([]any); len(pubs) != 3 {
		t.Errorf("%d publications recovered, want 3", len(pubs))
	}
	n1.publish(t, "todos:#ann", `{"n":5}`)
	again.want(`{"push":{"pub":{"offset":5}}}`)
}

// A recovery that would fill half of the queue is declined, or the client would be disconnected as slow and recover again, for ever.
func TestARecoveryTooLargeForTheQueueIsDeclined(t *testing.T) {
	eachFormat(t, testARecoveryTooLargeForTheQueueIsDeclined)
}

func testARecoveryTooLargeForTheQueueIsDeclined(t *testing.T, f hub.Format) {
	redis := startRedis(t)
	n := startNode(t, redis.Addr(), "n1", nil).speaking(f)
	r := n.connect(t, token.Claims{User: "ann"})
	first := n.publish(t, "todos:#ann", `1`)
	data := `"` + strings.Repeat("x", limit.DataBytes-2) + `"`
	count := limit.RecoveryBytes / limit.DataBytes
	c := n.only(t)
	subscribe := func(id int) map[string]any {
		for deadline := time.Now().Add(patience); c.out.Waiting() > 0; time.Sleep(time.Millisecond) { // what has been read may not be accounted for yet
			if time.Now().After(deadline) {
				t.Fatalf("%d bytes are queued", c.out.Waiting())
			}
		}
		r.send(fmt.Sprintf(`{"id":%d,"subscribe":{"channel":"todos:#ann","recover":true,"epoch":%q,"offset":1}}`, id, first.Epoch))
		got := r.want(fmt.Sprintf(`{"id":%d,"subscribe":{"was_recovering":true}}`, id))["subscribe"].(map[string]any)
		r.send(fmt.Sprintf(`{"id":%d,"unsubscribe":{"channel":"todos:#ann"}}`, id+1))
		r.want(fmt.Sprintf(`{"id":%d}`, id+1))
		return got
	}
	for range count {
		n.publish(t, "todos:#ann", data)
	}
	if got := subscribe(10); got["recovered"] != true || len(got["publications"].([]any)) != count {
		t.Errorf("a recovery of %d bytes was declined", limit.RecoveryBytes)
	}
	n.publish(t, "todos:#ann", `2`)
	if got := subscribe(20); got["recovered"] != nil || got["publications"] != nil {
		t.Errorf("a recovery past %d bytes was sent", limit.RecoveryBytes)
	}
}

func TestServerSideSubscriptions(t *testing.T) { eachFormat(t, testServerSideSubscriptions) }

func testServerSideSubscriptions(t *testing.T, f hub.Format) {
	n := startNode(t, startRedis(t).Addr(), "n1", nil).speaking(f)
	r := n.dial(t)
	r.send(fmt.Sprintf(`{"id":1,"connect":{"token":%q}}`, n.token(t, token.Claims{User: "ann", Channels: []string{"user:#ann", "system", "nope:x"}})))
	got := r.want(`{"id":1,"connect":{"subs":{"user:#ann":{"recoverable":true},"system":{}}}}`)
	if subs := got["connect"].(map[string]any)["subs"].(map[string]any); len(subs) != 2 {
		t.Errorf("subscribed to %v", subs)
	}
	n.publish(t, "user:#ann", `{"n":1}`)
	r.want(`{"push":{"channel":"user:#ann","pub":{"offset":1}}}`)
	n.hub.Lost("user:#ann")
	r.wantClose(3010)
}

func TestLostContinuityIsToldByUnsubscribe2500(t *testing.T) {
	eachFormat(t, testLostContinuityIsToldByUnsubscribe2500)
}

func testLostContinuityIsToldByUnsubscribe2500(t *testing.T, f hub.Format) {
	n := startNode(t, startRedis(t).Addr(), "n1", nil).speaking(f)
	r := n.connect(t, token.Claims{User: "ann"})
	r.send(`{"id":2,"subscribe":{"channel":"system"}}`)
	r.want(`{"id":2,"subscribe":{}}`)
	n.hub.Lost("system")
	r.want(`{"push":{"channel":"system","unsubscribe":{"code":2500}}}`)
	r.send(`{"id":3,"subscribe":{"channel":"system"}}`)
	r.want(`{"id":3,"subscribe":{}}`)
}

func TestPresenceJoinsAndLeaves(t *testing.T) { eachFormat(t, testPresenceJoinsAndLeaves) }

func testPresenceJoinsAndLeaves(t *testing.T, f hub.Format) {
	redis := startRedis(t)
	n1, n2 := startNode(t, redis.Addr(), "n1", nil).speaking(f), startNode(t, redis.Addr(), "n2", nil).speaking(f)
	ann := n1.connect(t, token.Claims{User: "ann"})
	ann.send(`{"id":2,"subscribe":{"channel":"chat:a","join_leave":true}}`)
	ann.want(`{"id":2,"subscribe":{}}`)
	bob := n2.connect(t, token.Claims{User: "bob", Info: json.RawMessage(`{"name":"Bob"}`)})
	bob.send(`{"id":2,"subscribe":{"channel":"chat:a"}}`)
	ann.want(`{"push":{"channel":"chat:a","join":{"info":{"user":"bob","conn_info":{"name":"Bob"}}}}}`)
	bob.want(`{"id":2,"subscribe":{}}`)
	ann.send(`{"id":3,"presence_stats":{"channel":"chat:a"}}`)
	ann.want(`{"id":3,"presence_stats":{"num_clients":2,"num_users":2}}`)
	bob.ws.Close()
	ann.want(`{"push":{"channel":"chat:a","leave":{"info":{"user":"bob"}}}}`)
	ann.send(`{"id":4,"presence_stats":{"channel":"chat:a"}}`)
	ann.want(`{"id":4,"presence_stats":{"num_clients":1,"num_users":1}}`)
}

// pace makes pings as frequent as they can be with a pong timeout that a machine which stands still for a moment keeps.
func pace(o *Options) { o.PingInterval, o.PongTimeout = 8*time.Second, 7*time.Second }

func TestPings(t *testing.T) {
	t.Parallel() // it waits for pings
	eachFormat(t, testPings)
}

func testPings(t *testing.T, f hub.Format) {
	t.Parallel()
	n := startNode(t, startRedis(t).Addr(), "n1", pace).speaking(f)
	good, bad := n.dial(t), n.dial(t)
	for _, r := range []*raw{good, bad} {
		r.send(fmt.Sprintf(`{"id":1,"connect":{"token":%q}}`, n.token(t, token.Claims{User: "ann"})))
		r.want(`{"id":1,"connect":{"ping":8,"pong":true}}`)
	}
	silent := make(chan struct{})
	go func() { defer close(silent); bad.wantClose(3012) }()
	for range 2 { // the second comes after the first one's pong was looked for
		if _, data, err := good.ws.ReadMessage(); err != nil || good.lines(data)[0] != "{}" {
			t.Fatalf("read %q, %v", data, err)
		}
		good.send("{}")
	}
	<-silent
	good.send(`{"id":2,"rpc":{"method":"time"}}`)
	good.want(`{"id":2,"rpc":{}}`)
}

func TestRefreshPutsTheEndOff(t *testing.T) { eachFormat(t, testRefreshPutsTheEndOff) }

func testRefreshPutsTheEndOff(t *testing.T, f hub.Format) {
	n := startNode(t, startRedis(t).Addr(), "n1", nil).speaking(f)
	r := n.connect(t, token.Claims{User: "ann", Expires: time.Now().Add(time.Minute)})
	r.send(fmt.Sprintf(`{"id":2,"refresh":{"token":%q}}`, n.token(t, token.Claims{User: "ann", Expires: time.Now().Add(time.Hour)})))
	got := r.want(`{"id":2,"refresh":{"expires":true}}`)
	if ttl := got["refresh"].(map[string]any)["ttl"].(float64); ttl < 3500 {
		t.Errorf("ttl %v", ttl)
	}
}

func TestOriginsAndClientAddresses(t *testing.T) {
	s := &Service{o: Options{AllowedOrigins: []string{"https://app.example"}}}
	own := &Service{}
	for _, c := range []struct {
		s      *Service
		origin string
		want   bool
	}{
		{s, "", true}, {s, "https://app.example", true}, {s, "https://evil.example", false}, {s, "http://app.example", false}, {s, "null", false},
		{own, "http://node.example", true}, {own, "https://NODE.example", true}, {own, "http://evil.example", false}, {own, "null", false}, {own, "://", false},
	} {
		r := httptest.NewRequest("GET", "http://node.example"+Path, nil)
		if c.origin != "" {
			r.Header.Set("Origin", c.origin)
		}
		if got := c.s.allowedOrigin(r); got != c.want {
			t.Errorf("origin %q with %v: %v", c.origin, c.s.o.AllowedOrigins, got)
		}
	}
	for _, c := range []struct {
		forwarded string
		hops      int
		want      string
	}{
		{"", 0, "192.0.2.1"}, {"203.0.113.9", 0, "192.0.2.1"}, {"203.0.113.9", 1, "203.0.113.9"},
		{"6.6.6.6, 203.0.113.9", 1, "203.0.113.9"}, {"6.6.6.6, 203.0.113.9, 10.0.0.1", 2, "203.0.113.9"},
		{"203.0.113.9", 2, "192.0.2.1"}, {"nonsense", 1, "192.0.2.1"}, {"203.0.113.9:4711", 1, "203.0.113.9"}, {"2001:db8::1", 1, "2001:db8::1"},
	} {
		r := httptest.NewRequest("GET", "/", nil) // from 192.0.2.1:1234
		if c.forwarded != "" {
			r.Header.Set("X-Forwarded-For", c.forwarded)
		}
		if got := clientAddress(r, c.hops); got != c.want {
			t.Errorf("%q with %d hops: %s, want %s", c.forwarded, c.hops, got, c.want)
		}
	}
}

// However late a slow machine is, nobody is closed before his turn: who comes back does so spread over the window.
func TestDrainClosesEverybodyEvenlyAndRefusesNewcomers(t *testing.T) {
	n := startNode(t, startRedis(t).Addr(), "n1", nil)
	const clients = 40
	var all []*raw
	for range clients {
		all = append(all, n.connect(t, token.Claims{User: "ann"}))
	}
	const window = 2 * time.Second
	done := make(chan error, 1)
	closed := make(chan time.Duration, clients)
	start := time.Now()
	go func() { done <- n.Drain(t.Context(), window) }()
	for _, r := range all {
		go func() { r.wantClose(3001); closed <- time.Since(start) }()
	}
	var times []time.Duration
	for range clients {
		times = append(times, <-closed)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	slices.Sort(times)
	for i, at := range times {
		if due := window * time.Duration(i) / clients; at < due {
			t.Errorf("client %d of %d was closed after %v, its turn was after %v", i+1, clients, at, due)
		}
	}
	_, res, err := websocket.DefaultDialer.Dial(n.url, nil)
	if err == nil || res == nil || res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a draining node took a newcomer: %v", err)
	}
}
