package bus

import "strings"

// publisherCommands is what Publish sends or calls in its script, and what finds the servers. A test of cdk/edge runs Publish in
// every form under exactly these rights.
var publisherCommands = []string{
	"ping", "info", "cluster|slots", "command", "eval", "evalsha", "publish", "spublish",
	"pexpire", "unlink", "get",
	"hdel", "hget", "hincrby", "hmget", "hset", "xadd", "zadd", "zrangebyscore", "zrem", "zscore",
}

// PublisherAccessString is the rule of a Redis user that may publish in one stage, and neither subscribe nor read what was published
// nor touch what belongs to the fleet: functions, and other people's publishers.
func PublisherAccessString(stage string) string {
	prefix := "tl:" + stage + ":{*}:"
	rule := []string{"resetchannels", "&" + prefix + keyChannel + "*", "resetkeys"}
	for _, kind := range []string{keyStream, keyMeta, keyDedupe, keyExpiry, keyLock} {
		rule = append(rule, "~"+prefix+kind+"*")
	}
	return strings.Join(rule, " ") + " -@all +" + strings.Join(publisherCommands, " +")
}
