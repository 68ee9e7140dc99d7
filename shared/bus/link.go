package bus

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// linkBatch is how many channels one command names, linkInFlight how many may wait for their confirmation.
	linkBatch    = 512
	linkInFlight = 8 * linkBatch
	// linkConnect bounds dialling, TLS, authentication and the first command.
	linkConnect = 5 * time.Second
	probePrefix = "$probe:"
	probeTTL    = time.Minute
)

// Why a connection was given up.
var (
	errLinkUsed    = errors.New("connection lost")
	errUnconfirmed = errors.New("subscription not confirmed in time")
	errUnrequested = errors.New("unsubscribed by the server")
	errProbeLost   = errors.New("probe did not come back")
)

// probeScript: KEYS probe key, ARGV probe, TTL (ms), command, pub/sub channel. It writes, so that a replica refuses it as it would
// refuse a publication.
var probeScript = newScript("probe", `
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return redis.call(ARGV[3], ARGV[4], ARGV[1])
`)

// link is one subscriber connection. It lives once: what fails is replaced by another link, never repaired. The shard that made it owns
// the fields below the line; the rest is fixed or safe for concurrent use.
//
// run connects and then owns three goroutines: read hands everything to the inbox and never waits, write sends the shard's commands,
// probe publishes through the normal path and waits for the echo. go-redis frames, authenticates and encrypts; its own reconnect is
// kept from happening by a dialler that works once.
type link struct {
	shard   *shard
	in      *inbox
	out     chan command
	cancel  context.CancelFunc
	probeID string        // the channel name of the probe
	ready   chan struct{} // closed by read when the probe's subscription is confirmed
	echoed  chan uint64

	// owned by the shard
	born      time.Time
	connected bool                    // the probe's own subscription is confirmed
	chans     map[string]*linkChannel // what the server knows, or is being told
	live      int                     // channels in chans that are subscribed and confirmed
	dirty     map[string]struct{}     // channels whose state has to be compared with what is wanted
	unacked   []ack                   // in the order of the commands; the server answers in that order
	retire    time.Time               // not zero: a barrier was sent, and it is over by then
	spare     []any

	// What the next link hears of channels that are still heard by the main one, and of which of them it has missed something.
	parked      []*redis.Message
	parkedBytes int
	missed      map[string]struct{}
}

// command is one SUBSCRIBE, UNSUBSCRIBE or PING.
type command struct {
	kind     commandKind
	channels []string // pub/sub channels, not names
}

type commandKind uint8

const (
	commandSubscribe commandKind = iota
	commandUnsubscribe
	commandBarrier
)

// linkChannel is one channel's state on one link: subscribing (subscribe sent, unacked), live (sent, none unacked), leaving (not
// sent, unacked). Idle channels have none.
type linkChannel struct {
	sent    bool // the last command was a subscribe
	unacked int
}

// ack is a confirmation that is owed.
type ack struct {
	name      string
	subscribe bool
	due       time.Time
}

func newLink(sh *shard) *link {
	t := &sh.sub.tune
	return &link{
		shard: sh, in: newInbox(t.messages, t.bytes), out: make(chan command, 4),
		probeID: probePrefix + strings.ToLower(rand.Text()[:16]), ready: make(chan struct{}), echoed: make(chan uint64, 1),
		born: time.Now(), chans: make(map[string]*linkChannel), dirty: make(map[string]struct{}), missed: make(map[string]struct{}),
	}
}

// run lives until ctx ends. A failure is reported to the inbox, and the shard ends the context.
func (l *link) run(ctx context.Context) {
	client, sub, err := l.connect(ctx)
	if err != nil {
		l.in.fail(err)
		<-ctx.Done()
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() { l.read(ctx, sub) })
	wg.Go(func() { l.write(ctx, sub) })
	wg.Go(func() { l.probe(ctx) })
	<-ctx.Done()
	_ = sub.Close() // ends read
	wg.Wait()
	_ = client.Close()
}

// connect dials and subscribes to the probe's channel, whose confirmation says that the connection works.
func (l *link) connect(ctx context.Context) (*redis.Client, *redis.PubSub, error) {
	ctx, cancel := context.WithTimeout(ctx, linkConnect)
	defer cancel()
	b := l.shard.sub.bus
	e := b.dial
	o := e.options()
	dial := e.dialPrimary
	if b.cluster != nil {
		owner, err := b.cluster.MasterForKey(ctx, b.partitionPrefix(l.shard.partition))
		if err != nil {
			return nil, nil, err
		}
		o.Addr, o.OnConnect, dial = owner.Options().Addr, nil, e.dialAddr
	}
	var used atomic.Bool
	o.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if used.Swap(true) {
			return nil, errLinkUsed
		}
		return dial(ctx, network, addr)
	}
	o.PoolSize = 1
	client := redis.NewClient(o)
	sub := client.Subscribe(ctx)
	if err := l.send(ctx, sub, command{commandSubscribe, []string{l.probeChannel()}}); err != nil {
		_ = sub.Close()
		_ = client.Close()
		return nil, nil, err
	}
	return client, sub, nil
}

// probeChannel is in the shard's own partition, or in that of its name.
func (l *link) probeChannel() string { return l.shard.pubsubChannel(l.probeID) }

// read hands over what comes until the connection ends.
func (l *link) read(ctx context.Context, sub *redis.PubSub) {
	probe := l.probeChannel()
	for ready := false; ; {
		item, err := sub.Receive(ctx)
		if err != nil {
			l.in.fail(err)
			return
		}
		if _, ok := item.(*redis.Subscription); ok && !ready {
			ready = true
			close(l.ready)
		}
		if m, ok := item.(*redis.Message); ok && m.Channel == probe {
			if n, err := strconv.ParseUint(m.Payload, 10, 64); err == nil {
				l.echo(n)
			}
			continue
		}
		if !l.in.put(item) {
			l.shard.sub.bus.stats.overflowed.Add(1)
		}
	}
}

// echo passes the newest probe that came back; the reader doesn't wait for whoever listens.
func (l *link) echo(n uint64) {
	for {
		select {
		case l.echoed <- n:
			return
		default:
		}
		select {
		case <-l.echoed:
		default:
		}
	}
}

// write sends commands until ctx ends.
func (l *link) write(ctx context.Context, sub *redis.PubSub) {
	for {
		select {
		case <-ctx.Done():
			return
		case c := <-l.out:
			if err := l.send(ctx, sub, c); err != nil {
				l.in.fail(err)
				return
			}
			l.in.wake() // there is room for another command
		}
	}
}

func (l *link) send(ctx context.Context, sub *redis.PubSub, c command) error {
	sharded := l.shard.sub.bus.cluster != nil
	switch {
	case c.kind == commandBarrier:
		return sub.Ping(ctx, "barrier")
	case c.kind == commandSubscribe && sharded:
		return sub.SSubscribe(ctx, c.channels...)
	case c.kind == commandSubscribe:
		return sub.Subscribe(ctx, c.channels...)
	case sharded:
		return sub.SUnsubscribe(ctx, c.channels...)
	}
	return sub.Unsubscribe(ctx, c.channels...)
}

// probe publishes to the link's own channel at intervals and fails the link when that does not come back. When publishing itself fails
// Redis is away or refuses writes: that says nothing about this connection, and Health shows the age of the last probe.
func (l *link) probe(ctx context.Context) {
	sh, t := l.shard, &l.shard.sub.tune
	b := sh.sub.bus
	key := b.partitionPrefix(sh.partition) + keyProbe + l.probeID
	select {
	case <-ctx.Done():
		return
	case <-l.ready:
	}
	wait := jitter(t.probeEvery / 10) // the first one soon: the shard counts as healthy from then on
	for n := uint64(1); sleep(ctx, wait); n++ {
		wait = t.probeEvery - t.probeEvery/10 + jitter(t.probeEvery/5)
		publish, cancel := context.WithTimeout(ctx, t.probeTimeout)
		_, err := b.run(publish, probeScript, []string{key}, n, probeTTL.Milliseconds(), b.publishCommand(), l.probeChannel())
		cancel()
		if err != nil {
			continue
		}
		if !l.await(ctx, n, t.probeTimeout) {
			if ctx.Err() == nil {
				b.stats.probesLost.Add(1)
				l.in.fail(errProbeLost)
			}
			return
		}
		sh.probed.Store(time.Now().UnixNano())
	}
}

// await waits until probe n has come back.
func (l *link) await(ctx context.Context, n uint64, within time.Duration) bool {
	t := time.NewTimer(within)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-t.C:
			return false
		case got := <-l.echoed:
			if got >= n {
				return true
			}
		}
	}
}
