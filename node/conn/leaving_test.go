package conn

import (
	"fmt"
	"testing"
	"time"

	"tideline/shared/channel"
	"tideline/shared/token"
	"tideline/test/redistest"
)

// A removal that Redis has kept waiting is done before the client enters the channel again, and doesn't take the new entry.
func TestWhoComesBackIsPresent(t *testing.T) {
	redis := redistest.Start(t)
	proxy := redistest.StartProxy(t, fmt.Sprintf("127.0.0.1:%d", redis.Port))
	n := startNode(t, proxy.Addr(), "n1", func(o *Options) {
		o.Table = table(t, func(ns *channel.Namespace) { ns.Presence = true })
	})
	r := n.connect(t, token.Claims{User: "ann"})
	r.send(`{"id":2,"subscribe":{"channel":"open:a"}}`)
	r.want(`{"id":2,"subscribe":{}}`)
	c := n.only(t)
	proxy.Refuse(true)
	proxy.Cut()
	r.send(`{"id":3,"unsubscribe":{"channel":"open:a"}}`)
	r.want(`{"id":3,"unsubscribe":{}}`)
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) { // until the removal is under way, or waits for its next try
		n.leaving.mu.Lock()
		taken := len(n.leaving.queue) == 0
		n.leaving.mu.Unlock()
		if taken {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the entry is not removed")
		}
	}
	proxy.Refuse(false)
	for deadline := time.Now().Add(patience); !c.subscribed("open:a"); { // a temporary error while Redis comes back
		r.send(`{"id":4,"subscribe":{"channel":"open:a"}}`)
		r.want(`{"id":4}`)
		if time.Now().After(deadline) {
			t.Fatal("not subscribed")
		}
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		n.leaving.mu.Lock()
		left := len(n.leaving.pending)
		n.leaving.mu.Unlock()
		if left == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d removals are left", left)
		}
	}
	r.send(`{"id":5,"presence_stats":{"channel":"open:a"}}`)
	r.want(`{"id":5,"presence_stats":{"num_clients":1}}`)
}
