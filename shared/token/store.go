package token

import (
	"context"
	"encoding/json"
	"errors"
	"time"
)

// ErrConflict says that a ring was changed by somebody else since it was read. Read it again.
var ErrConflict = errors.New("key ring changed meanwhile")

// Ring is a ring's public keys and the version that a Change must name.
type Ring struct {
	Version int64 // 0: there is none yet
	Keys    []Key
}

// Change of a ring, done as a whole or not at all.
type Change struct {
	Ring    string
	Version int64 // of the ring that the change was decided on
	// Add and AddPrivate are the two halves of a new key, or nil.
	Add        *Key
	AddPrivate *PrivateKey
	Retire     map[string]time.Time // by key id
	Remove     []string             // both halves
}

// ChangeMax is the most keys that one Change may add, retire and remove together.
const ChangeMax = 40

// IssuerKeys is what was fetched from one issuer.
type IssuerKeys struct {
	Issuer  string          `json:"issuer"`
	Set     json.RawMessage `json:"set"` // as Usable left it
	Fetched time.Time       `json:"fetched"`
	ETag    string          `json:"etag,omitempty"`
	// Fresh is until when it need not be fetched again.
	Fresh time.Time `json:"fresh"`
}

// Store is a key table, as the rotation uses it. Implementations are safe for concurrent use by many processes; storetest is what each must pass.
type Store interface {
	PublicSource
	PrivateSource
	ReadRing(ctx context.Context, ring string) (Ring, error)
	// ChangeRing answers ErrConflict if the ring has another version than the change names.
	ChangeRing(ctx context.Context, c Change) error
	ReadIssuers(ctx context.Context) ([]IssuerKeys, error)
	PutIssuer(ctx context.Context, k IssuerKeys) error
	RemoveIssuer(ctx context.Context, issuer string) error
}
