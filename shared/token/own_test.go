package token

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	firstSecret  = "the first secret, of 32 bytes or more"
	secondSecret = "the second secret, of 32 bytes or more"
)

func signedBy(secret, head, body string) string {
	text := head + base64.RawURLEncoding.EncodeToString([]byte(body))
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(text))
	return text + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// What Sign makes is found good without the library, with every secret.
func TestOwnTokensNeedNoLibrary(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	keys, err := newSecretKeys([]string{firstSecret, secondSecret})
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{firstSecret, secondSecret} {
		s, err := NewSecrets([]string{secret}, func() time.Time { return now })
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []Claims{
			{User: "u1", Expires: now.Add(time.Second)},
			{User: "ü", Session: "s", Roles: []string{"operator"}, Info: json.RawMessage(`{"name":"<x>"}`), Channels: []string{"a", "b"}},
			{Channel: "chat:lobby"},
		} {
			raw, err := s.Sign(c)
			if err != nil {
				t.Fatal(err)
			}
			got, ok := keys.ours(raw, Audience, now)
			if !ok {
				t.Errorf("%+v: left to the library", c)
			}
			want, err := parse(raw, Audience, []string{"HS256"}, func() time.Time { return now }, func(*jwt.Token) (any, error) { return []byte(secret), nil })
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%+v, want %+v, %v", got, want, err)
			}
			for i := range raw { // one bit of any byte, also of the header
				b := []byte(raw)
				b[i] ^= 1
				if _, ok := keys.ours(string(b), Audience, now); ok && !sameSignature(raw, string(b)) {
					t.Fatalf("good with byte %d changed", i)
				}
			}
		}
	}
}

// sameSignature is true for texts that differ in the last bits of the last character alone, which base64 has no use for.
func sameSignature(a, b string) bool {
	x, _ := base64.RawURLEncoding.DecodeString(a[strings.LastIndexByte(a, '.')+1:])
	y, _ := base64.RawURLEncoding.DecodeString(b[strings.LastIndexByte(b, '.')+1:])
	return string(x) == string(y) && a[:strings.LastIndexByte(a, '.')] == b[:strings.LastIndexByte(a, '.')]
}

// The short way never finds good what the library doesn't, and reads the same from it.
func FuzzOwnTokens(f *testing.F) {
	const claims = `{"iss":"tideline","aud":["tideline"],"sub":"u","jti":"j","iat":1799999999,"exp":1800000001`
	for _, body := range []string{
		claims + `}`, claims + `,"nbf":1800000000}`, claims + `,"nbf":1800000000.5}`, claims + `,"nbf":1800000001}`, claims + `,"exp":1800000000}`, claims + `,"exp":1800000000.9}`,
		claims + `,"exp":"1800000001"}`, claims + `,"exp":null}`, claims + `,"exp":-1}`, claims + `,"exp":1e300}`, claims + `,"iat":0}`, claims + `,"aud":"tideline"}`,
		claims + `,"AUD":["other"]}`, claims + `,"iss":"other"}`, claims + `,"roles":["a"],"info":{"a":1},"channels":["c"],"channel":"d","sid":"s"}`, claims + `,"info":null}`,
		claims + `,"sub":1}`, claims + `,"roles":"a"}`, `{}`, `null`, `[]`, ``, `{"iss":"tideline"`, claims + `} x`,
	} {
		f.Add(ownHeader, body, true)
		f.Add(ownHeader, body, false)
	}
	f.Add("eyJhbGciOiJub25lIn0.", claims+"}", true)
	keys, err := newSecretKeys([]string{firstSecret, secondSecret})
	if err != nil {
		f.Fatal(err)
	}
	now := func() time.Time { return time.Unix(1_800_000_000, 0) }
	f.Fuzz(func(t *testing.T, head, body string, known bool) {
		secret := secondSecret
		if !known {
			secret = "a secret that nobody knows, of 32 bytes or more"
		}
		raw := signedBy(secret, head, body)
		got, ok := keys.ours(raw, Audience, now())
		if !ok {
			return
		}
		want, err := parse(raw, Audience, []string{"HS256"}, now, func(*jwt.Token) (any, error) { return jwt.VerificationKeySet{Keys: keys.all}, nil })
		if err != nil {
			t.Fatalf("found good: the library says %v", err)
		}
		if !got.IssuedAt.Equal(want.IssuedAt) || !got.Expires.Equal(want.Expires) {
			t.Fatalf("times %v %v, want %v %v", got.IssuedAt, got.Expires, want.IssuedAt, want.Expires)
		}
		got.IssuedAt, got.Expires, want.IssuedAt, want.Expires = time.Time{}, time.Time{}, time.Time{}, time.Time{}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%+v, want %+v", got, want)
		}
	})
}
