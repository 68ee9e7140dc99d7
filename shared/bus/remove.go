package bus

import (
	"context"
	"fmt"

	"tideline/shared/channel"
)

// removeHistoryScript: KEYS m d x s, ARGV meta TTL (ms), fresh, command, pub/sub channel. Answers {epoch, offset}. The offset stays in the meta as
// the one up to which everything was removed, for nodes that don't hear the message.
var removeHistoryScript = newScript("remove history", luaTop+`
local e, o = top(KEYS[1], KEYS[2], KEYS[3], ARGV[1], ARGV[2])
local epoch = e .. '.' .. replid()
redis.call('UNLINK', KEYS[4])
redis.call('HSET', KEYS[1], 'r', o)
redis.call(ARGV[3], ARGV[4], '1 r ' .. epoch .. ' ' .. o .. '\n{}\n')
return {epoch, o}
`)

// RemoveHistory deletes what a channel keeps and answers its position, which stays: subscribers go on, and whoever recovers from before it
// is told that it can't be had. Nodes that keep publications in memory forget them when they hear of it, within milliseconds; one that was
// cut off does before it answers another recovery.
func (b *Bus) RemoveHistory(ctx context.Context, name string) (Position, error) {
	if err := channel.Validate(name); err != nil {
		return Position{}, fmt.Errorf("remove history: %w: %w", ErrInvalid, err)
	}
	keys := append(b.metaKeys(name), b.key(keyStream, name))
	reply, err := b.run(ctx, removeHistoryScript, keys, metaTTL, freshEpoch(), b.publishCommand(), b.key(keyChannel, name))
	if err != nil {
		return Position{}, fmt.Errorf("channel %q: %w", name, err)
	}
	return b.parseTop(reply)
}
