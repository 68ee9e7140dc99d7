package session_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"tideline/functions/api"
	"tideline/functions/session"
	"tideline/shared/token"
	"tideline/shared/token/memory"
)

// withIssuer is a world with key rings and one issuer, and a way to make its id tokens.
func withIssuer(t *testing.T, change func(*session.Options)) (*world, *memory.Store, func(jwt.MapClaims) string) {
	t.Helper()
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	store := memory.New()
	set, err := token.Usable([]byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","x":"` + base64.RawURLEncoding.EncodeToString(pub) + `"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	const issuer = "https://login.example"
	if err := store.PutIssuer(t.Context(), token.IssuerKeys{Issuer: issuer, Set: set}); err != nil {
		t.Fatal(err)
	}
	list, err := token.ParseIssuers(`[{"name":"acme","issuer":"` + issuer + `","audience":"app","rolesClaim":"groups","operator":"ops"}]`)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, func(o *session.Options) {
		keys := token.NewKeys(store, o.Now, nil)
		o.SignIn = keys.Issuers(list)
		for ring, pair := range map[string]*session.SignVerifier{token.RingAccess: &o.Access, token.RingSession: &o.Sessions} {
			k, p, err := token.NewKey(ring, o.Now(), o.Now())
			if err == nil {
				err = store.ChangeRing(t.Context(), token.Change{Ring: ring, Add: &k, AddPrivate: &p})
			}
			if err != nil {
				t.Fatal(err)
			}
			v := keys.Access()
			if ring == token.RingSession {
				v = keys.Sessions()
			}
			*pair = token.Pair{Signer: token.NewRingSigner(store, ring, o.Now, nil), Verifier: v}
		}
		if change != nil {
			change(o)
		}
	})
	return w, store, func(m jwt.MapClaims) string {
		all := jwt.MapClaims{"iss": issuer, "aud": "app", "sub": "7", "name": "Ann", "exp": w.clock.now().Add(time.Hour).Unix()}
		for k, v := range m {
			all[k] = v
		}
		tok := jwt.NewWithClaims(jwt.SigningMethodEdDSA, all)
		tok.Header["kid"] = "k"
		raw, err := tok.SignedString(priv)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
}

func idToken(raw string) string {
	b, _ := json.Marshal(map[string]string{"idToken": raw})
	return string(b)
}

func TestIssuersUserSignsIn(t *testing.T) {
	w, store, make := withIssuer(t, nil)
	b := w.browser()
	guest := b.must(201, "POST", "/api/session", "").User
	r := b.must(201, "POST", "/api/session", idToken(make(jwt.MapClaims{"groups": []string{"ops"}})))
	if r.User != "acme:7" || len(r.Roles) != 1 || r.Roles[0] != "operator" || r.User == guest {
		t.Errorf("%s", r.body)
	}
	claims, err := token.NewKeys(store, w.clock.now, nil).Access().Verify(t.Context(), r.Token)
	if err != nil || claims.User != "acme:7" || string(claims.Info) != `{"name":"Ann"}` {
		t.Errorf("%+v, %v", claims, err)
	}
	if who := b.must(200, "GET", "/api/session", ""); who.Guest || who.Expires.Sub(w.clock.now()) != session.SignInTTL {
		t.Errorf("%s", who.body)
	}
	if again := b.must(201, "POST", "/api/session", ""); again.User != "acme:7" {
		t.Errorf("the same browser became %s", again.User)
	}
	// Use does not extend it: a role that was withdrawn ends with the session.
	w.clock.advance(session.SignInTTL - time.Second)
	b.must(200, "POST", "/api/session/token", "")
	w.clock.advance(time.Second)
	b.refused(401, session.CodeNoSession, "POST", "/api/session/token", "")
}

func TestRefusedIDTokens(t *testing.T) {
	w, _, make := withIssuer(t, nil)
	b := w.browser()
	for name, tc := range map[string]struct {
		body string
		code api.Code
	}{
		"garbage":              {idToken("x"), api.CodeTokenInvalid},
		"expired":              {idToken(make(jwt.MapClaims{"exp": w.clock.now().Add(-time.Minute).Unix()})), api.CodeTokenExpired},
		"for somebody else":    {idToken(make(jwt.MapClaims{"aud": "other"})), api.CodeTokenInvalid},
		"a subject with {}":    {idToken(make(jwt.MapClaims{"sub": "a{b}"})), api.CodeTokenInvalid},
		"a subject too long":   {idToken(make(jwt.MapClaims{"sub": strings.Repeat("s", session.UserBytes-len("acme:")+1)})), api.CodeTokenInvalid},
		"our own access token": {idToken(b.must(201, "POST", "/api/session", "").Token), api.CodeTokenInvalid},
	} {
		t.Run(name, func(t *testing.T) { w.browser().refused(401, tc.code, "POST", "/api/session", tc.body) })
	}
	w.browser().must(201, "POST", "/api/session", idToken(make(jwt.MapClaims{"sub": strings.Repeat("s", session.UserBytes-len("acme:"))})))
	w.browser().refused(422, api.CodeValidation, "POST", "/api/session", `{"token":"x"}`)
	w.browser().refused(422, api.CodeValidation, "POST", "/api/session", idToken(strings.Repeat("x", token.LengthMax+1)))
}

func TestWithoutGuestsOrIssuers(t *testing.T) {
	w, _, make := withIssuer(t, func(o *session.Options) { o.Guests = false })
	w.browser().refused(403, session.CodeGuestsDisabled, "POST", "/api/session", "")
	b := w.browser()
	b.must(201, "POST", "/api/session", idToken(make(nil)))
	b.must(201, "POST", "/api/session", "")
	newWorld(t, nil).browser().refused(403, session.CodeNoIssuers, "POST", "/api/session", idToken("x"))
}
