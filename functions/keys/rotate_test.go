package keys_test

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tideline/functions/keys"
	"tideline/shared/limit"
	"tideline/shared/token"
	"tideline/shared/token/memory"
	"tideline/test/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

var quiet = slog.New(slog.DiscardHandler)

// clock is a settable time.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time          { c.mu.Lock(); defer c.mu.Unlock(); return c.t }
func (c *clock) advance(d time.Duration) { c.mu.Lock(); defer c.mu.Unlock(); c.t = c.t.Add(d) }

func newClock() *clock { return &clock{t: time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)} }

func ring(t *testing.T, s token.Store, name string) []token.Key {
	t.Helper()
	r, err := s.ReadRing(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(r.Keys, func(a, b token.Key) int { return a.SignFrom.Compare(b.SignFrom) })
	return r.Keys
}

func rotate(t *testing.T, r *keys.Rotation) {
	t.Helper()
	if err := r.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestLifeOfAKey(t *testing.T) {
	for _, name := range []string{token.RingAccess, token.RingSession} {
		t.Run(name, func(t *testing.T) {
			c, s := newClock(), memory.New()
			r := keys.NewRotation(s, c.now, quiet)
			start := c.now()
			for range 3 { // runs that find nothing to do change nothing
				rotate(t, r)
			}
			first := ring(t, s, name)
			if len(first) != 1 || !first[0].SignFrom.Equal(start.Add(-token.ClockSkew)) || !first[0].Retire.IsZero() {
				t.Fatalf("the first key: %+v", first)
			}
			c.advance(token.RotateEvery(name) - token.ClockSkew - token.Propagation - time.Second)
			if rotate(t, r); len(ring(t, s, name)) != 1 {
				t.Error("rotated too early")
			}
			c.advance(time.Second)
			rotate(t, r)
			rotate(t, r)
			two := ring(t, s, name)
			if len(two) != 2 || !two[1].SignFrom.Equal(c.now().Add(token.Propagation)) || !two[1].Created.Equal(c.now()) {
				t.Fatalf("the second key: %+v", two)
			}
			last := two[1].SignFrom.Add(token.TokenLife(name))
			if end := two[0].Retire; end.Before(last) || end.After(last.Add(2*token.ClockSkew)) {
				t.Errorf("the first key retires at %v, its last token expires at %v", end, last)
			}
			c.advance(two[0].Retire.Sub(c.now()) + 24*time.Hour - time.Second)
			rotate(t, r)
			if !slices.ContainsFunc(ring(t, s, name), func(k token.Key) bool { return k.ID == two[0].ID }) {
				t.Error("removed while somebody may look for it")
			}
			c.advance(time.Second)
			rotate(t, r)
			if slices.ContainsFunc(ring(t, s, name), func(k token.Key) bool { return k.ID == two[0].ID }) {
				t.Error("not removed")
			}
		})
	}
}

func TestARunThatComesLateStillPropagates(t *testing.T) {
	c, s := newClock(), memory.New()
	r := keys.NewRotation(s, c.now, quiet)
	rotate(t, r)
	c.advance(10 * token.RotateEvery(token.RingAccess)) // the function was broken for ten days
	rotate(t, r)
	k := ring(t, s, token.RingAccess)
	if len(k) != 2 || !k[1].SignFrom.Equal(c.now().Add(token.Propagation)) || !k[0].Retire.After(k[1].SignFrom) {
		t.Errorf("%+v", k)
	}
}

func TestConcurrentRunsMakeOneKey(t *testing.T) {
	c, s := newClock(), memory.New()
	for round := range 3 {
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if err := keys.NewRotation(s, c.now, quiet).Rotate(t.Context()); err != nil && !errors.Is(err, token.ErrConflict) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := len(ring(t, s, token.RingAccess)); n != round+1 {
			t.Fatalf("round %d: %d keys", round, n)
		}
		c.advance(token.RotateEvery(token.RingAccess))
	}
}

// flaky is a table that can't be reached for spells, each shorter than what signers and verifiers bridge.
type flaky struct {
	token.Store
	mu   sync.Mutex
	down time.Time // until then
}

func (f *flaky) broken(longest time.Duration) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if now.Before(f.down) {
		return errors.New("table not reachable")
	}
	if rand.N(40) == 0 {
		f.down = now.Add(rand.N(longest))
	}
	return nil
}

func (f *flaky) Published(ctx context.Context) (token.Published, error) {
	time.Sleep(rand.N(200 * time.Millisecond)) // virtual: others go on meanwhile
	if err := f.broken(token.StaleAfter - 2*token.ReloadEvery); err != nil {
		return token.Published{}, err
	}
	return f.Store.Published(ctx)
}

func (f *flaky) PrivateKeys(ctx context.Context, ring string) ([]token.PrivateKey, error) {
	time.Sleep(rand.N(200 * time.Millisecond))
	if err := f.broken(token.SignerStale - 2*token.ReloadEvery); err != nil {
		return nil, err
	}
	return f.Store.PrivateKeys(ctx, ring)
}

// signed is a token that somebody holds.
type signed struct {
	raw     string
	expires time.Time
}

// Days of rotation while signers sign and verifiers verify, all at once, each with a clock of its own and a table that is away at times. No valid token
// is ever refused, and nothing that a retired key signs is ever accepted, although the thief of a key makes it valid for years.
func TestRotationUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 76*time.Hour)
		defer cancel()
		store := memory.New()
		rotation := keys.NewRotation(store, nil, quiet)
		if err := rotation.Rotate(ctx); err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var live []signed
		stolen := map[string]signed{} // by key id: a token that the key's thief made; expires is when the key retires
		var accepted, refused, used atomic.Int64
		skewed := func() func() time.Time {
			skew := rand.N(token.ClockSkew/2) - token.ClockSkew/4
			return func() time.Time { return time.Now().Add(skew) }
		}
		var wg sync.WaitGroup
		every := func(longest time.Duration, do func()) {
			wg.Go(func() {
				for ctx.Err() == nil {
					select {
					case <-ctx.Done():
					case <-time.After(rand.N(longest)):
						do()
					}
				}
			})
		}
		every(10*time.Minute, func() {
			if err := rotation.Rotate(ctx); err != nil && !errors.Is(err, token.ErrConflict) {
				t.Error(err)
			}
			steal(t, store, &mu, stolen)
		})
		for range 3 {
			now := skewed()
			signer := token.NewRingSigner(&flaky{Store: store}, token.RingAccess, now, nil)
			every(6*time.Minute, func() {
				life := limit.TokenTTL - limit.TokenJitter + rand.N(2*limit.TokenJitter)
				e := now().Add(life)
				raw, err := signer.Sign(token.Claims{User: "u", Expires: e})
				if err != nil {
					t.Errorf("sign: %v", err)
					return
				}
				mu.Lock()
				live = append(live, signed{raw, e})
				live = slices.DeleteFunc(live, func(s signed) bool { return time.Until(s.expires) < token.ClockSkew })
				mu.Unlock()
			})
		}
		for range 4 {
			verifier := token.NewKeys(&flaky{Store: store}, skewed(), nil).Access()
			every(5*time.Minute, func() {
				mu.Lock()
				var s signed
				if len(live) > 0 {
					s = live[rand.N(len(live))]
				}
				theft := pickStolen(stolen)
				mu.Unlock()
				if s.raw != "" && time.Until(s.expires) > token.ClockSkew {
					if _, err := verifier.Verify(ctx, s.raw); err != nil {
						t.Errorf("a valid token was refused: %v", err)
					}
					accepted.Add(1)
				}
				if theft.raw == "" {
					return
				}
				_, err := verifier.Verify(ctx, theft.raw)
				switch late := time.Since(theft.expires); {
				case err == nil && late > token.ClockSkew:
					t.Errorf("a key that retired %v ago was accepted", late)
				case err == nil:
					used.Add(1)
				case late > 0:
					refused.Add(1)
				}
			})
		}
		wg.Wait()
		t.Logf("%d valid tokens verified, %d tokens of retired keys refused, %d of keys still in use accepted; %d keys",
			accepted.Load(), refused.Load(), used.Load(), len(stolen))
		if accepted.Load() < 3000 || refused.Load() < 100 || used.Load() < 100 || len(stolen) < 4 {
			t.Error("the load was no load")
		}
	})
}

// steal makes an eternal token with every private key that is new, and learns when keys retire.
func steal(t *testing.T, store token.Store, mu *sync.Mutex, stolen map[string]signed) {
	private, err1 := store.PrivateKeys(t.Context(), token.RingAccess)
	public, err2 := store.Published(t.Context())
	if err := errors.Join(err1, err2); err != nil {
		t.Error(err)
		return
	}
	mu.Lock()
	defer mu.Unlock()
	for _, k := range private {
		if stolen[k.ID].raw != "" {
			continue
		}
		only := memory.New()
		k.SignFrom = time.Time{}
		pub := token.Key{ID: k.ID, Ring: k.Ring}
		if err := only.ChangeRing(t.Context(), token.Change{Ring: k.Ring, Add: &pub, AddPrivate: &k}); err != nil {
			t.Error(err)
			return
		}
		raw, err := token.NewRingSigner(only, token.RingAccess, nil, nil).Sign(token.Claims{User: "thief"})
		if err != nil {
			t.Error(err)
			return
		}
		stolen[k.ID] = signed{raw, time.Now().Add(100 * 365 * 24 * time.Hour)}
	}
	for _, k := range public.Keys {
		if s, ok := stolen[k.ID]; ok && !k.Retire.IsZero() {
			stolen[k.ID] = signed{s.raw, k.Retire}
		}
	}
}

func pickStolen(stolen map[string]signed) signed {
	for _, s := range stolen { // map order is random enough
		return s
	}
	return signed{}
}

func TestReplaceRefusesAStolenKeyAtOnce(t *testing.T) {
	c, s := newClock(), memory.New()
	r := keys.NewRotation(s, c.now, quiet)
	rotate(t, r)
	signer := token.NewRingSigner(s, token.RingAccess, c.now, nil)
	verifier := token.NewKeys(s, c.now, nil).Access()
	old, err := signer.Sign(token.Claims{User: "u", Expires: c.now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := verifier.Verify(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	kid := ring(t, s, token.RingAccess)[0].ID
	if err := r.Replace(t.Context(), token.RingAccess, "no such key"); err == nil {
		t.Error("an unknown key was replaced")
	}
	if err := r.Replace(t.Context(), token.RingAccess, kid); err != nil {
		t.Fatal(err)
	}
	c.advance(token.ReloadEvery)
	if _, err := verifier.Verify(t.Context(), old); !errors.Is(err, token.ErrInvalid) {
		t.Errorf("a token of the replaced key: %v", err)
	}
	fresh, err := signer.Sign(token.Claims{User: "u", Expires: c.now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := verifier.Verify(t.Context(), fresh); err != nil {
		t.Errorf("a token of the new key: %v", err)
	}
	rotate(t, r)
	if k := ring(t, s, token.RingAccess); len(k) != 1 || k[0].ID == kid {
		t.Errorf("%+v", k)
	}
}

func TestANewestKeyThatRetiresGetsASuccessorInTime(t *testing.T) {
	c, s := newClock(), memory.New()
	r := keys.NewRotation(s, c.now, quiet)
	rotate(t, r)
	only := ring(t, s, token.RingAccess)[0]
	if err := s.ChangeRing(t.Context(), token.Change{Ring: token.RingAccess, Version: 1, Retire: map[string]time.Time{only.ID: c.now().Add(time.Minute)}}); err != nil {
		t.Fatal(err)
	}
	rotate(t, r)
	rotate(t, r)
	k := ring(t, s, token.RingAccess)
	if len(k) != 2 || !k[0].Retire.After(k[1].SignFrom.Add(token.TokenLife(token.RingAccess))) || !k[1].Retire.IsZero() {
		t.Errorf("%+v", k)
	}
}
