// Package storetest is the suite that every implementation of todo.Store must pass.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"tideline/shared/todo"
	"tideline/shared/trace"
)

// Clock is what the suite moves; hand its Now to the store.
type Clock struct{ ms atomic.Int64 }

// NewClock starts at a whole millisecond of the present.
func NewClock() *Clock {
	c := &Clock{}
	c.ms.Store(time.Now().UnixMilli())
	return c
}

// Now is the clock's time, UTC.
func (c *Clock) Now() time.Time { return time.UnixMilli(c.ms.Load()).UTC() }

// Advance moves the clock.
func (c *Clock) Advance(d time.Duration) { c.ms.Add(d.Milliseconds()) }

// Run runs the suite on one store. Users are random: the store may hold other data, and is left with the suite's.
func Run(t *testing.T, s todo.Store, clock *Clock) {
	x := suite{s: s, clock: clock, book: todo.NewBook(s, clock.Now)}
	for _, c := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"nothing is stored for a stranger", x.stranger},
		{"what was written is read back whole", x.roundTrip},
		{"a version remembers the trace of its write, and the next its own", x.traces},
		{"a write is refused unless the version is the one read", x.conditional},
		{"of racing writers one wins each version and no write is lost", x.race},
		{"a deleted id continues its version", x.tombstone},
		{"the list is newest first, whatever the page size", x.list},
		{"the list can be filtered, and follows changes", x.filter},
		{"pages stay consistent while the list changes", x.pagesUnderChange},
		{"users do not see each other", x.users},
		{"an idempotency key stores one answer", x.answers},
		{"an idempotency key is free again after it expired", x.answerExpires},
		{"of racing requests with one key one creates", x.answerRace},
		{"a cancelled context writes nothing", x.cancelled},
	} {
		t.Run(c.name, c.run)
	}
}

type suite struct {
	s     todo.Store
	clock *Clock
	book  *todo.Book
}

func user() string { return "u-" + uuid.NewString() }

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Fatalf("error %v, want %v", err, target)
	}
}

// add writes a todo with a creation time of its own.
func (x suite) add(t *testing.T, u, title string, done bool) todo.Todo {
	t.Helper()
	x.clock.Advance(time.Millisecond)
	o, err := x.book.Create(t.Context(), u, todo.Content{Title: title, Done: done}, "", "")
	check(t, err)
	return o.Todo
}

func (x suite) titles(t *testing.T, u string, done *bool, pageSize int) []string {
	t.Helper()
	got := []string{}
	q := todo.Query{Done: done, Limit: pageSize}
	for range 1000 {
		p, err := x.s.List(t.Context(), u, q)
		check(t, err)
		if len(p.Items) > pageSize {
			t.Fatalf("a page of %d items, at most %d asked for", len(p.Items), pageSize)
		}
		for _, i := range p.Items {
			got = append(got, i.Title)
		}
		if p.Next == nil {
			return got
		}
		// A cursor survives its way through the caller.
		c, err := todo.ParseCursor(p.Next.String())
		check(t, err)
		q.After = &c
	}
	t.Fatal("the list never ends")
	return nil
}

func (x suite) stranger(t *testing.T) {
	u := user()
	r, err := x.s.Read(t.Context(), u, uuid.NewString())
	check(t, err)
	if r.Version != 0 || r.Live() {
		t.Errorf("read %+v, want the zero record", r)
	}
	p, err := x.s.List(t.Context(), u, todo.Query{Limit: 10})
	check(t, err)
	if len(p.Items) != 0 || p.Next != nil {
		t.Errorf("list %+v, want nothing", p)
	}
	_, err = x.s.Recall(t.Context(), u, "k")
	want(t, err, todo.ErrNotFound)
}

func (x suite) roundTrip(t *testing.T) {
	u := user()
	due := time.Date(2030, 2, 28, 23, 59, 59, 999e6, time.UTC)
	for _, c := range []todo.Content{
		{Title: "plain"},
		{Title: "ünïcödé 🌊 \"quoted\" <b>&\u2028end", Note: "two\nlines\tand a tab", Done: true, DueAt: &due},
	} {
		o, err := x.book.Create(t.Context(), u, c, "", "")
		check(t, err)
		got, err := x.s.Read(t.Context(), u, o.Todo.ID)
		check(t, err)
		if !got.Content().Equal(c) || got.Version != 1 || !got.CreatedAt.Equal(x.clock.Now()) || !got.UpdatedAt.Equal(x.clock.Now()) {
			t.Errorf("read %+v, want %+v of now", got, c)
		}
	}
}

func (x suite) traces(t *testing.T) {
	const first, second = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "00-1af7651916cd43dd8448eb211c80319c-c7ad6b7169203331-01"
	u := user()
	o, err := x.book.Create(trace.From(t.Context(), first), u, todo.Content{Title: "one"}, "", "")
	check(t, err)
	steps := []struct {
		parent string
		do     func(context.Context) error
	}{
		{first, nil},
		{second, func(ctx context.Context) error {
			_, err := x.book.Put(ctx, u, o.Todo.ID, todo.Content{Title: "two"}, todo.Match{})
			return err
		}},
		{"", func(ctx context.Context) error { _, err := x.book.Delete(ctx, u, o.Todo.ID, todo.Match{}); return err }},
	}
	for i, s := range steps {
		if s.do != nil {
			check(t, s.do(trace.From(t.Context(), s.parent)))
		}
		got, err := x.s.Read(t.Context(), u, o.Todo.ID)
		check(t, err)
		if got.Trace != s.parent || got.Version != uint64(i+1) {
			t.Errorf("version %d has the trace %q, want %q", got.Version, got.Trace, s.parent)
		}
	}
}

func (x suite) conditional(t *testing.T) {
	u, id := user(), uuid.NewString()
	now := x.clock.Now()
	rec := func(v uint64, title string) todo.Record {
		return todo.Record{Todo: todo.Todo{ID: id, Title: title, Version: v, CreatedAt: now, UpdatedAt: now}}
	}
	want(t, x.s.Write(t.Context(), u, todo.Write{Before: rec(1, ""), Next: rec(2, "update of nothing")}), todo.ErrConflict)
	check(t, x.s.Write(t.Context(), u, todo.Write{Next: rec(1, "first")}))
	want(t, x.s.Write(t.Context(), u, todo.Write{Next: rec(1, "second create")}), todo.ErrConflict)
	check(t, x.s.Write(t.Context(), u, todo.Write{Before: rec(1, ""), Next: rec(2, "second")}))
	want(t, x.s.Write(t.Context(), u, todo.Write{Before: rec(1, ""), Next: rec(2, "late")}), todo.ErrConflict)
	got, err := x.s.Read(t.Context(), u, id)
	check(t, err)
	if got.Title != "second" || got.Version != 2 {
		t.Errorf("stored %q version %d, want second, 2", got.Title, got.Version)
	}
}

func (x suite) race(t *testing.T) {
	u := user()
	o := x.add(t, u, "0", false)
	const writers, each = 4, 5
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range each {
				for {
					_, err := x.book.Patch(t.Context(), u, o.ID, todo.Match{}, func(c todo.Content) todo.Content {
						var n int
						fmt.Sscan(c.Title, &n)
						c.Title = fmt.Sprint(n + 1)
						return c
					})
					if errors.Is(err, todo.ErrConflict) {
						continue // refused, and said so: not lost
					}
					if err != nil {
						t.Error(err)
					}
					break
				}
			}
		})
	}
	wg.Wait()
	got, err := x.book.Get(t.Context(), u, o.ID)
	check(t, err)
	if got.Title != fmt.Sprint(writers*each) || got.Version != 1+writers*each {
		t.Errorf("title %s version %d after %d increments", got.Title, got.Version, writers*each)
	}
}

func (x suite) tombstone(t *testing.T) {
	u, id := user(), uuid.NewString()
	x.add(t, u, "older", false)
	x.clock.Advance(time.Millisecond)
	first, err := x.book.Put(t.Context(), u, id, todo.Content{Title: "one", Note: "kept for the event"}, todo.Match{})
	check(t, err)
	x.add(t, u, "newer", false)
	o, err := x.book.Delete(t.Context(), u, id, todo.Match{})
	check(t, err)
	if o.Event.Type != todo.Deleted || o.Event.Todo.Version != 2 {
		t.Errorf("event %+v, want a deletion of version 2", o.Event)
	}
	r, err := x.s.Read(t.Context(), u, id)
	check(t, err)
	if !r.Deleted || r.Version != 2 || r.Live() || !r.Expires.Equal(x.clock.Now().Add(todo.TombstoneTTL)) || r.Note == "" {
		t.Errorf("stored %+v, want a tombstone of version 2", r)
	}
	if got := x.titles(t, u, nil, 10); !slices.Equal(got, []string{"newer", "older"}) {
		t.Errorf("the list has %v after the deletion", got)
	}
	_, err = x.book.Get(t.Context(), u, id)
	want(t, err, todo.ErrNotFound)
	_, err = x.book.Delete(t.Context(), u, id, todo.Match{})
	want(t, err, todo.ErrNotFound)
	x.clock.Advance(time.Hour)
	o, err = x.book.Put(t.Context(), u, id, todo.Content{Title: "again"}, todo.Match{})
	check(t, err)
	if !o.Created || o.Todo.Version != 3 || o.Event.Type != todo.Created || !o.Todo.CreatedAt.Equal(first.Todo.CreatedAt) || !o.Todo.UpdatedAt.Equal(x.clock.Now()) {
		t.Errorf("re-created as %+v, want version 3, created when it first was", o)
	}
	if got := x.titles(t, u, nil, 10); !slices.Equal(got, []string{"newer", "again", "older"}) {
		t.Errorf("the list has %v: it is not back in its place", got)
	}
}

func (x suite) list(t *testing.T) {
	u := user()
	var all []string
	for n := range 7 {
		title := fmt.Sprint("t", n)
		x.add(t, u, title, n%2 == 0)
		all = append([]string{title}, all...)
	}
	for _, size := range []int{1, 2, 3, 6, 7, 8, 100} {
		if got := x.titles(t, u, nil, size); !slices.Equal(got, all) {
			t.Errorf("page size %d: %v, want %v", size, got, all)
		}
	}
	// Todos of one millisecond are neither lost nor repeated at a page's edge.
	for n := range 5 {
		_, err := x.book.Create(t.Context(), u, todo.Content{Title: fmt.Sprint("same", n)}, "", "")
		check(t, err)
	}
	got := x.titles(t, u, nil, 2)
	slices.Sort(got)
	if n := len(slices.Compact(got)); n != 12 {
		t.Errorf("%d different todos in pages of 2, want 12", n)
	}
}

func (x suite) filter(t *testing.T) {
	u := user()
	yes, no := true, false
	a, _, c := x.add(t, u, "a", false), x.add(t, u, "b", true), x.add(t, u, "c", false)
	x.add(t, u, "d", true)
	expect := func(done *bool, titles ...string) {
		t.Helper()
		for _, size := range []int{1, 2, 10} {
			if got := x.titles(t, u, done, size); !slices.Equal(got, titles) {
				t.Errorf("done %v page size %d: %v, want %v", done, size, got, titles)
			}
		}
	}
	expect(&yes, "d", "b")
	expect(&no, "c", "a")
	_, err := x.book.Patch(t.Context(), u, a.ID, todo.Match{}, func(k todo.Content) todo.Content { k.Done = true; return k })
	check(t, err)
	expect(&yes, "d", "b", "a")
	expect(&no, "c")
	_, err = x.book.Delete(t.Context(), u, c.ID, todo.Match{})
	check(t, err)
	expect(&no)
	expect(nil, "d", "b", "a")
}

func (x suite) pagesUnderChange(t *testing.T) {
	u := user()
	var ids []string
	for n := range 6 {
		ids = append(ids, x.add(t, u, fmt.Sprint(n), false).ID)
	}
	p, err := x.s.List(t.Context(), u, todo.Query{Limit: 2})
	check(t, err)
	// The todo that the cursor names goes, one that was seen changes, a new one comes: the rest is listed once.
	_, err = x.book.Delete(t.Context(), u, ids[4], todo.Match{})
	check(t, err)
	_, err = x.book.Patch(t.Context(), u, ids[3], todo.Match{}, func(k todo.Content) todo.Content { k.Done = true; return k })
	check(t, err)
	x.add(t, u, "new", false)
	p, err = x.s.List(t.Context(), u, todo.Query{Limit: 10, After: p.Next})
	check(t, err)
	var got []string
	for _, i := range p.Items {
		got = append(got, i.Title)
	}
	if !slices.Equal(got, []string{"3", "2", "1", "0"}) || p.Next != nil {
		t.Errorf("second page %v, next %v", got, p.Next)
	}
}

func (x suite) users(t *testing.T) {
	u, v := user(), user()
	o := x.add(t, u, "mine", false)
	r, err := x.s.Read(t.Context(), v, o.ID)
	check(t, err)
	if r.Version != 0 {
		t.Error("another user's todo was read")
	}
	if got := x.titles(t, v, nil, 10); len(got) != 0 {
		t.Errorf("another user's list has %v", got)
	}
	// The same id may live in both lists: ids are chosen by callers.
	_, err = x.book.Put(t.Context(), v, o.ID, todo.Content{Title: "theirs"}, todo.Match{})
	check(t, err)
	got, err := x.book.Get(t.Context(), u, o.ID)
	check(t, err)
	if got.Title != "mine" {
		t.Errorf("another user's write reached this one: %q", got.Title)
	}
}

func (x suite) answers(t *testing.T) {
	u := user()
	first, err := x.book.Create(t.Context(), u, todo.Content{Title: "once"}, "key-1", "digest-1")
	check(t, err)
	if first.Event == nil {
		t.Error("the first request has no event")
	}
	_, err = x.book.Patch(t.Context(), u, first.Todo.ID, todo.Match{}, func(c todo.Content) todo.Content { c.Title = "changed"; return c })
	check(t, err)
	again, err := x.book.Create(t.Context(), u, todo.Content{Title: "once"}, "key-1", "digest-1")
	check(t, err)
	if again.Event != nil || !again.Created || again.Todo.ID != first.Todo.ID || again.Todo.Title != "once" || again.Todo.Version != 1 {
		t.Errorf("repeated: %+v, want the first answer %+v", again.Todo, first.Todo)
	}
	_, err = x.book.Create(t.Context(), u, todo.Content{Title: "other"}, "key-1", "digest-2")
	want(t, err, todo.ErrKeyMismatch)
	_, err = x.book.Create(t.Context(), user(), todo.Content{Title: "other"}, "key-1", "digest-2")
	check(t, err) // another user's key
	if got := x.titles(t, u, nil, 10); len(got) != 1 {
		t.Errorf("%d todos, want 1", len(got))
	}
}

func (x suite) answerExpires(t *testing.T) {
	u := user()
	_, err := x.book.Create(t.Context(), u, todo.Content{Title: "one"}, "key", "a")
	check(t, err)
	x.clock.Advance(todo.AnswerTTL - time.Millisecond)
	_, err = x.book.Create(t.Context(), u, todo.Content{Title: "two"}, "key", "b")
	want(t, err, todo.ErrKeyMismatch)
	x.clock.Advance(time.Millisecond)
	_, err = x.book.Create(t.Context(), u, todo.Content{Title: "two"}, "key", "b")
	check(t, err)
}

func (x suite) answerRace(t *testing.T) {
	u := user()
	var created, ids sync.Map
	var wg sync.WaitGroup
	for n := range 6 {
		wg.Go(func() {
			o, err := x.book.Create(t.Context(), u, todo.Content{Title: "race"}, "key", "same")
			if err != nil {
				t.Error(err)
				return
			}
			ids.Store(o.Todo.ID, true)
			if o.Event != nil {
				created.Store(n, true)
			}
		})
	}
	wg.Wait()
	size := func(m *sync.Map) (n int) { m.Range(func(_, _ any) bool { n++; return true }); return n }
	if size(&created) != 1 || size(&ids) != 1 {
		t.Errorf("%d created, %d ids; want 1 and 1", size(&created), size(&ids))
	}
}

func (x suite) cancelled(t *testing.T) {
	u, id := user(), uuid.NewString()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	now := x.clock.Now()
	err := x.s.Write(ctx, u, todo.Write{Next: todo.Record{Todo: todo.Todo{ID: id, Title: "x", Version: 1, CreatedAt: now, UpdatedAt: now}}})
	want(t, err, todo.ErrUnavailable)
	r, err := x.s.Read(t.Context(), u, id)
	check(t, err)
	if r.Version != 0 {
		t.Error("written under a cancelled context")
	}
}
