package todo

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Errors of stores and of Book; test with errors.Is.
var (
	// ErrNotFound says that the user has no such todo, task or answer.
	ErrNotFound = errors.New("not found")
	// ErrConflict says that what is stored is not what the write expected. Nothing was written.
	ErrConflict = errors.New("changed meanwhile")
	// ErrPrecondition says that the version that the caller named is not the stored one. Nothing was written.
	ErrPrecondition = errors.New("precondition failed")
	// ErrFull says that the user has PerUser todos.
	ErrFull = errors.New("too many todos")
	// ErrKeyUsed says that an answer is stored for the idempotency key. Nothing was written.
	ErrKeyUsed = errors.New("idempotency key used")
	// ErrKeyMismatch says that the idempotency key was used with another request.
	ErrKeyMismatch = errors.New("idempotency key used with another request")
	// ErrCursor says that a cursor was not made by this server.
	ErrCursor = errors.New("cursor malformed")
	// ErrUnavailable says that the store did not answer, or not in time.
	ErrUnavailable = errors.New("store unavailable")
)

// Record is a todo as it is stored. The zero Record says that nothing is stored.
type Record struct {
	Todo
	// Deleted makes this a tombstone: only ID, Version and CreatedAt matter, until Expires.
	Deleted bool      `json:"deleted,omitempty"`
	Expires time.Time `json:"expires,omitzero"`
	// Trace is the W3C traceparent of what wrote this version, if that was sampled: who announces it later announces it under the same trace.
	Trace string `json:"trace,omitempty"`
}

// Live reports whether the record is a todo that its owner sees.
func (r Record) Live() bool { return r.Version > 0 && !r.Deleted }

// Answer is what a request with an Idempotency-Key was answered.
type Answer struct {
	Key     string    `json:"key"`
	Request string    `json:"request"` // digest of the request
	Todo    Todo      `json:"todo"`    // as it was created
	Expires time.Time `json:"expires"`
}

// Write is one step of one todo.
type Write struct {
	// Before is the record that must be stored, as Read answered it; only its version is compared. The zero Record: nothing.
	Before Record
	Next   Record
	// Answer, when set, is stored in the same step, unless its key has an answer already (ErrKeyUsed).
	Answer *Answer
}

// Store keeps todos. Implementations are safe for concurrent use, and pass storetest.Run. Their errors are those above, or
// wrap ErrUnavailable. Reads see every write that was acknowledged before they began.
type Store interface {
	// Read answers what is stored under the id, tombstones included; the zero Record if nothing is.
	Read(ctx context.Context, user, id string) (Record, error)
	// Write stores w.Next if w.Before is still what is stored (else ErrConflict), counts, keeps the answer, and makes sure that
	// the event is announced later, all in one step. A create past PerUser gives ErrFull.
	Write(ctx context.Context, user string, w Write) error
	// List answers live todos, newest first.
	List(ctx context.Context, user string, q Query) (Page, error)
	// Recall answers what was stored for an idempotency key, or ErrNotFound.
	Recall(ctx context.Context, user, key string) (Answer, error)
}

// Query asks for a part of a list.
type Query struct {
	Done  *bool   // nil: both
	After *Cursor // nil: from the newest
	Limit int     // at least 1
}

// Page is a part of a list. Next is nil at the end.
type Page struct {
	Items []Todo
	Next  *Cursor
}

// Cursor is a place in a list: todos are ordered by creation, newest first, and by id within a millisecond.
type Cursor struct {
	Created int64 // milliseconds since 1970
	ID      string
}

// CursorOf is the place of t. A query after it begins with the todo that follows t.
func CursorOf(t Todo) Cursor { return Cursor{t.CreatedAt.UnixMilli(), t.ID} }

// OrderKey sorts as bytes the way that lists are ordered, oldest first.
func (c Cursor) OrderKey() string { return fmt.Sprintf("%015d#%s", c.Created, c.ID) }

// String is the form that callers hand back.
func (c Cursor) String() string {
	return base64.RawURLEncoding.EncodeToString([]byte("1." + strconv.FormatInt(c.Created, 10) + "." + c.ID))
}

// ParseCursor reads what String made, or answers ErrCursor.
func ParseCursor(s string) (Cursor, error) {
	if len(s) > 200 {
		return Cursor{}, ErrCursor
	}
	raw, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return Cursor{}, ErrCursor
	}
	rest, ok := strings.CutPrefix(string(raw), "1.")
	ms, id, ok2 := strings.Cut(rest, ".")
	created, err := strconv.ParseInt(ms, 10, 64)
	if !ok || !ok2 || err != nil || created < 0 || created > maxMillis || !ValidID(id) {
		return Cursor{}, ErrCursor
	}
	return Cursor{created, id}, nil
}

// maxMillis is the end of the year 9999, the last instant that OrderKey has room for.
const maxMillis = 253402300799999
