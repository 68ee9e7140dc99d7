package conn

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/centrifugal/protocol"
	"github.com/google/uuid"

	"tideline/node/hub"
	"tideline/shared/bus"
	"tideline/shared/channel"
	"tideline/shared/token"
)

const (
	// closeWait is how long a goodbye may take to reach the client and be answered.
	closeWait = 2 * time.Second
	// goneWait is how long the last client of a drain may take to go: its goodbye, what is queued behind it, and a reading of what it still sends.
	goneWait  = 3*closeWait + time.Second
	goneEvery = 10 * time.Millisecond
	// sendBuffer is the kernel's send buffer: with the default it grows to megabytes, which a client that has stopped reading fills
	// before anybody notices.
	sendBuffer = 64 << 10
)

// client is one connection. Its reader goroutine owns the socket's reading side and the teardown.
type client struct {
	s       *Service
	sock    *socket
	out     *hub.Conn
	id      string
	remote  string
	address string // what counts as one address: remote, or its /64
	bearer  string // from the Authorization header or the cookie
	since   time.Time
	ctx     context.Context
	cancel  context.CancelFunc
	budget  bucket // the reader's
	stale   *time.Timer
	format  hub.Format
	heard   bool     // the reader's: a unidirectional client's request to connect has come
	session *session // of an HTTP stream; nil elsewhere
	resumed *resumed // of unidirectional server-sent events; nil elsewhere
	counted *string  // Service.mu's: the user whose connection it counts as

	pinged     atomic.Int64 // Unix nanoseconds of a ping that has not been answered; 0 when none is out
	viaHub     atomic.Bool  // a reply is on its way through the hub
	recovering atomic.Int64 // bytes of recovered publications that are about to be queued

	mu         sync.Mutex
	goodbye    *disconnect
	state      state
	identity   channel.Identity
	claims     token.Claims
	subs       map[string]*subscription
	subscribes bucket
	publishes  map[string]*bucket // by namespace
	inbox      []inFrame
	inboxSize  int        // bytes
	orders     int        // in the inbox
	room       *sync.Cond // the reader, or who brings a stream's commands, waits here while the inbox is full, and at the end until it is worked off
	working    bool       // a goroutine is working the inbox off
	worker     sync.WaitGroup
}

type state uint8

const (
	unconnected state = iota
	refused           // a connect command was answered with an error: nothing else is answered until another one succeeds
	connected
)

// subscription is one of the client's channels.
type subscription struct {
	ns         channel.Namespace
	hub        *hub.Subscription // nil while subscribing
	serverSide bool
	entered    bool         // has a presence entry
	token      token.Claims // of the subscription token that it was made or refreshed with; zero without
	epoch      string       // of acked
	acked      uint64       // the highest offset that the client has confirmed, in namespaces with ack

	// What the server that made it has decided.
	info  json.RawMessage // shown in the channel's presence and joins
	until time.Time       // when it expires; zero: never
}

func (s *Service) newClient(sock *socket, r *http.Request, f hub.Format) (*client, error) {
	c := &client{s: s, sock: sock, format: f, id: uuid.NewString(), remote: clientAddress(r, s.o.TrustedHops), bearer: bearer(r),
		since: time.Now(), subs: map[string]*subscription{}, publishes: map[string]*bucket{},
		subscribes: newBucket(s.o.SubscribesPerSecond, 2*s.o.ChannelsPerClient), budget: newBucket(s.o.CommandsPerSecond, commandsBurst*s.o.CommandsPerSecond)}
	c.address = block(c.remote)
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.room = sync.NewCond(&c.mu)
	if err := sock.SetWriteBuffer(sendBuffer); err != nil {
		return nil, err
	}
	out, err := s.hub.NewConn(sock.TCPConn, c.format, c)
	if err != nil {
		return nil, err
	}
	c.out, sock.out = out, out
	c.stale = time.AfterFunc(s.o.HandshakeTimeout, func() {
		if !c.is(connected) {
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

// close says goodbye. Only the first call counts. It doesn't block: the reader takes the connection down when the client has answered, or
// after closeWait.
func (c *client) close(d disconnect) {
	c.mu.Lock()
	if c.goodbye != nil {
		c.mu.Unlock()
		return
	}
	c.goodbye = &d
	c.room.Broadcast()
	c.mu.Unlock()
	c.s.meter.goodbye(d)
	c.s.log.Info("disconnect", "client", c.id, "user", c.user(), "remote", c.remote, "code", d.code, "reason", d.reason)
	form := &formats[c.format]
	c.out.Finish(form.bye(d))
	if form.stream { // nobody answers: the reader takes the connection down as soon as this is written
		c.sock.SetReadDeadline(time.Unix(1, 0))
		return
	}
	c.sock.SetReadDeadline(time.Now().Add(closeWait))
}

// teardown runs in the reader when nothing more will be read. refused: the close frame is the node's, and the client may still be sending.
func (c *client) teardown(refused bool) {
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
	if refused {
		c.linger()
	}
	c.sock.Close()
	c.s.remove(c)
}

// drop ends a subscription that is no longer in c.subs. reply's frame is written after the channel's last publication.
func (c *client) drop(name string, sub *subscription, reply func() []byte) {
	c.s.hub.Exit(sub.hub, reply)
	if reply != nil {
		c.viaHub.Store(true)
	}
	c.s.feed.Release(name)
	if sub.entered {
		c.s.leaving.put(leave{member{name, c.id}, sub.ns.JoinLeave})
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

// Unfit implements hub.Owner.
func (c *client) Unfit(*hub.Subscription) { c.close(byeInappropriate) }

func (c *client) unsubscribeFrame(name string, code uint32, reason string) []byte {
	return pushFrame(c.format, &protocol.Push{Channel: name, Unsubscribe: &protocol.Unsubscribe{Code: code, Reason: reason}})
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

// infoOn is how others see the client in a channel.
func (c *client) infoOn(name string) bus.ClientInfo {
	info := c.info()
	c.mu.Lock()
	defer c.mu.Unlock()
	if sub := c.subs[name]; sub != nil {
		info.ChanInfo = sub.info
	}
	return info
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
