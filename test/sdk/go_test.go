package sdk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/centrifugal/centrifuge-go"

	"tideline/shared/token"
	"tideline/test/fleet"
)

const (
	patience = 30 * time.Second
	// brief is how long a token lives that is to expire: connecting may take that long on a machine that stands still.
	brief = 5 * time.Second
)

// goClient is the public Go SDK, with what it has said so far.
type goClient struct {
	*centrifuge.Client
	t *testing.T

	mu        sync.Mutex
	connected int
	codes     []uint32 // of connecting events after the first, and of disconnected ones
	got       []string // server-side publications
	server    []string // server-side subscriptions that are there
	errs      []error
}

func sign(t *testing.T, c token.Claims, ttl time.Duration) string {
	t.Helper()
	s, err := token.NewSecrets([]string{fleet.Secret}, nil)
	if err != nil {
		t.Fatal(err)
	}
	c.Expires = time.Now().Add(ttl)
	raw, err := s.Sign(c)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func newGo(t *testing.T, at door, user string, change func(*centrifuge.Config)) *goClient {
	t.Helper()
	o := centrifuge.Config{Token: sign(t, token.Claims{User: user}, time.Hour), Name: "go", MinReconnectDelay: 20 * time.Millisecond, MaxReconnectDelay: 300 * time.Millisecond,
		HandshakeTimeout: patience, ReadTimeout: patience, WriteTimeout: patience}
	if change != nil {
		change(&o)
	}
	make := centrifuge.NewJsonClient
	if at.protobuf {
		make = centrifuge.NewProtobufClient
	}
	c := &goClient{Client: make(at.url, o), t: t}
	t.Cleanup(c.Close)
	c.OnConnected(func(centrifuge.ConnectedEvent) { c.note(func() { c.connected++ }) })
	c.OnConnecting(func(e centrifuge.ConnectingEvent) {
		if e.Code != 0 {
			c.note(func() { c.codes = append(c.codes, e.Code) })
		}
	})
	c.OnDisconnected(func(e centrifuge.DisconnectedEvent) { c.note(func() { c.codes = append(c.codes, e.Code) }) })
	c.OnError(func(e centrifuge.ErrorEvent) { c.note(func() { c.errs = append(c.errs, e.Error) }) })
	c.OnPublication(func(e centrifuge.ServerPublicationEvent) { c.note(func() { c.got = append(c.got, string(e.Data)) }) })
	c.OnSubscribed(func(e centrifuge.ServerSubscribedEvent) { c.note(func() { c.server = append(c.server, e.Channel) }) })
	c.OnUnsubscribed(func(e centrifuge.ServerUnsubscribedEvent) {
		c.note(func() { c.server = slices.DeleteFunc(c.server, func(s string) bool { return s == e.Channel }) })
	})
	return c
}

func (c *goClient) note(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

// until polls a condition about what the client has said.
func (c *goClient) until(what string, condition func() bool) {
	c.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		c.mu.Lock()
		ok := condition()
		state := fmt.Sprintf("connected %d, codes %v, errors %v, got %v, server-side %v", c.connected, c.codes, c.errs, c.got, c.server)
		c.mu.Unlock()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("not within %v: %s (%s)", patience, what, state)
		}
	}
}

func (c *goClient) up() *goClient {
	c.t.Helper()
	c.mu.Lock()
	before := c.connected
	c.mu.Unlock()
	if err := c.Connect(); err != nil {
		c.t.Fatal(err)
	}
	c.until("connected", func() bool { return c.connected > before })
	return c
}

// goSub is one of its subscriptions, with what it has said.
type goSub struct {
	*centrifuge.Subscription
	c          *goClient
	subscribed []centrifuge.SubscribedEvent
	codes      []uint32 // of unsubscribed events
	errs       []error
	got        []string
	members    []string
}

func (c *goClient) sub(channel string, o centrifuge.SubscriptionConfig) *goSub {
	c.t.Helper()
	sub, err := c.NewSubscription(channel, o)
	if err != nil {
		c.t.Fatal(err)
	}
	s := &goSub{Subscription: sub, c: c}
	s.OnSubscribed(func(e centrifuge.SubscribedEvent) { c.note(func() { s.subscribed = append(s.subscribed, e) }) })
	s.OnUnsubscribed(func(e centrifuge.UnsubscribedEvent) { c.note(func() { s.codes = append(s.codes, e.Code) }) })
	s.OnError(func(e centrifuge.SubscriptionErrorEvent) { c.note(func() { s.errs = append(s.errs, e.Error) }) })
	s.OnPublication(func(e centrifuge.PublicationEvent) { c.note(func() { s.got = append(s.got, string(e.Data)) }) })
	s.OnJoin(func(e centrifuge.JoinEvent) { c.note(func() { s.members = append(s.members, "+"+e.User) }) })
	s.OnLeave(func(e centrifuge.LeaveEvent) { c.note(func() { s.members = append(s.members, "-"+e.User) }) })
	return s
}

func (s *goSub) up() *goSub {
	s.c.t.Helper()
	s.c.mu.Lock()
	before := len(s.subscribed)
	s.c.mu.Unlock()
	if err := s.Subscribe(); err != nil {
		s.c.t.Fatal(err)
	}
	s.c.until("subscribed to "+s.Channel, func() bool { return len(s.subscribed) > before })
	return s
}

// want waits until exactly these publications have come.
func (s *goSub) want(data ...string) {
	s.c.t.Helper()
	s.c.until(fmt.Sprintf("publications %v", data), func() bool { return len(s.got) >= len(data) })
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if !slices.Equal(s.got, data) {
		s.c.t.Errorf("got %v, want %v", s.got, data)
	}
}

// call is an rpc whose answer is decoded.
func (c *goClient) call(method string, params, answer any) error {
	c.t.Helper()
	data, err := json.Marshal(params)
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	res, err := c.RPC(ctx, method, data)
	if err != nil {
		return err
	}
	return json.Unmarshal(res.Data, answer)
}

type args map[string]string

func (c *goClient) order(method string, params any) int {
	c.t.Helper()
	var l struct{ Total int }
	if err := c.call(method, params, &l); err != nil {
		c.t.Fatalf("%s: %v", method, err)
	}
	return l.Total
}

// goneSoon waits until no node has a connection of a user. One that doesn't answer in time is asked again.
func (c *goClient) goneSoon(user string) {
	c.t.Helper()
	fleet.Poll(c.t, "no connection of "+user+" is left", func() error {
		var l struct{ Total int }
		if err := c.call("connections", args{"user": user}, &l); err != nil || l.Total > 0 {
			return fmt.Errorf("%d connections, %v", l.Total, err)
		}
		return nil
	})
}

func (c *goClient) say(channel string, data ...string) {
	c.t.Helper()
	for _, d := range data {
		if _, err := c.Publish(c.t.Context(), channel, []byte(d)); err != nil {
			c.t.Fatalf("publish on %s: %v", channel, err)
		}
	}
}

// code is the number of a server's error, wherever the SDK has put it.
func code(err error) uint32 {
	var e *centrifuge.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return 0
}

// door is where a client connects, and the format that it speaks there.
type door struct {
	url      string
	protobuf bool
}

func TestGo(t *testing.T) {
	t.Parallel()
	for format, protobuf := range map[string]bool{"JSON": false, "Protobuf": true} {
		t.Run(format, func(t *testing.T) {
			t.Parallel() // most of it is waiting for tokens to expire
			_, url := start(t)
			testGo(t, door{url, protobuf})
		})
	}
}

func testGo(t *testing.T, at door) {
	operator := func(t *testing.T) *goClient {
		return newGo(t, at, "op", func(o *centrifuge.Config) {
			o.Token = sign(t, token.Claims{User: "op", Roles: []string{"operator"}}, time.Hour)
		}).up()
	}
	for name, test := range map[string]func(t *testing.T, at door, op *goClient){
		"connect and disconnect in a loop": goLoop, "subscribe and unsubscribe in a loop": goSubscribeLoop,
		"tokens that are none, bad, expired": goTokens, "a token is refreshed in place": goRefresh, "unauthorised subscriptions": goDenied,
		"subscription tokens": goSubscriptionTokens, "recovery": goRecovery, "an unrecoverable position": goUnrecoverable,
		"presence, joins, leaves, history": goPresence, "rpc waits for the connection": goEarly, "hundreds of subscriptions": goMany,
		"server-side subscriptions": goServerSide, "goodbyes": goGoodbyes,
	} {
		t.Run(name, func(t *testing.T) { test(t, at, operator(t)) })
	}
}

func goLoop(t *testing.T, at door, op *goClient) {
	c := newGo(t, at, "loop", nil)
	for i := range 20 {
		if err := c.Connect(); err != nil {
			t.Fatal(err)
		}
		if i%2 == 1 {
			c.until("connected", func() bool { return c.connected > 0 })
		}
		if err := c.Disconnect(); err != nil {
			t.Fatal(err)
		}
	}
	op.goneSoon("loop")
	c.up()
}

func goSubscribeLoop(t *testing.T, at door, op *goClient) {
	c := newGo(t, at, "subloop", nil).up()
	s := c.sub("open:g-loop", centrifuge.SubscriptionConfig{})
	for range 30 {
		if err := s.Subscribe(); err != nil {
			t.Fatal(err)
		}
		if err := s.Unsubscribe(); err != nil { // between the command and its reply
			t.Fatal(err)
		}
		// v0.12.0 sends no second subscribe while the reply to the first is on its way, and takes that reply for the second's: against
		// any server a subscription that hurries more than this is one that the server doesn't have. The JavaScript client has no such window.
		// The reply to a later command comes after that to the subscribe.
		if err := c.call("time", nil, new(any)); err != nil {
			t.Fatal(err)
		}
	}
	s.up()
	op.say("open:g-loop", "1", "2")
	s.want("1", "2")
}

func goTokens(t *testing.T, at door, _ *goClient) {
	for name, c := range map[string]struct {
		token string
		code  uint32
	}{"none": {"", 101}, "bad": {"a.b.c", 3500}, "expired": {sign(t, token.Claims{User: "x"}, -time.Minute), 1}} {
		cl := newGo(t, at, "x", func(o *centrifuge.Config) { o.Token = c.token })
		if err := cl.Connect(); err != nil {
			t.Fatal(err)
		}
		cl.until(name+" is refused", func() bool { return slices.Contains(cl.codes, c.code) })
	}
	renewed := newGo(t, at, "x", func(o *centrifuge.Config) {
		o.Token = sign(t, token.Claims{User: "x"}, -time.Minute)
		o.GetToken = func(centrifuge.ConnectionTokenEvent) (string, error) {
			return sign(t, token.Claims{User: "x"}, time.Hour), nil
		}
	})
	renewed.up()
	refused := newGo(t, at, "x", func(o *centrifuge.Config) {
		o.Token = ""
		o.GetToken = func(centrifuge.ConnectionTokenEvent) (string, error) { return "", centrifuge.ErrUnauthorized }
	})
	if err := refused.Connect(); err != nil {
		t.Fatal(err)
	}
	refused.until("unauthorized", func() bool { return slices.Contains(refused.codes, 1) })
}

func goRefresh(t *testing.T, at door, _ *goClient) {
	calls := 0
	var c *goClient
	c = newGo(t, at, "fresh", func(o *centrifuge.Config) {
		o.Token = sign(t, token.Claims{User: "fresh"}, brief)
		o.GetToken = func(centrifuge.ConnectionTokenEvent) (string, error) {
			ttl := time.Hour
			c.note(func() {
				if calls++; calls == 1 {
					ttl = brief
				}
			})
			return sign(t, token.Claims{User: "fresh"}, ttl), nil
		}
	})
	c.up()
	c.until("two refreshes", func() bool { return calls == 2 })
	time.Sleep(2 * time.Second) // past the second token's end too: nothing is to happen, and there is nothing to wait for
	if err := c.call("time", nil, new(any)); err != nil {
		t.Error(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.connected != 1 || len(c.codes) > 0 || len(c.errs) > 0 {
		t.Errorf("connected %d times, codes %v, errors %v", c.connected, c.codes, c.errs)
	}
}

func goDenied(t *testing.T, at door, _ *goClient) {
	c := newGo(t, at, "stranger", nil).up()
	for channel, want := range map[string]uint32{"todos:#ann": 103, "docker:x": 103, "nowhere:x": 102, "room:x": 103, "open:{x}": 107} {
		s := c.sub(channel, centrifuge.SubscriptionConfig{})
		if err := s.Subscribe(); err != nil {
			t.Fatal(err)
		}
		c.until(channel+" is refused", func() bool { return slices.Equal(s.codes, []uint32{want}) })
	}
}

func goSubscriptionTokens(t *testing.T, at door, _ *goClient) {
	const channel = "room:g"
	c := newGo(t, at, "cook", nil).up()
	var calls int
	s := c.sub(channel, centrifuge.SubscriptionConfig{Token: sign(t, token.Claims{User: "cook", Channel: channel}, -time.Minute),
		GetToken: func(centrifuge.SubscriptionTokenEvent) (string, error) {
			ttl := time.Hour
			c.note(func() {
				if calls++; calls < 3 {
					ttl = brief
				}
			})
			return sign(t, token.Claims{User: "cook", Channel: channel}, ttl), nil
		}}).up()
	c.until("two refreshes", func() bool { return calls == 3 })
	if _, err := s.Publish(t.Context(), []byte(`"still in"`)); err != nil {
		t.Error(err)
	}
	s.want(`"still in"`)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(s.subscribed) != 1 || len(s.codes) > 0 {
		t.Errorf("subscribed %d times, codes %v", len(s.subscribed), s.codes)
	}
}

func goRecovery(t *testing.T, at door, op *goClient) {
	c := newGo(t, at, "rec", nil).up()
	s := c.sub("open:g-rec", centrifuge.SubscriptionConfig{}).up()
	op.say("open:g-rec", "1")
	s.want("1")
	if err := c.Disconnect(); err != nil {
		t.Fatal(err)
	}
	op.say("open:g-rec", "2", "3")
	c.up()
	s.want("1", "2", "3")
	if n := op.order("disconnect", map[string]any{"user": "rec", "reconnect": true}); n != 1 {
		t.Errorf("%d were disconnected", n)
	}
	op.say("open:g-rec", "4")
	s.want("1", "2", "3", "4")
	if err := s.Unsubscribe(); err != nil {
		t.Fatal(err)
	}
	op.say("open:g-rec", "5")
	s.up()
	op.say("open:g-rec", "6")
	s.want("1", "2", "3", "4", "5", "6")
	c.until("every return was recovered", func() bool {
		return !slices.ContainsFunc(s.subscribed[1:], func(e centrifuge.SubscribedEvent) bool { return !e.WasRecovering || !e.Recovered })
	})
}

func goUnrecoverable(t *testing.T, at door, op *goClient) {
	op.say("open:g-lost", "1")
	asked := 0
	c := newGo(t, at, "lost", nil).up()
	s := c.sub("open:g-lost", centrifuge.SubscriptionConfig{GetState: func(centrifuge.SubscriptionGetStateEvent) (centrifuge.StreamPosition, error) {
		c.note(func() { asked++ })
		h, err := c.History(t.Context(), "open:g-lost", centrifuge.WithHistoryLimit(0))
		if asked == 1 {
			return centrifuge.StreamPosition{Epoch: "another", Offset: 9}, err
		}
		return centrifuge.StreamPosition{Epoch: h.Epoch, Offset: h.Offset}, err
	}}).up()
	c.until("asked again on error 112", func() bool { return asked == 2 && s.subscribed[0].Recovered })
}

func goPresence(t *testing.T, at door, _ *goClient) {
	const channel = "open:g-p"
	a := newGo(t, at, "pa", nil).up()
	s := a.sub(channel, centrifuge.SubscriptionConfig{JoinLeave: true}).up()
	b := newGo(t, at, "pb", nil).up()
	other := b.sub(channel, centrifuge.SubscriptionConfig{}).up()
	a.until("the join", func() bool { return slices.Contains(s.members, "+pb") })
	p, err := s.Presence(t.Context())
	if err != nil || len(p.Clients) != 2 {
		t.Errorf("presence %v, %v", p, err)
	}
	stats, err := s.PresenceStats(t.Context())
	if err != nil || stats.NumClients != 2 || stats.NumUsers != 2 {
		t.Errorf("stats %v, %v", stats, err)
	}
	b.say(channel, "1", "2", "3")
	s.want("1", "2", "3")
	h, err := s.History(t.Context(), centrifuge.WithHistoryLimit(2), centrifuge.WithHistoryReverse(true))
	if err != nil || len(h.Publications) != 2 || string(h.Publications[0].Data) != "3" || h.Offset != 3 {
		t.Errorf("history %v, %v", h, err)
	}
	if _, err := s.History(t.Context(), centrifuge.WithHistoryLimit(2), centrifuge.WithHistorySince(&centrifuge.StreamPosition{Offset: 1, Epoch: "another"})); code(err) != 112 {
		t.Errorf("history since another epoch: %v", err)
	}
	if err := other.Unsubscribe(); err != nil {
		t.Fatal(err)
	}
	a.until("the leave", func() bool { return slices.Contains(s.members, "-pb") })
}

func goEarly(t *testing.T, at door, _ *goClient) {
	c := newGo(t, at, "early", nil)
	if err := c.Connect(); err != nil {
		t.Fatal(err)
	}
	if err := c.call("time", nil, new(any)); err != nil { // the socket is not open yet
		t.Error(err)
	}
	if err := c.call("nope", nil, new(any)); code(err) != 104 {
		t.Errorf("an unknown method: %v", err)
	}
}

func goMany(t *testing.T, at door, op *goClient) {
	c := newGo(t, at, "many", nil)
	var subs []*goSub
	for i := range 300 {
		subs = append(subs, c.sub(fmt.Sprintf("open:g-many%d", i), centrifuge.SubscriptionConfig{}))
	}
	for _, s := range subs {
		if err := s.Subscribe(); err != nil {
			t.Fatal(err)
		}
	}
	all := func(n int) func() bool {
		return func() bool { return !slices.ContainsFunc(subs, func(s *goSub) bool { return len(s.subscribed) < n }) }
	}
	c.up()
	c.until("all are subscribed", all(1))
	op.order("disconnect", map[string]any{"user": "many", "reconnect": true})
	c.until("all are subscribed again", all(2))
}

func goServerSide(t *testing.T, at door, op *goClient) {
	c := newGo(t, at, "srv", func(o *centrifuge.Config) {
		o.Token = sign(t, token.Claims{User: "srv", Channels: []string{"open:g-srv"}}, time.Hour)
	}).up()
	c.until("subscribed by the token", func() bool { return slices.Equal(c.server, []string{"open:g-srv"}) })
	if n := op.order("subscribe", args{"user": "srv", "channel": "open:g-ordered"}); n != 1 {
		t.Errorf("%d were subscribed", n)
	}
	c.until("subscribed by order", func() bool { return slices.Contains(c.server, "open:g-ordered") })
	op.say("open:g-srv", "1")
	c.until("the first", func() bool { return slices.Contains(c.got, "1") })
	op.say("open:g-ordered", "2")
	c.until("the second", func() bool { return slices.Equal(c.got, []string{"1", "2"}) })
	if n := op.order("unsubscribe", args{"user": "srv", "channel": "open:g-ordered"}); n != 1 {
		t.Errorf("%d were unsubscribed", n)
	}
	c.until("unsubscribed by order", func() bool { return slices.Equal(c.server, []string{"open:g-srv"}) })
}

func goGoodbyes(t *testing.T, at door, op *goClient) {
	c := newGo(t, at, "out", nil).up()
	s := c.sub("open:g-out", centrifuge.SubscriptionConfig{}).up()
	op.order("unsubscribe", args{"channel": "open:g-out"})
	c.until("unsubscribed for good", func() bool { return slices.Equal(s.codes, []uint32{2000}) })
	op.order("disconnect", args{"user": "out"})
	c.until("disconnected for good", func() bool { return slices.Equal(c.codes, []uint32{3503}) })
	sender := newGo(t, at, "sender", nil).up()
	if err := sender.Send(t.Context(), []byte(`{}`)); err != nil {
		t.Fatal(err)
	}
	sender.until("send is refused", func() bool { return slices.Equal(sender.codes, []uint32{3508}) })
}
