package hub

import (
	"container/heap"
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

type kind uint8

const (
	publication kind = iota
	member
	lost
	enter
	exit
	settle
)

// item is one entry of a worker's inbox.
type item struct {
	kind    kind
	channel string
	sub     *Subscription
	epoch   string
	offset  uint64
	time    int64 // of the publication, Unix milliseconds
	frames  [Formats][]byte
	reply   func() []byte
	traced  *traced // of a publication, or nil
}

// worker owns the subscriptions of the connections that are assigned to it. Everything below run belongs to its goroutine.
type worker struct {
	h  *Hub
	at int

	mu    sync.Mutex
	inbox []item
	bytes int                 // of the inbox's frames
	spilt map[string]struct{} // channels of which items did not fit into the inbox
	wake  chan struct{}

	channels map[string]*audience
	schedule schedule
	due      announcements
}

func newWorker(h *Hub) *worker {
	return &worker{h: h, at: len(h.workers), wake: make(chan struct{}, 1), channels: map[string]*audience{}, schedule: schedule{cost: costFirst, attempt: newAttempt()}}
}

// itemBytes is what an item is counted as beside its frames, roughly.
const itemBytes = 256

func (it *item) size() int {
	n := itemBytes
	for _, f := range it.frames {
		n += len(f)
	}
	return n
}

// put appends an item. One of a publication or a member that doesn't fit is dropped; whoever should have had it is told by the worker
// when it comes to the inbox's end. The other kinds don't carry data and are few.
func (w *worker) put(it item) {
	n := it.size()
	w.mu.Lock()
	first := len(w.inbox) == 0 && len(w.spilt) == 0
	if (it.kind == publication || it.kind == member) && w.bytes+n > w.h.inboxBytes {
		if w.spilt == nil {
			w.spilt = map[string]struct{}{}
		}
		w.spilt[it.channel] = struct{}{}
		w.h.spilt.Add(1)
		defer it.traced.done(0)
	} else {
		w.inbox = append(w.inbox, it)
		w.bytes += n
	}
	w.mu.Unlock()
	if first {
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

func (w *worker) run(ctx context.Context) {
	var batch []item
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		if at := w.alarm(); !at.IsZero() {
			timer.Reset(time.Until(at))
		}
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		case <-timer.C:
		}
		for more := true; more && ctx.Err() == nil; {
			now := time.Now()
			batch, more = w.round(batch, now)
			w.announce(now)
			more = w.flush() || more
		}
	}
}

// alarm is when the worker has something to do without being given anything; zero is never.
func (w *worker) alarm() (at time.Time) {
	at = w.schedule.till
	if len(w.due) > 0 && (at.IsZero() || w.due[0].at.Before(at)) {
		at = w.due[0].at
	}
	return at
}

// round takes what is in the inbox and writes what is urgent of it; it answers false when there was nothing. spare is reused.
func (w *worker) round(spare []item, now time.Time) (batch []item, some bool) {
	w.mu.Lock()
	batch, w.inbox = w.inbox, spare[:0]
	spilt := w.spilt
	w.bytes, w.spilt = 0, nil
	w.mu.Unlock()
	if len(batch) == 0 && len(spilt) == 0 {
		return batch, false
	}
	for i := range batch {
		w.take(&batch[i], now)
	}
	for channel := range spilt {
		w.take(&item{kind: lost, channel: channel}, now)
	}
	w.schedule.flushUrgent()
	w.report(&w.schedule.urgent)
	clear(batch)
	if cap(batch) > 4096 {
		batch = nil // a burst's inbox is not kept
	}
	return batch, true
}

// flush writes to a slice of the connections that don't need to be written to in this round; it answers whether it has more to do now.
func (w *worker) flush() (more bool) {
	s := &w.schedule
	more = s.flushWide(time.Now())
	if s.next == len(s.waves.conns) {
		w.report(&s.waves)
	}
	if len(s.wide.conns) == 0 {
		w.report(&s.wide) // those connections had something urgent
	}
	return more
}

func (w *worker) take(it *item, now time.Time) {
	switch it.kind {
	case publication:
		w.publish(it, now)
	case member:
		if a := w.channels[it.channel]; a != nil {
			for _, s := range a.subs {
				if s.wishes.Members && !s.lost {
					w.queue(s.conn, it.frames[s.conn.format], a.wide())
				}
			}
		}
	case lost:
		if a := w.channels[it.channel]; a != nil {
			for _, s := range a.subs {
				w.lose(s)
			}
		}
	case settle:
		it.reply()
	case enter:
		w.enter(it)
	case exit:
		w.exit(it.sub)
		if it.reply != nil {
			w.queue(it.sub.conn, it.reply(), false)
		}
	}
}

// publish queues a publication for the channel's subscribers.
func (w *worker) publish(it *item, now time.Time) {
	a := w.channels[it.channel]
	if a == nil {
		it.traced.done(0)
		return
	}
	wide := a.wide()
	if wide {
		w.schedule.pace(a, now)
	}
	n := 0
	for _, s := range a.subs {
		if w.deliver(s, it, wide) {
			n++
		}
	}
	if n == 0 || w.h.meter == nil {
		it.traced.done(n)
		return
	}
	to := &w.schedule.urgent
	if wide {
		to = &w.schedule.wide
	}
	to.tally = append(to.tally, tally{it.channel, n, it.time, it.traced})
}

// deliver queues a publication if it is the subscription's next one. A connection may be ahead of the feed, when it came from a
// node that had heard more; what it had already is not repeated.
func (w *worker) deliver(s *Subscription, it *item, wide bool) bool {
	if s.lost {
		return false
	}
	if s.epoch != it.epoch || it.offset > s.last+1 {
		w.lose(s) // the feed is contiguous: this can't be, and must not be a silent hole if it is
		return false
	}
	if it.offset <= s.last {
		return false
	}
	frame := it.frames[s.conn.format]
	if frame == nil {
		s.lost = true
		s.conn.owner.Unfit(s)
		return false
	}
	if s.wishes.Newest && s.conn.out.waiting() > w.h.queueBytes/2 {
		w.lose(s)
		return false
	}
	s.last = it.offset
	s.sent.Store(it.offset)
	w.queue(s.conn, frame, wide)
	return true
}

func (w *worker) enter(it *item) {
	s := it.sub
	a := w.channels[s.channel]
	if a == nil {
		a = &audience{}
		w.channels[s.channel] = a
	}
	s.epoch, s.last, s.index = it.epoch, it.offset, len(a.subs)
	s.sent.Store(it.offset)
	a.subs = append(a.subs, s)
	if it.reply != nil {
		w.queue(s.conn, it.reply(), false)
	}
}

func (w *worker) exit(s *Subscription) {
	if s.index < 0 {
		return
	}
	a := w.channels[s.channel]
	last := len(a.subs) - 1
	moved := a.subs[last]
	a.subs[s.index] = moved
	moved.index = s.index
	a.subs[last] = nil
	a.subs = a.subs[:last]
	if last == 0 {
		delete(w.channels, s.channel)
	}
	s.index = -1
}

// queue gives a connection a frame, to be written in this round or, of a wide channel's, when the schedule says so.
func (w *worker) queue(c *Conn, frame []byte, wide bool) {
	if frame == nil {
		return
	}
	c.out.queue(frame)
	w.schedule.mark(c, wide)
}

// lose stops a subscription and plans its announcement at a random moment of the window: everybody resubscribing, and the
// application refetching, at once would be a stampede.
func (w *worker) lose(s *Subscription) {
	if s.lost {
		return
	}
	s.lost = true
	heap.Push(&w.due, announcement{time.Now().Add(rand.N(w.h.window)), s})
}

func (w *worker) announce(now time.Time) {
	for len(w.due) > 0 && !w.due[0].at.After(now) {
		s := heap.Pop(&w.due).(announcement).sub
		if s.index >= 0 { // still subscribed
			s.conn.owner.Lost(s)
		}
	}
}

// report tells the meter what was delivered and how long it took.
func (w *worker) report(done *wave) {
	if len(done.tally) == 0 {
		return
	}
	now := time.Now()
	for _, t := range done.tally {
		w.h.meter.Delivered(t.channel, t.n, now.Sub(time.UnixMilli(t.published)))
		t.traced.done(t.n)
	}
	clear(done.tally)
	done.tally = done.tally[:0]
}

type announcement struct {
	at  time.Time
	sub *Subscription
}

// announcements is a heap by time.
type announcements []announcement

func (a announcements) Len() int           { return len(a) }
func (a announcements) Less(i, j int) bool { return a[i].at.Before(a[j].at) }
func (a announcements) Swap(i, j int)      { a[i], a[j] = a[j], a[i] }
func (a *announcements) Push(x any)        { *a = append(*a, x.(announcement)) }
func (a *announcements) Pop() any {
	old := *a
	x := old[len(old)-1]
	old[len(old)-1] = announcement{}
	*a = old[:len(old)-1]
	return x
}
