package bus

import (
	"context"
	"time"
)

// Publish publishes p. See Publication and Result.
func (b *Bus) Publish(ctx context.Context, p Publication) (Result, error) { panic("stub") }

// History reads a page of a channel's history and the channel's top. Reading a channel without a position creates one.
func (b *Bus) History(ctx context.Context, channel string, page Page) ([]Publication, Position, error) {
	panic("stub")
}

// Positions reads the tops of many channels in as few round trips as the partitions allow, and renews their meta. The result has the
// order of channels; an error of one channel is in errs at its index.
func (b *Bus) Positions(ctx context.Context, channels []string) (tops []Position, errs []error) {
	panic("stub")
}

// Since reads everything after pos, complete and in order, with the channel's top, or answers ErrUnrecoverable and the top:
// another epoch, trimmed or expired history, or more than limit.HistoryPage publications.
func (b *Bus) Since(ctx context.Context, channel string, pos Position) ([]Publication, Position, error) {
	panic("stub")
}

// RemoveHistory deletes a channel's stream. Its position stays.
func (b *Bus) RemoveHistory(ctx context.Context, channel string) error { panic("stub") }

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

// Member is one presence entry.
type Member struct {
	ClientInfo
}

// PresenceStats counts a channel's members.
type PresenceStats struct {
	Clients int
	Users   int
}

// Presence reads the members of a channel, by client id.
func (b *Bus) Presence(ctx context.Context, channel string) (map[string]ClientInfo, error) {
	panic("stub")
}

// PresenceStats counts the members of a channel.
func (b *Bus) PresenceStats(ctx context.Context, channel string) (PresenceStats, error) {
	panic("stub")
}

// NodeInfo is what a node tells the fleet with every heartbeat.
type NodeInfo struct {
	ID          string    `json:"id"`   // NODE_ID
	Boot        string    `json:"boot"` // lease generation
	Zone        string    `json:"zone,omitempty"`
	Version     string    `json:"version"`
	State       string    `json:"state"` // starting, ready, draining
	Connections int       `json:"connections"`
	Channels    int       `json:"channels"`
	Started     time.Time `json:"started"`
	Beat        time.Time `json:"beat"`
}

// Lease is a node's membership in the fleet: its heartbeat, its presence entries, and its part in removing those of dead nodes.
type Lease struct{}

// LeaseOptions of NewLease.
type LeaseOptions struct {
	// Info is asked before every heartbeat; ID, Boot and Beat are filled in by the lease.
	Node string
	Info func() NodeInfo
	// Members lists the presence entries that this node holds, to be added again under a new generation.
	Members func() map[string][]ClientInfo
}

// NewLease makes a lease; nothing happens before Run.
func (b *Bus) NewLease(o LeaseOptions) *Lease { panic("stub") }

// Run takes the lease, renews it, reaps dead ones, until ctx ends; then it gives the lease up and returns.
func (l *Lease) Run(ctx context.Context) error { panic("stub") }

// Boot is the current generation.
func (l *Lease) Boot() string { panic("stub") }

// Enter adds a presence entry; with join, whoever was not there before is announced on the channel. Entering twice joins once.
func (l *Lease) Enter(ctx context.Context, channel string, info ClientInfo, join bool) error {
	panic("stub")
}

// Leave removes a presence entry and, if it was there and leave is true, announces it.
func (l *Lease) Leave(ctx context.Context, channel, client string, leave bool) error { panic("stub") }

// Nodes lists the nodes whose lease is alive, oldest first.
func (b *Bus) Nodes(ctx context.Context) ([]NodeInfo, error) { panic("stub") }
