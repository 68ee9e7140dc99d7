// Package table is the layout of the DynamoDB table of todos: its key names, what its items look like, and how they are read from a
// stream. It has no SDK in it, so that the stack, the store and the stream's reader can agree on it.
package table

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"tideline/shared/todo"
)

// Attributes that the table is declared with. The table has a stream of new and old images.
const (
	PartitionKey = "pk" // string: UserPrefix + user
	SortKey      = "sk" // string: one of the prefixes below + id
	// OrderIndex and StateIndex are local secondary indexes, so that they can be read consistently, on (PartitionKey, OrderKey) and
	// (PartitionKey, StateKey), projecting all. Only live todos have these keys: creation and id; done flag, creation and id. The
	// second is the list's filter; without the first, a todo that changes its state could be missed by a list of both.
	OrderIndex = "order"
	OrderKey   = "ok" // string
	StateIndex = "state"
	StateKey   = "st" // string
	// TTL is a number: the second since 1970 after which DynamoDB may remove the item.
	TTL = "ttl"
	// Kind is a string that tells items apart, for the filters of the stream's readers.
	Kind = "kind"
)

// Kinds of items.
const (
	KindTodo   = "todo"
	KindTask   = "task"
	KindAnswer = "answer"
	KindCount  = "count"
)

// Prefixes of keys.
const (
	UserPrefix   = "u#"
	TodoPrefix   = "t#"
	TaskPrefix   = "k#"
	AnswerPrefix = "i#"
	CountSort    = "c"
)

// Other attributes.
const (
	Version = "v"     // number
	WriteID = "w"     // string: the write that made the item, to know one's own after a lost answer
	Quiet   = "quiet" // bool: made by a task, announced by it and not by the stream
	Count   = "n"     // number of live todos
	Body    = "body"  // string: JSON of a task or an answer
	Trace   = "trace" // string: W3C traceparent of the write, where it was sampled
	Expires = "exp"   // number: milliseconds since 1970, exact, where TTL is only for cleaning up

	title, note, done, due, created, updated, deleted = "title", "note", "done", "due", "created", "updated", "deleted"
)

// Value is one attribute, in the JSON form that stream events have too. Exactly one field is set.
type Value struct {
	S    *string `json:"S,omitempty"`
	N    *string `json:"N,omitempty"`
	BOOL *bool   `json:"BOOL,omitempty"`
}

// Image is an item.
type Image map[string]Value

// ErrImage says that an item is not what this layout says.
var ErrImage = errors.New("item malformed")

func text(s string) Value { return Value{S: &s} }

func number[T int | int64 | uint64](n T) Value {
	s := fmt.Sprint(n)
	return Value{N: &s}
}

func flag(b bool) Value { return Value{BOOL: &b} }

// Text reads a string attribute; "" if there is none.
func (i Image) Text(name string) string {
	if v := i[name].S; v != nil {
		return *v
	}
	return ""
}

// Flag reads a boolean attribute; false if there is none.
func (i Image) Flag(name string) bool { v := i[name].BOOL; return v != nil && *v }

func (i Image) millis(name string, errs *[]error) time.Time {
	return time.UnixMilli(int64(i.number(name, errs))).UTC()
}

func (i Image) number(name string, errs *[]error) uint64 {
	v := i[name].N
	if v == nil {
		*errs = append(*errs, fmt.Errorf("%w: no %s", ErrImage, name))
		return 0
	}
	n, err := strconv.ParseUint(*v, 10, 64)
	if err != nil {
		*errs = append(*errs, fmt.Errorf("%w: %s is %q", ErrImage, name, *v))
	}
	return n
}

// Key is the primary key of an item.
func Key(user, sort string) Image {
	return Image{PartitionKey: text(UserPrefix + user), SortKey: text(sort)}
}

// State is the StateKey of a live todo at that place of the list.
func State(isDone bool, orderKey string) string {
	if isDone {
		return "1#" + orderKey
	}
	return "0#" + orderKey
}

// EncodeTodo makes the item of a record.
func EncodeTodo(user string, r todo.Record, writeID string, quiet bool) Image {
	i := Key(user, TodoPrefix+r.ID)
	i[Kind], i[Version], i[WriteID] = text(KindTodo), number(r.Version), text(writeID)
	i[title], i[done] = text(r.Title), flag(r.Done)
	i[created], i[updated] = number(r.CreatedAt.UnixMilli()), number(r.UpdatedAt.UnixMilli())
	if r.Note != "" {
		i[note] = text(r.Note)
	}
	if r.DueAt != nil {
		i[due] = number(r.DueAt.UnixMilli())
	}
	if r.Trace != "" {
		i[Trace] = text(r.Trace)
	}
	if quiet {
		i[Quiet] = flag(true)
	}
	if r.Deleted {
		i[deleted] = flag(true)
		i.expire(r.Expires)
	} else {
		order := todo.CursorOf(r.Todo).OrderKey()
		i[OrderKey], i[StateKey] = text(order), text(State(r.Done, order))
	}
	return i
}

// expire rounds up: DynamoDB never removes an item before it has expired.
func (i Image) expire(at time.Time) {
	i[Expires], i[TTL] = number(at.UnixMilli()), number(at.Unix()+1)
}

// DecodeTodo reads a todo's item, and whose it is. The error wraps ErrImage.
func DecodeTodo(i Image) (user string, r todo.Record, err error) {
	var errs []error
	user, isUser := strings.CutPrefix(i.Text(PartitionKey), UserPrefix)
	id, isTodo := strings.CutPrefix(i.Text(SortKey), TodoPrefix)
	if !isUser || !isTodo || user == "" || id == "" {
		return "", r, fmt.Errorf("%w: not a todo", ErrImage)
	}
	r.Trace = i.Text(Trace)
	r.Todo = todo.Todo{ID: id, Title: i.Text(title), Note: i.Text(note), Done: i.Flag(done), Version: i.number(Version, &errs),
		CreatedAt: i.millis(created, &errs), UpdatedAt: i.millis(updated, &errs)}
	if _, has := i[due]; has {
		at := i.millis(due, &errs)
		r.DueAt = &at
	}
	if r.Deleted = i.Flag(deleted); r.Deleted {
		r.Expires = i.millis(Expires, &errs)
	}
	return user, r, errors.Join(errs...)
}

// EncodeTask makes the item of a task.
func EncodeTask(t todo.TaskRecord, writeID string) (Image, error) {
	b, err := json.Marshal(t)
	if err != nil {
		return nil, fmt.Errorf("encode task %s: %w", t.ID, err)
	}
	i := Key(t.User, TaskPrefix+t.ID)
	i[Kind], i[Version], i[WriteID], i[Body] = text(KindTask), number(t.Version), text(writeID), text(string(b))
	i.expire(t.Expires)
	return i, nil
}

// DecodeTask reads a task's item.
func DecodeTask(i Image) (t todo.TaskRecord, err error) {
	if err := json.Unmarshal([]byte(i.Text(Body)), &t); err != nil || t.ID == "" || t.User == "" {
		return todo.TaskRecord{}, fmt.Errorf("%w: not a task (%v)", ErrImage, err)
	}
	return t, nil
}

// EncodeAnswer makes the item of an answer to an idempotency key.
func EncodeAnswer(user string, a todo.Answer) (Image, error) {
	b, err := json.Marshal(a)
	if err != nil {
		return nil, fmt.Errorf("encode answer: %w", err)
	}
	i := Key(user, AnswerPrefix+a.Key)
	i[Kind], i[Body] = text(KindAnswer), text(string(b))
	i.expire(a.Expires)
	return i, nil
}

// DecodeAnswer reads an answer's item.
func DecodeAnswer(i Image) (a todo.Answer, err error) {
	if err := json.Unmarshal([]byte(i.Text(Body)), &a); err != nil {
		return todo.Answer{}, fmt.Errorf("%w: not an answer (%v)", ErrImage, err)
	}
	return a, nil
}
