package conn

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/centrifugal/protocol"
	"github.com/gorilla/websocket"

	"tideline/shared/bus"
	"tideline/shared/channel"
	"tideline/shared/limit"
	"tideline/shared/token"
)

// notJSON is what no JSON client can be sent: it isn't even UTF-8.
const notJSON = "\x00\xff\n\"\x80"

func binaryTable(t testing.TB) *channel.Table {
	t.Helper()
	ns := channel.Namespace{Subscribe: channel.SignedIn, Publish: channel.SignedIn, HistorySize: 100, HistoryTTL: time.Minute, Recover: true}
	open, bytes, stamped := ns, ns, ns
	open.Name, bytes.Name, stamped.Name = "open", "bytes", "stamped"
	bytes.Binary, stamped.Stamped = true, true
	table, err := channel.NewTable(open, bytes, stamped)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// reply reads the next message that is no ping, as it is: its data need not be JSON.
func (r *raw) reply() *protocol.Reply {
	r.t.Helper()
	for {
		_, data, err := r.ws.ReadMessage()
		if err != nil {
			r.t.Fatal(err)
		}
		if !isProtobufPong(data) {
			all := protobufReplies(r.t, data)
			if len(all) != 1 {
				r.t.Fatalf("%d replies in a frame", len(all))
			}
			return all[0]
		}
	}
}

func (r *raw) subscribe(id int, name, more string) {
	r.t.Helper()
	r.send(fmt.Sprintf(`{"id":%d,"subscribe":{"channel":%q%s}}`, id, name, more))
}

func (r *raw) publishBytes(id uint32, name, data string) {
	r.t.Helper()
	cmd := &protocol.Command{Id: id, Publish: &protocol.PublishRequest{Channel: name, Data: []byte(data)}}
	r.write(websocket.BinaryMessage, appendCommand(r.t, nil, cmd))
}

// Who speaks Protobuf gets bytes, on every node; a JSON client of the channel is told 3506, and nobody else is.
func TestBytesAndJSONInOneChannel(t *testing.T) {
	redis := startRedis(t)
	with := func(o *Options) { o.Table = binaryTable(t) }
	n1, n2 := startNode(t, redis.Addr(), "n1", with), startNode(t, redis.Addr(), "n2", with)
	p1, p2 := n1.speaking(formatProtobuf).connect(t, token.Claims{User: "ann"}), n2.speaking(formatProtobuf).connect(t, token.Claims{User: "bob"})
	j, other := n2.connect(t, token.Claims{User: "eve"}), n2.connect(t, token.Claims{User: "joe"})
	for _, r := range []*raw{p1, p2, j} {
		r.subscribe(2, "bytes:a", "")
		r.want(`{"id":2,"subscribe":{"recoverable":true}}`)
	}
	other.subscribe(2, "open:a", "")
	other.want(`{"id":2,"subscribe":{}}`)
	for i, data := range []string{`{"json": true}`, notJSON, " 1"} {
		p1.publishBytes(uint32(i+3), "bytes:a", data)
		got, again := p1.reply(), p1.reply() // the push and the answer, in either order
		if got.Push == nil {
			got, again = again, got
		}
		if got.Push == nil || again.Publish == nil || string(got.Push.Pub.Data) != data {
			t.Errorf("published %q: pushed %v, answered %v", data, got, again)
		}
		if got := p2.reply(); got.Push == nil || string(got.Push.Pub.Data) != data || got.Push.Pub.Offset != uint64(i+1) || got.Push.Pub.Info.User != "ann" {
			t.Errorf("published %q: bob got %v", data, got)
		}
	}
	j.want(`{"push":{"channel":"bytes:a","pub":{"data":{"json":true},"offset":1}}}`)
	j.wantClose(3506)
	n1.publish(t, "open:a", `{"still":"here"}`)
	other.want(`{"push":{"channel":"open:a","pub":{"data":{"still":"here"}}}}`)
}

// A client that speaks JSON and comes back to a channel with bytes in what it has missed is told 3506, on which SDKs don't reconnect; with a later
// position it can subscribe.
func TestBytesInWhatWasMissed(t *testing.T) {
	n := startNode(t, startRedis(t).Addr(), "n1", func(o *Options) { o.Table = binaryTable(t) })
	protobuf := n.speaking(formatProtobuf)
	send := func(data string) bus.Position {
		p := bus.Publication{Channel: "open:a", History: bus.History{Size: 100, TTL: time.Minute}} // a server may publish bytes anywhere
		p.SetData([]byte(data))
		res, err := n.bus.Publish(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		return res.Position
	}
	epoch := send(`1`).Epoch
	send(notJSON)
	send(`3`)
	since := func(offset int) string {
		return fmt.Sprintf(`,"recover":true,"epoch":%q,"offset":%d`, epoch, offset)
	}
	for name, command := range map[string]string{
		"subscribe": `{"id":2,"subscribe":{"channel":"open:a"` + since(1) + `}}`,
		"history":   `{"id":2,"history":{"channel":"open:a","limit":-1}}`,
	} {
		t.Run(name, func(t *testing.T) {
			j, p := n.connect(t, token.Claims{User: "ann"}), protobuf.connect(t, token.Claims{User: "ann"})
			j.send(command)
			j.wantClose(3506)
			p.send(command)
			got := p.reply()
			pubs := got.GetSubscribe().GetPublications()
			if name == "history" {
				pubs = got.GetHistory().GetPublications()[1:]
			}
			if len(pubs) != 2 || string(pubs[0].Data) != notJSON || string(pubs[1].Data) != "3" {
				t.Errorf("got %v", got)
			}
		})
	}
	t.Run("server-side", func(t *testing.T) {
		j := n.dial(t)
		j.send(fmt.Sprintf(`{"id":1,"connect":{"token":%q,"subs":{"open:a":{%s}}}}`, n.token(t, token.Claims{User: "ann", Channels: []string{"open:a"}}), since(1)[1:]))
		j.wantClose(3506)
	})
	t.Run("later", func(t *testing.T) {
		j := n.connect(t, token.Claims{User: "ann"})
		j.subscribe(2, "open:a", since(2))
		j.want(`{"id":2,"subscribe":{"recovered":true,"offset":3}}`)
		n.publish(t, "open:a", `4`)
		j.want(`{"push":{"pub":{"data":4,"offset":4}}}`)
	})
}

// Where bytes are not allowed a Protobuf client publishes JSON, and it is checked as strictly as what comes in text frames.
func TestWhatAProtobufClientMayPublish(t *testing.T) {
	n := startNode(t, startRedis(t).Addr(), "n1", func(o *Options) { o.Table = binaryTable(t) })
	r := n.speaking(formatProtobuf).connect(t, token.Claims{User: "ann"})
	for i, c := range []struct{ channel, data, answer string }{
		{"open:a", notJSON, `"error":{"code":107}`},
		{"open:a", "\"\xff\"", `"error":{"code":107}`}, // JSON but for its UTF-8, on which a browser would hang up
		{"stamped:a", "\"\xff\"", `"error":{"code":107}`},
		{"stamped:a", notJSON, `"error":{"code":107}`},
		{"bytes:a", "", `"error":{"code":107}`},
		{"open:a", "{\n\"a\": 1}", `"publish":{}`},
		{"stamped:a", `{"a":1}`, `"publish":{}`},
		{"bytes:a", notJSON, `"publish":{}`},
	} {
		r.publishBytes(uint32(i+2), c.channel, c.data)
		r.want(fmt.Sprintf(`{"id":%d,%s}`, i+2, c.answer))
	}
	r.publishBytes(18, "bytes:a", strings.Repeat("\xff", limit.DataBytes))
	r.want(`{"id":18,"publish":{}}`)
	r.publishBytes(19, "bytes:a", strings.Repeat("\xff", limit.DataBytes+1))
	r.want(`{"id":19,"error":{"code":106}}`)
	cmd := &protocol.Command{Id: 20, Rpc: &protocol.RPCRequest{Method: "publish", Data: []byte("{\"channel\":\"open:a\",\"data\":\"\xff\"}")}}
	r.write(websocket.BinaryMessage, appendCommand(t, nil, cmd))
	r.want(`{"id":20,"error":{"code":107}}`)
	pubs, _, err := n.bus.History(t.Context(), "open:a", bus.Page{Limit: -1})
	if err != nil || len(pubs) != 1 || string(pubs[0].Data) != `{"a":1}` || pubs[0].Binary {
		t.Errorf("published %v, %v", pubs, err)
	}
	j := n.connect(t, token.Claims{User: "ann"})
	j.send(`{"id":2,"publish":{"channel":"bytes:a","data":{"a": 1}}}`)
	j.want(`{"id":2,"publish":{}}`)
}
