package conn

import (
	"fmt"

	"github.com/centrifugal/protocol"
)

// refusal is an error reply to a command.
type refusal struct {
	code      uint32
	message   string
	temporary bool
}

func (r refusal) Error() string { return fmt.Sprintf("%d %s", r.code, r.message) }

func (r refusal) reply(id uint32) *protocol.Reply {
	return &protocol.Reply{Id: id, Error: &protocol.Error{Code: r.code, Message: r.message, Temporary: r.temporary}}
}

// Errors of commands: the Centrifuge client protocol's own codes. A client may repeat a command whose error is temporary.
var (
	errInternal        = refusal{100, "internal server error", true}
	errUnauthorized    = refusal{101, "unauthorized", false}
	errUnknownChannel  = refusal{102, "unknown channel", false}
	errPermission      = refusal{103, "permission denied", false}
	errMethodNotFound  = refusal{104, "method not found", false}
	errAlreadySub      = refusal{105, "already subscribed", false}
	errLimitExceeded   = refusal{106, "limit exceeded", false}
	errBadRequest      = refusal{107, "bad request", false}
	errNotAvailable    = refusal{108, "not available", false}
	errTokenExpired    = refusal{109, "token expired", false}
	errTooManyRequests = refusal{111, "too many requests", true}
	errUnrecoverable   = refusal{112, "unrecoverable position", false}
)

// disconnect is a goodbye: the code of a WebSocket close frame, and a reason that is never empty and never JSON, because
// centrifuge-js takes an empty one for a lost connection. 3000–3499 and 4000–4499 tell the client to reconnect, the others not to.
type disconnect struct {
	code   uint16
	reason string
}

func (d disconnect) Error() string { return fmt.Sprintf("%d %s", d.code, d.reason) }

// Goodbyes, as docs/protocol.md explains them.
var (
	byeShutdown          = disconnect{3001, "shutdown"}
	byeServerError       = disconnect{3004, "internal server error"}
	byeExpired           = disconnect{3005, "connection expired"}
	byeSubExpired        = disconnect{3006, "subscription expired"}
	byeSlow              = disconnect{3008, "slow"}
	byeInsufficientState = disconnect{3010, "insufficient state"}
	byeForceReconnect    = disconnect{3011, "force reconnect"}
	byeNoPong            = disconnect{3012, "no pong"}
	byeTooManyRequests   = disconnect{3013, "too many requests"}
	byeInvalidToken      = disconnect{3500, "invalid token"}
	byeBadRequest        = disconnect{3501, "bad request"}
	byeStale             = disconnect{3502, "stale"}
	byeForceNoReconnect  = disconnect{3503, "force disconnect"}
	byeChannelLimit      = disconnect{3505, "channel limit"}
	byeInappropriate     = disconnect{3506, "inappropriate protocol"}
	byePermission        = disconnect{3507, "permission denied"}
	byeNotAvailable      = disconnect{3508, "not available"}
	byeProtocolError     = disconnect{1002, "protocol error"}
	byeTooLarge          = disconnect{1009, "message too large"}
	byeNotUTF8           = disconnect{1007, "text is not UTF-8"}
	byeUserLimit         = disconnect{4001, "too many connections of this user"} // ours; reconnects, because some of them may be dead
)

// Codes of an unsubscribe push: at or above 2500 the client resubscribes.
const (
	unsubServer       = 2000
	unsubInsufficient = 2500
	unsubExpired      = 2501
)
