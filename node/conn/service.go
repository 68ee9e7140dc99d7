// Package conn speaks the Centrifuge client protocol with one client a socket: it upgrades, authenticates, checks permissions and limits, and
// turns commands into work for the hub, the feed and the bus.
//
// A connection costs one goroutine while it is idle, its reader. Commands run in a goroutine that exists while there are any. A client
// that sends more than is worked off is no longer read from; one that doesn't read is disconnected by the hub.
package conn

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"tideline/node/feed"
	"tideline/node/hands"
	"tideline/node/hub"
	"tideline/shared/bus"
	"tideline/shared/channel"
	"tideline/shared/limit"
	"tideline/shared/token"
	"tideline/shared/trace"
)

// Options of New. Zero durations and numbers take their limit.
type Options struct {
	NodeID, Version, Zone string
	Bus                   *bus.Bus
	Table                 *channel.Table
	Verifier              token.Verifier
	// AllowedOrigins are scheme://host[:port]; with none, only the request's own host is allowed.
	AllowedOrigins []string
	// TrustedHops is how many proxies in front append to X-Forwarded-For.
	TrustedHops int
	Metrics     prometheus.Registerer
	Log         *slog.Logger
	// Tracing, when not nil, records spans of clients' publications, and of those delivered here that came with a trace.
	Tracing trace.Provider

	PingInterval, PongTimeout, HandshakeTimeout, AnnounceWindow time.Duration
	// ExpiredGrace is how long a connection or subscription outlives its token, so that the client can refresh it.
	ExpiredGrace time.Duration
	// ConnectionsPerUser and ConnectionsPerIP are fleet-wide.
	ConnectionsPerUser, ConnectionsPerIP int
	// Limits of one connection, and of those of this node that have not connected yet; see package limit.
	MessageBytes, QueueBytes, ChannelsPerClient, CommandsPerSecond, SubscribesPerSecond, Unauthenticated int
	// Compression offers permessage-deflate: less traffic for more CPU and memory.
	Compression bool
	// ShedAge is how old a connection must be to be moved to another node.
	ShedAge time.Duration
	// Streams, when not nil, feeds channels from sources of its own while this node follows them.
	Streams Streams
	// Methods are rpc methods for operators, beside those of this package. What they are called with is the client's; an error that
	// is ErrBadRequest is answered with 107, any other with 100.
	Methods map[string]func(ctx context.Context, data []byte) (any, error)
	// CanaryToken lets one client of the node's own in, by the upgrade's Authorization header; empty lets none in. It is random and of this process alone:
	// the node holds no key to sign a token with.
	CanaryToken string
	// DrainOrdered is called when an operator asks for this node to be drained; nil refuses. It must not block.
	DrainOrdered func()
}

// ErrBadRequest is what one of Options.Methods wraps when its parameters make no sense.
var ErrBadRequest = errors.New("bad request")

// Streams is the part of stream.Streams that the service steers. All but Run are safe for concurrent use and don't block.
type Streams interface {
	// Follow tells whether this node follows a channel.
	Follow(channel string, on bool)
	// Check answers nil, or why there can't be a channel of that name.
	Check(channel string) error
	// Run works until ctx ends, and returns when everything that it started has ended.
	Run(ctx context.Context) error
}

// noStreams feeds nothing.
type noStreams struct{}

func (noStreams) Follow(string, bool)           {}
func (noStreams) Check(string) error            { return nil }
func (noStreams) Run(ctx context.Context) error { <-ctx.Done(); return nil }

// States of a node, as the fleet sees it.
const (
	stateReady    = "ready"
	stateDraining = "draining"
)

// Service holds the sockets of one node. It is safe for concurrent use.
type Service struct {
	o        Options
	log      *slog.Logger
	hub      *hub.Hub
	feed     *feed.Feed
	sub      *bus.Subscriber
	lease    *bus.Lease
	control  *bus.Control
	meter    *meter
	rpc      map[string]rpcMethod
	reads    chan struct{} // places of readsAtOnce
	greeting []byte        // the connect reply's data

	operators map[string]operatorMethod // what of rpc is for operators

	leaving   leaving
	hands     *hands.Hands[task]
	bodies    bodies
	strangers strangers

	mu       sync.Mutex
	clients  map[*client]struct{}
	sessions map[string]*client // HTTP streams
	buckets  [][]*client        // by the second of the ping interval at which they are pinged
	pending  int                // clients that have not connected yet
	users    map[string]int     // connections by user
	canaries int                // clients that are the node's own
	closed   bool               // no newcomers
	draining atomic.Bool
	readers  sync.WaitGroup
}

// Status is what the health endpoints tell.
type Status struct {
	Connections    int
	Channels       int
	RedisReachable bool
	Subscription   bus.Health
	PromotionProof bool
}

// fill puts the limits where nothing was given.
func (o *Options) fill() {
	o.PingInterval = cmp.Or(o.PingInterval, limit.PingInterval)
	o.PongTimeout = cmp.Or(o.PongTimeout, limit.PongTimeout)
	o.HandshakeTimeout = cmp.Or(o.HandshakeTimeout, limit.HandshakeTimeout)
	o.ConnectionsPerUser = cmp.Or(o.ConnectionsPerUser, limit.ConnectionsPerUser)
	o.ConnectionsPerIP = cmp.Or(o.ConnectionsPerIP, limit.ConnectionsPerIP)
	o.ShedAge = cmp.Or(o.ShedAge, limit.ShedAge)
	o.ExpiredGrace = cmp.Or(o.ExpiredGrace, expiredGrace)
	o.MessageBytes = cmp.Or(o.MessageBytes, limit.MessageBytes)
	o.QueueBytes = cmp.Or(o.QueueBytes, limit.QueueBytes)
	o.ChannelsPerClient = cmp.Or(o.ChannelsPerClient, limit.ChannelsPerClient)
	o.CommandsPerSecond = cmp.Or(o.CommandsPerSecond, limit.CommandsPerSecond)
	o.SubscribesPerSecond = cmp.Or(o.SubscribesPerSecond, limit.SubscribesPerSecond)
	o.Unauthenticated = cmp.Or(o.Unauthenticated, limit.Unauthenticated)
	if o.Streams == nil {
		o.Streams = noStreams{}
	}
}

// New makes a service; it refuses connections until Run.
func New(o Options) (*Service, error) {
	if o.Bus == nil || o.Table == nil || o.Verifier == nil || o.NodeID == "" {
		return nil, errors.New("conn: Bus, Table, Verifier and NodeID are required")
	}
	o.fill()
	if o.PongTimeout >= o.PingInterval {
		return nil, fmt.Errorf("conn: pong timeout %v must be under the ping interval %v", o.PongTimeout, o.PingInterval)
	}
	s := &Service{o: o, log: o.Log, clients: map[*client]struct{}{}, users: map[string]int{}, sessions: map[string]*client{}, hands: hands.New(task.run), closed: true, reads: make(chan struct{}, readsAtOnce),
		buckets: make([][]*client, max(4, int(o.PingInterval/tick)))}
	s.operators = s.operatorMethods()
	s.rpc = s.methods()
	greeting, err := json.Marshal(struct {
		Node string `json:"node"`
		Zone string `json:"zone,omitempty"`
	}{o.NodeID, o.Zone})
	if err != nil {
		return nil, err
	}
	s.greeting = greeting
	s.meter = newMeter(o.Metrics, s)
	s.hub = hub.New(hub.Options{Encoder: encoder{o.Table}, Meter: s.meter, Window: o.AnnounceWindow, QueueBytes: o.QueueBytes, Trace: s.tracer()})
	announced := func(name string) bool {
		ns, err := o.Table.Lookup(name)
		return err == nil && ns.JoinLeave
	}
	s.feed = feed.New(feed.Options{Source: o.Bus, Sink: s.hub, Log: o.Log, JoinLeave: announced, Followed: o.Streams.Follow})
	s.sub = o.Bus.NewSubscriber(s.feed)
	s.feed.Attach(s.sub)
	s.lease = o.Bus.NewLease(bus.LeaseOptions{Node: o.NodeID, Info: s.nodeInfo, Members: s.members, Announces: announced})
	s.control = o.Bus.NewControl(s.lease, bus.ControlOptions{Answer: s.answer, Revoked: s.revoked, Asked: s.fromNode})
	s.bodies.most = limit.BodiesBytes
	s.leaving.wake = make(chan struct{}, 1)
	return s, nil
}

// Run works until ctx ends, then closes what connections are left (3001), gives the lease up and returns when all has ended.
func (s *Service) Run(ctx context.Context) error {
	s.mu.Lock()
	s.closed = false
	s.mu.Unlock()
	// The clients go first: their goodbyes, their leaves and the lease still need what is below.
	below, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, below := errgroup.WithContext(below)
	g.Go(func() error { return s.hub.Run(below) })
	g.Go(func() error { return s.sub.Run(below) })
	g.Go(func() error { return s.feed.Run(below) })
	g.Go(func() error { return s.control.Run(below) })
	g.Go(func() error { return s.o.Streams.Run(below) })
	g.Go(func() error { return s.pingLoop(below) })
	g.Go(func() error { return s.shedLoop(below) })
	leave, stopLeave := context.WithCancel(below)
	g.Go(func() error { s.leaving.run(leave, s.lease); return nil })
	leaseCtx, stopLease := context.WithCancel(below)
	leaseDone := make(chan struct{})
	g.Go(func() error { defer close(leaseDone); return s.lease.Run(leaseCtx) })

	select {
	case <-ctx.Done():
	case <-below.Done(): // one of them has failed
	}
	s.mu.Lock()
	s.closed = true
	left := s.listLocked()
	s.mu.Unlock()
	for _, c := range left {
		c.close(byeShutdown)
	}
	s.readers.Wait()
	s.hands.End()
	stopLease()
	<-leaseDone // it removes this node's members, with their leaves, those still in the queue among them
	stopLeave()
	stop()
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("conn: %w", err)
	}
	return nil
}

// Drain refuses newcomers and closes all clients with 3001, in random order and evenly over the window. It returns when the last one has gone,
// for which each has the time that a goodbye may take.
func (s *Service) Drain(ctx context.Context, window time.Duration) error {
	s.draining.Store(true)
	s.mu.Lock()
	s.closed = true
	left := s.listLocked()
	s.mu.Unlock()
	rand.Shuffle(len(left), func(i, j int) { left[i], left[j] = left[j], left[i] })
	start := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for i, c := range left {
		due := start.Add(window * time.Duration(i) / time.Duration(len(left)))
		if wait := time.Until(due); wait > 0 {
			timer.Reset(wait)
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-timer.C:
			}
		}
		c.close(byeShutdown)
	}
	deadline := time.Now().Add(goneWait)
	for timer.Reset(goneEvery); s.count() > 0; timer.Reset(goneEvery) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case now := <-timer.C:
			if now.After(deadline) {
				return fmt.Errorf("%d connections have not gone within %v", s.count(), goneWait)
			}
		}
	}
	return nil
}

// Status asks Redis, for at most a second.
func (s *Service) Status(ctx context.Context) Status {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return Status{Connections: s.count(), Channels: s.feed.Stats().Channels, RedisReachable: s.o.Bus.Ping(ctx) == nil,
		Subscription: s.sub.Health(), PromotionProof: s.o.Bus.PromotionProof()}
}

func (s *Service) nodeInfo() bus.NodeInfo {
	state := stateReady
	if s.draining.Load() {
		state = stateDraining
	}
	s.mu.Lock()
	users := len(s.users)
	s.mu.Unlock()
	return bus.NodeInfo{Zone: s.o.Zone, Version: s.o.Version, State: state, Connections: s.count(), Channels: s.feed.Stats().Channels,
		Users: users, Subscriptions: s.hub.Subscriptions()}
}

// members lists the presence entries of this node's clients, for a lease that begins anew.
func (s *Service) members() map[string][]bus.ClientInfo {
	s.mu.Lock()
	list := s.listLocked()
	s.mu.Unlock()
	all := map[string][]bus.ClientInfo{}
	for _, c := range list {
		for _, name := range c.present() {
			all[name] = append(all[name], c.infoOn(name))
		}
	}
	return all
}

// recoveryBytes is how much one reply, or all recoveries that are on their way to one client, may carry: half of its queue
// (limit.RecoveryBytes).
func (s *Service) recoveryBytes() int { return s.o.QueueBytes / 2 }

// refuses reports whether a token has been revoked.
func (s *Service) refuses(c token.Claims) bool {
	return s.control.Refuses(c.User, c.Session, c.ID, c.IssuedAt)
}
