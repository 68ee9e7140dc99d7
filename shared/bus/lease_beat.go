package bus

// The heartbeat: takes and renews this node's lease, and reads those of the others.

import (
	"context"
	"encoding/json"
	"maps"
	"math/rand/v2"
	"slices"
	"time"
)

// beatScript renews a lease, or takes one. KEYS: the lease, the registry. ARGV: "take" or "renew", boot, value, TTL in ms. A lease
// that has expired is never renewed: its members may have been removed already. A boot is taken once, so taking bears repetition.
var beatScript = newScript("heartbeat", `
if ARGV[1] == 'renew' and redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
redis.call('SADD', KEYS[2], ARGV[2])
return 1
`)

// giveUpScript ends a lease. KEYS: the lease, the registry, the counts. ARGV: boot.
var giveUpScript = newScript("give up lease", `
redis.call('SREM', KEYS[2], ARGV[1])
return redis.call('DEL', KEYS[1], KEYS[3])
`)

// beatLoop renews the lease every Heartbeat and reads the fleet, until ctx ends. While Redis is away it asks more often, so that a
// node's lease is back long before another has held its own for a whole TTL.
func (l *Lease) beatLoop(ctx context.Context) {
	for {
		next := l.o.Heartbeat - rand.N(l.o.Heartbeat/10) // nodes that started together don't beat together
		if err := l.beat(ctx); err != nil {
			if ctx.Err() != nil {
				return
			}
			l.bus.log.Warn("heartbeat failed", "node", l.o.Node, "boot", l.Boot(), "error", err)
			next = l.o.Heartbeat / 5
		} else if due, ok := l.nextExpiry(); ok && due < next {
			next = due // a node that has stopped beating: look again when its lease ends, not a heartbeat later
		}
		if !sleep(ctx, next) {
			return
		}
	}
}

// beat renews or takes the lease and looks at the others. Its deadline is short enough for another attempt within the lease.
func (l *Lease) beat(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, l.o.Heartbeat)
	defer cancel()
	g, renew := l.candidate()
	sent := time.Now()
	alive, err := l.sendBeat(ctx, g, renew)
	if err == nil && !alive {
		l.bus.log.Warn("lease lost, taking a new generation", "node", l.o.Node, "boot", g.String())
		l.lost()
		g, renew = l.candidate()
		sent = time.Now()
		_, err = l.sendBeat(ctx, g, renew)
	}
	l.beatDone(g, renew, sent, err)
	if err != nil {
		return err
	}
	if !renew {
		wake(l.auditNow)
	}
	return l.look(ctx, g)
}

// candidate is the generation to beat for: the current one where it is held, else the next. It becomes current when it has been taken,
// so that no member ever enters under a generation without a lease.
func (l *Lease) candidate() (g generation, renew bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held {
		return l.current, true
	}
	return generation{l.current.process, l.next}, false
}

// lost notes that the current generation's lease is gone.
func (l *Lease) lost() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = false
	l.unbroken = time.Time{}
}

// sendBeat renews g's lease or takes it, and answers whether it is alive.
func (l *Lease) sendBeat(ctx context.Context, g generation, renew bool) (bool, error) {
	info := l.o.Info()
	info.ID, info.Boot, info.Beat = l.o.Node, g.String(), l.bus.now().UTC()
	if info.Started.IsZero() {
		info.Started = l.started
	}
	value, err := json.Marshal(leaseValue{NodeInfo: info, Counted: l.counts.sequence(g)})
	if err != nil {
		return false, err
	}
	how := "take"
	if renew {
		how = "renew"
	}
	reply, err := l.bus.run(ctx, beatScript, []string{l.bus.fleetKey(fleetLease + g.String()), l.bus.fleetKey(fleetAll)},
		how, g.String(), value, l.o.TTL.Milliseconds())
	return reply == int64(1), err
}

// beatDone notes what became of a heartbeat that was sent at the given time. A generation whose taking had no answer is not tried again:
// it may have been taken, have expired and be being reaped.
func (l *Lease) beatDone(g generation, renewed bool, sent time.Time, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !renewed {
		l.next = g.number + 1
	}
	if err != nil {
		l.unbroken = time.Time{}
		return
	}
	if l.unbroken.IsZero() || sent.Sub(l.beaten) > 2*l.o.Heartbeat {
		// A pause of ours, or of Redis: the others may have had it too, and their leases look dead before they have been back.
		l.unbroken = sent
	}
	l.current, l.held, l.beaten = g, true, sent
}

// look reads the other leases and wakes the reaper when one is dead.
func (l *Lease) look(ctx context.Context, g generation) error {
	_, leases, err := l.bus.leases(ctx, append(l.knownPeers(), g.String()))
	if err != nil {
		return err
	}
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if leases[g.String()].left == 0 {
		// Whatever took this node's lease away has taken others as well. The next heartbeat finds out.
		l.unbroken = time.Time{}
		return nil
	}
	delete(leases, g.String())
	for boot, lease := range leases {
		l.fleet[boot] = l.judgeLocked(boot, lease, now)
	}
	l.looked = now
	if len(l.deadLocked(now)) > 0 {
		wake(l.reapNow)
	}
	return nil
}

// judgeLocked updates what is known of a generation. One that expired as was foreseen is dead at once. One that is missing before its
// time, or was never seen, may have been lost by Redis together with what its node would need to notice: its node gets a TTL to be back.
func (l *Lease) judgeLocked(boot string, lease leaseReading, now time.Time) peer {
	if lease.left > 0 {
		return peer{alive: true, info: lease.value.NodeInfo, counted: lease.value.Counted, until: now.Add(lease.left)}
	}
	switch before, known := l.fleet[boot]; {
	case !known, before.alive && before.until.After(now.Add(l.o.Heartbeat/5)):
		return peer{until: now.Add(l.o.TTL)}
	default:
		return peer{until: before.until}
	}
}

// knownPeers are asked for even when the registry has lost them.
func (l *Lease) knownPeers() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.AppendSeq(make([]string, 0, len(l.fleet)+1), maps.Keys(l.fleet))
}

// deadLocked lists the generations that may be reaped, in random order, so that survivors begin at different ones. It is empty until
// this node's own lease has been unbroken for a TTL.
func (l *Lease) deadLocked(now time.Time) []string {
	if !l.held || l.unbroken.IsZero() || now.Sub(l.unbroken) < l.o.TTL || now.Sub(l.beaten) > 2*l.o.Heartbeat {
		return nil
	}
	var dead []string
	for boot, p := range l.fleet {
		if !p.alive && !p.until.After(now) {
			dead = append(dead, boot)
		}
	}
	rand.Shuffle(len(dead), func(i, j int) { dead[i], dead[j] = dead[j], dead[i] })
	return dead
}

// nextExpiry is how long to wait until some lease has expired, or a missing one may be taken for dead; false when none is in sight.
func (l *Lease) nextExpiry() (time.Duration, bool) {
	const after = 20 * time.Millisecond // Redis's clock and ours tick apart
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	var first time.Time
	for _, p := range l.fleet {
		at := p.until
		if mayReap := l.unbroken.Add(l.o.TTL); !p.alive && at.Before(mayReap) {
			at = mayReap
		}
		// What is past is in the reaper's hands, and if it fails the next heartbeat wakes it again.
		if at.After(now) && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	if first.IsZero() {
		return 0, false
	}
	return first.Sub(now) + after + rand.N(l.o.Heartbeat/10), true
}

// giveUp removes this node's presence entries with their leaves and then the lease, within shutdownBudget.
func (l *Lease) giveUp(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, shutdownBudget)
	defer cancel()
	l.mu.Lock()
	l.closed = true
	g, taken := l.current, !l.beaten.IsZero()
	l.mu.Unlock()
	l.endCalls()
	l.calls.Wait()
	if !taken {
		return
	}
	removed, err := l.bus.reap(ctx, g)
	if err == nil {
		// Only now: a lease that is gone before its members would be reaped by others as well, a TTL later.
		_, err = l.bus.run(ctx, giveUpScript, []string{
			l.bus.fleetKey(fleetLease + g.String()), l.bus.fleetKey(fleetAll), l.bus.fleetKey(fleetCounts + g.String()),
		}, g.String())
	}
	if err != nil {
		l.bus.log.Warn("lease not given up, it will expire", "node", l.o.Node, "boot", g.String(), "error", err)
		return
	}
	l.bus.log.Info("lease given up", "node", l.o.Node, "boot", g.String(), "members", removed)
}

// wake leaves a signal in a channel of one place.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
