package session

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"tideline/functions/api"
	"tideline/shared/channel"
	"tideline/shared/token"
)

// CodeNotAdmitted says that the application doesn't let this user into this channel. 403.
const CodeNotAdmitted api.Code = "not-admitted"

// RoomTTL is the life of a subscription token. It bounds how long somebody stays in a room that the application has
// put them out of; bus.Revoke, or the order "unsubscribe", is at once.
const RoomTTL = 10 * time.Minute

// Admission is who asks to be let into a channel.
type Admission struct {
	User    string
	Roles   []string
	Channel string
}

type roomInput struct {
	Cookie string `cookie:"tideline_session"`
	Body   struct {
		Channel string `json:"channel" minLength:"1" maxLength:"255" doc:"The channel to subscribe to."`
	}
}

type roomOutput struct {
	Body struct {
		Token     string    `json:"token" doc:"For the subscribe command of this channel, by this user."`
		ExpiresAt time.Time `json:"expiresAt" doc:"When the token expires; get the next one before."`
	}
}

// registerRoom adds the endpoint that SDKs' getToken of a subscription calls, where the application decides about rooms (Options.Admit).
func (s *Service) registerRoom(a *api.API) {
	if s.o.Admit == nil {
		return
	}
	api.Register(a, huma.Operation{OperationID: "subscription-token", Method: http.MethodPost, Path: "/api/session/subscription", Tags: []string{tag},
		Summary:     "A token to subscribe to one channel",
		Description: "The application decides whether this user may. Ask again before the token expires, and whenever a subscription is refused with 109.",
		Security:    api.Session, Errors: []int{400, 401, 403, 413, 415, 503}}, s.admit)
}

func (s *Service) admit(ctx context.Context, in *roomInput) (*roomOutput, error) {
	c, err := s.need(ctx, in.Cookie)
	if err != nil {
		return nil, err
	}
	if err := channel.Validate(in.Body.Channel); err != nil {
		return nil, api.Problem(http.StatusForbidden, CodeNotAdmitted, "There can't be a channel of that name.")
	}
	ok, err := s.o.Admit(ctx, Admission{User: c.User, Roles: c.Roles, Channel: in.Body.Channel})
	if err != nil {
		return nil, s.unavailable(ctx, err)
	}
	if !ok {
		return nil, api.Problem(http.StatusForbidden, CodeNotAdmitted, "This user may not subscribe to this channel.")
	}
	raw, expires, err := SignRoom(s.o.Access, c, in.Body.Channel, s.now())
	if err != nil {
		return nil, s.unavailable(ctx, err)
	}
	out := &roomOutput{}
	out.Body.Token, out.Body.ExpiresAt = raw, expires
	return out, nil
}

// SignRoom makes a subscription token: for this channel, by the user of these claims, from their session. An application that has decided by
// other ways than Options.Admit calls it; the signer's audience is token.Audience.
func SignRoom(signer token.Signer, of token.Claims, name string, now time.Time) (raw string, expires time.Time, err error) {
	expires = now.Add(RoomTTL).Truncate(time.Second)
	if !of.Expires.IsZero() && expires.After(of.Expires) {
		expires = of.Expires
	}
	raw, err = signer.Sign(token.Claims{User: of.User, Session: of.Session, Channel: name, IssuedAt: now, Expires: expires})
	return raw, expires, err
}
