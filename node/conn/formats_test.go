package conn

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/centrifugal/protocol"
	"github.com/gorilla/websocket"

	"tideline/node/hub"
	"tideline/shared/limit"
	"tideline/shared/token"
)

// subprotocols by which the tests' clients ask for a format; JSON is what there is without one.
var subprotocols = map[hub.Format][]string{formatProtobuf: {subprotocolProtobuf}}

// eachFormat runs a test with clients of each format that both sides speak.
func eachFormat(t *testing.T, test func(t *testing.T, f hub.Format)) {
	t.Helper()
	for name, f := range map[string]hub.Format{"json": formatJSON, "protobuf": formatProtobuf,
		"http_stream": formatStreamJSON, "http_stream protobuf": formatStreamProtobuf, "sse": formatSSE} {
		t.Run(name, func(t *testing.T) { test(t, f) })
	}
}

// speaking is the node as clients of a format see it.
func (n *node) speaking(f hub.Format) *node {
	other := *n
	other.format = f
	return &other
}

// encode makes a message of commands that are written as lines of JSON; in JSON it is left as it is.
func (r *raw) encode(lines string) []byte {
	r.t.Helper()
	if !formats[r.format].binary {
		return []byte(lines)
	}
	var b []byte
	decoder := protocol.NewJSONCommandDecoder([]byte(strings.TrimSpace(lines)))
	for {
		cmd, err := decoder.Decode()
		if err != nil && !errors.Is(err, io.EOF) {
			r.t.Fatalf("%s: %v", lines, err)
		}
		b = appendCommand(r.t, b, cmd)
		if err != nil {
			return b
		}
	}
}

func appendCommand(t testing.TB, b []byte, cmd *protocol.Command) []byte {
	t.Helper()
	one, err := cmd.MarshalCF()
	if err != nil {
		t.Fatal(err)
	}
	return append(binary.AppendUvarint(b, uint64(len(one))), one...)
}

// lines takes a message of the node's apart, into JSON.
func (r *raw) lines(data []byte) []string {
	r.t.Helper()
	if !formats[r.format].binary {
		return strings.Split(string(data), "\n")
	}
	var all []string
	for _, reply := range protobufReplies(r.t, data) {
		all = append(all, string(reply.AppendJSON(nil)))
	}
	return all
}

func protobufReplies(t testing.TB, data []byte) (all []*protocol.Reply) {
	t.Helper()
	for len(data) > 0 {
		one, rest, ok := cutProtobuf(data)
		reply := new(protocol.Reply)
		if err := reply.UnmarshalCF(one); err != nil || !ok {
			t.Fatalf("%x: %v", data, err)
		}
		all, data = append(all, reply), rest
	}
	return all
}

// What can't be read as messages of the format ends the connection, whatever else is in the frame.
func TestGarbage(t *testing.T) {
	const text, bin = websocket.TextMessage, websocket.BinaryMessage
	n := startNode(t, startRedis(t).Addr(), "n1", nil)
	call := string(appendCommand(t, nil, &protocol.Command{Id: 2, Rpc: &protocol.RPCRequest{Method: "time"}}))
	longest := strings.Repeat("\xff", 9)
	for _, c := range []struct {
		name   string
		format hub.Format
		kind   int
		data   string
		code   int
	}{
		{"no JSON", formatJSON, text, "hello", 3501},
		{"JSON that breaks off", formatJSON, text, "{", 3501},
		{"an array", formatJSON, text, `[{"id":2,"rpc":{"method":"time"}}]`, 3501},
		{"an empty message", formatJSON, text, "", 3501},
		{"a binary frame", formatJSON, bin, `{"id":2,"rpc":{"method":"time"}}`, 3501},
		{"no UTF-8", formatJSON, text, "{\"id\":2,\"rpc\":{\"method\":\"\xff\"}}", 1007},
		{"past the limit", formatJSON, text, strings.Repeat(" ", limit.MessageBytes+1), 1009},
		{"a command, then garbage", formatJSON, text, `{"id":2,"rpc":{"method":"time"}}` + "\nx", 3501},
		{"no Protobuf", formatProtobuf, bin, "\x02\xff\xff", 3501},
		{"an empty message", formatProtobuf, bin, "", 3501},
		{"a text frame", formatProtobuf, text, call, 3501},
		{"JSON in a binary frame", formatProtobuf, bin, `{"id":2,"rpc":{"method":"time"}}`, 3501},
		{"past the limit", formatProtobuf, bin, strings.Repeat("\x00", limit.MessageBytes+1), 1009},
		{"a length that breaks off", formatProtobuf, bin, "\x80", 3501},
		{"a length past 64 bits", formatProtobuf, bin, longest + "\x02", 3501},
		{"the longest length", formatProtobuf, bin, longest + "\x01", 3501},
		{"a message that breaks off", formatProtobuf, bin, "\x05\x08", 3501},
		{"a field that breaks off", formatProtobuf, bin, "\x02\x22\x05", 3501},
		{"a field of another type", formatProtobuf, bin, "\x03\x22\x01\x0f", 3501},
		{"a command, then garbage", formatProtobuf, bin, call + "\x01\xff", 3501},
		{"a command, then half a length", formatProtobuf, bin, call + "\x80", 3501},
	} {
		t.Run(fmt.Sprint(c.name, " ", c.format), func(t *testing.T) {
			r := n.speaking(c.format).connect(t, token.Claims{User: "ann"})
			r.write(c.kind, []byte(c.data))
			r.wantClose(c.code)
		})
	}
}

func TestALargestMessageIsTaken(t *testing.T) {
	n := startNode(t, startRedis(t).Addr(), "n1", nil)
	t.Run("json", func(t *testing.T) {
		r := n.connect(t, token.Claims{User: "ann"})
		cmd := `{"id":2,"rpc":{"method":"time"}}`
		r.send(cmd + strings.Repeat(" ", limit.MessageBytes-len(cmd)))
		r.want(`{"id":2,"rpc":{}}`)
	})
	t.Run("protobuf", func(t *testing.T) {
		r := n.speaking(formatProtobuf).connect(t, token.Claims{User: "ann"})
		cmd := &protocol.Command{Id: 2, Rpc: &protocol.RPCRequest{Method: "time"}}
		empty := len(appendCommand(t, nil, cmd)) + 8 // with the longer lengths of the data, of what it is in, and of the command
		cmd.Rpc.Data = make([]byte, limit.MessageBytes-empty)
		b := appendCommand(t, nil, cmd)
		if len(b) != limit.MessageBytes {
			t.Fatalf("%d bytes: this test is to be mended", len(b))
		}
		r.write(websocket.BinaryMessage, b)
		r.want(`{"id":2,"rpc":{}}`)
	})
}

// How a client asks for a format.
func TestFormatIsAgreedOn(t *testing.T) {
	n := startNode(t, startRedis(t).Addr(), "n1", nil)
	for _, c := range []struct {
		offered []string
		query   string
		echoed  string
		format  hub.Format
		status  int // of a refusal
	}{
		{nil, "", "", formatJSON, 0},
		{[]string{"centrifuge-json"}, "", "centrifuge-json", formatJSON, 0},
		{[]string{"centrifuge-protobuf"}, "", "centrifuge-protobuf", formatProtobuf, 0},
		{[]string{"soap", "centrifuge-protobuf", "centrifuge-json"}, "", "centrifuge-protobuf", formatProtobuf, 0},
		{[]string{"soap"}, "", "", formatJSON, 0},
		{nil, "?cf_protocol=protobuf", "", formatProtobuf, 0},
		{nil, "?cf_protocol=json", "", formatJSON, 0},
		{[]string{"centrifuge-protobuf"}, "?cf_protocol=protobuf", "centrifuge-protobuf", formatProtobuf, 0},
		{[]string{"centrifuge-json"}, "?cf_protocol=protobuf", "", 0, 400},
		{[]string{"centrifuge-protobuf"}, "?cf_protocol=json", "", 0, 400},
		{nil, "?cf_protocol=soap", "", 0, 400},
	} {
		t.Run(fmt.Sprint(c.offered, c.query), func(t *testing.T) {
			ws, res, err := (&websocket.Dialer{Subprotocols: c.offered}).Dial(n.url+c.query, nil)
			if c.status != 0 {
				if err == nil || res == nil || res.StatusCode != c.status {
					t.Fatalf("%v, %v: want status %d", res, err, c.status)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer ws.Close()
			if got := ws.Subprotocol(); got != c.echoed {
				t.Errorf("echoed %q, want %q", got, c.echoed)
			}
			ws.SetReadDeadline(time.Now().Add(2 * patience))
			r := &raw{t: t, ws: ws, format: c.format}
			r.send(`{"id":1,"connect":{}}`)
			r.want(`{"id":1,"error":{"code":101}}`)
		})
	}
}
