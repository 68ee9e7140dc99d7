package bus

import "strings"

// aclCommands is every command that this package sends or calls in a script. A test runs all of it under exactly these rights, on one
// server and on a cluster, and fails on a command that is missing here as on one that is not used.
var aclCommands = []string{
	// connections
	"ping", "info", "cluster|slots", "command",
	// scripts
	"eval", "evalsha",
	// pub/sub
	"publish", "spublish", "subscribe", "unsubscribe", "ssubscribe", "sunsubscribe",
	// keys
	"del", "exists", "pexpire", "pttl", "unlink",
	"get", "set",
	"hdel", "hget", "hgetall", "hincrby", "hmget", "hset", "hvals",
	"lpop", "rpush",
	"sadd", "smembers", "srandmember", "srem",
	"xadd", "xrange", "xrevrange",
	"zadd", "zrangebyscore", "zrem", "zscore",
}

// ACLCommands lists every Redis command that this package uses, in the notation of ACL SETUSER without the plus sign. SELECT is not among
// them: a URL that names a database other than 0 needs it too.
func ACLCommands() []string { return append([]string(nil), aclCommands...) }

// AccessString is the rule of a Redis user that may do what this package does in one stage and nothing else, as ACL SETUSER and
// ElastiCache users take it: "resetchannels &tl:<stage>:* resetkeys ~tl:<stage>:* -@all +ping …". The stage is not checked.
func AccessString(stage string) string {
	return "resetchannels &tl:" + stage + ":* resetkeys ~tl:" + stage + ":* -@all +" + strings.Join(aclCommands, " +")
}
