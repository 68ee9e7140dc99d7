package conn

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"tideline/node/hub"
	"tideline/shared/bus"
	"tideline/shared/channel"
	"tideline/shared/limit"
	"tideline/shared/token"
)

// The same orders that servers give by their API, operators give by rpc.
func TestOperatorsOrder(t *testing.T) {
	n1, n2 := fleet(t, nil)
	ann := n2.connect(t, token.Claims{User: "ann"})
	op := n1.connect(t, operatorClaims)
	id := 1
	do := func(method, params, answer string) {
		t.Helper()
		id++
		op.send(fmt.Sprintf(`{"id":%d,"rpc":{"method":%q,"data":%s}}`, id, method, params))
		op.want(fmt.Sprintf(`{"id":%d,%s}`, id, answer))
	}
	for i := range 3 {
		n1.publish(t, "todos:#bob", fmt.Sprint(i+1))
	}
	tops, errs := n1.bus.Positions(t.Context(), []string{"todos:#bob"})
	if errs[0] != nil {
		t.Fatal(errs[0])
	}
	do("send", `{"user":"ann","data":{"n":1}}`, `"rpc":{"data":{"total":1}}`)
	ann.want(`{"push":{"message":{"data":{"n":1}}}}`)
	do("subscribe", fmt.Sprintf(`{"user":"ann","channel":"todos:#bob","data":"why","since":{"epoch":%q,"offset":2}}`, tops[0].Epoch), `"rpc":{"data":{"total":1}}`)
	ann.want(`{"push":{"channel":"todos:#bob","subscribe":{"offset":2,"data":"why"}}}`)
	ann.want(`{"push":{"channel":"todos:#bob","pub":{"data":3,"offset":3}}}`)
	do("channels", `{"pattern":"todos:*"}`, `"rpc":{"data":{"total":1,"channels":{"todos:#bob":1}}}`)
	do("unsubscribe", `{"user":"ann","channel":"todos:#bob","code":2001,"reason":"no more"}`, `"rpc":{"data":{"total":1}}`)
	ann.want(`{"push":{"channel":"todos:#bob","unsubscribe":{"code":2001,"reason":"no more"}}}`)
	do("subscribe", `{"user":"ann","channel":"todos:#bob","since":{"epoch":"x","offset":1}}`, `"rpc":{"data":{"total":0,"refused":{"112":1}}}`)
	do("refresh", fmt.Sprintf(`{"user":"ann","until":%d}`, time.Now().Add(time.Hour).Unix()), `"rpc":{"data":{"total":1}}`)
	ann.want(`{"push":{"refresh":{"expires":true}}}`)
	for _, c := range []struct {
		method, params string
		code           int
	}{
		{"send", `{"data":1}`, 107}, {"send", `{"user":"ann"}`, 107}, {"refresh", `{"until":1}`, 107}, {"refresh", `{"user":"ann","until":1}`, 107},
		{"subscribe", `{"user":"ann","channel":"system","info":1}`, 108}, {"subscribe", `{"user":"ann","channel":"system","until":1}`, 107},
		{"disconnect", `{"user":"ann","code":2999,"reason":"x"}`, 107}, {"disconnect", `{"user":"ann","code":4000}`, 107}, {"disconnect", `{"user":"ann","reason":"x"}`, 107},
		{"unsubscribe", `{"channel":"system","code":3000,"reason":"x"}`, 107}, {"channels", `{"pattern":"{"}`, 107},
		{"send", `{"user":"ann","data":"` + strings.Repeat("x", limit.OrderBytes) + `"}`, 106},
	} {
		do(c.method, c.params, fmt.Sprintf(`"error":{"code":%d}`, c.code))
	}
	do("disconnect", `{"user":"ann","except":["nobody"],"code":4000,"reason":"moved"}`, `"rpc":{"data":{"total":1}}`)
	ann.wantClose(4000)
}

// What a lease that begins anew enters again has the server's info, as the entry that was lost.
func TestPresenceKeepsTheServersInfo(t *testing.T) {
	n := startNode(t, startRedis(t).Addr(), "n1", func(o *Options) { o.Table = table(t, func(ns *channel.Namespace) { ns.Presence = true }) })
	ann := n.connect(t, token.Claims{User: "ann"})
	var o Order
	o.User, o.Channel, o.Info = "ann", "open:a", json.RawMessage(`{"seat":7}`)
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) { // until the node listens to surveys
		l, err := n.Service.Subscribe(t.Context(), o)
		if err == nil && l.Total == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(l, err)
		}
	}
	ann.want(`{"push":{"channel":"open:a","subscribe":{}}}`)
	members := n.members()["open:a"]
	entered, err := n.bus.Presence(t.Context(), "open:a")
	if err != nil || len(members) != 1 || len(entered) != 1 || string(members[0].ChanInfo) != `{"seat":7}` || string(entered[members[0].Client].ChanInfo) != `{"seat":7}` {
		t.Errorf("%+v %+v %v", members, entered, err)
	}
}

func TestUsersAreCounted(t *testing.T) {
	n := startNode(t, startRedis(t).Addr(), "n1", nil)
	var clients []*raw
	for _, user := range []string{"ann", "ann", "bob"} {
		clients = append(clients, n.connect(t, token.Claims{User: user}))
	}
	if got := n.nodeInfo(); got.Users != 2 || got.Connections != 3 {
		t.Errorf("%+v", got)
	}
	clients[0].ws.Close()
	clients[2].ws.Close()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if got := n.nodeInfo(); got.Users == 1 && got.Connections == 1 {
			return
		} else if time.Now().After(deadline) {
			t.Fatalf("%+v", got)
		}
	}
}

// A node lists so many channels, and no more.
func TestChannelsAreBounded(t *testing.T) {
	n := startNode(t, startRedis(t).Addr(), "n1", nil)
	n.connect(t, token.Claims{User: "ann"})
	c := n.only(t)
	var subs []*hub.Subscription
	enter := func(name string) {
		s := hub.NewSubscription(c.out, name, hub.Wishes{})
		n.hub.Enter(s, bus.Position{Epoch: "e.0"}, nil)
		subs = append(subs, s)
	}
	for i := range ChannelsMost {
		enter(fmt.Sprintf("system:%d", i))
	}
	enter("of-no-namespace")
	if l := n.listChannels(""); l.Total != ChannelsMost || len(l.Channels) != ChannelsMost || l.Refused != nil {
		t.Errorf("%d listed, %v", len(l.Channels), l.Refused)
	}
	enter("system:more")
	if l := n.listChannels("*"); l.Channels != nil || l.Refused[106] != 1 {
		t.Errorf("%d listed, %v", len(l.Channels), l.Refused)
	}
	if l := n.listChannels("system:m*"); l.Total != 1 || l.Channels["system:more"] != 1 {
		t.Errorf("%+v", l)
	}
	for i := range 2000 { // long names end it earlier
		enter(fmt.Sprintf("chat:%0240d", i))
	}
	if l := n.listChannels("chat:*"); l.Refused[106] != 1 {
		t.Errorf("%d long names listed", l.Total)
	}
	for _, s := range subs {
		n.hub.Exit(s, nil)
	}
	if got := n.hub.Channels(); len(got) != 0 {
		t.Errorf("%d channels are left", len(got))
	}
}

func TestGlob(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		match         bool
	}{
		{"", "anything:at#all", true}, {"*", "a:b", true}, {"**", "a:b", true}, {"chat:*", "chat:", true}, {"chat:*", "chats:a", false}, {"chat:?", "chat:a", true},
		{"chat:?", "chat:", false}, {"chat:[abc]", "chat:b", true}, {"chat:[abc]", "chat:d", false}, {"chat:[!abc]", "chat:d", true}, {"chat:[!a-c]", "chat:b", false},
		{"chat:[a-]", "chat:-", true}, {"{a,b*}:x", "bcd:x", true}, {"{a,b*}:x", "c:x", false}, {"{,x}a", "a", true}, {`\*`, "*", true}, {`\*`, "a", false},
		{"a,b", "a,b", true}, {"a.c", "abc", false}, {"(a|b)+$^", "(a|b)+$^", true}, {"[.]", "a", false}, {"[^a]", "^", true}, {"[[]", "[", true}, {`[\d]`, "5", false},
		{"a", "aa", false}, {"]", "]", true}, {strings.Repeat("*a", 100), strings.Repeat("a", 255), true}, {strings.Repeat("*a", 127) + "b", strings.Repeat("a", 255), false},
	} {
		re, err := glob(c.pattern)
		if err != nil {
			t.Errorf("%q: %v", c.pattern, err)
		} else if re.MatchString(c.name) != c.match {
			t.Errorf("%q and %q: %v", c.pattern, c.name, !c.match)
		}
	}
	for _, pattern := range []string{"[", "[]", "[!]", "[b-a]", "{", "{a{b}}", "}", `\`, "a{b", strings.Repeat("a", limit.ChannelBytes+1), "\xff"} {
		if err := CheckPattern(pattern); err == nil {
			t.Errorf("%q is taken", pattern)
		}
	}
	if err := CheckPattern(strings.Repeat("a", limit.ChannelBytes)); err != nil {
		t.Error(err)
	}
}

// A pattern without anything special matches itself, and none brings the node down.
func FuzzGlob(f *testing.F) {
	for _, p := range []string{"chat:*", "{a,b}", "[!a-z]?", `\`, "[a-\xff]"} {
		f.Add(p, "chat:a")
	}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		re, err := glob(pattern)
		if err != nil {
			return
		}
		if !strings.ContainsAny(pattern, `*?[]{}\`) && pattern != "" && !re.MatchString(pattern) {
			t.Errorf("%q does not match itself", pattern)
		}
		re.MatchString(name)
	})
}

// An order that is refused at some connections is done at the others.
func TestOrdersAreRefusedOneByOne(t *testing.T) {
	n := startNode(t, startRedis(t).Addr(), "n1", func(o *Options) { o.ChannelsPerClient = 1 })
	full, free := n.connect(t, token.Claims{User: "ann"}), n.connect(t, token.Claims{User: "ann"})
	full.send(`{"id":2,"subscribe":{"channel":"system"}}`)
	full.want(`{"id":2,"subscribe":{}}`)
	var o Order
	o.User, o.Channel = "ann", "chat:a"
	ctx, cancel := context.WithTimeout(t.Context(), limit.CommandBudget)
	defer cancel()
	l, err := n.carryOut(ctx, surveySubscribe, o)
	if err != nil || l.Total != 1 || l.Refused[106] != 1 {
		t.Errorf("%+v %v", l, err)
	}
	free.want(`{"push":{"channel":"chat:a","subscribe":{}}}`)
}
