package bus

import (
	"context"
	"time"
)

// Subscriber follows channels with dedicated connections. Subscribe and Unsubscribe are safe for concurrent use.
type Subscriber struct{}

// NewSubscriber makes a Subscriber that reports to h. Nothing happens before Run.
func (b *Bus) NewSubscriber(h Handler) *Subscriber { panic("stub") }

// Run connects, subscribes, receives, probes and rotates until ctx ends, and returns after all its goroutines have.
func (s *Subscriber) Run(ctx context.Context) error { panic("stub") }

// Subscribe asks for a channel; it returns at once, Handler.Confirmed tells. Only the last of Subscribe and Unsubscribe counts.
// Calls are batched into few commands.
func (s *Subscriber) Subscribe(channel string) { panic("stub") }

// Unsubscribe gives a channel up; nothing is heard of it after the server's confirmation.
func (s *Subscriber) Unsubscribe(channel string) { panic("stub") }

// Health is what /readyz and the gauges tell about the subscriber connections.
type Health struct {
	Connected bool
	// ProbeAge is the age of the oldest shard's last probe that came back.
	ProbeAge time.Duration
	// Rebuilt counts connections that were rebuilt since the start.
	Rebuilt uint64
}

// Health may be called at any time.
func (s *Subscriber) Health() Health { panic("stub") }
