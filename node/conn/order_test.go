package conn

import (
	"context"
	"fmt"
	"testing"
	"time"

	"tideline/shared/bus"
	"tideline/shared/channel"
	"tideline/shared/limit"
	"tideline/shared/token"
	"tideline/test/redistest"
)

func TestOrdersReachTheOtherNode(t *testing.T) {
	n1, n2 := fleet(t, nil)
	ann := n2.connect(t, token.Claims{User: "ann", Session: "s1"})
	bob := n2.connect(t, token.Claims{User: "bob"})
	op := n1.connect(t, operatorClaims)
	id := 1
	do := func(method, params, answer string) {
		t.Helper()
		id++
		op.send(fmt.Sprintf(`{"id":%d,"rpc":{"method":%q,"data":%s}}`, id, method, params))
		op.want(fmt.Sprintf(`{"id":%d,%s}`, id, answer))
	}
	do("subscribe", `{"user":"ann","channel":"todos:#bob"}`, `"rpc":{"data":{"total":1}}`) // the server may
	ann.want(`{"push":{"channel":"todos:#bob","subscribe":{"recoverable":true,"positioned":true}}}`)
	n1.publish(t, "todos:#bob", `{"n":1}`)
	ann.want(`{"push":{"channel":"todos:#bob","pub":{"offset":1}}}`)
	do("subscribe", `{"session":"s1","channel":"todos:#bob"}`, `"rpc":{"data":{"total":1}}`) // it is already: no second push
	do("unsubscribe", `{"user":"ann","channel":"todos:#bob"}`, `"rpc":{"data":{"total":1}}`)
	ann.want(`{"push":{"channel":"todos:#bob","unsubscribe":{"code":2000}}}`)
	do("unsubscribe", `{"user":"ann","channel":"todos:#bob"}`, `"rpc":{"data":{"total":0}}`)
	for _, r := range []*raw{ann, bob} {
		r.send(`{"id":2,"subscribe":{"channel":"system"}}`)
		r.want(`{"id":2,"subscribe":{}}`)
	}
	do("unsubscribe", `{"channel":"system"}`, `"rpc":{"data":{"total":2}}`) // everybody
	for _, r := range []*raw{ann, bob} {
		r.want(`{"push":{"channel":"system","unsubscribe":{"code":2000}}}`)
	}
	for _, c := range []struct {
		method, params string
		code           int
	}{
		{"subscribe", `{"channel":"system"}`, 107}, {"subscribe", `{"user":"ann"}`, 107}, {"subscribe", `{"user":"ann","channel":"nope:x"}`, 102},
		{"subscribe", `[]`, 107}, {"unsubscribe", `{"user":"ann"}`, 107}, {"disconnect", `{"channel":"system"}`, 107}, {"drain", `{}`, 107},
		{"revoke", `{}`, 107}, {"revoke", `{"user":"a","session":"b"}`, 107}, {"revoke", `7`, 107},
	} {
		do(c.method, c.params, fmt.Sprintf(`"error":{"code":%d}`, c.code))
	}
	do("disconnect", `{"user":"ann","reconnect":true}`, `"rpc":{"data":{"total":1}}`)
	ann.wantClose(3011)
	do("revoke", `{"user":"bob"}`, `"rpc":{"data":{}}`)
	bob.wantClose(3503)
}

// An order that comes while a subscribe is under way waits for it: the client sees the reply, then the push.
func TestAnOrderWaitsForTheSubscribeBeforeIt(t *testing.T) {
	n := startNode(t, startRedis(t).Addr(), "n1", nil)
	r := n.connect(t, token.Claims{User: "ann"})
	c := n.only(t)
	for i := range 50 {
		r.send(fmt.Sprintf(`{"id":%d,"subscribe":{"channel":"system"}}`, i+2))
		for deadline := time.Now().Add(patience); !c.subscribing("system"); {
			if time.Now().After(deadline) {
				t.Fatal("the subscribe has not begun")
			}
		}
		if n := c.ask(t.Context(), func(context.Context) bool {
			return c.dropWhere(unsubServer, "server unsubscribe", func(string, *subscription) bool { return true }) == 1
		}); !n {
			t.Fatal("the order found nothing to end")
		}
		r.want(fmt.Sprintf(`{"id":%d,"subscribe":{}}`, i+2))
		r.want(`{"push":{"channel":"system","unsubscribe":{"code":2000}}}`)
	}
}

// subscribing reports whether the channel's place is taken.
func (c *client) subscribing(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.subs[name] != nil
}

// only is the node's one client, once it is connected: its peer may hear of the connection before the node counts it.
func (n *node) only(t *testing.T) *client {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		found := n.matching(Query{})
		if len(found) == 1 {
			return found[0]
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d clients", len(found))
		}
	}
}

func TestOrdersAreBounded(t *testing.T) {
	n := startNode(t, startRedis(t).Addr(), "n1", nil)
	r := n.connect(t, token.Claims{User: "ann"})
	c := n.only(t)
	began, release := make(chan struct{}), make(chan struct{})
	if !c.order(func(context.Context) { close(began); <-release }) {
		t.Fatal("refused")
	}
	<-began
	for i := range ordersMost {
		if !c.order(func(context.Context) {}) {
			t.Fatalf("order %d of %d was refused", i+1, ordersMost)
		}
	}
	if c.order(func(context.Context) {}) {
		t.Errorf("one past %d was taken", ordersMost)
	}
	close(release)
	r.wantClose(3011)
	if c.ask(t.Context(), func(context.Context) bool { return true }) {
		t.Error("a client that has gone took an order")
	}
}

func TestCommandsAfterAGoodbyeAreNotRun(t *testing.T) {
	n := startNode(t, startRedis(t).Addr(), "n1", func(o *Options) { o.Table = table(t, nil) })
	r := n.connect(t, token.Claims{User: "ann"})
	r.send(`{"send":{}}` + "\n" + `{"id":2,"publish":{"channel":"open:a","data":1}}`)
	r.wantClose(3508)
	if top, errs := n.bus.Positions(t.Context(), []string{"open:a"}); errs[0] != nil || top[0].Offset != 0 {
		t.Errorf("%v %v", top, errs)
	}
}

// An unrecoverable position that is refused on request leaves nothing behind.
func TestARefusedRecoveryLeavesNothing(t *testing.T) {
	n := startNode(t, startRedis(t).Addr(), "n1", nil)
	r := n.connect(t, token.Claims{User: "ann"})
	for i := range 3 {
		r.send(fmt.Sprintf(`{"id":%d,"subscribe":{"channel":"chat:a","recover":true,"epoch":"x","offset":1,"flag":2}}`, i+2))
		r.want(fmt.Sprintf(`{"id":%d,"error":{"code":112}}`, i+2))
	}
	n.publish(t, "chat:a", "1")
	r.send(`{"id":9,"subscribe":{"channel":"chat:a"}}`)
	r.want(`{"id":9,"subscribe":{"offset":1}}`)
	if n := n.hub.Subscriptions(); n != 1 {
		t.Errorf("%d subscriptions in the hub", n)
	}
}

// A connect that fails on Redis leaves nothing behind: another one on the same connection gets all that the token names.
func TestAConnectThatFailedCanBeRepeated(t *testing.T) {
	redis := redistest.Start(t)
	proxy := redistest.StartProxy(t, fmt.Sprintf("127.0.0.1:%d", redis.Port))
	n := startNode(t, proxy.Addr(), "n1", func(o *Options) { o.HandshakeTimeout = 2 * patience })
	raw := n.token(t, token.Claims{User: "ann", Channels: []string{"system", "user:#ann"}})
	r := n.dial(t)
	warm := n.connect(t, token.Claims{User: "bob"}) // so that one of the channels needs nothing of Redis
	warm.send(`{"id":2,"subscribe":{"channel":"system"}}`)
	warm.want(`{"id":2,"subscribe":{}}`)
	proxy.Pause()
	r.send(fmt.Sprintf(`{"id":1,"connect":{"token":%q}}`, raw))
	r.want(`{"id":1,"error":{"code":100,"temporary":true}}`)
	proxy.Resume()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		r.send(fmt.Sprintf(`{"id":2,"connect":{"token":%q}}`, raw))
		got := r.want(`{"id":2}`)
		if res, ok := got["connect"].(map[string]any); ok {
			if subs := res["subs"].(map[string]any); len(subs) != 2 {
				t.Errorf("subscribed to %v", subs)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("answered %v", got)
		}
	}
}

// The answer to connect doesn't wait for a subscribe of its frame that waits for Redis; what comes in later frames does, for the command's budget at most.
func TestConnectIsAnsweredBeforeASubscribeThatWaitsForRedis(t *testing.T) {
	redis := redistest.Start(t)
	proxy := redistest.StartProxy(t, fmt.Sprintf("127.0.0.1:%d", redis.Port))
	n := startNode(t, proxy.Addr(), "n1", func(o *Options) { o.Table = table(t, nil) })
	for _, subscribes := range []int{1, 2} { // the last of a frame is run by the goroutine that reads the frame, others beside it
		r := n.dial(t)
		frame := fmt.Sprintf(`{"id":1,"connect":{"token":%q}}`, n.token(t, token.Claims{User: "ann"}))
		for i := range subscribes {
			frame += fmt.Sprintf("\n"+`{"id":2,"subscribe":{"channel":"open:cold-%d-%d"}}`, subscribes, i)
		}
		proxy.Pause()
		start := time.Now()
		r.send(frame)
		r.want(`{"id":1,"connect":{}}`)
		answered := time.Now()
		r.send(`{"id":3,"rpc":{"method":"time"}}`)
		for range subscribes {
			r.want(`{"id":2,"error":{"code":100,"temporary":true}}`)
		}
		if after := time.Since(answered); after < limit.CommandBudget/10 {
			t.Errorf("%d subscribes: connect was answered with them, %v before", subscribes, after)
		}
		r.want(`{"id":3,"rpc":{}}`)
		if took := time.Since(start); took < limit.CommandBudget || took > 4*limit.CommandBudget {
			t.Errorf("%d subscribes: all was answered after %v", subscribes, took)
		}
		proxy.Resume()
	}
}

// A node that was cut off from Redis when a revocation was said acts on it when it is back.
func TestRevocationReachesANodeThatWasCutOff(t *testing.T) {
	redis := redistest.Start(t)
	direct := fmt.Sprintf("127.0.0.1:%d", redis.Port)
	proxy := redistest.StartProxy(t, direct)
	room := func(o *Options) {
		o.Table = table(t, func(ns *channel.Namespace) { ns.Token = true; ns.Recover, ns.HistorySize, ns.HistoryTTL = false, 0, 0 })
	}
	n1, n2 := startNode(t, direct, "n1", room), startNode(t, proxy.Addr(), "n2", room)
	issued := time.Now().Add(-time.Second)
	claims := token.Claims{User: "ann", Session: "s1", IssuedAt: issued}
	a, b := n1.connect(t, claims), n2.connect(t, claims)
	member := n2.connect(t, token.Claims{User: "cid"})
	member.send(fmt.Sprintf(`{"id":2,"subscribe":{"channel":"open:a","token":%q}}`, n2.token(t, token.Claims{User: "cid", Channel: "open:a", ID: "pass", IssuedAt: issued})))
	member.want(`{"id":2,"subscribe":{}}`)

	proxy.Refuse(true)
	proxy.Cut()
	start := time.Now()
	for _, r := range []bus.Revocation{{Session: "s1"}, {Token: "pass"}} {
		if err := n1.bus.Revoke(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	a.wantClose(3503)
	if took := time.Since(start); took > limit.PositionCheckEvery/2 {
		t.Errorf("a connected node took %v: it was not told", took)
	}
	b.send(`{"id":3,"rpc":{"method":"time"}}`)
	b.want(`{"id":3,"rpc":{}}`) // it can't know
	proxy.Refuse(false)
	back := time.Now()
	b.wantClose(3503)
	if took := time.Since(back); took > limit.PositionCheckEvery {
		t.Errorf("the node took %v after it was back", took)
	}
	member.want(`{"push":{"channel":"open:a","unsubscribe":{"code":2000}}}`)
	again := n2.dial(t)
	again.send(fmt.Sprintf(`{"id":1,"connect":{"token":%q}}`, n2.token(t, claims)))
	again.wantClose(3500)
	member.send(fmt.Sprintf(`{"id":4,"subscribe":{"channel":"open:a","token":%q}}`, n2.token(t, token.Claims{User: "cid", Channel: "open:a", ID: "pass", IssuedAt: issued})))
	member.want(`{"id":4,"error":{"code":103}}`)
}
