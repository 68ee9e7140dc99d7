package bolt

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"

	"go.etcd.io/bbolt"

	"tideline/shared/todo"
)

// Pending is an event that was stored with the write that it announces, and not yet acknowledged.
type Pending struct {
	Sequence uint64
	User     string
	Event    todo.Event
	Trace    string // todo.Record's
}

type pendingWire struct {
	User  string     `json:"user"`
	Event todo.Event `json:"event"`
	Trace string     `json:"trace,omitempty"`
}

func enqueue(tx *bbolt.Tx, user string, e todo.Event, trace string) error {
	b := tx.Bucket(outboxBucket)
	n, err := b.NextSequence()
	if err != nil {
		return err
	}
	return putJSON(b, sequence(n), pendingWire{user, e, trace})
}

// Pending answers the oldest events that wait to be announced, at most limit, in the order of their writes.
func (s *Store) Pending(ctx context.Context, limit int) (out []Pending, err error) {
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		c := tx.Bucket(outboxBucket).Cursor()
		for k, v := c.First(); k != nil && len(out) < limit; k, v = c.Next() {
			var w pendingWire
			n := binary.BigEndian.Uint64(k)
			if err := json.Unmarshal(v, &w); err != nil {
				return fmt.Errorf("decode pending event %d: %w", n, err)
			}
			out = append(out, Pending{n, w.User, w.Event, w.Trace})
		}
		return nil
	})
	return out, err
}

// Announced forgets events after they were published. Unknown sequences are ignored.
func (s *Store) Announced(ctx context.Context, sequences []uint64) error {
	if len(sequences) == 0 {
		return nil
	}
	return s.update(ctx, func(tx *bbolt.Tx) error {
		b := tx.Bucket(outboxBucket)
		for _, n := range sequences {
			if err := b.Delete(sequence(n)); err != nil {
				return err
			}
		}
		return nil
	})
}

// Wake receives after writes that left something pending, and once after New. One receiver is served.
func (s *Store) Wake() <-chan struct{} { return s.wake }
