package todo

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"tideline/shared/bus"
	"tideline/shared/channel"
	"tideline/shared/limit"
)

// TaskNamespace of the channels that task events are published on.
const TaskNamespace = "user"

// TaskTTL is how long a task is kept after its last change.
const TaskTTL = limit.TaskTTL

// TaskRows is the most todos that one step of a task may create: a transaction of DynamoDB has at most 100 items, two of which are
// the task and the count.
const TaskRows = 98

// TaskKind says what a task does.
type TaskKind string

// Kinds of tasks.
const (
	Import TaskKind = "import"
	Export TaskKind = "export"
)

// Format of a file that a task reads or writes.
type Format string

// Formats.
const (
	JSON Format = "json"
	CSV  Format = "csv"
)

// TaskState says where a task stands. The last three are final.
type TaskState string

// States of a task.
const (
	Queued    TaskState = "queued"
	Running   TaskState = "running"
	Completed TaskState = "completed"
	Failed    TaskState = "failed"
	Cancelled TaskState = "cancelled"
)

// Final reports whether a task in this state changes no more.
func (s TaskState) Final() bool { return s == Completed || s == Failed || s == Cancelled }

// RowError says why one row of an import was left out.
type RowError struct {
	Row     int    `json:"row" doc:"Among the rows or elements, from 1."`
	Line    int    `json:"line" doc:"Of the file, where the row begins, from 1."`
	Problem string `json:"problem"`
}

// TaskError says why a task failed. Code is stable; Detail is for a person.
type TaskError struct {
	Code   string `json:"code"`
	Detail string `json:"detail"`
}

// Task is a piece of background work, as its owner sees it.
type Task struct {
	ID     string    `json:"id"`
	Kind   TaskKind  `json:"kind"`
	Format Format    `json:"format"`
	State  TaskState `json:"state"`
	// Done of Total rows or todos have been dealt with. Total is 0 until it is known.
	Done  int `json:"done" doc:"Rows or todos dealt with."`
	Total int `json:"total" doc:"0 until it is known."`
	// Created todos, of an import. Skipped rows are listed in Errors as far as there is room.
	Created int        `json:"created" doc:"Todos that an import made."`
	Skipped int        `json:"skipped" doc:"Rows that an import left out; the first of them are in errors."`
	Errors  []RowError `json:"errors,omitempty"`
	Error   *TaskError `json:"error,omitempty"`
	// Version starts at 1 and grows by one with every step.
	Version   uint64    `json:"version"`
	CreatedAt time.Time `json:"createdAt"`
	UpdatedAt time.Time `json:"updatedAt"`
}

// TaskRecord is a task as it is stored. The zero TaskRecord says that nothing is stored.
type TaskRecord struct {
	Task
	User string `json:"user"`
	// File is the key of what is imported or was exported.
	File string `json:"file"`
	// Owner works on the task until LeaseUntil; then somebody else may.
	Owner      string    `json:"owner,omitempty"`
	LeaseUntil time.Time `json:"leaseUntil,omitzero"`
	// Attempts counts the workers that took the task since it last made progress.
	Attempts int       `json:"attempts"`
	Expires  time.Time `json:"expires"`
	// Trace is the W3C traceparent of the request that started the task, if that was sampled: what becomes of it is announced under the same trace.
	Trace string `json:"trace,omitempty"`
}

// TaskWrite is one step of one task.
type TaskWrite struct {
	// Before is the version that must be stored; 0: nothing.
	Before uint64
	Next   TaskRecord
	// Rows are todos that are created in the same step, at most TaskRows. They are not announced one by one.
	Rows []Todo
}

// TaskStore keeps tasks. Implementations are safe for concurrent use; the store that implements it implements Store too, and a task's
// rows appear there. A new task (Before 0) reaches the queue of work although the caller dies right after the write.
type TaskStore interface {
	// ReadTask answers a task, or ErrNotFound.
	ReadTask(ctx context.Context, user, id string) (TaskRecord, error)
	// WriteTask stores w.Next and creates the rows in one step if the version is still w.Before (else ErrConflict) and the
	// user's list has room (else ErrFull).
	WriteTask(ctx context.Context, user string, w TaskWrite) error
	// ListTasks answers the newest tasks, at most limit.
	ListTasks(ctx context.Context, user string, limit int) ([]TaskRecord, error)
}

// TaskEventType says what became of a task.
type TaskEventType string

// Types of events on user:#<user>. A cancelled task is announced as TaskFailed with the state cancelled.
const (
	TaskCreated   TaskEventType = "task.created"
	TaskProgress  TaskEventType = "task.progress"
	TaskCompleted TaskEventType = "task.completed"
	TaskFailed    TaskEventType = "task.failed"
)

// TaskEvent is what the task's owner hears.
type TaskEvent struct {
	Type TaskEventType `json:"type"`
	Task Task          `json:"task"`
}

// TaskEventOf is the event that announces t as it stands.
func TaskEventOf(t Task) TaskEvent {
	switch {
	case t.State == Completed:
		return TaskEvent{TaskCompleted, t}
	case t.State.Final():
		return TaskEvent{TaskFailed, t}
	case t.Version == 1:
		return TaskEvent{TaskCreated, t}
	}
	return TaskEvent{TaskProgress, t}
}

// Publication is e on the user's channel. The row errors stay in the task: they can be large.
func (e TaskEvent) Publication(user string, ns channel.Namespace) (bus.Publication, error) {
	e.Task.Errors = nil
	data, err := json.Marshal(e)
	if err != nil {
		return bus.Publication{}, fmt.Errorf("encode event of task %s: %w", e.Task.ID, err)
	}
	return bus.Publication{
		Channel: channel.Personal(TaskNamespace, user), Data: data, ID: PublicationID(e.Task.ID, e.Task.Version),
		Key: e.Task.ID, Version: e.Task.Version,
		History: bus.History{Size: ns.HistorySize, TTL: ns.HistoryTTL},
	}, nil
}
