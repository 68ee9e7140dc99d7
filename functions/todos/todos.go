// Package todos is the REST API of the todo list.
//
// A change is one conditional write, which is what the answer means, and then one publication on todos:#<user> within
// PublishBudget. If the bus is away the answer is success all the same: the outbox publishes the same event, under the same id, from
// what the write left behind.
package todos

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"tideline/functions/api"
	"tideline/functions/openapi"
	"tideline/shared/bus"
	"tideline/shared/channel"
	"tideline/shared/limit"
	"tideline/shared/metric"
	"tideline/shared/todo"
	"tideline/shared/token"
	"tideline/shared/trace"
)

// Budgets and sizes of the API.
const (
	// PublishBudget is how long a request waits for the bus after its write. The outbox does what doesn't fit.
	PublishBudget = 250 * time.Millisecond
	// RequestBudget bounds a request's work on the store. It stays under the load balancer's and the clients' patience.
	RequestBudget = 10 * time.Second
	// ClearBudget is the part of it in which clear-completed begins new deletions. ClearBudget + PublishBudget < RequestBudget.
	ClearBudget = 8 * time.Second
	// PageDefault and PageMax are the todos in one answer of the list.
	PageDefault, PageMax = 50, 500
	// pageBytes ends a page early, so that an answer passes Lambda's 1 MB: pageBytes < limit.BodyBytes.
	pageBytes = limit.BodyBytes * 7 / 10
	// KeyBytes is the longest Idempotency-Key.
	KeyBytes = 128
)

// Problem codes of this function alone.
const (
	CodeTooManyTodos api.Code = "too-many-todos"         // 409: todo.PerUser reached
	CodeKeyReused    api.Code = "idempotency-key-reused" // 422: the key came with another body before
)

// Publisher is the part of bus.Bus that is used here.
type Publisher interface {
	Publish(context.Context, bus.Publication) (bus.Result, error)
}

// Options of New and Register. All but Namespaces, Log, Meter and Now are required.
type Options struct {
	Store      todo.Store
	Publisher  Publisher
	Verifier   token.Verifier
	Namespaces *channel.Table // nil: channel.Shipped
	// TrustedOrigins may send state-changing requests beside the own origin.
	TrustedOrigins []string
	Log            *slog.Logger
	Meter          api.Meter
	Tracing        trace.Provider // nil opens no spans
	Now            func() time.Time
}

// New answers the API as a handler for /api/todos and below, with the document and the docs page of all functions.
func New(o Options) (http.Handler, error) {
	if o.Store == nil || o.Publisher == nil || o.Verifier == nil {
		return nil, errors.New("todos: store, publisher and verifier are required")
	}
	a, err := api.New(api.Options{Verifier: o.Verifier, TrustedOrigins: o.TrustedOrigins, Log: o.Log, Meter: o.Meter, Tracing: o.Tracing, Now: o.Now})
	if err != nil {
		return nil, err
	}
	docs := openapi.Handler()
	for _, path := range []string{openapi.DocumentPath, openapi.DocsPath, openapi.StylePath} {
		a.Handle("GET "+path, docs)
	}
	return a, Register(a, o)
}

// Register adds the operations to a. Without a store they only describe themselves, for the OpenAPI document.
func Register(a *api.API, o Options) error {
	if o.Namespaces == nil {
		o.Namespaces = channel.Shipped()
	}
	ns, err := o.Namespaces.Lookup(todo.Namespace + ":")
	if err != nil {
		return err
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	h := &handler{book: todo.NewBook(o.Store, o.Now), bus: o.Publisher, ns: ns, log: o.Log, meter: o.Meter, now: o.Now}
	if h.now == nil {
		h.now = time.Now
	}
	h.register(a)
	return nil
}

// handler has no state of its own; all requests share it.
type handler struct {
	book  *todo.Book
	bus   Publisher
	ns    channel.Namespace
	log   *slog.Logger
	meter api.Meter
	now   func() time.Time
}

func (h *handler) register(a *api.API) {
	const list, one = "/api/todos", "/api/todos/{id}"
	op := func(id, method, path, summary, description string, status int, errs ...int) huma.Operation {
		return huma.Operation{OperationID: id, Method: method, Path: path, Summary: summary, Description: description, Tags: []string{"todos"},
			DefaultStatus: status, Security: api.Bearer, Errors: append(errs, 400, 401, 403, 422, 503)}
	}
	api.Register(a, op("list-todos", http.MethodGet, list, "List todos",
		"Newest first. A page may be shorter than `limit`; `next` says whether there is more.", 200), h.list)
	api.Register(a, op("create-todo", http.MethodPost, list, "Create a todo",
		"With an `Idempotency-Key`, the same request again gets the same answer for 24 hours.", 201, 409, 413, 415), h.create)
	read := op("get-todo", http.MethodGet, one, "Read a todo", "Answers 304 when `If-None-Match` names its version.", 200, 404)
	read.Responses = map[string]*huma.Response{"304": {Description: "Not Modified"}}
	api.Register(a, read, h.get)
	put := op("put-todo", http.MethodPut, one, "Create or replace a todo under an id of your own",
		"Repeating it changes nothing. 201 if the todo was created, 200 otherwise.", 200, 409, 412, 413, 415)
	created := a.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[todo.Todo](), true, "")
	put.Responses = map[string]*huma.Response{"201": {Description: "Created", Content: map[string]*huma.MediaType{"application/json": {Schema: created}}}}
	api.Register(a, put, h.put)
	api.Register(a, op("patch-todo", http.MethodPatch, one, "Change a todo",
		"A JSON merge patch: only what is there changes; `null` removes a note or a due date.", 200, 404, 409, 412, 413, 415), h.patch)
	api.Register(a, op("delete-todo", http.MethodDelete, one, "Delete a todo", "", 204, 404, 409, 412), h.delete)
	api.Register(a, op("clear-completed-todos", http.MethodPost, list+"/clear-completed", "Delete all todos that are done",
		"`more` says that time ran out: ask again.", 200), h.clear)
}

// user is whose list a request is about. A user whose name can't stand in a channel can't have a list: nobody would hear of it.
func user(ctx context.Context) (string, error) {
	u := api.Caller(ctx).User
	if u == "" || channel.Validate(channel.Personal(todo.Namespace, u)) != nil {
		return "", api.Problem(http.StatusForbidden, api.CodeForbidden, "This user's name can't be used in a channel.")
	}
	return u, nil
}

// announce publishes what a change did, within PublishBudget, although the caller may be gone. Failing is not the request's failure.
func (h *handler) announce(ctx context.Context, user string, e *todo.Event) {
	if e == nil {
		return
	}
	p, err := e.Publication(user, h.ns)
	if err == nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), PublishBudget)
		defer cancel()
		var r bus.Result
		if r, err = h.bus.Publish(ctx, p); err == nil {
			if r.Duplicate && h.meter != nil {
				h.meter.Add(metric.Duplicates, 1)
			}
			return
		}
	}
	if h.meter != nil {
		h.meter.Add(metric.PublishFailures, 1)
	}
	h.log.WarnContext(ctx, "publishing is left to the outbox", "todo", e.Todo.ID, "version", e.Todo.Version, "error", err)
}

// problem turns an error of the book into what the caller sees. Current is the stored todo where the error is about its version.
func problem(err error, current todo.Todo) error {
	var status huma.StatusError
	if errors.As(err, &status) {
		return err
	}
	if fields := fieldErrors(err); len(fields) > 0 {
		p := api.Problem(http.StatusUnprocessableEntity, api.CodeValidation, "validation failed")
		p.Errors = fields
		return p
	}
	switch {
	case errors.Is(err, todo.ErrNotFound):
		return api.Problem(http.StatusNotFound, api.CodeNotFound, "There is no such todo.")
	case errors.Is(err, todo.ErrPrecondition):
		p := api.Problem(http.StatusPreconditionFailed, api.CodeVersionMismatch, "The todo is not at the version that the request names.")
		if current.Version == 0 {
			return p
		}
		return huma.ErrorWithHeaders(p, http.Header{"ETag": {etag(current)}})
	case errors.Is(err, todo.ErrFull):
		return api.Problem(http.StatusConflict, CodeTooManyTodos, "The list has as many todos as it can hold.")
	case errors.Is(err, todo.ErrKeyMismatch):
		return api.Problem(http.StatusUnprocessableEntity, CodeKeyReused, "This Idempotency-Key came with another request before.")
	case errors.Is(err, todo.ErrConflict):
		return api.Problem(http.StatusConflict, api.CodeConflict, "Others are changing this todo at the same time. Try again.")
	case errors.Is(err, todo.ErrCursor):
		p := api.Problem(http.StatusUnprocessableEntity, api.CodeValidation, "validation failed")
		p.Errors = []*huma.ErrorDetail{{Location: "query.cursor", Message: "was not made by this server"}}
		return p
	}
	p := api.Problem(http.StatusInternalServerError, api.CodeInternal, "")
	if errors.Is(err, todo.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		p = api.Problem(http.StatusServiceUnavailable, api.CodeUnavailable, "")
	}
	p.Errors = []*huma.ErrorDetail{{Message: err.Error()}} // logged; the API removes it from the answer
	return p
}

// fieldErrors finds every *todo.FieldError in err.
func fieldErrors(err error) []*huma.ErrorDetail {
	var one *todo.FieldError
	switch e := err.(type) {
	case interface{ Unwrap() []error }:
		var all []*huma.ErrorDetail
		for _, inner := range e.Unwrap() {
			all = append(all, fieldErrors(inner)...)
		}
		return all
	default:
		if !errors.As(err, &one) {
			return nil
		}
		location := "body." + one.Field
		if one.Field == "id" {
			location = "path.id"
		}
		return []*huma.ErrorDetail{{Location: location, Message: one.Problem}}
	}
}

// size is what t takes in an answer, in bytes.
func size(t todo.Todo) int {
	b, err := json.Marshal(t)
	if err != nil {
		return 0 // strings, numbers and times within their ranges: can't happen
	}
	return len(b) + 1
}
