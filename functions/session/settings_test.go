package session_test

import (
	"strings"
	"testing"

	"tideline/functions/session"
)

func env(pairs ...string) func(string) string {
	m := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return func(name string) string { return m[name] }
}

func TestSettings(t *testing.T) {
	secret := strings.Repeat("s", 32)
	s, err := session.ReadSettings(env("TOKEN_SECRETS", secret, "SESSION_DB", "/tmp/x", "ALLOWED_ORIGINS", "https://a.example, http://b.example:8080"))
	if err != nil || !s.Guests || s.PublicScheme != "http" || len(s.TrustedOrigins) != 2 {
		t.Errorf("%+v, %v", s, err)
	}
	_, err = session.ReadSettings(env("PUBLIC_SCHEME", "gopher", "GUESTS", "maybe", "ALLOWED_ORIGINS", "a.example", "TOKEN_SECRETS", "short", "SESSION_DB", "x",
		"SESSION_TABLE", "y", "OIDC_ISSUERS", "{}"))
	for _, name := range []string{"PUBLIC_SCHEME", "GUESTS", "ALLOWED_ORIGINS", "TOKEN_SECRETS", "SESSION_TABLE", "OIDC_ISSUERS", "KEYS_TABLE"} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s is not named in %v", name, err)
		}
	}
	_, err = session.ReadSettings(env("GUESTS", "off"))
	for _, name := range []string{"GUESTS: off", "TOKEN_SECRETS, KEYS_TABLE", "SESSION_TABLE, SESSION_DB"} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s is not named in %v", name, err)
		}
	}
}
