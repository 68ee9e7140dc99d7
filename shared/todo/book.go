package todo

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"

	"tideline/shared/trace"
)

// attempts bounds how often a write without a precondition is tried again after it lost a race.
const attempts = 8

// Book applies the rules of a todo list to a store. It is safe for concurrent use. No write is lost: of two that race, the
// later is applied to the result of the earlier, or is refused when it named the version it had seen.
type Book struct {
	store Store
	now   func() time.Time
}

// NewBook makes a Book; nil now means time.Now.
func NewBook(store Store, now func() time.Time) *Book {
	if now == nil {
		now = time.Now
	}
	return &Book{store: store, now: now}
}

// Outcome says what a change did.
type Outcome struct {
	Todo Todo
	// Event to announce; nil when nothing was written.
	Event *Event
	// Created: the todo did not exist before, or this is the repeated answer to the request that created it.
	Created bool
}

// Match is a precondition on the stored version. The zero Match holds always.
type Match struct {
	Versions []uint64 // If-Match: any of these
	Exists   bool     // If-Match: *
	Absent   bool     // If-None-Match: *
}

func (m Match) none() bool { return len(m.Versions) == 0 && !m.Exists && !m.Absent }

func (m Match) check(r Record) error {
	if m.none() {
		return nil
	}
	if m.Absent {
		if r.Live() {
			return ErrPrecondition
		}
		if len(m.Versions) == 0 && !m.Exists {
			return nil
		}
	}
	if !r.Live() {
		return ErrPrecondition
	}
	if m.Exists {
		return nil
	}
	for _, v := range m.Versions {
		if v == r.Version {
			return nil
		}
	}
	return ErrPrecondition
}

// ValidID reports whether id is a UUID in its canonical lower-case form.
func ValidID(id string) bool {
	u, err := uuid.Parse(id)
	return err == nil && u.String() == id
}

// Get answers a live todo.
func (b *Book) Get(ctx context.Context, user, id string) (Todo, error) {
	if !ValidID(id) {
		return Todo{}, ErrNotFound
	}
	r, err := b.store.Read(ctx, user, id)
	if err != nil {
		return Todo{}, fmt.Errorf("read todo %s: %w", id, err)
	}
	if !r.Live() {
		return Todo{}, ErrNotFound
	}
	return r.Todo, nil
}

// List answers a page, newest first.
func (b *Book) List(ctx context.Context, user string, q Query) (Page, error) {
	p, err := b.store.List(ctx, user, q)
	if err != nil {
		return Page{}, fmt.Errorf("list todos: %w", err)
	}
	return p, nil
}

// Create makes a todo under a new id. With a key, the same request again gets the same answer for AnswerTTL, and another
// request under that key ErrKeyMismatch; request is a digest that tells them apart.
func (b *Book) Create(ctx context.Context, user string, c Content, key, request string) (Outcome, error) {
	c, err := c.Clean()
	if err != nil {
		return Outcome{}, err
	}
	if key != "" {
		switch o, err := b.recall(ctx, user, key, request); {
		case err == nil:
			return o, nil
		case !errors.Is(err, ErrNotFound):
			return Outcome{}, err
		}
	}
	id, err := uuid.NewV7()
	if err != nil {
		return Outcome{}, fmt.Errorf("new todo id: %w", err)
	}
	w := Write{Next: b.step(Record{}, id.String(), c)}
	w.Next.Trace = trace.Parent(ctx)
	if key != "" {
		w.Answer = &Answer{Key: key, Request: request, Todo: w.Next.Todo, Expires: b.now().Add(AnswerTTL)}
	}
	err = b.write(ctx, user, w)
	if errors.Is(err, ErrKeyUsed) { // the same request, a moment earlier
		return b.recall(ctx, user, key, request)
	}
	if err != nil {
		return Outcome{}, fmt.Errorf("create todo: %w", err)
	}
	return outcome(w), nil
}

func (b *Book) recall(ctx context.Context, user, key, request string) (Outcome, error) {
	a, err := b.store.Recall(ctx, user, key)
	if err != nil {
		return Outcome{}, fmt.Errorf("recall answer: %w", err)
	}
	if a.Request != request {
		return Outcome{}, ErrKeyMismatch
	}
	return Outcome{Todo: a.Todo, Created: true}, nil
}

// Put makes the todo with this id have this content, whether or not it exists. Repeating it changes nothing. A todo that was deleted
// less than TombstoneTTL ago continues its version and its time of creation, and with it its place in the list.
func (b *Book) Put(ctx context.Context, user, id string, c Content, m Match) (Outcome, error) {
	c, err := c.Clean()
	if err != nil {
		return Outcome{}, err
	}
	if !ValidID(id) {
		return Outcome{}, &FieldError{"id", "must be a UUID in lower case"}
	}
	return b.change(ctx, user, id, m, func(r Record) (*Record, error) {
		if r.Live() && r.Content().Equal(c) {
			return nil, nil
		}
		next := b.step(r, id, c)
		return &next, nil
	})
}

// Patch changes the content of a live todo; edit may be called more than once.
func (b *Book) Patch(ctx context.Context, user, id string, m Match, edit func(Content) Content) (Outcome, error) {
	if !ValidID(id) {
		return Outcome{}, ErrNotFound
	}
	return b.change(ctx, user, id, m, func(r Record) (*Record, error) {
		if !r.Live() {
			return nil, ErrNotFound
		}
		c, err := edit(r.Content()).Clean()
		if err != nil {
			return nil, err
		}
		if r.Content().Equal(c) {
			return nil, nil
		}
		next := b.step(r, id, c)
		return &next, nil
	})
}

// Delete leaves a tombstone in the place of a live todo.
func (b *Book) Delete(ctx context.Context, user, id string, m Match) (Outcome, error) {
	if !ValidID(id) {
		return Outcome{}, ErrNotFound
	}
	return b.change(ctx, user, id, m, func(r Record) (*Record, error) {
		if !r.Live() {
			return nil, ErrNotFound
		}
		next := b.tombstone(r)
		return &next, nil
	})
}

// change reads, decides and writes, until it wins, or the precondition fails.
func (b *Book) change(ctx context.Context, user, id string, m Match, decide func(Record) (*Record, error)) (Outcome, error) {
	for n := range attempts {
		r, err := b.store.Read(ctx, user, id)
		if err != nil {
			return Outcome{}, fmt.Errorf("read todo %s: %w", id, err)
		}
		// An unknown todo is unknown, whatever version the caller expects of it; creating is the exception.
		next, err := decide(r)
		if errors.Is(err, ErrNotFound) {
			return Outcome{}, err
		}
		if err := m.check(r); err != nil {
			return Outcome{Todo: r.Todo}, err
		}
		if err != nil {
			return Outcome{}, err
		}
		if next == nil {
			return Outcome{Todo: r.Todo}, nil
		}
		w := Write{Before: r, Next: *next}
		w.Next.Trace = trace.Parent(ctx)
		err = b.write(ctx, user, w)
		if err == nil {
			return outcome(w), nil
		}
		if !errors.Is(err, ErrConflict) {
			return Outcome{}, fmt.Errorf("write todo %s: %w", id, err)
		}
		if err := pause(ctx, n); err != nil {
			return Outcome{}, fmt.Errorf("write todo %s: %w: %w", id, ErrConflict, err)
		}
	}
	return Outcome{}, fmt.Errorf("write todo %s: lost %d races: %w", id, attempts, ErrConflict)
}

// write stores w under a span of its own.
func (b *Book) write(ctx context.Context, user string, w Write) error {
	ctx, span := trace.Start(ctx, trace.Client, "write", "todo", "tideline.todo", w.Next.ID)
	span.SetNumber("tideline.version", int(w.Next.Version))
	err := b.store.Write(ctx, user, w)
	span.End(err)
	return err
}

// pause waits a random time that grows with n, up to 200 ms.
func pause(ctx context.Context, n int) error {
	d := rand.N(min(5*time.Millisecond<<n, 200*time.Millisecond))
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *Book) step(before Record, id string, c Content) Record {
	now := b.now().UTC().Truncate(time.Millisecond)
	t := Todo{ID: id, Title: c.Title, Note: c.Note, Done: c.Done, DueAt: c.DueAt, Version: before.Version + 1, CreatedAt: now, UpdatedAt: now}
	if before.Version > 0 { // a tombstone's too: who takes a deletion back finds the todo in its old place
		t.CreatedAt = before.CreatedAt
	}
	return Record{Todo: t}
}

func (b *Book) tombstone(r Record) Record {
	now := b.now().UTC().Truncate(time.Millisecond)
	r.Version++
	r.UpdatedAt = now
	r.Deleted = true
	r.Expires = now.Add(TombstoneTTL)
	return r
}

func outcome(w Write) Outcome {
	e := EventOf(w.Before, w.Next)
	return Outcome{Todo: w.Next.Todo, Event: &e, Created: e.Type == Created}
}
