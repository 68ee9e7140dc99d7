package session_test

import (
	"net/http"
	"testing"

	"tideline/functions/session"
	"tideline/local/balancer"
)

func TestForgettingTheNodeRemovesTheBalancersCookies(t *testing.T) {
	for _, scheme := range []string{"http", "https"} {
		w := newWorld(t, func(o *session.Options) { o.PublicScheme = scheme })
		req, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, w.url+"/api/session/node", nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != http.StatusNoContent {
			t.Fatalf("status %d", res.StatusCode)
		}
		gone := map[string]bool{}
		for _, c := range res.Cookies() {
			gone[c.Name] = c.MaxAge < 0 && c.Path == "/" && c.Secure == (scheme == "https")
		}
		if !gone[balancer.CookieName] || !gone["AWSALBCORS"] || len(gone) != 2 {
			t.Errorf("%s: cookies %v", scheme, res.Cookies())
		}
	}
}

func TestForgettingTheNodeIsRefusedToOtherOrigins(t *testing.T) {
	w := newWorld(t, nil)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, w.url+"/api/session/node", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Origin", "https://elsewhere.example")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusForbidden || len(res.Cookies()) != 0 {
		t.Errorf("status %d, cookies %v", res.StatusCode, res.Cookies())
	}
}
