// Package hands lends goroutines whose stacks have grown already to connections that have something to do, so that one at rest needs little.
package hands

import (
	"sync"
	"time"
)

// idleTime is how long a goroutine waits for another task before it ends.
const idleTime = 2 * time.Second

// Hands are goroutines that work on tasks. One that is done takes the next: its stack has grown to what that needs, which otherwise is copied
// two or three times for each message of a mass reconnect. There are as many as tasks at once, and for a moment after: whoever gives tasks bounds them.
type Hands[T any] struct {
	work    func(T)
	tasks   chan T // taken by hands that are idle
	over    chan struct{}
	running sync.WaitGroup
}

// New makes hands that call work for each task.
func New[T any](work func(T)) *Hands[T] {
	return &Hands[T]{work: work, tasks: make(chan T), over: make(chan struct{})}
}

// Do gives a task to a hand. It doesn't block.
func (h *Hands[T]) Do(t T) {
	select {
	case h.tasks <- t:
	default:
		h.running.Go(func() { h.run(t) })
	}
}

func (h *Hands[T]) run(t T) {
	idle := time.NewTimer(idleTime)
	defer idle.Stop()
	for {
		h.work(t)
		var none T
		t = none
		idle.Reset(idleTime)
		select {
		case t = <-h.tasks:
		case <-idle.C:
			return
		case <-h.over:
			return
		}
	}
}

// End waits for all tasks that were given and ends the hands. Nothing may be given any more, and it is called once.
func (h *Hands[T]) End() {
	close(h.over)
	h.running.Wait()
}
