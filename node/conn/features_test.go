package conn

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"tideline/shared/bus"
	"tideline/shared/channel"
	"tideline/shared/metric"
	"tideline/shared/token"
)

func TestAnonymousConnections(t *testing.T) {
	n := startNode(t, startRedis(t).Addr(), "n1", func(o *Options) { o.Table = channel.Shipped(); o.Table.Anonymous = true })
	r := n.dial(t)
	r.send(`{"id":1,"connect":{}}`)
	if got := r.want(`{"id":1,"connect":{}}`); got["connect"].(map[string]any)["expires"] != nil {
		t.Error("nobody's connection expires")
	}
	for i, c := range []struct{ channel, answer string }{{"system", `"subscribe":{}`}, {"chat:a", `"error":{"code":103}`}, {"todos:#", `"error":{"code":103}`}} {
		r.send(fmt.Sprintf(`{"id":%d,"subscribe":{"channel":%q}}`, i+2, c.channel))
		r.want(fmt.Sprintf(`{"id":%d,%s}`, i+2, c.answer))
	}
	bad := n.dial(t)
	bad.send(`{"id":1,"connect":{"token":"x"}}`)
	bad.wantClose(3500) // a bad token doesn't make nobody of somebody
}

func TestAcknowledgement(t *testing.T) {
	n1, n2 := fleet(t, func(o *Options) { o.Table = table(t, func(ns *channel.Namespace) { ns.Ack = true }) })
	r := n2.connect(t, token.Claims{User: "ann"})
	r.send(`{"id":2,"subscribe":{"channel":"open:a"}}`)
	epoch := r.want(`{"id":2,"subscribe":{}}`)["subscribe"].(map[string]any)["epoch"].(string)
	for i := range 3 {
		n1.publish(t, "open:a", fmt.Sprint(i+1))
		r.want(fmt.Sprintf(`{"push":{"pub":{"offset":%d}}}`, i+1))
	}
	ack := func(epoch string, offset int, answer string) {
		t.Helper()
		r.send(fmt.Sprintf(`{"id":3,"rpc":{"method":"ack","data":{"channel":"open:a","epoch":%q,"offset":%d}}}`, epoch, offset))
		r.want(`{"id":3,` + answer + `}`)
	}
	ack(epoch, 1, `"rpc":{"data":{"unacked":2}}`)
	ack(epoch, 0, `"rpc":{"data":{"unacked":2}}`) // older than the last one
	ack(epoch, 4, `"error":{"code":107}`)         // not sent yet
	ack("another", 2, `"error":{"code":107}`)
	op := n1.connect(t, operatorClaims)
	op.send(`{"id":2,"rpc":{"method":"connections","data":{"user":"ann"}}}`)
	listed := op.want(`{"id":2,"rpc":{"data":{"total":1}}}`)["rpc"].(map[string]any)["data"].(map[string]any)["connections"].([]any)
	if !contains(listed[0], map[string]any{"user": "ann", "node": "n2", "unacked": map[string]any{"open:a": 2}}) {
		t.Errorf("listed %v", listed)
	}
	r.ws.Close()
	r = n1.connect(t, token.Claims{User: "ann"}) // elsewhere
	r.send(fmt.Sprintf(`{"id":2,"subscribe":{"channel":"open:a","recover":true,"epoch":%q,"offset":1}}`, epoch))
	if pubs := r.want(`{"id":2,"subscribe":{"recovered":true}}`)["subscribe"].(map[string]any)["publications"].([]any); len(pubs) != 2 {
		t.Errorf("%d were delivered again", len(pubs))
	}
	ack(epoch, 1, `"rpc":{"data":{"unacked":2}}`)
	ack(epoch, 3, `"rpc":{"data":{"unacked":0}}`)
	r.send(`{"id":4,"unsubscribe":{"channel":"open:a"}}`)
	r.want(`{"id":4,"unsubscribe":{}}`)
	ack(epoch, 3, `"error":{"code":103}`)
}

func TestRepliesShareAFrameUnderLoad(t *testing.T) {
	n := startNode(t, startRedis(t).Addr(), "n1", nil)
	r := n.connect(t, token.Claims{User: "ann"})
	const commands = 200
	var frame []string
	for i := range commands {
		frame = append(frame, fmt.Sprintf(`{"id":%d,"rpc":{"method":"time"}}`, i+2))
	}
	r.send(strings.Join(frame, "\n"))
	frames, replies := 0, 0
	for ; replies < commands; frames++ {
		_, data, err := r.ws.ReadMessage()
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.SplitSeq(string(data), "\n") {
			replies++
			if want := fmt.Sprintf(`{"id":%d,`, replies+1); !strings.HasPrefix(line, want) {
				t.Fatalf("%s is out of order, want %s", line, want)
			}
		}
	}
	if frames > commands/20 {
		t.Errorf("%d replies came in %d frames", commands, frames)
	}
}

// A command that came before a close frame is done, although nobody waits for its reply.
func TestWhatWasSentBeforeACloseIsDone(t *testing.T) {
	n := startNode(t, startRedis(t).Addr(), "n1", func(o *Options) { o.Table = table(t, nil) })
	for i := range 20 {
		b := n.bare(t)
		frames := append(text(fmt.Sprintf(`{"id":2,"publish":{"channel":"open:a","data":%d}}`, i)), closing(1000, "")...)
		if _, err := b.Write(frames); err != nil {
			t.Fatal(err)
		}
		if i%2 == 1 {
			b.Close() // nor does it have to be there any more
		}
	}
	var top bus.Position
	for deadline := time.Now().Add(patience); top.Offset < 20; time.Sleep(5 * time.Millisecond) {
		tops, errs := n.bus.Positions(t.Context(), []string{"open:a"})
		if errs[0] != nil {
			t.Fatal(errs[0])
		}
		if top = tops[0]; time.Now().After(deadline) {
			t.Fatalf("%d of 20 were published", top.Offset)
		}
	}
}

func TestEveryMetricCanBeGathered(t *testing.T) {
	n := startNode(t, startRedis(t).Addr(), "n1", nil)
	n.connect(t, token.Claims{User: "ann"})
	families, err := n.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				found[f.GetName()+" "+l.GetValue()] = true
			}
		}
		found[f.GetName()] = true
	}
	for _, want := range []string{metric.Connections, metric.Dropped + " hub_full", metric.Dropped + " inbox_full"} {
		if !found[want] {
			t.Errorf("no %s", want)
		}
	}
}

// Replies come in the order of the commands, although those to subscribe and unsubscribe go through the hub.
func TestRepliesKeepTheOrder(t *testing.T) {
	n := startNode(t, startRedis(t).Addr(), "n1", nil)
	r := n.connect(t, token.Claims{User: "ann"})
	for i := range 100 {
		id := 10 * (i + 1)
		r.send(fmt.Sprintf(`{"id":%d,"subscribe":{"channel":"system"}}`+"\n"+`{"id":%d,"rpc":{"method":"time"}}`+"\n"+`{"id":%d,"unsubscribe":{"channel":"system"}}`+"\n"+
			`{"id":%d,"rpc":{"method":"time"}}`, id, id+1, id+2, id+3))
		for k := range 4 {
			r.want(fmt.Sprintf(`{"id":%d}`, id+k))
		}
	}
}
