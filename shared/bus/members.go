package bus

// Presence: who is in a channel. This file owns the hash of a channel's members, the index by which a dead node's members are found,
// and the three scripts that change them. A script that changes the hash publishes the join or the leave in the same step, so that
// each is sent exactly once, whoever causes it and however often it is tried. When Redis is away, calls fail with ErrUnavailable.

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"tideline/shared/channel"
	"tideline/shared/limit"
)

// The layout of presence, beside what keys.go lists:
//
//	tl:<stage>:{p}:p:<channel>  hash: client id → "<boot> <j or ->\n<header>"; j: joins and leaves of this entry are announced
//	tl:<stage>:{p}:b:<boot>     set of "<channel> <client id>": what the generation has entered in this partition. It may name
//	                            entries that another generation has taken over since; the hash decides.
//	tl:<stage>:{p}:g            set of the generations that have a b: key here, for generations that no registry knows any more
//
// The header is that of an envelope: what follows the first line of a join or leave, so that scripts need not encode anything.
const (
	keyPresence    = "p:"
	keyIndex       = "b:"
	keyGenerations = "g"
)

const (
	// membersPerScript bounds one script's work, and so how long it keeps Redis from others: well under a millisecond.
	membersPerScript = 100
	// ClientBytes is the longest client id of a presence entry.
	ClientBytes = 128
)

// Member is one presence entry.
type Member struct {
	ClientInfo
}

// PresenceStats counts a channel's members.
type PresenceStats struct {
	Clients int
	Users   int
}

// Presence reads the members of a channel, by client id. Members of a node that died are among them until its lease has expired and
// a survivor has removed them: at most 20 s with the default durations. A channel that nobody is in has no members and no error.
func (b *Bus) Presence(ctx context.Context, channel string) (map[string]ClientInfo, error) {
	var entries map[string]string
	err := b.readMembers(ctx, channel, func(ctx context.Context, key string) (err error) {
		entries, err = b.client.HGetAll(ctx, key).Result()
		return err
	})
	if err != nil {
		return nil, err
	}
	members := make(map[string]ClientInfo, len(entries))
	for client, value := range entries {
		info, err := parseEntry(value)
		if err != nil {
			return nil, fmt.Errorf("presence of %q: %w", channel, err)
		}
		members[client] = info
	}
	return members, nil
}

// PresenceStats counts the members of a channel. It reads as much as Presence does: users are counted, not kept.
func (b *Bus) PresenceStats(ctx context.Context, channel string) (PresenceStats, error) {
	var entries []string
	err := b.readMembers(ctx, channel, func(ctx context.Context, key string) (err error) {
		entries, err = b.client.HVals(ctx, key).Result()
		return err
	})
	if err != nil {
		return PresenceStats{}, err
	}
	users := make(map[string]struct{}, len(entries))
	for _, value := range entries {
		info, err := parseEntry(value)
		if err != nil {
			return PresenceStats{}, fmt.Errorf("presence of %q: %w", channel, err)
		}
		users[info.User] = struct{}{}
	}
	return PresenceStats{Clients: len(entries), Users: len(users)}, nil
}

func (b *Bus) readMembers(ctx context.Context, name string, read func(context.Context, string) error) error {
	if err := channel.Validate(name); err != nil {
		return fmt.Errorf("presence: %w: %w", ErrInvalid, err)
	}
	return b.retry(ctx, "presence of "+name, func(ctx context.Context) error {
		return read(ctx, b.key(keyPresence, name))
	})
}

// DiffMembers tells what changed between two readings of a channel's members. Joins and leaves have no position, so after any gap a
// node compares the members that it last knew with those that Redis has and sends the difference. Both results are sorted by client.
func DiffMembers(before, after map[string]ClientInfo) (joined, left []ClientInfo) {
	missing := func(from, in map[string]ClientInfo) (infos []ClientInfo) {
		for client, info := range from {
			if _, ok := in[client]; !ok {
				infos = append(infos, info)
			}
		}
		slices.SortFunc(infos, func(a, b ClientInfo) int { return cmp.Compare(a.Client, b.Client) })
		return infos
	}
	return missing(after, before), missing(before, after)
}

// entry is one member on its way into a script.
type entry struct {
	channel  string
	client   string
	header   string // empty where the script reads it from the hash
	announce bool
}

func (e entry) index() string { return e.channel + " " + e.client }

// newEntry checks a member and encodes it.
func newEntry(name string, info ClientInfo, announce bool) (entry, error) {
	if err := checkMember(name, info.Client); err != nil {
		return entry{}, err
	}
	line, err := encodeHeader(header{Info: &info})
	if err != nil {
		return entry{}, err
	}
	if len(line) > headerBytes {
		return entry{}, fmt.Errorf("%w: client info %d bytes, at most %d", ErrTooLarge, len(line), headerBytes)
	}
	return entry{channel: name, client: info.Client, header: string(line), announce: announce}, nil
}

func checkMember(name, client string) error {
	if err := channel.Validate(name); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if client == "" || len(client) > ClientBytes {
		return fmt.Errorf("%w: client id of %d bytes: want 1 to %d", ErrInvalid, len(client), ClientBytes)
	}
	return nil
}

// parseEntry reads a value of the presence hash.
func parseEntry(value string) (ClientInfo, error) {
	_, line, ok := strings.Cut(value, "\n")
	if !ok {
		return ClientInfo{}, fmt.Errorf("%w: presence entry without header", errReply)
	}
	h, err := parseHeader(line)
	if err != nil {
		return ClientInfo{}, err
	}
	if h.Info == nil {
		return ClientInfo{}, fmt.Errorf("%w: presence entry without client", errReply)
	}
	return *h.Info, nil
}

// The scripts. KEYS: the generation's index, the partition's set of generations, then one presence hash per channel.
// ARGV: publish command, boot, its process part, its number, the first line of what is published; then per member the number of its
// hash in KEYS and what enterScript or removeScript read below.
//
// A boot is "<process>.<number>": the process part is random, the number grows with every generation that the process takes.
const luaMembers = `
local index, generations = KEYS[1], KEYS[2]
local publish, boot, process, number, lead = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
local changed = 0
local function owner(value)
  local p, n, flag, header = string.match(value, '^(%w+)%.(%d+) (.)\n(.*)$')
  return p, tonumber(n), flag, header
end
`

// enterScript adds members and publishes the join of whoever was not there. How: "take" takes over an entry of any other process (the
// client has moved here); "keep" leaves it (this node repeats what it holds, and may be the one that has not heard of the move).
// Neither replaces an entry of a later generation of the same process: this call is a late one.
var enterScript = newScript("enter members", luaMembers+`
local how = ARGV[6]
for i = 7, #ARGV, 6 do
  local hash, name, pubsub, client, flag, header = KEYS[tonumber(ARGV[i])], ARGV[i+1], ARGV[i+2], ARGV[i+3], ARGV[i+4], ARGV[i+5]
  local old = redis.call('HGET', hash, client)
  local mine = true
  if old then
    local p, n = owner(old)
    if p == process then mine = n <= number else mine = how == 'take' end
  end
  if mine then
    local value = boot .. ' ' .. flag .. '\n' .. header
    if old ~= value then redis.call('HSET', hash, client, value) end
    redis.call('SADD', index, name .. ' ' .. client)
    if not old then
      changed = changed + 1
      if flag == 'j' then redis.call(publish, pubsub, lead .. header .. '\n') end
    end
  end
end
if redis.call('EXISTS', index) == 1 then redis.call('SADD', generations, boot) end
return changed
`)

// removeScript removes members and publishes their leaves. Whose: "process" removes entries of any generation of the process (the
// client has left), "boot" only those of exactly this generation (it has died); an entry that somebody else has taken over stays.
// Announced: "1" and "0" decide for all, "" leaves it to each entry.
var removeScript = newScript("remove members", luaMembers+`
local whose, announced = ARGV[6], ARGV[7]
for i = 8, #ARGV, 4 do
  local hash, name, pubsub, client = KEYS[tonumber(ARGV[i])], ARGV[i+1], ARGV[i+2], ARGV[i+3]
  redis.call('SREM', index, name .. ' ' .. client)
  local old = redis.call('HGET', hash, client)
  if old then
    local p, n, flag, header = owner(old)
    if p == process and (whose == 'process' or n == number) then
      redis.call('HDEL', hash, client)
      changed = changed + 1
      if announced == '1' or announced == '' and flag == 'j' then redis.call(publish, pubsub, lead .. header .. '\n') end
    end
  end
end
if redis.call('EXISTS', index) == 0 then redis.call('SREM', generations, boot) end
return changed
`)

// memberLead is the first line of a join's or leave's envelope; the header follows.
func memberLead(kind byte) string {
	return strconv.Itoa(envelopeVersion) + " " + string(kind) + " - 0\n"
}

// generation names one lease: a process and the number of its lease.
type generation struct {
	process string
	number  uint64
}

func (g generation) String() string { return g.process + "." + strconv.FormatUint(g.number, 10) }

func parseGeneration(boot string) (generation, bool) {
	process, number, ok := strings.Cut(boot, ".")
	n, err := strconv.ParseUint(number, 10, 64)
	return generation{process, n}, ok && err == nil && process != ""
}

// enter runs enterScript for members of one partition, membersPerScript at a time, and answers how many had not been there.
func (b *Bus) enter(ctx context.Context, g generation, how string, p int, members []entry) (int, error) {
	return b.changeMembers(ctx, enterScript, g, kindJoin, p, members, []any{how}, func(args []any, e entry) []any {
		flag := "-"
		if e.announce {
			flag = "j"
		}
		return append(args, flag, e.header)
	})
}

// remove runs removeScript for members of one partition, membersPerScript at a time, and answers how many it removed.
func (b *Bus) remove(ctx context.Context, g generation, whose, announced string, p int, members []entry) (int, error) {
	return b.changeMembers(ctx, removeScript, g, kindLeave, p, members, []any{whose, announced}, func(args []any, _ entry) []any { return args })
}

func (b *Bus) changeMembers(
	ctx context.Context, s *script, g generation, kind byte, p int, members []entry, options []any, more func([]any, entry) []any,
) (changed int, err error) {
	prefix := b.partitionPrefix(p)
	for batch := range slices.Chunk(members, membersPerScript) {
		keys := []string{prefix + keyIndex + g.String(), prefix + keyGenerations}
		args := append([]any{b.publishCommand(), g.String(), g.process, g.number, memberLead(kind)}, options...)
		hashes := make(map[string]int, len(batch)) // channel → its place in keys, from 1
		for _, e := range batch {
			at, ok := hashes[e.channel]
			if !ok {
				keys = append(keys, prefix+keyPresence+e.channel)
				at = len(keys)
				hashes[e.channel] = at
			}
			args = more(append(args, at, e.channel, prefix+keyChannel+e.channel, e.client), e)
		}
		reply, err := b.run(ctx, s, keys, args...)
		if err != nil {
			return changed, err
		}
		n, ok := reply.(int64)
		if !ok {
			return changed, fmt.Errorf("%s: reply is a %T", s.name, reply)
		}
		changed += int(n)
	}
	return changed, nil
}

// byPartition sorts members into partitions.
func byPartition(members iter.Seq[entry]) map[int][]entry {
	parts := make(map[int][]entry)
	for e := range members {
		p := partition(e.channel)
		parts[p] = append(parts[p], e)
	}
	return parts
}

// eachPartition runs one command on a key of every partition, in one pipeline per shard, and hands the replies to each.
func (b *Bus) eachPartition(ctx context.Context, verb string, partitions []int, ask func(redis.Pipeliner, string) *redis.StringSliceCmd) (map[int][]string, error) {
	replies := make(map[int][]string)
	err := b.retry(ctx, verb, func(ctx context.Context) error {
		clear(replies)
		cmds := make(map[int]*redis.StringSliceCmd, len(partitions))
		_, err := b.client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
			for _, p := range partitions {
				cmds[p] = ask(pipe, b.partitionPrefix(p))
			}
			return nil
		})
		for p, cmd := range cmds {
			if got := cmd.Val(); len(got) > 0 {
				replies[p] = got
			}
		}
		return err
	})
	return replies, err
}

// allPartitions in ascending order.
func allPartitions() []int {
	all := make([]int, limit.Partitions)
	for p := range all {
		all[p] = p
	}
	return all
}
