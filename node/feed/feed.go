// Package feed follows channels of the bus for one node: it knows each channel's position, delivers what comes in order and
// exactly once, repairs gaps from the channel's stream, and says so when one can't be repaired.
//
// Owner: the hub, which joins and releases channels and receives through Sink. Redis slow or gone: joins fail at their deadline
// with bus.ErrUnavailable; channels that are followed keep their position and are compared with Redis when it is back.
// A subscriber (hub) that is slow can't hold the feed up: Sink methods don't block.
package feed

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"tideline/shared/bus"
	"tideline/shared/limit"
)

// Source is the part of bus.Bus that the feed reads from.
type Source interface {
	Tops(ctx context.Context, channels []string) ([]bus.Top, []error)
	Since(ctx context.Context, channel string, pos bus.Position) ([]bus.Publication, bus.Position, error)
	Presence(ctx context.Context, channel string) (map[string]bus.ClientInfo, error)
}

// Subscriber is the part of bus.Subscriber that the feed steers.
type Subscriber interface {
	Subscribe(channel string)
	Unsubscribe(channel string)
}

// Sink receives what the feed delivers. Its methods are called under the channel's lock, one at a time for a channel, in order; they
// must neither block nor call the feed.
type Sink interface {
	// Publication is the next one of the channel: its offset is one above the last.
	Publication(channel, epoch string, p *bus.Publication)
	// Member says that somebody joined or left the channel.
	Member(channel string, joined bool, info bus.ClientInfo)
	// Lost says that publications are missing and can't be had any more, or that offsets have begun anew: whoever has a
	// position in the channel must be told.
	Lost(channel string)
}

// Joined is what a subscriber learns when it joins a channel.
type Joined struct {
	// Top is the channel's position; the Sink's next Publication is the one after it.
	Top bus.Position
	// Missed is what came after the position that the subscriber named, complete and in order; only with Recovered.
	Missed []*bus.Publication
	// Recovered: Missed closes the gap, or there was none.
	Recovered bool
}

// Stats counts what happened since the start.
type Stats struct {
	Channels      int
	GapsRepaired  uint64 // publications were missing and have been read from the stream
	GapsAnnounced uint64 // Sink.Lost
	FromRing      uint64 // recoveries answered from memory
	FromRedis     uint64 // recoveries that needed a history read
	Unrecovered   uint64 // recoveries that were impossible
	HistoryReads  uint64 // reads of history from Redis, for recoveries and repairs
	PositionReads uint64
}

// Options of New; zero durations and numbers take their limit.
type Options struct {
	Source Source
	Sink   Sink
	Log    *slog.Logger
	// JoinLeave reports whether joins and leaves of a channel are delivered; the feed then keeps its set of members.
	JoinLeave func(channel string) bool
	// Followed is told when a channel begins and ceases to be followed, in this order for each channel. It must neither block nor call the feed. Nil is not told.
	Followed   func(channel string, on bool)
	Grace      time.Duration // limit.UnsubscribeGrace
	CheckEvery time.Duration // limit.PositionCheckEvery
}

// Feed is safe for concurrent use. It implements bus.Handler.
type Feed struct {
	src        Source
	sink       Sink
	log        *slog.Logger
	joinLeave  func(string) bool
	followed   func(string, bool)
	grace      time.Duration
	checkEvery time.Duration
	sub        Subscriber // set by Attach before Run

	reads  *rate.Limiter // history reads for recovery
	checks *rate.Limiter // background position reads

	mu        sync.Mutex
	followers map[string]*follower

	queue     queue
	ringBytes atomic.Int64
	stats     struct {
		repaired, announced, ring, redis, failed, history, positions atomic.Uint64
	}
}

// New makes a feed. Attach a subscriber to it before Run.
func New(o Options) *Feed {
	if o.JoinLeave == nil {
		o.JoinLeave = func(string) bool { return false }
	}
	if o.Followed == nil {
		o.Followed = func(string, bool) {}
	}
	f := &Feed{src: o.Source, sink: o.Sink, log: o.Log, joinLeave: o.JoinLeave, followed: o.Followed,
		grace: cmp.Or(o.Grace, limit.UnsubscribeGrace), checkEvery: cmp.Or(o.CheckEvery, limit.PositionCheckEvery),
		reads:     rate.NewLimiter(limit.HistoryReadsPerSecond, limit.HistoryReadsPerSecond),
		checks:    rate.NewLimiter(limit.PositionReadsPerSecond, limit.PositionReadsPerSecond),
		followers: map[string]*follower{}}
	f.queue.wake, f.queue.state = make(chan struct{}, 1), map[*follower]place{}
	return f
}

// Attach names the subscriber whose Handler the feed is.
func (f *Feed) Attach(s Subscriber) { f.sub = s }

// Run compares positions, repairs, unsubscribes and trims until ctx ends.
func (f *Feed) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for range syncers {
		g.Go(func() error { return f.syncLoop(ctx) })
	}
	g.Go(func() error { return f.tickLoop(ctx) })
	err := g.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// Stats may be called at any time.
func (f *Feed) Stats() Stats {
	f.mu.Lock()
	n := len(f.followers)
	f.mu.Unlock()
	s := &f.stats
	return Stats{Channels: n, GapsRepaired: s.repaired.Load(), GapsAnnounced: s.announced.Load(), FromRing: s.ring.Load(),
		FromRedis: s.redis.Load(), Unrecovered: s.failed.Load(), HistoryReads: s.history.Load(), PositionReads: s.positions.Load()}
}

// Join follows a channel and calls enter under its lock, at a moment when the node's position is known and compared with Redis: the
// Sink's next Publication for the channel is the one after Joined.Top. since, when set, is the position to recover from; without an
// epoch, its offset is taken for one of the channel's present epoch.
// It fails with bus.ErrUnavailable when that moment doesn't come before ctx ends. Each successful Join needs one Release.
func (f *Feed) Join(ctx context.Context, channel string, since *bus.Position, enter func(Joined)) error {
	fo := f.acquire(channel)
	err := fo.join(ctx, since, enter)
	if err != nil {
		f.Release(channel)
		return fmt.Errorf("join %s: %w", channel, err)
	}
	return nil
}

// Current reports whether a Join of the channel that names no position would be answered at once.
func (f *Feed) Current(channel string) bool {
	fo := f.lookup(channel)
	if fo == nil {
		return false
	}
	fo.mu.Lock()
	defer fo.mu.Unlock()
	return !fo.gone && fo.currentLocked()
}

// acquire finds or makes the follower and takes a reference.
func (f *Feed) acquire(channel string) *follower {
	f.mu.Lock()
	fo := f.followers[channel]
	if fo == nil {
		fo = &follower{f: f, name: channel, changed: make(chan struct{})}
		fo.checked.Store(time.Now().UnixNano())
		if f.joinLeave(channel) {
			fo.members = &members{}
		}
		f.followers[channel] = fo
		f.followed(channel, true)
		f.sub.Subscribe(channel) // under f.mu, so that it can't overtake the Unsubscribe of a follower before
	}
	fo.refs++
	f.mu.Unlock()
	return fo
}

// Release gives one Join back. A channel that nobody joined any more is followed for a short grace, for those who only reconnect.
func (f *Feed) Release(channel string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fo := f.followers[channel]
	if fo == nil || fo.refs == 0 {
		panic("feed: Release without Join of " + channel)
	}
	if fo.refs--; fo.refs == 0 {
		fo.idleSince = time.Now()
	}
}

func (f *Feed) lookup(channel string) *follower {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.followers[channel]
}

// Heard implements bus.Handler.
func (f *Feed) Heard(channel string, m bus.Message) {
	if fo := f.lookup(channel); fo != nil {
		fo.heard(m)
	}
}

// Confirmed implements bus.Handler.
func (f *Feed) Confirmed(channel string) {
	if fo := f.lookup(channel); fo != nil {
		fo.confirm()
	}
}

// Interrupted implements bus.Handler.
func (f *Feed) Interrupted(channel string) {
	if fo := f.lookup(channel); fo != nil {
		fo.interrupt()
	}
}

// tickLoop unsubscribes idle channels, queues position checks, and trims rings.
func (f *Feed) tickLoop(ctx context.Context) error {
	tick := time.NewTicker(min(f.grace, f.checkEvery, time.Second) / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		f.sweep(time.Now())
	}
}

func (f *Feed) sweep(now time.Time) {
	var due []*follower
	f.mu.Lock()
	for name, fo := range f.followers {
		if fo.refs == 0 && now.Sub(fo.idleSince) >= f.grace {
			delete(f.followers, name)
			f.sub.Unsubscribe(name)
			f.followed(name, false)
			f.ringBytes.Add(-fo.retire())
			continue
		}
		if now.Sub(fo.lastCheck()) >= f.checkEvery {
			due = append(due, fo)
		}
	}
	f.mu.Unlock()
	slices.SortFunc(due, func(a, b *follower) int { return a.lastCheck().Compare(b.lastCheck()) })
	for _, fo := range due {
		if !f.checks.AllowN(now, 1) {
			break // the rest are older next time, and so come first
		}
		f.queue.push(fo)
	}
	if f.ringBytes.Load() > limit.RingsBytes {
		f.trimRings()
	}
}

// trimRings drops whole rings, least recently used first, down to nine tenths of the bound.
func (f *Feed) trimRings() {
	f.mu.Lock()
	all := make([]*follower, 0, len(f.followers))
	for _, fo := range f.followers {
		all = append(all, fo)
	}
	f.mu.Unlock()
	slices.SortFunc(all, func(a, b *follower) int { return cmp.Compare(a.used.Load(), b.used.Load()) })
	for _, fo := range all {
		if f.ringBytes.Load() <= limit.RingsBytes*9/10 {
			return
		}
		fo.mu.Lock()
		fo.ring.clear(f)
		fo.mu.Unlock()
	}
}
