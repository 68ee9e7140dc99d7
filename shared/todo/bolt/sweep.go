package bolt

import (
	"bytes"
	"context"
	"encoding/json"
	"time"

	"go.etcd.io/bbolt"
)

// sweepBatch is the most keys that one write transaction of Sweep deletes, so that other writers wait briefly.
const sweepBatch = 500

// expired names a key below a user's bucket.
type expired struct{ user, bucket, key []byte }

// Sweep deletes tombstones, answers and tasks that have expired. It looks for them without keeping writers waiting, and
// returns when nothing is left or ctx ends.
func (s *Store) Sweep(ctx context.Context) error {
	for {
		var found []expired
		err := s.view(ctx, func(tx *bbolt.Tx) error {
			found = s.findExpired(tx)
			return nil
		})
		if err != nil || len(found) == 0 {
			return err
		}
		err = s.update(ctx, func(tx *bbolt.Tx) error {
			for _, e := range found {
				b := sub(sub(tx.Bucket(usersBucket), e.user), e.bucket)
				if b == nil || !hasExpired(b.Get(e.key), s.now()) { // written again meanwhile
					continue
				}
				if err := b.Delete(e.key); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil || len(found) < sweepBatch {
			return err
		}
	}
}

func (s *Store) findExpired(tx *bbolt.Tx) (found []expired) {
	users := tx.Bucket(usersBucket).Cursor()
	for user, _ := users.First(); user != nil; user, _ = users.Next() {
		for _, name := range [][]byte{itemsBucket, answersBucket, tasksBucket} {
			b := sub(tx.Bucket(usersBucket).Bucket(user), name)
			if b == nil {
				continue
			}
			c := b.Cursor()
			for k, v := c.First(); k != nil; k, v = c.Next() {
				if !hasExpired(v, s.now()) {
					continue
				}
				found = append(found, expired{bytes.Clone(user), name, bytes.Clone(k)})
				if len(found) == sweepBatch {
					return found
				}
			}
		}
	}
	return found
}

// hasExpired reads only the time; a value that is not ours to understand stays.
func hasExpired(value []byte, now time.Time) bool {
	var x struct{ Expires time.Time }
	return bytes.Contains(value, []byte(`"expires"`)) && json.Unmarshal(value, &x) == nil && !x.Expires.IsZero() && x.Expires.Before(now)
}
