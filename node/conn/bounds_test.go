package conn

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"tideline/shared/token"
)

// A reader that doesn't keep up is bounded in memory, told 3008 in the last chunk, and its neighbour hears everything.
func TestASlowReaderOfAStream(t *testing.T) {
	for name, f := range streamFormats {
		t.Run(name, func(t *testing.T) {
			n := startNode(t, startRedis(t).Addr(), "n1", func(o *Options) { o.QueueBytes = 256 << 10 })
			slow, s := n.opened(t, f)
			if err := s.tcp.(*net.TCPConn).SetReadBuffer(64 << 10); err != nil {
				t.Fatal(err)
			}
			fast := n.connect(t, token.Claims{User: "bob"})
			for _, r := range []*raw{slow, fast} {
				r.send(`{"id":2,"subscribe":{"channel":"chat:a"}}`)
				r.want(`{"id":2,"subscribe":{}}`)
			}
			data := `"` + strings.Repeat("x", 60<<10) + `"`
			most, i := int64(0), 0
			for deadline := time.Now().Add(patience); len(n.slowClients()) == 0; i++ {
				n.publish(t, "chat:a", data)
				fast.want(fmt.Sprintf(`{"push":{"channel":"chat:a","pub":{"offset":%d}}}`, i+1))
				most = max(most, n.hub.QueuedBytes())
				if time.Now().After(deadline) {
					t.Fatal("nobody is slow")
				}
			}
			if most > 256<<10+64<<10 {
				t.Errorf("%d bytes were queued", most)
			}
			slow.wantClose(3008)
		})
	}
}

// slowClients are those that have been told so.
func (n *node) slowClients() (all []*client) {
	n.mu.Lock()
	list := n.listLocked()
	n.mu.Unlock()
	for _, c := range list {
		c.mu.Lock()
		if c.goodbye != nil && *c.goodbye == byeSlow {
			all = append(all, c)
		}
		c.mu.Unlock()
	}
	return all
}

// Of bodies no more are held than the bound allows; then requests are refused, and those that are there go on.
func TestBodiesAreBounded(t *testing.T) {
	n := startNode(t, startRedis(t).Addr(), "n1", nil)
	n.bodies.most = 100
	hold, err := net.Dial("tcp", strings.TrimPrefix(n.base(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer hold.Close()
	if _, err := fmt.Fprintf(hold, "POST %s HTTP/1.1\r\nHost: node\r\nContent-Length: 100\r\n\r\n{", PathEmulation); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); n.bodies.bytes.Load() != 100; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the body is not being read")
		}
	}
	one := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: node\r\nConnection: close\r\nContent-Length: 1\r\n\r\n{", PathEmulation)
	if res, _ := n.exchange(t, one); res.StatusCode != 503 || res.Header.Get("Retry-After") == "" {
		t.Errorf("one past the bound: %s", res.Status)
	}
	hold.Close()
	n.wantNobody(t)
	if res, _ := n.exchange(t, one); res.StatusCode != 400 {
		t.Errorf("after it has gone: %s", res.Status)
	}
}

// Neither a session nor a token is ever logged.
func TestSessionsAreNotLogged(t *testing.T) {
	var mu sync.Mutex
	var log bytes.Buffer
	n := startNode(t, startRedis(t).Addr(), "n1", func(o *Options) {
		o.Log = slog.New(slog.NewTextHandler(writerFunc(func(p []byte) (int, error) {
			mu.Lock()
			defer mu.Unlock()
			return log.Write(p)
		}), &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	for _, f := range streamFormats {
		r, s := n.opened(t, f)
		r.send(`{"id":2,"rpc":{"method":"nope"}}`)
		r.want(`{"id":2,"error":{}}`)
		if len(s.session) < 22 { // 128 bits in base 64; ours is base 32
			t.Errorf("a session of %d characters", len(s.session))
		}
		r.send(`{"id":3}`)
		r.wantClose(3501)
		n.wantNobody(t)
		s.post([]byte("x"))
		mu.Lock()
		if got := log.String(); strings.Contains(got, s.session) || strings.Contains(got, "eyJ") || !strings.Contains(got, "3501") {
			t.Errorf("log:\n%s", got)
		}
		mu.Unlock()
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
