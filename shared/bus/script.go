package bus

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"tideline/shared/limit"
)

// Backoff between attempts: full jitter under a bound that doubles from retryFirst to retryMax.
const (
	retryFirst = 20 * time.Millisecond
	retryMax   = 500 * time.Millisecond
)

// luaEpoch defines replid(): the part of the epoch that changes when another Redis is promoted. It is asked inside every script that
// answers a position and cached nowhere. A server that refuses INFO, or does not know it, gives noReplid.
const luaEpoch = `
local function replid()
  local info = redis.pcall('INFO', 'replication')
  if type(info) == 'string' then
    local id = string.match(info, 'master_replid:(%x+)')
    if id then return string.sub(id, 1, 16) end
  end
  return '` + noReplid + `'
end
`

// noReplid stands in for the replication id where there is none; it is never 16 hex digits.
const noReplid = "0"

// script is a Lua script that is run by its hash and sent whole only where the server does not know it.
type script struct {
	name string // for errors: what failed
	lua  *redis.Script
}

func newScript(name, lua string) *script { return &script{name: name, lua: redis.NewScript(lua)} }

// run runs s and retries what may help, within limit.PublishTimeout and the context; the script must bear repetition. All keys must
// be of one partition. Every failure to get an answer is ErrUnavailable; what else a script has to say it says in its reply.
func (b *Bus) run(ctx context.Context, s *script, keys []string, args ...any) (any, error) {
	var reply any
	err := b.retry(ctx, s.name, func(ctx context.Context) (err error) {
		reply, err = s.lua.Run(ctx, b.client, keys, args...).Result()
		if errors.Is(err, redis.Nil) {
			return nil
		}
		return err
	})
	return reply, err
}

// retry repeats op until it succeeds, fails for good, or its time is up: limit.PublishTimeout or the context's deadline, and for
// TRYAGAIN limit.TryAgainBudget. It answers nil or an error that wraps ErrUnavailable and op's last error.
func (b *Bus) retry(ctx context.Context, verb string, op func(ctx context.Context) error) error {
	if by, ok := ctx.Deadline(); !ok || time.Until(by) > limit.PublishTimeout { // a context costs as much as a tenth of the call
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit.PublishTimeout)
		defer cancel()
	}
	var migrating time.Time // when TRYAGAIN was first heard
	for bound := retryFirst; ; bound = min(2*bound, retryMax) {
		err := op(ctx)
		if err == nil {
			return nil
		}
		if !temporary(err) {
			return unavailable(verb, err)
		}
		if redis.HasErrorPrefix(err, "TRYAGAIN") {
			if migrating.IsZero() {
				migrating = time.Now()
			} else if time.Since(migrating) > limit.TryAgainBudget {
				return unavailable(verb, err)
			}
		}
		b.stats.retries.Add(1)
		if !sleep(ctx, jitter(bound)) {
			return unavailable(verb, errors.Join(err, ctx.Err()))
		}
	}
}

// unavailable wraps what kept Redis from answering; errors.Is finds ErrUnavailable and the cause.
func unavailable(verb string, cause error) error {
	return fmt.Errorf("%s: %w: %w", verb, ErrUnavailable, cause)
}

// jitter is between a tenth of bound and bound.
func jitter(bound time.Duration) time.Duration {
	return bound/10 + rand.N(bound-bound/10)
}

// sleep waits for d and answers false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// proofState remembers whether the last epoch that was read could notice a promotion.
type proofState struct{ missing atomic.Bool }

// saw is called with every epoch that comes from a script.
func (p *proofState) saw(epoch string) {
	if missing := strings.HasSuffix(epoch, "."+noReplid); p.missing.Load() != missing {
		p.missing.Store(missing)
	}
}

// PromotionProof reports whether the server answers INFO, so that epochs notice a promotion; false is shown in /readyz. It tells what
// the last position that was read has shown, and true before the first.
func (b *Bus) PromotionProof() bool { return !b.proof.missing.Load() }
