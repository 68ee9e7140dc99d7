// Package bolt keeps todos and tasks in a bbolt database: the store of one process, for development and small installations.
//
// What must be announced is written in the same transaction as what it announces (see Pending), so that a todo that was saved
// is announced although the process died in between: the counterpart of the DynamoDB stream.
package bolt

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"tideline/shared/todo"
)

// Buckets. Below usersBucket there is one bucket per user with the buckets items (id → record), order (Cursor.OrderKey → id, live
// todos only), answers (idempotency key → answer), tasks (id → task), and the key count.
var (
	usersBucket  = []byte("users")
	outboxBucket = []byte("outbox") // sequence → pending event
	queueBucket  = []byte("queue")  // sequence → task to be worked on

	itemsBucket   = []byte("items")
	orderBucket   = []byte("order")
	answersBucket = []byte("answers")
	tasksBucket   = []byte("tasks")
	countKey      = []byte("count")
)

// Store implements todo.Store and todo.TaskStore. It is safe for concurrent use; bbolt lets one write transaction run at a time, each costs an
// fsync. Other packages may keep their own buckets in the same database.
type Store struct {
	db   *bbolt.DB
	now  func() time.Time
	wake chan struct{} // capacity 1: there may be something pending
	work chan struct{} // capacity 1: there may be something queued
}

// New prepares the buckets in db, which the caller opens and closes. Nil now means time.Now.
func New(db *bbolt.DB, now func() time.Time) (*Store, error) {
	if now == nil {
		now = time.Now
	}
	s := &Store{db: db, now: now, wake: make(chan struct{}, 1), work: make(chan struct{}, 1)}
	err := db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{usersBucket, outboxBucket, queueBucket} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("prepare todo buckets: %w", err)
	}
	signal(s.wake) // what an earlier process left behind
	signal(s.work)
	return s, nil
}

// Read implements todo.Store.
func (s *Store) Read(ctx context.Context, user, id string) (r todo.Record, err error) {
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		r, err = readRecord(userBucket(tx, user), id)
		return err
	})
	return r, err
}

// Write implements todo.Store.
func (s *Store) Write(ctx context.Context, user string, w todo.Write) error {
	err := s.update(ctx, func(tx *bbolt.Tx) error {
		u, err := ensureUser(tx, user)
		if err != nil {
			return err
		}
		if w.Answer != nil {
			if err := s.keepAnswer(u, *w.Answer); err != nil {
				return err
			}
		}
		if err := putRecord(u, w.Before.Version, w.Next); err != nil {
			return err
		}
		return enqueue(tx, user, todo.EventOf(w.Before, w.Next), w.Next.Trace)
	})
	if err == nil {
		signal(s.wake)
	}
	return err
}

// Recall implements todo.Store.
func (s *Store) Recall(ctx context.Context, user, key string) (a todo.Answer, err error) {
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		found, err := getJSON(sub(userBucket(tx, user), answersBucket), []byte(key), &a)
		if err == nil && (!found || !a.Expires.After(s.now())) {
			a, err = todo.Answer{}, todo.ErrNotFound
		}
		return err
	})
	return a, err
}

// List implements todo.Store.
func (s *Store) List(ctx context.Context, user string, q todo.Query) (p todo.Page, err error) {
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		u := userBucket(tx, user)
		order := sub(u, orderBucket)
		if order == nil {
			return nil
		}
		c := order.Cursor()
		k, id := c.Last()
		if q.After != nil {
			k, id = seekBefore(c, []byte(q.After.OrderKey()))
		}
		for ; k != nil; k, id = c.Prev() {
			r, err := readRecord(u, string(id))
			if err != nil {
				return err
			}
			if q.Done != nil && r.Done != *q.Done {
				continue
			}
			if len(p.Items) == q.Limit {
				last := todo.CursorOf(p.Items[q.Limit-1])
				p.Next = &last
				return nil
			}
			p.Items = append(p.Items, r.Todo)
		}
		return nil
	})
	return p, err
}

// seekBefore moves c to the last key that is smaller than k.
func seekBefore(c *bbolt.Cursor, k []byte) (key, value []byte) {
	if at, _ := c.Seek(k); at == nil {
		return c.Last()
	}
	return c.Prev()
}

func (s *Store) keepAnswer(u *bbolt.Bucket, a todo.Answer) error {
	var old todo.Answer
	b, err := u.CreateBucketIfNotExists(answersBucket)
	if err != nil {
		return err
	}
	found, err := getJSON(b, []byte(a.Key), &old)
	if err != nil {
		return err
	}
	if found && old.Expires.After(s.now()) {
		return todo.ErrKeyUsed
	}
	return putJSON(b, []byte(a.Key), a)
}

// putRecord writes next if the stored version is before, and keeps order and count in step.
func putRecord(u *bbolt.Bucket, before uint64, next todo.Record) error {
	old, err := readRecord(u, next.ID)
	if err != nil {
		return err
	}
	if old.Version != before {
		return todo.ErrConflict
	}
	items, err := u.CreateBucketIfNotExists(itemsBucket)
	if err != nil {
		return err
	}
	order, err := u.CreateBucketIfNotExists(orderBucket)
	if err != nil {
		return err
	}
	n := count(u)
	if old.Live() {
		n--
		if err := order.Delete([]byte(todo.CursorOf(old.Todo).OrderKey())); err != nil {
			return err
		}
	}
	if next.Live() {
		if n++; !old.Live() && n > todo.PerUser {
			return todo.ErrFull
		}
		if err := order.Put([]byte(todo.CursorOf(next.Todo).OrderKey()), []byte(next.ID)); err != nil {
			return err
		}
	}
	if err := u.Put(countKey, sequence(n)); err != nil {
		return err
	}
	return putJSON(items, []byte(next.ID), next)
}

func readRecord(u *bbolt.Bucket, id string) (r todo.Record, err error) {
	_, err = getJSON(sub(u, itemsBucket), []byte(id), &r)
	return r, err
}

func count(u *bbolt.Bucket) uint64 {
	if b := u.Get(countKey); len(b) == 8 {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func userBucket(tx *bbolt.Tx, user string) *bbolt.Bucket {
	return sub(tx.Bucket(usersBucket), []byte(user))
}

func ensureUser(tx *bbolt.Tx, user string) (*bbolt.Bucket, error) {
	return tx.Bucket(usersBucket).CreateBucketIfNotExists([]byte(user))
}

// sub is b's bucket of that name; nil if there is none, or no b.
func sub(b *bbolt.Bucket, name []byte) *bbolt.Bucket {
	if b == nil || len(name) == 0 {
		return nil
	}
	return b.Bucket(name)
}

func getJSON(b *bbolt.Bucket, key []byte, v any) (found bool, err error) {
	if b == nil || len(key) == 0 {
		return false, nil
	}
	raw := b.Get(key)
	if raw == nil {
		return false, nil
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return false, fmt.Errorf("decode stored %q: %w", bytes.ToValidUTF8(key, nil), err)
	}
	return true, nil
}

func putJSON(b *bbolt.Bucket, key []byte, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return b.Put(key, raw)
}

func sequence(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

func (s *Store) view(ctx context.Context, f func(*bbolt.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", todo.ErrUnavailable, err)
	}
	return outward(s.db.View(f))
}

func (s *Store) update(ctx context.Context, f func(*bbolt.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", todo.ErrUnavailable, err)
	}
	return outward(s.db.Update(f))
}

// outward names the errors that mean that the database is closed.
func outward(err error) error {
	if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		return fmt.Errorf("%w: %w", todo.ErrUnavailable, err)
	}
	return err
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // a signal is waiting already
	}
}
