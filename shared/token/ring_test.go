package token_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"tideline/shared/limit"
	"tideline/shared/token"
	"tideline/shared/token/memory"
)

func TestKeyTimes(t *testing.T) {
	less := func(name string, a, b time.Duration) {
		t.Helper()
		if a >= b {
			t.Errorf("%s: %v must be less than %v", name, a, b)
		}
	}
	less("a read ends before it is tried again", token.ReloadTimeout, token.ReloadRetry)
	less("a failed read is tried again before an unknown key asks", token.ReloadRetry, token.ReloadUnknown)
	less("unknown keys can ask before the next read", token.ReloadUnknown, token.ReloadEvery)
	less("signers bridge several failed reads", 5*token.ReloadEvery, token.SignerStale)
	less("signers give up before verifiers do", token.SignerStale, token.StaleAfter)
	less("every verifier that still answers knows a key that signs", token.StaleAfter+token.ClockSkew, token.Propagation)
	for _, ring := range []string{token.RingAccess, token.RingSession} {
		less("a key signs for longer than it waits", token.Propagation, token.RotateEvery(ring))
	}
	less("an access token lives within its ring's bound", limit.TokenTTL, token.TokenLife(token.RingAccess))
	if n := token.TokenLife(token.RingSession)/token.RotateEvery(token.RingSession) + 4; n > token.ChangeMax/2 {
		t.Errorf("%d session keys at once", n)
	}
}

// table counts reads and fails when told to.
type table struct {
	*memory.Store
	mu    sync.Mutex
	fail  bool
	block chan struct{} // reads wait until it is closed
	reads atomic.Int64
}

func (s *table) Published(ctx context.Context) (token.Published, error) {
	s.reads.Add(1)
	s.mu.Lock()
	fail, block := s.fail, s.block
	s.mu.Unlock()
	if block != nil {
		select {
		case <-block:
		case <-ctx.Done():
			return token.Published{}, ctx.Err()
		}
	}
	if fail {
		return token.Published{}, errors.New("not reachable")
	}
	return s.Store.Published(ctx)
}

func (s *table) PrivateKeys(ctx context.Context, ring string) ([]token.PrivateKey, error) {
	s.reads.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail {
		return nil, errors.New("not reachable")
	}
	return s.Store.PrivateKeys(ctx, ring)
}

func (s *table) setFail(fail bool) { s.mu.Lock(); defer s.mu.Unlock(); s.fail = fail }

// newTable has one key per ring that signs since a minute.
func newTable(t *testing.T, now time.Time) *table {
	t.Helper()
	s := &table{Store: memory.New()}
	for _, ring := range []string{token.RingAccess, token.RingSession} {
		s.add(t, ring, 0, now, now.Add(-time.Minute))
	}
	return s
}

func (s *table) add(t *testing.T, ring string, version int64, now, from time.Time) token.Key {
	t.Helper()
	k, p, err := token.NewKey(ring, now, from)
	if err == nil {
		err = s.ChangeRing(t.Context(), token.Change{Ring: ring, Version: version, Add: &k, AddPrivate: &p})
	}
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func must(t *testing.T, s token.Signer, c token.Claims) string {
	t.Helper()
	raw, err := s.Sign(c)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestRingsSignAndVerifyTheirOwn(t *testing.T) {
	c := &clock{start}
	s := newTable(t, start)
	keys := token.NewKeys(s, c.now, nil)
	access := must(t, token.NewRingSigner(s, token.RingAccess, c.now, nil), token.Claims{User: "u", Session: "s", Roles: []string{"operator"}, Expires: start.Add(time.Hour)})
	session := must(t, token.NewRingSigner(s, token.RingSession, c.now, nil), token.Claims{User: "u", Expires: start.Add(time.Hour)})
	got, err := keys.Access().Verify(t.Context(), access)
	if err != nil || got.User != "u" || got.Session != "s" || len(got.Roles) != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := keys.Sessions().Verify(t.Context(), session); err != nil {
		t.Error(err)
	}
	if _, err := keys.Access().Verify(t.Context(), session); !errors.Is(err, token.ErrInvalid) {
		t.Errorf("a session as access token: %v", err)
	}
	if _, err := keys.Sessions().Verify(t.Context(), access); !errors.Is(err, token.ErrInvalid) {
		t.Errorf("an access token as session: %v", err)
	}
	c.advance(time.Hour)
	if _, err := keys.Access().Verify(t.Context(), access); !errors.Is(err, token.ErrExpired) {
		t.Errorf("expired: %v", err)
	}
}

func TestForgeriesAgainstPublicKeys(t *testing.T) {
	c := &clock{start}
	s := newTable(t, start)
	keys := token.NewKeys(s, c.now, nil)
	published, _ := s.Store.Published(t.Context())
	var kid, x string
	for _, k := range published.Keys {
		if k.Ring == token.RingAccess {
			var jwk struct{ X string }
			if err := json.Unmarshal(k.JWK, &jwk); err != nil {
				t.Fatal(err)
			}
			kid, x = k.ID, jwk.X
		}
	}
	public, err := base64.RawURLEncoding.DecodeString(x)
	if err != nil {
		t.Fatal(err)
	}
	_, other, _ := ed25519.GenerateKey(rand.Reader)
	claims := jwt.MapClaims{"iss": token.Issuer, "aud": token.Audience, "sub": "u", "exp": start.Add(time.Hour).Unix()}
	make := func(m jwt.SigningMethod, key any, kid any) string {
		tok := jwt.NewWithClaims(m, claims)
		if kid != nil {
			tok.Header["kid"] = kid
		}
		raw, err := tok.SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	for name, raw := range map[string]string{
		"HMAC with the public key": make(jwt.SigningMethodHS256, public, kid),
		"alg none":                 make(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, kid),
		"another key":              make(jwt.SigningMethodEdDSA, other, kid),
		"another key's id":         make(jwt.SigningMethodEdDSA, other, "unknown"),
		"no key id":                make(jwt.SigningMethodEdDSA, other, nil),
		"key id is a number":       make(jwt.SigningMethodEdDSA, other, 7),
		"key id is a list":         make(jwt.SigningMethodEdDSA, other, []string{kid}),
		"garbage":                  "x.y.z",
	} {
		if got, err := keys.Access().Verify(t.Context(), raw); !errors.Is(err, token.ErrInvalid) || got.User != "" {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestSignerWaitsForItsKeysTurn(t *testing.T) {
	c := &clock{start}
	s := &table{Store: memory.New()}
	signer := token.NewRingSigner(s, token.RingAccess, c.now, nil)
	if _, err := signer.Sign(token.Claims{}); !errors.Is(err, token.ErrUnavailable) {
		t.Errorf("without any key: %v", err)
	}
	first := s.add(t, token.RingAccess, 0, start, start.Add(time.Minute))
	c.advance(token.ReloadEvery - time.Second)
	if _, err := signer.Sign(token.Claims{}); !errors.Is(err, token.ErrUnavailable) {
		t.Errorf("before its turn: %v", err)
	}
	c.advance(time.Second)
	second := s.add(t, token.RingAccess, 1, start, start.Add(time.Hour))
	kid := func() string {
		t.Helper()
		tok, _, err := jwt.NewParser().ParseUnverified(must(t, signer, token.Claims{User: "u"}), jwt.MapClaims{})
		if err != nil {
			t.Fatal(err)
		}
		return tok.Header["kid"].(string)
	}
	if got := kid(); got != first.ID {
		t.Errorf("signed with %s, want the first key", got)
	}
	c.advance(59*time.Minute - time.Second)
	if got := kid(); got != first.ID {
		t.Errorf("signed with %s, want the first key", got)
	}
	c.advance(time.Second)
	if got := kid(); got != second.ID {
		t.Errorf("signed with %s, want the second key", got)
	}
	s.setFail(true)
	c.advance(token.SignerStale - 2*time.Second) // the last read was a second ago
	kid()
	c.advance(time.Second)
	if _, err := signer.Sign(token.Claims{}); !errors.Is(err, token.ErrUnavailable) {
		t.Errorf("with keys that are %v old: %v", token.SignerStale, err)
	}
}

func TestVerifiersReadWhenTheyMust(t *testing.T) {
	c := &clock{start}
	s := newTable(t, start)
	var complaints atomic.Int64
	keys := token.NewKeys(s, c.now, func(error) { complaints.Add(1) })
	raw := must(t, token.NewRingSigner(s, token.RingAccess, c.now, nil), token.Claims{User: "u", Expires: start.Add(24 * time.Hour)})
	s.reads.Store(0)
	verify := func(what string, want error, reads int64) {
		t.Helper()
		before := s.reads.Load()
		_, err := keys.Access().Verify(t.Context(), raw)
		if !errors.Is(err, want) || (want == nil && err != nil) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
		if n := s.reads.Load() - before; n != reads {
			t.Errorf("%s: %d reads, want %d", what, n, reads)
		}
	}
	verify("the first", nil, 1)
	verify("the second", nil, 0)
	c.advance(token.ReloadEvery - time.Second)
	verify("just before the interval", nil, 0)
	c.advance(time.Second)
	verify("at the interval", nil, 1)

	s.setFail(true)
	c.advance(token.ReloadEvery)
	verify("while the table is away", nil, 1)
	verify("at once again", nil, 0)
	c.advance(token.ReloadRetry)
	verify("after the retry's interval", nil, 1)
	if complaints.Load() != 2 {
		t.Errorf("%d complaints", complaints.Load())
	}
	c.advance(token.StaleAfter - token.ReloadEvery - token.ReloadRetry - time.Second)
	verify("just before it is stale", nil, 1)
	c.advance(token.ReloadRetry)
	verify("stale", token.ErrUnavailable, 1)
	s.setFail(false)
	c.advance(token.ReloadRetry)
	verify("back again", nil, 1)
}

func TestUnknownKeysAskAtMostEveryHalfMinute(t *testing.T) {
	c := &clock{start}
	s := newTable(t, start)
	keys := token.NewKeys(s, c.now, nil)
	if err := keys.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	// A key that verifiers have not read yet, as at the very first start.
	c.advance(time.Second)
	s.add(t, token.RingAccess, 1, c.now(), c.now())
	raw := must(t, token.NewRingSigner(s, token.RingAccess, c.now, nil), token.Claims{User: "u"})
	s.reads.Store(0)
	if _, err := keys.Access().Verify(t.Context(), raw); err != nil || s.reads.Load() != 1 {
		t.Errorf("%v after %d reads", err, s.reads.Load())
	}
	// Then somebody sends made-up ids.
	_, other, _ := ed25519.GenerateKey(rand.Reader)
	flood := func() {
		for range 50 {
			tok := jwt.NewWithClaims(jwt.SigningMethodEdDSA, jwt.MapClaims{"iss": token.Issuer, "aud": token.Audience})
			tok.Header["kid"] = rand.Text()
			made, _ := tok.SignedString(other)
			if _, err := keys.Access().Verify(t.Context(), made); !errors.Is(err, token.ErrInvalid) {
				t.Fatal(err)
			}
		}
	}
	flood()
	if n := s.reads.Load(); n != 1 {
		t.Errorf("%d reads within %v", n, token.ReloadUnknown)
	}
	c.advance(token.ReloadUnknown)
	flood()
	if n := s.reads.Load(); n != 2 {
		t.Errorf("%d reads after %v", n, token.ReloadUnknown)
	}
}

func TestOneReadsAndOthersGoOn(t *testing.T) {
	c := &clock{start}
	s := newTable(t, start)
	keys := token.NewKeys(s, c.now, nil)
	raw := must(t, token.NewRingSigner(s, token.RingAccess, c.now, nil), token.Claims{User: "u"})
	if err := keys.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.advance(token.ReloadEvery)
	s.mu.Lock()
	s.block = make(chan struct{})
	s.mu.Unlock()
	s.reads.Store(0)
	slow := make(chan error)
	go func() { _, err := keys.Access().Verify(context.Background(), raw); slow <- err }()
	deadline := time.Now().Add(30 * time.Second)
	for s.reads.Load() == 0 && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	for range 100 { // while one waits for the table
		if _, err := keys.Access().Verify(t.Context(), raw); err != nil {
			t.Fatal(err)
		}
	}
	close(s.block)
	if err := <-slow; err != nil || s.reads.Load() != 1 {
		t.Errorf("%v, %d reads", err, s.reads.Load())
	}
}

func FuzzVerify(f *testing.F) {
	s, err := token.NewSecrets([]string{secretA}, func() time.Time { return start })
	if err != nil {
		f.Fatal(err)
	}
	e := token.Either{Secrets: s, Ring: token.NewKeys(memory.New(), nil, nil).Access(), Issuers: token.NewKeys(memory.New(), nil, nil).Issuers(nil)}
	good, _ := s.Sign(token.Claims{User: "u", ID: "fixed"})
	for _, raw := range []string{good, "", "..", "eyJhbGciOiJub25lIn0.e30.", strings.Replace(good, ".", ".e30.", 1)} {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		c, err := e.Verify(t.Context(), raw)
		// The last letter of base64 has spare bits: another spelling of the same token is fine, other claims are not.
		if err == nil && (len(raw) != len(good) || raw[:len(good)-1] != good[:len(good)-1] || c.User != "u" || c.ID != "fixed") {
			t.Errorf("accepted %q as %+v", raw, c)
		}
		if err != nil && !errors.Is(err, token.ErrInvalid) && !errors.Is(err, token.ErrExpired) && !errors.Is(err, token.ErrUnavailable) {
			t.Errorf("%q: %v is none of the documented errors", raw, err)
		}
	})
}

func TestTokenLength(t *testing.T) {
	s := mustSecrets(t, nil, secretA)
	raw := func(n int) string {
		return must(t, s, token.Claims{User: "u", ID: "i", IssuedAt: start, Info: json.RawMessage(`"` + strings.Repeat("x", n) + `"`)})
	}
	n := (token.LengthMax - len(raw(0))) * 3 / 4
	for len(raw(n)) <= token.LengthMax {
		n++
	}
	if _, err := s.Verify(t.Context(), raw(n-1)); err != nil {
		t.Errorf("%d bytes: %v", len(raw(n-1)), err)
	}
	if _, err := s.Verify(t.Context(), raw(n)); !errors.Is(err, token.ErrInvalid) {
		t.Errorf("%d bytes: %v", len(raw(n)), err)
	}
}
