package tasks

import (
	"bytes"
	"cmp"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"tideline/functions/api"
	"tideline/shared/todo"
)

// row is one row or element of an imported file: a todo's content, or what is wrong with it.
type row struct {
	line    int
	content todo.Content
	problem string
}

// fileError says that a file can't be imported at all. Its text is for the owner.
type fileError struct{ code, detail string }

func (e *fileError) Error() string { return e.code + ": " + e.detail }

// Codes of a task that failed because of its file.
const (
	codeBadFile  = "bad-file"
	codeTooMany  = "too-many-rows"
	codeNoFile   = "no-file"
	codeListFull = "list-full"
)

// ignored are the columns or fields of an export that an import does not take over.
var ignored = []string{"id", "version", "createdAt", "updatedAt"}

// parse reads a whole file, so that the number of rows is known before the first is applied, and the same file gives the same rows each
// time. A file that can't be read as such gives a *fileError.
func parse(f todo.Format, raw []byte) ([]row, error) {
	raw = bytes.TrimPrefix(raw, []byte("\xef\xbb\xbf"))
	if !utf8.Valid(raw) {
		return nil, &fileError{codeBadFile, "The file is not valid UTF-8."}
	}
	if f == todo.CSV {
		return parseCSV(raw)
	}
	return parseJSON(raw)
}

func parseJSON(raw []byte) ([]row, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return nil, &fileError{codeBadFile, "The file is not a JSON array of todos."}
	}
	var rows []row
	line, counted := 1, 0
	for d.More() {
		var element json.RawMessage
		if err := d.Decode(&element); err != nil {
			return nil, &fileError{codeBadFile, fmt.Sprintf("Element %d is not JSON: %v.", len(rows)+1, err)}
		}
		begin := int(d.InputOffset()) - len(element)
		line += bytes.Count(raw[counted:begin], []byte("\n"))
		counted = begin
		if len(rows) == Rows {
			return nil, tooMany()
		}
		rows = append(rows, jsonRow(line, element))
	}
	if _, err := d.Token(); err != nil {
		return nil, &fileError{codeBadFile, "The array has no end."}
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, &fileError{codeBadFile, "Something follows the array."}
	}
	return rows, nil
}

func tooMany() error {
	return &fileError{codeTooMany, fmt.Sprintf("The file has more than %d rows.", Rows)}
}

func jsonRow(line int, element json.RawMessage) row {
	var e struct {
		Title     *string         `json:"title"`
		Note      *string         `json:"note"`
		Done      bool            `json:"done"`
		DueAt     *time.Time      `json:"dueAt"`
		ID        json.RawMessage `json:"id"`
		Version   json.RawMessage `json:"version"`
		CreatedAt json.RawMessage `json:"createdAt"`
		UpdatedAt json.RawMessage `json:"updatedAt"`
	}
	if err := api.StrictJSON(element); err != nil {
		return row{line: line, problem: err.Error()}
	}
	d := json.NewDecoder(bytes.NewReader(element))
	d.DisallowUnknownFields()
	if err := d.Decode(&e); err != nil {
		return row{line: line, problem: explain(err)}
	}
	c := todo.Content{Done: e.Done, DueAt: e.DueAt}
	if e.Title != nil {
		c.Title = *e.Title
	}
	if e.Note != nil {
		c.Note = *e.Note
	}
	return cleaned(line, c)
}

// explain says what is wrong in words of the file, not of Go.
func explain(err error) string {
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &kind) && kind.Field != "":
		return kind.Field + ": must not be a " + kind.Value
	case errors.As(err, &kind):
		return "must be an object"
	case strings.HasPrefix(err.Error(), "json: unknown field "):
		return "unknown field " + strings.TrimPrefix(err.Error(), "json: unknown field ")
	}
	return "dueAt: must be a time like 2030-12-31T18:00:00Z"
}

func cleaned(line int, c todo.Content) row {
	c, err := c.Clean()
	if err != nil {
		return row{line: line, problem: strings.ReplaceAll(err.Error(), "\n", "; ")}
	}
	return row{line: line, content: c}
}

func parseCSV(raw []byte) ([]row, error) {
	r := csv.NewReader(bytes.NewReader(raw))
	header, err := r.Read()
	if err != nil {
		return nil, &fileError{codeBadFile, "The file has no header line; its columns are title, note, done, dueAt."}
	}
	for i, name := range header {
		header[i] = strings.TrimSpace(name)
		known := slices.Contains([]string{"title", "note", "done", "dueAt"}, header[i]) || slices.Contains(ignored, header[i])
		if !known || slices.Contains(header[:i], header[i]) {
			return nil, &fileError{codeBadFile, fmt.Sprintf("The header has the column %.40q; known are title, note, done, dueAt, each once.", name)}
		}
	}
	if !slices.Contains(header, "title") {
		return nil, &fileError{codeBadFile, "The header has no column title."}
	}
	var rows []row
	for {
		record, err := r.Read()
		if errors.Is(err, io.EOF) {
			return rows, nil
		}
		if len(rows) == Rows {
			return nil, tooMany()
		}
		var bad *csv.ParseError
		if errors.As(err, &bad) {
			rows = append(rows, row{line: bad.StartLine, problem: bad.Err.Error()})
			continue
		}
		if err != nil {
			return nil, &fileError{codeBadFile, err.Error()}
		}
		line, _ := r.FieldPos(0)
		rows = append(rows, csvRow(line, header, record))
	}
}

func csvRow(line int, header, record []string) row {
	var c todo.Content
	for i, name := range header {
		v := record[i]
		switch name {
		case "title":
			c.Title = v
		case "note":
			c.Note = v
		case "done":
			done, err := strconv.ParseBool(cmp.Or(strings.ToLower(strings.TrimSpace(v)), "false"))
			if err != nil {
				return row{line: line, problem: fmt.Sprintf("done: %.40q is neither true nor false", v)}
			}
			c.Done = done
		case "dueAt":
			if v = strings.TrimSpace(v); v == "" {
				continue
			}
			at, err := time.Parse(time.RFC3339, v)
			if err != nil {
				return row{line: line, problem: "dueAt: must be a time like 2030-12-31T18:00:00Z"}
			}
			c.DueAt = &at
		}
	}
	return cleaned(line, c)
}
