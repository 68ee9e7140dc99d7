package bus

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// The numbers of a shard's loop.
const (
	// flushDelay is how long subscribes and unsubscribes are collected before they become commands.
	flushDelay = time.Millisecond
	// Backoff between connections: full jitter under a bound that doubles from reconnectFirst to reconnectMax.
	reconnectFirst = 100 * time.Millisecond
	reconnectMax   = 5 * time.Second
	// rotateTimeout bounds how long a rotation may take to converge; past it the new connection is given up and tried again after
	// rotateRetry.
	rotateTimeout = 30 * time.Second
	rotateRetry   = time.Minute
)

// shard follows the channels of one partition, or all of them outside cluster mode. Its goroutine owns everything but the mailbox and the
// gauges; it takes intents and what its links received, calls the handler, and never waits for the network.
//
// A channel is wanted or not (chans); each link works by itself towards that. via names the link that confirmed it first: then the
// handler was told (Confirmed), and that link's messages of the channel are passed on, no other's.
type shard struct {
	sub       *Subscriber
	partition int
	prefix    string // of a pub/sub channel; outside cluster mode, where partitions are mixed, ""

	mu      sync.Mutex
	intents map[string]intent
	wake    chan struct{}

	connected, resting atomic.Bool
	probed             atomic.Int64 // when a probe came back last, in ns since 1970

	// owned by run
	chans    map[string]*channelState
	main     *link // what is heard; nil while there is no connection
	next     *link // will replace main
	wg       sync.WaitGroup
	attempt  int       // failures in a row, for the backoff
	dialAt   time.Time // when the next connection may be made
	rotateAt time.Time
	flushAt  time.Time // zero: nothing is collected
	idleAt   time.Time // zero: something is wanted
}

// intent is the last of Subscribe and Unsubscribe. turned: both were called, so that a channel that stayed subscribed is confirmed anew.
type intent struct{ wanted, turned bool }

type channelState struct{ via *link }

func newShard(s *Subscriber, partition int) *shard {
	sh := &shard{
		sub: s, partition: partition, intents: make(map[string]intent), wake: make(chan struct{}, 1),
		chans: make(map[string]*channelState),
	}
	if s.bus.cluster != nil {
		sh.prefix = s.bus.partitionPrefix(partition) + keyChannel
		sh.resting.Store(true)
	}
	return sh
}

// pubsubChannel is the pub/sub channel of a channel, or of a probe.
func (sh *shard) pubsubChannel(name string) string {
	if sh.prefix != "" {
		return sh.prefix + name
	}
	return sh.sub.bus.key(keyChannel, name)
}

// name is the channel of a pub/sub channel.
func (sh *shard) name(pubsub string) string {
	rest := pubsub[min(len(sh.sub.bus.prefix), len(pubsub)):] // {p}:c:name
	_, name, _ := strings.Cut(rest, ":"+keyChannel)
	return name
}

// want notes an intent. It never waits.
func (sh *shard) want(name string, wanted bool) {
	sh.mu.Lock()
	old, there := sh.intents[name]
	sh.intents[name] = intent{wanted: wanted, turned: old.turned || there && old.wanted != wanted}
	sh.mu.Unlock()
	select {
	case sh.wake <- struct{}{}:
	default:
	}
}

// run is the loop. It returns after its links' goroutines have.
func (sh *shard) run(ctx context.Context) {
	defer sh.connected.Store(false)
	defer sh.wg.Wait()
	defer func() {
		for _, l := range []*link{sh.main, sh.next} {
			if l != nil {
				l.cancel()
			}
		}
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-sh.wake:
		case <-notified(sh.main):
		case <-notified(sh.next):
		case <-timer.C:
		}
		sh.takeIntents()
		sh.receive(sh.main)
		sh.receive(sh.next)
		now := time.Now()
		sh.maintain(ctx, now)
		timer.Reset(sh.nextTimer(now))
	}
}

func notified(l *link) <-chan struct{} {
	if l == nil {
		return nil
	}
	return l.in.notify
}

// takeIntents applies what Subscribe and Unsubscribe asked for.
func (sh *shard) takeIntents() {
	sh.mu.Lock()
	intents := sh.intents
	if len(intents) == 0 {
		sh.mu.Unlock()
		return
	}
	sh.intents = make(map[string]intent)
	sh.mu.Unlock()
	for name, i := range intents {
		state := sh.chans[name]
		switch {
		case i.wanted && state == nil:
			state = &channelState{}
			sh.chans[name] = state
			// It may have been given up a moment ago, and the server not been told yet: then it is heard already.
			sh.report(name, state)
		case i.wanted && i.turned && state.via != nil:
			sh.sub.handler.Confirmed(name)
		case !i.wanted && state != nil:
			delete(sh.chans, name)
		default:
			continue
		}
		for _, l := range []*link{sh.main, sh.next} {
			if l != nil {
				l.dirty[name] = struct{}{}
			}
		}
	}
	if sh.flushAt.IsZero() {
		sh.flushAt = time.Now().Add(flushDelay)
	}
}

// report confirms a channel that is not reported yet when a link hears it.
func (sh *shard) report(name string, state *channelState) {
	if state.via != nil {
		return
	}
	for _, l := range []*link{sh.main, sh.next} {
		if l != nil && l.hears(name) {
			state.via = l
			sh.sub.handler.Confirmed(name)
			return
		}
	}
}

// receive takes what a link has received and passes it on.
func (sh *shard) receive(l *link) {
	if l == nil {
		return
	}
	items, gapped, failure := l.in.take(l.spare)
	var broken error // what the server said does not fit what it was asked
	retired := false
	for _, item := range items {
		switch item := item.(type) {
		case *redis.Message:
			sh.take(l, item)
		case *redis.Subscription:
			if broken == nil {
				broken = sh.confirmed(l, item)
			}
		case *redis.Pong:
			// Behind the barrier comes nothing that the new link does not hear.
			retired = l == sh.main && !l.retire.IsZero()
		}
		if retired {
			break
		}
	}
	l.spare = items
	for pubsub := range gapped {
		sh.gap(l, sh.name(pubsub))
	}
	switch {
	case retired:
		sh.replace()
	case broken != nil:
		sh.lose(l, broken)
	case failure != nil:
		sh.lose(l, failure)
	}
}

// confirmed takes note of a confirmation; an error says that the link can't be trusted.
func (sh *shard) confirmed(l *link, s *redis.Subscription) error {
	name, live, err := l.confirm(s)
	if state := sh.chans[name]; live && state != nil {
		sh.report(name, state)
	}
	return err
}

// take passes a message on when it comes from the link that the channel is heard by. What the next link hears of the main link's channels
// waits until the main link is through: otherwise it would come before what the main link has yet to receive.
func (sh *shard) take(l *link, m *redis.Message) {
	name := sh.name(m.Channel)
	state := sh.chans[name]
	switch {
	case state == nil || state.via == nil:
	case state.via == l:
		sh.hear(l, name, m)
	case l == sh.next && !l.park(m):
		sh.sub.bus.stats.overflowed.Add(1)
		sh.gap(l, name)
	}
}

func (sh *shard) hear(l *link, name string, m *redis.Message) {
	msg, err := parseEnvelope(m.Payload)
	if err != nil {
		sh.sub.bus.stats.unreadable.Add(1)
		sh.gap(l, name)
		return
	}
	msg.Publication.Channel = name
	sh.sub.handler.Heard(name, msg)
}

// gap tells the handler that messages of a channel are missing although it is subscribed; of the next link's, when it takes over.
func (sh *shard) gap(l *link, name string) {
	state := sh.chans[name]
	switch {
	case state == nil || state.via == nil:
	case state.via == l:
		sh.sub.handler.Interrupted(name)
		sh.sub.handler.Confirmed(name)
	case l == sh.next:
		l.missed[name] = struct{}{}
	}
}

// unpark passes on what waited on a link that has just become the main one.
func (sh *shard) unpark(l *link) {
	parked, missed := l.parked, l.missed
	l.parked, l.parkedBytes, l.missed = nil, 0, nil
	for _, m := range parked {
		sh.take(l, m)
	}
	for name := range missed {
		sh.gap(l, name)
	}
}
