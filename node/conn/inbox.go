package conn

import (
	"context"
	"sync"
	"time"

	"tideline/shared/limit"
)

const (
	// inboxFrames and inboxMessages (of the longest) bound what a client has sent and the node has not worked off; past them the client is
	// not read from.
	inboxFrames   = limit.CommandsBurst
	inboxMessages = 4
	// ordersMost bounds the server's own orders that wait among the client's frames. Past it the client is told to reconnect.
	ordersMost = 256
)

// inFrame is one message as it came, with its time: Redis work for its commands has limit.CommandBudget from then. Or it is an order
// of the server's, which runs in its turn, between commands.
type inFrame struct {
	data  []byte
	at    time.Time
	order func(context.Context)
}

// settle waits until the commands that have been read are done: what was sent before a close counts. Each has its deadline.
func (c *client) settle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.working && c.goodbye == nil {
		c.room.Wait()
	}
}

// affords takes n from the client's budget of commands, or ends the connection.
func (c *client) affords(n int) bool {
	if c.budget.take(n, time.Now()) {
		return true
	}
	c.close(byeTooManyRequests)
	return false
}

// accept puts a frame into the inbox, or handles it when it is only a pong.
func (c *client) accept(data []byte) {
	if c.uni() {
		c.hear(data)
		return
	}
	form := &formats[c.format]
	if form.pong(data) {
		if !c.pong() {
			c.affords(1) // nobody asked
		}
		return
	}
	if !c.affords(form.count(data)) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.goodbye == nil && len(c.inbox) > 0 && (len(c.inbox) >= inboxFrames || c.inboxSize+len(data) > inboxMessages*c.s.o.MessageBytes) {
		c.room.Wait()
	}
	c.inboxSize += len(data)
	c.putLocked(inFrame{data: data, at: time.Now()})
}

// order has something done in the client's turn: after the commands that have come before it, subscribes included, and not beside others.
// It answers false when the client has said goodbye; do may also never run, when it does so meanwhile.
func (c *client) order(do func(context.Context)) bool {
	c.mu.Lock()
	if c.orders >= ordersMost {
		c.mu.Unlock()
		c.close(byeForceReconnect)
		return false
	}
	defer c.mu.Unlock()
	c.orders++
	return c.putLocked(inFrame{order: do, at: time.Now()})
}

// ask is order, with its result. False, too, when the context or the connection ends first.
func (c *client) ask(ctx context.Context, do func(context.Context) bool) bool {
	done := make(chan bool, 1)
	if !c.order(func(ctx context.Context) { done <- do(ctx) }) {
		return false
	}
	select {
	case result := <-done:
		return result
	case <-c.ctx.Done():
		return false
	case <-ctx.Done():
		return false
	}
}

func (c *client) putLocked(f inFrame) bool {
	if c.goodbye != nil {
		return false
	}
	c.inbox = append(c.inbox, f)
	if !c.working {
		c.working = true
		c.worker.Add(1)
		c.s.hands.Do(task{c, false})
	}
	return true
}

// more reports whether a frame is waiting.
func (c *client) more() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.inbox) > 0
}

// gone reports whether the connection has ended or is about to.
func (c *client) gone() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.goodbye != nil
}

// next takes a frame out of the inbox. When there is none, and the subscribes that are under way have ended too, the working
// goroutine ends.
func (c *client) next(running *sync.WaitGroup) (inFrame, bool) {
	for idle := false; ; idle = true {
		c.mu.Lock()
		if c.goodbye != nil || len(c.inbox) == 0 && idle {
			c.working, c.inbox, c.inboxSize, c.orders = false, nil, 0, 0
			c.room.Broadcast()
			c.mu.Unlock()
			return inFrame{}, false
		}
		if len(c.inbox) > 0 {
			f := c.inbox[0]
			c.inbox = c.inbox[1:]
			c.inboxSize -= len(f.data)
			if f.order != nil {
				c.orders--
			}
			c.room.Broadcast()
			c.mu.Unlock()
			return f, true
		}
		c.mu.Unlock()
		running.Wait()
	}
}
