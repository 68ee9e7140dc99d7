package tasks

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"tideline/functions/api"
	"tideline/shared/metric"
	"tideline/shared/todo"
	"tideline/shared/trace"
)

type newTask struct {
	Kind   todo.TaskKind `json:"kind" enum:"import,export"`
	Format todo.Format   `json:"format" enum:"json,csv"`
	Data   *string       `json:"data,omitempty" doc:"The file to import."`
	Upload string        `json:"upload,omitempty" format:"uuid" doc:"The id of an upload to import."`
}

type startInput struct{ Body newTask }

// taskView is a task with what is made anew for each answer.
type taskView struct {
	todo.Task
	Download *Link `json:"download,omitempty"`
}

type startOutput struct {
	Location string `header:"Location"`
	Body     taskView
}

func invalid(location, message string) error {
	p := api.Problem(http.StatusUnprocessableEntity, api.CodeValidation, "validation failed")
	p.Errors = []*huma.ErrorDetail{{Location: location, Message: message}}
	return p
}

// check refuses what the schema can't.
func (in *startInput) check() error {
	b := &in.Body
	switch {
	case b.Kind == todo.Export && (b.Data != nil || b.Upload != ""):
		return invalid("body", "an export takes neither data nor upload")
	case b.Kind == todo.Import && (b.Data == nil) == (b.Upload == ""):
		return invalid("body", "an import takes either data or upload")
	case b.Upload != "" && !todo.ValidID(b.Upload):
		return invalid("body.upload", "must be the id of an upload")
	case b.Data != nil && len(*b.Data) > InlineBytes:
		return api.Problem(http.StatusRequestEntityTooLarge, CodeTooLarge,
			fmt.Sprintf("The data has %d bytes, at most %d are taken here; use an upload.", len(*b.Data), InlineBytes))
	}
	return nil
}

func (h *handler) start(ctx context.Context, in *startInput) (*startOutput, error) {
	u, err := user(ctx)
	if err != nil {
		return nil, err
	}
	if err := in.check(); err != nil {
		return nil, err
	}
	work, cancel := context.WithTimeout(ctx, RequestBudget)
	defer cancel()
	if err := h.room(work, u); err != nil {
		return nil, problem(err)
	}
	id, err := uuid.NewV7()
	if err != nil {
		return nil, problem(fmt.Errorf("new task id: %w", err))
	}
	now := h.now().UTC().Truncate(time.Millisecond)
	t := todo.TaskRecord{Task: todo.Task{ID: id.String(), Kind: in.Body.Kind, Format: in.Body.Format, State: todo.Queued, Version: 1,
		CreatedAt: now, UpdatedAt: now}, User: u, Expires: now.Add(todo.TaskTTL), Trace: trace.Parent(ctx)}
	switch {
	case in.Body.Kind == todo.Export:
		t.File = exportKey(u, t.ID, t.Format)
	case in.Body.Upload != "":
		t.File = importKey(u, in.Body.Upload)
	default:
		t.File = importKey(u, t.ID)
		data := *in.Body.Data
		if err := h.files.Put(work, t.File, contentType(t.Format), int64(len(data)), strings.NewReader(data)); err != nil {
			return nil, problem(fmt.Errorf("keep data: %w", err))
		}
	}
	if err := h.store.WriteTask(work, u, todo.TaskWrite{Next: t}); err != nil {
		return nil, problem(fmt.Errorf("write task %s: %w", t.ID, err))
	}
	h.count(metric.TasksCreated, "kind", string(t.Kind))
	h.tell(ctx, t, h.announce.task)
	return &startOutput{Location: "/api/tasks/" + t.ID, Body: taskView{Task: t.Task}}, nil
}

// room refuses a task past the limits. Concurrent requests may overshoot them.
func (h *handler) room(ctx context.Context, u string) error {
	all, err := h.store.ListTasks(ctx, u, KeptPerUser)
	if err != nil {
		return fmt.Errorf("list tasks: %w", err)
	}
	active := 0
	for _, t := range all {
		if !t.State.Final() {
			active++
		}
	}
	switch {
	case active >= ActivePerUser:
		return api.Problem(http.StatusTooManyRequests, CodeTooManyTasks, fmt.Sprintf("%d tasks are unfinished; wait for one of them, or cancel it.", active))
	case len(all) >= KeptPerUser:
		return api.Problem(http.StatusTooManyRequests, CodeTooManyTasks, fmt.Sprintf("%d tasks are kept, each for 7 days; there is no room for another.", len(all)))
	}
	return nil
}

// tell publishes within PublishBudget although the caller may be gone. The worker says what didn't get through.
func (h *handler) tell(ctx context.Context, t todo.TaskRecord, say func(context.Context, todo.TaskRecord) error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), PublishBudget)
	defer cancel()
	if err := say(ctx, t); err != nil {
		h.log.WarnContext(ctx, "publishing is left to the worker", "task", t.ID, "error", err)
	}
}

type taskList struct {
	Items []todo.Task `json:"items" nullable:"false"`
}

type listOutput struct{ Body taskList }

func (h *handler) list(ctx context.Context, _ *struct{}) (*listOutput, error) {
	u, err := user(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, RequestBudget)
	defer cancel()
	all, err := h.store.ListTasks(ctx, u, KeptPerUser)
	if err != nil {
		return nil, problem(fmt.Errorf("list tasks: %w", err))
	}
	out := &listOutput{}
	out.Body.Items = make([]todo.Task, len(all))
	for i, t := range all {
		t.Errors = nil // of one task only: together they can be larger than an answer may be
		out.Body.Items[i] = t.Task
	}
	return out, nil
}

type oneInput struct {
	ID string `path:"id" maxLength:"64" example:"01a1f0b0-7b1a-7c3e-9d2b-0d8a54a3b1c2"`
}

type taskOutput struct{ Body taskView }

func (h *handler) read(ctx context.Context, u, id string) (todo.TaskRecord, error) {
	if !todo.ValidID(id) {
		return todo.TaskRecord{}, todo.ErrNotFound
	}
	t, err := h.store.ReadTask(ctx, u, id)
	if err != nil {
		return t, fmt.Errorf("read task %s: %w", id, err)
	}
	if !t.Expires.After(h.now()) {
		return t, todo.ErrNotFound
	}
	return t, nil
}

func (h *handler) get(ctx context.Context, in *oneInput) (*taskOutput, error) {
	u, err := user(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, RequestBudget)
	defer cancel()
	t, err := h.read(ctx, u, in.ID)
	if err != nil {
		return nil, problem(err)
	}
	out := &taskOutput{taskView{Task: t.Task}}
	if t.Kind == todo.Export && t.State == todo.Completed {
		name := "todos-" + t.CreatedAt.Format("2006-01-02") + "." + string(t.Format)
		link, err := h.files.DownloadLink(ctx, t.File, contentType(t.Format), name, LinkTTL)
		if err != nil {
			return nil, problem(fmt.Errorf("download link of task %s: %w", t.ID, err))
		}
		out.Body.Download = &link
	}
	return out, nil
}

// cancelAttempts bounds the races with a worker's steps that a cancellation may lose.
const cancelAttempts = 20

func (h *handler) cancel(ctx context.Context, in *oneInput) (*taskOutput, error) {
	u, err := user(ctx)
	if err != nil {
		return nil, err
	}
	work, cancel := context.WithTimeout(ctx, RequestBudget)
	defer cancel()
	for range cancelAttempts {
		t, err := h.read(work, u, in.ID)
		if err != nil {
			return nil, problem(err)
		}
		if t.State.Final() {
			return nil, api.Problem(http.StatusConflict, CodeFinished, "The task is "+string(t.State)+" already.")
		}
		next := step(t, h.now())
		next.State, next.Error = todo.Cancelled, &todo.TaskError{Code: "cancelled", Detail: "Cancelled by its owner."}
		err = h.store.WriteTask(work, u, todo.TaskWrite{Before: t.Version, Next: next})
		if errors.Is(err, todo.ErrConflict) {
			continue // the worker made a step
		}
		if err != nil {
			return nil, problem(fmt.Errorf("cancel task %s: %w", t.ID, err))
		}
		h.count(metric.TasksFailed, "kind", string(t.Kind))
		h.tell(ctx, next, h.announce.end)
		return &taskOutput{taskView{Task: next.Task}}, nil
	}
	return nil, problem(todo.ErrConflict)
}

// step is the record after t, to be changed and written over it.
func step(t todo.TaskRecord, now time.Time) todo.TaskRecord {
	t.Version++
	t.UpdatedAt = now.UTC().Truncate(time.Millisecond)
	t.Expires = t.UpdatedAt.Add(todo.TaskTTL)
	return t
}

type newUpload struct {
	Format todo.Format `json:"format" enum:"json,csv"`
	Bytes  int64       `json:"bytes" minimum:"1" maximum:"20971520" doc:"The size of the file."`
}

type uploadInput struct{ Body newUpload }

type upload struct {
	ID   string `json:"id" doc:"For the import that reads it."`
	Link Link   `json:"link"`
}

type uploadOutput struct{ Body upload }

func (h *handler) upload(ctx context.Context, in *uploadInput) (*uploadOutput, error) {
	u, err := user(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, RequestBudget)
	defer cancel()
	id, err := uuid.NewV7()
	if err != nil {
		return nil, problem(fmt.Errorf("new upload id: %w", err))
	}
	out := &uploadOutput{}
	out.Body.ID = id.String()
	if out.Body.Link, err = h.files.UploadLink(ctx, importKey(u, id.String()), contentType(in.Body.Format), in.Body.Bytes, LinkTTL); err != nil {
		return nil, problem(fmt.Errorf("upload link: %w", err))
	}
	return out, nil
}
