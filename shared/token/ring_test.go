package token_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/big"
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
	deadline := time.Now().Add(5 * time.Second)
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

// --- issuers ---

const issuerURL = "https://login.example"

func jwkSet(t *testing.T, keys ...map[string]any) json.RawMessage {
	t.Helper()
	b, err := json.Marshal(map[string]any{"keys": keys})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func rsaJWK(k *rsa.PrivateKey, kid string) map[string]any {
	return map[string]any{"kty": "RSA", "kid": kid, "use": "sig", "alg": "RS256", "n": b64(k.N.Bytes()), "e": b64(big.NewInt(int64(k.E)).Bytes())}
}

func TestTokensOfIssuers(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := ec.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	weak, _ := jwkWeak(t)
	set, err := token.Usable(jwkSet(t, rsaJWK(key, "r1"),
		map[string]any{"kty": "EC", "kid": "e1", "crv": "P-256", "x": b64(point[1:33]), "y": b64(point[33:])},
		map[string]any{"kty": "oct", "kid": "sym", "k": b64([]byte(secretA))},
		map[string]any{"kty": "XYZ", "kid": "odd"}, weak))
	if err != nil {
		t.Fatal(err)
	}
	c := &clock{start}
	s := newTable(t, start)
	if err := s.PutIssuer(t.Context(), token.IssuerKeys{Issuer: issuerURL, Set: set}); err != nil {
		t.Fatal(err)
	}
	issuers, err := token.ParseIssuers(`[{"name":"acme","issuer":"` + issuerURL + `","audience":"client","rolesClaim":"realm.roles","operator":"ops"},
		{"name":"other","issuer":"https://other.example","audience":"client"}]`)
	if err != nil {
		t.Fatal(err)
	}
	keys := token.NewKeys(s, c.now, nil)
	v := keys.Issuers(issuers)
	claims := func(change func(jwt.MapClaims)) jwt.MapClaims {
		m := jwt.MapClaims{"iss": issuerURL, "aud": "client", "sub": "42", "name": "Ann", "iat": start.Unix(), "exp": start.Add(time.Hour).Unix(),
			"realm": map[string]any{"roles": []string{"dev", "ops"}}}
		if change != nil {
			change(m)
		}
		return m
	}
	make := func(m jwt.SigningMethod, key any, kid string, change func(jwt.MapClaims)) string {
		tok := jwt.NewWithClaims(m, claims(change))
		tok.Header["kid"] = kid
		raw, err := tok.SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	rs := func(change func(jwt.MapClaims)) string { return make(jwt.SigningMethodRS256, key, "r1", change) }

	got, err := v.Verify(t.Context(), rs(nil))
	if err != nil || got.User != "acme:42" || len(got.Roles) != 1 || got.Roles[0] != "operator" || string(got.Info) != `{"name":"Ann"}` ||
		!got.Expires.Equal(start.Add(time.Hour)) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := v.Verify(t.Context(), make(jwt.SigningMethodES256, ec, "e1", nil)); err != nil {
		t.Errorf("ES256: %v", err)
	}
	for name, change := range map[string]func(jwt.MapClaims){
		"no role":           func(m jwt.MapClaims) { delete(m, "realm") },
		"roles as a number": func(m jwt.MapClaims) { m["realm"] = 7 },
		"other role":        func(m jwt.MapClaims) { m["realm"] = map[string]any{"roles": "dev opsy"} },
	} {
		if got, err := v.Verify(t.Context(), rs(change)); err != nil || got.Roles != nil {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if got, err := v.Verify(t.Context(), rs(func(m jwt.MapClaims) { m["realm.roles"] = "ops dev" })); err != nil || len(got.Roles) != 1 {
		t.Errorf("a claim whose name has a dot: %+v, %v", got, err)
	}
	for name, tc := range map[string]struct {
		raw  string
		want error
	}{
		"wrong audience":   {rs(func(m jwt.MapClaims) { m["aud"] = "someone" }), token.ErrInvalid},
		"no audience":      {rs(func(m jwt.MapClaims) { delete(m, "aud") }), token.ErrInvalid},
		"two, not for us":  {rs(func(m jwt.MapClaims) { m["aud"] = []string{"client", "b"}; m["azp"] = "b" }), token.ErrInvalid},
		"unknown issuer":   {rs(func(m jwt.MapClaims) { m["iss"] = "https://evil.example" }), token.ErrInvalid},
		"our own issuer":   {rs(func(m jwt.MapClaims) { m["iss"] = token.Issuer; m["aud"] = token.Audience }), token.ErrInvalid},
		"another issuer":   {rs(func(m jwt.MapClaims) { m["iss"] = "https://other.example" }), token.ErrUnavailable},
		"expired":          {rs(func(m jwt.MapClaims) { m["exp"] = start.Add(-time.Minute).Unix() }), token.ErrExpired},
		"no expiry":        {rs(func(m jwt.MapClaims) { delete(m, "exp") }), token.ErrInvalid},
		"not yet":          {rs(func(m jwt.MapClaims) { m["nbf"] = start.Add(time.Minute).Unix() }), token.ErrInvalid},
		"from the future":  {rs(func(m jwt.MapClaims) { m["iat"] = start.Add(time.Minute).Unix() }), token.ErrInvalid},
		"no subject":       {rs(func(m jwt.MapClaims) { delete(m, "sub") }), token.ErrInvalid},
		"PS256, RS256 key": {make(jwt.SigningMethodPS256, key, "r1", nil), token.ErrInvalid},
		"HS256, public":    {make(jwt.SigningMethodHS256, key.N.Bytes(), "r1", nil), token.ErrInvalid},
		"HS256, its oct":   {make(jwt.SigningMethodHS256, []byte(secretA), "sym", nil), token.ErrInvalid},
		"none":             {make(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, "r1", nil), token.ErrInvalid},
		"unknown key":      {make(jwt.SigningMethodRS256, key, "r2", nil), token.ErrInvalid},
	} {
		if got, err := v.Verify(t.Context(), tc.raw); !errors.Is(err, tc.want) || got.User != "" {
			t.Errorf("%s: %+v, %v; want %v", name, got, err, tc.want)
		}
	}

	t.Run("either", func(t *testing.T) {
		secrets := mustSecrets(t, c.now, secretA)
		e := token.Either{Secrets: secrets, Ring: keys.Access(), Issuers: v}
		for user, raw := range map[string]string{"acme:42": rs(nil), "s": must(t, secrets, token.Claims{User: "s"}),
			"r": must(t, token.NewRingSigner(s, token.RingAccess, c.now, nil), token.Claims{User: "r"})} {
			if got, err := e.Verify(t.Context(), raw); err != nil || got.User != user {
				t.Errorf("%s: %+v, %v", user, got, err)
			}
			if _, err := (token.Either{}).Verify(t.Context(), raw); !errors.Is(err, token.ErrInvalid) {
				t.Errorf("%s with nothing to verify it: %v", user, err)
			}
		}
		for _, raw := range []string{"", "a.b.c", strings.Repeat("a", token.LengthMax+1)} {
			if _, err := e.Verify(t.Context(), raw); !errors.Is(err, token.ErrInvalid) {
				t.Errorf("%.10q: %v", raw, err)
			}
		}
	})
}

// jwkWeak is a key of 1024 bits, which must not count.
func jwkWeak(t *testing.T) (map[string]any, error) {
	t.Helper()
	n := make([]byte, 128)
	n[0], n[127] = 0x80, 1
	return map[string]any{"kty": "RSA", "kid": "weak", "n": b64(n), "e": "AQAB"}, nil
}

func TestUnusableSetsDoNotReplaceGoodOnes(t *testing.T) {
	weak, _ := jwkWeak(t)
	for name, set := range map[string]string{"not JSON": "<html>", "no keys": `{}`, "empty": `{"keys":[]}`, "symmetric": `{"keys":[{"kty":"oct","kid":"a","k":"AAAA"}]}`,
		"weak": string(jwkSet(t, weak)), "no id": `{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`,
		"for encryption": `{"keys":[{"kty":"OKP","kid":"a","use":"enc","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`} {
		if got, err := token.Usable([]byte(set)); !errors.Is(err, token.ErrInvalid) {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
	got, err := token.Usable([]byte(`{"keys":[{"kty":"OKP","kid":"a","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"}]}`))
	if err != nil || strings.Contains(string(got), "nWGx") {
		t.Errorf("a private half was kept: %s, %v", got, err)
	}
}

func TestIssuerSettingsAreCheckedTogether(t *testing.T) {
	_, err := token.ParseIssuers(`[{"name":"A B","issuer":"http://x.example","audience":"","jwks":"ftp://y"},{"name":"a","issuer":"https://x.example","audience":"c"},
		{"name":"a","issuer":"https://z.example","audience":"c"}]`)
	for _, want := range []string{`name "A B"`, `issuer "http://x.example"`, "audience is missing", `jwks "ftp://y"`, "issuer 3: name or issuer is listed twice"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %s", err, want)
		}
	}
	for _, bad := range []string{"", "{}", `[{"nmae":"a"}]`, `[{}]`} {
		if _, err := token.ParseIssuers(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
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
