package session_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"tideline/functions/session"
	"tideline/shared/token"
)

func TestTheApplicationDecidesWhoIsInARoom(t *testing.T) {
	away := false
	w := newWorld(t, func(o *session.Options) {
		o.Admit = func(_ context.Context, a session.Admission) (bool, error) {
			if away {
				return false, errors.New("away")
			}
			return a.Channel == "room:open" || a.Channel == "room:#"+a.User, nil
		}
	})
	const path = "/api/session/subscription"
	b := w.browser()
	b.refused(401, session.CodeNoSession, "POST", path, `{"channel":"room:open"}`)
	user := b.must(201, "POST", "/api/session", "").User
	for _, name := range []string{"room:open", "room:#" + user} {
		r := b.must(200, "POST", path, `{"channel":"`+name+`"}`)
		c, err := w.keys.Verify(t.Context(), r.Token)
		if err != nil || c.Channel != name || c.User != user || c.Session == "" || c.ID == "" {
			t.Errorf("%s: %+v %v", name, c, err)
		}
		if life := c.Expires.Sub(w.clock.now()); life > session.RoomTTL || life < session.RoomTTL-time.Second || !r.Expires.Equal(c.Expires) {
			t.Errorf("%s: lives for %v", name, life)
		}
	}
	for _, name := range []string{"room:closed", "room:#else", "room:{x}", "a b"} {
		b.refused(403, session.CodeNotAdmitted, "POST", path, `{"channel":"`+name+`"}`)
	}
	away = true
	if r := b.do("POST", path, `{"channel":"room:open"}`); r.StatusCode != 503 {
		t.Errorf("with the application away: %d", r.StatusCode)
	}
	if r := newWorld(t, nil).browser().do("POST", path, `{"channel":"room:open"}`); r.StatusCode != 404 {
		t.Errorf("without an application that decides: %d", r.StatusCode)
	}
}

func TestARoomTokenEndsWithTheSession(t *testing.T) {
	w := newWorld(t, nil)
	now := w.clock.now()
	_, expires, err := session.SignRoom(w.keys, token.Claims{User: "ann", Expires: now.Add(time.Minute)}, "room:a", now)
	if err != nil || !expires.Equal(now.Add(time.Minute)) {
		t.Errorf("%v %v", expires, err)
	}
}
