// Package storetest is the suite that every session.Store must pass.
package storetest

import (
	"errors"
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tideline/functions/session"
	"tideline/shared/limit"
)

// Run runs the suite. Open answers a store that may hold what earlier subtests left; now is the time it starts at.
func Run(t *testing.T, now time.Time, open func(t *testing.T) session.Store) {
	now = now.Truncate(time.Second).UTC()
	link := session.Link{User: "guest-a", Roles: []string{"operator"}, Info: []byte(`{"name":"Ann"}`),
		Until: now.Add(time.Hour), Expires: now.Add(limit.LinkTTL)}

	t.Run("a link comes back whole, once", func(t *testing.T) {
		s := open(t)
		must(t, s.PutLink(t.Context(), "whole", link))
		got, err := s.TakeLink(t.Context(), "whole", now)
		if err != nil || !reflect.DeepEqual(got, link) {
			t.Errorf("got %+v, %v\nwant %+v", got, err, link)
		}
		for range 2 {
			if got, err := s.TakeLink(t.Context(), "whole", now); !errors.Is(err, session.ErrLinkUsed) || got.User != "" {
				t.Errorf("the second time: %+v, %v; want ErrLinkUsed", got, err)
			}
		}
	})
	t.Run("a used link stays used after its end", func(t *testing.T) {
		s := open(t)
		must(t, s.PutLink(t.Context(), "late", link))
		if _, err := s.TakeLink(t.Context(), "late", now); err != nil {
			t.Fatal(err)
		}
		if _, err := s.TakeLink(t.Context(), "late", link.Expires.Add(time.Second)); !errors.Is(err, session.ErrLinkUsed) {
			t.Errorf("%v, want ErrLinkUsed", err)
		}
	})
	t.Run("a link ends at its expiry, exactly", func(t *testing.T) {
		s := open(t)
		must(t, s.PutLink(t.Context(), "at", link))
		if _, err := s.TakeLink(t.Context(), "at", link.Expires); !errors.Is(err, session.ErrLinkExpired) {
			t.Errorf("at its expiry: %v, want ErrLinkExpired", err)
		}
		if _, err := s.TakeLink(t.Context(), "at", link.Expires.Add(-time.Second)); err != nil {
			t.Errorf("a refusal must not use it up: %v", err)
		}
	})
	t.Run("an unknown link is an expired one", func(t *testing.T) {
		if _, err := open(t).TakeLink(t.Context(), "never", now); !errors.Is(err, session.ErrLinkExpired) {
			t.Errorf("%v, want ErrLinkExpired", err)
		}
	})
	t.Run("of many takers one wins", func(t *testing.T) {
		s := open(t)
		for round := range 5 {
			id := fmt.Sprintf("race-%d", round)
			must(t, s.PutLink(t.Context(), id, link))
			var won, used atomic.Int32
			var wg sync.WaitGroup
			for range 16 {
				wg.Go(func() {
					switch _, err := s.TakeLink(t.Context(), id, now); {
					case err == nil:
						won.Add(1)
					case errors.Is(err, session.ErrLinkUsed):
						used.Add(1)
					default:
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if won.Load() != 1 || used.Load() != 15 {
				t.Fatalf("%d won, %d were told that it was used; want 1 and 15", won.Load(), used.Load())
			}
		}
	})
	t.Run("a guest's link has no fixed end", func(t *testing.T) {
		s := open(t)
		must(t, s.PutLink(t.Context(), "guest", session.Link{User: "guest-b", Expires: link.Expires}))
		got, err := s.TakeLink(t.Context(), "guest", now)
		if err != nil || !got.Until.IsZero() || got.Roles != nil || got.Info != nil {
			t.Errorf("got %+v, %v", got, err)
		}
	})
	t.Run("a session is signed out until its end", func(t *testing.T) {
		s := open(t)
		until := now.Add(time.Hour)
		check := func(at time.Time, want bool) {
			t.Helper()
			if got, err := s.Revoked(t.Context(), "sid", at); err != nil || got != want {
				t.Errorf("at %v: %v, %v; want %v", at, got, err, want)
			}
		}
		check(now, false)
		must(t, s.Revoke(t.Context(), "sid", until))
		check(now, true)
		check(until.Add(-time.Second), true)
		check(until, false)
		must(t, s.Revoke(t.Context(), "sid", until.Add(time.Hour)))
		check(until, true)
		if got, err := s.Revoked(t.Context(), "other", now); err != nil || got {
			t.Errorf("another session: %v, %v", got, err)
		}
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
