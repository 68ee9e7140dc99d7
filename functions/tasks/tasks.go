// Package tasks is background work that reports its progress: the API that starts and cancels it, and the worker that does it.
//
// A task is one item in the table of todos. Inserting it is what queues it (in AWS stream → pipe → SQS, in one process the bbolt
// store's queue), so there is no second write to lose. A worker takes a lease on it, and every step it makes is one conditional
// write of the task together with the todos that the step creates: a message delivered twice, or a worker that dies in the middle, applies
// nothing twice. The message is done with only after the task's end was announced.
package tasks

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"tideline/functions/api"
	"tideline/shared/bus"
	"tideline/shared/channel"
	"tideline/shared/todo"
	"tideline/shared/token"
	"tideline/shared/trace"
)

// Limits of the API.
const (
	// InlineBytes is the most data that a request may carry itself, after JSON decoding. It is under limit.BodyBytes.
	InlineBytes = 900 << 10
	// UploadBytes is the largest file that may be uploaded.
	UploadBytes = 20 << 20
	// Rows is the most rows of one import.
	Rows = 5000
	// ActivePerUser is how many tasks of a user may be unfinished, KeptPerUser how many there may be at all until they expire.
	ActivePerUser, KeptPerUser = 3, 100
	// LinkTTL is how long a link to upload or download is valid.
	LinkTTL = 10 * time.Minute
	// PublishBudget is how long a request waits for the bus after its write.
	PublishBudget = 250 * time.Millisecond
	// RequestBudget bounds a request's work.
	RequestBudget = 10 * time.Second
)

// Problem codes of this function alone.
const (
	CodeTooManyTasks api.Code = "too-many-tasks" // 429: wait until others have finished, or expired
	CodeFinished     api.Code = "task-finished"  // 409: a task that has ended can't be cancelled
	CodeTooLarge     api.Code = "file-too-large" // 413: more than InlineBytes
)

// Publisher is the part of bus.Bus that is used here.
type Publisher interface {
	Publish(context.Context, bus.Publication) (bus.Result, error)
}

// Options of New and Register. Store, Files, Publisher and Verifier are required.
type Options struct {
	Store          todo.TaskStore
	Files          Files
	Publisher      Publisher
	Verifier       token.Verifier
	Namespaces     *channel.Table // nil: channel.Shipped
	TrustedOrigins []string
	Log            *slog.Logger
	Meter          api.Meter
	Tracing        trace.Provider // nil opens no spans
	Now            func() time.Time
}

// New answers the API as a handler for /api/tasks and below, and, where Files serves its own links, /api/files/.
func New(o Options) (http.Handler, error) {
	if o.Store == nil || o.Files == nil || o.Publisher == nil || o.Verifier == nil {
		return nil, errors.New("tasks: store, files, publisher and verifier are required")
	}
	a, err := api.New(api.Options{Verifier: o.Verifier, TrustedOrigins: o.TrustedOrigins, Log: o.Log, Meter: o.Meter, Tracing: o.Tracing, Now: o.Now})
	if err != nil {
		return nil, err
	}
	if err := Register(a, o); err != nil {
		return nil, err
	}
	files, ok := o.Files.(http.Handler)
	if !ok {
		return a, nil
	}
	// Files are larger than the API's bodies, and their links carry their own permission.
	mux := http.NewServeMux()
	mux.Handle("/", a)
	mux.Handle("/api/files/", files)
	return mux, nil
}

// Register adds the operations to a. Without a store they only describe themselves, for the OpenAPI document.
func Register(a *api.API, o Options) error {
	ann, err := newAnnouncer(o.Publisher, o.Namespaces, o.Meter)
	if err != nil {
		return err
	}
	h := &handler{store: o.Store, files: o.Files, announce: ann, log: o.Log, meter: o.Meter, now: o.Now}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	if h.now == nil {
		h.now = time.Now
	}
	op := func(id, method, path, summary, description string, status int, errs ...int) huma.Operation {
		return huma.Operation{OperationID: id, Method: method, Path: path, Summary: summary, Description: description, Tags: []string{"tasks"},
			DefaultStatus: status, Security: api.Bearer, Errors: append(errs, 400, 401, 403, 422, 503)}
	}
	api.Register(a, op("start-task", http.MethodPost, "/api/tasks", "Start an import or an export",
		"An import takes its file as `data` (up to 900 KB) or as `upload`, the id of an upload. Progress is published on `user:#<user>`.", 202, 413, 415, 429), h.start)
	api.Register(a, op("list-tasks", http.MethodGet, "/api/tasks", "List tasks", "Newest first, up to 100; a task is kept for 7 days.", 200), h.list)
	api.Register(a, op("get-task", http.MethodGet, "/api/tasks/{id}", "Read a task", "A finished export has a link to download it, made anew each time.", 200, 404), h.get)
	api.Register(a, op("cancel-task", http.MethodDelete, "/api/tasks/{id}", "Cancel a task", "What it has done so far stays.", 200, 404, 409), h.cancel)
	api.Register(a, op("create-upload", http.MethodPost, "/api/tasks/uploads", "Get a link to upload a file",
		"Send the file, of exactly the size given, to the link with its method and headers; then start an import with the upload's id.", 201, 413, 415), h.upload)
	return nil
}

// handler has no state of its own; all requests share it.
type handler struct {
	store    todo.TaskStore
	files    Files
	announce *announcer
	log      *slog.Logger
	meter    api.Meter
	now      func() time.Time
}

func (h *handler) count(name string, labels ...string) {
	if h.meter != nil {
		h.meter.Add(name, 1, labels...)
	}
}

// user is whose tasks a request is about.
func user(ctx context.Context) (string, error) {
	u := api.Caller(ctx).User
	if u == "" || channel.Validate(channel.Personal(todo.TaskNamespace, u)) != nil || channel.Validate(channel.Personal(todo.Namespace, u)) != nil {
		return "", api.Problem(http.StatusForbidden, api.CodeForbidden, "This user's name can't be used in a channel.")
	}
	return u, nil
}

// problem turns a store's error into what the caller sees.
func problem(err error) error {
	var status huma.StatusError
	switch {
	case errors.As(err, &status):
		return err
	case errors.Is(err, todo.ErrNotFound):
		return api.Problem(http.StatusNotFound, api.CodeNotFound, "There is no such task.")
	case errors.Is(err, todo.ErrConflict):
		return api.Problem(http.StatusConflict, api.CodeConflict, "The task is changing at this moment. Try again.")
	}
	p := api.Problem(http.StatusInternalServerError, api.CodeInternal, "")
	if errors.Is(err, todo.ErrUnavailable) || errors.Is(err, ErrFilesUnavailable) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		p = api.Problem(http.StatusServiceUnavailable, api.CodeUnavailable, "")
	}
	p.Errors = []*huma.ErrorDetail{{Message: err.Error()}} // logged; the API removes it from the answer
	return p
}
