package conn

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/centrifugal/protocol"

	"tideline/node/hub"
	"tideline/shared/channel"
	"tideline/shared/limit"
	"tideline/shared/token"
)

// fuzzNode is a node with every feature on, for targets that share it.
func fuzzNode(f *testing.F) *node {
	f.Helper()
	return startNode(f, startRedis(f).Addr(), "n1", func(o *Options) {
		var err error
		if o.Table, err = channel.NewTable(
			channel.Namespace{Name: "open", Subscribe: channel.Everyone, Publish: channel.Everyone, HistorySize: 10, HistoryTTL: time.Hour, Recover: true, Presence: true, JoinLeave: true, Ack: true},
			channel.Namespace{Name: "room", Subscribe: channel.SignedIn, Publish: channel.Subscribers, Token: true, Stamped: true},
			channel.Namespace{Name: "bytes", Subscribe: channel.Everyone, Publish: channel.Everyone, HistorySize: 10, HistoryTTL: time.Hour, Binary: true},
			channel.Namespace{Name: "own", Subscribe: channel.Owner, Newest: true}); err != nil {
			f.Fatal(err)
		}
		o.DrainOrdered = func() {}
		o.CommandsPerSecond = 10_000
	})
}

// commandSeeds are messages of commands, in JSON.
var commandSeeds = []string{
	`{}`, "", "[]", "{\"id\":1}\n{}", `{"id":2,"subscribe":{"channel":"open:a","recover":true,"epoch":"x","offset":3,"flag":2}}`,
	`{"id":2,"subscribe":{"channel":"open:a"}}` + "\n" + `{"id":3,"unsubscribe":{"channel":"open:a"}}` + "\n" + `{"id":4,"subscribe":{"channel":"open:a"}}`,
	`{"id":2,"publish":{"channel":"open:a","data":{"x":1}}}`, `{"id":2,"history":{"channel":"open:a","limit":-1,"reverse":true,"since":{"offset":18446744073709551615}}}`,
	`{"id":2,"presence":{"channel":"open:a"}}`, `{"id":2,"presence_stats":{"channel":"own:#ann"}}`, `{"id":2,"refresh":{"token":"x"}}`,
	`{"id":2,"sub_refresh":{"channel":"open:a","token":"x"}}`, `{"id":2,"rpc":{"method":"publish","data":{"channel":"open:a","data":1,"id":"i"}}}`,
	`{"id":2,"rpc":{"method":"ack","data":{"channel":"open:a","offset":1}}}`, `{"id":2,"rpc":{"method":"connections","data":{}}}`,
	`{"id":2,"rpc":{"method":"subscribe","data":{"user":"ann","channel":"open:b"}}}`, `{"id":2,"rpc":{"method":"unsubscribe","data":{"channel":"open:b"}}}`,
	`{"id":2,"rpc":{"method":"revoke","data":{"token":"t"}}}`, `{"id":2,"rpc":{"method":"node.info","data":null}}`, `{"send":{"data":1}}`, `{"id":2,"ping":{}}`,
	`{"id":4294967295,"connect":{"token":"x","subs":{"open:a":{"recover":true}}}}`, `{"id":2,"subscribe":{"channel":"room:a","token":"x.y.z"}}`,
}

// Whatever a client sends as one message: no panic, every command that can be read is answered at most once, and what goes out can be read.
func FuzzCommands(f *testing.F) {
	for _, s := range commandSeeds {
		f.Add([]byte(s))
	}
	fuzzCommands(f, formatJSON)
}

func FuzzProtobufCommands(f *testing.F) {
	for _, s := range commandSeeds {
		var b []byte
		for decoder := jsonCommands([]byte(s)); ; {
			cmd, err := decoder.Decode()
			if cmd != nil {
				b = appendCommand(f, b, cmd)
			}
			if err != nil {
				break
			}
		}
		f.Add(b)
	}
	f.Add(appendCommand(f, nil, &protocol.Command{Id: 2, Publish: &protocol.PublishRequest{Channel: "bytes:a", Data: []byte(notJSON)}}))
	f.Add([]byte("\x80"))
	f.Add([]byte("\x02\x08\x02\x05\x08"))
	fuzzCommands(f, formatProtobuf)
}

func fuzzCommands(f *testing.F, format hub.Format) {
	n := fuzzNode(f)
	pass, err := n.tokens.Sign(token.Claims{User: "ann", Roles: []string{channel.RoleOperator}, Expires: time.Now().Add(24 * time.Hour), Channels: []string{"open:s"}})
	if err != nil {
		f.Fatal(err)
	}
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { ln.Close() })
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > n.o.MessageBytes {
			return
		}
		theirs, err := net.DialTCP("tcp", nil, ln.Addr().(*net.TCPAddr))
		if err != nil {
			t.Fatal(err)
		}
		ours, err := ln.AcceptTCP()
		if err != nil {
			t.Fatal(err)
		}
		said := make(chan []byte, 1)
		go func() {
			all, _ := io.ReadAll(theirs) // what came before the end counts
			said <- all
		}()
		sock := &socket{TCPConn: ours}
		c, err := n.newClient(sock, httptest.NewRequest("GET", Path, nil), format) // without gorilla: messages are given to it here
		if err != nil || !n.add(c) {
			t.Fatal(err)
		}
		began := time.Now()
		c.accept((&raw{t: t, format: format}).encode(fmt.Sprintf(`{"id":1,"connect":{"token":%q}}`, pass)))
		c.settle()
		if !c.is(connected) && time.Since(began) < limit.CommandBudget/2 { // on a machine that stood still, Redis had no time to answer
			t.Fatal("not connected")
		}
		c.accept(data)
		c.settle()
		c.mu.Lock()
		bye := c.goodbye
		c.mu.Unlock()
		if bye != nil && *bye == byeServerError {
			t.Fatalf("a panic in %q", data)
		}
		c.teardown(false)
		all := <-said
		theirs.Close()
		checkReplies(t, format, data, all)
	})
}

// checkReplies parses what the node has said and counts the replies to each command.
func checkReplies(t *testing.T, format hub.Format, sent, said []byte) {
	t.Helper()
	asked := map[uint32]int{1: 1}
	for decoder := formats[format].commands(sent); ; {
		cmd, err := decoder.Decode()
		if cmd != nil {
			asked[cmd.Id]++
		}
		if err != nil {
			break
		}
	}
	b := bare{r: bufio.NewReader(bytes.NewReader(said))}
	for {
		op, payload, err := b.frame(t)
		if err != nil {
			return
		}
		var ids []uint32
		switch {
		case op == opText && format == formatJSON:
			ids = jsonReplies(t, payload)
		case op == opBinary && format == formatProtobuf:
			for _, reply := range protobufReplies(t, payload) {
				ids = append(ids, reply.Id)
			}
		case op == opText || op == opBinary:
			t.Errorf("frame of type %d", op)
		}
		for _, id := range ids {
			if id != 0 {
				if asked[id]--; asked[id] < 0 {
					t.Errorf("%q is answered once too often: %d in %q", sent, id, payload)
				}
			}
		}
	}
}

func jsonReplies(t *testing.T, payload []byte) (ids []uint32) {
	t.Helper()
	for line := range bytes.SplitSeq(payload, newline) {
		var reply struct {
			ID   uint32
			Push json.RawMessage
		}
		if err := json.Unmarshal(line, &reply); err != nil || !utf8.Valid(line) {
			t.Errorf("%q: %v", line, err)
		}
		ids = append(ids, reply.ID)
	}
	return ids
}

// Whatever comes after the handshake, in bytes: the node's frames are whole, a close frame is the last, and the connection ends with the client's.
func FuzzFrames(f *testing.F) {
	for _, c := range append(framingCases(), closeCases()...) {
		if all := bytes.Join(c.send, nil); len(all) < 2000 {
			f.Add(all)
		}
	}
	n := fuzzNode(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		b := n.bare(t)
		defer b.Close()
		if _, err := b.Write(data); err == nil {
			_ = b.Conn.(*net.TCPConn).CloseWrite() // it may have been reset
		}
		parted := false
		for {
			op, payload, err := b.frame(t)
			if err != nil {
				return
			}
			switch {
			case parted:
				t.Fatalf("%q after the close frame", payload)
			case op == opClose:
				parted = true
			case op == opText && !json.Valid(bytes.Split(payload, newline)[0]):
				t.Fatalf("text %q", payload)
			}
		}
	})
}

// The client's own entries, on the left, never decide its address.
func FuzzClientAddress(f *testing.F) {
	f.Add("6.6.6.6", "203.0.113.9", 1)
	f.Add("6.6.6.6, 7.7.7.7", "203.0.113.9, 10.0.0.1", 2)
	f.Add(",,", "[2001:db8::1]:443", 1)
	f.Add("", "", 0)
	f.Fuzz(func(t *testing.T, spoofed, trusted string, hops int) {
		hops &= 7
		r := httptest.NewRequest("GET", "/", nil) // from 192.0.2.1
		r.Header["X-Forwarded-For"] = []string{trusted}
		honest := clientAddress(r, hops)
		if a, err := netip.ParseAddr(strings.Trim(honest, "[]")); err != nil || !a.IsValid() {
			t.Errorf("%q is no address", honest)
		}
		if strings.Count(trusted, ",")+1 < hops {
			return // fewer proxies than configured: what the client adds fills up, and the load balancer is misconfigured
		}
		for _, lines := range [][]string{{spoofed + "," + trusted}, {spoofed, trusted}} {
			r.Header["X-Forwarded-For"] = lines
			if got := clientAddress(r, hops); got != honest {
				t.Errorf("%q makes %s of %s", lines, got, honest)
			}
		}
	})
}

// Only the own host is let in when no origin is configured.
func FuzzOrigin(f *testing.F) {
	f.Add("http://node.example", "node.example")
	f.Add("null", "")
	f.Add("http://evil.example#node.example", "node.example")
	f.Add("http://node.example@evil.example", "node.example")
	s := &Service{}
	f.Fuzz(func(t *testing.T, origin, host string) {
		r := httptest.NewRequest("GET", "/", nil)
		r.Host = host
		r.Header["Origin"] = []string{origin}
		if !s.allowedOrigin(r) || origin == "" {
			return
		}
		if u, err := url.Parse(origin); err != nil || !strings.EqualFold(u.Host, host) || host == "" {
			t.Errorf("origin %q may come to %q", origin, host)
		}
	})
}

// What comes from Redis as an order is answered with a listing or an error.
func FuzzOrder(f *testing.F) {
	n := fuzzNode(f)
	for _, method := range []string{surveyConnections, surveySubscribe, surveyUnsubscribe, surveyDisconnect, surveyRefresh, surveySend, surveyChannels, surveyDrain, "other"} {
		f.Add(method, []byte(`{"user":"nobody","channel":"open:a","node":"n1"}`))
		f.Add(method, []byte(`{"user":"nobody","channel":"open:a","code":4000,"reason":"x","data":{},"until":99999999999,"pattern":"{a,[!b-c]}*"}`))
		f.Add(method, []byte(`{`))
	}
	f.Fuzz(func(t *testing.T, method string, params []byte) {
		data, err := n.answer(t.Context(), method, params)
		var l Listing
		if err == nil && json.Unmarshal(data, &l) != nil {
			t.Errorf("%s %q: %q", method, params, data)
		}
	})
}
