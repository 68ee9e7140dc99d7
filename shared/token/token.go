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
)

// Issuer and audience of Tideline's own tokens.
const (
	Issuer   = "tideline"
	Audience = "tideline"
)

// MinSecretBytes is the shortest HS256 secret that is accepted (RFC 7518, section 3.2).
const MinSecretBytes = 32

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

// Secrets signs with the first HS256 secret and verifies with all.
type Secrets struct {
	secrets []string
	now     func() time.Time
}

// NewSecrets needs at least one secret, each of at least MinSecretBytes.
func NewSecrets(secrets []string, now func() time.Time) (*Secrets, error) {
	if len(secrets) == 0 {
		return nil, errors.New("no token secret")
	}
	for i, s := range secrets {
		if len(s) < MinSecretBytes {
			return nil, fmt.Errorf("token secret %d has %d bytes, at least %d are needed", i+1, len(s), MinSecretBytes)
		}
	}
	if now == nil {
		now = time.Now
	}
	return &Secrets{secrets: secrets, now: now}, nil
}

type wireClaims struct {
	jwt.RegisteredClaims
	Session  string          `json:"sid,omitempty"`
	Roles    []string        `json:"roles,omitempty"`
	Info     json.RawMessage `json:"info,omitempty"`
	Channels []string        `json:"channels,omitempty"`
	Channel  string          `json:"channel,omitempty"`
}

// Sign makes a token. ID and IssuedAt are filled in when empty.
func (s *Secrets) Sign(c Claims) (string, error) {
	if c.ID == "" {
		c.ID = rand.Text()
	}
	if c.IssuedAt.IsZero() {
		c.IssuedAt = s.now()
	}
	w := wireClaims{Session: c.Session, Roles: c.Roles, Info: c.Info, Channels: c.Channels, Channel: c.Channel,
		RegisteredClaims: jwt.RegisteredClaims{Issuer: Issuer, Audience: jwt.ClaimStrings{Audience}, Subject: c.User, ID: c.ID,
			IssuedAt: jwt.NewNumericDate(c.IssuedAt)}}
	if !c.Expires.IsZero() {
		w.ExpiresAt = jwt.NewNumericDate(c.Expires)
	}
	t, err := jwt.NewWithClaims(jwt.SigningMethodHS256, w).SignedString([]byte(s.secrets[0]))
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	return t, nil
}

// Verify implements Verifier.
func (s *Secrets) Verify(_ context.Context, token string) (Claims, error) {
	var w wireClaims
	keys := jwt.VerificationKeySet{Keys: make([]jwt.VerificationKey, len(s.secrets))}
	for i, k := range s.secrets {
		keys.Keys[i] = []byte(k)
	}
	_, err := jwt.ParseWithClaims(token, &w, func(*jwt.Token) (any, error) { return keys, nil },
		jwt.WithValidMethods([]string{"HS256"}), jwt.WithIssuer(Issuer), jwt.WithAudience(Audience), jwt.WithTimeFunc(s.now))
	return claims(w, err)
}

func claims(w wireClaims, err error) (Claims, error) {
	// The library joins every failed check: expired counts only when nothing else is wrong.
	switch {
	case err == nil:
	case errors.Is(err, jwt.ErrTokenExpired) && !errors.Is(err, jwt.ErrTokenInvalidIssuer) &&
		!errors.Is(err, jwt.ErrTokenInvalidAudience) && !errors.Is(err, jwt.ErrTokenNotValidYet):
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
