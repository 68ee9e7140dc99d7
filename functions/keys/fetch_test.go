package keys_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"tideline/functions/keys"
	"tideline/shared/token"
	"tideline/shared/token/memory"
)

// provider is an OpenID Connect issuer on a real server.
type provider struct {
	*httptest.Server
	mu      sync.Mutex
	keys    map[string]ed25519.PrivateKey
	answer  func(w http.ResponseWriter, r *http.Request) bool // true: it answered
	control string
	asked   int
	cached  int
}

func newProvider(t *testing.T) *provider {
	t.Helper()
	p := &provider{keys: map[string]ed25519.PrivateKey{}, control: "max-age=600"}
	p.Server = httptest.NewServer(http.HandlerFunc(p.serve))
	t.Cleanup(p.Close)
	p.rotate(t, "k1")
	return p
}

func (p *provider) rotate(t *testing.T, kids ...string) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	old := p.keys
	p.keys = map[string]ed25519.PrivateKey{}
	for _, kid := range kids {
		if k, ok := old[kid]; ok {
			p.keys[kid] = k
			continue
		}
		_, k, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		p.keys[kid] = k
	}
}

func (p *provider) serve(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked++
	if p.answer != nil && p.answer(w, r) {
		return
	}
	if r.URL.Path == "/.well-known/openid-configuration" {
		_ = json.NewEncoder(w).Encode(map[string]string{"issuer": p.URL, "jwks_uri": p.URL + "/keys"})
		return
	}
	set := []map[string]string{}
	tag := ""
	for kid, k := range p.keys {
		set = append(set, map[string]string{"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": base64.RawURLEncoding.EncodeToString(k.Public().(ed25519.PublicKey))})
		tag += kid
	}
	w.Header().Set("ETag", `"`+tag+`"`)
	w.Header().Set("Cache-Control", p.control)
	if r.Header.Get("If-None-Match") == `"`+tag+`"` {
		p.cached++
		w.WriteHeader(http.StatusNotModified)
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"keys": set})
}

func (p *provider) set(answer func(http.ResponseWriter, *http.Request) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer = answer
}

func (p *provider) token(t *testing.T, kid string, now time.Time) string {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	tok := jwt.NewWithClaims(jwt.SigningMethodEdDSA, jwt.MapClaims{"iss": p.URL, "aud": "app", "sub": "1", "exp": now.Add(time.Hour).Unix()})
	tok.Header["kid"] = kid
	raw, err := tok.SignedString(p.keys[kid])
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// issuer is the provider's configuration, and what follows it.
type follower struct {
	t        *testing.T
	c        *clock
	store    *memory.Store
	fetcher  *keys.Fetcher
	verifier token.Verifier
}

func follow(t *testing.T, p *provider) *follower {
	t.Helper()
	list, err := token.ParseIssuers(fmt.Sprintf(`[{"name":"idp","issuer":%q,"audience":"app"}]`, p.URL))
	if err != nil {
		t.Fatal(err)
	}
	c, s := newClock(), memory.New()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &follower{t, c, s, keys.NewFetcher(s, list, transport, c.now, quiet), token.NewKeys(s, c.now, nil).Issuers(list)}
}

func (f *follower) fetch() error { f.t.Helper(); return f.fetcher.Fetch(f.t.Context()) }

func (f *follower) verify(raw string, want error) {
	f.t.Helper()
	if _, err := f.verifier.Verify(f.t.Context(), raw); !errors.Is(err, want) || (want == nil && err != nil) {
		f.t.Errorf("verify: %v, want %v", err, want)
	}
}

func TestIssuersKeysAreFollowed(t *testing.T) {
	p := newProvider(t)
	f := follow(t, p)
	f.verify(p.token(t, "k1", f.c.now()), token.ErrUnavailable) // nothing fetched yet: try again
	if err := f.fetch(); err != nil {
		t.Fatal(err)
	}
	f.c.advance(token.ReloadEvery)
	f.verify(p.token(t, "k1", f.c.now()), nil)
	asked := p.asked
	f.c.advance(10*time.Minute - token.ReloadEvery - time.Second)
	if err := f.fetch(); err != nil || p.asked != asked {
		t.Errorf("asked although the set is fresh for ten minutes: %v", err)
	}
	f.c.advance(time.Second)
	if err := f.fetch(); err != nil || p.cached != 1 {
		t.Errorf("%v; %d conditional answers, want 1", err, p.cached)
	}
	old := p.token(t, "k1", f.c.now())
	p.rotate(t, "k2")
	f.c.advance(10 * time.Minute)
	if err := f.fetch(); err != nil {
		t.Fatal(err)
	}
	f.verify(p.token(t, "k2", f.c.now()), nil)
	f.verify(old, token.ErrInvalid)
}

func TestFreshnessIsBounded(t *testing.T) {
	p := newProvider(t)
	for control, want := range map[string]time.Duration{"": keys.FreshMin, "no-store": keys.FreshMin, "max-age=0": keys.FreshMin, "public, max-age=99999999": keys.FreshMax,
		"max-age=1200": 20 * time.Minute, "max-age=junk": keys.FreshMin, "max-age=999999999999999999999": keys.FreshMin} {
		p.control = control
		f := follow(t, p)
		if err := f.fetch(); err != nil {
			t.Fatal(err)
		}
		got, err := f.store.ReadIssuers(t.Context())
		if err != nil || len(got) != 1 || got[0].Fresh.Sub(f.c.now()) != want {
			t.Errorf("%q: %+v, %v; want fresh for %v", control, got, err, want)
		}
	}
}

func TestBadAnswersKeepTheGoodSet(t *testing.T) {
	p := newProvider(t)
	f := follow(t, p)
	if err := f.fetch(); err != nil {
		t.Fatal(err)
	}
	good := p.token(t, "k1", f.c.now())
	say := func(status int, body string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
			return true
		}
	}
	onlyKeys := func(inner func(http.ResponseWriter, *http.Request) bool) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool { return r.URL.Path == "/keys" && inner(w, r) }
	}
	f.c.advance(keys.FreshMax)
	for name, answer := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"500":                         say(500, "no"),
		"keys: 500":                   onlyKeys(say(500, "no")),
		"keys: HTML":                  onlyKeys(say(200, "<html>maintenance</html>")),
		"keys: empty":                 onlyKeys(say(200, `{"keys":[]}`)),
		"keys: too large":             onlyKeys(say(200, `{"keys":[`+strings.Repeat(" ", keys.FetchBytes)+`]}`)),
		"keys: 304 is for other sets": onlyKeys(func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(http.StatusNoContent); return true }),
		"redirect to plain http": onlyKeys(func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, "http://10.0.0.1/keys", http.StatusFound)
			return true
		}),
		"redirects for ever": onlyKeys(func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, "/keys", http.StatusFound)
			return true
		}),
		"discovery of another issuer":   say(200, `{"issuer":"https://evil.example","jwks_uri":"https://evil.example/keys"}`),
		"discovery with a foreign file": say(200, `{"issuer":"`+p.URL+`","jwks_uri":"file:///etc/passwd"}`),
		"connection cut":                func(w http.ResponseWriter, r *http.Request) bool { panic(http.ErrAbortHandler) },
	} {
		p.set(answer)
		if err := f.fetch(); err == nil {
			t.Errorf("%s: no error", name)
		}
		f.verify(good, nil)
	}
	p.set(nil)
	if err := f.fetch(); err != nil {
		t.Errorf("the good answer again: %v", err)
	}
}

func TestASetThatCannotBeFetchedAnyMoreIsGivenUp(t *testing.T) {
	p := newProvider(t)
	f := follow(t, p)
	if err := f.fetch(); err != nil {
		t.Fatal(err)
	}
	p.set(func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(503); return true })
	f.c.advance(keys.KeepFor - time.Second)
	if err := f.fetch(); err == nil {
		t.Error("no error")
	}
	f.verify(p.token(t, "k1", f.c.now()), nil)
	f.c.advance(token.ReloadEvery)
	if err := f.fetch(); err == nil {
		t.Error("no error")
	}
	f.verify(p.token(t, "k1", f.c.now()), token.ErrUnavailable)
}

func TestOneBadIssuerDoesNotDisturbAnother(t *testing.T) {
	good, bad := newProvider(t), newProvider(t)
	bad.set(func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(500); return true })
	list, err := token.ParseIssuers(fmt.Sprintf(`[{"name":"bad","issuer":%q,"audience":"a"},{"name":"good","issuer":%q,"audience":"a","jwks":%q}]`,
		bad.URL, good.URL, good.URL+"/keys"))
	if err != nil {
		t.Fatal(err)
	}
	s := memory.New()
	if err := s.PutIssuer(t.Context(), token.IssuerKeys{Issuer: "https://gone.example", Set: []byte(`{}`)}); err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	err = keys.NewFetcher(s, list, transport, nil, quiet).Fetch(t.Context())
	if err == nil || !strings.Contains(err.Error(), bad.URL) || strings.Contains(err.Error(), good.URL) {
		t.Errorf("%v must name the bad issuer alone", err)
	}
	got, err := s.ReadIssuers(t.Context())
	if err != nil || len(got) != 1 || got[0].Issuer != good.URL {
		t.Errorf("%+v, %v: the good one must be there, and the one that is not configured any more must not", got, err)
	}
}

func TestEvents(t *testing.T) {
	s := memory.New()
	h := &keys.Handler{Rotation: keys.NewRotation(s, nil, quiet), Fetcher: keys.NewFetcher(s, nil, nil, nil, quiet)}
	schedule := `{"version":"0","id":"1","detail-type":"Scheduled Event","source":"aws.events","detail":{}}`
	for range 2 {
		if _, err := h.Event(t.Context(), []byte(schedule)); err != nil {
			t.Fatal(err)
		}
	}
	kid := ring(t, s, token.RingSession)[0].ID
	for _, bad := range []string{`[]`, `{"replace":{"ring":"other","kid":"x"}}`, `{"replace":{"ring":"session","kid":"x"}}`} {
		if _, err := h.Event(t.Context(), []byte(bad)); err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
	if _, err := h.Event(t.Context(), []byte(`{"replace":{"ring":"session","kid":"`+kid+`"}}`)); err != nil {
		t.Fatal(err)
	}
	if k := ring(t, s, token.RingSession); len(k) != 1 || k[0].ID == kid {
		t.Errorf("%+v", k)
	}
}
