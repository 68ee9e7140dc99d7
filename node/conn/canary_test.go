package conn

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	dto "github.com/prometheus/client_model/go"

	"tideline/shared/bus"
	"tideline/shared/token"
)

const canarySecret = "known to one process"

// sing opens the node's own socket.
func (n *node) sing(t *testing.T, secret string) (*raw, *http.Response, error) {
	t.Helper()
	ws, res, err := websocket.DefaultDialer.Dial(n.url, http.Header{"Authorization": {"Bearer " + secret}})
	if err != nil {
		return nil, res, err
	}
	t.Cleanup(func() { ws.Close() })
	ws.SetReadDeadline(time.Now().Add(2 * patience))
	return &raw{t: t, ws: ws}, res, nil
}

func TestTheCanaryMayHearItsChannelAndNothingElse(t *testing.T) {
	n := startNode(t, startRedis(t).Addr(), "n1", func(o *Options) { o.CanaryToken = canarySecret })
	r, _, err := n.sing(t, canarySecret)
	if err != nil {
		t.Fatal(err)
	}
	r.send(`{"id":1,"connect":{}}`)
	r.want(`{"id":1,"connect":{}}`)
	r.send(`{"id":2,"subscribe":{"channel":"system:canary"}}`)
	r.want(`{"id":2,"subscribe":{}}`)
	if l := n.listChannels(""); len(l.Channels) != 0 {
		t.Errorf("the canary's own subscription is listed: %v", l.Channels)
	}
	watcher := n.connect(t, token.Claims{User: "ann"})
	watcher.send(`{"id":2,"subscribe":{"channel":"system:canary"}}`)
	watcher.want(`{"id":2,"subscribe":{}}`)
	if l := n.listChannels(""); l.Channels["system:canary"] != 1 {
		t.Errorf("a watcher is not listed: %v", l.Channels)
	}
	n.publish(t, "system:canary", `{"type":"canary"}`)
	r.want(`{"push":{"channel":"system:canary","pub":{"data":{"type":"canary"}}}}`)
	for i, command := range []string{`"subscribe":{"channel":"system"}`, `"subscribe":{"channel":"chat:a"}`, `"publish":{"channel":"system:canary","data":{}}`,
		`"publish":{"channel":"chat:a","data":{}}`, `"history":{"channel":"chat:a"}`, `"rpc":{"method":"nodes"}`} {
		r.send(fmt.Sprintf(`{"id":%d,%s}`, i+3, command))
		r.want(fmt.Sprintf(`{"id":%d,"error":{"code":103}}`, i+3))
	}
}

func TestOnlyTheTokenLetsACanaryIn(t *testing.T) {
	redis := startRedis(t)
	with := startNode(t, redis.Addr(), "n1", func(o *Options) { o.CanaryToken = canarySecret })
	without := startNode(t, redis.Addr(), "n2", nil)
	for _, c := range []struct {
		n      *node
		secret string
	}{{with, canarySecret + "x"}, {with, canarySecret[1:]}, {without, canarySecret}} {
		r, _, err := c.n.sing(t, c.secret)
		if err != nil {
			t.Fatal(err)
		}
		r.send(`{"id":1,"connect":{}}`)
		r.wantClose(3500)
	}
	r := with.dial(t) // in the connect command it is no pass: the door has not seen it
	r.send(fmt.Sprintf(`{"id":1,"connect":{"token":%q}}`, canarySecret))
	r.wantClose(3500)
}

func TestNothingCountsTheCanary(t *testing.T) {
	n := startNode(t, startRedis(t).Addr(), "n1", func(o *Options) { o.CanaryToken, o.ConnectionsPerIP, o.Unauthenticated = canarySecret, 1, 1 })
	for range 2 { // one more than an address may have, and than may wait
		if _, _, err := n.sing(t, canarySecret); err != nil {
			t.Fatal(err)
		}
	}
	op := n.connect(t, operatorClaims) // there is room
	if got := n.Status(t.Context()).Connections; got != 1 {
		t.Errorf("%d connections, want the operator's alone", got)
	}
	n.dial(t)                            // and says nothing, so that as many wait as may
	r, _, err := n.sing(t, canarySecret) // nevertheless
	if err != nil {
		t.Fatal(err)
	}
	r.send(`{"id":1,"connect":{}}`)
	r.want(`{"id":1,"connect":{}}`)
	for _, method := range []string{"connections", "disconnect"} { // neither of which finds it
		op.send(`{"id":2,"rpc":{"method":"` + method + `","data":{"client":"` + n.canaryID(t) + `"}}}`)
		op.want(`{"id":2,"rpc":{"data":{"total":0}}}`)
	}
	r.ws.Close()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) { // an upgrade is answered before the client is counted
		n.mu.Lock()
		canaries, pending := n.canaries, n.pending
		n.mu.Unlock()
		var total dto.Metric
		if err := n.meter.total.Write(&total); err != nil {
			t.Fatal(err)
		}
		accepted := total.GetCounter().GetValue()
		if canaries == 2 && pending == 1 && accepted == 2 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d canaries, %d pending, %v accepted", canaries, pending, accepted)
		}
	}
	if got := n.Status(t.Context()).Connections; got != 2 {
		t.Errorf("%d connections, want the operator's and the one that says nothing", got)
	}
	nodes, err := n.bus.Nodes(t.Context())
	if err != nil || slices.ContainsFunc(nodes, func(i bus.NodeInfo) bool { return i.Connections > 2 }) {
		t.Errorf("%+v, %v", nodes, err)
	}
}

// canaryID is the id of one that has connected.
func (n *node) canaryID(t *testing.T) string {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.clients {
		if c.canary() && c.is(connected) {
			return c.id
		}
	}
	t.Fatal("no canary")
	return ""
}

// The canary is not of the fleet's balance, either.
func TestTheCanaryIsNotShed(t *testing.T) {
	n := startNode(t, startRedis(t).Addr(), "n1", func(o *Options) { o.CanaryToken, o.ShedAge = canarySecret, time.Nanosecond })
	r, _, err := n.sing(t, canarySecret)
	if err != nil {
		t.Fatal(err)
	}
	r.send(`{"id":1,"connect":{}}`)
	r.want(`{"id":1,"connect":{}}`)
	ann := n.connect(t, token.Claims{User: "ann"})
	n.shed(t.Context(), 2, 2)
	ann.wantClose(3011)
	r.send(`{"id":2,"subscribe":{"channel":"system:canary"}}`)
	r.want(`{"id":2,"subscribe":{}}`)
}
