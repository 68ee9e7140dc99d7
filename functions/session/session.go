// Package session signs browsers in: guests, users of OpenID Connect issuers, and further devices by one-time link.
//
// The session is a signed, HttpOnly cookie; nothing about it is stored, but that it was signed out. From it come access tokens of about an
// hour, which the REST API and the sockets take. A guest's session is extended whenever it is used; a session of an issuer's user, or
// one with roles, ends SignInTTL after signing in, so that a role that was withdrawn does not live on.
package session

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	mrand "math/rand/v2"
	"net/http"
	"strings"
	"time"

	"tideline/functions/api"
	"tideline/shared/channel"
	"tideline/shared/limit"
	"tideline/shared/token"
)

// Lives of sessions; a guest's is limit.SessionTTL.
const (
	// SignInTTL is the whole life of a session with roles or of an issuer's user.
	SignInTTL = 24 * time.Hour
	// ReissueAfter is the age at which a cookie is signed anew when it is used. It is far below both lives.
	ReissueAfter = 6 * time.Hour
	// GuestPrefix begins the name of every guest. No issuer's user has it: theirs have the issuer's name and a colon.
	GuestPrefix = "guest-"
	// UserBytes is the longest user name: user channels must stay below limit.ChannelBytes.
	UserBytes = 128
)

// SignVerifier makes and checks tokens of one audience.
type SignVerifier interface {
	token.Signer
	token.Verifier
}

// Options of New.
type Options struct {
	Sessions SignVerifier // audience token.AudienceSession
	Access   SignVerifier // audience token.Audience
	Store    Store
	// SignIn verifies id tokens of OpenID Connect issuers; nil: there are none.
	SignIn token.Verifier
	// Admit decides who may subscribe to a channel of a namespace with "token": true; nil: there is no endpoint for such tokens. An error is
	// answered with 503.
	Admit func(context.Context, Admission) (bool, error)
	// Guests may come without signing in.
	Guests bool
	// PublicScheme is "http" or "https", as browsers see it: it decides Secure cookies and the links' URLs.
	PublicScheme   string
	TrustedOrigins []string
	Log            *slog.Logger
	Meter          api.Meter
	Now            func() time.Time
}

// Service is the session function. It is an http.Handler, safe for concurrent use, and keeps no state of its own.
type Service struct {
	*api.API
	o   Options
	now func() time.Time
	log *slog.Logger
}

// New checks the options, all mistakes in one error, and makes the handler.
func New(o Options) (*Service, error) {
	var errs []error
	if o.Sessions == nil || o.Access == nil || o.Store == nil {
		errs = append(errs, errors.New("session: Sessions, Access and Store are required"))
	}
	if o.PublicScheme != "http" && o.PublicScheme != "https" {
		errs = append(errs, fmt.Errorf("session: public scheme %q, want http or https", o.PublicScheme))
	}
	if !o.Guests && o.SignIn == nil {
		errs = append(errs, errors.New("session: neither guests nor issuers: nobody could sign in"))
	}
	a, err := api.New(api.Options{Verifier: o.Access, TrustedOrigins: o.TrustedOrigins, Log: o.Log, Meter: o.Meter, Now: o.Now})
	if err := errors.Join(append(errs, err)...); err != nil {
		return nil, err
	}
	s := &Service{API: a, o: o, now: o.Now, log: o.Log}
	if s.now == nil {
		s.now = time.Now
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.register(a)
	return s, nil
}

// Describe adds the operations to an API whose document is wanted and which will serve nothing.
func Describe(a *api.API) { (&Service{}).register(a) }

// MakeLink makes a one-time link that signs a browser in as user with roles, and answers its path below the public URL.
// It is also how the operator of a local system signs in.
func (s *Service) MakeLink(ctx context.Context, user string, roles []string) (path string, expires time.Time, err error) {
	if err := checkUser(user); err != nil {
		return "", time.Time{}, err
	}
	return s.makeLink(ctx, token.Claims{User: user, Roles: roles, Expires: s.now().Add(SignInTTL)})
}

func (s *Service) makeLink(ctx context.Context, c token.Claims) (string, time.Time, error) {
	code := rand.Text()
	l := Link{User: c.User, Roles: c.Roles, Info: c.Info, Expires: s.now().Add(limit.LinkTTL)}
	if !extends(c) {
		l.Until = c.Expires
	}
	if err := s.o.Store.PutLink(ctx, linkID(code), l); err != nil {
		return "", time.Time{}, fmt.Errorf("store link: %w", err)
	}
	return LinkPath + code, l.Expires, nil
}

// linkID is what the store sees: whoever reads the table can't sign in with it.
func linkID(code string) string {
	sum := sha256.Sum256([]byte(code))
	return hex.EncodeToString(sum[:])
}

// extends reports whether a session's life is extended on use: a guest's without roles.
func extends(c token.Claims) bool { return len(c.Roles) == 0 && strings.HasPrefix(c.User, GuestPrefix) }

func checkUser(user string) error {
	if user == "" || len(user) > UserBytes {
		return fmt.Errorf("user name of %d bytes, 1 to %d are allowed", len(user), UserBytes)
	}
	return channel.Validate(channel.Personal("todos", user))
}

// start makes a new session. Until, when set, is its fixed end.
func (s *Service) start(user string, roles []string, info json.RawMessage, until time.Time) token.Claims {
	now := s.now()
	c := token.Claims{User: user, Roles: roles, Info: info, Session: rand.Text(), IssuedAt: now, Expires: until}
	if extends(c) && until.IsZero() {
		c.Expires = now.Add(limit.SessionTTL)
	} else if until.IsZero() {
		c.Expires = now.Add(SignInTTL)
	}
	return c
}

func (s *Service) guest() token.Claims {
	return s.start(GuestPrefix+strings.ToLower(rand.Text()[:16]), nil, nil, time.Time{})
}

// errNoSession says that a request has no session that is still good.
var errNoSession = errors.New("no session")

// current reads the session of a cookie's value. errNoSession when it is absent, malformed, expired or signed out; any other
// error means that nobody knows, and the browser must not be given a new user for it.
func (s *Service) current(ctx context.Context, cookie string) (token.Claims, error) {
	if cookie == "" {
		return token.Claims{}, errNoSession
	}
	c, err := s.o.Sessions.Verify(ctx, cookie)
	switch {
	case errors.Is(err, token.ErrExpired), errors.Is(err, token.ErrInvalid):
		s.log.DebugContext(ctx, "session cookie refused", "error", err)
		return token.Claims{}, errNoSession
	case err != nil:
		return token.Claims{}, fmt.Errorf("verify session: %w", err)
	case c.User == "" || c.Session == "" || c.Expires.IsZero():
		return token.Claims{}, errNoSession
	}
	out, err := s.o.Store.Revoked(ctx, c.Session, s.now())
	if err != nil {
		return token.Claims{}, fmt.Errorf("read signed-out sessions: %w", err)
	}
	if out {
		return token.Claims{}, errNoSession
	}
	return c, nil
}

// reissue answers the cookie to set, or "" while the present one is young.
func (s *Service) reissue(c token.Claims) (string, error) {
	now := s.now()
	if now.Sub(c.IssuedAt) < ReissueAfter {
		return "", nil
	}
	c.IssuedAt, c.ID = now, ""
	if extends(c) {
		c.Expires = now.Add(limit.SessionTTL)
	}
	return s.cookie(c)
}

// cookie is the Set-Cookie header's value for a session.
func (s *Service) cookie(c token.Claims) (string, error) {
	raw, err := s.o.Sessions.Sign(c)
	if err != nil {
		return "", err
	}
	return s.cookieWith(raw, int(c.Expires.Sub(s.now())/time.Second)), nil
}

// cookieWith clears the cookie when maxAge is negative.
func (s *Service) cookieWith(value string, maxAge int) string {
	return (&http.Cookie{Name: api.SessionCookie, Value: value, Path: "/", MaxAge: maxAge, HttpOnly: true,
		SameSite: http.SameSiteLaxMode, Secure: s.o.PublicScheme == "https"}).String()
}

// access makes an access token, jittered so that clients that arrived together don't renew together. It never outlives the session.
func (s *Service) access(c token.Claims) (raw string, expires time.Time, err error) {
	now := s.now()
	expires = now.Add(limit.TokenTTL - limit.TokenJitter + mrand.N(2*limit.TokenJitter)).Truncate(time.Second)
	if expires.After(c.Expires) {
		expires = c.Expires
	}
	raw, err = s.o.Access.Sign(token.Claims{User: c.User, Session: c.Session, Roles: c.Roles, Info: c.Info, IssuedAt: now, Expires: expires})
	return raw, expires, err
}
