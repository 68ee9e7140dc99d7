package tasks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/google/uuid"

	"tideline/shared/todo"
)

// doImport applies the file's rows in steps, from where an earlier worker stopped.
func (j *job) doImport(ctx context.Context) error {
	raw, err := j.read(ctx)
	if err != nil {
		return err
	}
	rows, err := parse(j.t.Format, raw)
	if err != nil {
		return err
	}
	for j.t.Done < len(rows) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := j.importStep(ctx, rows); err != nil {
			return err
		}
	}
	return j.complete(ctx)
}

func (j *job) read(ctx context.Context) ([]byte, error) {
	f, err := j.files.Get(ctx, j.t.File)
	if errors.Is(err, ErrNoFile) {
		return nil, &fileError{codeNoFile, "The file was not uploaded, or is gone."}
	}
	if err != nil {
		return nil, fmt.Errorf("open file of task %s: %w", j.t.ID, err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, UploadBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read file of task %s: %w", j.t.ID, err)
	}
	if len(raw) > UploadBytes {
		return nil, &fileError{codeBadFile, fmt.Sprintf("The file has more than %d bytes.", UploadBytes)}
	}
	return raw, nil
}

// importStep applies the next rows, as many as fit into one step. When the user's list has no room for all of them it takes fewer, down to one.
func (j *job) importStep(ctx context.Context, rows []row) error {
	for most := todo.TaskRows; ; most /= 2 {
		next, todos := j.take(rows, most)
		err := j.checkpoint(ctx, next, todos)
		if !errors.Is(err, todo.ErrFull) {
			return err
		}
		if len(todos) <= 1 {
			return &fileError{codeListFull, fmt.Sprintf("The list has %d todos and no room for more; %d of the file's rows were imported.", todo.PerUser, j.t.Created)}
		}
	}
}

// take makes the record after a step that creates at most so many todos.
func (j *job) take(rows []row, most int) (todo.TaskRecord, []todo.Todo) {
	next := step(j.t, j.now())
	next.Total = len(rows)
	next.Errors = append([]todo.RowError(nil), j.t.Errors...)
	var todos []todo.Todo
	for next.Done < len(rows) && len(todos) < most {
		r := rows[next.Done]
		next.Done++
		if r.problem != "" {
			next.Skipped++
			if len(next.Errors) < RowErrors {
				next.Errors = append(next.Errors, todo.RowError{Row: next.Done, Line: r.line, Problem: clip(r.problem, 200)})
			}
			continue
		}
		next.Created++
		todos = append(todos, j.todo(next.Done, r.content))
	}
	return next, todos
}

// todo is the nth row's. Its id follows from the task and the row; rows keep the file's order, the first being the newest.
func (j *job) todo(n int, c todo.Content) todo.Todo {
	id := uuid.NewSHA1(uuid.MustParse(j.t.ID), []byte("row:"+strconv.Itoa(n)))
	return todo.Todo{ID: id.String(), Title: c.Title, Note: c.Note, Done: c.Done, DueAt: c.DueAt, Version: 1,
		CreatedAt: j.t.CreatedAt.Add(-time.Duration(n) * time.Millisecond), UpdatedAt: j.t.CreatedAt}
}

// clip shortens s to at most n characters.
func clip(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "…"
}
