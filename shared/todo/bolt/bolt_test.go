package bolt_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"

	"tideline/shared/todo"
	"tideline/shared/todo/bolt"
	"tideline/shared/todo/storetest"
	"tideline/test/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

func open(t *testing.T, path string, clock *storetest.Clock) (*bolt.Store, *bbolt.DB) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	s, err := bolt.New(db, clock.Now)
	if err != nil {
		t.Fatal(err)
	}
	return s, db
}

func TestStore(t *testing.T) {
	clock := storetest.NewClock()
	s, _ := open(t, filepath.Join(t.TempDir(), "db"), clock)
	storetest.Run(t, s, clock)
}

func TestEveryWriteLeavesItsEventBehind(t *testing.T) {
	clock := storetest.NewClock()
	path := filepath.Join(t.TempDir(), "db")
	s, db := open(t, path, clock)
	b := todo.NewBook(s, clock.Now)
	o, err := b.Create(t.Context(), "ann", todo.Content{Title: "a"}, "", "")
	if err != nil {
		t.Fatal(err)
	}
	edit := func(c todo.Content) todo.Content { c.Title += "+"; return c }
	if _, err := b.Patch(t.Context(), "ann", o.Todo.ID, todo.Match{}, edit); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Delete(t.Context(), "ann", o.Todo.ID, todo.Match{}); err != nil {
		t.Fatal(err)
	}
	// A refused write leaves nothing.
	if _, err := b.Patch(t.Context(), "ann", o.Todo.ID, todo.Match{}, edit); err == nil {
		t.Fatal("patched a deleted todo")
	}
	db.Close()
	s, _ = open(t, path, clock) // what is pending outlives the process
	<-s.Wake()
	got, err := s.Pending(t.Context(), 100)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	var seqs []uint64
	for _, p := range got {
		lines = append(lines, fmt.Sprint(p.User, " ", p.Event.Type, " ", p.Event.Todo.Version, " ", p.Event.Todo.Title))
		seqs = append(seqs, p.Sequence)
	}
	want := "[ann todo.created 1 a ann todo.updated 2 a+ ann todo.deleted 3 a+]"
	if fmt.Sprint(lines) != want {
		t.Errorf("pending %v, want %v", lines, want)
	}
	if err := s.Announced(t.Context(), seqs[:2]); err != nil {
		t.Fatal(err)
	}
	if got, _ = s.Pending(t.Context(), 100); len(got) != 1 || got[0].Event.Type != todo.Deleted {
		t.Errorf("pending %v after two were announced, want the deletion", got)
	}
}

func TestTaskStore(t *testing.T) {
	clock := storetest.NewClock()
	s, _ := open(t, filepath.Join(t.TempDir(), "db"), clock)
	storetest.RunTasks(t, s, clock)
}

func TestSweepForgetsOnlyWhatHasExpired(t *testing.T) {
	clock := storetest.NewClock()
	s, _ := open(t, filepath.Join(t.TempDir(), "db"), clock)
	b := todo.NewBook(s, clock.Now)
	kept, err := b.Create(t.Context(), "ann", todo.Content{Title: "kept"}, "key", "digest")
	if err != nil {
		t.Fatal(err)
	}
	var gone []string
	for n := range 1100 { // more than two batches
		o, err := b.Create(t.Context(), "ann", todo.Content{Title: fmt.Sprint(n)}, "", "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Delete(t.Context(), "ann", o.Todo.ID, todo.Match{}); err != nil {
			t.Fatal(err)
		}
		gone = append(gone, o.Todo.ID)
	}
	versions := func() (n int) {
		for _, id := range gone {
			r, err := s.Read(t.Context(), "ann", id)
			if err != nil {
				t.Fatal(err)
			}
			if r.Version > 0 {
				n++
			}
		}
		return n
	}
	clock.Advance(todo.TombstoneTTL)
	if err := s.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := versions(); n != len(gone) {
		t.Errorf("%d tombstones at the end of their time, want all %d", n, len(gone))
	}
	clock.Advance(1e6) // a millisecond
	if err := s.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := versions(); n != 0 {
		t.Errorf("%d tombstones after their time", n)
	}
	if _, err := b.Get(t.Context(), "ann", kept.Todo.ID); err != nil {
		t.Error(err)
	}
	if o, err := b.Put(t.Context(), "ann", gone[0], todo.Content{Title: "again"}, todo.Match{}); err != nil || o.Todo.Version != 1 {
		t.Errorf("version %d, %v; a forgotten id begins again", o.Todo.Version, err)
	}
}
