package storetest

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"tideline/shared/todo"
)

// TaskStore is both stores in one.
type TaskStore interface {
	todo.Store
	todo.TaskStore
}

// RunTasks runs the suite of todo.TaskStore.
func RunTasks(t *testing.T, s TaskStore, clock *Clock) {
	x := taskSuite{s, clock}
	t.Run("a task is stored whole and only over the version that was read", x.steps)
	t.Run("tasks are listed newest first, each user's own", x.list)
	t.Run("rows are created with the step or not at all", x.rows)
	t.Run("rows past the limit of a step are refused", x.tooManyRows)
	t.Run("a list takes 10,000 todos and not one more", x.full)
}

type taskSuite struct {
	s     TaskStore
	clock *Clock
}

func (x taskSuite) task(t *testing.T) todo.TaskRecord {
	t.Helper()
	id, err := uuid.NewV7()
	check(t, err)
	now := x.clock.Now()
	return todo.TaskRecord{Task: todo.Task{ID: id.String(), Kind: todo.Import, Format: todo.CSV, State: todo.Queued, Version: 1, CreatedAt: now, UpdatedAt: now},
		File: "imports/x", Expires: now.Add(todo.TaskTTL)}
}

func (x taskSuite) row(n int) todo.Todo {
	now := x.clock.Now()
	return todo.Todo{ID: uuid.NewString(), Title: fmt.Sprint("row ", n), Version: 1, CreatedAt: now.Add(time.Duration(-n) * time.Millisecond), UpdatedAt: now}
}

func (x taskSuite) steps(t *testing.T) {
	u, r := user(), x.task(t)
	_, err := x.s.ReadTask(t.Context(), u, r.ID)
	want(t, err, todo.ErrNotFound)
	next := r
	next.Version = 2
	want(t, x.s.WriteTask(t.Context(), u, todo.TaskWrite{Before: 1, Next: next}), todo.ErrConflict)
	check(t, x.s.WriteTask(t.Context(), u, todo.TaskWrite{Next: r}))
	want(t, x.s.WriteTask(t.Context(), u, todo.TaskWrite{Next: r}), todo.ErrConflict)
	next.Owner, next.LeaseUntil, next.Errors, next.Error = "me", x.clock.Now(), []todo.RowError{{Row: 1, Line: 2, Problem: "p"}}, &todo.TaskError{Code: "c", Detail: "d"}
	check(t, x.s.WriteTask(t.Context(), u, todo.TaskWrite{Before: 1, Next: next}))
	want(t, x.s.WriteTask(t.Context(), u, todo.TaskWrite{Before: 1, Next: next}), todo.ErrConflict)
	got, err := x.s.ReadTask(t.Context(), u, r.ID)
	check(t, err)
	next.User = u
	if a, b := fmt.Sprintf("%+v %+v", got, *got.Error), fmt.Sprintf("%+v %+v", next, *next.Error); len(a) != len(b) || got.File != next.File || got.User != u || len(got.Errors) != 1 {
		t.Errorf("read %s, want %s", a, b)
	}
}

func (x taskSuite) list(t *testing.T) {
	u := user()
	var ids []string
	for range 5 {
		r := x.task(t)
		check(t, x.s.WriteTask(t.Context(), u, todo.TaskWrite{Next: r}))
		ids = append([]string{r.ID}, ids...)
	}
	check(t, x.s.WriteTask(t.Context(), user(), todo.TaskWrite{Next: x.task(t)}))
	for _, limit := range []int{1, 4, 5, 50} {
		got, err := x.s.ListTasks(t.Context(), u, limit)
		check(t, err)
		var gotIDs []string
		for _, r := range got {
			gotIDs = append(gotIDs, r.ID)
		}
		if fmt.Sprint(gotIDs) != fmt.Sprint(ids[:min(limit, 5)]) {
			t.Errorf("limit %d: %v, want %v", limit, gotIDs, ids[:min(limit, 5)])
		}
	}
}

func (x taskSuite) rows(t *testing.T) {
	u, r := user(), x.task(t)
	check(t, x.s.WriteTask(t.Context(), u, todo.TaskWrite{Next: r}))
	var rows []todo.Todo
	for n := range todo.TaskRows {
		rows = append(rows, x.row(n))
	}
	r.Version = 2
	check(t, x.s.WriteTask(t.Context(), u, todo.TaskWrite{Before: 1, Next: r, Rows: rows}))
	late := r
	late.Version = 2
	want(t, x.s.WriteTask(t.Context(), u, todo.TaskWrite{Before: 1, Next: late, Rows: []todo.Todo{x.row(1000)}}), todo.ErrConflict)
	p, err := x.s.List(t.Context(), u, todo.Query{Limit: 500})
	check(t, err)
	if len(p.Items) != todo.TaskRows || p.Items[0].Title != "row 0" || p.Items[todo.TaskRows-1].Title != fmt.Sprint("row ", todo.TaskRows-1) {
		t.Errorf("%d todos after a step of %d rows and one that was refused", len(p.Items), todo.TaskRows)
	}
	// A row whose id is there already makes the whole step fail.
	r.Version = 3
	want(t, x.s.WriteTask(t.Context(), u, todo.TaskWrite{Before: 2, Next: r, Rows: []todo.Todo{x.row(2000), rows[0]}}), todo.ErrConflict)
	if p, err = x.s.List(t.Context(), u, todo.Query{Limit: 500}); err != nil || len(p.Items) != todo.TaskRows {
		t.Errorf("%d todos, %v", len(p.Items), err)
	}
}

func (x taskSuite) tooManyRows(t *testing.T) {
	u, r := user(), x.task(t)
	rows := make([]todo.Todo, todo.TaskRows+1)
	for n := range rows {
		rows[n] = x.row(n)
	}
	if err := x.s.WriteTask(t.Context(), u, todo.TaskWrite{Next: r, Rows: rows}); err == nil {
		t.Error("accepted")
	}
}

func (x taskSuite) full(t *testing.T) {
	u, r := user(), x.task(t)
	check(t, x.s.WriteTask(t.Context(), u, todo.TaskWrite{Next: r}))
	step := func(n int) error {
		var rows []todo.Todo
		for i := range n {
			rows = append(rows, x.row(i))
		}
		next := r
		next.Version++
		err := x.s.WriteTask(t.Context(), u, todo.TaskWrite{Before: r.Version, Next: next, Rows: rows})
		if err == nil {
			r = next
		}
		return err
	}
	for left := todo.PerUser - 1; left > 0; left -= todo.TaskRows {
		check(t, step(min(left, todo.TaskRows)))
	}
	want(t, step(2), todo.ErrFull)
	b := todo.NewBook(x.s, x.clock.Now)
	o, err := b.Create(t.Context(), u, todo.Content{Title: "the last"}, "", "")
	check(t, err)
	_, err = b.Create(t.Context(), u, todo.Content{Title: "one too many"}, "", "")
	want(t, err, todo.ErrFull)
	want(t, step(1), todo.ErrFull)
	_, err = b.Patch(t.Context(), u, o.Todo.ID, todo.Match{}, func(c todo.Content) todo.Content { c.Done = true; return c })
	check(t, err) // changing needs no room
	_, err = b.Delete(t.Context(), u, o.Todo.ID, todo.Match{})
	check(t, err)
	check(t, step(1))
}
