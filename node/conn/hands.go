package conn

import (
	"context"
	"sync"
	"time"
)

// handIdle is how long a goroutine waits for another client's commands before it ends.
const handIdle = 2 * time.Second

// hands are the goroutines that read what clients have sent and run their commands. One that is done takes the next client's task: its stack
// has grown to what that needs, which otherwise is copied two or three times for each message of a mass reconnect. There are as many as
// clients with something to do, and for a moment after.
type hands struct {
	tasks   chan task // taken by hands that are idle
	over    chan struct{}
	running sync.WaitGroup
}

// task is reading a client's messages, or working its inbox off.
type task struct {
	c    *client
	read bool
}

func newHands() *hands { return &hands{tasks: make(chan task), over: make(chan struct{})} }

// do gives a task to a hand.
func (h *hands) do(t task) {
	select {
	case h.tasks <- t:
	default:
		h.running.Go(func() { h.run(t) })
	}
}

func (h *hands) run(t task) {
	idle := time.NewTimer(handIdle)
	defer idle.Stop()
	for {
		if t.read {
			t.c.readOn()
		} else {
			t.c.work()
			t.c.worker.Done()
		}
		t = task{}
		idle.Reset(handIdle)
		select {
		case t = <-h.tasks:
		case <-idle.C:
			return
		case <-h.over:
			return
		}
	}
}

// end waits for all hands. There are no clients any more.
func (h *hands) end() {
	close(h.over)
	h.running.Wait()
}

// commandContext ends at its deadline or with its parent. What is needed for that is made when somebody waits for it: most commands
// are done before anybody does.
type commandContext struct {
	parent   context.Context
	deadline time.Time

	mu     sync.Mutex
	ended  bool
	made   context.Context
	cancel context.CancelFunc
}

func (c *commandContext) Deadline() (time.Time, bool) { return c.deadline, true }

func (c *commandContext) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.made == nil {
		c.made, c.cancel = context.WithDeadline(c.parent, c.deadline)
		if c.ended {
			c.cancel()
		}
	}
	return c.made.Done()
}

func (c *commandContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.made != nil:
		return c.made.Err()
	case c.ended:
		return context.Canceled
	case c.parent.Err() != nil:
		return c.parent.Err()
	case !time.Now().Before(c.deadline):
		return context.DeadlineExceeded
	}
	return nil
}

// Value lets package context find what was made, so that contexts made of this one need no goroutine.
func (c *commandContext) Value(key any) any {
	c.mu.Lock()
	made := c.made
	c.mu.Unlock()
	if made == nil {
		return c.parent.Value(key)
	}
	return made.Value(key)
}

// end releases what was made.
func (c *commandContext) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	if c.cancel != nil {
		c.cancel()
	}
}
