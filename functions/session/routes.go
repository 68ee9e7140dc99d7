package session

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"tideline/functions/api"
	"tideline/shared/token"
)

// Problems of this function, beside api's.
const (
	CodeNoSession      api.Code = "no-session"       // 401: POST /api/session starts one
	CodeGuestsDisabled api.Code = "guests-disabled"  // 403: sign in with an issuer's id token
	CodeNoIssuers      api.Code = "issuers-disabled" // 403: this deployment has no issuers
	CodeLinkUsed       api.Code = "link-used"        // 410
	CodeLinkExpired    api.Code = "link-expired"     // 410: also for a link that never was
)

type signIn struct {
	IDToken string `json:"idToken,omitempty" maxLength:"16384" doc:"Id token of a configured OpenID Connect issuer."`
}

type startInput struct {
	Cookie string  `cookie:"tideline_session"`
	Body   *signIn `required:"false"`
}

type cookieInput struct {
	Cookie string `cookie:"tideline_session"`
}

// linkInput learns the host that the browser used, for the link's URL.
type linkInput struct {
	Cookie string `cookie:"tideline_session"`
	host   string
}

// Resolve implements huma.Resolver.
func (in *linkInput) Resolve(ctx huma.Context) []error {
	in.host = ctx.Host()
	return nil
}

type granted struct {
	User      string    `json:"user" doc:"The user that the session belongs to."`
	Roles     []string  `json:"roles" nullable:"false"`
	Token     string    `json:"token" doc:"For Authorization: Bearer, and for the socket's connect command."`
	ExpiresAt time.Time `json:"expiresAt" doc:"When the token expires; get the next one before."`
}

type grantedOutput struct {
	SetCookie string `header:"Set-Cookie" doc:"The session; absent when the present cookie is still good."`
	Body      granted
}

type who struct {
	User      string    `json:"user"`
	Roles     []string  `json:"roles" nullable:"false"`
	Guest     bool      `json:"guest"`
	ExpiresAt time.Time `json:"expiresAt" doc:"When the session ends if it is not used."`
}

type whoOutput struct {
	SetCookie string `header:"Set-Cookie"`
	Body      who
}

type linkOutput struct {
	SetCookie string `header:"Set-Cookie"`
	Body      struct {
		URL       string    `json:"url" format:"uri" doc:"Open it once, in the browser to sign in."`
		ExpiresAt time.Time `json:"expiresAt"`
	}
}

type clearedOutput struct {
	SetCookie string `header:"Set-Cookie"`
}

const tag = "session"

func (s *Service) register(a *api.API) {
	api.Register(a, huma.Operation{OperationID: "start-session", Method: http.MethodPost, Path: "/api/session", Tags: []string{tag},
		DefaultStatus: http.StatusCreated, Summary: "Sign in, or carry on",
		Description: "Without a body: the browser that has a session keeps its user, any other becomes a guest. " +
			"With an id token: the issuer's user, in a new session.",
		Errors: []int{400, 401, 403, 413, 415, 503}}, s.startSession)
	api.Register(a, huma.Operation{OperationID: "get-session", Method: http.MethodGet, Path: "/api/session", Tags: []string{tag},
		Summary: "Who this browser is", Security: api.Session, Errors: []int{401, 503}}, s.getSession)
	api.Register(a, huma.Operation{OperationID: "end-session", Method: http.MethodDelete, Path: "/api/session", Tags: []string{tag},
		DefaultStatus: http.StatusNoContent, Summary: "Sign out",
		Description: "The session gives no more tokens; a token that it gave lives until it expires. Without a session nothing happens.",
		Security:    api.Session, Errors: []int{403, 503}}, s.endSession)
	api.Register(a, huma.Operation{OperationID: "renew-token", Method: http.MethodPost, Path: "/api/session/token", Tags: []string{tag},
		Summary: "A fresh token for the session", Security: api.Session, Errors: []int{401, 403, 503}}, s.renewToken)
	api.Register(a, huma.Operation{OperationID: "make-link", Method: http.MethodPost, Path: "/api/session/link", Tags: []string{tag},
		DefaultStatus: http.StatusCreated, Summary: "A one-time link that signs another browser in as the same user",
		Security: api.Session, Errors: []int{401, 403, 503}}, s.postLink)
	s.registerNode(a)
	s.registerLink(a)
	s.registerRoom(a)
}

func (s *Service) startSession(ctx context.Context, in *startInput) (*grantedOutput, error) {
	if in.Body != nil && in.Body.IDToken != "" {
		return s.signIn(ctx, in.Body.IDToken)
	}
	c, err := s.current(ctx, in.Cookie)
	switch {
	case err == nil:
		return s.grant(ctx, c, false)
	case !errors.Is(err, errNoSession):
		return nil, s.unavailable(ctx, err)
	case !s.o.Guests:
		return nil, api.Problem(http.StatusForbidden, CodeGuestsDisabled, "Send the id token of a configured issuer.")
	}
	return s.grant(ctx, s.guest(), true)
}

func (s *Service) signIn(ctx context.Context, idToken string) (*grantedOutput, error) {
	if s.o.SignIn == nil {
		return nil, api.Problem(http.StatusForbidden, CodeNoIssuers, "")
	}
	c, err := s.o.SignIn.Verify(ctx, idToken)
	if err == nil {
		err = checkUser(c.User)
	}
	switch {
	case errors.Is(err, token.ErrUnavailable):
		return nil, s.unavailable(ctx, err)
	case errors.Is(err, token.ErrExpired):
		return nil, api.Problem(http.StatusUnauthorized, api.CodeTokenExpired, "The id token has expired.")
	case err != nil:
		s.log.InfoContext(ctx, "id token refused", "error", err)
		return nil, api.Problem(http.StatusUnauthorized, api.CodeTokenInvalid, "The id token is not one that this deployment accepts.")
	}
	return s.grant(ctx, s.start(c.User, c.Roles, c.Info, s.now().Add(SignInTTL)), true)
}

// grant answers an access token, and the cookie where it is new or old.
func (s *Service) grant(ctx context.Context, c token.Claims, fresh bool) (*grantedOutput, error) {
	out := &grantedOutput{}
	var err error
	if fresh {
		out.SetCookie, err = s.cookie(c)
	} else {
		out.SetCookie, err = s.reissue(c)
	}
	if err != nil {
		return nil, s.unavailable(ctx, err)
	}
	out.Body = granted{User: c.User, Roles: list(c.Roles)}
	if out.Body.Token, out.Body.ExpiresAt, err = s.access(c); err != nil {
		return nil, s.unavailable(ctx, err)
	}
	return out, nil
}

func (s *Service) renewToken(ctx context.Context, in *cookieInput) (*grantedOutput, error) {
	c, err := s.need(ctx, in.Cookie)
	if err != nil {
		return nil, err
	}
	return s.grant(ctx, c, false)
}

func (s *Service) getSession(ctx context.Context, in *cookieInput) (*whoOutput, error) {
	c, err := s.need(ctx, in.Cookie)
	if err != nil {
		return nil, err
	}
	set, err := s.reissue(c)
	if err != nil {
		return nil, s.unavailable(ctx, err)
	}
	return &whoOutput{SetCookie: set, Body: who{User: c.User, Roles: list(c.Roles),
		Guest: strings.HasPrefix(c.User, GuestPrefix), ExpiresAt: c.Expires}}, nil
}

func (s *Service) endSession(ctx context.Context, in *cookieInput) (*clearedOutput, error) {
	c, err := s.current(ctx, in.Cookie)
	if err == nil {
		err = s.o.Store.Revoke(ctx, c.Session, s.revokedUntil(c))
	}
	if err != nil && !errors.Is(err, errNoSession) {
		return nil, s.unavailable(ctx, err)
	}
	return &clearedOutput{SetCookie: s.cookieWith("", -1)}, nil
}

func (s *Service) postLink(ctx context.Context, in *linkInput) (*linkOutput, error) {
	c, err := s.need(ctx, in.Cookie)
	if err != nil {
		return nil, err
	}
	out := &linkOutput{}
	if out.SetCookie, err = s.reissue(c); err != nil {
		return nil, s.unavailable(ctx, err)
	}
	path, expires, err := s.makeLink(ctx, c)
	if err != nil {
		return nil, s.unavailable(ctx, err)
	}
	out.Body.URL, out.Body.ExpiresAt = s.o.PublicScheme+"://"+in.host+path, expires
	return out, nil
}

// need is current for operations that do nothing without a session.
func (s *Service) need(ctx context.Context, cookie string) (token.Claims, error) {
	c, err := s.current(ctx, cookie)
	if errors.Is(err, errNoSession) {
		return c, api.Problem(http.StatusUnauthorized, CodeNoSession, "Start a session with POST /api/session.")
	}
	if err != nil {
		return c, s.unavailable(ctx, err)
	}
	return c, nil
}

func (s *Service) unavailable(ctx context.Context, err error) error {
	s.log.ErrorContext(ctx, "session store or keys unavailable", "error", err)
	return api.Problem(http.StatusServiceUnavailable, api.CodeUnavailable, "")
}

func list(roles []string) []string {
	if roles == nil {
		return []string{}
	}
	return roles
}
