package outbox_test

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/bbolt"

	"tideline/functions/outbox"
	"tideline/shared/bus"
	"tideline/shared/todo"
	"tideline/shared/todo/bolt"
)

// flaky is a bus that is away for a while, and hears everything after that.
type flaky struct {
	mu    sync.Mutex
	away  bool
	tries int
	ids   []string
	heard chan string
}

func (f *flaky) Publish(_ context.Context, p bus.Publication) (bus.Result, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tries++
	if f.away {
		return bus.Result{}, bus.ErrUnavailable
	}
	if p.Channel == "todos:#poison" {
		return bus.Result{}, bus.ErrTooLarge
	}
	f.ids = append(f.ids, fmt.Sprint(p.Channel, " ", p.Version))
	select {
	case f.heard <- p.ID:
	default:
	}
	return bus.Result{}, nil
}

func (f *flaky) set(away bool) { f.mu.Lock(); f.away = away; f.mu.Unlock() }

func newStore(t *testing.T, path string) *bolt.Store {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	s, err := bolt.New(db, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestTheLocalOutboxAnnouncesInOrderOnceTheBusIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t, filepath.Join(t.TempDir(), "db"))
		book := todo.NewBook(s, nil)
		f := &flaky{away: true}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- outbox.Local{Store: s, Publisher: f}.Run(ctx) }()

		create := func(user, title string) todo.Todo {
			o, err := book.Create(ctx, user, todo.Content{Title: title}, "", "")
			if err != nil {
				t.Fatal(err)
			}
			return o.Todo
		}
		a := create("ann", "a")
		create("poison", "p")
		create("bob", "b")
		if _, err := book.Delete(ctx, "ann", a.ID, todo.Match{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute) // virtual: an outage
		f.mu.Lock()
		if f.tries < 100 || f.tries > 260 { // every 2.5 to 5 s
			t.Errorf("%d tries in ten minutes", f.tries)
		}
		f.mu.Unlock()
		f.set(false)
		time.Sleep(6 * time.Second)
		synctest.Wait()
		if got, want := fmt.Sprint(f.ids), "[todos:#ann 1 todos:#bob 1 todos:#ann 2]"; got != want {
			t.Errorf("published %s, want %s", got, want)
		}
		create("bob", "c") // and at once from now on
		synctest.Wait()
		if n := len(f.ids); n != 4 {
			t.Errorf("%d published, want 4 without a wait", n)
		}
		if p, err := s.Pending(ctx, 10); err != nil || len(p) != 0 {
			t.Errorf("%d events still pending, %v", len(p), err)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
