package token_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"tideline/shared/token"
)

var (
	start   = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	secretA = strings.Repeat("a", token.MinSecretBytes)
	secretB = strings.Repeat("b", token.MinSecretBytes)
)

// clock is a settable time.
type clock struct{ t time.Time }

func (c *clock) now() time.Time          { return c.t }
func (c *clock) advance(d time.Duration) { c.t = c.t.Add(d) }

func mustSecrets(t *testing.T, now func() time.Time, s ...string) *token.Secrets {
	t.Helper()
	out, err := token.NewSecrets(s, now)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestSignedClaimsComeBack(t *testing.T) {
	c := &clock{start}
	s := mustSecrets(t, c.now, secretA)
	in := token.Claims{User: "u1", Session: "s1", Roles: []string{"operator"}, Info: json.RawMessage(`{"name":"Ann"}`),
		Channels: []string{"system"}, Channel: "chat:lobby", Expires: start.Add(time.Hour)}
	raw, err := s.Sign(in)
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.Verify(t.Context(), raw)
	if err != nil {
		t.Fatal(err)
	}
	if got.ID == "" || !got.IssuedAt.Equal(start) {
		t.Errorf("id %q, issued at %v: both must be filled in", got.ID, got.IssuedAt)
	}
	in.ID, in.IssuedAt = got.ID, got.IssuedAt
	a, _ := json.Marshal(in)
	b, _ := json.Marshal(got)
	if !in.Expires.Equal(got.Expires) || string(a) != strings.ReplaceAll(string(b), got.Expires.Format(time.RFC3339), in.Expires.Format(time.RFC3339)) {
		t.Errorf("signed %s\n   got %s", a, b)
	}
}

func TestExpiryIsExact(t *testing.T) {
	c := &clock{start}
	s := mustSecrets(t, c.now, secretA)
	raw, _ := s.Sign(token.Claims{User: "u1", Expires: start.Add(time.Hour)})
	c.advance(time.Hour - time.Second)
	if _, err := s.Verify(t.Context(), raw); err != nil {
		t.Errorf("a second before it expires: %v", err)
	}
	c.advance(time.Second)
	if _, err := s.Verify(t.Context(), raw); !errors.Is(err, token.ErrExpired) {
		t.Errorf("at its expiry: %v, want ErrExpired", err)
	}
}

func TestFirstSecretSignsAndAllVerify(t *testing.T) {
	old, both := mustSecrets(t, nil, secretA), mustSecrets(t, nil, secretB, secretA)
	raw, _ := old.Sign(token.Claims{User: "u1"})
	if _, err := both.Verify(t.Context(), raw); err != nil {
		t.Errorf("a token of the second secret: %v", err)
	}
	raw, _ = both.Sign(token.Claims{User: "u1"})
	if _, err := old.Verify(t.Context(), raw); !errors.Is(err, token.ErrInvalid) {
		t.Errorf("a token of a secret that is not listed: %v, want ErrInvalid", err)
	}
}

func TestAudiencesDoNotPassForEachOther(t *testing.T) {
	s := mustSecrets(t, nil, secretA)
	session := s.For(token.AudienceSession)
	access, _ := s.Sign(token.Claims{User: "u1"})
	cookie, _ := session.Sign(token.Claims{User: "u1"})
	if _, err := session.Verify(t.Context(), cookie); err != nil {
		t.Error(err)
	}
	if _, err := s.Verify(t.Context(), cookie); !errors.Is(err, token.ErrInvalid) {
		t.Errorf("a session cookie as an access token: %v", err)
	}
	if _, err := session.Verify(t.Context(), access); !errors.Is(err, token.ErrInvalid) {
		t.Errorf("an access token as a session cookie: %v", err)
	}
}

func sign(t *testing.T, method jwt.SigningMethod, key any, claims jwt.MapClaims) string {
	t.Helper()
	raw, err := jwt.NewWithClaims(method, claims).SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestBadTokens(t *testing.T) {
	c := &clock{start}
	s := mustSecrets(t, c.now, secretA)
	good := func(change func(jwt.MapClaims)) jwt.MapClaims {
		m := jwt.MapClaims{"iss": token.Issuer, "aud": token.Audience, "sub": "u1", "exp": start.Add(time.Hour).Unix()}
		if change != nil {
			change(m)
		}
		return m
	}
	hs := func(change func(jwt.MapClaims)) string {
		return sign(t, jwt.SigningMethodHS256, []byte(secretA), good(change))
	}
	valid := hs(nil)
	if _, err := s.Verify(t.Context(), valid); err != nil {
		t.Fatalf("the token that the table varies: %v", err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	parts := strings.Split(valid, ".")
	for name, tc := range map[string]struct {
		raw  string
		want error
	}{
		"empty":              {"", token.ErrInvalid},
		"garbage":            {"not.a.token", token.ErrInvalid},
		"two parts":          {parts[0] + "." + parts[1], token.ErrInvalid},
		"alg none":           {sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, good(nil)), token.ErrInvalid},
		"alg None, spelled":  {b64([]byte(`{"alg":"None"}`)) + "." + parts[1] + ".", token.ErrInvalid},
		"HS512":              {sign(t, jwt.SigningMethodHS512, []byte(secretA), good(nil)), token.ErrInvalid},
		"other secret":       {sign(t, jwt.SigningMethodHS256, []byte(secretB), good(nil)), token.ErrInvalid},
		"changed claims":     {parts[0] + "." + b64([]byte(`{"iss":"tideline","aud":"tideline","sub":"u2"}`)) + "." + parts[2], token.ErrInvalid},
		"wrong issuer":       {hs(func(m jwt.MapClaims) { m["iss"] = "someone" }), token.ErrInvalid},
		"no issuer":          {hs(func(m jwt.MapClaims) { delete(m, "iss") }), token.ErrInvalid},
		"wrong audience":     {hs(func(m jwt.MapClaims) { m["aud"] = "other" }), token.ErrInvalid},
		"no audience":        {hs(func(m jwt.MapClaims) { delete(m, "aud") }), token.ErrInvalid},
		"not yet valid":      {hs(func(m jwt.MapClaims) { m["nbf"] = start.Add(time.Minute).Unix() }), token.ErrInvalid},
		"expired":            {hs(func(m jwt.MapClaims) { m["exp"] = start.Unix() }), token.ErrExpired},
		"expired, no issuer": {hs(func(m jwt.MapClaims) { m["exp"] = start.Unix(); delete(m, "iss") }), token.ErrInvalid},
		"expired, wrong aud": {hs(func(m jwt.MapClaims) { m["exp"] = start.Unix(); m["aud"] = "other" }), token.ErrInvalid},
		"expired, forged": {sign(t, jwt.SigningMethodHS256, []byte(secretB), good(func(m jwt.MapClaims) { m["exp"] = start.Unix() })),
			token.ErrInvalid},
		"exp is a string":   {hs(func(m jwt.MapClaims) { m["exp"] = "soon" }), token.ErrInvalid},
		"exp is huge":       {hs(func(m jwt.MapClaims) { m["exp"] = json.Number("1e400") }), token.ErrInvalid},
		"roles is a number": {hs(func(m jwt.MapClaims) { m["roles"] = 1 }), token.ErrInvalid},
		"too long":          {valid + strings.Repeat("A", token.LengthMax), token.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := s.Verify(t.Context(), tc.raw); !errors.Is(err, tc.want) || got.User != "" {
				t.Errorf("claims %+v, error %v; want %v and no claims", got, err, tc.want)
			}
		})
	}
}

func TestSecretsAreRefusedByNumber(t *testing.T) {
	if _, err := token.NewSecrets([]string{secretA, secretA[1:]}, nil); err == nil || !strings.Contains(err.Error(), "secret 2 has 31 bytes") {
		t.Errorf("a secret of 31 bytes: %v", err)
	}
	if _, err := token.ParseSecrets(" , ", nil, nil); err == nil {
		t.Error("no secret must be an error")
	}
	if _, err := token.ParseSecrets("@"+filepath.Join(t.TempDir(), "none"), nil, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	s, err := token.ParseSecrets(" "+secretA+" , "+secretB, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := s.Sign(token.Claims{User: "u1"})
	if _, err := mustSecrets(t, nil, secretA).Verify(context.Background(), raw); err != nil {
		t.Errorf("spaces around a secret are no part of it, and the first signs: %v", err)
	}
}

func TestSecretsFileIsReadAgain(t *testing.T) {
	c := &clock{start}
	path := filepath.Join(t.TempDir(), "secrets")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(secretA + "\n")
	var complaints []error
	s, err := token.ParseSecrets("@"+path, c.now, func(err error) { complaints = append(complaints, err) })
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := s.Sign(token.Claims{User: "u1"})

	write(secretB + "\n" + secretA + "\n")
	session := s.For(token.AudienceSession) // shares the list
	c.advance(token.SecretsReread)
	newer, _ := session.Sign(token.Claims{User: "u1"})
	if _, err := mustSecrets(t, c.now, secretB).For(token.AudienceSession).Verify(t.Context(), newer); err != nil {
		t.Errorf("the new first secret must sign after %v: %v", token.SecretsReread, err)
	}
	if _, err := s.Verify(t.Context(), raw); err != nil {
		t.Errorf("the old secret must still verify: %v", err)
	}

	write("short")
	c.advance(token.SecretsReread)
	if _, err := s.Verify(t.Context(), raw); err != nil || len(complaints) != 1 {
		t.Errorf("a bad file: verify %v, complaints %v; want the old secrets to stay and one complaint", err, complaints)
	}
	if _, err := s.Verify(t.Context(), raw); err != nil || len(complaints) != 1 {
		t.Errorf("within %v the file must not be read again: %v", token.SecretsReread, complaints)
	}
}
