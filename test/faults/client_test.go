package faults

import (
	"bytes"
	"context"
	"encoding/json"
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
	replyWait    = 5 * time.Second  // for a command; then the connection is given up
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

// session is one connection of a client.
type session struct {
	c     *client
	ws    *websocket.Conn
	ctx   context.Context
	timer sync.WaitGroup // resubscribes that are on their way

	mu      sync.Mutex // guards ws's writing side and what is below
	lastID  uint32
	pending map[uint32]pendingReply
}

type pendingReply struct {
	channel string           // of a subscribe
	answer  chan wireMessage // of anything else
	due     time.Time
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

// wire types: only what the client needs of the protocol, by hand, so that a mistake in the library that the node uses is no mistake here.
type wireMessage struct {
	ID          uint32          `json:"id"`
	Error       *wireError      `json:"error"`
	Connect     *wireConnect    `json:"connect"`
	Subscribe   *wireSubscribe  `json:"subscribe"`
	Unsubscribe json.RawMessage `json:"unsubscribe"`
	Publish     json.RawMessage `json:"publish"`
	RPC         json.RawMessage `json:"rpc"`
	Presence    *struct {
		Presence map[string]json.RawMessage `json:"presence"`
	} `json:"presence"`
	Push *wirePush `json:"push"`
}

type wireError struct {
	Code      int    `json:"code"`
	Message   string `json:"message"`
	Temporary bool   `json:"temporary"`
}

func (e *wireError) Error() string { return fmt.Sprintf("%d %s", e.Code, e.Message) }

type wireConnect struct {
	Client string `json:"client"`
	Data   struct {
		Node string `json:"node"`
	} `json:"data"`
	Subs map[string]*wireSubscribe `json:"subs"`
}

type wireSubscribe struct {
	Epoch         string            `json:"epoch"`
	Offset        uint64            `json:"offset"`
	Recovered     bool              `json:"recovered"`
	WasRecovering bool              `json:"was_recovering"`
	Publications  []wirePublication `json:"publications"`
}

type wirePublication struct {
	Offset uint64          `json:"offset"`
	Data   json.RawMessage `json:"data"`
}

type wireMember struct {
	Info struct {
		User   string `json:"user"`
		Client string `json:"client"`
	} `json:"info"`
}

type wirePush struct {
	Channel     string           `json:"channel"`
	Pub         *wirePublication `json:"pub"`
	Join        *wireMember      `json:"join"`
	Leave       *wireMember      `json:"leave"`
	Unsubscribe *wireGoodbye     `json:"unsubscribe"`
	Disconnect  *wireGoodbye     `json:"disconnect"`
}

type wireGoodbye struct {
	Code   int    `json:"code"`
	Reason string `json:"reason"`
}

// hello sends connect and all subscribes in one frame, as centrifuge-js does.
func (s *session) hello() error {
	var frame bytes.Buffer
	s.mu.Lock()
	defer s.mu.Unlock()
	id := s.expectLocked(pendingReply{})
	s.c.mu.Lock()
	fmt.Fprintf(&frame, `{"id":%d,"connect":{"token":%q,"name":"faults","subs":%s}}`, id, s.c.token, s.c.positionsLocked())
	for _, name := range s.c.order {
		if s.c.bySrv {
			break
		}
		frame.WriteByte('\n')
		frame.Write(s.c.subs[name].command(s.expectLocked(pendingReply{channel: name})))
	}
	s.c.mu.Unlock()
	return s.ws.WriteMessage(websocket.TextMessage, frame.Bytes())
}

// positionsLocked is what the connect command says of subscriptions that the server makes.
func (c *client) positionsLocked() []byte {
	subs := map[string]subscribeRequest{}
	for name, r := range c.subs {
		if req := r.request(); c.bySrv && req.Recover {
			req.Channel = ""
			subs[name] = req
		}
	}
	b, err := json.Marshal(subs)
	if err != nil {
		panic(err) // strings and numbers
	}
	return b
}

func (s *session) expectLocked(p pendingReply) uint32 {
	s.lastID++
	p.due = time.Now().Add(replyWait)
	s.pending[s.lastID] = p
	return s.lastID
}

func (s *session) send(frame []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ws.WriteMessage(websocket.TextMessage, frame)
}

// resubscribe subscribes again after a jittered moment.
func (s *session) resubscribe(channel string, most time.Duration) {
	s.timer.Go(func() {
		select {
		case <-s.ctx.Done():
			return
		case <-time.After(rand.N(most)):
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.c.mu.Lock()
		frame := s.c.subs[channel].command(s.expectLocked(pendingReply{channel: channel}))
		s.c.mu.Unlock()
		_ = s.ws.WriteMessage(websocket.TextMessage, frame) // the reader sees a broken connection
	})
}

// forget answers those who still wait for a reply of a connection that has ended.
func (s *session) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, p := range s.pending {
		delete(s.pending, id)
		if p.answer != nil {
			close(p.answer)
		}
	}
}

// patience is when the reader gives the connection up: at the oldest unanswered command, or after too long a silence.
func (s *session) patience() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	due := time.Now().Add(silenceMax)
	for _, p := range s.pending {
		if p.due.Before(due) {
			due = p.due
		}
	}
	return due
}

// read reads until the connection ends and says why.
func (s *session) read() error {
	for {
		_ = s.ws.SetReadDeadline(s.patience())
		_, data, err := s.ws.ReadMessage()
		if err != nil {
			return err
		}
		for line := range bytes.Lines(data) {
			if err := s.line(bytes.TrimSpace(line)); err != nil {
				return err
			}
		}
	}
}

func (s *session) line(data []byte) error {
	if len(data) == 0 {
		return nil
	}
	if string(data) == "{}" {
		return s.send(data)
	}
	var m wireMessage
	if err := json.Unmarshal(data, &m); err != nil {
		return fmt.Errorf("%q: %w", data, err)
	}
	if m.ID != 0 {
		return s.reply(m)
	}
	if m.Push != nil {
		return s.push(m.Push)
	}
	return nil
}

func (s *session) reply(m wireMessage) error {
	s.mu.Lock()
	p := s.pending[m.ID]
	delete(s.pending, m.ID)
	s.mu.Unlock()
	c := s.c
	switch {
	case p.answer != nil:
		p.answer <- m // it has room for one
	case p.channel == "" && m.Error != nil:
		return m.Error
	case p.channel == "":
		now := time.Now()
		c.node.Store(&m.Connect.Data.Node)
		c.id.Store(&m.Connect.Client)
		c.connectedAt.Store(now.UnixNano())
		c.connects.Add(1)
		if c.onConnect != nil {
			c.onConnect(now)
		}
		c.mu.Lock()
		for name, sub := range m.Connect.Subs {
			if r := c.subs[name]; r != nil && c.bySrv {
				r.subscribed(sub)
			}
		}
		c.mu.Unlock()
	case m.Error != nil:
		if !m.Error.Temporary {
			return m.Error
		}
		c.subErrors.Add(1)
		s.resubscribe(p.channel, 500*time.Millisecond)
	default:
		c.mu.Lock()
		c.subs[p.channel].subscribed(m.Subscribe)
		c.mu.Unlock()
	}
	return nil
}

func (s *session) push(p *wirePush) error {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.subs[p.Channel]
	switch {
	case p.Disconnect != nil:
		return &websocket.CloseError{Code: p.Disconnect.Code, Text: p.Disconnect.Reason}
	case r == nil:
		return fmt.Errorf("push on %q, which was not subscribed to", p.Channel)
	case p.Pub != nil:
		r.publication(p.Pub)
	case p.Join != nil:
		r.joins = append(r.joins, p.Join.Info.Client)
	case p.Leave != nil:
		r.leaves = append(r.leaves, p.Leave.Info.Client)
	case p.Unsubscribe != nil:
		r.unsubscribed(p.Unsubscribe.Code)
		if p.Unsubscribe.Code < 2500 {
			c.broken = fmt.Sprintf("unsubscribed with %d", p.Unsubscribe.Code)
			return errors.New(c.broken)
		}
		s.resubscribe(p.Channel, 100*time.Millisecond)
	}
	return nil
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
