// Package limit holds every number that two parts of Tideline must agree on, with its unit and the number that it must stay under.
//
// A number that only one package cares about stays in that package. The inequalities between the numbers are held by
// TestInequalities. Nothing here is read from the environment: a setting that overrides one of these names it as its default.
package limit

import "time"

// Channels.
const (
	// ChannelBytes is the longest channel name, in bytes. Error 107 past it.
	ChannelBytes = 255
	// Partitions is the number of hash-tagged partitions that channels map to. It can't change in a deployment's life.
	Partitions = 64
)

// Publications.
const (
	// DataBytes is the most data one publication may carry, in bytes, by whichever door it comes.
	DataBytes = 64 << 10
	// PublicationIDBytes is the longest idempotency id and the longest version key.
	PublicationIDBytes = 128
	// TagsBytes is the most that tags may take, keys and values added up.
	TagsBytes = 1 << 10
	// OrderBytes is the longest order from one node to the others, as JSON: what is sent to a client beside its channels, say. It travels in
	// one publication, in base64: OrderBytes*4/3 < DataBytes.
	OrderBytes = 32 << 10
)

// Memory of Redis. A stream record or a queue message older than OutboxRecordAge is dropped by its event source, so that the
// id that it would publish under is still remembered: OutboxRecordAge < IdempotencyTTL.
const (
	// OutboxRecordAge is the oldest stream record that the outbox still publishes.
	OutboxRecordAge = 6 * time.Hour
	// IdempotencyTTL is how long a publication's id, and a key's last version, are remembered.
	IdempotencyTTL = 7 * time.Hour
	// RandomIDTTL is how long an id that the bus itself made is remembered; it only serves one call's own retries.
	// PublishTimeout < RandomIDTTL.
	RandomIDTTL = 2 * time.Minute
	// MetaTTL is how long a channel's epoch and last offset outlive its last publication or position check. It is longer
	// than any namespace's history TTL.
	MetaTTL = 30 * 24 * time.Hour
)

// Redis work, in the order in which the waits must nest: CommandBudget < the SDKs' 5 s command timeout.
const (
	// CommandBudget is all the time that Redis work for one client command may take, from the command's arrival.
	CommandBudget = 2500 * time.Millisecond
	// PublishTimeout bounds one Publish call, its retries included.
	PublishTimeout = 10 * time.Second
	// SubscribeConfirm is how long the server's confirmation of a SUBSCRIBE may take before that connection is rebuilt.
	// SubscribeConfirm < CommandBudget.
	SubscribeConfirm = 2 * time.Second
	// TryAgainBudget is how long TRYAGAIN (a slot in migration) is retried.
	TryAgainBudget = 5 * time.Second
	// ProbeEvery is the interval of the liveness probe of each subscriber connection; ProbeTimeout < ProbeEvery.
	ProbeEvery   = 5 * time.Second
	ProbeTimeout = 2 * time.Second
	// PositionCheckEvery is the longest that a followed channel's position goes uncompared with Redis.
	PositionCheckEvery = 25 * time.Second
	// PositionReadsPerSecond is a node's budget of position reads, oldest first.
	PositionReadsPerSecond = 500
	// UnsubscribeGrace is how long a channel without local subscribers is still followed.
	UnsubscribeGrace = 2 * time.Second
	// RotateMin and RotateMax bound the random age at which a subscriber connection is replaced, make before break.
	// ElastiCache cuts IAM connections at 12 h: RotateMax < 12 h.
	RotateMin = 6 * time.Hour
	RotateMax = 11 * time.Hour
)

// Leases. Heartbeat*2 < LeaseTTL.
const (
	Heartbeat = 5 * time.Second
	LeaseTTL  = 15 * time.Second
	// LockTTL is the lease of an exclusive lock; LockRenew*2 < LockTTL.
	LockTTL   = 10 * time.Second
	LockRenew = 3 * time.Second
)

// The canary: one node publishes on channel.Canary, every node must hear it over a socket of its own. CanaryWait < CanaryInterval;
// LockTTL + CanaryRetry*3/2 < CanaryInterval + CanaryWait: when the node that publishes dies, the others miss one canary at most.
const (
	CanaryInterval = 10 * time.Second
	// CanaryWait is how long after its time a canary may come before it counts as missed.
	CanaryWait = 5 * time.Second
	// CanaryRetry is how often, give or take half, a node tries to become the one that publishes.
	CanaryRetry = 2 * time.Second
)

// Recovery.
const (
	// RingBytes is what one channel's ring of recent publications may hold, RingsBytes all rings of a node together.
	RingBytes  = 64 << 10
	RingsBytes = 64 << 20
	// AnnounceWindow is the window over which one announcement to many clients is smeared.
	AnnounceWindow = 5 * time.Second
	// HistoryReadsPerSecond is a node's budget of history reads for recovery.
	HistoryReadsPerSecond = 200
	// HistoryPage is the most publications that one history command or one recovery reads.
	HistoryPage = 1000
)

// The socket. PingInterval + PongTimeout < the load balancer's idle timeout (IdleTimeout); PongTimeout < PingInterval.
const (
	PingInterval = 25 * time.Second
	PongTimeout  = 10 * time.Second
	// IdleTimeout is the load balancer's; HTTPIdleTimeout, the node's own for plain HTTP, must be longer or the balancer answers 502.
	IdleTimeout     = 120 * time.Second
	HTTPIdleTimeout = 130 * time.Second
	// HandshakeTimeout bounds the time from the upgrade to a successful connect command, and how long a request's body may take to come
	// (HTTP 408 past it).
	HandshakeTimeout = 10 * time.Second
	// MessageBytes is the largest frame a client may send. Disconnect 1009 past it. DataBytes < MessageBytes.
	MessageBytes = 128 << 10
	// QueueBytes bounds what waits for one connection. Disconnect 3008 past it.
	QueueBytes = 1 << 20
	// InboxBytes bounds what one worker of the hub has been given and not yet queued to sockets. Past it subscribers are told that they have
	// missed something. QueueBytes < InboxBytes.
	InboxBytes = 32 << 20
	// RecoveryBytes bounds a recovery reply: RecoveryBytes*2 <= QueueBytes.
	RecoveryBytes = QueueBytes / 2
	// StallTimeout closes a connection whose queue has made no progress for this long.
	StallTimeout = 10 * time.Second
	// ChannelsPerClient is the most subscriptions of one connection. Error 106 past it.
	ChannelsPerClient = 512
	// CommandsPerSecond and CommandsBurst bound the commands of one connection. Disconnect 3013 past the burst.
	CommandsPerSecond = 100
	CommandsBurst     = 1000
	// SubscribesPerSecond and PublishesPerSecond (of one namespace) bound one client's; past SubscribesBurst and
	// PublishesBurst, error 111, temporary.
	SubscribesPerSecond = 50
	SubscribesBurst     = 2 * ChannelsPerClient
	PublishesPerSecond  = 50
	PublishesBurst      = 10 // seconds' worth
	// ConnectionsPerUser and ConnectionsPerIP are counted over the fleet, from the nodes' reports: they may be overshot by the connects
	// of one heartbeat, and fail open while Redis is away. Disconnect 4001 and HTTP 429 past them.
	ConnectionsPerUser = 200
	ConnectionsPerIP   = 5000
	// Unauthenticated is how many connections of one node may be between upgrade and connect. HTTP 503 past it.
	Unauthenticated = 5000
)

// Balance between nodes.
const (
	// ShedAbove is how far above the fleet's mean a node's connections must be, as a factor, before it sheds the excess over the mean.
	ShedAbove = 1.25
	// ShedLeast is the least excess that is worth it.
	ShedLeast = 20
	// ShedShare is the share of its connections that a node sheds in a second, at least one.
	ShedShare = 0.02
	// ShedAge is how old a connection must be to be shed: a younger one would come back by its affinity cookie. StickyTTL <= ShedAge.
	ShedAge = StickyTTL
)

// HTTP streams, and the commands that come to them by requests. MessageBytes*100 < BodiesBytes.
const (
	// BodiesBytes bounds the bodies that a node holds in memory. HTTP 503 past it.
	BodiesBytes = 64 << 20
	// StrangersPerSecond and StrangersBurst bound how often one address may ask for sessions that a node doesn't hold and no other one takes
	// commands for. HTTP 429 past the burst.
	StrangersPerSecond = 10
	StrangersBurst     = 100
)

// REST.
const (
	BodyBytes = 1 << 20
)

// Background work: a message comes again until its task has ended and that was announced. WorkLease < WorkerTimeout*6, which is how long a
// message stays hidden; WorkAttempts < WorkReceives.
const (
	// WorkerTimeout is the worker's own; a task that takes longer is given back and continued.
	WorkerTimeout = 2 * time.Minute
	// WorkLease is how long a worker that is not heard of keeps a task.
	WorkLease = 60 * time.Second
	// WorkAttempts is how many workers in a row may take a task without getting a step further before it fails.
	WorkAttempts = 5
	// WorkReceives is how often a message is delivered before it goes to the dead-letter queue: once for each attempt, once to find out that
	// there were too many, and the rest for times in which Redis is away.
	WorkReceives = 12
	// TaskTTL is how long a task is kept after its last change, FileTTL what it reads and makes. TaskTTL < FileTTL.
	TaskTTL = 7 * 24 * time.Hour
	FileTTL = 8 * 24 * time.Hour
)

// Tokens and links.
const (
	TokenTTL    = time.Hour
	TokenJitter = 10 * time.Minute
	SessionTTL  = 30 * 24 * time.Hour
	LinkTTL     = 60 * time.Second
)

// Drain, in the order in which the times must nest:
// DrainGrace + DrainWindow < DeregistrationDelay < StopTimeout < HookHeartbeat.
const (
	// DrainGrace is how long a draining node still serves while the load balancer notices.
	DrainGrace = 20 * time.Second
	// DrainWindow is the window over which a draining node closes its clients.
	DrainWindow         = 90 * time.Second
	DeregistrationDelay = 120 * time.Second
	StopTimeout         = 150 * time.Second
	HookHeartbeat       = 300 * time.Second
)

// The load balancer and CloudFront. HealthInterval*HealthFailures + HealthTimeout < DrainGrace, so that a draining node is out of
// the rotation before it closes anybody; FrontKeepAlive < IdleTimeout, so that CloudFront never writes on a connection that the
// balancer is closing; PingInterval < FrontReadTimeout, so that a fallback transport never looks dead to CloudFront.
const (
	HealthInterval = 5 * time.Second
	HealthTimeout  = 4 * time.Second
	// HealthFailures and HealthSuccesses in a row make a target unhealthy and healthy.
	HealthFailures  = 2
	HealthSuccesses = 2
	// StickyTTL is how long the affinity cookie holds. Long enough for a reload, short enough for a new node to fill up.
	StickyTTL        = 300 * time.Second
	FrontKeepAlive   = 60 * time.Second
	FrontReadTimeout = 60 * time.Second
	// LambdaBytes is the most that a load balancer passes to or from a function, in bytes.
	LambdaBytes = 1 << 20
	// MetricsInterval is how often a node sends its figures to CloudWatch.
	MetricsInterval = 60 * time.Second
)
