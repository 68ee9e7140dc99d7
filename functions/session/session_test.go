package session_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"tideline/functions/api"
	"tideline/functions/session"
	"tideline/functions/session/bolt"
	"tideline/shared/limit"
	"tideline/shared/token"
)

// clock is a settable time, for many goroutines.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time          { c.mu.Lock(); defer c.mu.Unlock(); return c.t }
func (c *clock) advance(d time.Duration) { c.mu.Lock(); defer c.mu.Unlock(); c.t = c.t.Add(d) }

// world is a session service on a real server, with its clock.
type world struct {
	*session.Service
	t     testing.TB
	clock *clock
	keys  *token.Secrets
	url   string
}

func newWorld(t testing.TB, change func(*session.Options)) *world {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(t.TempDir(), "db"), 0o600, &bbolt.Options{Timeout: 30 * time.Second, NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	c := &clock{t: time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)}
	store, err := bolt.New(db, c.now)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := token.NewSecrets([]string{strings.Repeat("k", token.MinSecretBytes)}, c.now)
	if err != nil {
		t.Fatal(err)
	}
	o := session.Options{Sessions: keys.For(token.AudienceSession), Access: keys, Store: store, Guests: true, PublicScheme: "http", Now: c.now}
	if change != nil {
		change(&o)
	}
	s, err := session.New(o)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	return &world{Service: s, t: t, clock: c, keys: keys, url: srv.URL}
}

// browser keeps its cookie, as browsers do, but by the test's clock: cookiejar would drop what the fake time says has ended.
type browser struct {
	w      *world
	cookie *http.Cookie
	header http.Header
}

func (w *world) browser() *browser { return &browser{w: w, header: http.Header{}} }

type reply struct {
	*http.Response `json:"-"`

	body    []byte
	User    string
	Roles   []string
	Token   string
	Guest   bool
	URL     string
	Type    string
	Expires time.Time `json:"expiresAt"`
}

func (b *browser) do(method, path, body string) reply {
	b.w.t.Helper()
	if !strings.HasPrefix(path, "http") {
		path = b.w.url + path
	}
	req, err := http.NewRequestWithContext(b.w.t.Context(), method, path, strings.NewReader(body))
	if err != nil {
		b.w.t.Fatal(err)
	}
	req.Header = b.header.Clone()
	if body != "" && req.Header.Get("Content-Type") == "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if b.cookie != nil {
		req.AddCookie(b.cookie)
	}
	client := http.Client{Timeout: 30 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(req)
	if err != nil {
		b.w.t.Fatal(err)
	}
	defer res.Body.Close()
	r := reply{Response: res}
	if r.body, err = io.ReadAll(res.Body); err != nil {
		b.w.t.Fatal(err)
	}
	if strings.Contains(res.Header.Get("Content-Type"), "json") {
		if err := json.Unmarshal(r.body, &r); err != nil {
			b.w.t.Fatalf("%s %s: %v: %s", method, path, err, r.body)
		}
	}
	for _, c := range res.Cookies() {
		if b.cookie = c; c.MaxAge < 0 {
			b.cookie = nil
		}
	}
	return r
}

// must does a request and checks its status.
func (b *browser) must(status int, method, path, body string) reply {
	b.w.t.Helper()
	r := b.do(method, path, body)
	if r.StatusCode != status {
		b.w.t.Fatalf("%s %s: %d %s, want %d", method, path, r.StatusCode, r.body, status)
	}
	return r
}

// refused does a request and checks the problem.
func (b *browser) refused(status int, code api.Code, method, path, body string) {
	b.w.t.Helper()
	r := b.must(status, method, path, body)
	if r.Type != api.TypePrefix+string(code) || r.Header.Get("Content-Type") != "application/problem+json" {
		b.w.t.Errorf("%s %s: type %q as %q, want %q", method, path, r.Type, r.Header.Get("Content-Type"), code)
	}
	var p struct{ Instance string }
	if err := json.Unmarshal(r.body, &p); err != nil || p.Instance != "urn:tideline:request:"+r.Header.Get("X-Request-Id") {
		b.w.t.Errorf("%s %s: instance %q, request id %q (%v)", method, path, p.Instance, r.Header.Get("X-Request-Id"), err)
	}
}

func TestGuestKeepsTheirUser(t *testing.T) {
	w := newWorld(t, nil)
	b := w.browser()
	first := b.must(201, "POST", "/api/session", "")
	if !strings.HasPrefix(first.User, session.GuestPrefix) || b.cookie == nil {
		t.Fatalf("user %q, cookie %v", first.User, b.cookie)
	}
	if c := b.cookie; !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Secure || c.Path != "/" || c.MaxAge != int(limit.SessionTTL/time.Second) {
		t.Errorf("cookie %+v", c)
	}
	claims, err := w.keys.Verify(t.Context(), first.Token)
	if err != nil || claims.User != first.User || claims.Session == "" || len(claims.Roles) != 0 {
		t.Errorf("token's claims %+v, %v", claims, err)
	}
	if again := b.must(201, "POST", "/api/session", ""); again.User != first.User {
		t.Errorf("the same browser became %q", again.User)
	}
	if renewed := b.must(200, "POST", "/api/session/token", ""); renewed.User != first.User || renewed.Token == first.Token {
		t.Errorf("renewed: %+v", renewed)
	}
	if who := b.must(200, "GET", "/api/session", ""); who.User != first.User || !who.Guest || who.Roles == nil {
		t.Errorf("who: %s", who.body)
	}
	if other := w.browser().must(201, "POST", "/api/session", ""); other.User == first.User {
		t.Error("two browsers are one user")
	}
}

func TestTokensAreJitteredWithinTheirBounds(t *testing.T) {
	w := newWorld(t, nil)
	b := w.browser()
	b.must(201, "POST", "/api/session", "")
	seen := map[time.Time]bool{}
	for range 40 {
		e := b.must(200, "POST", "/api/session/token", "").Expires
		seen[e] = true
		if life := e.Sub(w.clock.now()); life < limit.TokenTTL-limit.TokenJitter-time.Second || life > limit.TokenTTL+limit.TokenJitter {
			t.Fatalf("a token lives %v", life)
		}
	}
	if len(seen) < 10 {
		t.Errorf("40 tokens expire at %d different times", len(seen))
	}
}

func TestSecureCookieFollowsThePublicScheme(t *testing.T) {
	w := newWorld(t, func(o *session.Options) { o.PublicScheme = "https" })
	b := w.browser()
	b.must(201, "POST", "/api/session", "")
	if !b.cookie.Secure {
		t.Error("the cookie is not Secure")
	}
	if u := b.must(201, "POST", "/api/session/link", "").URL; !strings.HasPrefix(u, "https://127.0.0.1:") {
		t.Errorf("link %q", u)
	}
}

func TestGuestSessionIsExtendedOnUse(t *testing.T) {
	w := newWorld(t, nil)
	b := w.browser()
	user := b.must(201, "POST", "/api/session", "").User
	first := b.cookie.Value
	w.clock.advance(session.ReissueAfter - time.Second)
	if r := b.must(200, "POST", "/api/session/token", ""); r.Header.Get("Set-Cookie") != "" {
		t.Error("a young cookie was replaced")
	}
	w.clock.advance(time.Second)
	if b.must(200, "POST", "/api/session/token", ""); b.cookie.Value == first {
		t.Error("an old cookie was not replaced")
	}
	w.clock.advance(limit.SessionTTL - time.Second) // past the first cookie's end, not past the second's
	if r := b.must(201, "POST", "/api/session", ""); r.User != user {
		t.Errorf("user %q, want %q", r.User, user)
	}
	w.clock.advance(limit.SessionTTL)
	b.refused(401, session.CodeNoSession, "POST", "/api/session/token", "")
	if r := b.must(201, "POST", "/api/session", ""); r.User == user {
		t.Error("an expired session still names its user")
	}
}

func TestSignOut(t *testing.T) {
	w := newWorld(t, nil)
	b := w.browser()
	user := b.must(201, "POST", "/api/session", "").User
	stolen := w.browser()
	stolen.cookie = b.cookie
	b.must(204, "DELETE", "/api/session", "")
	if b.cookie != nil {
		t.Error("the cookie was not cleared")
	}
	for _, op := range [][2]string{{"POST", "/api/session/token"}, {"GET", "/api/session"}, {"POST", "/api/session/link"}} {
		stolen.refused(401, session.CodeNoSession, op[0], op[1], "")
	}
	if r := stolen.must(201, "POST", "/api/session", ""); r.User == user {
		t.Error("a signed-out cookie still names its user")
	}
	w.browser().must(204, "DELETE", "/api/session", "")
}

func TestNobodyBecomesSomebodyElseWhileTheStoreIsAway(t *testing.T) {
	var broken brokenStore
	w := newWorld(t, func(o *session.Options) { broken.Store = o.Store; o.Store = &broken })
	b := w.browser()
	b.must(201, "POST", "/api/session", "")
	broken.err = errors.New("table not reachable: secret-host")
	for _, op := range [][2]string{{"POST", "/api/session"}, {"POST", "/api/session/token"}, {"GET", "/api/session"},
		{"POST", "/api/session/link"}, {"DELETE", "/api/session"}, {"GET", session.LinkPath + "X"}} {
		b.refused(503, api.CodeUnavailable, op[0], op[1], "")
		if r := b.do(op[0], op[1], ""); strings.Contains(string(r.body), "secret-host") || r.Header.Get("Retry-After") == "" {
			t.Errorf("%v: Retry-After %q, body %s", op, r.Header.Get("Retry-After"), r.body)
		}
	}
	w.browser().must(201, "POST", "/api/session", "") // a new guest needs no store
}

type brokenStore struct {
	session.Store
	err error
}

func (s *brokenStore) Revoked(ctx context.Context, id string, now time.Time) (bool, error) {
	if s.err != nil {
		return false, s.err
	}
	return s.Store.Revoked(ctx, id, now)
}

func (s *brokenStore) TakeLink(ctx context.Context, id string, now time.Time) (session.Link, error) {
	if s.err != nil {
		return session.Link{}, s.err
	}
	return s.Store.TakeLink(ctx, id, now)
}

func TestBadSessionCookies(t *testing.T) {
	w := newWorld(t, nil)
	access, _ := w.keys.Sign(token.Claims{User: "guest-x", Session: "s", Expires: w.clock.now().Add(time.Hour)})
	noSession, _ := w.keys.For(token.AudienceSession).Sign(token.Claims{User: "guest-x", Expires: w.clock.now().Add(time.Hour)})
	eternal, _ := w.keys.For(token.AudienceSession).Sign(token.Claims{User: "guest-x", Session: "s"})
	for name, value := range map[string]string{"garbage": "garbage", "an access token": access, "no session id": noSession, "without end": eternal,
		"long": strings.Repeat("x", 20<<10), "dots": "...", "alg none": "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0."} {
		t.Run(name, func(t *testing.T) {
			b := w.browser()
			b.cookie = &http.Cookie{Name: api.SessionCookie, Value: value}
			b.refused(401, session.CodeNoSession, "POST", "/api/session/token", "")
			if r := b.must(201, "POST", "/api/session", ""); r.User == "guest-x" {
				t.Error("the cookie passed")
			}
		})
	}
}

func TestOptionsAreCheckedTogether(t *testing.T) {
	_, err := session.New(session.Options{PublicScheme: "ftp", TrustedOrigins: []string{"example.org"}})
	for _, want := range []string{"Sessions, Access and Store", `"ftp"`, "neither guests nor issuers", "example.org"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not name %s", err, want)
		}
	}
}

func TestStandardCookieJarWorks(t *testing.T) {
	w := newWorld(t, nil)
	w.clock.mu.Lock()
	w.clock.t = time.Now()
	w.clock.mu.Unlock()
	jar, _ := cookiejar.New(nil)
	client := &http.Client{Jar: jar, Timeout: 30 * time.Second}
	users := []string{}
	for range 2 {
		res, err := client.Post(w.url+"/api/session", "application/json", nil)
		if err != nil {
			t.Fatal(err)
		}
		var body struct{ User string }
		if err := errors.Join(json.NewDecoder(res.Body).Decode(&body), res.Body.Close()); err != nil {
			t.Fatal(err)
		}
		users = append(users, body.User)
	}
	if len(slices.Compact(users)) != 1 {
		t.Errorf("users %v", users)
	}
	u, _ := url.Parse(w.url)
	if n := len(jar.Cookies(u)); n != 1 {
		t.Errorf("%d cookies", n)
	}
}
