package tasks

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"tideline/shared/todo"
)

// exportPage is how many todos are read at a time; each page is a step.
const exportPage = 500

// doExport writes the list to a file, newest first. It begins anew when it is interrupted: the file appears only whole, under the task's own name.
func (j *job) doExport(ctx context.Context) error {
	f, err := os.CreateTemp("", "tideline-export-")
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	out := newWriter(j.t.Format, f)
	q := todo.Query{Limit: exportPage}
	n := 0
	for {
		page, err := j.store.List(ctx, j.t.User, q)
		if err != nil {
			return fmt.Errorf("export: list todos: %w", err)
		}
		for _, t := range page.Items {
			if err := out.add(t); err != nil {
				return fmt.Errorf("export: %w", err)
			}
		}
		n += len(page.Items)
		next := step(j.t, j.now())
		next.Done, next.Total = n, max(n, j.t.Total)
		if page.Next == nil {
			next.Total = n
		}
		if err := j.checkpoint(ctx, next, nil); err != nil {
			return err
		}
		if page.Next == nil {
			break
		}
		q.After = page.Next
	}
	if err := out.end(); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	size, err := f.Seek(0, io.SeekCurrent)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	if err := j.files.Put(ctx, j.t.File, contentType(j.t.Format), size, f); err != nil {
		return fmt.Errorf("export: keep file: %w", err)
	}
	return j.complete(ctx)
}

// writer writes todos in a format that parse reads again.
type writer struct {
	buf  *bufio.Writer
	csv  *csv.Writer // nil: JSON
	rows int
}

func newWriter(f todo.Format, to io.Writer) *writer {
	w := &writer{buf: bufio.NewWriter(to)}
	if f == todo.CSV {
		w.csv = csv.NewWriter(w.buf)
	}
	return w
}

func (w *writer) add(t todo.Todo) error {
	w.rows++
	if w.csv != nil {
		if w.rows == 1 {
			if err := w.header(); err != nil {
				return err
			}
		}
		due := ""
		if t.DueAt != nil {
			due = t.DueAt.Format(time.RFC3339Nano)
		}
		return w.csv.Write([]string{t.ID, t.Title, t.Note, strconv.FormatBool(t.Done), due, t.CreatedAt.Format(time.RFC3339Nano), t.UpdatedAt.Format(time.RFC3339Nano)})
	}
	b, err := json.Marshal(t)
	if err != nil {
		return err
	}
	between := ",\n"
	if w.rows == 1 {
		between = "[\n"
	}
	_, err = w.buf.WriteString(between + string(b))
	return err
}

func (w *writer) header() error {
	return w.csv.Write([]string{"id", "title", "note", "done", "dueAt", "createdAt", "updatedAt"})
}

func (w *writer) end() error {
	if w.csv != nil {
		var err error
		if w.rows == 0 {
			err = w.header()
		}
		w.csv.Flush()
		return errors.Join(err, w.csv.Error(), w.buf.Flush())
	}
	last := "\n]\n"
	if w.rows == 0 {
		last = "[]\n"
	}
	if _, err := w.buf.WriteString(last); err != nil {
		return err
	}
	return w.buf.Flush()
}
