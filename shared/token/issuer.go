package token

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"tideline/shared/channel"
)

// Foreign is an OpenID Connect issuer whose tokens are accepted, as OIDC_ISSUERS has it.
type Foreign struct {
	// Name begins its users' names here: "acme:" and the token's sub. It is 1 to 32 of a–z, 0–9 and '-', and can't change later.
	Name string `json:"name"`
	// Issuer is the exact iss claim, an https URL.
	Issuer string `json:"issuer"`
	// Audience is what aud must contain: the client id.
	Audience string `json:"audience"`
	// JWKS is the URL of its keys. Default: jwks_uri of the issuer's /.well-known/openid-configuration.
	JWKS string `json:"jwks,omitempty"`
	// RolesClaim holds roles: a claim's name, or a path of names with dots; an array of strings, or one string of words. Default "roles".
	RolesClaim string `json:"rolesClaim,omitempty"`
	// Operator is the value among them that makes an operator here. Empty: nobody.
	Operator string `json:"operator,omitempty"`
	// NameClaim is shown to others in presence. Default "name".
	NameClaim string `json:"nameClaim,omitempty"`
}

// IssuersMax is the most issuers of one deployment.
const IssuersMax = 20

// issuerLeeway is how far an issuer's clock may be from ours.
const issuerLeeway = 30 * time.Second

// nameBytes is the longest name that is shown to others.
const nameBytes = 128

var issuerName = regexp.MustCompile(`^[a-z0-9-]{1,32}$`)

// issuerMethods are asymmetric only: a key set is public, so an HMAC "with the public key" proves nothing.
var issuerMethods = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

// ParseIssuers reads the setting OIDC_ISSUERS, a JSON array of Foreign. All mistakes are in the error.
func ParseIssuers(setting string) ([]Foreign, error) {
	d := json.NewDecoder(strings.NewReader(setting))
	d.DisallowUnknownFields()
	var list []Foreign
	if err := d.Decode(&list); err != nil {
		return nil, fmt.Errorf("issuers: %w", err)
	}
	var errs []error
	bad := func(i int, format string, args ...any) {
		errs = append(errs, fmt.Errorf("issuer %d: "+format, append([]any{i + 1}, args...)...))
	}
	if len(list) > IssuersMax {
		errs = append(errs, fmt.Errorf("%d issuers, at most %d", len(list), IssuersMax))
	}
	seen := map[string]bool{}
	for i, is := range list {
		if !issuerName.MatchString(is.Name) {
			bad(i, "name %q is not 1 to 32 of a-z, 0-9 and -", is.Name)
		}
		if !secureURL(is.Issuer) {
			bad(i, "issuer %q is not an https URL", is.Issuer)
		}
		if is.JWKS != "" && !secureURL(is.JWKS) {
			bad(i, "jwks %q is not an https URL", is.JWKS)
		}
		if is.Audience == "" {
			bad(i, "audience is missing")
		}
		if is.Issuer == Issuer || seen["n"+is.Name] || seen["i"+is.Issuer] {
			bad(i, "name or issuer is listed twice")
		}
		seen["n"+is.Name], seen["i"+is.Issuer] = true, true
		if is.RolesClaim == "" {
			list[i].RolesClaim = "roles"
		}
		if is.NameClaim == "" {
			list[i].NameClaim = "name"
		}
	}
	return list, errors.Join(errs...)
}

// secureURL also accepts http on the loopback address, for development.
func secureURL(s string) bool {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" {
		return false
	}
	return u.Scheme == "https" || (u.Scheme == "http" && (u.Hostname() == "localhost" || u.Hostname() == "127.0.0.1"))
}

// Issuers verifies tokens of foreign issuers by their published key sets.
func (k *Keys) Issuers(list []Foreign) Verifier {
	v := &issuerVerifier{keys: k, byURL: map[string]Foreign{}}
	for _, is := range list {
		v.byURL[is.Issuer] = is
	}
	return v
}

type issuerVerifier struct {
	keys  *Keys
	byURL map[string]Foreign
}

// Verify implements Verifier.
func (v *issuerVerifier) Verify(ctx context.Context, raw string) (Claims, error) {
	issuer, _, err := peek(raw)
	if err != nil {
		return Claims{}, err
	}
	is, ok := v.byURL[issuer]
	if !ok {
		return Claims{}, fmt.Errorf("%w: issuer is not configured", ErrInvalid)
	}
	r, err := v.keys.cache.get(ctx)
	if err != nil {
		return Claims{}, err
	}
	c, err := v.parse(raw, is, r)
	if errors.Is(err, errUnknownKey) {
		if newer, ok := v.keys.cache.again(ctx); ok {
			c, err = v.parse(raw, is, newer)
		}
	}
	return c, v.keys.doubt(err)
}

func (v *issuerVerifier) parse(raw string, is Foreign, r keyring) (Claims, error) {
	keys, ok := r.issuers[is.Issuer]
	if !ok {
		return Claims{}, fmt.Errorf("%w: no key set of %s yet", ErrUnavailable, is.Issuer)
	}
	m := jwt.MapClaims{}
	_, err := jwt.ParseWithClaims(raw, m, func(t *jwt.Token) (any, error) { return pick(keys, t) },
		jwt.WithValidMethods(issuerMethods), jwt.WithIssuer(is.Issuer), jwt.WithAudience(is.Audience), jwt.WithTimeFunc(v.keys.now),
		jwt.WithLeeway(issuerLeeway), jwt.WithIssuedAt(), jwt.WithExpirationRequired())
	c, err := claims(wireClaims{}, err)
	if err != nil {
		return c, err
	}
	return is.claims(m)
}

// claims maps a verified token of this issuer.
func (is Foreign) claims(m jwt.MapClaims) (Claims, error) {
	sub, _ := m.GetSubject()
	if sub == "" {
		return Claims{}, fmt.Errorf("%w: no subject", ErrInvalid)
	}
	if aud, _ := m.GetAudience(); len(aud) > 1 {
		// OpenID Connect Core 3.1.3.7: with several audiences, azp says for whom the token was made.
		if azp, _ := m["azp"].(string); azp != is.Audience {
			return Claims{}, fmt.Errorf("%w: made for another party", ErrInvalid)
		}
	}
	c := Claims{User: is.Name + ":" + sub}
	if is.Operator != "" && slices.Contains(words(lookup(m, is.RolesClaim)), is.Operator) {
		c.Roles = []string{channel.RoleOperator}
	}
	if name, _ := lookup(m, is.NameClaim).(string); name != "" && len(name) <= nameBytes {
		c.Info, _ = json.Marshal(map[string]string{"name": name})
	}
	c.ID, _ = m["jti"].(string)
	c.Session, _ = m["sid"].(string)
	if t, _ := m.GetIssuedAt(); t != nil {
		c.IssuedAt = t.Time
	}
	if t, _ := m.GetExpirationTime(); t != nil {
		c.Expires = t.Time
	}
	return c, nil
}

// lookup finds a claim by its whole name first: names that are URLs have dots too.
func lookup(m map[string]any, path string) any {
	if v, ok := m[path]; ok {
		return v
	}
	var v any = m
	for name := range strings.SplitSeq(path, ".") {
		inner, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = inner[name]
	}
	return v
}

func words(v any) []string {
	switch v := v.(type) {
	case string:
		return strings.Fields(v)
	case []any:
		var out []string
		for _, e := range v {
			if s, ok := e.(string); ok {
				out = append(out, s)
			}
		}
		return out
	}
	return nil
}

// secretHead is the first part of nearly every token that is signed with a secret: {"alg":"HS256","typ":"JWT"}.
const secretHead = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9"

// peek reads the algorithm of a token that is not verified yet, and the issuer if it is not one of secrets, to find out who should verify it.
// Whoever does reads everything again.
func peek(raw string) (issuer, alg string, err error) {
	if len(raw) > LengthMax {
		return "", "", fmt.Errorf("%w: %d bytes, at most %d", ErrInvalid, len(raw), LengthMax)
	}
	head, rest, _ := strings.Cut(raw, ".")
	if head == secretHead {
		return "", "HS256", nil
	}
	body, _, _ := strings.Cut(rest, ".")
	var h struct{ Alg string }
	var c struct{ Iss string }
	if err := errors.Join(part(head, &h), part(body, &c)); err != nil {
		return "", "", fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return c.Iss, h.Alg, nil
}

// part decodes one part of a token.
func part(raw string, into any) error {
	data, err := base64.RawURLEncoding.DecodeString(raw)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, into)
}

// Either verifies with whichever of the three a token is for: our own by secret, our own by key ring, a foreign issuer's. Any may be nil.
type Either struct {
	Secrets Verifier
	Ring    Verifier
	Issuers Verifier
}

// Verify implements Verifier.
func (e Either) Verify(ctx context.Context, raw string) (Claims, error) {
	issuer, alg, err := peek(raw)
	if err != nil {
		return Claims{}, err
	}
	v := e.Issuers
	switch {
	case strings.HasPrefix(alg, "HS"): // a foreign issuer's is none that anybody here could verify
		v = e.Secrets
	case issuer == Issuer:
		v = e.Ring
	}
	if v == nil {
		return Claims{}, fmt.Errorf("%w: nothing here verifies %s of this issuer", ErrInvalid, alg)
	}
	return v.Verify(ctx, raw)
}
