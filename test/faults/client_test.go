package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// How the client behaves where the SDKs have the same settings.
const (
	dialWait     = 5 * time.Second  // of the handshake
	replyWait    = 15 * time.Second // for a command; then the connection is given up. The SDKs have 5 s, for which a machine may stand still
	silenceMax   = 35 * time.Second // the server's ping interval and the SDKs' delay on top
	reconnectMin = 200 * time.Millisecond
	reconnectMax = 5 * time.Second
)

// client is a light client of the Centrifuge protocol that checks what it is promised: connect and subscribes in one frame, recovery from
// its last position, jittered backoff, resubscribing on unsubscribe codes from 2500 on. One goroutine; it ends with stop or the test.
type client struct {
	name     string
	token    string
	url      func() string // of the next dial; called by the client's goroutine only; guarded by mu after the start
	dialer   *websocket.Dialer
	header   http.Header
	stopping context.CancelFunc
	ctx      context.Context
	done     chan struct{}

	connects    atomic.Int64           // successful ones
	disconnects atomic.Int64           // connections lost, by whomever
	subErrors   atomic.Int64           // subscribes answered by a temporary error
	connectedAt atomic.Int64           // Unix nanoseconds of the last successful connect
	node, id    atomic.Pointer[string] // of the last successful connect
	onConnect   func(time.Time)        // set before the start
	bySrv       bool                   // the server subscribes it, by its token: it sends no subscribe commands

	mu     sync.Mutex
	conn   *session // nil while there is none
	subs   map[string]*record
	order  []string // of subs
	codes  map[int]int
	broken string        // a reason why the client won't come back
	held   chan struct{} // when set, the next dial waits for its end
	away   chan struct{} // hears when a dial waits
}

var readBuffers sync.Pool

// newClient makes a client; start starts it.
func newClient(t *testing.T, name string, url func() string, channels ...string) *client {
	t.Helper()
	c := &client{name: name, token: signed(t, name), url: url, subs: map[string]*record{}, codes: map[int]int{},
		done: make(chan struct{}), away: make(chan struct{}, 1)}
	c.dialer = &websocket.Dialer{HandshakeTimeout: dialWait, ReadBufferSize: 1024, WriteBufferPool: &readBuffers}
	// An address of its own behind the trusted hop: nobody meets the limits of one address.
	c.header = http.Header{"X-Forwarded-For": {fmt.Sprintf("10.%d.%d.%d", rand.IntN(256), rand.IntN(256), 1+rand.IntN(254))}}
	for _, ch := range channels {
		c.subs[ch] = &record{client: name, channel: ch}
		c.order = append(c.order, ch)
	}
	c.ctx, c.stopping = context.WithCancel(context.Background())
	return c
}

// start begins to connect; the client is stopped at the test's end.
func (c *client) start(t *testing.T) *client {
	t.Helper()
	go c.run()
	t.Cleanup(c.stop)
	return c
}

// moveTo cuts the clients' connections and keeps them away until letGo; from then on they dial what url says.
func moveTo(url func() string, cs ...*client) {
	for _, c := range cs {
		c.mu.Lock()
		c.url, c.held = url, make(chan struct{})
		c.mu.Unlock()
		c.cut()
	}
	for _, c := range cs {
		<-c.away // the connection has ended, the next dial waits
	}
}

// letGo ends moveTo.
func (c *client) letGo() { close(c.held) }

// stop disconnects and waits.
func (c *client) stop() {
	c.stopping()
	c.cut()
	<-c.done
}

// cut breaks the connection without a goodbye, as a network does.
func (c *client) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		if tcp, ok := c.conn.ws.NetConn().(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = c.conn.ws.NetConn().Close()
	}
}

func (c *client) run() {
	defer close(c.done)
	for attempt := 0; c.ctx.Err() == nil; attempt++ {
		before := c.connects.Load()
		c.visit()
		if c.connects.Load() > before {
			attempt = 0
		}
		if c.isBroken() {
			return
		}
		// Full jitter, as the SDKs have it.
		most := min(reconnectMin<<min(attempt, 5), reconnectMax)
		select {
		case <-c.ctx.Done():
		case <-time.After(reconnectMin/4 + rand.N(most)):
		}
	}
}

func (c *client) isBroken() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.broken != ""
}

// visit is one connection from dial to end.
func (c *client) visit() {
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	c.mu.Lock()
	url, held := c.url, c.held
	c.mu.Unlock()
	if held != nil {
		select {
		case c.away <- struct{}{}:
		default:
		}
		select {
		case <-held:
			c.mu.Lock()
			c.held = nil
			c.mu.Unlock()
		case <-ctx.Done():
			return
		}
	}
	ws, res, err := c.dialer.DialContext(ctx, url(), c.header)
	if err != nil {
		return // refused, or answered by something else than a node: as the SDKs do, try again
	}
	_ = res.Body.Close()
	s := &session{c: c, ws: ws, ctx: ctx, pending: map[uint32]pendingReply{}}
	c.mu.Lock()
	c.conn = s
	c.mu.Unlock()
	stopped := context.AfterFunc(ctx, func() { _ = ws.NetConn().Close() })
	if err := s.hello(); err == nil {
		err = s.read()
		c.ended(err)
	}
	c.mu.Lock()
	c.conn = nil
	for _, r := range c.subs {
		r.leave()
	}
	c.mu.Unlock()
	cancel()
	stopped()
	s.timer.Wait()
	s.forget()
	_ = ws.Close()
}

// ended notes why a connection ended.
func (c *client) ended(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	code := 0
	var closed *websocket.CloseError
	if errors.As(err, &closed) {
		code = closed.Code
	}
	var refused *wireError
	if errors.As(err, &refused) && !refused.Temporary && refused.Code != 109 {
		c.broken = refused.Error()
	}
	if code >= 3500 && code < 4000 || code >= 4500 && code < 5000 {
		c.broken = err.Error()
	}
	c.codes[code]++
	c.disconnects.Add(1)
}

// said counts the connections that ended with a close code; 0 stands for none.
func (c *client) said(code int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.codes[code]
}

// errNoConnection says that a command had no connection to go on, or lost it before the reply.
var errNoConnection = errors.New("no connection")

// call sends one command, such as `"presence":{"channel":"chat:a"}`, and waits for its reply.
func (c *client) call(command string) (wireMessage, error) {
	c.mu.Lock()
	s := c.conn
	c.mu.Unlock()
	if s == nil {
		return wireMessage{}, errNoConnection
	}
	answer := make(chan wireMessage, 1)
	s.mu.Lock()
	id := s.expectLocked(pendingReply{answer: answer})
	err := s.ws.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, `{"id":%d,%s}`, id, command))
	s.mu.Unlock()
	if err != nil {
		return wireMessage{}, errNoConnection
	}
	select {
	case m, ok := <-answer:
		if !ok {
			return m, errNoConnection
		}
		if m.Error != nil {
			return m, m.Error
		}
		return m, nil
	case <-c.done:
		return wireMessage{}, errNoConnection
	}
}
