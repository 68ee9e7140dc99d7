package token

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// cache reads something again when it is used and old. One caller at a time reads; the others go on with what there is, and wait only
// while there is nothing that they may use.
type cache[T any] struct {
	read     func(context.Context) (T, error)
	now      func() time.Time
	stale    time.Duration // older than this it is not used
	complain func(error)

	current atomic.Pointer[loaded[T]]

	turn   chan struct{} // holds one token: whoever took it reads
	mu     sync.Mutex
	tried  time.Time // the last read's start
	failed bool      // its outcome
	forKey time.Time // the last read because of an unknown key
}

type loaded[T any] struct {
	value T
	at    time.Time // when the read started: everything published before is in it
}

func newCache[T any](read func(context.Context) (T, error), stale time.Duration, now func() time.Time, complain func(error)) *cache[T] {
	if now == nil {
		now = time.Now
	}
	if complain == nil {
		complain = func(error) {}
	}
	c := &cache[T]{read: read, now: now, stale: stale, complain: complain, turn: make(chan struct{}, 1)}
	c.turn <- struct{}{}
	return c
}

// get answers a value that is not stale, or ErrUnavailable.
func (c *cache[T]) get(ctx context.Context) (T, error) {
	l := c.current.Load()
	usable := l != nil && c.now().Sub(l.at) < c.stale
	if usable && c.now().Sub(l.at) < ReloadEvery {
		return l.value, nil
	}
	if usable {
		select {
		case <-c.turn: // nobody reads: do it
			c.reload(ctx, false)
		default:
		}
	} else {
		select {
		case <-c.turn:
			c.reload(ctx, false)
		case <-ctx.Done():
		}
	}
	if l = c.current.Load(); l != nil && c.now().Sub(l.at) < c.stale {
		return l.value, nil
	}
	var none T
	return none, ErrUnavailable
}

// again reads because of a key id that is not known, at most every ReloadUnknown. ok is false when nothing newer was read.
func (c *cache[T]) again(ctx context.Context) (value T, ok bool) {
	before := c.current.Load()
	select {
	case <-c.turn:
		c.reload(ctx, true)
	case <-ctx.Done():
	}
	l := c.current.Load()
	if l == nil || l == before {
		return value, false
	}
	return l.value, true
}

// reload reads once, and gives the turn back. The caller has it.
func (c *cache[T]) reload(ctx context.Context, unknown bool) {
	defer func() { c.turn <- struct{}{} }()
	now := c.now()
	c.mu.Lock()
	l := c.current.Load()
	due := l == nil || now.Sub(l.at) >= ReloadEvery // another caller may have read while this one waited for its turn
	if c.failed && now.Sub(c.tried) < ReloadRetry {
		due = false
	}
	if unknown && !due && now.Sub(c.forKey) >= ReloadUnknown && (l == nil || now.After(l.at)) {
		due, c.forKey = true, now
	}
	if due {
		c.tried = now
	}
	c.mu.Unlock()
	if !due {
		return
	}
	// The read serves everybody: a caller that goes away must not spoil it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), ReloadTimeout)
	defer cancel()
	v, err := c.read(ctx)
	c.mu.Lock()
	c.failed = err != nil
	c.mu.Unlock()
	if err != nil {
		c.complain(fmt.Errorf("read token keys: %w", err))
		return
	}
	c.current.Store(&loaded[T]{v, now})
}

// Keys follows the published keys for a process. It is safe for concurrent use and has no goroutine: it reads while it is used.
type Keys struct {
	cache *cache[keyring]
	now   func() time.Time
}

// keyring is what was published, ready to use.
type keyring struct {
	rings   map[string]map[string]verificationKey // by ring and key id
	retire  map[string]time.Time                  // by key id
	issuers map[string]map[string]verificationKey
}

// NewKeys follows a source. Complain hears of failed reads; it and now may be nil.
func NewKeys(source PublicSource, now func() time.Time, complain func(error)) *Keys {
	c := newCache(func(ctx context.Context) (keyring, error) {
		p, err := source.Published(ctx)
		if err != nil {
			return keyring{}, err
		}
		return newKeyring(p)
	}, StaleAfter, now, complain)
	return &Keys{cache: c, now: c.now}
}

func newKeyring(p Published) (keyring, error) {
	r := keyring{rings: map[string]map[string]verificationKey{}, retire: map[string]time.Time{}, issuers: map[string]map[string]verificationKey{}}
	for _, k := range p.Keys {
		one, _, err := publicKeys(json.RawMessage(`{"keys":[` + string(k.JWK) + `]}`))
		if err != nil || len(one) != 1 {
			return keyring{}, fmt.Errorf("key %s is not usable", k.ID)
		}
		if r.rings[k.Ring] == nil {
			r.rings[k.Ring] = map[string]verificationKey{}
		}
		r.rings[k.Ring][k.ID] = one[k.ID]
		if !k.Retire.IsZero() {
			r.retire[k.ID] = k.Retire
		}
	}
	for issuer, set := range p.Issuers {
		keys, _, err := publicKeys(set)
		if err != nil {
			return keyring{}, fmt.Errorf("issuer %s: %w", issuer, err)
		}
		r.issuers[issuer] = keys
	}
	return r, nil
}

// Load reads the keys for the first time, so that a start without them fails early.
func (k *Keys) Load(ctx context.Context) error {
	_, err := k.cache.get(ctx)
	return err
}

// Access verifies access tokens, Sessions session cookies.
func (k *Keys) Access() Verifier   { return &ringVerifier{k, RingAccess, Audience} }
func (k *Keys) Sessions() Verifier { return &ringVerifier{k, RingSession, AudienceSession} }

type ringVerifier struct {
	keys           *Keys
	ring, audience string
}

// Verify implements Verifier.
func (v *ringVerifier) Verify(ctx context.Context, raw string) (Claims, error) {
	r, err := v.keys.cache.get(ctx)
	if err != nil {
		return Claims{}, err
	}
	c, err := v.parse(raw, r)
	if errors.Is(err, errUnknownKey) {
		if newer, ok := v.keys.cache.again(ctx); ok {
			c, err = v.parse(raw, newer)
		}
	}
	return c, v.keys.doubt(err)
}

// doubt turns "unknown key" into ErrUnavailable while reads fail: the key may be among what could not be read.
func (k *Keys) doubt(err error) error {
	if errors.Is(err, errUnknownKey) {
		if l := k.cache.current.Load(); l == nil || k.now().Sub(l.at) >= ReloadEvery {
			return fmt.Errorf("%w: unknown key id while keys can't be read", ErrUnavailable)
		}
	}
	return err
}

func (v *ringVerifier) parse(raw string, r keyring) (Claims, error) {
	return parse(raw, v.audience, []string{"EdDSA", "ES256"}, v.keys.now, func(t *jwt.Token) (any, error) {
		key, err := pick(r.rings[v.ring], t)
		if err != nil {
			return nil, err
		}
		if end, ok := r.retire[t.Header["kid"].(string)]; ok && !v.keys.now().Before(end) {
			return nil, errors.New("retired key")
		}
		return key, nil
	})
}

// RingSigner signs with a ring's newest key that may sign. It is safe for concurrent use and reads keys while it is used.
type RingSigner struct {
	cache    *cache[[]signingKey]
	audience string
	now      func() time.Time
}

type signingKey struct {
	id   string
	from time.Time
	key  any
}

// NewRingSigner signs for one ring: RingAccess or RingSession.
func NewRingSigner(source PrivateSource, ring string, now func() time.Time, complain func(error)) *RingSigner {
	audience := Audience
	if ring == RingSession {
		audience = AudienceSession
	}
	c := newCache(func(ctx context.Context) ([]signingKey, error) {
		keys, err := source.PrivateKeys(ctx, ring)
		if err != nil {
			return nil, err
		}
		return signingKeys(keys)
	}, SignerStale, now, complain)
	return &RingSigner{cache: c, audience: audience, now: c.now}
}

// signingKeys are in the order in which they come to sign.
func signingKeys(keys []PrivateKey) ([]signingKey, error) {
	out := make([]signingKey, 0, len(keys))
	for _, k := range keys {
		jwk, err := parseJWK(k.JWK, true)
		if err != nil {
			return nil, fmt.Errorf("signing key %s: %w", k.ID, err)
		}
		out = append(out, signingKey{k.ID, k.SignFrom, jwk.Key()})
	}
	slices.SortFunc(out, func(a, b signingKey) int { return cmp.Or(a.from.Compare(b.from), cmp.Compare(a.id, b.id)) })
	return out, nil
}

// Sign implements Signer. ErrUnavailable when the keys can't be read, or none may sign yet.
func (s *RingSigner) Sign(c Claims) (string, error) {
	keys, err := s.cache.get(context.Background())
	if err != nil {
		return "", err
	}
	now := s.now()
	var best *signingKey
	for i := range keys {
		if !keys[i].from.After(now) {
			best = &keys[i]
		}
	}
	if best == nil {
		return "", fmt.Errorf("%w: no key may sign yet", ErrUnavailable)
	}
	t := jwt.NewWithClaims(jwt.SigningMethodEdDSA, c.wire(s.audience, now))
	t.Header["kid"] = best.id
	raw, err := t.SignedString(best.key)
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	return raw, nil
}

// Pair is a Signer with the Verifier of what it signs.
type Pair struct {
	Signer
	Verifier
}
