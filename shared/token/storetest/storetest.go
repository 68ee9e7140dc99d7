// Package storetest is the suite that every token.Store must pass.
package storetest

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tideline/shared/token"
)

// Run runs the suite; open answers an empty store.
func Run(t *testing.T, open func(t *testing.T) token.Store) {
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	add := func(t *testing.T, s token.Store, ring string, version int64) (token.Key, token.PrivateKey) {
		t.Helper()
		k, p, err := token.NewKey(ring, now, now.Add(time.Hour))
		if err == nil {
			err = s.ChangeRing(t.Context(), token.Change{Ring: ring, Version: version, Add: &k, AddPrivate: &p})
		}
		if err != nil {
			t.Fatal(err)
		}
		return k, p
	}

	t.Run("an empty store is empty", func(t *testing.T) {
		s := open(t)
		r, err1 := s.ReadRing(t.Context(), token.RingAccess)
		p, err2 := s.Published(t.Context())
		priv, err3 := s.PrivateKeys(t.Context(), token.RingAccess)
		if err := errors.Join(err1, err2, err3); err != nil || r.Version != 0 || len(r.Keys)+len(p.Keys)+len(p.Issuers)+len(priv) != 0 {
			t.Errorf("%+v %+v %d, %v", r, p, len(priv), err)
		}
	})
	t.Run("a key comes back in both halves, each where it belongs", func(t *testing.T) {
		s := open(t)
		k, priv := add(t, s, token.RingAccess, 0)
		other, _ := add(t, s, token.RingSession, 0)
		r, err := s.ReadRing(t.Context(), token.RingAccess)
		if err != nil || r.Version != 1 || len(r.Keys) != 1 || !reflect.DeepEqual(r.Keys[0], k) {
			t.Errorf("ring %+v, %v; want %+v", r, err, k)
		}
		got, err := s.PrivateKeys(t.Context(), token.RingAccess)
		if err != nil || len(got) != 1 || !reflect.DeepEqual(got[0], priv) {
			t.Errorf("private keys differ: %v", err)
		}
		p, err := s.Published(t.Context())
		if err != nil || len(p.Keys) != 2 {
			t.Fatalf("published %+v, %v", p, err)
		}
		for _, k := range p.Keys {
			var jwk map[string]any
			if err := json.Unmarshal(k.JWK, &jwk); err != nil || jwk["d"] != nil || (k.Ring == token.RingSession) != (k.ID == other.ID) {
				t.Errorf("published %+v, %v", k, err)
			}
		}
	})
	t.Run("a change retires and removes", func(t *testing.T) {
		s := open(t)
		a, _ := add(t, s, token.RingAccess, 0)
		b, _ := add(t, s, token.RingAccess, 1)
		at := now.Add(3 * time.Hour)
		if err := s.ChangeRing(t.Context(), token.Change{Ring: token.RingAccess, Version: 2, Retire: map[string]time.Time{b.ID: at}, Remove: []string{a.ID}}); err != nil {
			t.Fatal(err)
		}
		r, err := s.ReadRing(t.Context(), token.RingAccess)
		b.Retire = at
		if err != nil || r.Version != 3 || len(r.Keys) != 1 || !reflect.DeepEqual(r.Keys[0], b) {
			t.Errorf("%+v, %v; want %+v", r, err, b)
		}
		if priv, err := s.PrivateKeys(t.Context(), token.RingAccess); err != nil || len(priv) != 1 || priv[0].ID != b.ID {
			t.Errorf("%d private keys, %v", len(priv), err)
		}
	})
	t.Run("a change of an old version does nothing", func(t *testing.T) {
		s := open(t)
		a, _ := add(t, s, token.RingAccess, 0)
		k, p, err := token.NewKey(token.RingAccess, now, now)
		if err != nil {
			t.Fatal(err)
		}
		for _, version := range []int64{0, 2} {
			err := s.ChangeRing(t.Context(), token.Change{Ring: token.RingAccess, Version: version, Add: &k, AddPrivate: &p, Remove: []string{a.ID}})
			if !errors.Is(err, token.ErrConflict) {
				t.Errorf("version %d: %v, want ErrConflict", version, err)
			}
		}
		if r, err := s.ReadRing(t.Context(), token.RingAccess); err != nil || r.Version != 1 || len(r.Keys) != 1 {
			t.Errorf("%+v, %v", r, err)
		}
	})
	t.Run("of concurrent changes one wins", func(t *testing.T) {
		s := open(t)
		var won atomic.Int32
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				k, p, err := token.NewKey(token.RingAccess, now, now)
				if err == nil {
					err = s.ChangeRing(t.Context(), token.Change{Ring: token.RingAccess, Add: &k, AddPrivate: &p})
				}
				if err == nil {
					won.Add(1)
				} else if !errors.Is(err, token.ErrConflict) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if r, err := s.ReadRing(t.Context(), token.RingAccess); err != nil || won.Load() != 1 || len(r.Keys) != 1 {
			t.Errorf("%d won, %d keys, %v", won.Load(), len(r.Keys), err)
		}
	})
	t.Run("issuers' keys are replaced and removed", func(t *testing.T) {
		s := open(t)
		k := token.IssuerKeys{Issuer: "https://issuer.example/a#b", Set: []byte(`{"keys":[]}`), Fetched: now, ETag: `"1"`, Fresh: now.Add(time.Hour)}
		for i := range 2 {
			k.ETag = fmt.Sprint(i)
			if err := s.PutIssuer(t.Context(), k); err != nil {
				t.Fatal(err)
			}
		}
		all, err := s.ReadIssuers(t.Context())
		if err != nil || len(all) != 1 || !reflect.DeepEqual(all[0], k) {
			t.Errorf("%+v, %v; want %+v", all, err, k)
		}
		if p, err := s.Published(t.Context()); err != nil || string(p.Issuers[k.Issuer]) != string(k.Set) {
			t.Errorf("%+v, %v", p, err)
		}
		if err := s.RemoveIssuer(t.Context(), k.Issuer); err != nil {
			t.Fatal(err)
		}
		if all, err := s.ReadIssuers(t.Context()); err != nil || len(all) != 0 {
			t.Errorf("%+v, %v", all, err)
		}
	})
}
