package feed

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"tideline/shared/bus"
	"tideline/shared/limit"
)

const (
	syncers   = 4   // goroutines that compare positions
	syncBatch = 128 // channels a comparison asks for at once
	// retryMin and retryMax bound the jittered wait before a comparison that failed is tried again.
	retryMin = 100 * time.Millisecond
	retryMax = 2 * time.Second
)

// queue holds the followers whose position is to be compared. Each is in it at most once and in the hands of at most one syncer: one
// that is pushed meanwhile comes again when done. Urgent ones go first.
type queue struct {
	mu     sync.Mutex
	urgent []*follower
	later  []*follower
	state  map[*follower]place
	wake   chan struct{}
}

type place uint8

const (
	inLater place = iota + 1
	inUrgent
	inHands
	inHandsAgain
)

func (q *queue) push(fo *follower) {
	fo.mu.Lock()
	urgent := fo.urgent
	fo.mu.Unlock()
	q.mu.Lock()
	defer q.mu.Unlock()
	q.pushLocked(fo, urgent)
}

func (q *queue) pushLocked(fo *follower, urgent bool) {
	switch at := q.state[fo]; {
	case at >= inHands:
		q.state[fo] = inHandsAgain
		return
	case at == inUrgent, at == inLater && !urgent:
		return
	case urgent: // if it stands in later too, pop passes over it there
		q.state[fo] = inUrgent
		q.urgent = append(q.urgent, fo)
	default:
		q.state[fo] = inLater
		q.later = append(q.later, fo)
	}
	q.signal()
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// pop hands out at most n followers; the caller gives each back with done.
func (q *queue) pop(n int) []*follower {
	q.mu.Lock()
	defer q.mu.Unlock()
	var batch []*follower
	take := func(from *[]*follower, here place) {
		for len(*from) > 0 && len(batch) < n {
			fo := (*from)[0]
			*from = (*from)[1:]
			if q.state[fo] == here {
				q.state[fo] = inHands
				batch = append(batch, fo)
			}
		}
	}
	take(&q.urgent, inUrgent)
	take(&q.later, inLater)
	if len(q.urgent)+len(q.later) > 0 {
		q.signal()
	}
	return batch
}

// done gives followers back; those that were pushed meanwhile are queued again, all of them with again.
func (q *queue) done(batch []*follower, again bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, fo := range batch {
		repeat := q.state[fo] == inHandsAgain || again
		delete(q.state, fo)
		if repeat {
			q.pushLocked(fo, true)
		}
	}
}

func (f *Feed) syncLoop(ctx context.Context) error {
	backoff := retryMin
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-f.queue.wake:
		}
		batch := f.queue.pop(syncBatch)
		if len(batch) == 0 {
			continue
		}
		again := f.compare(ctx, batch)
		settled, repeat := batch[:0:0], batch[:0:0]
		for _, fo := range batch {
			if again[fo] {
				repeat = append(repeat, fo)
			} else {
				settled = append(settled, fo)
			}
		}
		f.queue.done(settled, false)
		if len(repeat) == 0 {
			backoff = retryMin
			continue
		}
		wait := backoff/2 + rand.N(backoff/2)
		backoff = min(2*backoff, retryMax)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
		f.queue.done(repeat, true)
	}
}

// compare asks Redis for the positions of the followers and settles each; it answers those that must be tried again.
func (f *Feed) compare(ctx context.Context, batch []*follower) (again map[*follower]bool) {
	ctx, cancel := context.WithTimeout(ctx, limit.SubscribeConfirm)
	defer cancel()
	again = map[*follower]bool{}
	names := make([]string, len(batch))
	generations := make([]int, len(batch))
	for i, fo := range batch {
		names[i] = fo.name
		fo.mu.Lock()
		generations[i], fo.urgent = fo.generation, false
		fo.mu.Unlock()
	}
	f.stats.positions.Add(uint64(len(batch)))
	tops, errs := f.src.Tops(ctx, names)
	for i, fo := range batch {
		err := errs[i]
		if err == nil {
			var more bool
			if more, err = fo.settle(ctx, tops[i], generations[i]); more {
				again[fo] = true
			}
		}
		if err != nil {
			f.log.Debug("position not compared", "channel", fo.name, "error", err)
			again[fo] = true
		}
	}
	return again
}

// settle brings the follower to what Redis said: read was read after the follower's confirmation number generation.
func (fo *follower) settle(ctx context.Context, read bus.Top, generation int) (again bool, err error) {
	top := read.Position
	fo.mu.Lock()
	for fo.known && !fo.gone && top.Epoch == fo.pos.Epoch && top.Offset > fo.pos.Offset {
		from := fo.pos
		fo.mu.Unlock()
		fo.f.stats.history.Add(1)
		pubs, now, err := fo.f.src.Since(ctx, fo.name, from)
		if err != nil && !errors.Is(err, bus.ErrUnrecoverable) {
			return true, err
		}
		fo.mu.Lock()
		if fo.pos.Epoch != from.Epoch {
			break // cannot be: only one comparison of a follower is under way, and only it changes the epoch
		}
		if err != nil {
			if now.Epoch == fo.pos.Epoch && now.Offset <= fo.pos.Offset {
				break // live publications have closed the gap meanwhile
			}
			top = now
			fo.moveLocked(now)
			break
		}
		top = now
		repaired := false
		for i := range pubs {
			if pubs[i].Offset == fo.pos.Offset+1 {
				fo.deliverLocked(&pubs[i])
				repaired = true
			}
		}
		if repaired {
			fo.f.stats.repaired.Add(1)
		} else if top.Epoch == fo.pos.Epoch && top.Offset > fo.pos.Offset {
			fo.moveLocked(top) // a stream that answers without what it should hold
		}
	}
	defer fo.mu.Unlock()
	if fo.gone {
		return false, nil
	}
	switch {
	case !fo.known:
		fo.pos, fo.known = top, true
	case top.Epoch != fo.pos.Epoch:
		fo.moveLocked(top)
	}
	if read.Epoch == fo.pos.Epoch {
		fo.forgetLocked(read.Removed)
	}
	fo.checked.Store(time.Now().UnixNano())
	again = fo.replayLocked()
	if generation == fo.generation && fo.isConfirmed {
		fo.compared = true
	}
	if fo.currentLocked() {
		fo.wakeLocked()
	}
	if fo.members == nil || !fo.members.isStale {
		return again, nil
	}
	waiting := fo.members.byClient == nil
	err = fo.refreshMembersLocked(ctx)
	if waiting && fo.currentLocked() {
		fo.wakeLocked()
	}
	return again, err
}

// read reads the history after since for a recovery, together with everyone who waits for a part of it, within the node's budget.
// It answers a reading that covers since or one that shows since to be unrecoverable.
func (fo *follower) read(ctx context.Context, since bus.Position) (*reading, error) {
	for {
		fo.mu.Lock()
		r := fo.reading
		if r == nil {
			r = &reading{from: since, done: make(chan struct{})}
			if fo.wanted != nil && fo.wanted.Epoch == since.Epoch && fo.wanted.Offset < since.Offset {
				r.from = *fo.wanted
			}
			fo.reading, fo.wanted = r, nil
			fo.mu.Unlock()
			fo.fetch(ctx, r)
		} else {
			if fo.wanted == nil || fo.wanted.Epoch != since.Epoch || since.Offset < fo.wanted.Offset {
				fo.wanted = &since
			}
			fo.mu.Unlock()
			select {
			case <-ctx.Done():
				return nil, bus.ErrUnavailable
			case <-r.done:
			}
		}
		switch {
		case r.from.Epoch != since.Epoch:
		case r.err == nil && r.from.Offset <= since.Offset:
			return r, nil
		case r.err == bus.ErrUnrecoverable && r.from.Offset >= since.Offset:
			return r, nil
		}
		if ctx.Err() != nil {
			return nil, bus.ErrUnavailable
		}
		if r.err != nil && r.err != bus.ErrUnrecoverable {
			return nil, r.err
		}
	}
}

// fetch does one history read and puts what fits into the ring.
func (fo *follower) fetch(ctx context.Context, r *reading) {
	defer func() {
		fo.mu.Lock()
		fo.reading = nil
		if r.err == nil && !fo.gone && r.top.Epoch == fo.pos.Epoch {
			fo.ring.extend(fo.f, newerThan(r.pubs, fo.removed), fo.pos.Offset)
		}
		fo.mu.Unlock()
		close(r.done)
	}()
	// Others wait for this read too: it doesn't end with the client that happened to begin it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit.CommandBudget)
	defer cancel()
	if err := fo.f.reads.Wait(ctx); err != nil {
		r.err = bus.ErrUnavailable
		return
	}
	fo.f.stats.history.Add(1)
	pubs, top, err := fo.f.src.Since(ctx, fo.name, r.from)
	if errors.Is(err, bus.ErrUnrecoverable) {
		err = bus.ErrUnrecoverable
	}
	r.top, r.err = top, err
	r.pubs = make([]*bus.Publication, len(pubs))
	for i := range pubs {
		r.pubs[i] = &pubs[i]
	}
}
