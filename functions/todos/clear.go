package todos

import (
	"context"
	"sync"

	"tideline/shared/todo"
)

// announceNow is how many of a request's deletions are announced before its answer; announceAtOnce how many of them at the same time.
const (
	announceNow    = 64
	announceAtOnce = 8
)

func (h *handler) announceAll(ctx context.Context, user string, events []todo.Event) {
	if len(events) > announceNow {
		events = events[:announceNow]
	}
	next := make(chan *todo.Event)
	var wg sync.WaitGroup
	for range min(announceAtOnce, len(events)) {
		wg.Go(func() {
			for e := range next {
				h.announce(ctx, user, e)
			}
		})
	}
	for i := range events {
		next <- &events[i]
	}
	close(next)
	wg.Wait()
}
