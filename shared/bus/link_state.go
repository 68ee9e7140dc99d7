package bus

import (
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
)

// What the shard does with a link: it tells the server what is wanted, and keeps account of what the server has confirmed. All of it
// runs on the shard's goroutine and none of it waits.

// flush sends what differs between what the server was told and what is wanted, as far as there is room.
func (l *link) flush(now time.Time) {
	if !l.connected || !l.retire.IsZero() {
		return
	}
	// Only the shard sends to out, so what is free stays free. One round needs two places.
	for len(l.dirty) > 0 && len(l.unacked) < linkInFlight && cap(l.out)-len(l.out) >= 2 {
		subscribe, unsubscribe := l.batch(now.Add(l.shard.sub.tune.confirm))
		if len(subscribe) > 0 {
			l.out <- command{commandSubscribe, subscribe}
		}
		if len(unsubscribe) > 0 {
			l.out <- command{commandUnsubscribe, unsubscribe}
		}
	}
}

// batch takes up to linkBatch channels out of dirty. A channel whose last command says already what is wanted needs none: a quick
// unsubscribe and subscribe meet here. The order of acks is that of the commands: subscribes first.
func (l *link) batch(due time.Time) (subscribe, unsubscribe []string) {
	var left []ack
	taken := 0
	for name := range l.dirty {
		if taken == linkBatch {
			break
		}
		taken++
		delete(l.dirty, name)
		wanted := l.shard.chans[name] != nil
		lc := l.chans[name]
		switch {
		case wanted && (lc == nil || !lc.sent):
			if lc == nil {
				lc = &linkChannel{}
				l.chans[name] = lc
			}
			lc.sent = true
			subscribe = append(subscribe, l.shard.pubsubChannel(name))
			l.unacked = append(l.unacked, ack{name, true, due})
		case !wanted && lc != nil && lc.sent:
			if lc.unacked == 0 {
				l.live--
			}
			lc.sent = false
			unsubscribe = append(unsubscribe, l.shard.pubsubChannel(name))
			left = append(left, ack{name, false, due})
		default:
			continue
		}
		lc.unacked++
	}
	l.unacked = append(l.unacked, left...)
	return subscribe, unsubscribe
}

// confirm takes a confirmation, which must be the one that is owed next: the server answers in order, so anything else is an
// unsubscription that nobody asked for (a slot that moved away), and the link can't be trusted. It answers the channel that is live now.
func (l *link) confirm(s *redis.Subscription) (name string, live bool, err error) {
	subscribed := s.Kind == "subscribe" || s.Kind == "ssubscribe"
	if !l.connected {
		if !subscribed || s.Channel != l.probeChannel() {
			return "", false, fmt.Errorf("%w: %s first", errUnrequested, s.Kind)
		}
		l.connected = true
		return "", false, nil
	}
	name = l.shard.name(s.Channel)
	if len(l.unacked) == 0 || l.unacked[0].name != name || l.unacked[0].subscribe != subscribed {
		return "", false, fmt.Errorf("%w: %s", errUnrequested, s.Kind)
	}
	l.unacked = l.unacked[1:]
	if len(l.unacked) == 0 {
		l.unacked = nil // lets go of the array
	}
	lc := l.chans[name]
	lc.unacked--
	switch {
	case lc.unacked > 0: // only the confirmation of the last command counts
		return "", false, nil
	case !lc.sent:
		delete(l.chans, name)
		return "", false, nil
	}
	l.live++
	return name, true, nil
}

// hears reports whether the channel is subscribed and confirmed on this link.
func (l *link) hears(name string) bool {
	lc := l.chans[name]
	return lc != nil && lc.sent && lc.unacked == 0
}

// converged reports whether the link hears everything that is wanted and owes nothing.
func (l *link) converged() bool {
	return l.connected && len(l.dirty) == 0 && len(l.unacked) == 0 && l.live == len(l.shard.chans)
}

// overdue reports whether the connection, or the oldest confirmation, is late.
func (l *link) overdue(now time.Time) bool {
	if !l.connected {
		return now.After(l.born.Add(linkConnect + l.shard.sub.tune.confirm))
	}
	return len(l.unacked) > 0 && now.After(l.unacked[0].due)
}

// deadline is when overdue must be asked again.
func (l *link) deadline() time.Time {
	switch {
	case !l.connected:
		return l.born.Add(linkConnect + l.shard.sub.tune.confirm)
	case len(l.unacked) > 0:
		return l.unacked[0].due
	}
	return time.Time{}
}

// beginRetirement sends the barrier behind which nothing more comes that this link alone has heard.
func (l *link) beginRetirement(now time.Time) {
	if !l.retire.IsZero() || len(l.out) == cap(l.out) {
		return
	}
	l.retire = now.Add(l.shard.sub.tune.confirm)
	l.out <- command{kind: commandBarrier}
}

// park keeps a message until the link takes over; false: there is no room. The bounds are those of the inbox.
func (l *link) park(m *redis.Message) bool {
	t, size := &l.shard.sub.tune, len(m.Channel)+len(m.Payload)
	if len(l.parked) >= t.messages || l.parkedBytes+size > t.bytes {
		return false
	}
	l.parked = append(l.parked, m)
	l.parkedBytes += size
	return true
}

// wantAll marks everything that is wanted, on a new link.
func (l *link) wantAll() {
	l.dirty = make(map[string]struct{}, len(l.shard.chans))
	for name := range l.shard.chans {
		l.dirty[name] = struct{}{}
	}
	l.unacked = slices.Grow(l.unacked, min(len(l.dirty), linkInFlight))
}
