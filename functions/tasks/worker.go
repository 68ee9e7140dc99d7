package tasks

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"tideline/functions/api"
	"tideline/shared/channel"
	"tideline/shared/limit"
	"tideline/shared/metric"
	"tideline/shared/todo"
	"tideline/shared/trace"
)

// The worker's numbers.
const (
	// LeaseTTL is how long a worker that is not heard of keeps a task. Every step renews it; a step takes far less. It is
	// shorter than the queue's visibility timeout, so that a message that comes again finds the lease of a dead worker expired.
	LeaseTTL = limit.WorkLease
	// AttemptsMax is how many workers in a row may take a task without getting a step further.
	AttemptsMax = limit.WorkAttempts
	// ProgressEvery is the least time between two publications of one task's progress.
	ProgressEvery = 250 * time.Millisecond
	// RowErrors is how many bad rows a task lists.
	RowErrors = 100
	// publishTimeout bounds one publication of a task's end.
	publishTimeout = 10 * time.Second
	// releaseTimeout bounds giving a task back after the worker was told to stop.
	releaseTimeout = time.Second
)

// ErrBusy says that another worker has the task: its message must come again later.
var ErrBusy = errors.New("another worker has the task")

// Store is what a worker needs: both halves of the store.
type Store interface {
	todo.Store
	todo.TaskStore
}

// WorkerOptions of NewWorker. Store, Files and Publisher are required.
type WorkerOptions struct {
	Store      Store
	Files      Files
	Publisher  Publisher
	Namespaces *channel.Table // nil: channel.Shipped
	// Alone says that there is never another worker, so that a lease can only be a dead one's.
	Alone bool
	Log   *slog.Logger
	Meter api.Meter
	Now   func() time.Time
}

// Worker does tasks. It is safe for concurrent use.
type Worker struct {
	store    Store
	files    Files
	announce *announcer
	alone    bool
	log      *slog.Logger
	meter    api.Meter
	now      func() time.Time
}

// NewWorker makes a Worker.
func NewWorker(o WorkerOptions) (*Worker, error) {
	if o.Store == nil || o.Files == nil || o.Publisher == nil {
		return nil, errors.New("tasks: a worker needs store, files and publisher")
	}
	a, err := newAnnouncer(o.Publisher, o.Namespaces, o.Meter)
	if err != nil {
		return nil, err
	}
	w := &Worker{store: o.Store, files: o.Files, announce: a, alone: o.Alone, log: o.Log, meter: o.Meter, now: o.Now}
	if w.log == nil {
		w.log = slog.New(slog.DiscardHandler)
	}
	if w.now == nil {
		w.now = time.Now
	}
	return w, nil
}

// Do does a task, or what is left of it, and announces its end. Nil means that the message that asked for it is done with; after any error it
// must come again. When ctx ends the task is given back at its last step.
func (w *Worker) Do(ctx context.Context, user, id string) error {
	t, err := w.store.ReadTask(ctx, user, id)
	if errors.Is(err, todo.ErrNotFound) { // expired
		return nil
	}
	if err != nil {
		return fmt.Errorf("read task %s: %w", id, err)
	}
	ctx = trace.From(ctx, t.Trace)
	if t.State.Final() {
		return w.end(ctx, t)
	}
	if !w.alone && t.Owner != "" && w.now().Before(t.LeaseUntil) {
		return fmt.Errorf("task %s: %w", id, ErrBusy)
	}
	if t.Version == 1 {
		w.progress(ctx, t) // task.created, where the API could not
	}
	j := &job{Worker: w, t: t}
	if t.Attempts >= AttemptsMax {
		return j.fail(ctx, &todo.TaskError{Code: "gave-up", Detail: fmt.Sprintf("%d attempts made no progress.", t.Attempts)})
	}
	next := step(t, w.now())
	next.State, next.Owner, next.Attempts = todo.Running, rand.Text(), t.Attempts+1
	if err := j.write(ctx, next, nil); err != nil {
		return j.lost(ctx, err)
	}
	err = j.run(ctx)
	var file *fileError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &file):
		return j.fail(ctx, &todo.TaskError{Code: file.code, Detail: file.detail})
	case ctx.Err() != nil:
		j.release(ctx)
		return fmt.Errorf("task %s stopped at %d of %d: %w", id, j.t.Done, j.t.Total, ctx.Err())
	}
	return j.lost(ctx, err)
}

// end announces a finished task; it is what makes the message done with.
func (w *Worker) end(ctx context.Context, t todo.TaskRecord) error {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	err := w.announce.end(ctx, t)
	if errors.Is(err, errPoison) {
		w.log.ErrorContext(ctx, "the end of a task can't be announced", "task", t.ID, "error", err)
		return nil
	}
	return err
}

// progress publishes a task that goes on. If it can't, the next publication says more anyway.
func (w *Worker) progress(ctx context.Context, t todo.TaskRecord) {
	ctx, cancel := context.WithTimeout(ctx, PublishBudget)
	defer cancel()
	if err := w.announce.task(ctx, t); err != nil {
		w.log.DebugContext(ctx, "progress not published", "task", t.ID, "error", err)
	}
}

func (w *Worker) count(name string, kind todo.TaskKind) {
	if w.meter != nil {
		w.meter.Add(name, 1, "kind", string(kind))
	}
}

// job is one worker's hold on one task. One goroutine uses it.
type job struct {
	*Worker
	t    todo.TaskRecord // as this worker wrote it last
	told time.Time       // when progress was last published
}

func (j *job) run(ctx context.Context) error {
	switch j.t.Kind {
	case todo.Import:
		return j.doImport(ctx)
	case todo.Export:
		return j.doExport(ctx)
	}
	return &fileError{"unknown-kind", "This version does not know tasks of kind " + string(j.t.Kind) + "."}
}

// write makes one step: the task and the rows, or nothing if somebody else changed the task.
func (j *job) write(ctx context.Context, next todo.TaskRecord, rows []todo.Todo) error {
	next.LeaseUntil = j.now().Add(LeaseTTL)
	if next.State.Final() {
		next.Owner, next.LeaseUntil = "", time.Time{}
	}
	if err := j.store.WriteTask(ctx, j.t.User, todo.TaskWrite{Before: j.t.Version, Next: next, Rows: rows}); err != nil {
		return fmt.Errorf("write step of task %s: %w", j.t.ID, err)
	}
	j.t = next
	return nil
}

// checkpoint writes a step that got further, and tells of it now and then.
func (j *job) checkpoint(ctx context.Context, next todo.TaskRecord, rows []todo.Todo) error {
	next.Attempts = 0
	if err := j.write(ctx, next, rows); err != nil {
		return err
	}
	if now := j.now(); now.Sub(j.told) >= ProgressEvery {
		j.told = now
		j.progress(ctx, j.t)
	}
	return nil
}

func (j *job) complete(ctx context.Context) error {
	next := step(j.t, j.now())
	next.State = todo.Completed
	if err := j.write(ctx, next, nil); err != nil {
		return err
	}
	j.count(metric.TasksCompleted, j.t.Kind)
	return j.end(ctx, j.t)
}

func (j *job) fail(ctx context.Context, why *todo.TaskError) error {
	next := step(j.t, j.now())
	next.State, next.Error = todo.Failed, why
	if err := j.write(ctx, next, nil); err != nil {
		return j.lost(ctx, err)
	}
	j.count(metric.TasksFailed, j.t.Kind)
	return j.end(ctx, j.t)
}

// lost finds out why a step was refused: the task was cancelled, which is an end to announce, or somebody else works on it.
func (j *job) lost(ctx context.Context, err error) error {
	if !errors.Is(err, todo.ErrConflict) {
		return err
	}
	t, readErr := j.store.ReadTask(ctx, j.t.User, j.t.ID)
	if readErr != nil {
		return errors.Join(err, readErr)
	}
	if t.State.Final() {
		return j.end(ctx, t)
	}
	return fmt.Errorf("task %s: %w", j.t.ID, ErrBusy)
}

// release gives the task back, so that the next worker need not wait for the lease to expire. Being stopped is no failed attempt.
func (j *job) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	next := step(j.t, j.now())
	next.Owner, next.LeaseUntil, next.Attempts = "", time.Time{}, max(0, j.t.Attempts-1)
	if err := j.store.WriteTask(ctx, j.t.User, todo.TaskWrite{Before: j.t.Version, Next: next}); err != nil {
		j.log.WarnContext(ctx, "task not given back, its lease has to expire", "task", j.t.ID, "error", err)
	}
}
