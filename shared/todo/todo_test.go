package todo_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"tideline/shared/channel"
	"tideline/shared/limit"
	"tideline/shared/todo"
)

func TestClean(t *testing.T) {
	at := func(s string) *time.Time {
		x, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			t.Fatal(err)
		}
		return &x
	}
	wave := func(n int) string { return strings.Repeat("🌊", n) }
	for _, c := range []struct {
		name   string
		in     todo.Content
		fields string // that are wrong
	}{
		{"plain", todo.Content{Title: "x"}, ""},
		{"trimmed", todo.Content{Title: " \t x \u00a0"}, ""},
		{"at the limits", todo.Content{Title: wave(todo.TitleChars), Note: wave(todo.NoteChars)}, ""},
		{"spaces around the limits", todo.Content{Title: "  " + wave(todo.TitleChars) + "  ", Note: " " + wave(todo.NoteChars) + " "}, ""},
		{"one past the limits", todo.Content{Title: wave(todo.TitleChars + 1), Note: wave(todo.NoteChars + 1)}, "title note"},
		{"blank", todo.Content{Title: " \n "}, "title"},
		{"lines in the note", todo.Content{Title: "x", Note: "a\n\tb"}, ""},
		{"lines in the title", todo.Content{Title: "a\nb"}, "title"},
		{"NUL in the note", todo.Content{Title: "x", Note: "a\x00b"}, "note"},
		{"no UTF-8", todo.Content{Title: "\xff", Note: "\xff"}, "title note"},
		{"first and last time", todo.Content{Title: "x", DueAt: at("1970-01-01T00:00:00Z")}, ""},
		{"last time", todo.Content{Title: "x", DueAt: at("9999-12-31T23:59:59.999Z")}, ""},
		{"past it in UTC", todo.Content{Title: "x", DueAt: at("9999-12-31T23:59:59-01:00")}, "dueAt"},
		{"before it", todo.Content{Title: "x", DueAt: at("1969-12-31T23:59:59.999Z")}, "dueAt"},
	} {
		got, err := c.in.Clean()
		var fields []string
		if many, ok := err.(interface{ Unwrap() []error }); ok {
			for _, e := range many.Unwrap() {
				var f *todo.FieldError
				if !errors.As(e, &f) {
					t.Errorf("%s: %v is no FieldError", c.name, e)
					continue
				}
				fields = append(fields, f.Field)
			}
		}
		if strings.Join(fields, " ") != c.fields {
			t.Errorf("%s: wrong fields %v, want %q", c.name, fields, c.fields)
		}
		if again, err := got.Clean(); c.fields == "" && (err != nil || !again.Equal(got)) {
			t.Errorf("%s: cleaning twice changes %+v to %+v (%v)", c.name, got, again, err)
		}
	}
	precise, err := todo.Content{Title: "x", DueAt: at("2030-01-02T03:04:05.123456+01:00")}.Clean()
	if err != nil || precise.DueAt.Format(time.RFC3339Nano) != "2030-01-02T02:04:05.123Z" {
		t.Errorf("cleaned to %v, %v; want UTC milliseconds", precise.DueAt, err)
	}
}

func TestTheLargestEventFitsIntoAPublication(t *testing.T) {
	// Each of these takes the most bytes in JSON: a control character in a note, four bytes and escaped HTML elsewhere.
	c, err := todo.Content{Title: strings.Repeat("<", todo.TitleChars), Note: strings.Repeat("\x01", todo.NoteChars)}.Clean()
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	e := todo.Event{Type: todo.Created, Todo: &todo.Todo{ID: "6f1c9d52-5b8e-4a39-9a39-1f9f8f2f1c11", Title: c.Title, Note: c.Note, DueAt: &now, Version: 1 << 60, CreatedAt: now, UpdatedAt: now}}
	ns, err := channel.Shipped().Lookup("todos:#ann")
	if err != nil {
		t.Fatal(err)
	}
	p, err := e.Publication("ann", ns)
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Data) > limit.DataBytes || len(p.ID) > limit.PublicationIDBytes {
		t.Errorf("%d bytes of data, at most %d; id %d bytes", len(p.Data), limit.DataBytes, len(p.ID))
	}
	if p.History.Size != ns.HistorySize || p.History.TTL != ns.HistoryTTL || p.Channel != "todos:#ann" || p.Key != e.Todo.ID || p.Version != 1<<60 {
		t.Errorf("publication %+v", p)
	}
}

func TestEventsOfSteps(t *testing.T) {
	rec := func(v uint64, deleted bool) todo.Record {
		return todo.Record{Todo: todo.Todo{ID: "x", Version: v}, Deleted: deleted}
	}
	for _, c := range []struct {
		before, after todo.Record
		want          todo.EventType
	}{
		{todo.Record{}, rec(1, false), todo.Created}, {rec(1, false), rec(2, false), todo.Updated},
		{rec(2, false), rec(3, true), todo.Deleted}, {rec(3, true), rec(4, false), todo.Created},
	} {
		if got := todo.EventOf(c.before, c.after); got.Type != c.want || got.Todo.Version != c.after.Version {
			t.Errorf("%d to %d: %+v, want %s", c.before.Version, c.after.Version, got, c.want)
		}
	}
	b, err := json.Marshal(todo.ChangedPublication("ann", "id", channel.Namespace{}).Data)
	if err != nil || len(b) == 0 {
		t.Error(err)
	}
}

func TestTaskEventsFollowTheState(t *testing.T) {
	for _, c := range []struct {
		state   todo.TaskState
		version uint64
		want    todo.TaskEventType
	}{{todo.Queued, 1, todo.TaskCreated}, {todo.Running, 2, todo.TaskProgress}, {todo.Completed, 9, todo.TaskCompleted}, {todo.Failed, 9, todo.TaskFailed}, {todo.Cancelled, 2, todo.TaskFailed}} {
		e := todo.TaskEventOf(todo.Task{State: c.state, Version: c.version, Errors: []todo.RowError{{Row: 1}}})
		p, err := e.Publication("ann", channel.Namespace{})
		if err != nil || e.Type != c.want || strings.Contains(string(p.Data), `"errors"`) || p.Channel != "user:#ann" {
			t.Errorf("%s: %s %s, %v; want %s", c.state, e.Type, p.Data, err, c.want)
		}
	}
}

func TestCursorsSortLikeTheList(t *testing.T) {
	const id = "6f1c9d52-5b8e-4a39-9a39-1f9f8f2f1c11"
	for _, c := range []todo.Cursor{{Created: 0, ID: id}, {Created: 999, ID: id}, {Created: 1e12, ID: id}, {Created: 253402300799999, ID: id}} {
		got, err := todo.ParseCursor(c.String())
		if err != nil || got != c {
			t.Errorf("%+v came back as %+v, %v", c, got, err)
		}
		later := todo.Cursor{Created: c.Created + 1, ID: "0" + id[1:]}
		if c.OrderKey() >= later.OrderKey() {
			t.Errorf("%s does not sort before %s", c.OrderKey(), later.OrderKey())
		}
	}
	if _, err := todo.ParseCursor((todo.Cursor{Created: 253402300800000, ID: id}).String()); !errors.Is(err, todo.ErrCursor) {
		t.Errorf("past the last millisecond: %v", err)
	}
}

func FuzzParseCursor(f *testing.F) {
	f.Add((todo.Cursor{Created: 1, ID: "6f1c9d52-5b8e-4a39-9a39-1f9f8f2f1c11"}).String())
	f.Add("")
	f.Add("MS4x")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := todo.ParseCursor(s)
		if err != nil {
			if !errors.Is(err, todo.ErrCursor) {
				t.Errorf("%q: %v", s, err)
			}
			return
		}
		if again, err := todo.ParseCursor(c.String()); err != nil || again != c || !todo.ValidID(c.ID) {
			t.Errorf("%q: %+v, again %+v, %v", s, c, again, err)
		}
	})
}
