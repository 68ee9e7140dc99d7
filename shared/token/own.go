package token

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"hash"
	"io"
	"slices"
	"strings"
	"time"
)

// ownHeader is what Sign puts before the claims: {"alg":"HS256","typ":"JWT"}.
const ownHeader = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9."

// ownClaims are wireClaims in types that cost little to read.
type ownClaims struct {
	Issuer   string          `json:"iss"`
	Audience []string        `json:"aud"`
	Subject  string          `json:"sub"`
	ID       string          `json:"jti"`
	Expires  *float64        `json:"exp"`
	NotYet   *float64        `json:"nbf"`
	IssuedAt *float64        `json:"iat"`
	Session  string          `json:"sid"`
	Roles    []string        `json:"roles"`
	Info     json.RawMessage `json:"info"`
	Channels []string        `json:"channels"`
	Channel  string          `json:"channel"`
}

// ours verifies a token that looks as Sign makes them. A mass reconnect is as many tokens, and the library's way costs a node as much as opening the
// socket. It is a shorter way to a yes, and never says no: what isn't found good here, for whatever reason, is the library's to judge.
func (k *secretKeys) ours(raw, audience string, now time.Time) (c Claims, ok bool) {
	dot := strings.LastIndexByte(raw, '.')
	if len(raw) > LengthMax || dot < len(ownHeader) || raw[:len(ownHeader)] != ownHeader {
		return c, false
	}
	if !k.signed(raw[:dot], raw[dot+1:]) {
		return c, false
	}
	body, err := base64.RawURLEncoding.DecodeString(raw[len(ownHeader):dot])
	if err != nil {
		return c, false
	}
	var w ownClaims
	if json.Unmarshal(body, &w) != nil || w.Issuer != Issuer || !slices.Contains(w.Audience, audience) {
		return c, false
	}
	c = Claims{User: w.Subject, Session: w.Session, ID: w.ID, Roles: w.Roles, Info: w.Info, Channels: w.Channels, Channel: w.Channel}
	notYet, a := moment(w.NotYet)
	issued, b := moment(w.IssuedAt)
	expires, d := moment(w.Expires)
	if !a || !b || !d || now.Before(notYet) || (!expires.IsZero() && !now.Before(expires)) {
		return Claims{}, false
	}
	c.IssuedAt, c.Expires = issued, expires
	return c, true
}

// signed compares in constant time.
func (k *secretKeys) signed(text, signature string) bool {
	var given [sha256.Size]byte
	if base64.RawURLEncoding.DecodedLen(len(signature)) != sha256.Size {
		return false
	}
	n, err := base64.RawURLEncoding.Decode(given[:], []byte(signature))
	if err != nil || n != sha256.Size {
		return false
	}
	for _, pool := range k.macs {
		mac := pool.Get().(hash.Hash)
		mac.Reset()
		_, _ = io.WriteString(mac, text) // a hash doesn't fail
		var sum [sha256.Size]byte
		good := hmac.Equal(mac.Sum(sum[:0]), given[:n])
		pool.Put(mac)
		if good {
			return true
		}
	}
	return false
}

// moment reads a NumericDate (RFC 7519, section 2) of whole seconds of this age; false: of another.
func moment(n *float64) (t time.Time, ok bool) {
	if n == nil {
		return t, true
	}
	if *n < 1 || *n >= 1<<38 {
		return t, false
	}
	return time.Unix(int64(*n), 0), true
}
