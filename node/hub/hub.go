// Package hub knows which connections of this node subscribe to which channels, and fans publications out to them.
//
// Publications come from the feed (Hub implements feed.Sink); they are encoded once for each format in use and handed to the workers, one a
// core, that have subscribers. A worker takes everything in its inbox, queues frames on its connections, and then flushes each connection
// once, without blocking. Order per channel holds from the feed to the socket, because every step keeps it: the feed delivers under the channel's
// lock, an inbox is first in, first out, and a connection has one worker.
//
// A consumer that is too slow fills its own queue (limit.QueueBytes) and is disconnected with 3008; nobody waits for it. A worker that is too
// slow fills its inbox (limit.InboxBytes): what no longer fits is dropped, and its channels' subscribers on that worker are told, as they are
// when the feed has lost something. Only one item per command is always taken.
package hub

import (
	"cmp"
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"tideline/shared/bus"
	"tideline/shared/limit"
)

// Format is how frames for a connection are encoded and framed: an index into the Encoder's formats.
type Format uint8

// Formats is the most formats there can be.
const Formats = 9

// Encoder makes whole frames, ready for the socket, that all subscribers with one format share. Safe for concurrent use.
type Encoder interface {
	// Publication may answer nil: what is published can't be had in that format. Its subscribers' owners are told by Unfit.
	Publication(f Format, channel, epoch string, p *bus.Publication) []byte
	Member(f Format, channel string, joined bool, info bus.ClientInfo) []byte
}

// Meter counts what the hub does. Its methods are called from the workers and must be cheap.
type Meter interface {
	// Delivered says that n frames of a channel were queued for sockets and flushed, waited after their publication.
	Delivered(channel string, n int, waited time.Duration)
	// SlowConsumer says that a connection was closed because its queue was full.
	SlowConsumer()
}

// Options of New.
type Options struct {
	Encoder Encoder
	Meter   Meter
	Workers int           // 0: GOMAXPROCS
	Window  time.Duration // over which announcements are smeared; 0: limit.AnnounceWindow
	// QueueBytes bounds each connection's queue, InboxBytes each worker's inbox; 0: the limits of these names.
	QueueBytes, InboxBytes int
	// Trace, when not nil, is asked about each publication that has tags, and answers what to call when all its subscribers' sockets were written to, with
	// how many frames; nil for most. Both must not block.
	Trace func(channel string, p *bus.Publication) (end func(delivered int))
}

// Hub is safe for concurrent use.
type Hub struct {
	enc        Encoder
	meter      Meter
	window     time.Duration
	queueBytes int
	inboxBytes int
	trace      func(channel string, p *bus.Publication) (end func(delivered int))
	workers    []*worker
	next       atomic.Uint32

	queued *atomic.Int64 // bytes queued on all connections
	subs   atomic.Int64
	spilt  atomic.Uint64
	ended  chan struct{} // closed when Run returns

	mu       sync.RWMutex
	channels map[string]*route
}

// route says which workers must hear of a channel, and in which formats.
type route struct {
	mu      sync.Mutex // held while an item is put into inboxes, so that all see one order
	subs    int
	workers [][Formats]int // subscriptions by worker and format
}

// New makes a hub.
func New(o Options) *Hub {
	if o.Workers == 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.Window == 0 {
		o.Window = limit.AnnounceWindow
	}
	h := &Hub{enc: o.Encoder, meter: o.Meter, window: o.Window, channels: map[string]*route{}, queued: new(atomic.Int64), ended: make(chan struct{}),
		queueBytes: cmp.Or(o.QueueBytes, limit.QueueBytes), inboxBytes: cmp.Or(o.InboxBytes, limit.InboxBytes), trace: o.Trace}
	for range o.Workers {
		h.workers = append(h.workers, newWorker(h))
	}
	return h
}

// Run works until ctx ends. It is called once.
func (h *Hub) Run(ctx context.Context) error {
	defer close(h.ended)
	var g errgroup.Group
	for _, w := range h.workers {
		g.Go(func() error { w.run(ctx); return nil })
	}
	return g.Wait()
}

// QueuedBytes is what waits for all connections together.
func (h *Hub) QueuedBytes() int64 { return h.queued.Load() }

// Subscription is one connection's subscription to one channel. It keeps a position of its own: the connection may be ahead of the
// feed, and may leave and enter again while a publication is on its way.
type Subscription struct {
	conn    *Conn
	channel string
	wishes  Wishes
	sent    atomic.Uint64 // the offset that was queued last, for Delivered

	// the worker's
	index int // in its list; -1 when not there
	epoch string
	last  uint64
	lost  bool // gets nothing until the loss is announced
}

// Channel is the subscribed channel's name.
func (s *Subscription) Channel() string { return s.channel }

// Delivered is the offset of the last publication that was queued for the connection, the one that it entered at to begin with.
func (s *Subscription) Delivered() uint64 { return s.sent.Load() }

// Position is that of the last publication that was queued for the connection. It may be asked in functions that the hub calls for the
// connection: replies, and what Later is given.
func (s *Subscription) Position() bus.Position { return bus.Position{Epoch: s.epoch, Offset: s.last} }

// Wishes of a subscription.
type Wishes struct {
	// Members: joins and leaves are wanted.
	Members bool
	// Newest: when the connection's queue is half full the subscription is lost, rather than the connection closed when it is full.
	Newest bool
}

// NewSubscription makes a subscription that Enter can put into the hub.
func NewSubscription(c *Conn, channel string, w Wishes) *Subscription {
	return &Subscription{conn: c, channel: channel, wishes: w, index: -1}
}

// Enter subscribes from the position after top. reply makes the frame to be written before the first publication; it runs on
// the worker, off the caller's locks, and may answer nil. Call it where feed.Join calls back: nothing may come between.
func (h *Hub) Enter(s *Subscription, top bus.Position, reply func() []byte) {
	r := h.route(s.channel)
	defer r.mu.Unlock()
	r.subs++
	h.subs.Add(1)
	r.workers[s.conn.worker.at][s.conn.format]++
	s.conn.worker.put(item{kind: enter, sub: s, epoch: top.Epoch, offset: top.Offset, reply: reply})
}

// route finds or makes a channel's route and locks it.
func (h *Hub) route(channel string) *route {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.channels[channel]
	if r == nil {
		r = &route{workers: make([][Formats]int, len(h.workers))}
		h.channels[channel] = r
	}
	r.mu.Lock()
	return r
}

// Exit ends a subscription that was entered, exactly once; reply as in Enter: the frame is written after the last publication.
func (h *Hub) Exit(s *Subscription, reply func() []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.channels[s.channel]
	r.mu.Lock()
	defer r.mu.Unlock()
	r.workers[s.conn.worker.at][s.conn.format]--
	h.subs.Add(-1)
	if r.subs--; r.subs == 0 {
		delete(h.channels, s.channel)
	}
	s.conn.worker.put(item{kind: exit, sub: s, reply: reply})
}

// Settle returns when what the hub was given for the connection before is queued on it, or when the hub has ended.
func (h *Hub) Settle(c *Conn) {
	done := make(chan struct{})
	c.worker.put(item{kind: settle, reply: func() []byte { close(done); return nil }})
	select {
	case <-done:
	case <-h.ended:
	}
}

// Later has the connection's worker call do, after what the hub was given for the connection before: what do sends stands between the
// publications. It doesn't wait, and do must not block; it may never be called, when the hub ends.
func (h *Hub) Later(c *Conn, do func()) {
	c.worker.put(item{kind: settle, reply: func() []byte { do(); return nil }})
}

// SetFormat gives a connection another format, before its first Enter.
func (c *Conn) SetFormat(f Format) { c.format = f }

// Publication implements feed.Sink.
func (h *Hub) Publication(channel, epoch string, p *bus.Publication) {
	it := item{kind: publication, channel: channel, epoch: epoch, offset: p.Offset, time: p.Time}
	if h.trace != nil && len(p.Tags) > 0 {
		if end := h.trace(channel, p); end != nil {
			it.traced = &traced{end: end}
		}
	}
	h.spread(channel, it, func(f Format) []byte {
		return h.enc.Publication(f, channel, epoch, p)
	})
}

// Member implements feed.Sink.
func (h *Hub) Member(channel string, joined bool, info bus.ClientInfo) {
	h.spread(channel, item{kind: member, channel: channel}, func(f Format) []byte { return h.enc.Member(f, channel, joined, info) })
}

// Lost implements feed.Sink.
func (h *Hub) Lost(channel string) {
	h.spread(channel, item{kind: lost, channel: channel}, nil)
}

// spread puts an item into the inbox of each worker that has subscribers of the channel, encoded once for each format among them.
func (h *Hub) spread(channel string, it item, encode func(Format) []byte) {
	h.mu.RLock()
	r := h.channels[channel]
	if r != nil {
		r.mu.Lock()
	}
	h.mu.RUnlock()
	if r == nil {
		return
	}
	defer r.mu.Unlock()
	if it.traced != nil {
		it.traced.left.Store(r.busyLocked())
	}
	for i := range r.workers {
		any := false
		for f, n := range r.workers[i] {
			if n == 0 {
				continue
			}
			any = true
			if encode != nil && it.frames[f] == nil {
				it.frames[f] = encode(Format(f))
			}
		}
		if any {
			h.workers[i].put(it)
		}
	}
}

// Subscriptions is how many there are.
func (h *Hub) Subscriptions() int { return int(h.subs.Load()) }

// Spilt counts items that did not fit into a worker's inbox.
func (h *Hub) Spilt() uint64 { return h.spilt.Load() }
