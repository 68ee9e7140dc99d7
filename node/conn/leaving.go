package conn

import (
	"context"
	"fmt"
	"sync"
	"time"

	"tideline/shared/bus"
	"tideline/shared/limit"
)

// leavingMost bounds the presence entries that wait to be removed. What doesn't fit stays until this node's lease ends.
const leavingMost = 1 << 16

// leaving removes presence entries of subscriptions that have ended, off the readers' way, and keeps trying while Redis is away.
// Its size is bounded; so is its time, because a lease that Redis's absence has ended takes the entries with it. Who comes back to a channel waits until
// it has left: a removal that came late would take the new entry.
type leaving struct {
	mu      sync.Mutex
	queue   []leave
	pending map[member]int           // removals that are queued or under way
	waiting map[member]chan struct{} // closed when there is none any more
	wake    chan struct{}
}

type member struct{ channel, client string }

type leave struct {
	member
	announce bool
}

func (l *leaving) put(e leave) {
	l.mu.Lock()
	if len(l.queue) < leavingMost {
		l.queue = append(l.queue, e)
		if l.pending == nil {
			l.pending = map[member]int{}
		}
		l.pending[e.member]++
	}
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// done ends what put has begun: the entry is removed, or is tried again by another put.
func (l *leaving) done(m member) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pending[m]--; l.pending[m] > 0 {
		return
	}
	delete(l.pending, m)
	if w := l.waiting[m]; w != nil {
		close(w)
		delete(l.waiting, m)
	}
}

// wait returns when no removal of the entry is queued or under way, or with ctx.
func (l *leaving) wait(ctx context.Context, m member) error {
	l.mu.Lock()
	if l.pending[m] == 0 {
		l.mu.Unlock()
		return nil
	}
	w := l.waiting[m]
	if w == nil {
		w = make(chan struct{})
		if l.waiting == nil {
			l.waiting = map[member]chan struct{}{}
		}
		l.waiting[m] = w
	}
	l.mu.Unlock()
	select {
	case <-w:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the entry before is not removed yet: %w", bus.ErrUnavailable)
	}
}

// leaveWorkers is how many removals are under way at once.
const leaveWorkers = 8

func (l *leaving) run(ctx context.Context, lease *bus.Lease) {
	var wg sync.WaitGroup
	for range leaveWorkers {
		wg.Go(func() { l.work(ctx, lease) })
	}
	wg.Wait()
}

func (l *leaving) work(ctx context.Context, lease *bus.Lease) {
	for {
		e, ok := l.take()
		if !ok {
			select {
			case <-ctx.Done():
				return
			case <-l.wake:
				continue
			}
		}
		once, cancel := context.WithTimeout(ctx, limit.CommandBudget)
		err := lease.Leave(once, e.channel, e.client, e.announce)
		cancel()
		if err == nil {
			l.done(e.member)
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
		l.put(e)
		l.done(e.member)
	}
}

func (l *leaving) take() (leave, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queue) == 0 {
		l.queue = nil
		return leave{}, false
	}
	e := l.queue[0]
	l.queue = l.queue[1:]
	if len(l.queue) > 0 { // pass the wake on
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
	return e, true
}
