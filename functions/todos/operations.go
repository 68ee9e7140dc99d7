package todos

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"tideline/shared/todo"
)

type todoOutput struct {
	Status int
	ETag   string `header:"ETag" doc:"The version, quoted."`
	Body   todo.Todo
}

func output(t todo.Todo, status int) *todoOutput {
	return &todoOutput{Status: status, ETag: etag(t), Body: t}
}

type listInput struct {
	Done   string `query:"done" enum:"true,false" doc:"Only todos that are done, or that are not."`
	Limit  int    `query:"limit" minimum:"1" maximum:"500" default:"50"`
	Cursor string `query:"cursor" maxLength:"200" doc:"The previous answer's next."`
}

type todoList struct {
	Items []todo.Todo `json:"items" nullable:"false"`
	Next  string      `json:"next,omitempty" doc:"Where the list goes on. Absent at its end."`
}

type listOutput struct{ Body todoList }

func (h *handler) list(ctx context.Context, in *listInput) (*listOutput, error) {
	u, err := user(ctx)
	if err != nil {
		return nil, err
	}
	q := todo.Query{Limit: in.Limit}
	if in.Done != "" {
		done := in.Done == "true"
		q.Done = &done
	}
	if in.Cursor != "" {
		c, err := todo.ParseCursor(in.Cursor)
		if err != nil {
			return nil, problem(err, todo.Todo{})
		}
		q.After = &c
	}
	ctx, cancel := context.WithTimeout(ctx, RequestBudget)
	defer cancel()
	p, err := h.book.List(ctx, u, q)
	if err != nil {
		return nil, problem(err, todo.Todo{})
	}
	p = fit(p, pageBytes)
	out := &listOutput{}
	out.Body.Items = append([]todo.Todo{}, p.Items...)
	if p.Next != nil {
		out.Body.Next = p.Next.String()
	}
	return out, nil
}

// fit ends the page before its items take more than n bytes. One item always fits.
func fit(p todo.Page, n int) todo.Page {
	for i, t := range p.Items {
		if n -= size(t); n < 0 && i > 0 {
			last := todo.CursorOf(p.Items[i-1])
			return todo.Page{Items: p.Items[:i], Next: &last}
		}
	}
	return p
}

// todoContent is a whole todo as a caller sends it. The limits of title and note hold after trimming, so they are the domain's to check.
type todoContent struct {
	Title string     `json:"title" minLength:"1" doc:"1 to 500 characters, after trimming."`
	Note  string     `json:"note,omitempty" doc:"Up to 4,000 characters, after trimming."`
	Done  bool       `json:"done,omitempty"`
	DueAt *time.Time `json:"dueAt,omitempty"`
}

func (c todoContent) domain() todo.Content {
	return todo.Content{Title: c.Title, Note: c.Note, Done: c.Done, DueAt: c.DueAt}
}

type createInput struct {
	Key  string `header:"Idempotency-Key" maxLength:"128" pattern:"^[!-~]*$" doc:"Any visible ASCII; a UUID will do."`
	Body todoContent
}

type createOutput struct {
	Status   int
	ETag     string `header:"ETag"`
	Location string `header:"Location"`
	Body     todo.Todo
}

func (h *handler) create(ctx context.Context, in *createInput) (*createOutput, error) {
	u, err := user(ctx)
	if err != nil {
		return nil, err
	}
	work, cancel := context.WithTimeout(ctx, RequestBudget)
	defer cancel()
	o, err := h.book.Create(work, u, in.Body.domain(), in.Key, digest(in.Body.domain()))
	if err != nil {
		return nil, problem(err, todo.Todo{})
	}
	h.announce(ctx, u, o.Event)
	return &createOutput{Status: http.StatusCreated, ETag: etag(o.Todo), Location: "/api/todos/" + o.Todo.ID, Body: o.Todo}, nil
}

// digest tells requests under one idempotency key apart by what they ask for, not by how it is spelled.
func digest(c todo.Content) string {
	if clean, err := c.Clean(); err == nil {
		c = clean
	}
	b, _ := json.Marshal(c) // a time out of range was refused by huma's format check or is refused by Clean
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

type getInput struct {
	ID          string `path:"id" maxLength:"64" example:"01a1f0b0-7b1a-7c3e-9d2b-0d8a54a3b1c2"`
	IfNoneMatch string `header:"If-None-Match" maxLength:"1000"`
}

func (h *handler) get(ctx context.Context, in *getInput) (*todoOutput, error) {
	u, err := user(ctx)
	if err != nil {
		return nil, err
	}
	tags, err := parseTags(in.IfNoneMatch, "If-None-Match")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, RequestBudget)
	defer cancel()
	t, err := h.book.Get(ctx, u, in.ID)
	if err != nil {
		return nil, problem(err, todo.Todo{})
	}
	if tags.holds(t.Version) {
		return nil, huma.ErrorWithHeaders(huma.Status304NotModified(), http.Header{"ETag": {etag(t)}})
	}
	return output(t, http.StatusOK), nil
}

type putInput struct {
	ID          string `path:"id" maxLength:"64" example:"01a1f0b0-7b1a-7c3e-9d2b-0d8a54a3b1c2"`
	IfMatch     string `header:"If-Match" maxLength:"1000" doc:"Write only over this version."`
	IfNoneMatch string `header:"If-None-Match" enum:"*" doc:"Write only if there is no such todo."`
	Body        todoContent
}

func (h *handler) put(ctx context.Context, in *putInput) (*todoOutput, error) {
	m, err := match(in.IfMatch, in.IfNoneMatch)
	if err != nil {
		return nil, err
	}
	return h.change(ctx, func(ctx context.Context, u string) (todo.Outcome, error) {
		return h.book.Put(ctx, u, in.ID, in.Body.domain(), m)
	})
}

type patchInput struct {
	ID      string `path:"id" maxLength:"64" example:"01a1f0b0-7b1a-7c3e-9d2b-0d8a54a3b1c2"`
	IfMatch string `header:"If-Match" maxLength:"1000" doc:"Write only over this version."`
	Body    todoPatch
}

type todoPatch struct {
	Title *string             `json:"title,omitempty" minLength:"1" doc:"1 to 500 characters, after trimming."`
	Note  optional[string]    `json:"note,omitempty" doc:"Up to 4,000 characters, after trimming. null removes it."`
	Done  *bool               `json:"done,omitempty"`
	DueAt optional[time.Time] `json:"dueAt,omitempty" doc:"null removes it."`
}

func (in *patchInput) edit(c todo.Content) todo.Content {
	b := in.Body
	if b.Title != nil {
		c.Title = *b.Title
	}
	if b.Done != nil {
		c.Done = *b.Done
	}
	if b.Note.set {
		c.Note = ""
		if b.Note.value != nil {
			c.Note = *b.Note.value
		}
	}
	if b.DueAt.set {
		c.DueAt = b.DueAt.value
	}
	return c
}

func (h *handler) patch(ctx context.Context, in *patchInput) (*todoOutput, error) {
	m, err := match(in.IfMatch, "")
	if err != nil {
		return nil, err
	}
	return h.change(ctx, func(ctx context.Context, u string) (todo.Outcome, error) {
		return h.book.Patch(ctx, u, in.ID, m, in.edit)
	})
}

type deleteInput struct {
	ID      string `path:"id" maxLength:"64" example:"01a1f0b0-7b1a-7c3e-9d2b-0d8a54a3b1c2"`
	IfMatch string `header:"If-Match" maxLength:"1000" doc:"Delete only this version."`
}

func (h *handler) delete(ctx context.Context, in *deleteInput) (*struct{}, error) {
	m, err := match(in.IfMatch, "")
	if err != nil {
		return nil, err
	}
	_, err = h.change(ctx, func(ctx context.Context, u string) (todo.Outcome, error) {
		return h.book.Delete(ctx, u, in.ID, m)
	})
	return nil, err
}

// change does what every write of one todo has in common.
func (h *handler) change(ctx context.Context, do func(context.Context, string) (todo.Outcome, error)) (*todoOutput, error) {
	u, err := user(ctx)
	if err != nil {
		return nil, err
	}
	work, cancel := context.WithTimeout(ctx, RequestBudget)
	defer cancel()
	o, err := do(work, u)
	if err != nil {
		return nil, problem(err, o.Todo)
	}
	h.announce(ctx, u, o.Event)
	status := http.StatusOK
	if o.Created {
		status = http.StatusCreated
	}
	return output(o.Todo, status), nil
}

type cleared struct {
	Cleared int  `json:"cleared" doc:"Todos deleted by this request."`
	More    bool `json:"more" doc:"Time ran out before all were deleted."`
}

type clearOutput struct{ Body cleared }

// clear deletes in the order of the list. Each deletion is a write and an event of its own; the first few are announced at once,
// the rest by the outbox.
func (h *handler) clear(ctx context.Context, _ *struct{}) (*clearOutput, error) {
	u, err := user(ctx)
	if err != nil {
		return nil, err
	}
	work, cancel := context.WithTimeout(ctx, RequestBudget)
	defer cancel()
	out := &clearOutput{}
	until := h.now().Add(ClearBudget)
	deleted, more, err := h.book.ClearCompleted(work, u, func() bool { return h.now().Before(until) })
	h.announceAll(ctx, u, deleted)
	if err != nil && len(deleted) == 0 {
		return nil, problem(err, todo.Todo{})
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		h.log.ErrorContext(ctx, "clearing stopped early", "cleared", len(deleted), "error", err)
	}
	out.Body.Cleared, out.Body.More = len(deleted), more || err != nil
	return out, nil
}
