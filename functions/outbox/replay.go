package outbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"tideline/shared/todo/table"
)

// Failures is where Lambda keeps the records that it gave up on: a bucket, by its failure destination. Safe for concurrent use.
type Failures interface {
	// List answers the keys of at most limit objects.
	List(ctx context.Context, limit int) ([]string, error)
	// Read answers one object, at most maxBytes of it (else an error). A missing one is an error.
	Read(ctx context.Context, key string, maxBytes int64) ([]byte, error)
	// Delete removes one object.
	Delete(ctx context.Context, key string) error
}

// Bounds of one replay.
const (
	replayObjects = 100
	replayBytes   = 8 << 20 // Lambda hands over at most 6 MB of records
)

// ReplayResult says what a replay did. Failed objects stay where they are.
type ReplayResult struct {
	Objects int  `json:"objects"` // done with and deleted
	Todos   int  `json:"todos"`   // announced
	Failed  int  `json:"failed"`
	More    bool `json:"more"` // ask again
}

// Replay announces the current state of every todo that a kept record is about, and deletes the objects that are done.
func (h *Handler) Replay(ctx context.Context) (ReplayResult, error) {
	var out ReplayResult
	if h.failures == nil {
		return out, errors.New("outbox: no place of failed records is configured")
	}
	if at, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, at.Add(-reserve))
		defer cancel()
	}
	keys, err := h.failures.List(ctx, replayObjects)
	if err != nil {
		return out, fmt.Errorf("outbox: list failed records: %w", err)
	}
	for i, key := range keys {
		n, err := h.replay(ctx, key)
		out.Todos += n
		if err != nil {
			h.log.ErrorContext(ctx, "replay failed", "object", key, "error", err)
			out.Failed++
		} else {
			out.Objects++
		}
		if ctx.Err() != nil {
			out.More = i < len(keys)-1
			return out, nil
		}
	}
	out.More = len(keys) == replayObjects && out.Objects > 0
	return out, nil
}

// replay announces what one object is about, each todo once.
func (h *Handler) replay(ctx context.Context, key string) (int, error) {
	raw, err := h.failures.Read(ctx, key, replayBytes)
	if err != nil {
		return 0, err
	}
	records, err := keptRecords(raw)
	if err != nil {
		return 0, err
	}
	type id struct{ user, todo string }
	seen := map[id]bool{}
	for _, r := range records {
		image := r.DynamoDB.NewImage
		if r.EventName == "REMOVE" || image.Text(table.Kind) != table.KindTodo || image.Flag(table.Quiet) {
			continue
		}
		user, t, err := table.DecodeTodo(image)
		if err != nil {
			return len(seen), err
		}
		if seen[id{user, t.ID}] {
			continue
		}
		if err := h.current(ctx, user, t.ID); err != nil {
			return len(seen), err
		}
		seen[id{user, t.ID}] = true
	}
	return len(seen), h.failures.Delete(ctx, key)
}

// keptRecords reads Lambda's invocation record: the payload is the event, as JSON or as a string that holds it.
func keptRecords(raw []byte) ([]StreamRecord, error) {
	var kept struct {
		Payload json.RawMessage `json:"payload"`
	}
	if err := json.Unmarshal(raw, &kept); err != nil {
		return nil, fmt.Errorf("decode failed record: %w", err)
	}
	var inner string
	if json.Unmarshal(kept.Payload, &inner) == nil {
		kept.Payload = json.RawMessage(inner)
	}
	var e StreamEvent
	if err := json.Unmarshal(kept.Payload, &e); err != nil {
		return nil, fmt.Errorf("decode failed record's payload: %w", err)
	}
	if e.Records == nil {
		return nil, errors.New("failed record has no payload")
	}
	return e.Records, nil
}
