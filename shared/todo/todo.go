// Package todo is the domain of the todo list: what a todo and a background task are, the rules by which they change, and the interface that their stores implement.
package todo

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"tideline/shared/bus"
	"tideline/shared/channel"
)

// Limits of a todo. Characters are Unicode code points.
const (
	TitleChars = 500   // after trimming; at least 1
	NoteChars  = 4000  // after trimming; may be empty
	PerUser    = 10000 // live todos; then ErrFull
)

// How long what is not a live todo is kept.
const (
	// TombstoneTTL is how long a deleted todo's version is remembered, so that the same id continues it. It is far longer than
	// limit.IdempotencyTTL, for which the bus remembers versions: a version that starts again must not look old to the bus.
	TombstoneTTL = 7 * 24 * time.Hour
	// AnswerTTL is how long the answer to an Idempotency-Key is kept.
	AnswerTTL = 24 * time.Hour
)

// Namespace of the channels that todo events are published on.
const Namespace = "todos"

// Todo is one entry of a user's list. Times are UTC with millisecond precision.
type Todo struct {
	ID    string     `json:"id"`
	Title string     `json:"title"`
	Note  string     `json:"note,omitempty"`
	Done  bool       `json:"done"`
	DueAt *time.Time `json:"dueAt,omitempty"`
	// Version starts at 1 and grows by one with every write, deletion included.
	Version   uint64    `json:"version"`
	CreatedAt time.Time `json:"createdAt"`
	UpdatedAt time.Time `json:"updatedAt"`
}

// Content is the part of a todo that its owner decides.
type Content struct {
	Title string
	Note  string
	Done  bool
	DueAt *time.Time
}

// Content answers the part of t that its owner decides.
func (t Todo) Content() Content {
	return Content{Title: t.Title, Note: t.Note, Done: t.Done, DueAt: t.DueAt}
}

// FieldError says what is wrong with one field of a todo's content.
type FieldError struct {
	Field   string // title, note, dueAt
	Problem string
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Problem }

// Clean trims c, brings its time to UTC milliseconds, and answers it, or every *FieldError joined.
func (c Content) Clean() (Content, error) {
	c.Title = strings.TrimSpace(c.Title)
	c.Note = strings.TrimSpace(c.Note)
	var errs []error
	switch n := utf8.RuneCountInString(c.Title); {
	case !utf8.ValidString(c.Title):
		errs = append(errs, &FieldError{"title", "is not valid UTF-8"})
	case n == 0:
		errs = append(errs, &FieldError{"title", "must not be empty"})
	case n > TitleChars:
		errs = append(errs, &FieldError{"title", fmt.Sprintf("has %d characters, at most %d", n, TitleChars)})
	case strings.ContainsFunc(c.Title, unicode.IsControl):
		errs = append(errs, &FieldError{"title", "must not have control characters"})
	}
	switch n := utf8.RuneCountInString(c.Note); {
	case !utf8.ValidString(c.Note):
		errs = append(errs, &FieldError{"note", "is not valid UTF-8"})
	case n > NoteChars:
		errs = append(errs, &FieldError{"note", fmt.Sprintf("has %d characters, at most %d", n, NoteChars)})
	case strings.ContainsRune(c.Note, 0):
		errs = append(errs, &FieldError{"note", "must not have NUL characters"})
	}
	if c.DueAt != nil {
		due := c.DueAt.UTC().Truncate(time.Millisecond)
		if y := due.Year(); y < 1970 || y > 9999 {
			errs = append(errs, &FieldError{"dueAt", "must be between the years 1970 and 9999"})
		}
		c.DueAt = &due
	}
	return c, errors.Join(errs...)
}

// Equal compares contents; times by instant.
func (c Content) Equal(d Content) bool {
	sameDue := c.DueAt == nil && d.DueAt == nil || c.DueAt != nil && d.DueAt != nil && c.DueAt.Equal(*d.DueAt)
	return c.Title == d.Title && c.Note == d.Note && c.Done == d.Done && sameDue
}

// EventType says what became of a todo, or of the list as a whole.
type EventType string

// Types of events on todos:#<user>.
const (
	Created EventType = "todo.created"
	Updated EventType = "todo.updated"
	Deleted EventType = "todo.deleted"
	// Changed says that many todos changed at once and that the list should be read again. It carries no todo.
	Changed EventType = "todos.changed"
)

// Event is what subscribers of a user's list hear. Todo is the state after the change; a deletion carries the last state under
// the deletion's version.
type Event struct {
	Type EventType `json:"type"`
	Todo *Todo     `json:"todo,omitempty"`
}

// EventOf is the event that announces the step to r from the state before it.
func EventOf(before, r Record) Event {
	t := r.Todo
	switch {
	case r.Deleted:
		return Event{Deleted, &t}
	case before.Live():
		return Event{Updated, &t}
	}
	return Event{Created, &t}
}

// PublicationID is the id under which a version of a todo is announced, by whoever announces it first.
func PublicationID(id string, version uint64) string {
	return id + ":" + strconv.FormatUint(version, 10)
}

// Publication is e on the user's channel, the same by whichever door it comes: its id, key and version make the bus publish
// each version at most once and never an older after a newer.
func (e Event) Publication(user string, ns channel.Namespace) (bus.Publication, error) {
	if e.Todo == nil {
		return bus.Publication{}, fmt.Errorf("event %s has no todo", e.Type)
	}
	data, err := json.Marshal(e)
	if err != nil {
		return bus.Publication{}, fmt.Errorf("encode event of todo %s: %w", e.Todo.ID, err)
	}
	return bus.Publication{
		Channel: channel.Personal(Namespace, user), Data: data, ID: PublicationID(e.Todo.ID, e.Todo.Version),
		Key: e.Todo.ID, Version: e.Todo.Version,
		History: bus.History{Size: ns.HistorySize, TTL: ns.HistoryTTL},
	}, nil
}

// ChangedPublication tells the user's subscribers to read the list again. The id should name the cause.
func ChangedPublication(user, id string, ns channel.Namespace) bus.Publication {
	return bus.Publication{
		Channel: channel.Personal(Namespace, user), Data: []byte(`{"type":"` + string(Changed) + `"}`), ID: id,
		History: bus.History{Size: ns.HistorySize, TTL: ns.HistoryTTL},
	}
}
