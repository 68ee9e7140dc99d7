package canary

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"tideline/shared/bus"
	"tideline/shared/channel"
)

// lockName is the name of the lock of who publishes.
const lockName = "canary"

// message is a canary on the wire; docs/protocol.md has it. It is the cursor of the lock, too, so that whoever takes over goes on counting, and in time.
type message struct {
	Type string `json:"type"` // "canary"
	N    uint64 `json:"n"`    // counts one by one, over changes of who publishes
	Time int64  `json:"time"` // Unix milliseconds
	Node string `json:"node"` // who publishes
}

const messageType = "canary"

// compete tries to hold the lock, and publishes while it does, until ctx ends.
func (c *Canary) compete(ctx context.Context) {
	for ctx.Err() == nil {
		err := c.o.Bus.Hold(ctx, channel.Canary, lockName, c.o.Lock, c.publish)
		if ctx.Err() == nil && !errors.Is(err, bus.ErrHeld) {
			c.o.Log.Debug("canary not published from here", "error", err) // who doesn't hear it says so louder
		}
		pause(ctx, c.o.Retry/2+rand.N(c.o.Retry))
	}
}

// publish publishes a canary every interval, until ctx ends with the lock.
func (c *Canary) publish(ctx context.Context, l *bus.Lock) error {
	var last message
	if cursor := l.Cursor(); cursor != "" && json.Unmarshal([]byte(cursor), &last) != nil {
		last = message{} // written by a version to come
	}
	c.o.Log.Info("canary is published from here", "after", last.N)
	// By the clock of who published before, so never longer than an interval.
	next := time.Now().Add(max(0, min(time.Until(time.UnixMilli(last.Time).Add(c.o.Interval)), c.o.Interval)))
	for pause(ctx, time.Until(next)) {
		last = message{Type: messageType, N: last.N + 1, Time: time.Now().UnixMilli(), Node: c.o.NodeID}
		data, err := json.Marshal(last)
		if err != nil {
			return err
		}
		once, cancel := context.WithTimeout(ctx, c.o.Wait)
		_, err = c.o.Bus.Publish(once, bus.Publication{Channel: channel.Canary, Data: data, Time: last.Time, History: c.o.History, Fence: l.Fence(string(data))})
		cancel()
		if err != nil && !errors.Is(err, bus.ErrUnavailable) {
			return fmt.Errorf("canary %d: %w", last.N, err) // unavailable: the next one may come through, while the lock lasts
		}
		next = next.Add(c.o.Interval)
		if late := time.Now(); next.Before(late) {
			next = late.Add(c.o.Interval)
		}
	}
	return context.Cause(ctx)
}

// pause answers false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return ctx.Err() == nil
	}
}
