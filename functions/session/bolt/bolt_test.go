package bolt_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"tideline/functions/session"
	"tideline/functions/session/bolt"
	"tideline/functions/session/storetest"
)

func openDB(t *testing.T) *bbolt.DB {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(t.TempDir(), "db"), 0o600, &bbolt.Options{Timeout: 30 * time.Second, NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func TestStore(t *testing.T) {
	now := time.Now()
	db := openDB(t)
	storetest.Run(t, now, func(t *testing.T) session.Store {
		s, err := bolt.New(db, nil)
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}

func TestWhatHasEndedIsSwept(t *testing.T) {
	db := openDB(t)
	now := time.Unix(1_800_000_000, 0)
	s, err := bolt.New(db, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	for i := range 40 {
		if err := errors.Join(s.PutLink(t.Context(), fmt.Sprint("l", i), session.Link{User: "u", Expires: now}),
			s.Revoke(t.Context(), fmt.Sprint("s", i), now.Add(session.LinkKept))); err != nil {
			t.Fatal(err)
		}
	}
	// Signed out again, for longer: the first mark must not take the record away.
	if err := s.Revoke(t.Context(), "s0", now.Add(24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	now = now.Add(session.LinkKept + time.Second)
	for i := range 3 { // 80 records, 32 at a time
		if err := s.PutLink(t.Context(), fmt.Sprint("new", i), session.Link{User: "u", Expires: now}); err != nil {
			t.Fatal(err)
		}
	}
	err = db.View(func(tx *bbolt.Tx) error {
		for name, want := range map[string]int{"session.links": 3, "session.revoked": 1, "session.ends": 4} {
			if n := tx.Bucket([]byte(name)).Stats().KeyN; n != want {
				t.Errorf("%s has %d records, want %d", name, n, want)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if out, err := s.Revoked(t.Context(), "s0", now); err != nil || !out {
		t.Errorf("the session that was signed out for longer: %v, %v", out, err)
	}
}
