// Package memory is a key table in memory, for one process: tests, and systems that make new keys when they start.
package memory

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"sync"

	"tideline/shared/token"
)

// Store is a token.Store.
type Store struct {
	mu       sync.Mutex
	versions map[string]int64
	public   map[string]token.Key
	private  map[string]token.PrivateKey
	issuers  map[string]token.IssuerKeys
}

var _ token.Store = (*Store)(nil)

// New is empty.
func New() *Store {
	return &Store{versions: map[string]int64{}, public: map[string]token.Key{}, private: map[string]token.PrivateKey{},
		issuers: map[string]token.IssuerKeys{}}
}

// Published implements token.PublicSource.
func (s *Store) Published(context.Context) (token.Published, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := token.Published{Issuers: map[string]json.RawMessage{}}
	for _, k := range s.public {
		p.Keys = append(p.Keys, k)
	}
	for _, i := range s.issuers {
		p.Issuers[i.Issuer] = i.Set
	}
	return p, nil
}

// PrivateKeys implements token.PrivateSource.
func (s *Store) PrivateKeys(_ context.Context, ring string) ([]token.PrivateKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []token.PrivateKey
	for _, k := range s.private {
		if k.Ring == ring {
			out = append(out, k)
		}
	}
	return out, nil
}

// ReadRing implements token.Store.
func (s *Store) ReadRing(_ context.Context, ring string) (token.Ring, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := token.Ring{Version: s.versions[ring]}
	for _, k := range s.public {
		if k.Ring == ring {
			r.Keys = append(r.Keys, k)
		}
	}
	return r, nil
}

// ChangeRing implements token.Store.
func (s *Store) ChangeRing(_ context.Context, c token.Change) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.versions[c.Ring] != c.Version {
		return token.ErrConflict
	}
	s.versions[c.Ring]++
	if c.Add != nil {
		s.public[c.Add.ID], s.private[c.Add.ID] = *c.Add, *c.AddPrivate
	}
	for id, at := range c.Retire {
		k := s.public[id]
		k.Retire = at
		s.public[id] = k
	}
	for _, id := range c.Remove {
		delete(s.public, id)
		delete(s.private, id)
	}
	return nil
}

// ReadIssuers implements token.Store.
func (s *Store) ReadIssuers(context.Context) ([]token.IssuerKeys, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.issuers)), nil
}

// PutIssuer implements token.Store.
func (s *Store) PutIssuer(_ context.Context, k token.IssuerKeys) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.issuers[k.Issuer] = k
	return nil
}

// RemoveIssuer implements token.Store.
func (s *Store) RemoveIssuer(_ context.Context, issuer string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.issuers, issuer)
	return nil
}
