package conn

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/centrifugal/protocol"
	dto "github.com/prometheus/client_model/go"

	"tideline/shared/limit"
)

// emulationURL is where a node takes commands.
func (n *node) emulationURL() string { return n.base() + PathEmulation }

// Commands reach a stream from any node; what its client has sent and seen accepted one after the other is run in that order.
func TestCommandsThroughAnotherNode(t *testing.T) {
	redis := startRedis(t)
	n1, n2 := startNode(t, redis.Addr(), "n1", nil), startNode(t, redis.Addr(), "n2", nil)
	for name, f := range streamFormats {
		t.Run(name, func(t *testing.T) {
			r, s := n1.opened(t, f)
			room := "chat:" + strings.ReplaceAll(name, " ", "-")
			r.send(fmt.Sprintf(`{"id":2,"subscribe":{"channel":%q}}`, room))
			r.want(`{"id":2,"subscribe":{}}`)
			s.emulation = n2.emulationURL()
			const commands = 50
			for i := range commands {
				r.send(fmt.Sprintf(`{"id":%d,"publish":{"channel":%q,"data":{"n":%d}}}`, i+3, room, i))
			}
			answered, heard := 0, 0
			for answered < commands || heard < commands {
				line := r.read()
				want := fmt.Sprintf(`"data":{"n":%d}`, heard)
				if strings.HasPrefix(line, `{"push"`) {
					heard++
				} else {
					want = fmt.Sprintf(`{"id":%d,"publish":{}}`, answered+3)
					answered++
				}
				if !strings.Contains(line, want) {
					t.Fatalf("%s is out of order, want %s", line, want)
				}
			}
			r.send(strings.TrimSuffix(strings.Repeat(`{"id":9,"rpc":{"method":"nope"}}`+"\n", limit.CommandsBurst+100), "\n"))
			r.wantClose(3013) // the budget is the stream's, whichever way the commands come
		})
	}
	var passedOn dto.Metric
	if err := n2.meter.passedOn.WithLabelValues("taken").Write(&passedOn); err != nil || passedOn.Counter.GetValue() != 3*51 {
		t.Errorf("%v requests passed on, want %d; %v", passedOn.Counter, 3*51, err)
	}
	n1.wantNobody(t)
}

// What can't be handed over is said, so that the client comes back rather than waiting for an answer.
func TestCommandsThatReachNobody(t *testing.T) {
	redis := startRedis(t)
	n1, n2 := startNode(t, redis.Addr(), "n1", nil), startNode(t, redis.Addr(), "n2", nil)
	_, s := n1.opened(t, formatStreamJSON)
	_, p := n1.opened(t, formatStreamProtobuf)
	text := []byte(`{"id":2,"rpc":{"method":"time"}}`)
	for _, c := range []struct {
		name   string
		stream *stream // whose format the request has
		change func(*stream)
		status int
	}{
		{"no such session here", s, func(s *stream) { s.session = "unknown" }, 404},
		{"no such session there", s, func(s *stream) { s.session, s.emulation = "unknown", n2.emulationURL() }, 404},
		{"no such node", s, func(s *stream) { s.node, s.emulation = "0123456789abcdef", n2.emulationURL() }, 404},
		{"what can't be a node", s, func(s *stream) { s.node, s.emulation = "}:c:$control", n2.emulationURL() }, 404},
		{"without the node", s, func(s *stream) { s.node = "" }, 204},
		{"without the node, elsewhere", s, func(s *stream) { s.node, s.emulation = "", n2.emulationURL() }, 404},
		{"of a wrong node, where the session is", s, func(s *stream) { s.node = "0123456789abcdef" }, 204},
		{"no session", s, func(s *stream) { s.session = "" }, 400},
		{"the longest session", s, func(s *stream) { s.session = strings.Repeat("x", sessionBytes) }, 404},
		{"a session too long", s, func(s *stream) { s.session = strings.Repeat("x", sessionBytes+1) }, 400},
		{"JSON for a stream of Protobuf", s, func(s *stream) { s.session = p.session }, 400},
		{"JSON for a stream of Protobuf, elsewhere", s, func(s *stream) { s.session, s.emulation = p.session, n2.emulationURL() }, 400},
		{"Protobuf for a stream of JSON", p, func(p *stream) { p.session = s.session }, 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			changed := *c.stream
			changed.t = t
			c.change(&changed)
			if status := changed.post(text); status != c.status {
				t.Errorf("status %d, want %d", status, c.status)
			}
		})
	}
	if status := s.post(nil); status != 400 {
		t.Errorf("no commands: %d", status)
	}
	for _, kind := range []string{"application/json", typeProtobuf} {
		for _, body := range []string{"{", "[]", `{"session":1}`, `{"session":"x","data":{}}`, `"`, "\x12\xff"} {
			res, err := http.Post(n1.emulationURL(), kind, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != 400 {
				t.Errorf("%s %q: %s", kind, body, res.Status)
			}
		}
	}
	redis.Close()
	s.emulation = n2.emulationURL()
	started := time.Now()
	if status := s.post(text); status != 503 {
		t.Errorf("with Redis away, through another node: %d", status)
	}
	if took := time.Since(started); took > 4*limit.CommandBudget {
		t.Errorf("which took %v", took)
	}
	s.emulation = n1.emulationURL()
	if status := s.post(text); status != 204 {
		t.Errorf("with Redis away, to the node itself: %d", status)
	}
}

// A goodbye is told by the stream, also to who is just sending commands.
func TestCommandsAfterAGoodbye(t *testing.T) {
	n := startNode(t, startRedis(t).Addr(), "n1", nil)
	_, s := n.opened(t, formatStreamJSON)
	n.mu.Lock()
	c := n.sessions[s.session]
	n.mu.Unlock()
	c.mu.Lock()
	c.goodbye = &disconnect{} // said, and not yet taken down
	c.mu.Unlock()
	if status := s.post([]byte(`{"id":2,"rpc":{"method":"time"}}`)); status != 204 {
		t.Errorf("status %d", status)
	}
	s.tcp.Close()
	n.wantNobody(t)
}

// An address that asks for sessions that are nowhere is refused after the burst; one whose commands another node takes isn't.
func TestStrangers(t *testing.T) {
	redis := startRedis(t)
	n1, n2 := startNode(t, redis.Addr(), "n1", nil), startNode(t, redis.Addr(), "n2", func(o *Options) { o.TrustedHops = 1 })
	_, s := n1.opened(t, formatStreamJSON)
	from := func(address, session string) int {
		body := fmt.Sprintf(`{"session":%q,"node":%q,"data":"{}"}`, session, s.node)
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, n2.emulationURL(), strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Forwarded-For", address)
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			t.Fatal(err)
		}
		if res.StatusCode == 429 && res.Header.Get("Retry-After") == "" {
			t.Error("429 without Retry-After")
		}
		return res.StatusCode
	}
	for i := range limit.StrangersBurst + 10 { // each is given back
		if status := from("192.0.2.1", s.session); status != 204 {
			t.Fatalf("request %d: %d", i, status)
		}
	}
	started := time.Now()
	refused := 0
	for range limit.StrangersBurst + 20 {
		switch status := from("192.0.2.2", "guess"); status {
		case 404:
		case 429:
			refused++
		default:
			t.Fatal(status)
		}
	}
	if most := 20; refused > most || refused < most-1-int(time.Since(started).Seconds()*limit.StrangersPerSecond) {
		t.Errorf("%d refused of %d past the burst, in %v", refused, most, time.Since(started))
	}
	if status := from("192.0.2.1", s.session); status != 204 {
		t.Errorf("another address: %d", status)
	}
	if status := from("192.0.2.3", "guess"); status != 404 {
		t.Errorf("a third address: %d", status)
	}
	var many strangers
	for i := range strangersMost + 1 {
		many.take(fmt.Sprint(i), started)
	}
	if len(many.by) != 1 {
		t.Errorf("%d addresses are remembered", len(many.by))
	}
	http.DefaultClient.CloseIdleConnections()
}

// Requests that find the inbox full wait for it, as a socket's reader does, and then for their turn.
func TestRequestsWaitForRoom(t *testing.T) {
	n := startNode(t, startRedis(t).Addr(), "n1", func(o *Options) { o.MessageBytes = 4 << 10 })
	r, s := n.opened(t, formatStreamJSON)
	n.mu.Lock()
	c := n.sessions[s.session]
	n.mu.Unlock()
	release := make(chan struct{})
	c.order(func(ctx context.Context) { <-release })
	filler := fmt.Sprintf(`{"id":2,"rpc":{"method":"time","data":%q}}`, strings.Repeat("x", 3<<10))
	const requests = 20 // 60 KiB of messages into an inbox of 16 KiB
	statuses := make(chan int, requests)
	for range requests {
		go func() { statuses <- s.post([]byte(filler)) }()
	}
	var early []int
	for len(early) < 5 { // what there is room for
		early = append(early, <-statuses)
	}
	c.mu.Lock()
	if c.inboxSize > inboxMessages*n.o.MessageBytes {
		t.Errorf("%d bytes in the inbox", c.inboxSize)
	}
	c.mu.Unlock()
	close(release)
	for len(early) < requests {
		early = append(early, <-statuses)
	}
	if slices.Max(early) != 204 || slices.Min(early) != 204 {
		t.Errorf("statuses %v", early)
	}
	for range requests {
		r.want(`{"id":2,"rpc":{}}`)
	}
}

// The reader of a stream that is left waits for the inbox to be worked off, beside requests that wait for room in it: both get on.
func TestAStreamIsLeftWhileRequestsWait(t *testing.T) {
	n := startNode(t, startRedis(t).Addr(), "n1", func(o *Options) { o.MessageBytes = 4 << 10 })
	filler := fmt.Appendf(nil, `{"id":2,"rpc":{"method":"time","data":%q}}`, strings.Repeat("x", 3<<10))
	for range 20 {
		_, s := n.opened(t, formatStreamJSON)
		n.mu.Lock()
		c := n.sessions[s.session]
		n.mu.Unlock()
		release := make(chan struct{})
		c.order(func(context.Context) { <-release })
		const requests = 12
		var posted sync.WaitGroup
		for range requests {
			posted.Go(func() {
				if status := s.post(filler); status != 204 && status != 404 {
					t.Errorf("status %d", status)
				}
			})
		}
		for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
			c.mu.Lock()
			full := c.inboxSize+len(filler) > inboxMessages*n.o.MessageBytes
			c.mu.Unlock()
			if full {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("the inbox doesn't fill up")
			}
		}
		s.tcp.Close()
		close(release)
		posted.Wait()
		n.wantNobody(t)
	}
}

// Whatever comes to the door for commands, and from other nodes: no panic, and a status that says what became of it.
func FuzzEmulation(f *testing.F) {
	n := fuzzNode(f)
	n.strangers.by = map[string]*bucket{}
	pb, err := (&protocol.EmulationRequest{Session: "s", Node: "0123456789abcdef", Data: []byte("x")}).MarshalCF()
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{`{"session":"s","node":"","data":"{}"}`, `{"session":"s","node":"0123456789abcdef","data":"{}"}`, "{", "null", `{"data":null}`, string(pb), "\x0a\xff",
		`{"session":"s","binary":true}` + "\n\x00\xff", "\n", "{}\n"} {
		f.Add([]byte(s), false)
		f.Add([]byte(s), true)
	}
	f.Fuzz(func(t *testing.T, body []byte, binary bool) {
		m, err := decodeEmulation(body, binary)
		if err == nil && (m.Session == "" || len(m.Session) > sessionBytes || len(m.data) == 0) {
			t.Errorf("taken: %+v", m)
		}
		if err == nil {
			head, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			again, err := decodePassedOn(append(append(head, '\n'), m.data...))
			if err != nil || again.Session != m.Session && json.Valid([]byte(m.Session)) || string(again.data) != string(m.data) || again.Binary != m.Binary {
				t.Errorf("%+v came over as %+v, %v", m, again, err)
			}
		}
		_, _ = n.fromNode(t.Context(), body)
		r := httptest.NewRequest(http.MethodPost, PathEmulation, strings.NewReader(string(body)))
		if binary {
			r.Header.Set("Content-Type", typeProtobuf)
		}
		w := httptest.NewRecorder()
		n.serveEmulation(noHijack{w}, r)
		switch w.Code {
		case 400, 404, 413, 429, 503:
		default:
			t.Errorf("status %d of a session that nobody has", w.Code)
		}
	})
}
