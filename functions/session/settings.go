package session

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"tideline/shared/token"
)

// Settings are what the function's command reads from its environment.
type Settings struct {
	PublicScheme   string   // PUBLIC_SCHEME: http or https
	Guests         bool     // GUESTS: on (default) or off
	TrustedOrigins []string // ALLOWED_ORIGINS: further origins, separated by commas
	Secrets        string   // TOKEN_SECRETS: see token.ParseSecrets
	KeysTable      string   // KEYS_TABLE: DynamoDB table of the key rings and of issuers' keys
	Table          string   // SESSION_TABLE: DynamoDB table of links and signed-out sessions
	DB             string   // SESSION_DB: bbolt file of the same
	Issuers        string   // OIDC_ISSUERS: see token.ParseIssuers
}

// ReadSettings answers all mistakes together, each by the variable's name.
func ReadSettings(getenv func(string) string) (Settings, error) {
	s := Settings{PublicScheme: or(getenv("PUBLIC_SCHEME"), "http"), Secrets: getenv("TOKEN_SECRETS"), KeysTable: getenv("KEYS_TABLE"),
		Table: getenv("SESSION_TABLE"), DB: getenv("SESSION_DB"), Issuers: getenv("OIDC_ISSUERS")}
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if s.PublicScheme != "http" && s.PublicScheme != "https" {
		bad("PUBLIC_SCHEME: %q is neither http nor https", s.PublicScheme)
	}
	switch g := or(getenv("GUESTS"), "on"); g {
	case "on", "off":
		s.Guests = g == "on"
	default:
		bad("GUESTS: %q is neither on nor off", g)
	}
	if !s.Guests && s.Issuers == "" {
		bad("GUESTS: off needs OIDC_ISSUERS, or nobody could sign in")
	}
	for o := range strings.SplitSeq(getenv("ALLOWED_ORIGINS"), ",") {
		if o = strings.TrimSpace(o); o == "" {
			continue
		}
		if u, err := url.Parse(o); err != nil || u.Scheme == "" || u.Host == "" || u.Path != "" || u.RawQuery != "" || u.Fragment != "" {
			bad("ALLOWED_ORIGINS: %q is not scheme://host[:port]", o)
		}
		s.TrustedOrigins = append(s.TrustedOrigins, o)
	}
	if s.Secrets == "" && s.KeysTable == "" {
		bad("TOKEN_SECRETS, KEYS_TABLE: set one of them; with both, the secrets sign")
	}
	if s.Issuers != "" {
		if _, err := token.ParseIssuers(s.Issuers); err != nil {
			bad("OIDC_ISSUERS: %w", err)
		}
	}
	if s.Secrets != "" {
		if _, err := token.ParseSecrets(s.Secrets, nil, nil); err != nil {
			bad("TOKEN_SECRETS: %w", err)
		}
	}
	if (s.Table == "") == (s.DB == "") {
		bad("SESSION_TABLE, SESSION_DB: set exactly one of them")
	}
	if s.Issuers != "" && s.KeysTable == "" {
		bad("OIDC_ISSUERS: needs KEYS_TABLE, where the issuers' keys are")
	}
	return s, errors.Join(errs...)
}

func or(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}
