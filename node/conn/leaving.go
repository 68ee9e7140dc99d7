package conn

import (
	"context"
	"sync"
	"time"

	"tideline/shared/bus"
	"tideline/shared/limit"
)

// leavingMost bounds the presence entries that wait to be removed. What doesn't fit stays until this node's lease ends.
const leavingMost = 1 << 16

// leaving removes presence entries of subscriptions that have ended, off the readers' way, and keeps trying while Redis is away.
// Its size is bounded; so is its time, because a lease that Redis's absence has ended takes the entries with it.
type leaving struct {
	mu    sync.Mutex
	queue []leave
	wake  chan struct{}
}

type leave struct {
	channel, client string
	announce        bool
}

func (l *leaving) put(e leave) {
	l.mu.Lock()
	if len(l.queue) < leavingMost {
		l.queue = append(l.queue, e)
	}
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
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
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
		l.put(e)
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
