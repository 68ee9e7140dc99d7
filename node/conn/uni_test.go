package conn

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"tideline/shared/bus"
	"tideline/shared/limit"
	"tideline/shared/token"
)

// listener is a client of the unidirectional WebSocket. connect, when not empty, goes into the URL.
func (n *node) listener(t *testing.T, connect string) *raw {
	t.Helper()
	ws, res, err := n.dialUni(connect, nil)
	if err != nil {
		t.Fatal(err, res)
	}
	t.Cleanup(func() { ws.Close() })
	ws.SetReadDeadline(time.Now().Add(2 * patience))
	return &raw{t: t, ws: ws, format: formatUniJSON}
}

func (n *node) dialUni(connect string, h http.Header) (*websocket.Conn, *http.Response, error) {
	address := strings.TrimSuffix(n.url, Path) + PathUniWebSocket
	if connect != "" {
		address += "?" + url.Values{queryConnect: {connect}}.Encode()
	}
	return websocket.DefaultDialer.Dial(address, h)
}

// asking is a request to connect, subscribing to channels given as JSON members.
func (n *node) asking(t *testing.T, c token.Claims, subs string) string {
	return fmt.Sprintf(`{"token":%q,"subs":{%s}}`, n.token(t, c), subs)
}

// wantEnd reads until the disconnect push, which a client that doesn't look at close frames goes by, and then the close frame, which says the same.
func (r *raw) wantEnd(code int) {
	r.t.Helper()
	for {
		line := r.read()
		var got struct{ Disconnect *struct{ Code int } }
		if err := json.Unmarshal([]byte(line), &got); err != nil {
			r.t.Fatal(line, err)
		}
		if got.Disconnect == nil {
			continue
		}
		if got.Disconnect.Code != code {
			r.t.Fatalf("%s, want code %d", line, code)
		}
		r.wantClose(code)
		return
	}
}

func TestUniListens(t *testing.T) {
	redis := startRedis(t)
	n1, n2 := startNode(t, redis.Addr(), "n1", nil), startNode(t, redis.Addr(), "n2", nil)
	ann := token.Claims{User: "ann", Channels: []string{"user:#ann"}, Info: json.RawMessage(`{"name":"Ann"}`)}
	in := func(room, text string) string { return strings.ReplaceAll(text, "ROOM", room) }
	for room, start := range map[string]func(t *testing.T, req string) *raw{
		"chat:message": func(t *testing.T, req string) *raw { r := n1.listener(t, ""); r.send(req); return r },
		"chat:url":     func(t *testing.T, req string) *raw { return n1.listener(t, req) },
	} {
		t.Run(room, func(t *testing.T) {
			req := n1.asking(t, ann, fmt.Sprintf(`%q:{"join_leave":true},"system":null`, room))
			r := start(t, req)
			first := r.want(in(room, `{"connect":{"ping":25,"expires":true,"data":{"node":"n1"},
				"subs":{"user:#ann":{"recoverable":true},"ROOM":{"recoverable":true},"system":{}}}}`))
			if first["connect"].(map[string]any)["pong"] != nil || first["id"] != nil {
				t.Errorf("answered %v", first)
			}
			bob := n2.connect(t, token.Claims{User: "bob"})
			bob.send(in(room, `{"id":2,"subscribe":{"channel":"ROOM"}}`))
			r.want(in(room, `{"channel":"ROOM","join":{"info":{"user":"bob"}}}`))
			bob.want(`{"id":2,"subscribe":{}}`)
			bob.send(in(room, `{"id":3,"presence":{"channel":"ROOM"}}`))
			seen, err := json.Marshal(bob.want(`{"id":3,"presence":{}}`))
			if err != nil || !strings.Contains(string(seen), `"name":"Ann"`) {
				t.Errorf("the presence is %s", seen)
			}
			top := n2.publish(t, room, `{"n":1}`)
			r.want(fmt.Sprintf(in(room, `{"channel":"ROOM","pub":{"data":{"n":1},"offset":%d}}`), top.Offset))
			n2.publish(t, "user:#ann", `{"n":2}`)
			r.want(`{"channel":"user:#ann","pub":{"data":{"n":2}}}`)
			for range 3 { // what it says later says nothing, whatever it is
				r.send(in(room, `{"id":2,"publish":{"channel":"ROOM","data":{}}}`))
				r.send(req)
			}
			op := n2.connect(t, operatorClaims)
			op.send(`{"id":2,"rpc":{"method":"unsubscribe","data":{"channel":"system","user":"ann"}}}`)
			op.want(`{"id":2,"rpc":{"data":{"total":1}}}`)
			r.want(`{"channel":"system","unsubscribe":{"code":2000}}`)
			op.send(`{"id":3,"rpc":{"method":"disconnect","data":{"user":"ann","reconnect":true}}}`)
			r.wantEnd(3011)
		})
	}
}

// Every reason for which there is no connection has a code, in a push and in the close frame.
func TestUniIsRefused(t *testing.T) {
	redis := startRedis(t)
	n := startNode(t, redis.Addr(), "n1", func(o *Options) { o.ChannelsPerClient = 3 })
	ann := token.Claims{User: "ann"}
	over := token.Claims{User: "ann", Expires: time.Now().Add(-time.Minute)}
	for _, c := range []struct {
		name, request string
		code          int
	}{
		{"no JSON", "hello", 3501},
		{"an array", "[]", 3501},
		{"subs of another type", `{"subs":["chat:a"]}`, 3501},
		{"no token", `{}`, 3500},
		{"a bad token", `{"token":"a.b.c"}`, 3500},
		{"an expired token", n.asking(t, over, ""), 3005},
		{"another's channel", n.asking(t, ann, `"system":{},"todos:#bob":{}`), 3507},
		{"an unknown namespace", n.asking(t, ann, `"nope:a":{}`), 3501},
		{"no name", n.asking(t, ann, `"":{}`), 3501},
		{"a bad subscription token", n.asking(t, ann, `"chat:a":{"token":"x"}`), 3507},
		{"a tags filter", n.asking(t, ann, `"chat:a":{"tf":{"op":"eq"}}`), 3508},
		{"too many channels", n.asking(t, ann, `"chat:1":{},"chat:2":{},"chat:3":{},"chat:4":{}`), 3505},
		{"past the limit", strings.Repeat(" ", limit.MessageBytes+1), 1009},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := n.listener(t, "")
			r.send(c.request)
			r.wantEnd(c.code)
		})
	}
	t.Run("nothing", func(t *testing.T) {
		hasty := startNode(t, redis.Addr(), "n2", func(o *Options) { o.HandshakeTimeout = 300 * time.Millisecond })
		hasty.listener(t, "").wantEnd(3502)
	})
	t.Run("a binary message", func(t *testing.T) {
		r := n.listener(t, "")
		r.write(websocket.BinaryMessage, []byte(n.asking(t, ann, "")))
		r.wantEnd(3501)
	})
	t.Run("as many channels as there may be", func(t *testing.T) {
		r := n.listener(t, n.asking(t, ann, `"chat:1":{},"chat:2":{},"chat:3":{}`))
		r.want(`{"connect":{"subs":{"chat:1":{},"chat:2":{},"chat:3":{}}}}`)
	})
	for _, bad := range []string{"hello", `{"subs":[]}`, "null x"} {
		if _, res, err := n.dialUni(bad, nil); err == nil || res == nil || res.StatusCode != http.StatusBadRequest {
			t.Errorf("%s in the URL: %v, %v: want 400", bad, res, err)
		}
	}
	if _, res, err := n.dialUni("", http.Header{"Origin": {"https://evil.example"}}); err == nil || res == nil || res.StatusCode != http.StatusForbidden {
		t.Errorf("another origin: %v, %v: want 403", res, err)
	}
	op := n.connect(t, operatorClaims)
	op.send(`{"id":2,"rpc":{"method":"connections","data":{"user":"ann"}}}`)
	op.want(`{"id":2,"rpc":{}}`)
}

// Redis away is a reason to come back.
func TestUniWithoutRedis(t *testing.T) {
	redis := startRedis(t)
	n := startNode(t, redis.Addr(), "n1", nil)
	redis.Close()
	r := n.listener(t, n.asking(t, token.Claims{User: "ann"}, `"chat:a":{}`))
	r.wantEnd(3004)
}

func TestUniRecovers(t *testing.T) {
	redis := startRedis(t)
	n1, n2 := startNode(t, redis.Addr(), "n1", nil), startNode(t, redis.Addr(), "n2", nil)
	epoch := n1.publish(t, "todos:#ann", `1`).Epoch
	n1.publish(t, "todos:#ann", `2`)
	n1.publish(t, "todos:#ann", `3`)
	r := n2.listener(t, n2.asking(t, token.Claims{User: "ann"},
		fmt.Sprintf(`"todos:#ann":{"recover":true,"epoch":%q,"offset":1},"user:#ann":{"recover":true,"epoch":"another","offset":1,"flag":2}`, epoch)))
	got := r.want(`{"connect":{"subs":{"todos:#ann":{"recovered":true,"was_recovering":true,"offset":3},"user:#ann":{"was_recovering":true}}}}`)
	subs := got["connect"].(map[string]any)["subs"].(map[string]any)
	if pubs, _ := subs["todos:#ann"].(map[string]any)["publications"].([]any); len(pubs) != 2 {
		t.Errorf("recovered %v", subs)
	}
	if subs["user:#ann"].(map[string]any)["recovered"] != nil {
		t.Errorf("recovered what can't be: %v", subs)
	}
	n1.publish(t, "todos:#ann", `4`)
	r.want(`{"channel":"todos:#ann","pub":{"data":4,"offset":4}}`)
	n2.hub.Lost("todos:#ann")
	r.wantEnd(3010)
	p := bus.Publication{Channel: "todos:#ann", Data: []byte(notJSON), Binary: true, History: bus.History{Size: 100, TTL: time.Minute}}
	if _, err := n1.bus.Publish(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	n2.listener(t, n2.asking(t, token.Claims{User: "ann"}, fmt.Sprintf(`"todos:#ann":{"recover":true,"epoch":%q,"offset":4}`, epoch))).wantEnd(3506)
}

// Pings are answered by the WebSocket itself: a client that reads is alive, one whose WebSocket is gone is found.
func TestUniPings(t *testing.T) {
	t.Parallel() // it waits for pings
	n := startNode(t, startRedis(t).Addr(), "n1", pace)
	req := n.asking(t, token.Claims{User: "ann"}, "")
	good, mute := n.listener(t, req), n.listener(t, req)
	mute.ws.(*websocket.Conn).SetPingHandler(func(string) error { return nil })
	silent := make(chan struct{})
	go func() { defer close(silent); mute.wantEnd(3012) }()
	good.want(`{"connect":{"ping":8}}`)
	for range 2 { // the second comes after the first one's pong was looked for
		if _, data, err := good.ws.ReadMessage(); err != nil || string(data) != "{}" {
			t.Fatalf("read %q, %v", data, err)
		}
	}
	<-silent
}

func TestUniFloods(t *testing.T) {
	n := startNode(t, startRedis(t).Addr(), "n1", nil)
	for name, flood := range map[string]func(r *raw) error{
		"messages": func(r *raw) error { return r.ws.WriteMessage(websocket.TextMessage, []byte("{}")) },
		"pongs": func(r *raw) error {
			return r.ws.(*websocket.Conn).WriteControl(websocket.PongMessage, nil, time.Now().Add(patience))
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := n.listener(t, n.asking(t, token.Claims{User: "ann"}, ""))
			r.want(`{"connect":{}}`)
			for range limit.CommandsBurst + 100 {
				if flood(r) != nil {
					break // closed already
				}
			}
			r.wantEnd(3013)
		})
	}
}

// What outlives its token ends the connection, because it can't be refreshed on it.
func TestUniOutlivesItsToken(t *testing.T) {
	n := startNode(t, startRedis(t).Addr(), "n1", func(o *Options) { o.Table = table(t, nil) })
	end := time.Now().Add(time.Hour).Truncate(time.Second) // tokens have whole seconds
	own := n.token(t, token.Claims{User: "bob", Channel: "open:a", Expires: end})
	for code, c := range map[int]struct{ user, req string }{
		3005: {"ann", n.asking(t, token.Claims{User: "ann", Expires: end}, `"open:a":{}`)},
		3006: {"bob", n.asking(t, token.Claims{User: "bob", Expires: end.Add(time.Hour)}, fmt.Sprintf(`"open:a":{"token":%q}`, own))},
	} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			r := n.listener(t, c.req)
			r.want(`{"connect":{}}`)
			theirs := n.matching(Query{User: c.user})
			if len(theirs) != 1 {
				t.Fatalf("%d clients", len(theirs))
			}
			theirs[0].ping(end.Add(expiredGrace))
			if theirs[0].gone() {
				t.Error("ended within the grace")
			}
			theirs[0].ping(end.Add(expiredGrace + 1))
			r.wantEnd(code)
		})
	}
}

func FuzzConnectRequest(f *testing.F) {
	for _, s := range []string{`{}`, `{"token":"x","subs":{"chat:a":{"recover":true,"epoch":"e","offset":3},"b":null}}`, `{"subs":{"":{"channel":"other"}}}`, "[", `{"data":1,"name":"n"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		req, err := decodeConnect(data)
		if err != nil {
			if req != nil {
				t.Error("both")
			}
			return
		}
		for name, sub := range req.Subs {
			if sub == nil || sub.Channel != name {
				t.Errorf("%q: subscription to %q is %v", data, name, sub)
			}
		}
	})
}
