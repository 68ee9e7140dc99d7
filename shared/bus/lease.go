package bus

// A node's membership in the fleet. Lease owns the heartbeat, the generation, this node's presence entries, and its part in removing
// those of dead nodes; node's server runs one, the hub enters and leaves through it. When Redis is slow or away the heartbeat retries,
// Enter and Leave fail with ErrUnavailable, and what Redis has missed is put right by the next audit.

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"tideline/shared/limit"
)

// Fleet-wide keys, all of one slot:
//
//	tl:<stage>:{nodes}:all       set of the generations that have a lease, or whose lease has expired and nobody has swept yet
//	tl:<stage>:{nodes}:l:<boot>  string: NodeInfo and the sequence number of the counts; its expiry is the lease's
const (
	fleetAll   = "all"
	fleetLease = "l:"
)

const (
	// auditEvery is the interval at which a node repeats its presence entries and looks for generations that nobody has swept.
	auditEvery = time.Minute
	// shutdownBudget bounds giving the lease up; what is not done by then, the survivors do.
	shutdownBudget = 2 * time.Second
)

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
	// Users is how many users the connections are of, Subscriptions how many channels they are in, each counted for itself.
	Users         int `json:"users"`
	Subscriptions int `json:"subscriptions"`
}

// LeaseOptions of NewLease. Its functions are called from the lease's goroutines, one call at a time each, and must not block.
type LeaseOptions struct {
	// Node is NODE_ID. A restarted node may keep it: leases belong to generations, never to names.
	Node string
	// Info is asked before every heartbeat; ID, Boot and Beat are filled in by the lease, and Started, where it is zero, with the time of
	// NewLease. nil tells nothing more.
	Info func() NodeInfo
	// Members lists the presence entries that this node holds. It is asked once a minute and whenever the lease was lost, and Redis is
	// made to agree: so an entry must be listed from before Enter is called until before Leave is called. nil lists none.
	Members func() map[string][]ClientInfo
	// Announces reports whether joins and leaves of a channel are published when its members are entered again; nil means all are.
	Announces func(channel string) bool

	// Heartbeat, TTL and Audit are 0 but in tests: limit.Heartbeat, limit.LeaseTTL and a minute. Heartbeat*2 < TTL. All nodes of a
	// deployment must have the same.
	Heartbeat, TTL, Audit time.Duration
}

// Lease is a node's membership in the fleet: its heartbeat, its presence entries, and its part in removing those of dead nodes.
// It is safe for concurrent use.
type Lease struct {
	bus    *Bus
	o      LeaseOptions
	counts *Counts
	// started stands in for NodeInfo.Started.
	started time.Time

	// auditNow and reapNow wake the goroutine that audits and reaps; one pending wake-up is enough.
	auditNow, reapNow chan struct{}

	// calling ends with the lease, and every Enter and Leave with it.
	calling  context.Context
	endCalls context.CancelFunc

	mu      sync.Mutex
	current generation
	next    uint64    // number of the generation that is taken next
	held    bool      // the last that was heard of current is that it is alive
	closed  bool      // Run is over, or about to be
	beaten  time.Time // when the last successful heartbeat was sent
	// unbroken is since when heartbeats have succeeded without a pause; zero while they don't.
	unbroken time.Time
	fleet    map[string]peer // by boot; without current, but with the process's lost generations
	looked   time.Time       // when fleet was last read
	calls    sync.WaitGroup  // Enter and Leave in flight; Add under mu while not closed
}

// peer is what the lease knows of another generation's lease.
type peer struct {
	alive bool
	info  NodeInfo
	// counted is the sequence number of the counts that this heartbeat includes.
	counted uint64
	// until is when the lease expires by what was last heard or, for one that is missing and was not seen to expire, when it may be
	// taken for dead.
	until time.Time
}

// leaseValue is the JSON of a lease.
type leaseValue struct {
	NodeInfo
	Counted uint64 `json:"counted,omitempty"`
}

// NewLease makes a lease; nothing happens before Run.
func (b *Bus) NewLease(o LeaseOptions) *Lease {
	o.Heartbeat = cmp.Or(o.Heartbeat, limit.Heartbeat)
	o.TTL = cmp.Or(o.TTL, limit.LeaseTTL)
	o.Audit = cmp.Or(o.Audit, auditEvery)
	if o.Info == nil {
		o.Info = func() NodeInfo { return NodeInfo{} }
	}
	if o.Members == nil {
		o.Members = func() map[string][]ClientInfo { return nil }
	}
	if o.Announces == nil {
		o.Announces = func(string) bool { return true }
	}
	calling, endCalls := context.WithCancel(context.Background())
	return &Lease{
		bus: b, o: o, started: b.now().UTC(), counts: newCounts(o.TTL), calling: calling, endCalls: endCalls,
		auditNow: make(chan struct{}, 1), reapNow: make(chan struct{}, 1),
		current: generation{process: randomHex(8)}, next: 1,
		fleet: make(map[string]peer),
	}
}

// Run takes the lease, renews it, reaps dead ones, until ctx ends; then it removes this node's members with their leaves, gives the lease
// up, and returns: within some two seconds even when Redis is away. It returns an error only if the options can't work; a Redis that is away
// is retried. A Lease runs once.
func (l *Lease) Run(ctx context.Context) error {
	if l.o.Heartbeat <= 0 || 2*l.o.Heartbeat >= l.o.TTL || l.o.Audit <= 0 {
		return fmt.Errorf("%w: lease: heartbeat %v, TTL %v, audit %v", ErrInvalid, l.o.Heartbeat, l.o.TTL, l.o.Audit)
	}
	var loops sync.WaitGroup
	loops.Go(func() { l.beatLoop(ctx) })
	loops.Go(func() { l.sweepLoop(ctx) })
	loops.Go(func() { l.countLoop(ctx) })
	loops.Wait()
	l.giveUp(context.WithoutCancel(ctx))
	return nil
}

// Boot is the current generation. It changes when the lease is first taken and when it was lost.
func (l *Lease) Boot() string { return l.generation().String() }

// Counts answers how many connections users and addresses have in the fleet.
func (l *Lease) Counts() *Counts { return l.counts }

func (l *Lease) generation() generation {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.current
}

// Enter adds a presence entry; with join, whoever was not there before is announced on the channel. Entering twice joins once. An
// entry of the same client that another node holds is taken over. It fails with ErrUnavailable while there is no lease; the
// caller may keep the entry in LeaseOptions.Members all the same, and the next audit adds it.
func (l *Lease) Enter(ctx context.Context, channel string, info ClientInfo, join bool) error {
	e, err := newEntry(channel, info, join)
	if err != nil {
		return fmt.Errorf("enter: %w", err)
	}
	ctx, g, done, err := l.begin(ctx)
	if err != nil {
		return fmt.Errorf("enter %q: %w", channel, err)
	}
	defer done()
	for {
		if _, err := l.bus.enter(ctx, g, "take", partition(channel), []entry{e}); err != nil {
			return err
		}
		// A generation that was lost meanwhile is swept by the survivors, and the audit may have read Members before this entry.
		now := l.generation()
		if now == g {
			return nil
		}
		g = now
	}
}

// Leave removes a presence entry and, if it was there and leave is true, announces it. An entry that another node has taken over
// stays. After an error the entry is gone at the latest after the next audit.
func (l *Lease) Leave(ctx context.Context, channel, client string, leave bool) error {
	if err := checkMember(channel, client); err != nil {
		return fmt.Errorf("leave: %w", err)
	}
	ctx, g, done, err := l.begin(ctx)
	if err != nil {
		return fmt.Errorf("leave %q: %w", channel, err)
	}
	defer done()
	announced := "0"
	if leave {
		announced = "1"
	}
	_, err = l.bus.remove(ctx, g, "process", announced, partition(channel), []entry{{channel: channel, client: client}})
	return err
}

// begin starts a call that giveUp ends and waits for; the caller owes done when the error is nil.
func (l *Lease) begin(ctx context.Context) (_ context.Context, g generation, done func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return nil, g, nil, fmt.Errorf("%w: lease given up", ErrUnavailable)
	case l.beaten.IsZero():
		return nil, g, nil, fmt.Errorf("%w: no lease yet", ErrUnavailable)
	}
	l.calls.Add(1)
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(l.calling, cancel)
	return ctx, l.current, func() { stop(); cancel(); l.calls.Done() }, nil
}

// Nodes lists the nodes whose lease is alive, oldest first.
func (b *Bus) Nodes(ctx context.Context) ([]NodeInfo, error) {
	boots, leases, err := b.leases(ctx, nil)
	if err != nil {
		return nil, err
	}
	nodes := make([]NodeInfo, 0, len(boots))
	for _, boot := range boots {
		if lease := leases[boot]; lease.left > 0 {
			nodes = append(nodes, lease.value.NodeInfo)
		}
	}
	slices.SortFunc(nodes, func(a, b NodeInfo) int {
		return cmp.Or(a.Started.Compare(b.Started), cmp.Compare(a.Boot, b.Boot))
	})
	return nodes, nil
}

// leaseReading is one lease as Redis has it; left is 0 when it is missing.
type leaseReading struct {
	value leaseValue
	left  time.Duration
}

// leases reads the registry's generations, and the leases of those and of also.
func (b *Bus) leases(ctx context.Context, also []string) (boots []string, leases map[string]leaseReading, err error) {
	err = b.retry(ctx, "read nodes", func(ctx context.Context) error {
		if boots, err = b.client.SMembers(ctx, b.fleetKey(fleetAll)).Result(); err != nil {
			return err
		}
		asked := slices.Concat(boots, also)
		values, left := make([]*redis.StringCmd, len(asked)), make([]*redis.DurationCmd, len(asked))
		_, err := b.client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
			for i, boot := range asked {
				values[i] = pipe.Get(ctx, b.fleetKey(fleetLease+boot))
				left[i] = pipe.PTTL(ctx, b.fleetKey(fleetLease+boot))
			}
			return nil
		})
		if err != nil && !errors.Is(err, redis.Nil) {
			return err
		}
		leases = make(map[string]leaseReading, len(asked))
		for i, boot := range asked {
			var r leaseReading
			if err := cmp.Or(values[i].Err(), left[i].Err()); err != nil && !errors.Is(err, redis.Nil) {
				return err
			}
			switch {
			case values[i].Err() != nil || left[i].Val() <= 0: // expired, perhaps between the two commands
			case json.Unmarshal([]byte(values[i].Val()), &r.value) != nil:
				// Alive, whatever it says: another version's lease must not be taken for dead.
				r.value = leaseValue{NodeInfo: NodeInfo{Boot: boot}}
				fallthrough
			default:
				r.left = left[i].Val()
			}
			leases[boot] = r
		}
		return nil
	})
	return boots, leases, err
}

func randomHex(bytes int) string {
	raw := make([]byte, bytes)
	_, _ = rand.Read(raw) // never fails
	return hex.EncodeToString(raw)
}
