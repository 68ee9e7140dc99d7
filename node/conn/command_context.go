package conn

import (
	"context"
	"sync"
	"time"
)

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
