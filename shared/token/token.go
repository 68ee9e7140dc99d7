// Package token signs and verifies the JSON Web Tokens that say who a REST caller or a socket belongs to.
package token

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Errors of Verify; test with errors.Is. Expired is told apart because clients renew on it (error 109) and give up on the other (3500).
var (
	ErrExpired = errors.New("token expired")
	ErrInvalid = errors.New("token invalid")
	// ErrUnavailable says that the keys to check a token with could not be read. The token may be good: try again.
	ErrUnavailable = errors.New("token keys unavailable")
)

// Issuer and audience of Tideline's own tokens.
const (
	Issuer   = "tideline"
	Audience = "tideline"
	// AudienceSession is the audience of session cookies: neither kind passes for the other.
	AudienceSession = "tideline-session"
)

// MinSecretBytes is the shortest HS256 secret that is accepted (RFC 7518, section 3.2).
const MinSecretBytes = 32

// LengthMax is the longest token that is looked at, in bytes.
const LengthMax = 16 << 10

// Claims of a token, after verification.
type Claims struct {
	User    string          // sub; empty is anonymous
	Session string          // sid: the session that the token was made from
	ID      string          // jti
	Roles   []string        // roles
	Info    json.RawMessage // info: shown to others in presence and joins; any JSON
	// Channels to which the connection is subscribed by the server at connect.
	Channels []string
	// Channel, when set, makes this a subscription token for that channel alone.
	Channel  string
	IssuedAt time.Time
	Expires  time.Time // zero: never
}

// Verifier checks a token's signature, issuer, audience and times. Implementations are safe for concurrent use.
type Verifier interface {
	Verify(ctx context.Context, token string) (Claims, error)
}

// Signer makes tokens of one audience. Implementations are safe for concurrent use.
type Signer interface {
	// Sign fills in ID and IssuedAt when they are empty. A zero Expires makes a token that never expires.
	Sign(Claims) (string, error)
}

type wireClaims struct {
	jwt.RegisteredClaims
	Session  string          `json:"sid,omitempty"`
	Roles    []string        `json:"roles,omitempty"`
	Info     json.RawMessage `json:"info,omitempty"`
	Channels []string        `json:"channels,omitempty"`
	Channel  string          `json:"channel,omitempty"`
}

// wire makes the claims that are signed.
func (c Claims) wire(audience string, now time.Time) wireClaims {
	if c.ID == "" {
		c.ID = rand.Text()
	}
	if c.IssuedAt.IsZero() {
		c.IssuedAt = now
	}
	w := wireClaims{Session: c.Session, Roles: c.Roles, Info: c.Info, Channels: c.Channels, Channel: c.Channel,
		RegisteredClaims: jwt.RegisteredClaims{Issuer: Issuer, Audience: jwt.ClaimStrings{audience}, Subject: c.User, ID: c.ID,
			IssuedAt: jwt.NewNumericDate(c.IssuedAt)}}
	if !c.Expires.IsZero() {
		w.ExpiresAt = jwt.NewNumericDate(c.Expires)
	}
	return w
}

// parse verifies a token of our own issuer.
func parse(raw, audience string, methods []string, now func() time.Time, keys jwt.Keyfunc) (Claims, error) {
	if len(raw) > LengthMax {
		return Claims{}, fmt.Errorf("%w: %d bytes, at most %d", ErrInvalid, len(raw), LengthMax)
	}
	var w wireClaims
	_, err := jwt.ParseWithClaims(raw, &w, keys, jwt.WithValidMethods(methods), jwt.WithIssuer(Issuer), jwt.WithAudience(audience),
		jwt.WithTimeFunc(now))
	return claims(w, err)
}

func claims(w wireClaims, err error) (Claims, error) {
	// The library joins every failed check: expired counts only when nothing else is wrong.
	switch {
	case err == nil:
	case errors.Is(err, ErrUnavailable):
		return Claims{}, err
	case errors.Is(err, jwt.ErrTokenExpired) && !errors.Is(err, jwt.ErrTokenInvalidIssuer) && !errors.Is(err, jwt.ErrTokenNotValidYet) &&
		!errors.Is(err, jwt.ErrTokenInvalidAudience) && !errors.Is(err, jwt.ErrTokenRequiredClaimMissing):
		return Claims{}, ErrExpired
	default:
		return Claims{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	c := Claims{User: w.Subject, Session: w.Session, ID: w.ID, Roles: w.Roles, Info: w.Info, Channels: w.Channels, Channel: w.Channel}
	if w.IssuedAt != nil {
		c.IssuedAt = w.IssuedAt.Time
	}
	if w.ExpiresAt != nil {
		c.Expires = w.ExpiresAt.Time
	}
	return c, nil
}
