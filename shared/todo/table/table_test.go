package table_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"testing"
	"time"

	"tideline/shared/todo"
	"tideline/shared/todo/table"
)

func TestTodosComeBackWhole(t *testing.T) {
	now := time.UnixMilli(1795365864123).UTC()
	due := now.Add(time.Hour)
	const id = "6f1c9d52-5b8e-4a39-9a39-1f9f8f2f1c11"
	for _, r := range []todo.Record{
		{Todo: todo.Todo{ID: id, Title: "x", Version: 1, CreatedAt: now, UpdatedAt: now}},
		{Todo: todo.Todo{ID: id, Title: "ü🌊", Note: "n", Done: true, DueAt: &due, Version: 1<<63 + 1, CreatedAt: now, UpdatedAt: due}},
		{Todo: todo.Todo{ID: id, Title: "x", Version: 7, CreatedAt: now, UpdatedAt: now}, Deleted: true, Expires: due},
	} {
		image := table.EncodeTodo("auth0|a#b", r, "w", false)
		raw, err := json.Marshal(image) // as a stream carries it
		if err != nil {
			t.Fatal(err)
		}
		var back table.Image
		if err := json.Unmarshal(raw, &back); err != nil {
			t.Fatal(err)
		}
		user, got, err := table.DecodeTodo(back)
		if err != nil || user != "auth0|a#b" || !reflect.DeepEqual(got, r) {
			t.Errorf("came back as %q %+v, %v; want %+v", user, got, err, r)
		}
		if _, listed := image[table.OrderKey]; listed == r.Deleted {
			t.Errorf("deleted %v, in the list's index %v", r.Deleted, listed)
		}
		if _, expires := image[table.TTL]; expires != r.Deleted {
			t.Errorf("deleted %v, expires %v", r.Deleted, expires)
		}
	}
}

func FuzzDecodeTodo(f *testing.F) {
	f.Add(`{"pk":{"S":"u#ann"},"sk":{"S":"t#1"},"v":{"N":"1"},"title":{"S":"x"},"created":{"N":"1"},"updated":{"N":"1"}}`)
	f.Add(`{"pk":{"S":"u#"},"sk":{"S":"t#"},"v":{"N":"-1"},"deleted":{"BOOL":true}}`)
	f.Add(`{"pk":{"S":"u#ann"},"sk":{"M":{"a":{"L":[{"NULL":true}]}}}}`)
	f.Fuzz(func(t *testing.T, raw string) {
		var i table.Image
		if json.Unmarshal([]byte(raw), &i) != nil {
			return
		}
		user, r, err := table.DecodeTodo(i)
		if err != nil {
			if !errors.Is(err, table.ErrImage) {
				t.Errorf("%s: %v", raw, err)
			}
			return
		}
		if user == "" || r.ID == "" {
			t.Errorf("%s: read as %q %+v", raw, user, r)
		}
	})
}
