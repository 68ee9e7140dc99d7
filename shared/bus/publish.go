package bus

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"time"
	"unicode/utf8"

	"tideline/shared/channel"
	"tideline/shared/limit"
	"tideline/shared/trace"
)

// headerBytes is the most that a publication's header may take: client info, tags and id together, as JSON.
const headerBytes = 16 << 10

// publishScript: KEYS m d x, then s where the channel keeps history, then the lock where the publication is fenced.
// Answers {status, epoch, offset}: published (also by an earlier attempt of the same call), duplicate, superseded, fenced.
//
// The id is looked up before the fence: an attempt whose predecessor published and whose answer was lost has succeeded, whoever holds
// the lock by now. The cursor is written with whatever the fence lets through, duplicates included, or a source would stay in place.
// Versions are compared as decimal strings, because Lua's numbers end at 2^53.
var publishScript = newScript("publish", luaTop+`
local m, d, x = KEYS[1], KEYS[2], KEYS[3]
local ttl, fresh, now, attempt = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local id, memory, key, version = 'i' .. ARGV[5], tonumber(ARGV[6]), ARGV[7], ARGV[8]
local size, historyTTL, token, cursorField, cursor = tonumber(ARGV[9]), ARGV[10], ARGV[11], ARGV[12], ARGV[13]
local head, data, command, channel, kind, field = ARGV[14], ARGV[15], ARGV[16], ARGV[17], ARGV[18], ARGV[19]

local e, o, streamed = top(m, d, x, ttl, fresh)
local epoch = e .. '.' .. replid()

local old = redis.call('ZRANGEBYSCORE', x, '-inf', '(' .. now, 'LIMIT', 0, 8)
if #old > 0 then
  redis.call('HDEL', d, unpack(old))
  redis.call('ZREM', x, unpack(old))
end

local function remembered(field)
  local v = redis.call('HGET', d, field)
  if not v then return nil end
  local till = redis.call('ZSCORE', x, field)
  if not till or tonumber(till) < tonumber(now) then return nil end
  return v
end

local first
local seen = remembered(id)
if seen then
  local offset, by = string.match(seen, '^(%d+) (.*)$')
  if by == attempt then return {'published', epoch, offset} end
  first = offset
end
if token ~= '' then
  if redis.call('GET', KEYS[#KEYS]) ~= token then return {'fenced', epoch, o} end
  if cursor ~= '' then redis.call('HSET', m, cursorField, cursor) end
end
if first then return {'duplicate', epoch, first} end
if key ~= '' then
  local last = remembered('v' .. key)
  if last and (#last > #version or (#last == #version and last >= version)) then
    return {'superseded', epoch, o}
  end
end

o = text(redis.call('HINCRBY', m, 'o', 1))
if size > 0 then
  local s = KEYS[4]
  if not streamed then
    redis.call('UNLINK', s)
    redis.call('HSET', m, 'h', '1')
  end
  redis.call('XADD', s, 'MAXLEN', '=', size, o .. '-0', 'h', head, field, data)
  redis.call('PEXPIRE', s, historyTTL)
end
local till = text(tonumber(now) + memory)
redis.call('HSET', d, id, o .. ' ' .. attempt)
redis.call('ZADD', x, till, id)
if key ~= '' then
  redis.call('HSET', d, 'v' .. key, version)
  redis.call('ZADD', x, till, 'v' .. key)
end
redis.call(command, channel, '1 ' .. kind .. ' ' .. epoch .. ' ' .. o .. '\n' .. head .. '\n' .. data)
return {'published', epoch, o}
`)

// Publish publishes p; see Publication and Result. It ends within the context, or limit.PublishTimeout.
//
// A sampled OpenTelemetry trace that ctx belongs to goes along in the tag trace.Tag, unless p has one or has no room for it, and gets a span of its own
// where it is recorded.
//
// Errors: ErrInvalid and ErrTooLarge before anything is sent; ErrFenced; ErrUnavailable when no answer came in time: p may have been
// published, and repeating the call with the same id is safe.
func (b *Bus) Publish(ctx context.Context, p Publication) (Result, error) {
	ctx, span := trace.Start(ctx, trace.Producer, "publish", channel.NamespaceOf(p.Channel), "messaging.system", "tideline",
		"messaging.destination.name", p.Channel, "messaging.message.id", p.ID)
	tagged, ok := traced(ctx, p)
	res, err := b.publish(ctx, tagged)
	if ok && errors.Is(err, ErrTooLarge) { // nothing was sent; the tag must not be what makes it so
		res, err = b.publish(ctx, p)
	}
	switch {
	case res.Duplicate:
		span.Set("tideline.result", "duplicate")
	case res.Superseded:
		span.Set("tideline.result", "superseded")
	}
	span.End(err)
	return res, err
}

// traced adds the trace's tag, where there is one to add.
func traced(ctx context.Context, p Publication) (tagged Publication, ok bool) {
	parent := trace.Parent(ctx)
	if _, has := p.Tags[trace.Tag]; has || parent == "" {
		return p, false
	}
	tags := maps.Clone(p.Tags) // the caller's
	if tags == nil {
		tags = map[string]string{}
	}
	tags[trace.Tag] = parent
	p.Tags = tags
	return p, true
}

func tagsBytes(tags map[string]string) (n int) {
	for k, v := range tags {
		n += len(k) + len(v)
	}
	return n
}

func (b *Bus) publish(ctx context.Context, p Publication) (Result, error) {
	if err := check(p); err != nil {
		return Result{}, fmt.Errorf("publish on %.64q: %w", p.Channel, err)
	}
	now := b.now()
	if p.Time == 0 {
		p.Time = now.UnixMilli()
	}
	// Every attempt of this call carries the same id and the same attempt, so that a lost answer is found again.
	attempt, memory := rand.Text()[:16], limit.IdempotencyTTL
	if p.ID == "" {
		p.ID = attempt
		if p.Key == "" {
			memory = limit.RandomIDTTL
		}
	}
	head, err := encodeHeader(header{ID: p.ID, Time: p.Time, Info: p.Info, Tags: p.Tags})
	if err != nil {
		return Result{}, fmt.Errorf("publish on %q: %w", p.Channel, err)
	}
	if len(head) > headerBytes {
		return Result{}, fmt.Errorf("publish on %q: %w: header %d bytes, at most %d", p.Channel, ErrTooLarge, len(head), headerBytes)
	}
	keys := b.metaKeys(p.Channel)
	if p.History.Size > 0 {
		keys = append(keys, b.key(keyStream, p.Channel))
	}
	var token, cursorField, cursor string
	if p.Fence != nil {
		keys = append(keys, b.lockKey(p.Channel, p.Fence.Lock))
		token, cursorField, cursor = p.Fence.Token, metaCursor+p.Fence.Lock, p.Fence.Cursor
	}
	kind, field := p.written()
	reply, err := b.run(ctx, publishScript, keys,
		metaTTL, freshEpoch(), now.UnixMilli(), attempt, p.ID, memory.Milliseconds(), p.Key, strconv.FormatUint(p.Version, 10),
		p.History.Size, max(p.History.TTL.Milliseconds(), 1), token, cursorField, cursor,
		head, p.Data, b.publishCommand(), b.key(keyChannel, p.Channel), kind, field)
	if err != nil {
		return Result{}, fmt.Errorf("channel %q: %w", p.Channel, err)
	}
	res, err := parseResult(reply)
	if err != nil {
		return res, fmt.Errorf("publish on %q: %w", p.Channel, err)
	}
	b.proof.saw(res.Position.Epoch)
	return res, nil
}

func parseResult(reply any) (Result, error) {
	fields, ok := reply.([]any)
	if !ok || len(fields) != 3 {
		return Result{}, unavailable("publish", fmt.Errorf("%w: %T", errReply, reply))
	}
	pos, err := parsePosition(fields[1], fields[2])
	if err != nil {
		return Result{}, unavailable("publish", err)
	}
	switch fields[0] {
	case "published":
		return Result{Position: pos}, nil
	case "duplicate":
		return Result{Position: pos, Duplicate: true}, nil
	case "superseded":
		return Result{Position: pos, Superseded: true}, nil
	case "fenced":
		return Result{}, ErrFenced
	}
	return Result{}, unavailable("publish", fmt.Errorf("%w: status %v", errReply, fields[0]))
}

// check answers nil, or what is wrong with a publication: ErrInvalid or ErrTooLarge.
func check(p Publication) error {
	if err := channel.Validate(p.Channel); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	tags := tagsBytes(p.Tags)
	for k, v := range p.Tags {
		if !utf8.ValidString(k) || !utf8.ValidString(v) {
			return fmt.Errorf("%w: tags must be UTF-8", ErrInvalid)
		}
	}
	switch {
	case len(p.Data) == 0:
		return fmt.Errorf("%w: no data", ErrInvalid)
	case len(p.Data) > limit.DataBytes:
		return fmt.Errorf("%w: data %d bytes, at most %d", ErrTooLarge, len(p.Data), limit.DataBytes)
	case len(p.ID) > limit.PublicationIDBytes:
		return fmt.Errorf("%w: id %d bytes, at most %d", ErrTooLarge, len(p.ID), limit.PublicationIDBytes)
	case len(p.Key) > limit.PublicationIDBytes:
		return fmt.Errorf("%w: key %d bytes, at most %d", ErrTooLarge, len(p.Key), limit.PublicationIDBytes)
	case tags > limit.TagsBytes:
		return fmt.Errorf("%w: tags %d bytes, at most %d", ErrTooLarge, tags, limit.TagsBytes)
	case !utf8.ValidString(p.ID):
		return fmt.Errorf("%w: id must be UTF-8", ErrInvalid)
	case (p.Key == "") != (p.Version == 0):
		return fmt.Errorf("%w: key and version (> 0) belong together", ErrInvalid)
	case p.History.Size < 0 || p.History.Size > 0 && p.History.TTL < time.Millisecond:
		return fmt.Errorf("%w: history size %d with TTL %v", ErrInvalid, p.History.Size, p.History.TTL)
	case p.History.TTL >= limit.MetaTTL:
		return fmt.Errorf("%w: history TTL %v must be under %v", ErrInvalid, p.History.TTL, limit.MetaTTL)
	case p.Fence != nil && (p.Fence.Lock == "" || p.Fence.Token == ""):
		return fmt.Errorf("%w: a fence needs a lock and its token", ErrInvalid)
	}
	return nil
}
