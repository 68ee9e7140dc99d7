package bus

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"

	"github.com/redis/go-redis/v9"

	"tideline/shared/limit"
)

// luaTop defines top(m, d, x, ttl, fresh): the channel's random part, its last offset, whether its stream belongs to it, and the offset up to
// which its history was removed. It renews the three keys. Where any of them is missing the channel starts over: with the random part `fresh`, at offset 0, remembering no id.
const luaTop = luaEpoch + `
local function text(n) return string.format('%.0f', n) end

local function top(m, d, x, ttl, fresh)
  local t = redis.call('HMGET', m, 'e', 'o', 'h', 'r')
  local alive = redis.call('PEXPIRE', m, ttl) + redis.call('PEXPIRE', d, ttl) + redis.call('PEXPIRE', x, ttl)
  if alive == 3 and t[1] and t[2] then return t[1], t[2], t[3] == '1', t[4] or '0' end
  redis.call('UNLINK', m, d, x)
  redis.call('HSET', m, 'e', fresh, 'o', '0')
  redis.call('HSET', d, '', '')
  redis.call('ZADD', x, '9007199254740992', '')
  redis.call('PEXPIRE', m, ttl)
  redis.call('PEXPIRE', d, ttl)
  redis.call('PEXPIRE', x, ttl)
  return fresh, '0', false, '0'
end
`

// positionScript: KEYS m d x, ARGV meta TTL (ms), fresh. Answers {epoch, offset, removed}.
var positionScript = newScript("read position", luaTop+`
local e, o, _, removed = top(KEYS[1], KEYS[2], KEYS[3], ARGV[1], ARGV[2])
return {e .. '.' .. replid(), o, removed}
`)

// positionChunk is how many channels one pipeline asks for. A pipeline has one read timeout, and the embedded server needs milliseconds for
// a script.
const positionChunk = 64

var metaTTL = strconv.FormatInt(limit.MetaTTL.Milliseconds(), 10)

// freshEpoch is the random part that a channel gets if it has none: 80 bits.
func freshEpoch() string { return rand.Text()[:16] }

// metaKeys are the keys of a channel that live and die together.
func (b *Bus) metaKeys(channel string) []string {
	p := b.partitionPrefix(partition(channel))
	return []string{p + keyMeta + channel, p + keyDedupe + channel, p + keyExpiry + channel}
}

// Top is where a channel stands.
type Top struct {
	Position
	// Removed is the offset up to which the channel's history was removed in this epoch; 0 if never.
	Removed uint64
}

// Tops reads the tops of many channels in as few round trips as the shards allow, and renews their meta; a channel without a position
// gets one. The result has the order of channels; an error of one channel is in errs at its index and wraps ErrUnavailable. It ends
// within the context, or limit.PublishTimeout.
func (b *Bus) Tops(ctx context.Context, channels []string) (tops []Top, errs []error) {
	ctx, cancel := context.WithTimeout(ctx, limit.PublishTimeout)
	defer cancel()
	tops, errs = make([]Top, len(channels)), make([]error, len(channels))
	for first := 0; first < len(channels); first += positionChunk {
		last := min(first+positionChunk, len(channels))
		b.tops(ctx, channels[first:last], tops[first:last], errs[first:last])
	}
	return tops, errs
}

// Positions is Tops without what was removed.
func (b *Bus) Positions(ctx context.Context, channels []string) ([]Position, []error) {
	tops, errs := b.Tops(ctx, channels)
	positions := make([]Position, len(tops))
	for i := range tops {
		positions[i] = tops[i].Position
	}
	return positions, errs
}

// tops asks in one pipeline, and then again, one by one, for what the pipeline could not answer: after a flush of scripts or in a
// migrating slot. After a failure of the connection the first channel alone is retried until it has an answer; the rest fail with it.
func (b *Bus) tops(ctx context.Context, channels []string, tops []Top, errs []error) {
	pipe := b.client.Pipeline()
	cmds := make([]*redis.Cmd, len(channels))
	for i, c := range channels {
		cmds[i] = pipe.EvalSha(ctx, positionScript.lua.Hash(), b.metaKeys(c), metaTTL, freshEpoch())
	}
	_, _ = pipe.Exec(ctx) // each command has its own error
	var down error
	for i, cmd := range cmds {
		reply, err := cmd.Result()
		if err != nil {
			if down != nil {
				errs[i] = down
				continue
			}
			reply, err = b.run(ctx, positionScript, b.metaKeys(channels[i]), metaTTL, freshEpoch())
			if err != nil {
				down, errs[i] = err, err
				continue
			}
		}
		if tops[i].Position, errs[i] = b.parseTop(reply); errs[i] == nil {
			tops[i].Removed, errs[i] = parseRemoved(reply)
		}
	}
}

// parseRemoved reads the third field of positionScript's answer.
func parseRemoved(reply any) (uint64, error) {
	if fields := reply.([]any); len(fields) == 3 {
		if s, ok := fields[2].(string); ok {
			if n, err := strconv.ParseUint(s, 10, 64); err == nil {
				return n, nil
			}
		}
	}
	return 0, unavailable("read position", errReply)
}

// position reads one channel's top.
func (b *Bus) position(ctx context.Context, channel string) (Position, error) {
	reply, err := b.run(ctx, positionScript, b.metaKeys(channel), metaTTL, freshEpoch())
	if err != nil {
		return Position{}, err
	}
	return b.parseTop(reply)
}

var errReply = errors.New("unexpected reply")

// parseTop reads {epoch, offset, …}.
func (b *Bus) parseTop(reply any) (Position, error) {
	fields, ok := reply.([]any)
	if !ok || len(fields) < 2 {
		return Position{}, unavailable("read position", fmt.Errorf("%w: %T", errReply, reply))
	}
	pos, err := parsePosition(fields[0], fields[1])
	if err != nil {
		return Position{}, unavailable("read position", err)
	}
	b.proof.saw(pos.Epoch)
	return pos, nil
}

func parsePosition(epoch, offset any) (Position, error) {
	e, ok := epoch.(string)
	if !ok || e == "" {
		return Position{}, fmt.Errorf("%w: epoch %v", errReply, epoch)
	}
	s, _ := offset.(string)
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return Position{}, fmt.Errorf("%w: offset %v", errReply, offset)
	}
	return Position{Epoch: e, Offset: n}, nil
}
