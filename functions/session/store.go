package session

import (
	"context"
	"encoding/json"
	"errors"
	"time"
)

// Errors of TakeLink; test with errors.Is.
var (
	ErrLinkUsed    = errors.New("link already used")
	ErrLinkExpired = errors.New("link expired or unknown")
)

// LinkKept is how long a store remembers a link after it expired, so that a used link can be told from an unknown one.
const LinkKept = 10 * time.Minute

// Link is what a one-time link signs in as.
type Link struct {
	User  string          `json:"user"`
	Roles []string        `json:"roles,omitempty"`
	Info  json.RawMessage `json:"info,omitempty"`
	// Until is when the session that the link makes must end; zero for a guest's, which is extended on use.
	Until time.Time `json:"until,omitzero"`
	// Expires is when the link itself ends.
	Expires time.Time `json:"expires"`
}

// Store keeps links and signed-out sessions. Ids are opaque to it. Implementations are safe for concurrent use by many processes
// where they share the storage (DynamoDB) and by one process where they don't (bbolt); storetest is what each must pass.
type Store interface {
	PutLink(ctx context.Context, id string, l Link) error
	// TakeLink answers a link to exactly one caller, decided by one conditional write. ErrLinkUsed or ErrLinkExpired to all others.
	TakeLink(ctx context.Context, id string, now time.Time) (Link, error)
	// Revoke remembers until then that a session was signed out.
	Revoke(ctx context.Context, session string, until time.Time) error
	// Revoked reads its own writes.
	Revoked(ctx context.Context, session string, now time.Time) (bool, error)
}
