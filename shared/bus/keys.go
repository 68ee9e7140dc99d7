package bus

import (
	"hash/fnv"
	"strconv"

	"tideline/shared/limit"
)

// The layout of keys and pub/sub channels. It can't change in a deployment's life.
//
//	tl:<stage>:{p}:s:<channel>   stream: entries <offset>-0 with fields h (header) and d (data)
//	tl:<stage>:{p}:m:<channel>   hash: e (random part of the epoch), o (last offset), h (1: the stream belongs to this epoch),
//	                             r (the offset up to which history was removed),
//	                             c<lock> (the cursor that was last published under that lock)
//	tl:<stage>:{p}:d:<channel>   hash: i<id> → "<offset> <attempt>", v<key> → version; an empty field keeps it in being
//	tl:<stage>:{p}:x:<channel>   sorted set: the fields of d by the time they may be forgotten, in ms
//	tl:<stage>:{p}:c:<channel>   the pub/sub channel
//	tl:<stage>:{p}:l:<channel>}<lock>  string: the token that holds a lock of that channel; no channel's name has a brace
//	tl:<stage>:{p}:y:<probe>     string: the last probe of a subscriber connection
//	tl:<stage>:{nodes}:…         what belongs to the fleet and to no channel
//
// p = FNV-1a-32(channel) mod limit.Partitions, in decimal. m, d and x are created together and live equally long: in a migrating
// slot a script that touches an existing and a missing key is refused (TRYAGAIN) until the slot has moved.
const (
	keyStream  = "s:"
	keyMeta    = "m:"
	keyDedupe  = "d:"
	keyExpiry  = "x:"
	keyChannel = "c:"
	keyLock    = "l:"
	keyProbe   = "y:"
	// metaCursor starts the fields of m that hold cursors.
	metaCursor = "c"
)

// partition of a channel.
func partition(channel string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(channel))
	return int(h.Sum32() % limit.Partitions)
}

// partitionPrefix is what every key of partition p starts with: "tl:<stage>:{p}:".
func (b *Bus) partitionPrefix(p int) string {
	return b.prefix + "{" + strconv.Itoa(p) + "}:"
}

// key names one of a channel's keys, or its pub/sub channel.
func (b *Bus) key(kind, channel string) string {
	return b.partitionPrefix(partition(channel)) + kind + channel
}

// lockKey names a lock that guards a channel, and no other channel of its partition.
func (b *Bus) lockKey(channel, lock string) string {
	return b.key(keyLock, channel) + "}" + lock
}

// fleetKey names a key that belongs to no channel: "tl:<stage>:{nodes}:<rest>".
func (b *Bus) fleetKey(rest string) string { return b.prefix + "{nodes}:" + rest }

// publishCommand is what a script calls to publish: in cluster mode only sharded pub/sub stays on the partition's shard.
func (b *Bus) publishCommand() string {
	if b.cluster != nil {
		return "SPUBLISH"
	}
	return "PUBLISH"
}
