package conn

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"tideline/shared/bus"
	"tideline/shared/channel"
	"tideline/shared/limit"
	"tideline/shared/token"
)

// table makes namespaces for a test: open to all who are signed in, as far as changed.
func table(t *testing.T, change func(*channel.Namespace)) *channel.Table {
	t.Helper()
	ns := channel.Namespace{Name: "open", Subscribe: channel.SignedIn, Publish: channel.SignedIn, HistorySize: 10_000, HistoryTTL: time.Hour, Recover: true}
	if change != nil {
		change(&ns)
	}
	tab, err := channel.NewTable(ns)
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

func TestBucket(t *testing.T) {
	const rate, burst = 10, 30
	b := newBucket(rate, burst)
	now := b.last
	for i := range burst {
		if !b.take(1, now) {
			t.Fatalf("refused after %d of %d", i, burst)
		}
	}
	if b.take(1, now) {
		t.Error("one past the burst was taken")
	}
	if now = now.Add(time.Second); !b.take(rate, now) || b.take(1, now) {
		t.Error("a second later there is not exactly a second's worth")
	}
	if now = now.Add(time.Hour); !b.take(burst, now) || b.take(1, now) {
		t.Error("an hour later there is not exactly the burst")
	}
}

func TestCommandsBurst(t *testing.T) {
	n := startNode(t, startRedis(t).Addr(), "n1", func(o *Options) { o.CommandsPerSecond = 3 })
	burst := 3*commandsBurst - 1 // the connect command was one
	lines := func(n int) string {
		return strings.TrimSuffix(strings.Repeat(`{"id":7,"rpc":{"method":"time"}}`+"\n", n), "\n")
	}
	r := n.connect(t, token.Claims{User: "ann"})
	r.send(lines(burst))
	for range burst {
		r.want(`{"id":7,"rpc":{}}`)
	}
	r = n.connect(t, token.Claims{User: "ann"})
	r.send(lines(burst + 4)) // one more than a slow machine's second brings back
	r.wantClose(3013)
}

// Control frames and pongs that nobody asked for are commands as far as the budget is concerned.
func TestFloodsOfWhatIsNoCommand(t *testing.T) {
	n := startNode(t, startRedis(t).Addr(), "n1", func(o *Options) { o.CommandsPerSecond = 3 })
	for name, send := range map[string]func(*websocket.Conn) error{
		"ping frames": func(ws *websocket.Conn) error { return ws.WriteControl(websocket.PingMessage, nil, time.Time{}) },
		"pong frames": func(ws *websocket.Conn) error { return ws.WriteControl(websocket.PongMessage, nil, time.Time{}) },
		"pongs":       func(ws *websocket.Conn) error { return ws.WriteMessage(websocket.TextMessage, []byte("{}")) },
	} {
		t.Run(name, func(t *testing.T) {
			r := n.connect(t, token.Claims{User: "ann"})
			for range 10 * 3 * commandsBurst {
				if send(r.ws.(*websocket.Conn)) != nil {
					break // closed meanwhile
				}
			}
			r.wantClose(3013)
		})
	}
}

func TestSubscribesBurst(t *testing.T) {
	n := startNode(t, startRedis(t).Addr(), "n1", func(o *Options) { o.SubscribesPerSecond, o.ChannelsPerClient = 1, 3 })
	r := n.connect(t, token.Claims{User: "ann"})
	for i := range 2 * 3 {
		r.send(`{"id":2,"subscribe":{"channel":"system"}}`)
		if got := r.want(`{"id":2}`); got["subscribe"] == nil {
			t.Fatalf("subscribe %d of %d: %v", i+1, 2*3, got)
		}
		r.send(`{"id":3,"unsubscribe":{"channel":"system"}}`)
		r.want(`{"id":3,"unsubscribe":{}}`)
	}
	const more = 60 // than the burst and a slow machine's seconds bring back
	var lines []string
	for i := range more {
		lines = append(lines, fmt.Sprintf(`{"id":%d,"subscribe":{"channel":"system:%d"}}`, i+4, i))
	}
	r.send(strings.Join(lines, "\n"))
	refusals := 0
	for range more {
		if got := r.want(`{}`); contains(got["error"], map[string]any{"code": 111, "temporary": true}) {
			refusals++
		}
	}
	if refusals == 0 {
		t.Error("no subscribe past the burst was refused")
	}
}

func TestPublishRateAndSize(t *testing.T) {
	n := startNode(t, startRedis(t).Addr(), "n1", func(o *Options) {
		o.Table = table(t, func(ns *channel.Namespace) { ns.PublishRate, ns.DataBytes = 1, 100 })
	})
	r := n.connect(t, token.Claims{User: "ann"})
	publish := func(id, size int) map[string]any {
		r.send(fmt.Sprintf(`{"id":%d,"publish":{"channel":"open:a","data":%q}}`, id, strings.Repeat("x", size-2)))
		return r.want(fmt.Sprintf(`{"id":%d}`, id))
	}
	if got := publish(2, 101); !contains(got["error"], map[string]any{"code": 106}) {
		t.Errorf("a byte too many: %v", got)
	}
	for i := range limit.PublishesBurst {
		if got := publish(3+i, 100); got["publish"] == nil {
			t.Fatalf("publication %d: %v", i+1, got)
		}
	}
	const more = 60 // than the burst and a slow machine's seconds bring back
	r.send(strings.TrimSuffix(strings.Repeat(`{"id":99,"publish":{"channel":"open:a","data":1}}`+"\n", more), "\n"))
	refusals := 0
	for range more {
		if got := r.want(`{"id":99}`); contains(got["error"], map[string]any{"code": 111, "temporary": true}) {
			refusals++
		} else if got["publish"] == nil {
			t.Fatalf("answered %v", got)
		}
	}
	if refusals == 0 {
		t.Error("no publication past the burst was refused")
	}
}

func TestPublicationIDs(t *testing.T) {
	n := startNode(t, startRedis(t).Addr(), "n1", func(o *Options) { o.Table = table(t, nil) })
	r := n.connect(t, token.Claims{User: "ann"})
	call := func(size int) {
		r.send(fmt.Sprintf(`{"id":2,"rpc":{"method":"publish","data":{"channel":"open:a","data":1,"id":%q}}}`, strings.Repeat("i", size)))
	}
	call(limit.PublicationIDBytes)
	r.want(`{"id":2,"rpc":{}}`)
	call(limit.PublicationIDBytes + 1)
	r.want(`{"id":2,"error":{"code":107}}`)
}

func TestUnauthenticatedConnections(t *testing.T) {
	n := startNode(t, startRedis(t).Addr(), "n1", func(o *Options) { o.Unauthenticated = 2 })
	first := n.dial(t)
	n.dial(t)
	for end := time.Now().Add(patience); ; { // an upgrade is answered before the client is counted
		n.mu.Lock()
		counted := n.pending
		n.mu.Unlock()
		if counted == 2 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d connections counted, want 2", counted)
		}
		time.Sleep(time.Millisecond)
	}
	_, res, err := websocket.DefaultDialer.Dial(n.url, nil)
	if err == nil || res == nil || res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" {
		t.Errorf("a third unauthenticated connection: %v", err)
	}
	first.send(fmt.Sprintf(`{"id":1,"connect":{"token":%q}}`, n.token(t, token.Claims{User: "ann"})))
	first.want(`{"id":1,"connect":{}}`)
	n.dial(t) // there is room again
}

func TestHistoryPages(t *testing.T) {
	n := startNode(t, startRedis(t).Addr(), "n1", func(o *Options) { o.Table = table(t, nil) })
	for i := range limit.HistoryPage + 1 {
		n.publishMany(t, "open:many", fmt.Sprint(i))
	}
	r := n.connect(t, token.Claims{User: "ann"})
	page := func(params string) []any {
		t.Helper()
		r.send(`{"id":2,"history":{"channel":` + params + `}}`)
		got := r.want(`{"id":2,"history":{}}`)["history"].(map[string]any)
		pubs, _ := got["publications"].([]any)
		return pubs
	}
	for asked, want := range map[int]int{0: 0, limit.HistoryPage - 1: limit.HistoryPage - 1, limit.HistoryPage: limit.HistoryPage,
		limit.HistoryPage + 1: limit.HistoryPage, -1: limit.HistoryPage} {
		if got := page(fmt.Sprintf(`"open:many","limit":%d`, asked)); len(got) != want {
			t.Errorf("limit %d: %d publications, want %d", asked, len(got), want)
		}
	}
	if got := page(`"open:many","limit":5,"since":{"offset":1000}`); len(got) != 1 {
		t.Errorf("an offset without its epoch: %d publications", len(got))
	}

	// A page is no larger than a recovery; the rest comes with the next.
	large := `"` + strings.Repeat("x", limit.DataBytes-2) + `"`
	const count = limit.QueueBytes/limit.DataBytes + 2
	for range count {
		n.publishMany(t, "open:large", large)
	}
	seen, last := 0, 0
	for pages := 0; seen < count; pages++ {
		got := page(fmt.Sprintf(`"open:large","limit":100,"since":{"offset":%d}`, last))
		if len(got) == 0 || len(got)*limit.DataBytes > limit.RecoveryBytes {
			t.Fatalf("page of %d publications after %d", len(got), seen)
		}
		seen += len(got)
		last = int(got[len(got)-1].(map[string]any)["offset"].(float64))
		if pages > count {
			t.Fatal("it has no end")
		}
	}
	if seen != count || last != count {
		t.Errorf("%d publications up to offset %d, want %d", seen, last, count)
	}
}

// publishMany publishes with more history than publish.
func (n *node) publishMany(t *testing.T, name, data string) {
	t.Helper()
	if _, err := n.bus.Publish(t.Context(), bus.Publication{Channel: name, Data: []byte(data), History: bus.History{Size: 10_000, TTL: time.Minute}}); err != nil {
		t.Fatal(err)
	}
}

// Many recoveries at once stay under half of the queue together: the connection lives, and every channel is either complete or told.
func TestManyRecoveriesAtOnce(t *testing.T) {
	const channels, each = 12, 2 // three times what there is room for
	n := startNode(t, startRedis(t).Addr(), "n1", func(o *Options) { o.Table = table(t, nil) })
	data := `"` + strings.Repeat("x", limit.DataBytes-2) + `"`
	var epochs []string
	for i := range channels {
		for range each {
			n.publishMany(t, fmt.Sprintf("open:%d", i), data)
		}
		top, errs := n.bus.Positions(t.Context(), []string{fmt.Sprintf("open:%d", i)})
		if errs[0] != nil {
			t.Fatal(errs[0])
		}
		epochs = append(epochs, top[0].Epoch)
	}
	check := func(t *testing.T, results map[string]any) {
		t.Helper()
		if len(results) != channels {
			t.Fatalf("%d results", len(results))
		}
		recovered := 0
		for name, r := range results {
			res := r.(map[string]any)
			pubs, _ := res["publications"].([]any)
			if res["recovered"] == true {
				recovered++
			}
			if (res["recovered"] == true) != (len(pubs) == each) || len(pubs) != 0 && len(pubs) != each {
				t.Errorf("%s: recovered %v with %d publications", name, res["recovered"], len(pubs))
			}
		}
		if recovered == 0 {
			t.Error("nothing was recovered")
		}
	}
	t.Run("by subscribe commands in one frame", func(t *testing.T) {
		r := n.connect(t, token.Claims{User: "ann"})
		var frame []string
		for i := range channels {
			frame = append(frame, fmt.Sprintf(`{"id":%d,"subscribe":{"channel":"open:%d","recover":true,"epoch":%q,"offset":0}}`, i+10, i, epochs[i]))
		}
		r.send(strings.Join(frame, "\n"))
		results := map[string]any{}
		for range channels {
			got := r.want(`{"subscribe":{"was_recovering":true}}`)
			results[fmt.Sprint(got["id"])] = got["subscribe"]
		}
		check(t, results)
		r.send(`{"id":2,"rpc":{"method":"time"}}`)
		r.want(`{"id":2,"rpc":{}}`)
	})
	t.Run("by the connect command", func(t *testing.T) {
		claims, subs := token.Claims{User: "ann"}, map[string]any{}
		for i := range channels {
			name := fmt.Sprintf("open:%d", i)
			claims.Channels = append(claims.Channels, name)
			subs[name] = map[string]any{"recover": true, "epoch": epochs[i]}
		}
		command, err := json.Marshal(map[string]any{"id": 1, "connect": map[string]any{"token": n.token(t, claims), "subs": subs}})
		if err != nil {
			t.Fatal(err)
		}
		r := n.dial(t)
		r.send(string(command))
		check(t, r.want(`{"id":1,"connect":{"subs":{}}}`)["connect"].(map[string]any)["subs"].(map[string]any))
		n.publishMany(t, "open:0", "1")
		r.want(`{"push":{"channel":"open:0","pub":{"offset":3}}}`)
	})
}

// What others have said about themselves counts too: a thousand small publications by somebody with a large info.
func TestARecoveryCountsWhoPublished(t *testing.T) {
	n := startNode(t, startRedis(t).Addr(), "n1", func(o *Options) { o.Table = table(t, nil); o.QueueBytes = 128 << 10 })
	info := &bus.ClientInfo{User: "eve", Client: "c", ConnInfo: json.RawMessage(`"` + strings.Repeat("i", 10<<10) + `"`)}
	var top bus.Result
	for range 10 {
		var err error
		if top, err = n.bus.Publish(t.Context(), bus.Publication{Channel: "open:a", Data: []byte("1"), Info: info, History: bus.History{Size: 100, TTL: time.Minute}}); err != nil {
			t.Fatal(err)
		}
	}
	r := n.connect(t, token.Claims{User: "ann"})
	r.send(fmt.Sprintf(`{"id":2,"subscribe":{"channel":"open:a","recover":true,"epoch":%q,"offset":0}}`, top.Position.Epoch))
	if got := r.want(`{"id":2,"subscribe":{"was_recovering":true}}`)["subscribe"].(map[string]any); got["recovered"] != nil {
		t.Error("a recovery of 100 KiB into half of 128 KiB")
	}
}

func TestAReplyTooLargeForTheQueueIsRefused(t *testing.T) {
	n := startNode(t, startRedis(t).Addr(), "n1", func(o *Options) {
		o.Table = table(t, func(ns *channel.Namespace) { ns.Presence = true })
		o.QueueBytes = 128 << 10
	})
	info := json.RawMessage(`"` + strings.Repeat("i", 10<<10) + `"`)
	var r *raw
	for i := range 7 {
		r = n.connect(t, token.Claims{User: "ann", Info: info})
		r.send(`{"id":2,"subscribe":{"channel":"open:a"}}`)
		r.want(`{"id":2,"subscribe":{}}`)
		r.send(`{"id":3,"presence":{"channel":"open:a"}}`)
		if got := r.want(`{"id":3}`); (got["presence"] != nil) != (i < 6) || i == 6 && !contains(got["error"], map[string]any{"code": 106}) {
			t.Errorf("with %d members of 10 KiB: %v", i+1, got["error"])
		}
	}
	r.send(`{"id":4,"presence_stats":{"channel":"open:a"}}`)
	r.want(`{"id":4,"presence_stats":{"num_clients":7}}`)
}

func TestWhatOutlivesItsToken(t *testing.T) {
	n := startNode(t, startRedis(t).Addr(), "n1", func(o *Options) {
		o.Table = table(t, func(ns *channel.Namespace) { ns.Token = true })
		o.ExpiredGrace = time.Minute
	})
	end := time.Now().Add(time.Hour).Truncate(time.Second) // tokens have whole seconds
	for name, code := range map[string]int{"connection": 3005, "subscription": unsubExpired} {
		t.Run(name, func(t *testing.T) {
			claims, own := token.Claims{User: name, Expires: end.Add(time.Hour)}, token.Claims{User: name, Channel: "open:a", Expires: end.Add(time.Hour)}
			if name == "connection" {
				claims.Expires = end
			} else {
				own.Expires = end
			}
			r := n.dial(t)
			r.send(fmt.Sprintf(`{"id":1,"connect":{"token":%q}}`, n.token(t, claims)))
			r.want(`{"id":1,"connect":{"expires":true}}`)
			r.send(fmt.Sprintf(`{"id":2,"subscribe":{"channel":"open:a","token":%q}}`, n.token(t, own)))
			r.want(`{"id":2,"subscribe":{"expires":true}}`)
			theirs := n.matching(Query{User: name})
			if len(theirs) != 1 {
				t.Fatalf("%d clients", len(theirs))
			}
			c := theirs[0]
			c.ping(end.Add(n.o.ExpiredGrace))
			if !c.subscribed("open:a") || c.gone() {
				t.Error("ended within the grace")
			}
			c.ping(end.Add(n.o.ExpiredGrace + 1))
			if name == "connection" {
				r.wantClose(code)
				return
			}
			r.want(fmt.Sprintf(`{"push":{"channel":"open:a","unsubscribe":{"code":%d}}}`, code))
			if c.gone() {
				t.Error("a subscription took its connection along")
			}
		})
	}
}

func TestAddressesAreCountedByBlock(t *testing.T) {
	for address, want := range map[string]string{
		"203.0.113.9": "203.0.113.9", "::ffff:203.0.113.9": "::ffff:203.0.113.9", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64",
		"2001:db8:1:2::1": "2001:db8:1:2::/64", "2001:db8:1:3::1": "2001:db8:1:3::/64", "fe80::1%eth0": "fe80::/64", "[2001:db8::1]": "[2001:db8::1]", "": "",
	} {
		if got := block(address); got != want {
			t.Errorf("%q is counted as %q, want %q", address, got, want)
		}
	}
}
