package outbox_test

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tideline/functions/outbox"
	"tideline/shared/bus"
	"tideline/shared/todo"
	"tideline/shared/todo/table"
	"tideline/shared/trace"
)

// contexts is a bus that notes which trace each publication belongs to.
type contexts struct {
	mu     sync.Mutex
	traces []string
}

func (c *contexts) Publish(ctx context.Context, p bus.Publication) (bus.Result, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.traces = append(c.traces, fmt.Sprint(p.Version, " ", trace.Parent(ctx)))
	return bus.Result{}, nil
}

const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func TestTheLocalOutboxAnnouncesUnderTheTraceOfTheWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, to := newStore(t, filepath.Join(t.TempDir(), "db")), &contexts{}
		book := todo.NewBook(s, nil)
		o, err := book.Create(trace.From(t.Context(), parent), "ann", todo.Content{Title: "a"}, "", "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := book.Delete(t.Context(), "ann", o.Todo.ID, todo.Match{}); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- outbox.Local{Store: s, Publisher: to}.Run(ctx) }()
		synctest.Wait()
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if got, want := fmt.Sprint(to.traces), "[1 "+parent+" 2 ]"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	})
}

func TestTheStreamAnnouncesUnderTheTraceOfTheWrite(t *testing.T) {
	s, to := newStore(t, filepath.Join(t.TempDir(), "db")), &contexts{}
	h, err := outbox.NewHandler(outbox.Options{Publisher: to, Store: s})
	if err != nil {
		t.Fatal(err)
	}
	image := func(version uint64, parent string) table.Image {
		now := time.Now()
		return table.EncodeTodo("ann", todo.Record{Trace: parent, Todo: todo.Todo{ID: "x", Title: "a", Version: version, CreatedAt: now, UpdatedAt: now}}, "w", false)
	}
	var e outbox.StreamEvent
	for i, p := range []string{parent, "", "nonsense"} {
		var r outbox.StreamRecord
		r.EventName, r.DynamoDB.Created, r.DynamoDB.NewImage = "MODIFY", float64(time.Now().Unix()), image(uint64(i+1), p)
		e.Records = append(e.Records, r)
	}
	raw, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	// The invocation's own trace is of a batch: it is that of no write, unless the write had none.
	const invocation = "00-1af7651916cd43dd8448eb211c80319c-c7ad6b7169203331-01"
	if _, err := h.Handle(trace.From(t.Context(), invocation), raw); err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(to.traces), "[1 "+parent+" 2 "+invocation+" 3 "+invocation+"]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
