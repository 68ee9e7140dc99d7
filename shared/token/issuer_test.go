package token_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"tideline/shared/token"
)

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

func TestIssuerLimits(t *testing.T) {
	setting := func(n int) string {
		var list []string
		for i := range n {
			list = append(list, fmt.Sprintf(`{"name":"i%d","issuer":"https://i%d.example","audience":"a"}`, i, i))
		}
		return "[" + strings.Join(list, ",") + "]"
	}
	if l, err := token.ParseIssuers(setting(token.IssuersMax)); err != nil || len(l) != token.IssuersMax {
		t.Errorf("at the limit: %d, %v", len(l), err)
	}
	if _, err := token.ParseIssuers(setting(token.IssuersMax + 1)); err == nil {
		t.Error("one past the limit was accepted")
	}
	for n, want := range map[int]bool{32: true, 33: false} {
		_, err := token.ParseIssuers(`[{"name":"` + strings.Repeat("n", n) + `","issuer":"https://i.example","audience":"a"}]`)
		if (err == nil) != want {
			t.Errorf("a name of %d: %v", n, err)
		}
	}
}
