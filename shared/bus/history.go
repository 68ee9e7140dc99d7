package bus

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"

	"tideline/shared/channel"
	"tideline/shared/limit"
)

// historyBytes bounds what one read takes out of Redis: data and headers added up, past which no further chunk is read.
// limit.RecoveryBytes < historyBytes.
const historyBytes = 4 << 20

// historyScript: KEYS m d x s, ARGV meta TTL (ms), fresh, epoch that must be the channel's ("" for any), from, to (stream ids), count,
// bytes, command (XRANGE or XREVRANGE). Answers {epoch, offset, entries}. It reads in chunks, so that a stream of large entries
// doesn't hold the server up: chunks end when count or bytes are reached. A stream that does not belong to the meta is deleted.
var historyScript = newScript("read history", luaTop+`
local e, o, streamed = top(KEYS[1], KEYS[2], KEYS[3], ARGV[1], ARGV[2])
local epoch = e .. '.' .. replid()
if not streamed then
  redis.call('UNLINK', KEYS[4])
  return {epoch, o, {}}
end
if ARGV[3] ~= '' and ARGV[3] ~= epoch then return {epoch, o, {}} end
local from, to, left, bytes = ARGV[4], ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local entries = {}
while left > 0 and bytes > 0 do
  local want = math.min(left, 64)
  local chunk = redis.call(ARGV[8], KEYS[4], from, to, 'COUNT', want)
  for _, entry in ipairs(chunk) do
    entries[#entries + 1] = entry
    for _, field in ipairs(entry[2]) do bytes = bytes - #field end
  end
  left = left - #chunk
  if #chunk < want then break end
  local last = tonumber(string.match(chunk[#chunk][1], '^%d+'))
  if ARGV[8] == 'XRANGE' then
    from = text(last + 1) .. '-0'
  else
    if last <= 1 then break end
    from = text(last - 1) .. '-0'
  end
end
return {epoch, o, entries}
`)

// History reads a page of a channel's history and the channel's top. Reading a channel without a position creates one. A page ends early
// when its publications add up to some megabytes. With Since of another epoch it answers ErrUnrecoverable and the top.
func (b *Bus) History(ctx context.Context, name string, page Page) ([]Publication, Position, error) {
	count := page.Limit
	if count < 0 || count > limit.HistoryPage {
		count = limit.HistoryPage
	}
	from, to, command, epoch := "-", "+", "XRANGE", ""
	if page.Reverse {
		from, to, command = "+", "-", "XREVRANGE"
	}
	if page.Since != nil {
		epoch = page.Since.Epoch
		switch at := page.Since.Offset; {
		case page.Reverse && at <= 1, !page.Reverse && at == math.MaxUint64:
			count = 0
		case page.Reverse:
			from = entryID(at - 1)
		default:
			from = entryID(at + 1)
		}
	}
	pubs, top, err := b.read(ctx, name, epoch, from, to, command, count)
	if err != nil {
		return nil, top, err
	}
	if page.Since != nil && page.Since.Epoch != top.Epoch {
		return nil, top, fmt.Errorf("history of %q: %w: epoch changed", name, ErrUnrecoverable)
	}
	return pubs, top, nil
}

// Since reads everything after pos, complete and in order, with the channel's top, or answers ErrUnrecoverable and the top:
// another epoch, trimmed or expired history, more than limit.HistoryPage publications, or more than some megabytes of them.
func (b *Bus) Since(ctx context.Context, name string, pos Position) ([]Publication, Position, error) {
	if pos.Offset == math.MaxUint64 {
		return nil, Position{}, fmt.Errorf("history of %q: %w: offset", name, ErrInvalid)
	}
	// One more than may be answered, to know that there is more.
	pubs, top, err := b.read(ctx, name, pos.Epoch, entryID(pos.Offset+1), "+", "XRANGE", limit.HistoryPage+1)
	if err != nil {
		return nil, top, err
	}
	lost := func(why string) ([]Publication, Position, error) {
		return nil, top, fmt.Errorf("history of %q: %w: %s", name, ErrUnrecoverable, why)
	}
	switch {
	case pos.Epoch != top.Epoch:
		return lost("epoch changed")
	case pos.Offset > top.Offset:
		return lost("position is ahead of the channel")
	case len(pubs) > limit.HistoryPage:
		return lost("too far behind")
	case top.Offset-pos.Offset != uint64(len(pubs)):
		return lost("publications are missing")
	}
	for i := range pubs {
		if pubs[i].Offset != pos.Offset+1+uint64(i) {
			return lost("publications are missing")
		}
	}
	return pubs, top, nil
}

func entryID(offset uint64) string { return strconv.FormatUint(offset, 10) + "-0" }

// read reads at most count publications and the top; count 0 reads the top alone and leaves the stream's key out.
func (b *Bus) read(ctx context.Context, name, epoch, from, to, command string, count int) ([]Publication, Position, error) {
	if err := channel.Validate(name); err != nil {
		return nil, Position{}, fmt.Errorf("read history: %w: %w", ErrInvalid, err)
	}
	if count == 0 {
		top, err := b.position(ctx, name)
		return nil, top, err
	}
	keys := append(b.metaKeys(name), b.key(keyStream, name))
	reply, err := b.run(ctx, historyScript, keys, metaTTL, freshEpoch(), epoch, from, to, count, historyBytes, command)
	if err != nil {
		return nil, Position{}, fmt.Errorf("channel %q: %w", name, err)
	}
	top, err := b.parseTop(reply)
	if err != nil {
		return nil, top, err
	}
	fields := reply.([]any)
	if len(fields) != 3 {
		return nil, top, unavailable("read history", errReply)
	}
	pubs, err := parseEntries(name, fields[2])
	if err != nil {
		return nil, top, unavailable("read history", err)
	}
	return pubs, top, nil
}

// parseEntries reads stream entries: [[id, [h, header, d or b, data, …]], …]. Fields that are not known are ignored.
func parseEntries(name string, reply any) ([]Publication, error) {
	entries, ok := reply.([]any)
	if !ok {
		return nil, fmt.Errorf("%w: entries %T", errReply, reply)
	}
	pubs := make([]Publication, len(entries))
	for i, entry := range entries {
		pair, ok := entry.([]any)
		if !ok || len(pair) != 2 {
			return nil, fmt.Errorf("%w: entry %T", errReply, entry)
		}
		id, _ := pair[0].(string)
		ms, _, _ := strings.Cut(id, "-")
		offset, err := strconv.ParseUint(ms, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%w: entry id %v", errReply, pair[0])
		}
		fields, ok := pair[1].([]any)
		if !ok {
			return nil, fmt.Errorf("%w: entry fields %T", errReply, pair[1])
		}
		var line, data string
		var binary bool
		for j := 0; j+1 < len(fields); j += 2 {
			value, _ := fields[j+1].(string)
			switch fields[j] {
			case fieldHeader:
				line = value
			case fieldData, fieldBinary:
				data, binary = value, fields[j] == fieldBinary
			}
		}
		h, err := parseHeader(line)
		if err != nil {
			return nil, err
		}
		pubs[i] = publication(h, offset, data)
		pubs[i].Channel, pubs[i].Binary = name, binary
	}
	return pubs, nil
}
