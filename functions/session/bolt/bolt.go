// Package bolt keeps links and signed-out sessions in a bbolt database, for one process.
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

	"tideline/functions/session"
)

var (
	links   = []byte("session.links")
	revoked = []byte("session.revoked")
	// ends has an empty record for each of the others under its end (8 bytes), its bucket's letter and its id: what to sweep, in order.
	ends = []byte("session.ends")
)

// sweepBatch bounds the expired records that one write removes, so that no write is slow. It is above 1, so sweeping outpaces writing.
const sweepBatch = 32

// Store is a session.Store. Every call is one transaction; the context is not looked at, bbolt does not wait for a network.
type Store struct {
	db  *bbolt.DB
	now func() time.Time
}

var _ session.Store = (*Store)(nil)

// New makes the buckets in a database that the caller opened and closes. Now is nil for the real clock; it only decides what is swept.
func New(db *bbolt.DB, now func() time.Time) (*Store, error) {
	err := db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{links, revoked, ends} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("session store: %w", err)
	}
	if now == nil {
		now = time.Now
	}
	return &Store{db: db, now: now}, nil
}

type record struct {
	session.Link
	Used bool `json:"used,omitempty"`
}

// PutLink implements session.Store.
func (s *Store) PutLink(_ context.Context, id string, l session.Link) error {
	b, err := json.Marshal(record{Link: l})
	if err != nil {
		return err
	}
	return s.put(links, id, b, l.Expires.Add(session.LinkKept))
}

// put writes a record that may go after end, and removes what may go now.
func (s *Store) put(bucket []byte, id string, value []byte, end time.Time) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		if err := sweep(tx, s.now()); err != nil {
			return err
		}
		mark := binary.BigEndian.AppendUint64(nil, uint64(end.Unix()))
		mark = append(append(mark, letter(bucket)), id...)
		if err := tx.Bucket(ends).Put(mark, nil); err != nil {
			return err
		}
		return tx.Bucket(bucket).Put([]byte(id), value)
	})
}

func letter(bucket []byte) byte {
	if bytes.Equal(bucket, links) {
		return 'l'
	}
	return 'r'
}

// TakeLink implements session.Store.
func (s *Store) TakeLink(_ context.Context, id string, now time.Time) (session.Link, error) {
	var r record
	err := s.db.Update(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket(links)
		b := bucket.Get([]byte(id))
		if b == nil {
			return session.ErrLinkExpired
		}
		if err := json.Unmarshal(b, &r); err != nil {
			return fmt.Errorf("link record: %w", err)
		}
		switch {
		case r.Used:
			return session.ErrLinkUsed
		case !now.Before(r.Expires):
			return session.ErrLinkExpired
		}
		r.Used = true
		b, err := json.Marshal(r)
		if err != nil {
			return err
		}
		return bucket.Put([]byte(id), b)
	})
	if err != nil {
		return session.Link{}, err
	}
	return r.Link, nil
}

// Revoke implements session.Store.
func (s *Store) Revoke(_ context.Context, id string, until time.Time) error {
	return s.put(revoked, id, binary.BigEndian.AppendUint64(nil, uint64(until.Unix())), until)
}

// Revoked implements session.Store.
func (s *Store) Revoked(_ context.Context, id string, now time.Time) (bool, error) {
	var out bool
	err := s.db.View(func(tx *bbolt.Tx) error {
		if b := tx.Bucket(revoked).Get([]byte(id)); b != nil {
			out = now.Before(seconds(b))
		}
		return nil
	})
	return out, err
}

func seconds(b []byte) time.Time {
	if len(b) != 8 {
		return time.Time{}
	}
	return time.Unix(int64(binary.BigEndian.Uint64(b)), 0)
}

// sweep removes records that ended before now, at most sweepBatch. A session that was signed out twice has two marks; the earlier one
// must not remove the record that the later one still needs.
func sweep(tx *bbolt.Tx, now time.Time) error {
	var old [][]byte
	cursor := tx.Bucket(ends).Cursor()
	for k, _ := cursor.First(); len(k) > 9 && len(old) < sweepBatch && seconds(k[:8]).Before(now); k, _ = cursor.Next() {
		old = append(old, bytes.Clone(k))
	}
	for _, k := range old {
		bucket, id := tx.Bucket(links), k[9:]
		if k[8] == 'r' {
			bucket = tx.Bucket(revoked)
			if !seconds(bucket.Get(id)).Before(now) {
				bucket = nil
			}
		}
		if bucket != nil {
			if err := bucket.Delete(id); err != nil {
				return err
			}
		}
		if err := tx.Bucket(ends).Delete(k); err != nil {
			return err
		}
	}
	return nil
}

// File is a Store with a database of its own.
type File struct {
	*Store
	db *bbolt.DB
}

// openTimeout is how long Open waits for another process to let go of the file.
const openTimeout = 2 * time.Second

// Open opens or makes the file. The caller closes it.
func Open(path string) (*File, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: openTimeout})
	if err != nil {
		return nil, fmt.Errorf("session store %s: %w", path, err)
	}
	s, err := New(db, nil)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &File{s, db}, nil
}

// Close waits for running calls.
func (f *File) Close() error { return f.db.Close() }
