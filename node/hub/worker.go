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

	channels map[string]*[]*Subscription
	dirty    []*Conn
	due      announcements
}

func newWorker(h *Hub) *worker {
	return &worker{h: h, at: len(h.workers), wake: make(chan struct{}, 1), channels: map[string]*[]*Subscription{}}
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
		if len(w.due) > 0 {
			timer.Reset(time.Until(w.due[0].at))
		}
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		case <-timer.C:
			w.announce(time.Now())
		}
		w.mu.Lock()
		batch, w.inbox = w.inbox, batch[:0]
		spilt := w.spilt
		w.bytes, w.spilt = 0, nil
		w.mu.Unlock()
		for i := range batch {
			w.take(&batch[i])
		}
		for channel := range spilt {
			w.take(&item{kind: lost, channel: channel})
		}
		for i, c := range w.dirty {
			c.dirty = false
			c.out.flush()
			w.dirty[i] = nil
		}
		w.dirty = w.dirty[:0]
		w.measure(batch)
		clear(batch)
		if cap(batch) > 4096 {
			batch = nil // a burst's inbox is not kept
		}
	}
}

func (w *worker) take(it *item) {
	switch it.kind {
	case publication:
		n := 0
		if list := w.channels[it.channel]; list != nil {
			for _, s := range *list {
				if w.deliver(s, it) {
					n++
				}
			}
		}
		it.offset = uint64(n) // for measure: the position has served its purpose
	case member:
		if list := w.channels[it.channel]; list != nil {
			for _, s := range *list {
				if s.wishes.Members && !s.lost {
					w.queue(s.conn, it.frames[s.conn.format])
				}
			}
		}
	case lost:
		if list := w.channels[it.channel]; list != nil {
			for _, s := range *list {
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
			w.queue(it.sub.conn, it.reply())
		}
	}
}

// deliver queues a publication if it is the subscription's next one. A connection may be ahead of the feed, when it came from a
// node that had heard more; what it had already is not repeated.
func (w *worker) deliver(s *Subscription, it *item) bool {
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
	w.queue(s.conn, frame)
	return true
}

func (w *worker) enter(it *item) {
	s := it.sub
	list := w.channels[s.channel]
	if list == nil {
		list = new([]*Subscription)
		w.channels[s.channel] = list
	}
	s.epoch, s.last, s.index = it.epoch, it.offset, len(*list)
	s.sent.Store(it.offset)
	*list = append(*list, s)
	if it.reply != nil {
		w.queue(s.conn, it.reply())
	}
}

func (w *worker) exit(s *Subscription) {
	if s.index < 0 {
		return
	}
	list := w.channels[s.channel]
	last := len(*list) - 1
	moved := (*list)[last]
	(*list)[s.index] = moved
	moved.index = s.index
	(*list)[last] = nil
	*list = (*list)[:last]
	if last == 0 {
		delete(w.channels, s.channel)
	}
	s.index = -1
}

func (w *worker) queue(c *Conn, frame []byte) {
	if frame == nil {
		return
	}
	c.out.queue(frame)
	if !c.dirty {
		c.dirty = true
		w.dirty = append(w.dirty, c)
	}
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

// measure reports, after the flush, what was delivered and how long it took.
func (w *worker) measure(batch []item) {
	if w.h.meter == nil {
		return
	}
	now := time.Now()
	for i := range batch {
		if it := &batch[i]; it.kind == publication && it.offset > 0 {
			w.h.meter.Delivered(it.channel, int(it.offset), now.Sub(time.UnixMilli(it.time)))
		}
	}
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
