package bus

// Exclusive locks with fencing: one node at a time feeds a channel. A lock is a lease of one name and channel that holds a random
// token; Publish compares the token in the step that publishes, so that a holder that was paused and does not know that it lost the
// lock publishes nothing. When Redis is away a lock can't be renewed, and its holder's context ends before the lease can.

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"tideline/shared/channel"
	"tideline/shared/limit"
)

// ErrHeld says that somebody else holds the lock.
var ErrHeld = errors.New("lock held by another")

// lockNameBytes is the longest name of a lock.
const lockNameBytes = 128

// LockOptions are zero but in tests.
type LockOptions struct {
	// TTL is how long the lock outlives its last renewal, Renew the interval of renewals by Hold: limit.LockTTL and limit.LockRenew.
	// Renew*2 < TTL. All that compete for a lock must have the same.
	TTL, Renew time.Duration
}

func (o LockOptions) withDefaults() (LockOptions, error) {
	o.TTL, o.Renew = cmp.Or(o.TTL, limit.LockTTL), cmp.Or(o.Renew, limit.LockRenew)
	if o.Renew <= 0 || 2*o.Renew >= o.TTL {
		return o, fmt.Errorf("%w: lock: TTL %v, renewed every %v", ErrInvalid, o.TTL, o.Renew)
	}
	return o, nil
}

// Lock is an exclusive lock that was acquired. It is safe for concurrent use.
type Lock struct {
	bus           *Bus
	channel, name string
	token, cursor string
	ttl           time.Duration

	held context.Context
	lose context.CancelCauseFunc

	mu     sync.Mutex
	until  time.Time // when held ends unless it is renewed
	expiry *time.Timer
}

// acquireScript: KEYS lock, the channel's meta. ARGV token, TTL in ms, the cursor's field. Answers the cursor ("" before the first), or
// nothing when another token holds the lock. It bears repetition: the same token acquires again.
var acquireScript = newScript("acquire lock", `
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return false end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return redis.call('HGET', KEYS[2], ARGV[3]) or ''
`)

// renewScript: KEYS lock. ARGV token, TTL in ms; TTL 0 releases. Answers 0 when the lock does not hold the token.
var renewScript = newScript("renew lock", `
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then return redis.call('DEL', KEYS[1]) end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
`)

// Acquire tries once to take the lock of that name that guards a channel. The caller renews and releases it; Hold does both.
//
// Errors: ErrHeld, ErrInvalid, ErrUnavailable. After ErrUnavailable the lock may be taken, by nobody, for one TTL.
func (b *Bus) Acquire(ctx context.Context, channelName, name string, o LockOptions) (*Lock, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := channel.Validate(channelName); err != nil {
		return nil, fmt.Errorf("acquire lock: %w: %w", ErrInvalid, err)
	}
	if name == "" || len(name) > lockNameBytes {
		return nil, fmt.Errorf("%w: lock name of %d bytes: want 1 to %d", ErrInvalid, len(name), lockNameBytes)
	}
	l := &Lock{bus: b, channel: channelName, name: name, token: rand.Text(), ttl: o.TTL}
	sent := time.Now()
	call, cancel := context.WithDeadline(ctx, l.lasts(sent))
	defer cancel()
	reply, err := b.run(call, acquireScript, []string{b.lockKey(channelName, name), b.key(keyMeta, channelName)},
		l.token, o.TTL.Milliseconds(), metaCursor+name)
	if err != nil {
		return nil, fmt.Errorf("lock %q of %q: %w", name, channelName, err)
	}
	cursor, ok := reply.(string)
	if !ok {
		return nil, fmt.Errorf("lock %q of %q: %w", name, channelName, ErrHeld)
	}
	l.cursor = cursor
	l.held, l.lose = context.WithCancelCause(context.WithoutCancel(ctx))
	l.until = l.lasts(sent)
	l.expiry = time.AfterFunc(time.Until(l.until), func() { l.lose(ErrFenced) })
	return l, nil
}

// lasts is when a holder has to stop that last sent a renewal at the given time. Redis began to count later than that; a fifth of the
// TTL is for clocks that run at different speeds and for work that takes a moment to notice.
func (l *Lock) lasts(sent time.Time) time.Time { return sent.Add(l.ttl - l.ttl/5) }

// Context ends when the lock is released, when it was found lost (its cause is then ErrFenced), and, unless it is renewed, before the
// lease in Redis can have expired.
func (l *Lock) Context() context.Context { return l.held }

// Cursor is what the last publication under this lock's name wrote as its cursor, when the lock was acquired; "" if there was none.
func (l *Lock) Cursor() string { return l.cursor }

// Fence is for Publication.Fence on the lock's channel: the publication goes through only while this lock is held, and then cursor, unless
// empty, is what the next holder finds in Cursor.
func (l *Lock) Fence(cursor string) *Fence {
	return &Fence{Lock: l.name, Token: l.token, Cursor: cursor}
}

// Renew lengthens the lock by its TTL. Errors: ErrFenced when it is lost, and Context has ended; ErrUnavailable when Redis did not
// answer before the context or the lock ended.
func (l *Lock) Renew(ctx context.Context) error {
	sent := time.Now()
	l.mu.Lock()
	call, cancel := context.WithDeadline(ctx, l.until)
	l.mu.Unlock()
	defer cancel()
	if l.held.Err() != nil {
		return fmt.Errorf("renew lock %q of %q: %w", l.name, l.channel, ErrFenced)
	}
	reply, err := l.bus.run(call, renewScript, []string{l.bus.lockKey(l.channel, l.name)}, l.token, l.ttl.Milliseconds())
	if err != nil {
		return fmt.Errorf("lock %q of %q: %w", l.name, l.channel, err)
	}
	if reply != int64(1) {
		l.lose(ErrFenced)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held.Err() != nil || !l.expiry.Stop() {
		l.lose(ErrFenced)
		return fmt.Errorf("renew lock %q of %q: %w", l.name, l.channel, ErrFenced)
	}
	if until := l.lasts(sent); until.After(l.until) {
		l.until = until
	}
	l.expiry.Reset(time.Until(l.until))
	return nil
}

// Release ends Context and then gives the lock up, so that another can have it at once. A lock that was lost already is left alone.
// After an error the lock ends by itself within its TTL.
func (l *Lock) Release(ctx context.Context) error {
	l.lose(context.Canceled)
	l.mu.Lock()
	l.expiry.Stop()
	l.mu.Unlock()
	if _, err := l.bus.run(ctx, renewScript, []string{l.bus.lockKey(l.channel, l.name)}, l.token, 0); err != nil {
		return fmt.Errorf("release lock %q of %q: %w", l.name, l.channel, err)
	}
	return nil
}

// Hold acquires the lock, renews it while work runs, and releases it when work has returned. Work's context ends with ctx and with the
// lock; work must return soon after, and publish with the lock's Fence. Hold returns what work returns; ErrHeld and the other
// errors of Acquire without having called work; and ErrFenced, joined to work's error, when the lock was lost.
func (b *Bus) Hold(ctx context.Context, channelName, name string, o LockOptions, work func(context.Context, *Lock) error) error {
	l, err := b.Acquire(ctx, channelName, name, o)
	if err != nil {
		return err
	}
	o, _ = o.withDefaults() // Acquire has checked them
	working, stop := context.WithCancelCause(ctx)
	unlink := context.AfterFunc(l.held, func() { stop(context.Cause(l.held)) })
	var renewing sync.WaitGroup
	renewing.Go(func() { l.keep(working, o.Renew) })

	err = work(working, l)
	lost := errors.Is(context.Cause(l.held), ErrFenced)
	unlink()
	stop(nil)
	renewing.Wait()
	if lost {
		return errors.Join(ErrFenced, err)
	}
	releasing, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit.CommandBudget)
	defer cancel()
	if rerr := l.Release(releasing); rerr != nil {
		b.log.Warn("lock not released, it will expire", "channel", channelName, "lock", name, "error", rerr)
	}
	return err
}

// keep renews the lock until ctx ends, which it does with the lock.
func (l *Lock) keep(ctx context.Context, every time.Duration) {
	for pause := every; sleep(ctx, pause); {
		pause = every
		if err := l.Renew(ctx); err != nil {
			if ctx.Err() == nil {
				l.bus.log.Warn("lock not renewed", "channel", l.channel, "lock", l.name, "error", err)
			}
			pause = jitter(every / 3)
		}
	}
}
