// Package keys rotates Tideline's signing keys and fetches the public keys of foreign issuers, into a table that verifiers read.
//
// It runs every few minutes, and every run decides everything anew from the table and the clock: a run that is missed, repeated or doubled
// does no harm. A new key is published token.Propagation before it signs, when every verifier that is able to read has it; its predecessor is
// retired when the last token that it can have signed has expired, and removed a little later.
package keys

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"tideline/shared/token"
)

// removeAfter is how long a retired key is still in the table, for whoever looks into a refused token.
const removeAfter = 24 * time.Hour

// conflictTries is how often a run decides anew when another run was faster.
const conflictTries = 3

// Rotation keeps the rings of one table. It is safe for concurrent use, also by several processes.
type Rotation struct {
	store token.Store
	now   func() time.Time
	log   *slog.Logger
}

// NewRotation keeps the rings in store. Now is nil for the real clock.
func NewRotation(store token.Store, now func() time.Time, log *slog.Logger) *Rotation {
	if now == nil {
		now = time.Now
	}
	return &Rotation{store: store, now: now, log: log}
}

// Rotate does what is due in every ring. A ring that fails does not keep the other from its turn.
func (r *Rotation) Rotate(ctx context.Context) error {
	var errs []error
	for _, ring := range []string{token.RingAccess, token.RingSession} {
		errs = append(errs, r.change(ctx, ring, r.due))
	}
	return errors.Join(errs...)
}

// Replace removes a key at once, because it is no longer a secret, and lets a new one sign in its place. Every token that it signed is refused as soon as
// verifiers have read again: token.ReloadEvery. Tokens of the new key may be refused until then, for at most token.ReloadUnknown.
func (r *Rotation) Replace(ctx context.Context, ring, kid string) error {
	return r.change(ctx, ring, func(ring string, state token.Ring) (token.Change, error) {
		if !slices.ContainsFunc(state.Keys, func(k token.Key) bool { return k.ID == kid }) {
			return token.Change{}, fmt.Errorf("no key %q in ring %q", kid, ring)
		}
		c := token.Change{Remove: []string{kid}, Retire: map[string]time.Time{}}
		now := r.now()
		// The new key signs at once, in front of any that was waiting for its turn; the others are to retire as after any succession.
		if err := r.add(&c, ring, now, atOnce(now)); err != nil {
			return c, err
		}
		for _, k := range state.Keys {
			if k.ID != kid && k.Retire.IsZero() && !k.SignFrom.After(now) {
				c.Retire[k.ID] = retireAt(ring, now)
			}
		}
		return c, nil
	})
}

// change reads, decides and writes, again if somebody else wrote meanwhile.
func (r *Rotation) change(ctx context.Context, ring string, decide func(string, token.Ring) (token.Change, error)) error {
	for range conflictTries {
		state, err := r.store.ReadRing(ctx, ring)
		if err != nil {
			return err
		}
		c, err := decide(ring, state)
		if err != nil {
			return err
		}
		if c.Add == nil && len(c.Retire) == 0 && len(c.Remove) == 0 {
			return nil
		}
		c.Ring, c.Version = ring, state.Version
		err = r.store.ChangeRing(ctx, c)
		if err == nil {
			r.report(c)
			return nil
		}
		if !errors.Is(err, token.ErrConflict) {
			return err
		}
	}
	return fmt.Errorf("ring %s: %w, %d times", ring, token.ErrConflict, conflictTries)
}

func (r *Rotation) report(c token.Change) {
	attrs := []any{"ring", c.Ring, "retired", len(c.Retire), "removed", c.Remove}
	if c.Add != nil {
		attrs = append(attrs, "added", c.Add.ID, "signs_from", c.Add.SignFrom)
	}
	r.log.Info("key ring changed", attrs...)
}

// due decides what a ring needs now.
func (r *Rotation) due(ring string, state token.Ring) (token.Change, error) {
	now := r.now()
	c := token.Change{Retire: map[string]time.Time{}}
	keys := slices.Clone(state.Keys)
	slices.SortFunc(keys, func(a, b token.Key) int { return cmp.Or(a.SignFrom.Compare(b.SignFrom), cmp.Compare(a.ID, b.ID)) })
	for i, k := range keys {
		newest := i == len(keys)-1
		switch {
		case !k.Retire.IsZero() && !now.Before(k.Retire.Add(removeAfter)) && len(c.Remove) < token.ChangeMax/2:
			c.Remove = append(c.Remove, k.ID)
		case k.Retire.IsZero() && !newest && len(c.Retire) < token.ChangeMax/2:
			// It has a successor and does not know: a run was cut short, or a hand was at work.
			c.Retire[k.ID] = retireAt(ring, later(now, keys[i+1].SignFrom))
		}
	}
	if len(keys) == 0 {
		// The very first key has nobody to wait for: verifiers read on a key id that they don't know.
		return c, r.add(&c, ring, now, atOnce(now))
	}
	last := keys[len(keys)-1]
	// The newest key retires only if a hand was at work; then it needs a successor all the more, and lasts until that signs.
	if last.Retire.IsZero() && now.Before(last.SignFrom.Add(token.RotateEvery(ring)-token.Propagation)) {
		return c, nil
	}
	from := now.Add(token.Propagation)
	if at := retireAt(ring, from); last.Retire.Before(at) {
		c.Retire[last.ID] = at
	}
	return c, r.add(&c, ring, now, from)
}

func (r *Rotation) add(c *token.Change, ring string, now, from time.Time) error {
	pub, priv, err := token.NewKey(ring, now.UTC().Truncate(time.Second), from.UTC().Truncate(time.Second))
	if err != nil {
		return err
	}
	c.Add, c.AddPrivate = &pub, &priv
	return nil
}

// atOnce is when a key signs from that must not wait: also by the clock of a signer that is behind.
func atOnce(now time.Time) time.Time { return now.Add(-token.ClockSkew) }

// retireAt is when the last token has expired that a key signed whose successor signs from then.
func retireAt(ring string, from time.Time) time.Time {
	return from.Add(token.TokenLife(ring) + token.ClockSkew).UTC().Truncate(time.Second).Add(time.Second)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
