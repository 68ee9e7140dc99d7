package outbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"tideline/shared/channel"
	"tideline/shared/limit"
	"tideline/shared/todo"
	"tideline/shared/todo/table"
	"tideline/shared/trace"
)

// reserve is the time that is kept of a Lambda invocation to answer what was done so far.
const reserve = 2 * time.Second

// Options of NewHandler. Publisher and Store are required.
type Options struct {
	Publisher Publisher
	// Store is read when a record is too old to be published as it is, and for replays.
	Store      todo.Store
	Failures   Failures       // nil: replays are refused
	Namespaces *channel.Table // nil: channel.Shipped
	Log        *slog.Logger
	Meter      Meter
	Now        func() time.Time
}

// Handler answers the events of the table's stream. It is safe for concurrent use, and processes one event's records in their order.
type Handler struct {
	*publishing
	store    todo.Store
	failures Failures
	log      *slog.Logger
	now      func() time.Time
}

// NewHandler makes a Handler.
func NewHandler(o Options) (*Handler, error) {
	p, err := newPublishing(o.Publisher, o.Namespaces, o.Meter)
	if err != nil {
		return nil, err
	}
	if o.Store == nil {
		return nil, errors.New("outbox: a store is required")
	}
	h := &Handler{publishing: p, store: o.Store, failures: o.Failures, log: o.Log, now: o.Now}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	if h.now == nil {
		h.now = time.Now
	}
	return h, nil
}

// StreamEvent is what Lambda hands over of a DynamoDB stream.
type StreamEvent struct {
	Records []StreamRecord `json:"Records"`
}

// StreamRecord is one change of one item.
type StreamRecord struct {
	EventName string `json:"eventName"` // INSERT, MODIFY, REMOVE
	DynamoDB  struct {
		Created        float64     `json:"ApproximateCreationDateTime"` // seconds since 1970
		Keys           table.Image `json:"Keys"`
		NewImage       table.Image `json:"NewImage"`
		OldImage       table.Image `json:"OldImage"`
		SequenceNumber string      `json:"SequenceNumber"`
	} `json:"dynamodb"`
}

// StreamResponse names the first record that was not done; Lambda comes back with it and all after it.
type StreamResponse struct {
	BatchItemFailures []ItemFailure `json:"batchItemFailures"`
}

// ItemFailure names a record.
type ItemFailure struct {
	ItemIdentifier string `json:"itemIdentifier"`
}

// Stream publishes the records that are todos, in order, and stops at the first that the bus doesn't take. It never answers an
// error: Lambda would begin the whole batch again.
func (h *Handler) Stream(ctx context.Context, e StreamEvent) StreamResponse {
	response := StreamResponse{BatchItemFailures: []ItemFailure{}}
	if at, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, at.Add(-reserve))
		defer cancel()
	}
	for i, r := range e.Records {
		ctx := trace.From(ctx, r.DynamoDB.NewImage.Text(table.Trace)) // of the write, for logs too: the invocation is of many
		err := h.record(ctx, r)
		if err == nil {
			continue
		}
		if poison(err) || errors.Is(err, table.ErrImage) { // tried again, it would only hold up the shard
			h.log.ErrorContext(ctx, "record can't be announced", "key", r.DynamoDB.Keys.Text(table.SortKey), "sequence", r.DynamoDB.SequenceNumber, "error", err)
			continue
		}
		h.log.WarnContext(ctx, "stream waits", "done", i, "of", len(e.Records), "error", err)
		response.BatchItemFailures = append(response.BatchItemFailures, ItemFailure{r.DynamoDB.SequenceNumber})
		return response
	}
	return response
}

// record publishes one change. What is not a todo, was removed by time, or is announced by its task, is done with.
func (h *Handler) record(ctx context.Context, r StreamRecord) error {
	after := r.DynamoDB.NewImage
	if r.EventName == "REMOVE" || after.Text(table.Kind) != table.KindTodo || after.Flag(table.Quiet) {
		return nil
	}
	user, next, err := table.DecodeTodo(after)
	if err != nil {
		return err
	}
	if h.now().Sub(time.UnixMilli(int64(r.DynamoDB.Created*1000))) > limit.OutboxRecordAge {
		return h.current(ctx, user, next.ID)
	}
	var before todo.Record
	if r.DynamoDB.OldImage != nil {
		if _, before, err = table.DecodeTodo(r.DynamoDB.OldImage); err != nil {
			return err
		}
	}
	return h.publish(ctx, user, todo.EventOf(before, next))
}

// current publishes a todo as it is stored now. The bus may have forgotten what it knew of the versions in between: the
// newest is the only one that can't come after a newer.
func (h *Handler) current(ctx context.Context, user, id string) error {
	r, err := h.store.Read(ctx, user, id)
	if err != nil {
		return fmt.Errorf("read todo %s: %w", id, err)
	}
	if r.Version == 0 { // deleted, and forgotten
		return nil
	}
	before := todo.Record{Todo: todo.Todo{Version: r.Version - 1}}
	return h.publish(trace.From(ctx, r.Trace), user, todo.EventOf(before, r))
}

// Handle takes any event that the function may get: of the stream, or {"replay":{}}.
func (h *Handler) Handle(ctx context.Context, raw json.RawMessage) (any, error) {
	var e struct {
		StreamEvent
		Replay *struct{} `json:"replay"`
	}
	if err := json.Unmarshal(raw, &e); err != nil {
		return nil, fmt.Errorf("outbox: decode event: %w", err)
	}
	switch {
	case e.Replay != nil:
		return h.Replay(ctx)
	case e.Records != nil:
		return h.Stream(ctx, e.StreamEvent), nil
	}
	return nil, errors.New("outbox: the event is neither a stream's nor a replay")
}
