package api

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"tideline/shared/token"
)

type callerKey struct{}

// Caller is who sent the request, in a handler of an operation that declares Bearer. Elsewhere it is the zero Claims.
func Caller(ctx context.Context) token.Claims {
	c, _ := ctx.Value(callerKey{}).(token.Claims)
	return c
}

// WithCaller is for tests of handlers without the HTTP layer.
func WithCaller(ctx context.Context, c token.Claims) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// bearer verifies an Authorization header. A token without a user, or for one channel alone, does not speak for anybody here.
func (a *API) bearer(ctx context.Context, header string) (token.Claims, *huma.ErrorModel) {
	scheme, raw, _ := strings.Cut(header, " ")
	raw = strings.TrimSpace(raw)
	if header == "" || !strings.EqualFold(scheme, "bearer") || raw == "" {
		return token.Claims{}, Problem(http.StatusUnauthorized, CodeUnauthorized, "Send the header Authorization: Bearer <token>.")
	}
	if a.verifier == nil {
		return token.Claims{}, Problem(http.StatusServiceUnavailable, CodeUnavailable, "")
	}
	claims, err := a.verifier.Verify(ctx, raw)
	switch {
	case err == nil && claims.User != "" && claims.Channel == "":
		return claims, nil
	case errors.Is(err, token.ErrExpired):
		return token.Claims{}, Problem(http.StatusUnauthorized, CodeTokenExpired, "Get a new token with POST /api/session/token.")
	case err == nil || errors.Is(err, token.ErrInvalid):
		a.log.DebugContext(ctx, "token refused", "error", err)
		return token.Claims{}, Problem(http.StatusUnauthorized, CodeTokenInvalid, "")
	default: // the keys could not be read: the token may well be good
		a.log.ErrorContext(ctx, "token could not be checked", "error", err)
		return token.Claims{}, Problem(http.StatusServiceUnavailable, CodeUnavailable, "")
	}
}
