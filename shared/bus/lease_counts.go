package bus

// How many connections a user or an address has in the whole fleet, answered from memory. Each node tells what has changed with every
// heartbeat; a node that joins, or missed something, reads the full state of the others once.

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// Keys, in the registry's slot:
//
//	tl:<stage>:{nodes}:c:<boot>  hash: 8 bytes of hash → count (4 bytes), and s → the sequence number of the last change
//	tl:<stage>:{nodes}:d         stream of changes: b boot, s sequence number, f "1" if it replaces all that came before, p pairs
//
// A change carries the new count and not the difference, so that it bears repetition when an answer is lost. Users and addresses
// travel as hashes only.
const (
	fleetCounts  = "c:"
	fleetChanges = "d"
)

const (
	pairBytes       = 8 + 4
	pairsPerChange  = 1000 // of one stream entry and one script
	changesKept     = 2000 // entries; a node that is further behind reads full states
	changesPerRead  = 200
	changesPerRound = 20 // reads; what is left waits for the next round
)

// countScript writes one change. KEYS: counts, changes. ARGV: boot, number of the change, number before it, full ("1" or ""), pairs,
// TTL in ms, entries to keep. Answers 0 when what Redis has is not the change before: everything must be told again.
var countScript = newScript("tell counts", `
local counts, changes = KEYS[1], KEYS[2]
local last = redis.call('HGET', counts, 's')
if last == ARGV[2] then return 1 end
if ARGV[4] == '1' then redis.call('UNLINK', counts)
elseif last ~= ARGV[3] then return 0 end
local pairs = ARGV[5]
for i = 1, #pairs, 12 do
  local field, count = string.sub(pairs, i, i + 7), string.sub(pairs, i + 8, i + 11)
  if count == '\0\0\0\0' then redis.call('HDEL', counts, field) else redis.call('HSET', counts, field, count) end
end
redis.call('HSET', counts, 's', ARGV[2])
redis.call('PEXPIRE', counts, ARGV[6])
redis.call('XADD', changes, 'MAXLEN', '~', ARGV[7], '*', 'b', ARGV[1], 's', ARGV[2], 'f', ARGV[4], 'p', pairs)
redis.call('PEXPIRE', changes, ARGV[6])
return 1
`)

// Counts answers how many connections a user or an address has in the fleet. It never asks Redis: it adds this node's own, which are
// exact, to what the others told with their last heartbeat, so that a limit may be overshot by the connects of one heartbeat and a
// poll (a fifth of one). It is safe for concurrent use.
type Counts struct {
	stale time.Duration

	mu     sync.RWMutex
	own    map[countKey]uint32
	dirty  map[countKey]struct{} // own counts that have changed since they were last told
	full   bool                  // everything has to be told again
	boot   generation            // under which own counts are told
	told   uint64                // number of the last change that was told under boot
	others map[string]*otherCounts
	read   time.Time // when the others' changes were last read to the end
	lastID string    // of the stream of changes, "" before the first read
}

type otherCounts struct {
	number uint64
	counts map[countKey]uint32
}

// countKey is a hash: of "u" and a user, or of "i" and an address.
type countKey [8]byte

func newCounts(stale time.Duration) *Counts {
	return &Counts{
		stale: stale, own: make(map[countKey]uint32), dirty: make(map[countKey]struct{}), others: make(map[string]*otherCounts),
	}
}

func userKey(user string) countKey { return hashKey("u" + user) }
func ipKey(ip string) countKey     { return hashKey("i" + ip) }

func hashKey(s string) countKey {
	sum := sha256.Sum256([]byte(s))
	return countKey(sum[:8])
}

// Add counts one connection of this node; an empty user or address is not counted. Every Add needs one Remove with the same values.
func (c *Counts) Add(user, ip string) { c.change(user, ip, 1) }

// Remove takes one connection away.
func (c *Counts) Remove(user, ip string) { c.change(user, ip, -1) }

func (c *Counts) change(user, ip string, by int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if user != "" {
		c.changeLocked(userKey(user), by)
	}
	if ip != "" {
		c.changeLocked(ipKey(ip), by)
	}
}

func (c *Counts) changeLocked(k countKey, by int) {
	c.dirty[k] = struct{}{}
	if n := int64(c.own[k]) + int64(by); n > 0 {
		c.own[k] = uint32(n)
	} else {
		delete(c.own, k)
	}
}

// User is how many connections a user has. known is false when the others' counts are older than a lease (Redis is away, or this node
// has just started): n is then at least this node's own, and a limit fails open.
func (c *Counts) User(user string) (n int, known bool) { return c.count(userKey(user)) }

// IP is how many connections an address has. known is as for User.
func (c *Counts) IP(ip string) (n int, known bool) { return c.count(ipKey(ip)) }

func (c *Counts) count(k countKey) (n int, known bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	n = int(c.own[k])
	for _, o := range c.others {
		n += int(o.counts[k])
	}
	return n, !c.read.IsZero() && time.Since(c.read) < c.stale
}

// sequence is the number of the last change that was told under g; the heartbeat carries it, so that readers notice what they missed.
func (c *Counts) sequence(g generation) uint64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.boot != g {
		return 0
	}
	return c.told
}

// countLoop tells this node's changes every heartbeat and reads the others' five times as often, until ctx ends.
func (l *Lease) countLoop(ctx context.Context) {
	var told time.Time
	for sleep(ctx, l.o.Heartbeat/5) {
		g, held, boots := l.countedPeers()
		if !held {
			continue
		}
		err := func() error {
			ctx, cancel := context.WithTimeout(ctx, l.o.TTL)
			defer cancel()
			if time.Since(told) >= l.o.Heartbeat {
				if err := l.counts.tell(ctx, l.bus, g, 3*l.o.TTL); err != nil {
					return err
				}
				told = time.Now()
			}
			return l.counts.listen(ctx, l.bus, g, boots)
		}()
		if err != nil && ctx.Err() == nil {
			l.bus.log.Warn("counts not exchanged, limits fail open", "node", l.o.Node, "error", err)
		}
	}
}

// countedPeers are the live leases of other processes with the number of the last change that they have told.
func (l *Lease) countedPeers() (g generation, held bool, boots map[string]uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	boots = make(map[string]uint64, len(l.fleet))
	for boot, p := range l.fleet {
		if other, ok := parseGeneration(boot); ok && p.alive && other.process != l.current.process {
			boots[boot] = p.counted
		}
	}
	return l.current, l.held && !l.looked.IsZero(), boots
}

// tell writes what has changed since the last call, or everything: under a new generation, and when Redis has lost it.
func (c *Counts) tell(ctx context.Context, b *Bus, g generation, ttl time.Duration) error {
	c.mu.Lock()
	if c.boot != g {
		c.boot, c.told, c.full = g, 0, true
	}
	c.mu.Unlock()
	for range 2 {
		complete, err := c.tellOnce(ctx, b, g, ttl)
		if complete || err != nil {
			return err
		}
		c.mu.Lock()
		c.full = true
		c.mu.Unlock()
	}
	return nil // lost twice in a row: the next heartbeat tells everything
}

func (c *Counts) tellOnce(ctx context.Context, b *Bus, g generation, ttl time.Duration) (complete bool, err error) {
	c.mu.Lock()
	full, told := c.full, c.told
	if full {
		clear(c.dirty)
		for k := range c.own {
			c.dirty[k] = struct{}{}
		}
	}
	keys := slices.Collect(maps.Keys(c.dirty))
	counts := make([]uint32, len(keys))
	for i, k := range keys {
		counts[i] = c.own[k]
	}
	c.mu.Unlock()

	redisKeys := []string{b.fleetKey(fleetCounts + g.String()), b.fleetKey(fleetChanges)}
	for start := 0; start < len(keys) || start == 0; start += pairsPerChange {
		end := min(start+pairsPerChange, len(keys))
		flag := ""
		if full && start == 0 {
			flag = "1"
		}
		// With nothing to tell the number is told again, which keeps the hash alive or shows that it is gone.
		next := told + 1
		if start == end && flag == "" {
			return c.keepAlive(ctx, b, redisKeys[0], told, ttl)
		}
		reply, err := b.run(ctx, countScript, redisKeys, g.String(), next, told, flag,
			packPairs(keys[start:end], counts[start:end]), ttl.Milliseconds(), changesKept)
		if err != nil || reply != int64(1) {
			return false, err
		}
		told = next
		c.toldPairs(keys[start:end], counts[start:end], told)
	}
	return true, nil
}

// keepAlive renews the hash's expiry; complete is false when the hash is not what was told last.
func (c *Counts) keepAlive(ctx context.Context, b *Bus, key string, told uint64, ttl time.Duration) (complete bool, err error) {
	err = b.retry(ctx, "keep counts", func(ctx context.Context) error {
		last, err := b.client.HGet(ctx, key, "s").Uint64()
		if err != nil && !errors.Is(err, redis.Nil) {
			return err
		}
		complete = last == told
		return b.client.PExpire(ctx, key, ttl).Err()
	})
	return complete, err
}

// toldPairs notes that pairs are told; what has changed meanwhile stays dirty.
func (c *Counts) toldPairs(keys []countKey, counts []uint32, number uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.told, c.full = number, false
	for i, k := range keys {
		if c.own[k] == counts[i] {
			delete(c.dirty, k)
		}
	}
}

// listen reads the others' changes, and the full state of those that are new or of which a change was missed. live has the number of the
// last change that each had told by its heartbeat; who is not in it is forgotten.
func (c *Counts) listen(ctx context.Context, b *Bus, own generation, live map[string]uint64) error {
	if c.lastID == "" {
		// The end of the stream first, then the states: a change in between is in both and counts once.
		id, err := b.lastChange(ctx)
		if err != nil {
			return err
		}
		c.lastID = id
	}
	missed, complete, err := c.follow(ctx, b, own)
	if err != nil {
		return err
	}
	for boot, number := range live {
		c.mu.RLock()
		o := c.others[boot]
		c.mu.RUnlock()
		if o != nil && !missed[boot] && (o.number >= number || !complete) {
			continue
		}
		state, err := b.readCounts(ctx, boot)
		if err != nil {
			return err
		}
		c.mu.Lock()
		c.others[boot] = state
		c.mu.Unlock()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for boot := range c.others {
		if _, ok := live[boot]; !ok {
			delete(c.others, boot)
		}
	}
	if complete {
		c.read = time.Now()
	}
	return nil
}

// follow applies what the stream has after lastID. missed names those whose changes have a gap.
func (c *Counts) follow(ctx context.Context, b *Bus, own generation) (missed map[string]bool, complete bool, err error) {
	missed = make(map[string]bool)
	for range changesPerRound {
		var entries []redis.XMessage
		err := b.retry(ctx, "read counts", func(ctx context.Context) (err error) {
			entries, err = b.client.XRangeN(ctx, b.fleetKey(fleetChanges), "("+c.lastID, "+", changesPerRead).Result()
			return err
		})
		if err != nil {
			return missed, false, err
		}
		for _, e := range entries {
			c.lastID = e.ID
			boot, _ := e.Values["b"].(string)
			if g, ok := parseGeneration(boot); !ok || g.process == own.process {
				continue
			}
			if !c.apply(boot, e.Values) {
				missed[boot] = true
			}
		}
		if len(entries) < changesPerRead {
			return missed, true, nil
		}
	}
	return missed, false, nil
}

// apply applies one change; false when those before it are missing.
func (c *Counts) apply(boot string, values map[string]any) bool {
	text, _ := values["s"].(string)
	number, err := strconv.ParseUint(text, 10, 64)
	pairs, _ := values["p"].(string)
	if err != nil || len(pairs)%pairBytes != 0 {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.others[boot]
	switch {
	case o == nil:
		return false
	case number <= o.number:
		return true
	case values["f"] == "1":
		clear(o.counts)
	case number != o.number+1:
		return false
	}
	o.number = number
	for ; pairs != ""; pairs = pairs[pairBytes:] {
		o.set(countKey([]byte(pairs[:8])), []byte(pairs[8:pairBytes]))
	}
	return true
}

func (o *otherCounts) set(k countKey, count []byte) {
	if n := binary.BigEndian.Uint32(count); n > 0 {
		o.counts[k] = n
	} else {
		delete(o.counts, k)
	}
}

// lastChange is the id of the newest change, or the lowest id.
func (b *Bus) lastChange(ctx context.Context) (id string, err error) {
	err = b.retry(ctx, "read counts", func(ctx context.Context) error {
		entries, err := b.client.XRevRangeN(ctx, b.fleetKey(fleetChanges), "+", "-", 1).Result()
		id = "0-0"
		if len(entries) > 0 {
			id = entries[0].ID
		}
		return err
	})
	return id, err
}

// readCounts reads the full state of one node; a node that has told nothing yet has none.
func (b *Bus) readCounts(ctx context.Context, boot string) (*otherCounts, error) {
	var fields map[string]string
	err := b.retry(ctx, "read counts of "+boot, func(ctx context.Context) (err error) {
		fields, err = b.client.HGetAll(ctx, b.fleetKey(fleetCounts+boot)).Result()
		return err
	})
	if err != nil {
		return nil, err
	}
	o := &otherCounts{counts: make(map[countKey]uint32, len(fields))}
	for field, value := range fields {
		switch {
		case field == "s":
			o.number, _ = strconv.ParseUint(value, 10, 64)
		case len(field) == 8 && len(value) == 4:
			o.set(countKey([]byte(field)), []byte(value))
		}
	}
	return o, nil
}

func packPairs(keys []countKey, counts []uint32) []byte {
	pairs := make([]byte, 0, len(keys)*pairBytes)
	for i, k := range keys {
		pairs = append(pairs, k[:]...)
		pairs = binary.BigEndian.AppendUint32(pairs, counts[i])
	}
	return pairs
}
