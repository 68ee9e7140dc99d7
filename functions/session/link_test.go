package session_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"tideline/functions/session"
	"tideline/shared/limit"
)

func (w *world) link(b *browser) string {
	w.t.Helper()
	r := b.must(201, "POST", "/api/session/link", "")
	if got := r.Expires.Sub(w.clock.now()); got != limit.LinkTTL {
		w.t.Errorf("the link lives %v, want %v", got, limit.LinkTTL)
	}
	return r.URL
}

func TestLinkSignsInAnotherBrowserOnce(t *testing.T) {
	w := newWorld(t, nil)
	one, two, three := w.browser(), w.browser(), w.browser()
	user := one.must(201, "POST", "/api/session", "").User
	url := w.link(one)
	if r := two.must(303, "GET", url, ""); r.Header.Get("Location") != "/" {
		t.Errorf("redirected to %q", r.Header.Get("Location"))
	}
	if r := two.must(201, "POST", "/api/session", ""); r.User != user {
		t.Errorf("the second browser is %q, want %q", r.User, user)
	}
	three.refused(410, session.CodeLinkUsed, "GET", url, "")
	three.header.Set("Accept", "text/html,application/xhtml+xml")
	r := three.must(410, "GET", url, "")
	if !strings.HasPrefix(r.Header.Get("Content-Type"), "text/html") || !strings.Contains(string(r.body), "already been used") {
		t.Errorf("a browser got %s: %s", r.Header.Get("Content-Type"), r.body)
	}
	if csp := r.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") {
		t.Errorf("Content-Security-Policy %q", csp)
	}
	// Signing one of them out leaves the other.
	two.must(204, "DELETE", "/api/session", "")
	one.must(200, "POST", "/api/session/token", "")
}

func TestLinkExpires(t *testing.T) {
	w := newWorld(t, nil)
	one := w.browser()
	one.must(201, "POST", "/api/session", "")
	last, late := w.link(one), w.link(one)
	w.clock.advance(limit.LinkTTL - time.Second)
	w.browser().must(303, "GET", last, "")
	w.clock.advance(time.Second)
	w.browser().refused(410, session.CodeLinkExpired, "GET", late, "")
	w.browser().refused(410, session.CodeLinkExpired, "GET", session.LinkPath+"NEVERWAS", "")
	w.browser().refused(410, session.CodeLinkExpired, "GET", session.LinkPath+"%00%ff..", "")
}

func TestPreviewsDoNotUseALinkUp(t *testing.T) {
	w := newWorld(t, nil)
	one := w.browser()
	user := one.must(201, "POST", "/api/session", "").User
	url := w.link(one)
	looks := map[string]func(*browser) string{
		"HEAD": func(*browser) string { return "HEAD" },
		"prefetch": func(b *browser) string {
			b.header.Set("Sec-Purpose", "prefetch;prerender")
			return "GET"
		},
		"frame": func(b *browser) string {
			b.header.Set("Sec-Fetch-Dest", "iframe")
			b.header.Set("Sec-Fetch-Mode", "navigate")
			return "GET"
		},
		"image": func(b *browser) string {
			b.header.Set("Sec-Fetch-Mode", "no-cors")
			b.header.Set("Sec-Fetch-Site", "cross-site")
			return "GET"
		},
	}
	for _, agent := range []string{"Slackbot-LinkExpanding 1.0", "facebookexternalhit/1.1", "WhatsApp/2.23", "Mozilla/5.0 (compatible; Discordbot/2.0)",
		"TelegramBot (like TwitterBot)", "Mozilla/5.0 SkypeUriPreview Preview/0.5"} {
		looks[agent] = func(b *browser) string { b.header.Set("User-Agent", agent); return "GET" }
	}
	for name, prepare := range looks {
		b := w.browser()
		r := b.must(200, prepare(b), url, "")
		if b.cookie != nil || r.Header.Get("Content-Type") != "text/html; charset=utf-8" {
			t.Errorf("%s: cookie %v, %s", name, b.cookie, r.Header.Get("Content-Type"))
		}
	}
	// Whoever was taken for a previewer by mistake presses the button.
	b := w.browser()
	b.header = http.Header{"User-Agent": {"Whatsapp-Browser WhatsApp/9"}, "Sec-Fetch-Site": {"same-origin"}}
	b.must(200, "GET", url, "")
	b.must(303, "POST", url, "")
	if r := b.must(201, "POST", "/api/session", ""); r.User != user {
		t.Errorf("the button signed in %q", r.User)
	}
}

func TestRealBrowsersOpenLinks(t *testing.T) {
	w := newWorld(t, nil)
	one := w.browser()
	one.must(201, "POST", "/api/session", "")
	for _, agent := range []string{
		"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
		"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/142.0.0.0 Safari/537.36",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Mobile/15E148 Safari/604.1",
		"Mozilla/5.0 (Android 15; Mobile; rv:140.0) Gecko/140.0 Firefox/140.0", "curl/8.5.0", ""} {
		b := w.browser()
		b.header = http.Header{"User-Agent": {agent}, "Sec-Fetch-Mode": {"navigate"}, "Sec-Fetch-Dest": {"document"}, "Sec-Fetch-Site": {"none"}}
		b.must(303, "GET", w.link(one)+"?utm_source=chat", "")
		if b.cookie == nil {
			t.Errorf("%q was not signed in", agent)
		}
	}
}

func TestOperatorLink(t *testing.T) {
	w := newWorld(t, nil)
	path, expires, err := w.MakeLink(t.Context(), "operator", []string{"operator"})
	if err != nil || expires.Sub(w.clock.now()) != limit.LinkTTL {
		t.Fatal(path, expires, err)
	}
	b := w.browser()
	b.must(303, "GET", path, "")
	r := b.must(201, "POST", "/api/session", "")
	if r.User != "operator" || len(r.Roles) != 1 || r.Roles[0] != "operator" {
		t.Errorf("signed in as %q with %v", r.User, r.Roles)
	}
	claims, err := w.keys.Verify(t.Context(), r.Token)
	if err != nil || len(claims.Roles) != 1 {
		t.Errorf("claims %+v, %v", claims, err)
	}
	// A further device is bound to the same end, and use does not move it.
	w.clock.advance(session.ReissueAfter)
	two := w.browser()
	two.must(303, "GET", w.link(b), "")
	for _, b := range []*browser{b, two} {
		if end := b.must(200, "GET", "/api/session", "").Expires.Sub(w.clock.now()); end != session.SignInTTL-session.ReissueAfter {
			t.Errorf("the session still lives %v", end)
		}
	}
	w.clock.advance(session.SignInTTL - session.ReissueAfter - time.Minute)
	if e := b.must(200, "POST", "/api/session/token", "").Expires.Sub(w.clock.now()); e != time.Minute {
		t.Errorf("a token outlives its session: %v", e)
	}
	w.clock.advance(time.Minute)
	b.refused(401, session.CodeNoSession, "GET", "/api/session", "")
	if _, _, err := w.MakeLink(t.Context(), "a b", nil); err == nil {
		t.Error("a user that channels can't name was accepted")
	}
	if _, _, err := w.MakeLink(t.Context(), strings.Repeat("u", session.UserBytes+1), nil); err == nil {
		t.Error("a user that is one byte too long was accepted")
	}
	if _, _, err := w.MakeLink(t.Context(), strings.Repeat("u", session.UserBytes), nil); err != nil {
		t.Errorf("the longest user: %v", err)
	}
}

// spyStore remembers the ids of links.
type spyStore struct {
	session.Store
	ids []string
}

func (s *spyStore) PutLink(ctx context.Context, id string, l session.Link) error {
	s.ids = append(s.ids, id)
	return s.Store.PutLink(ctx, id, l)
}

func TestTheStoreCannotSignIn(t *testing.T) {
	var spy spyStore
	w := newWorld(t, func(o *session.Options) { spy.Store = o.Store; o.Store = &spy })
	seen := map[string]bool{}
	for range 20 {
		path, _, err := w.MakeLink(t.Context(), "ann", nil)
		if err != nil {
			t.Fatal(err)
		}
		seen[path] = true
		id := spy.ids[len(spy.ids)-1]
		if seen[id] || strings.Contains(path, id) || strings.Contains(id, strings.TrimPrefix(path, session.LinkPath)) {
			t.Errorf("the id %q gives the link %q away", id, path)
		}
		seen[id] = true
		w.browser().refused(410, session.CodeLinkExpired, "GET", session.LinkPath+id, "")
	}
	if len(seen) != 40 {
		t.Errorf("%d different codes and ids, want 40", len(seen))
	}
}

func TestAGuestWithRolesIsNoGuestForEver(t *testing.T) {
	w := newWorld(t, nil)
	path, _, err := w.MakeLink(t.Context(), session.GuestPrefix+"x", []string{"operator"})
	if err != nil {
		t.Fatal(err)
	}
	b := w.browser()
	b.must(303, "GET", path, "")
	w.clock.advance(session.ReissueAfter)
	b.must(200, "POST", "/api/session/token", "")
	if end := b.must(200, "GET", "/api/session", "").Expires.Sub(w.clock.now()); end != session.SignInTTL-session.ReissueAfter {
		t.Errorf("the session still lives %v", end)
	}
}
