package bus

import (
	"sync"

	"github.com/redis/go-redis/v9"
)

// The bounds of what one connection's reader may hold for its shard. Twice as much may be in memory: what the shard works on, and what
// has come since.
const (
	inboxMessages = 1 << 16
	inboxBytes    = 64 << 20
)

// inbox is the queue between a connection's reader, which never waits, and the shard that takes everything in it at once. A message that
// does not fit is dropped, and with it everything until the shard has been here; the channels concerned are noted. Confirmations are
// never dropped: there are no more of them than commands in flight.
type inbox struct {
	notify      chan struct{} // holds one token when there is something to take
	maxMessages int
	maxBytes    int

	mu       sync.Mutex
	items    []any // *redis.Message, *redis.Subscription, *redis.Pong, in the order of the connection
	messages int
	bytes    int
	full     bool
	gapped   map[string]struct{} // pub/sub channels with dropped messages
	failure  error               // the connection is lost; nothing follows
}

func newInbox(messages, bytes int) *inbox {
	return &inbox{notify: make(chan struct{}, 1), maxMessages: messages, maxBytes: bytes}
}

// wake gives the shard a token.
func (q *inbox) wake() {
	select {
	case q.notify <- struct{}{}:
	default:
	}
}

// put appends what the reader received and answers false when it was dropped.
func (q *inbox) put(item any) bool {
	q.mu.Lock()
	kept := q.putLocked(item)
	q.mu.Unlock()
	q.wake()
	return kept
}

func (q *inbox) putLocked(item any) bool {
	if m, ok := item.(*redis.Message); ok {
		size := len(m.Channel) + len(m.Payload)
		if q.full || q.messages >= q.maxMessages || q.bytes+size > q.maxBytes {
			q.full = true
			if q.gapped == nil {
				q.gapped = make(map[string]struct{})
			}
			q.gapped[m.Channel] = struct{}{}
			return false
		}
		q.messages++
		q.bytes += size
	}
	q.items = append(q.items, item)
	return true
}

// fail notes why the connection is lost; the first reason counts.
func (q *inbox) fail(err error) {
	q.mu.Lock()
	if q.failure == nil {
		q.failure = err
	}
	q.mu.Unlock()
	q.wake()
}

// take empties the inbox. reuse is a slice from an earlier take that is no longer needed.
func (q *inbox) take(reuse []any) (items []any, gapped map[string]struct{}, failure error) {
	clear(reuse)
	q.mu.Lock()
	defer q.mu.Unlock()
	items, gapped, failure = q.items, q.gapped, q.failure
	q.items, q.gapped = reuse[:0], nil
	q.messages, q.bytes, q.full = 0, 0, false
	return items, gapped, failure
}
