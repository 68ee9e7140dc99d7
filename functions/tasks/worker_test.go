package tasks_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"tideline/functions/tasks"
	"tideline/functions/tasks/dirfiles"
	"tideline/shared/bus"
	"tideline/shared/todo"
	"tideline/shared/todo/bolt"
)

func numbered(n int) string {
	var b strings.Builder
	b.WriteString("title\n")
	for i := range n {
		fmt.Fprintln(&b, "row", i+1)
	}
	return b.String()
}

// once fails unless the user has exactly the rows of numbered(n), in their order.
func (p *place) once(user string, n int) {
	p.t.Helper()
	want := strings.Split(strings.TrimSpace(numbered(n)), "\n")[1:]
	if got := p.titles(user); !slices.Equal(got, want) {
		p.t.Errorf("%d todos, want %d, each once and in order", len(got), n)
	}
}

// faulty is a store in which a worker's steps go wrong.
type faulty struct {
	tasks.Store
	mu     sync.Mutex
	writes int
	before func(write int) error // answers an error: nothing is written
	after  func(write int) error // answers an error: it was written, and the answer was lost
}

func (f *faulty) WriteTask(ctx context.Context, user string, w todo.TaskWrite) error {
	f.mu.Lock()
	f.writes++
	n := f.writes
	f.mu.Unlock()
	if f.before != nil {
		if err := f.before(n); err != nil {
			return err
		}
	}
	if err := f.Store.WriteTask(ctx, user, w); err != nil {
		return err
	}
	if f.after != nil {
		return f.after(n)
	}
	return nil
}

func TestAWorkerThatDiesAtAnyStepLeavesTheRestToTheNext(t *testing.T) {
	const rows = 250 // claim, three steps of rows, the end: five writes
	for at := 1; at <= 5; at++ {
		for _, lost := range []bool{false, true} {
			t.Run(fmt.Sprintf("at write %d, written %v", at, lost), func(t *testing.T) {
				p := newPlace(t)
				a := p.start("ann", map[string]any{"kind": "import", "format": "csv", "data": numbered(rows)})
				dead := func(n int) error {
					if n >= at {
						return todo.ErrUnavailable
					}
					return nil
				}
				f := &faulty{Store: p.store, before: dead}
				if lost {
					f.before, f.after = nil, dead
				}
				if err := p.worker(f, false).Do(t.Context(), "ann", a.ID); err == nil {
					t.Fatal("a worker that died was done")
				}
				next := p.worker(p.store, false)
				leased := at > 1 && at < 5 || at == 1 && lost || at == 5 && !lost
				if err := next.Do(t.Context(), "ann", a.ID); leased != errors.Is(err, tasks.ErrBusy) {
					t.Errorf("before the lease expired: %v, want busy %v", err, leased)
				}
				p.now = func() time.Time { return time.Now().Add(tasks.LeaseTTL) }
				for range 2 { // the message comes twice
					if err := next.Do(t.Context(), "ann", a.ID); err != nil {
						t.Fatal(err)
					}
				}
				p.once("ann", rows)
				if got := p.wait("ann", a.ID); got.State != todo.Completed || got.Created != rows || got.Done != rows {
					t.Errorf("ended as %+v", got.Task)
				}
				got := p.bus.types(t, "ann")
				if slices.Index(got, "todos.changed") != len(got)-2 || got[len(got)-1] != "task.completed" || got[0] != "task.created" {
					t.Errorf("published %v", got)
				}
			})
		}
	}
}

func TestAMessageDeliveredToTwoWorkersDoesTheWorkOnce(t *testing.T) {
	p := newPlace(t)
	a := p.start("ann", map[string]any{"kind": "import", "format": "csv", "data": numbered(1000)})
	var wg sync.WaitGroup
	errs := make([]error, 4)
	for i := range errs {
		wg.Go(func() { errs[i] = p.worker(p.store, false).Do(t.Context(), "ann", a.ID) })
	}
	wg.Wait()
	done := 0
	for _, err := range errs {
		if err == nil {
			done++
		} else if !errors.Is(err, tasks.ErrBusy) {
			t.Error(err)
		}
	}
	if done == 0 {
		t.Error("nobody did it")
	}
	p.once("ann", 1000)
}

func TestAWorkerThatIsToldToStopGivesTheTaskBack(t *testing.T) {
	p := newPlace(t)
	a := p.start("ann", map[string]any{"kind": "import", "format": "csv", "data": numbered(1000)})
	ctx, cancel := context.WithCancel(t.Context())
	f := &faulty{Store: p.store, after: func(n int) error {
		if n == 4 {
			cancel()
		}
		return nil
	}}
	if err := p.worker(f, false).Do(ctx, "ann", a.ID); !errors.Is(err, context.Canceled) {
		t.Fatalf("stopped worker: %v", err)
	}
	mid := p.task(p.call("ann", "GET", "/api/tasks/"+a.ID, nil, 200))
	if mid.Done != 3*todo.TaskRows || mid.State != todo.Running {
		t.Errorf("given back as %+v", mid.Task)
	}
	if err := p.worker(p.store, false).Do(t.Context(), "ann", a.ID); err != nil { // at once: no lease to wait for
		t.Fatal(err)
	}
	p.once("ann", 1000)
}

func TestCancellingStopsTheWorkerAndKeepsWhatIsDone(t *testing.T) {
	p := newPlace(t)
	a := p.start("ann", map[string]any{"kind": "import", "format": "csv", "data": numbered(1000)})
	f := &faulty{Store: p.store, after: func(n int) error {
		if n == 3 {
			p.call("ann", "DELETE", "/api/tasks/"+a.ID, nil, 200)
		}
		return nil
	}}
	if err := p.worker(f, false).Do(t.Context(), "ann", a.ID); err != nil {
		t.Fatalf("a cancelled task is done with: %v", err)
	}
	p.once("ann", 2*todo.TaskRows)
	got := p.wait("ann", a.ID)
	if got.State != todo.Cancelled || got.Error.Code != "cancelled" || got.Created != 2*todo.TaskRows {
		t.Errorf("ended as %+v", got.Task)
	}
	if types := p.bus.types(t, "ann"); !slices.Equal(types, []string{"task.created", "task.progress", "todos.changed", "task.failed"}) {
		t.Errorf("published %v", types)
	}
	// One that is cancelled before it begins announces no change of the list.
	b := p.start("bob", map[string]any{"kind": "import", "format": "csv", "data": numbered(5)})
	p.call("bob", "DELETE", "/api/tasks/"+b.ID, nil, 200)
	if err := p.worker(p.store, false).Do(t.Context(), "bob", b.ID); err != nil {
		t.Fatal(err)
	}
	if types := p.bus.types(t, "bob"); !slices.Equal(types, []string{"task.created", "task.failed"}) {
		t.Errorf("published %v", types)
	}
}

func TestTheEndIsAnnouncedAlthoughRedisWasAway(t *testing.T) {
	p := newPlace(t)
	p.bus.setAway(true)
	a := p.start("ann", map[string]any{"kind": "import", "format": "csv", "data": numbered(10)})
	w := p.worker(p.store, false)
	for range 3 { // the message comes again and again; the rows are applied once
		if err := w.Do(t.Context(), "ann", a.ID); !errors.Is(err, bus.ErrUnavailable) {
			t.Fatalf("Redis is away: %v, the message must come again", err)
		}
	}
	p.bus.setAway(false)
	if err := w.Do(t.Context(), "ann", a.ID); err != nil {
		t.Fatal(err)
	}
	p.once("ann", 10)
	if types := p.bus.types(t, "ann"); !slices.Equal(types, []string{"todos.changed", "task.completed"}) {
		t.Errorf("published %v", types)
	}
}

func TestATaskThatKillsEveryWorkerFailsAtLast(t *testing.T) {
	p := newPlace(t)
	a := p.start("ann", map[string]any{"kind": "import", "format": "csv", "data": numbered(10)})
	now := time.Now()
	p.now = func() time.Time { return now }
	dies := &faulty{Store: p.store, before: func(n int) error {
		if n%2 == 0 { // the claim is written, the first step never
			return todo.ErrUnavailable
		}
		return nil
	}}
	for n := range tasks.AttemptsMax {
		if err := p.worker(dies, false).Do(t.Context(), "ann", a.ID); err == nil {
			t.Fatalf("attempt %d was done", n+1)
		}
		now = now.Add(tasks.LeaseTTL)
	}
	if err := p.worker(p.store, false).Do(t.Context(), "ann", a.ID); err != nil {
		t.Fatal(err)
	}
	if got := p.wait("ann", a.ID); got.State != todo.Failed || got.Error.Code != "gave-up" {
		t.Errorf("ended as %+v %+v", got.Task, got.Error)
	}
}

func TestAnImportIntoAListWithoutRoomTakesWhatFits(t *testing.T) {
	p := newPlace(t)
	for range 2 {
		a := p.start("ann", map[string]any{"kind": "import", "format": "csv", "data": numbered(4990)})
		if err := p.worker(p.store, true).Do(t.Context(), "ann", a.ID); err != nil {
			t.Fatal(err)
		}
	}
	a := p.start("ann", map[string]any{"kind": "import", "format": "csv", "data": numbered(50)})
	if err := p.worker(p.store, true).Do(t.Context(), "ann", a.ID); err != nil {
		t.Fatal(err)
	}
	got := p.wait("ann", a.ID)
	if got.State != todo.Failed || got.Error.Code != "list-full" || got.Created != 20 || len(p.titles("ann")) != todo.PerUser {
		t.Errorf("ended as %+v %+v with %d todos", got.Task, got.Error, len(p.titles("ann")))
	}
	if types := p.bus.types(t, "ann"); !slices.Contains(types[len(types)-2:], "todos.changed") {
		t.Errorf("published %v: what was imported must be announced", types)
	}
}

func TestProgressIsPublishedAtMostFourTimesASecond(t *testing.T) {
	p := newPlace(t)
	a := p.start("ann", map[string]any{"kind": "import", "format": "csv", "data": numbered(2000)}) // 21 steps
	now := time.Now()
	p.now = func() time.Time { now = now.Add(20 * time.Millisecond); return now } // a step asks the time at least three times
	if err := p.worker(p.store, true).Do(t.Context(), "ann", a.ID); err != nil {
		t.Fatal(err)
	}
	var at []time.Time
	var done []int
	for _, pub := range p.bus.pubs {
		var e todo.TaskEvent
		if err := json.Unmarshal(pub.Data, &e); err != nil {
			t.Fatal(err)
		}
		if e.Type == todo.TaskProgress {
			at, done = append(at, e.Task.UpdatedAt), append(done, e.Task.Done)
			if e.Task.Total != 2000 || pub.Version != e.Task.Version {
				t.Errorf("progress %+v", e.Task)
			}
		}
	}
	if len(at) < 3 || !slices.IsSorted(done) {
		t.Fatalf("progress at %v: %v", at, done)
	}
	for i := range at[1:] {
		if d := at[i+1].Sub(at[i]); d < tasks.ProgressEvery-20*time.Millisecond {
			t.Errorf("two publications within %v", d)
		}
	}
}

// stepsAllowed is how many steps a child may take before it is killed: it must not be through by then, however long the killer waits for its turn.
const stepsAllowed = 20

// child is a process that works on the queue until it is killed. It says when a task gets on, and stands still after stepsAllowed.
func child(path string) int {
	db, err := bbolt.Open(path, 0o600, nil) // with fsync: it is killed
	if err != nil {
		fmt.Println(err)
		return 1
	}
	store, err := bolt.New(db, nil)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	files, err := dirfiles.New(filepath.Join(filepath.Dir(path), "files"), []byte(strings.Repeat("f", 32)), nil)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	speaking := &faulty{Store: store, after: func(n int) error {
		if fmt.Println("step", n); n >= stepsAllowed {
			select {}
		}
		return nil
	}}
	w, err := tasks.NewWorker(tasks.WorkerOptions{Store: speaking, Files: files, Publisher: &recorder{}, Alone: true})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := (tasks.Local{Store: store, Worker: w}).Run(ctx); err != nil {
		fmt.Println(err)
	}
	return 1
}

func TestAProcessKilledInTheMiddleOfAnImportLosesAndRepeatsNothing(t *testing.T) {
	p := newPlace(t)
	a := p.start("ann", map[string]any{"kind": "import", "format": "csv", "data": numbered(tasks.Rows)})
	// The database admits one process: this one's copy goes to the child and back.
	path := filepath.Join(t.TempDir(), "db")
	copyDB(t, p.db, path)
	if err := os.CopyFS(filepath.Join(filepath.Dir(path), "files"), os.DirFS(filepath.Join(filepath.Dir(p.db), "files"))); err != nil {
		t.Fatal(err)
	}
	for kill := range 3 {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), "TASKS_WORKER="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for steps := 0; steps < 5 && lines.Scan(); steps++ {
			if !strings.HasPrefix(lines.Text(), "step") {
				t.Fatalf("child %d: %s", kill, lines.Text())
			}
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	p.db = path
	p.openStore()
	mid, err := p.store.ReadTask(t.Context(), "ann", a.ID)
	if err != nil {
		t.Fatal(err)
	}
	if mid.State != todo.Running || mid.Done < 3*3*todo.TaskRows || mid.Done >= tasks.Rows {
		t.Fatalf("after three kills: %+v", mid.Task)
	}
	if n := len(p.titles("ann")); n != mid.Created || n != mid.Done {
		t.Errorf("%d todos, the task says %d created of %d", n, mid.Created, mid.Done)
	}
	if err := p.worker(p.store, true).Do(t.Context(), "ann", a.ID); err != nil {
		t.Fatal(err)
	}
	p.once("ann", tasks.Rows)
}

func copyDB(t *testing.T, from, to string) {
	t.Helper()
	raw, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, raw, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestWorkersThatDieAfterAStepEachFinishInTheEnd(t *testing.T) {
	p := newPlace(t)
	const rows = (tasks.AttemptsMax + 4) * todo.TaskRows
	a := p.start("ann", map[string]any{"kind": "import", "format": "csv", "data": numbered(rows)})
	now := time.Now()
	p.now = func() time.Time { return now }
	for range tasks.AttemptsMax + 3 { // more than may die without progress
		dies := &faulty{Store: p.store, before: func(n int) error {
			if n > 2 { // the claim and one step are written
				return todo.ErrUnavailable
			}
			return nil
		}}
		if err := p.worker(dies, false).Do(t.Context(), "ann", a.ID); !errors.Is(err, todo.ErrUnavailable) {
			t.Fatal(err)
		}
		now = now.Add(tasks.LeaseTTL)
	}
	if err := p.worker(p.store, false).Do(t.Context(), "ann", a.ID); err != nil {
		t.Fatal(err)
	}
	if got := p.wait("ann", a.ID); got.State != todo.Completed {
		t.Errorf("ended as %+v %+v", got.Task, got.Error)
	}
	p.once("ann", rows)
}
