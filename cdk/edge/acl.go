package edge

import "strings"

// AccessString is what one role's Redis user may do: its own stage's keys and channels, and only the commands that shared/bus calls as that role.
func AccessString(stage, role string) string {
	commands := aclNode
	if role == roleFunction {
		commands = aclFunction
	}
	prefix := "tl:" + stage + ":*"
	return "on resetkeys resetchannels ~" + prefix + " &" + prefix + " -@all +" + strings.Join(commands, " +")
}

// Commands by role, from shared/bus. Commands inside scripts count too.
var (
	aclFunction = []string{"ping", "hello", "auth", "eval", "evalsha", "info", "publish", "spublish"}
	aclNode     = append([]string{"subscribe", "unsubscribe", "ssubscribe", "sunsubscribe"}, aclFunction...)
)
