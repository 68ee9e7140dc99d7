package bus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tideline/shared/limit"
	"tideline/test/redistest"
)

// quick is a lock that is lost in half a second.
var quick = LockOptions{TTL: 500 * time.Millisecond, Renew: 150 * time.Millisecond}

func mustAcquire(t testing.TB, b *Bus, channel, name string, o LockOptions) *Lock {
	t.Helper()
	l, err := b.Acquire(t.Context(), channel, name, o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// mayGoOn reports whether the holder of a lock may still believe that it is its own: by the clock, since the goroutine that ends the lock's context may
// have had no turn yet.
func (l *Lock) mayGoOn() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.held.Err() == nil && time.Now().Before(l.until)
}

func testLock(t *testing.T, o Options) {
	b := openTest(t, o)
	ctx := t.Context()
	const room, name = "docker:web", "tail"
	first := mustAcquire(t, b, room, name, LockOptions{})
	if first.Cursor() != "" {
		t.Errorf("cursor %q before anything was published", first.Cursor())
	}
	_, err := b.Acquire(ctx, room, name, LockOptions{})
	wantErr(t, err, ErrHeld)
	other := mustAcquire(t, b, room, "another", LockOptions{})
	// Another channel has its own lock of that name, in the same partition, too.
	mate := "docker:mate"
	for i := 0; partition(mate) != partition(room); i++ {
		mate = fmt.Sprint("docker:mate-", i)
	}
	mustAcquire(t, b, mate, name, LockOptions{})
	line := func(l *Lock, cursor string) error {
		_, err := b.Publish(ctx, Publication{Channel: room, Data: []byte("line"), Fence: l.Fence(cursor)})
		return err
	}
	if err := line(first, "line-7"); err != nil {
		t.Errorf("publish under the lock: %v", err)
	}
	if err := first.Renew(ctx); err != nil {
		t.Errorf("renew: %v", err)
	}
	if left := b.client.PTTL(ctx, b.lockKey(room, name)).Val(); left <= limit.LockTTL/3 || left > limit.LockTTL {
		t.Errorf("lock lasts %v", left)
	}

	// Released: at once another's, who goes on where the first stopped; the first publishes no more and renews no more.
	if err := first.Release(ctx); err != nil {
		t.Errorf("release: %v", err)
	}
	if err := context.Cause(first.Context()); !errors.Is(err, context.Canceled) {
		t.Errorf("context after release: %v", err)
	}
	wantErr(t, line(first, "line-8"), ErrFenced) // absent means refused
	second := mustAcquire(t, b, room, name, LockOptions{})
	if second.Cursor() != "line-7" {
		t.Errorf("cursor %q, want line-7", second.Cursor())
	}
	wantErr(t, line(first, "line-8"), ErrFenced)
	wantErr(t, first.Renew(ctx), ErrFenced)
	if err := first.Release(ctx); err != nil {
		t.Errorf("release of a lock that is another's: %v", err)
	}
	if err := line(second, "line-9"); err != nil {
		t.Errorf("publish under the second lock: %v", err)
	}

	// Lost behind the holder's back: found at the next renewal.
	b.client.Set(ctx, b.lockKey(room, name), "somebody", 0)
	wantErr(t, second.Renew(ctx), ErrFenced)
	if err := context.Cause(second.Context()); !errors.Is(err, ErrFenced) {
		t.Errorf("context of a lost lock: %v", err)
	}
	if err := other.Renew(ctx); err != nil {
		t.Errorf("the other lock: %v", err)
	}
	if err := other.Release(ctx); err != nil {
		t.Error(err)
	}
}

// A holder that doesn't renew is told before anybody else can have the lock; what it publishes later is refused.
func testLockOfAPausedHolder(t *testing.T, o Options) {
	b := openTest(t, o)
	const room = "logs:x"
	paused := mustAcquire(t, b, room, "tail", quick)
	var next *Lock
	eventually(t, func() (err error) {
		next, err = b.Acquire(t.Context(), room, "tail", LockOptions{})
		if err == nil && paused.mayGoOn() {
			t.Error("the lock was another's while its holder went on")
		}
		return err
	})
	<-paused.Context().Done()
	if err := context.Cause(paused.Context()); !errors.Is(err, ErrFenced) {
		t.Errorf("cause %v, want ErrFenced", err)
	}
	_, err := b.Publish(t.Context(), Publication{Channel: room, Data: []byte("late"), Fence: paused.Fence("5")})
	wantErr(t, err, ErrFenced)
	if _, err := b.Publish(t.Context(), Publication{Channel: room, Data: []byte("now"), Fence: next.Fence("6")}); err != nil {
		t.Errorf("the new holder: %v", err)
	}
	if err := next.Release(t.Context()); err != nil {
		t.Error(err)
	}
}

// Contenders take turns, and never two at a time, although each holds the lock for longer than its TTL. Whoever loses it, which a machine that stands
// still brings about, has had no turn.
func TestHoldIsExclusive(t *testing.T) {
	t.Parallel()
	b := openTest(t, Options{URL: redistest.Start(t).URL()})
	var turns, refused, lost atomic.Int64
	var mu sync.Mutex
	var holder *Lock
	var contenders sync.WaitGroup
	for range 3 {
		contenders.Go(func() {
			eventually(t, func() error {
				err := b.Hold(t.Context(), "logs:x", "tail", quick, func(ctx context.Context, l *Lock) error {
					mu.Lock()
					if holder != nil && holder.mayGoOn() {
						t.Error("two holders")
					}
					holder = l
					mu.Unlock()
					if !sleep(ctx, quick.TTL+quick.Renew) {
						return context.Cause(ctx)
					}
					return nil
				})
				switch {
				case err == nil:
					turns.Add(1)
				case errors.Is(err, ErrHeld), errors.Is(err, ErrUnavailable): // the latter when asking took as long as a lock lasts
					refused.Add(1)
				case errors.Is(err, ErrFenced):
					lost.Add(1)
				default:
					t.Error(err)
				}
				return err
			})
		})
	}
	contenders.Wait()
	t.Logf("%d turns, %d refusals, lost %d times", turns.Load(), refused.Load(), lost.Load())
	if turns.Load() != 3 {
		t.Errorf("%d turns, want 3", turns.Load())
	}
}

// Redis stops answering: work is told to stop before anybody else can have the lock, and Hold says why.
func TestHoldWhenRedisGoesAway(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	proxy := redistest.StartProxy(t, s.Addr())
	b, other := openTest(t, Options{URL: proxy.URL()}), openTest(t, Options{URL: s.URL()})
	err := b.Hold(t.Context(), "logs:x", "tail", quick, func(ctx context.Context, l *Lock) error {
		proxy.Pause()
		eventually(t, func() error {
			next, err := other.Acquire(t.Context(), "logs:x", "tail", LockOptions{})
			if err != nil {
				return err
			}
			if l.mayGoOn() {
				t.Error("the lock was another's while the work went on")
			}
			return next.Release(t.Context())
		})
		<-ctx.Done()
		return ctx.Err()
	})
	proxy.Resume()
	wantErr(t, err, ErrFenced)
}

func TestHoldEndsWithItsContext(t *testing.T) {
	t.Parallel()
	b := openTest(t, Options{URL: redistest.Start(t).URL()})
	ctx, cancel := context.WithCancel(t.Context())
	failed := errors.New("work failed")
	err := b.Hold(ctx, "logs:x", "tail", LockOptions{}, func(ctx context.Context, _ *Lock) error {
		cancel()
		<-ctx.Done()
		return failed
	})
	wantErr(t, err, failed)
	if errors.Is(err, ErrFenced) {
		t.Errorf("%v: the lock was not lost", err)
	}
	next := mustAcquire(t, b, "logs:x", "tail", LockOptions{}) // released at once
	if err := next.Release(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestLockRefuses(t *testing.T) {
	t.Parallel()
	b := openTest(t, Options{URL: "redis://127.0.0.1:1"})
	long := make([]byte, lockNameBytes+1)
	for name, tt := range map[string]struct {
		channel, lock string
		o             LockOptions
		want          error
	}{
		"no channel":           {"", "l", LockOptions{}, ErrInvalid},
		"no name":              {"logs:x", "", LockOptions{}, ErrInvalid},
		"name too long":        {"logs:x", string(long), LockOptions{}, ErrInvalid},
		"two renewals in TTL":  {"logs:x", "l", LockOptions{TTL: 2 * time.Second, Renew: time.Second}, ErrInvalid},
		"negative TTL":         {"logs:x", "l", LockOptions{TTL: -1}, ErrInvalid},
		"Redis away":           {"logs:x", "l", quick, ErrUnavailable},
		"away, longest name":   {"logs:x", string(long[1:]), quick, ErrUnavailable},
		"away, just two in it": {"logs:x", "l", LockOptions{TTL: 201 * time.Millisecond, Renew: 100 * time.Millisecond}, ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := b.Acquire(t.Context(), tt.channel, tt.lock, tt.o)
			wantErr(t, err, tt.want)
		})
	}
}
