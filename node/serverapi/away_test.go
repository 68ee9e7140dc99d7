package serverapi

import (
	"fmt"
	"strings"
	"testing"

	"tideline/node/conn"
	"tideline/shared/token"
	"tideline/test/redistest"
)

// With Redis away every call ends in time with error 100; a publication that is repeated with its key afterwards is published once.
func TestRedisAway(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	proxy := redistest.StartProxy(t, redis.Addr())
	n := startNode(t, proxy.URL(), "n1", nil)
	eventually(t, "the node answers", func() bool {
		l, err := n.sockets.Connections(t.Context(), conn.Query{})
		return err == nil && len(l.Missing) == 0
	})
	ann := n.connect(token.Claims{User: "ann"})
	ann.subscribe("open:a")
	const once = `{"channel":"open:a","data":"once","idempotency_key":"k"}`
	proxy.PauseAnswers() // what is sent arrives, and nobody hears what came of it
	n.call("publish", once, `{"error":{"code":100,"message":"internal server error"}}`)
	var commands []string
	for method, body := range map[string]string{"presence": `{"channel":"open:a"}`, "presence_stats": `{"channel":"open:a"}`, "history": `{"channel":"open:a","limit":1}`,
		"history_remove": `{"channel":"open:b"}`, "info": `{}`, "channels": `{}`, "connections": `{}`, "disconnect": `{"user":"nobody"}`,
		"subscribe": `{"user":"nobody","channel":"open:a"}`, "send": `{"user":"nobody","data":1}`, "rpc": `{"method":"nodes"}`} {
		commands = append(commands, fmt.Sprintf(`{%q:%s}`, method, body))
	}
	replies := n.call("batch", `{"parallel":true,"commands":[`+strings.Join(commands, ",")+`]}`, `{}`)["replies"].([]any)
	for i, r := range replies {
		if !contains(r, map[string]any{"error": map[string]any{"code": 100, "message": "internal server error"}}) {
			t.Errorf("%s: %v", commands[i], r)
		}
	}
	if len(replies) != len(commands) {
		t.Errorf("%d answers", len(replies))
	}
	if status, got := n.post("/api/publish", once, "X-Centrifugo-Error-Mode", "transport"); status != 500 || got != `{"code":100,"message":"internal server error"}` {
		t.Errorf("%d %s", status, got)
	}
	// More than fits into a request's time is cut short, long before one channel after the other would be, and every channel has its answer.
	all := n.call("broadcast", `{"data":1,"channels":[`+strings.TrimSuffix(strings.Repeat(`"open:b",`, BroadcastChannels), ",")+`]}`, `{"result":{}}`)
	responses := all["result"].(map[string]any)["responses"].([]any)
	for _, r := range responses {
		if !contains(r, map[string]any{"error": map[string]any{"code": 100}}) {
			t.Fatalf("answered %v", r)
		}
	}
	if len(responses) != BroadcastChannels {
		t.Errorf("%d answers", len(responses))
	}
	proxy.Resume()
	eventually(t, "the publication goes through", func() bool {
		_, got := n.post("/api/publish", once)
		return strings.Contains(got, `"duplicate":true`)
	})
	n.call("history", `{"channel":"open:a","limit":-1}`, `{"result":{"offset":1,"publications":[{"data":"once"}]}}`)
	ann.want(`{"push":{"channel":"open:a","pub":{"data":"once","offset":1}}}`)
}

// A node that does not answer is named: the order has been carried out everywhere else, and can be given again.
func TestANodeThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	proxy := redistest.StartProxy(t, redis.Addr())
	n1, n2 := startNode(t, redis.URL(), "n1", nil), startNode(t, proxy.URL(), "n2", nil)
	eventually(t, "both nodes answer", func() bool {
		nodes, err := n1.bus.Nodes(t.Context())
		l, wrong := n1.sockets.Connections(t.Context(), conn.Query{})
		return err == nil && wrong == nil && len(nodes) == 2 && len(l.Missing) == 0
	})
	here, there := n1.connect(token.Claims{User: "ann"}), n2.connect(token.Claims{User: "ann"})
	proxy.Pause()
	const missing = `{"error":{"code":100,"message":"internal server error: no answer from n2; done at 1 connections"}}`
	n1.call("subscribe", `{"user":"ann","channel":"open:a"}`, missing)
	here.want(`{"push":{"channel":"open:a","subscribe":{}}}`)
	n1.call("connections", `{"user":"ann"}`, missing)
	proxy.Resume()
	eventually(t, "the order goes through", func() bool {
		_, got := n1.post("/api/subscribe", `{"user":"ann","channel":"open:a"}`)
		return got == `{"result":{"total":2}}`
	})
	there.want(`{"push":{"channel":"open:a","subscribe":{}}}`)
	n1.call("publish", `{"channel":"open:a","data":1}`, `{"result":{}}`)
	for _, c := range []*client{here, there} {
		c.want(`{"push":{"channel":"open:a","pub":{"data":1}}}`)
	}
	// One connection that was found needs no other node.
	proxy.Pause()
	n1.call("send", fmt.Sprintf(`{"client":%q,"data":1}`, here.id), `{"result":{"total":1}}`)
	here.want(`{"push":{"message":{"data":1}}}`)
	proxy.Resume()
}
