package bus

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"tideline/shared/limit"
)

// tuning holds the numbers of a subscriber that tests shorten.
type tuning struct {
	confirm      time.Duration // limit.SubscribeConfirm
	probeEvery   time.Duration // limit.ProbeEvery
	probeTimeout time.Duration // limit.ProbeTimeout
	rotateMin    time.Duration
	rotateMax    time.Duration
	stable       time.Duration // a connection that lived this long is replaced without backoff
	idle         time.Duration // how long a shard's connection is kept when no channel wants it (cluster mode)
	messages     int           // inboxMessages
	bytes        int           // inboxBytes
}

// Subscriber follows channels with dedicated connections: one, or in cluster mode one per partition that has channels. Subscribe,
// Unsubscribe and Health are safe for concurrent use, also from inside a Handler's methods.
//
// A connection that is lost, that the server doesn't confirm in time, or whose probe doesn't come back is replaced, with backoff and
// jitter; its channels are interrupted and confirmed again. At a random age it is replaced before it is given up, and nothing is
// interrupted. Messages wait in a bounded inbox for the handler; when it is full they are dropped and their channels are interrupted.
type Subscriber struct {
	bus     *Bus
	handler Handler
	tune    tuning
	rebuilt atomic.Uint64

	mu      sync.Mutex
	shards  map[int]*shard // by partition in cluster mode, otherwise only 0
	running context.Context
	wg      sync.WaitGroup // the shards
	started time.Time
}

// NewSubscriber makes a Subscriber that reports to h. Nothing happens before Run; what is subscribed before is remembered.
func (b *Bus) NewSubscriber(h Handler) *Subscriber {
	s := &Subscriber{bus: b, handler: h, shards: make(map[int]*shard), tune: tuning{
		confirm: limit.SubscribeConfirm, probeEvery: limit.ProbeEvery, probeTimeout: limit.ProbeTimeout,
		rotateMin: b.rotateMin, rotateMax: b.rotateMax, stable: 5 * time.Second, idle: 30 * time.Second,
		messages: inboxMessages, bytes: inboxBytes,
	}}
	if b.cluster == nil {
		s.shards[0] = newShard(s, 0)
	}
	return s
}

// Run connects, subscribes, receives, probes and rotates until ctx ends, and returns after all its goroutines have. It answers nil then,
// and an error at once when it was called before.
func (s *Subscriber) Run(ctx context.Context) error {
	s.mu.Lock()
	if s.running != nil {
		s.mu.Unlock()
		return errors.New("subscriber: Run was called twice")
	}
	s.running, s.started = ctx, time.Now()
	for _, sh := range s.shards {
		s.wg.Go(func() { sh.run(ctx) })
	}
	s.mu.Unlock()
	<-ctx.Done()
	s.mu.Lock()
	//lint:ignore SA2001 the lock is a barrier: from here on shard starts nothing
	s.mu.Unlock()
	s.wg.Wait()
	return nil
}

// Subscribe asks for a channel; it returns at once, Handler.Confirmed tells. Only the last of Subscribe and Unsubscribe counts: a channel
// that is wanted already is not confirmed again. Calls are batched into few commands.
func (s *Subscriber) Subscribe(channel string) { s.shard(channel).want(channel, true) }

// Unsubscribe gives a channel up; nothing is heard of it after the server's confirmation, and mostly nothing after this call.
func (s *Subscriber) Unsubscribe(channel string) { s.shard(channel).want(channel, false) }

// shard finds the shard of a channel, and starts it when it is the first.
func (s *Subscriber) shard(channel string) *shard {
	p := 0
	if s.bus.cluster != nil {
		p = partition(channel)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	sh := s.shards[p]
	if sh == nil {
		sh = newShard(s, p)
		s.shards[p] = sh
		if ctx := s.running; ctx != nil && ctx.Err() == nil {
			s.wg.Go(func() { sh.run(ctx) })
		}
	}
	return sh
}

// Health is what /readyz and the gauges tell about the subscriber connections.
type Health struct {
	// Connected: every shard that has channels has a connection that the server has confirmed.
	Connected bool
	// ProbeAge is the age of the oldest shard's last probe that came back; a shard without one counts from Run.
	ProbeAge time.Duration
	// Rebuilt counts connections that were rebuilt since the start.
	Rebuilt uint64
}

// Health may be called at any time. Before Run nothing is connected.
func (s *Subscriber) Health() Health {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := Health{Connected: s.running != nil && s.running.Err() == nil, Rebuilt: s.rebuilt.Load()}
	if s.running == nil {
		return h
	}
	for _, sh := range s.shards {
		if sh.resting.Load() {
			continue
		}
		h.Connected = h.Connected && sh.connected.Load()
		last := s.started
		if ns := sh.probed.Load(); ns != 0 {
			last = time.Unix(0, ns)
		}
		h.ProbeAge = max(h.ProbeAge, time.Since(last))
	}
	return h
}
