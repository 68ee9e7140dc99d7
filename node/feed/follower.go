package feed

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"tideline/shared/bus"
	"tideline/shared/limit"
)

// parkedBytes bounds the publications that one channel parks while its position is being compared. What doesn't fit is dropped and read
// from the stream by another comparison.
const parkedBytes = limit.RingBytes

// follower is one channel's state. A join is answered only while it is current: the subscription is confirmed, and the position has been
// compared with Redis since. Publications are delivered whenever they continue the position, current or not: an equal epoch and
// last+1 can't be wrong.
type follower struct {
	f    *Feed
	name string

	// guarded by Feed.mu
	refs      int
	idleSince time.Time

	used    atomic.Int64 // Unix seconds of the last publication or recovery, for trimRings
	checked atomic.Int64 // Unix nanoseconds of the last comparison

	mu          sync.Mutex
	gone        bool // retired: a late call must not touch the ring's accounting
	isConfirmed bool // the server has confirmed the subscription, and it is not interrupted
	compared    bool // the position was compared since the last confirmation
	known       bool // pos is valid
	behind      bool // publications between pos and the parked ones are missing
	urgent      bool // somebody waits: compare before the budgeted checks
	pos         bus.Position
	ring        ring
	parked      []parked
	parkedSize  int
	overflowed  bool          // parked ones were dropped: another comparison is due
	changed     chan struct{} // closed and replaced when the state changes that joins wait for
	reading     *reading      // the history read in flight, for recoveries
	wanted      *bus.Position // the oldest position that somebody waits behind it for
	members     *members      // nil without join and leave
	removed     uint64        // history up to here was removed in pos's epoch: nothing before it is answered from memory
	generation  int           // counts confirmations: a comparison that began before the last one proves nothing
}

type parked struct {
	epoch string
	pub   *bus.Publication
}

// reading is one coalesced history read for recoveries: everyone who joined it and is at or after from is answered by it.
type reading struct {
	from bus.Position
	done chan struct{}
	pubs []*bus.Publication
	top  bus.Position
	err  error
}

func (fo *follower) lastCheck() time.Time { return time.Unix(0, fo.checked.Load()) }

// currentLocked reports whether joins may be answered. The members must have been read once: whoever joins between an answer and the first
// reading would be taken for one who had always been there, and never be announced.
func (fo *follower) currentLocked() bool {
	return fo.isConfirmed && fo.compared && fo.known && !fo.behind && (fo.members == nil || fo.members.byClient != nil)
}

// wakeLocked lets waiting joins look again.
func (fo *follower) wakeLocked() {
	close(fo.changed)
	fo.changed = make(chan struct{})
}

func (fo *follower) confirm() {
	fo.mu.Lock()
	fo.isConfirmed, fo.compared = true, false
	fo.generation++
	fo.urgent = true
	fo.members.stale()
	fo.mu.Unlock()
	fo.f.queue.push(fo)
}

func (fo *follower) interrupt() {
	fo.mu.Lock()
	fo.isConfirmed, fo.compared = false, false
	fo.members.stale()
	fo.mu.Unlock()
}

// heard takes one live message.
func (fo *follower) heard(m bus.Message) {
	fo.mu.Lock()
	if fo.gone {
		fo.mu.Unlock()
		return
	}
	var compare bool
	switch m.Kind {
	case bus.KindPublication:
		compare = fo.publicationLocked(m.Epoch, &m.Publication)
	case bus.KindRemoved:
		compare = fo.historyRemovedLocked(m.Epoch, m.Publication.Offset)
	default:
		fo.memberLocked(m)
	}
	fo.urgent = fo.urgent || compare
	fo.mu.Unlock()
	if compare {
		fo.f.queue.push(fo)
	}
}

// publicationLocked delivers a publication, parks it, or drops it; it reports whether Redis must be asked.
func (fo *follower) publicationLocked(epoch string, p *bus.Publication) (compare bool) {
	switch {
	case !fo.known || fo.behind || epoch != fo.pos.Epoch:
		// Another epoch may be a new one or a late message of the old: Redis is the only judge.
		fo.parkLocked(epoch, p)
		return fo.known || fo.isConfirmed
	case p.Offset <= fo.pos.Offset:
		return false // heard twice: rotation, or already read from the stream
	case p.Offset == fo.pos.Offset+1:
		fo.deliverLocked(p)
		fo.checked.Store(time.Now().UnixNano()) // counts as a position check
		return false
	default:
		fo.behind = true
		fo.parkLocked(epoch, p)
		return true
	}
}

func (fo *follower) deliverLocked(p *bus.Publication) {
	fo.pos.Offset = p.Offset
	fo.ring.add(fo.f, p)
	fo.used.Store(time.Now().Unix())
	fo.f.sink.Publication(fo.name, fo.pos.Epoch, p)
}

func (fo *follower) parkLocked(epoch string, p *bus.Publication) {
	if fo.parkedSize+entryBytes(p) > parkedBytes {
		fo.overflowed = true
		return
	}
	fo.parkedSize += entryBytes(p)
	fo.parked = append(fo.parked, parked{epoch, p})
}

// replayLocked takes the parked publications again, now that the position is known; it reports whether another comparison is due.
func (fo *follower) replayLocked() (again bool) {
	waiting := fo.parked
	fo.parked, fo.parkedSize = nil, 0
	fo.behind = false
	for _, w := range waiting {
		if w.epoch != fo.pos.Epoch {
			again = true // older, or newer than Redis's word: only another one tells
			continue
		}
		again = fo.publicationLocked(w.epoch, w.pub) || again
	}
	again = again || fo.overflowed
	if fo.overflowed {
		fo.behind = true
	}
	fo.overflowed = false
	return again
}

// moveLocked adopts Redis's word when the node's position can't be continued.
func (fo *follower) moveLocked(top bus.Position) {
	if top.Epoch != fo.pos.Epoch {
		fo.removed = 0
	}
	fo.pos, fo.known = top, true
	fo.ring.clear(fo.f)
	fo.f.stats.announced.Add(1)
	fo.f.log.Warn("channel continuity lost: subscribers are told", "channel", fo.name, "epoch", top.Epoch, "offset", top.Offset)
	fo.f.sink.Lost(fo.name)
}

// retire ends the follower; it answers the bytes that its ring held.
func (fo *follower) retire() int64 {
	fo.mu.Lock()
	defer fo.mu.Unlock()
	fo.gone = true
	n := fo.ring.bytes
	fo.ring = ring{}
	fo.parked = nil
	return int64(n)
}

// join waits until the follower is current and enters under its lock; see Feed.Join.
func (fo *follower) join(ctx context.Context, since *bus.Position, enter func(Joined)) error {
	var (
		ahead bool     // the client was ahead, and the position has been compared since
		extra *reading // a history read that was done for us
		tries int
	)
	for {
		fo.mu.Lock()
		if !fo.currentLocked() {
			if err := fo.waitLocked(ctx); err != nil {
				return err
			}
			continue
		}
		if since != nil && since.Epoch == "" { // the offset alone is known: of whatever epoch there is
			since = &bus.Position{Epoch: fo.pos.Epoch, Offset: since.Offset}
		}
		switch {
		case since == nil:
			enter(Joined{Top: fo.pos})
			fo.mu.Unlock()
			return nil
		case since.Epoch != fo.pos.Epoch:
			return fo.unrecoveredLocked(enter)
		case since.Offset > fo.pos.Offset:
			// The client has been on a node that heard more: answer after this one has caught up, too.
			if ahead {
				return fo.unrecoveredLocked(enter)
			}
			ahead = true
			fo.compared, fo.urgent = false, true
			fo.mu.Unlock()
			fo.f.queue.push(fo)
			continue
		case since.Offset < fo.removed:
			return fo.unrecoveredLocked(enter)
		}
		fo.used.Store(time.Now().Unix())
		if missed, ok := fo.ring.since(since.Offset, fo.pos.Offset); ok {
			enter(Joined{Top: fo.pos, Missed: missed, Recovered: true})
			fo.mu.Unlock()
			if extra == nil {
				fo.f.stats.ring.Add(1)
			} else {
				fo.f.stats.redis.Add(1)
			}
			return nil
		}
		if missed, ok := fo.fromReadingLocked(extra, *since); ok {
			enter(Joined{Top: fo.pos, Missed: missed, Recovered: true})
			fo.mu.Unlock()
			fo.f.stats.redis.Add(1)
			return nil
		}
		if tries++; tries > 3 || (extra != nil && extra.err == bus.ErrUnrecoverable) {
			return fo.unrecoveredLocked(enter)
		}
		fo.mu.Unlock()
		var err error
		if extra, err = fo.read(ctx, *since); err != nil {
			return err
		}
	}
}

// waitLocked gives the lock up and waits for a change.
func (fo *follower) waitLocked(ctx context.Context) error {
	changed := fo.changed
	fo.mu.Unlock()
	select {
	case <-changed:
		return nil
	case <-ctx.Done():
		return bus.ErrUnavailable
	}
}

func (fo *follower) unrecoveredLocked(enter func(Joined)) error {
	enter(Joined{Top: fo.pos})
	fo.mu.Unlock()
	fo.f.stats.failed.Add(1)
	return nil
}

// fromReadingLocked joins a history read with the ring, which has gone on since.
func (fo *follower) fromReadingLocked(r *reading, since bus.Position) ([]*bus.Publication, bool) {
	if r == nil || r.err != nil || r.top.Epoch != fo.pos.Epoch || r.from.Offset > since.Offset {
		return nil, false
	}
	live, ok := fo.ring.since(min(r.top.Offset, fo.pos.Offset), fo.pos.Offset)
	if !ok {
		return nil, false
	}
	missed := make([]*bus.Publication, 0, len(r.pubs)+len(live))
	for _, p := range r.pubs {
		if p.Offset > since.Offset && p.Offset <= fo.pos.Offset {
			missed = append(missed, p)
		}
	}
	missed = append(missed, live...)
	if len(missed) == 0 || missed[0].Offset != since.Offset+1 || missed[len(missed)-1].Offset != fo.pos.Offset {
		return nil, false
	}
	return missed, true
}
