package bus

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"
)

// The life of a shard's links: which is made, lost, replaced or given up, and when. All of it runs on the shard's goroutine.

// lose gives a link up. The channels that it was the first to hear are interrupted; those that the other link hears go on there.
func (sh *shard) lose(l *link, why error) {
	l.cancel()
	b := sh.sub.bus
	if l == sh.next {
		sh.next = nil
		sh.rotateAt = time.Now().Add(rotateRetry/2 + jitter(rotateRetry))
		b.log.Warn("bus: the connection that was to replace another is lost", "partition", sh.partition, "reason", why)
	} else {
		sh.main, sh.next = sh.next, nil
		if sh.main != nil {
			sh.setRotation(sh.main.born)
		}
		sh.backOff(l, time.Now())
		level := slog.LevelDebug // a server that is away is reported once, not at every attempt
		if l.connected {
			level = slog.LevelWarn
			sh.sub.rebuilt.Add(1)
			b.stats.rebuilt.Add(1)
		}
		b.log.Log(context.Background(), level, "bus: subscriber connection lost", "partition", sh.partition, "reason", why, "channels", len(sh.chans))
	}
	if errors.Is(why, errUnconfirmed) {
		b.stats.unconfirmed.Add(1)
	}
	if b.cluster != nil {
		b.cluster.ReloadState(context.Background()) // returns at once; the slot may have moved
	}
	for name, state := range sh.chans {
		if state.via == l {
			state.via = nil
			sh.sub.handler.Interrupted(name)
			sh.report(name, state)
		}
	}
	if sh.main != nil {
		sh.unpark(sh.main)
	}
	sh.connected.Store(sh.main != nil && sh.main.connected)
}

// backOff decides when the next connection may be made: at once (nearly) after a link that was stable, later with every one that was not.
func (sh *shard) backOff(l *link, now time.Time) {
	if l.connected && now.Sub(l.born) >= sh.sub.tune.stable {
		sh.attempt = 0
	}
	bound := min(reconnectFirst<<min(sh.attempt, 10), reconnectMax)
	sh.attempt++
	sh.dialAt = now.Add(rand.N(bound))
}

// replace makes next the main link and lets the old one go; its channels stay confirmed.
func (sh *shard) replace() {
	old := sh.main
	sh.main, sh.next = sh.next, nil
	for _, state := range sh.chans {
		if state.via == old {
			state.via = sh.main
		}
	}
	old.cancel()
	sh.unpark(sh.main)
	sh.sub.bus.stats.rotated.Add(1)
	sh.sub.bus.log.Info("bus: subscriber connection replaced for its age", "partition", sh.partition, "age", time.Since(old.born).Round(time.Second))
	sh.setRotation(sh.main.born)
}

func (sh *shard) setRotation(born time.Time) {
	t := &sh.sub.tune
	sh.rotateAt = born.Add(t.rotateMin)
	if spread := t.rotateMax - t.rotateMin; spread > 0 {
		sh.rotateAt = sh.rotateAt.Add(rand.N(spread))
	}
}

// maintain does everything that depends on the time.
func (sh *shard) maintain(ctx context.Context, now time.Time) {
	for _, l := range []*link{sh.next, sh.main} {
		if l != nil && l.overdue(now) {
			sh.lose(l, errUnconfirmed)
		}
	}
	sh.rest(now)
	if sh.main == nil && sh.next == nil && !sh.resting.Load() && !now.Before(sh.dialAt) {
		sh.main = sh.start(ctx, now)
		sh.setRotation(now)
	}
	sh.rotate(ctx, now)
	if !now.Before(sh.flushAt) {
		sh.flushAt = time.Time{}
		for _, l := range []*link{sh.main, sh.next} {
			if l != nil {
				l.flush(now)
			}
		}
	}
	sh.connected.Store(sh.main != nil && sh.main.connected)
}

// start makes a link and tells it what is wanted.
func (sh *shard) start(ctx context.Context, now time.Time) *link {
	l := newLink(sh)
	l.wantAll()
	ctx, l.cancel = context.WithCancel(ctx)
	sh.wg.Go(func() { l.run(ctx) })
	return l
}

// rest gives the connection of a partition up when no channel has wanted it for a while. Outside cluster mode it is kept.
func (sh *shard) rest(now time.Time) {
	switch {
	case sh.sub.bus.cluster == nil:
		return
	case len(sh.chans) > 0:
		sh.idleAt = time.Time{}
		sh.resting.Store(false)
	case sh.idleAt.IsZero():
		sh.idleAt = now.Add(sh.sub.tune.idle)
	case !now.Before(sh.idleAt) && !sh.resting.Load():
		sh.resting.Store(true)
		for _, l := range []*link{sh.main, sh.next} {
			if l != nil {
				l.cancel()
			}
		}
		sh.main, sh.next = nil, nil
	}
}

// rotate replaces a link for its age: make before break.
func (sh *shard) rotate(ctx context.Context, now time.Time) {
	switch {
	case sh.main == nil:
	case sh.next == nil:
		if sh.main.connected && !now.Before(sh.rotateAt) {
			sh.next = sh.start(ctx, now)
		}
	case !sh.main.retire.IsZero():
		if now.After(sh.main.retire) {
			// No answer to the barrier: what the old link has not passed on is lost.
			sh.lose(sh.main, errUnconfirmed)
		}
	case sh.next.converged():
		sh.main.beginRetirement(now)
	case now.After(sh.next.born.Add(rotateTimeout)):
		sh.lose(sh.next, errUnconfirmed)
	}
}

// nextTimer is how long the loop may sleep when nothing happens.
func (sh *shard) nextTimer(now time.Time) time.Duration {
	at := now.Add(time.Minute)
	earlier := func(t time.Time) {
		if !t.IsZero() && t.Before(at) {
			at = t
		}
	}
	earlier(sh.flushAt)
	if sh.main == nil && !sh.resting.Load() {
		earlier(sh.dialAt)
	}
	if !sh.resting.Load() {
		earlier(sh.idleAt)
	}
	for _, l := range []*link{sh.main, sh.next} {
		if l != nil {
			earlier(l.deadline())
			earlier(l.retire)
		}
	}
	switch {
	case sh.main == nil:
	case sh.next == nil && sh.main.connected:
		earlier(sh.rotateAt)
	case sh.next != nil && sh.main.retire.IsZero():
		earlier(sh.next.born.Add(rotateTimeout))
	}
	return max(at.Sub(now), 0) + time.Millisecond/4
}
