package conn

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/centrifugal/protocol"
	"github.com/google/uuid"
	"github.com/gorilla/websocket"

	"tideline/node/hub"
	"tideline/shared/bus"
	"tideline/shared/channel"
	"tideline/shared/limit"
	"tideline/shared/token"
)

const (
	// inboxFrames and inboxBytes bound what a client has sent and the node has not worked off; past them the client is not read from.
	inboxFrames = limit.CommandsBurst
	inboxBytes  = 4 * limit.MessageBytes
	// closeWait is how long a goodbye may take to reach the client and be answered.
	closeWait = 2 * time.Second
	// sendBuffer is the kernel's send buffer: with the default it grows to megabytes, which a client that has stopped reading fills
	// before anybody notices.
	sendBuffer = 64 << 10
	// expiredGrace is how long after its token's end a client may take to refresh it.
	expiredGrace = 25 * time.Second
)

// client is one connection. Its reader goroutine owns the socket's reading side and the teardown.
type client struct {
	s       *Service
	ws      *websocket.Conn
	sock    *socket
	out     *hub.Conn
	id      string
	remote  string
	bearer  string // from the Authorization header or the cookie
	since   time.Time
	ctx     context.Context
	cancel  context.CancelFunc
	budget  bucket // the reader's
	stale   *time.Timer
	format  hub.Format
	counted *string // Service.mu's: the user whose connection it counts as

	pinged atomic.Int64 // Unix nanoseconds of a ping that has not been answered; 0 when none is out

	mu         sync.Mutex
	goodbye    *disconnect
	state      state
	identity   channel.Identity
	claims     token.Claims
	subs       map[string]*subscription
	subscribes bucket
	publishes  map[string]*bucket // by namespace
	inbox      []inFrame
	inboxSize  int
	room       *sync.Cond // the reader waits here while the inbox is full
	working    bool       // a goroutine is working the inbox off
	worker     sync.WaitGroup
}

type state uint8

const (
	unconnected state = iota
	refused           // a connect command was answered with an error: nothing else is answered until another one succeeds
	connected
)

// inFrame is one frame as it came, with its time: Redis work for its commands has limit.CommandBudget from then.
type inFrame struct {
	data []byte
	at   time.Time
}

// subscription is one of the client's channels.
type subscription struct {
	ns         channel.Namespace
	hub        *hub.Subscription // nil while subscribing
	serverSide bool
	entered    bool // has a presence entry
	expires    time.Time
	epoch      string // of acked
	acked      uint64 // the highest offset that the client has confirmed, in namespaces with ack
}

func (s *Service) newClient(ws *websocket.Conn, sock *socket, r *http.Request) (*client, error) {
	c := &client{s: s, ws: ws, sock: sock, id: uuid.NewString(), remote: clientAddress(r, s.o.TrustedHops), bearer: bearer(r),
		since: time.Now(), subs: map[string]*subscription{}, publishes: map[string]*bucket{},
		subscribes: newBucket(limit.SubscribesPerSecond, limit.SubscribesBurst), budget: newBucket(limit.CommandsPerSecond, limit.CommandsBurst)}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.room = sync.NewCond(&c.mu)
	if s.o.Compression && offersDeflate(r) {
		c.format = formatJSONDeflate
	}
	if err := sock.SetWriteBuffer(sendBuffer); err != nil {
		return nil, err
	}
	out, err := s.hub.NewConn(sock.TCPConn, c.format, c)
	if err != nil {
		return nil, err
	}
	c.out, sock.out = out, out
	c.stale = time.AfterFunc(s.o.HandshakeTimeout, func() {
		c.mu.Lock()
		late := c.state != connected
		c.mu.Unlock()
		if late {
			c.close(byeStale)
		}
	})
	return c, nil
}

// bearer finds a token outside the connect command: for clients that can set headers, and for browsers whose page is served with
// a token cookie.
func bearer(r *http.Request) string {
	const scheme = "Bearer "
	if a := r.Header.Get("Authorization"); len(a) > len(scheme) && a[:len(scheme)] == scheme {
		return a[len(scheme):]
	}
	if k, err := r.Cookie("tideline_token"); err == nil {
		return k.Value
	}
	return ""
}

// read reads frames until the connection ends, and then takes it down.
func (c *client) read() {
	for {
		kind, r, err := c.ws.NextReader()
		if err != nil {
			c.s.log.Debug("connection ended", "client", c.id, "error", err)
			break
		}
		data, err := io.ReadAll(io.LimitReader(r, limit.MessageBytes+1))
		if err != nil {
			c.s.log.Debug("message not read", "client", c.id, "error", err)
			break
		}
		if len(data) > limit.MessageBytes { // it was within the limit while it was compressed
			c.close(byeTooLarge)
			continue
		}
		if kind != websocket.TextMessage {
			c.close(byeBadRequest)
			continue
		}
		if !utf8.Valid(data) { // RFC 6455, section 8.1
			c.close(byeNotUTF8)
			continue
		}
		c.accept(data)
	}
	c.teardown()
}

// accept puts a frame into the inbox, or handles it when it is only a pong.
func (c *client) accept(data []byte) {
	data = bytes.TrimSpace(data)
	if len(data) == 2 && data[0] == '{' && data[1] == '}' {
		c.pong()
		return
	}
	if !c.budget.take(1+bytes.Count(data, newline), time.Now()) {
		c.close(byeTooManyRequests)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.goodbye == nil && len(c.inbox) > 0 && (len(c.inbox) >= inboxFrames || c.inboxSize+len(data) > inboxBytes) {
		c.room.Wait()
	}
	if c.goodbye != nil {
		return
	}
	c.inbox = append(c.inbox, inFrame{data, time.Now()})
	c.inboxSize += len(data)
	if !c.working {
		c.working = true
		c.worker.Go(c.work)
	}
}

var newline = []byte{'\n'}

// more reports whether a frame is waiting.
func (c *client) more() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.inbox) > 0
}

// next takes a frame out of the inbox. When there is none, and the subscribes that are under way have ended too, the working
// goroutine ends.
func (c *client) next(running *sync.WaitGroup) (inFrame, bool) {
	for idle := false; ; idle = true {
		c.mu.Lock()
		if c.goodbye != nil || len(c.inbox) == 0 && idle {
			c.working, c.inbox, c.inboxSize = false, nil, 0
			c.mu.Unlock()
			return inFrame{}, false
		}
		if len(c.inbox) > 0 {
			f := c.inbox[0]
			c.inbox = c.inbox[1:]
			c.inboxSize -= len(f.data)
			c.room.Signal()
			c.mu.Unlock()
			return f, true
		}
		c.mu.Unlock()
		running.Wait()
	}
}

// close says goodbye. Only the first call counts. It doesn't block: the reader takes the connection down when the client has answered, or
// after closeWait.
func (c *client) close(d disconnect) {
	c.mu.Lock()
	if c.goodbye != nil {
		c.mu.Unlock()
		return
	}
	c.goodbye = &d
	c.room.Signal()
	c.mu.Unlock()
	c.s.meter.goodbye(d)
	c.s.log.Info("disconnect", "client", c.id, "user", c.user(), "remote", c.remote, "code", d.code, "reason", d.reason)
	c.out.Finish(closeFrame(d))
	c.sock.SetReadDeadline(time.Now().Add(closeWait))
}

// teardown runs in the reader when nothing more will be read.
func (c *client) teardown() {
	c.stale.Stop()
	c.cancel()
	c.mu.Lock()
	if c.goodbye == nil {
		c.goodbye = &disconnect{} // the client's own: nothing is said
	}
	c.mu.Unlock()
	c.worker.Wait()
	c.mu.Lock()
	subs := c.subs
	c.subs = nil
	c.mu.Unlock()
	for name, sub := range subs {
		c.drop(name, sub, nil)
	}
	c.out.Close(closeWait)
	c.sock.Close()
	c.s.remove(c)
}

// drop ends a subscription that is no longer in c.subs. reply's frame is written after the channel's last publication.
func (c *client) drop(name string, sub *subscription, reply func() []byte) {
	c.s.hub.Exit(sub.hub, reply)
	c.s.feed.Release(name)
	if sub.entered {
		c.s.leaving.put(leave{channel: name, client: c.id, announce: sub.ns.JoinLeave})
	}
}

// Lost implements hub.Owner: the subscription missed something that can't be had any more.
func (c *client) Lost(lost *hub.Subscription) {
	name := lost.Channel()
	c.mu.Lock()
	sub := c.subs[name]
	if sub == nil || sub.hub != lost {
		c.mu.Unlock()
		return
	}
	if sub.serverSide {
		c.mu.Unlock()
		c.close(byeInsufficientState)
		return
	}
	delete(c.subs, name)
	c.mu.Unlock()
	c.drop(name, sub, func() []byte { return c.unsubscribeFrame(name, unsubInsufficient, "insufficient state") })
}

// Slow implements hub.Owner.
func (c *client) Slow() { c.close(byeSlow) }

func (c *client) unsubscribeFrame(name string, code uint32, reason string) []byte {
	return pushFrame(c.format, &protocol.Push{Channel: name, Unsubscribe: &protocol.Unsubscribe{Code: code, Reason: reason}})
}

func (c *client) ping(now time.Time) {
	c.mu.Lock()
	ready := c.state == connected && c.goodbye == nil
	expired := !c.claims.Expires.IsZero() && now.After(c.claims.Expires.Add(expiredGrace))
	c.mu.Unlock()
	if ready {
		c.expireSubscriptions(now)
	}
	switch {
	case !ready:
	case expired:
		c.close(byeExpired)
	case c.pinged.CompareAndSwap(0, now.UnixNano()):
		c.out.Send(pingFrame)
	}
}

func (c *client) pong() {
	if at := c.pinged.Swap(0); at != 0 {
		c.s.meter.roundTrip.Observe(time.Since(time.Unix(0, at)).Seconds())
		return
	}
	c.mu.Lock()
	ready := c.state == connected
	c.mu.Unlock()
	if !ready {
		c.close(byeBadRequest)
	}
	// An unasked pong of a connected client is harmless: a ping and its timeout may have crossed it.
}

func (c *client) wantPong() {
	if c.pinged.Load() != 0 {
		c.close(byeNoPong)
	}
}

func (c *client) user() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.identity.User
}

// info is how others see the client.
func (c *client) info() bus.ClientInfo {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bus.ClientInfo{User: c.identity.User, Client: c.id, ConnInfo: json.RawMessage(c.claims.Info)}
}

// present lists the channels in which the client has a presence entry.
func (c *client) present() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var names []string
	for name, sub := range c.subs {
		if sub.entered {
			names = append(names, name)
		}
	}
	return names
}

// bucket is a token bucket for one goroutine.
type bucket struct {
	rate, burst, tokens float64
	last                time.Time
}

func newBucket(rate, burst int) bucket {
	return bucket{rate: float64(rate), burst: float64(burst), tokens: float64(burst), last: time.Now()}
}

func (b *bucket) take(n int, now time.Time) bool {
	b.tokens = min(b.burst, b.tokens+now.Sub(b.last).Seconds()*b.rate)
	b.last = now
	if b.tokens < float64(n) {
		return false
	}
	b.tokens -= float64(n)
	return true
}
