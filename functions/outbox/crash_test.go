package outbox_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/google/uuid"

	"tideline/functions/outbox"
	"tideline/functions/todos"
	"tideline/shared/bus"
	"tideline/shared/channel"
	"tideline/shared/todo"
	"tideline/shared/todo/dynamo"
	"tideline/shared/token"
	"tideline/test/dynamotest"
	"tideline/test/leak"
	"tideline/test/redistest"
)

var db *dynamotest.Server

func TestMain(m *testing.M) {
	if os.Getenv("OUTBOX_WRITER") != "" {
		os.Exit(writer())
	}
	scope := &redistest.Scope{}
	db = dynamotest.Start(scope)
	leak.Main(m, scope.End)
}

// Where a writer dies.
var steps = []string{"before the write", "after the write", "before the publish", "after the publish", "never"}

// mortal kills its process, without a chance to tidy up, when it comes to the step.
type mortal struct{ at string }

func (m mortal) passes(step string) {
	if m.at == step {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

type mortalStore struct {
	todo.Store
	mortal
}

func (s mortalStore) Write(ctx context.Context, user string, w todo.Write) error {
	s.passes("before the write")
	err := s.Store.Write(ctx, user, w)
	s.passes("after the write")
	return err
}

type mortalBus struct {
	*bus.Bus
	mortal
}

func (b mortalBus) Publish(ctx context.Context, p bus.Publication) (bus.Result, error) {
	b.passes("before the publish")
	// Not within the request's budget, which a process that has just begun may need for its first connection: the tests are about who dies.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	r, err := b.Bus.Publish(ctx, p)
	b.passes("after the publish")
	return r, err
}

// writer is the process that dies: it answers one request with the real handler of functions/todos.
func writer() int {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	m := mortal{os.Getenv("OUTBOX_WRITER")}
	server := dynamotest.At(os.Getenv("AWS_ENDPOINT_URL_DYNAMODB"))
	b, err := bus.Open(ctx, bus.Options{URL: os.Getenv("REDIS_URL"), Stage: "test", PoolSize: 1})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer b.Close()
	store := mortalStore{dynamo.New(server.Client(), os.Getenv("TABLE"), nil), m}
	sign, err := token.NewSecrets([]string{strings.Repeat("s", token.MinSecretBytes)}, nil)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	bearer, err := sign.Sign(token.Claims{User: os.Getenv("TODO_USER"), Expires: time.Now().Add(time.Minute)})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	api, err := todos.New(todos.Options{Store: store, Publisher: mortalBus{b, m}, Verifier: sign})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	body := strings.NewReader(fmt.Sprintf(`{"title":%q}`, os.Getenv("TODO_TITLE")))
	req := httptest.NewRequestWithContext(ctx, "PUT", "/api/todos/"+os.Getenv("TODO_ID"), body)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+bearer)
	rec := httptest.NewRecorder()
	api.ServeHTTP(rec, req)
	if rec.Code != 200 && rec.Code != 201 {
		fmt.Println(rec.Code, rec.Body)
		return 1
	}
	return 0
}

// world is a table with its stream, a real redis-server, and the outbox between them.
type world struct {
	t      *testing.T
	table  string
	store  *dynamo.Store
	stream *dynamotest.Stream
	redis  *redistest.Server
	bus    *bus.Bus
	out    *outbox.Handler
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, table: "todos-" + uuid.NewString(), redis: redistest.Start(t)}
	if err := dynamo.CreateTable(t.Context(), db.Client(), w.table); err != nil {
		t.Fatal(err)
	}
	w.store = dynamo.New(db.Client(), w.table, nil)
	var err error
	if w.stream, err = db.Stream(t.Context(), w.table); err != nil {
		t.Fatal(err)
	}
	if w.bus, err = bus.Open(t.Context(), bus.Options{URL: w.redis.URL(), Stage: "test"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.bus.Close() })
	w.out = w.handler(w.bus)
	return w
}

func (w *world) handler(p outbox.Publisher) *outbox.Handler {
	w.t.Helper()
	h, err := outbox.NewHandler(outbox.Options{Publisher: p, Store: w.store})
	if err != nil {
		w.t.Fatal(err)
	}
	return h
}

// write runs a writer that dies at the step, and reports whether it came through.
func (w *world) write(user, id, title, dies string) {
	w.t.Helper()
	cmd := exec.CommandContext(w.t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), append(db.Environment(), "OUTBOX_WRITER="+dies, "REDIS_URL="+w.redis.URL(), "TABLE="+w.table,
		"TODO_USER="+user, "TODO_ID="+id, "TODO_TITLE="+title)...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case dies == "never" && err != nil:
		w.t.Fatalf("writer: %v: %s", err, out)
	case dies != "never" && (!errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL):
		w.t.Fatalf("writer that dies %s: %v: %s", dies, err, out)
	}
}

// drain hands the stream's next records to the outbox, as Lambda would, until there are none.
func (w *world) drain(h *outbox.Handler) {
	w.t.Helper()
	for {
		event, n, err := w.stream.Next(w.t.Context(), 100)
		if err != nil {
			w.t.Fatal(err)
		}
		if n == 0 {
			return
		}
		w.deliver(h, event)
	}
}

// deliver repeats from the first failed record, as Lambda does, until all are done.
func (w *world) deliver(h *outbox.Handler, event []byte) {
	w.t.Helper()
	var e outbox.StreamEvent
	if err := json.Unmarshal(event, &e); err != nil {
		w.t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		failures := h.Stream(w.t.Context(), e).BatchItemFailures
		if len(failures) == 0 {
			return
		}
		at := slices.IndexFunc(e.Records, func(r outbox.StreamRecord) bool { return r.DynamoDB.SequenceNumber == failures[0].ItemIdentifier })
		e.Records = e.Records[at:]
	}
	w.t.Fatal("the outbox never got through")
}

// heard answers what was published for the user, as "type version title".
func (w *world) heard(user string) []string {
	w.t.Helper()
	pubs, _, err := w.bus.History(w.t.Context(), channel.Personal(todo.Namespace, user), bus.Page{Limit: -1})
	if err != nil {
		w.t.Fatal(err)
	}
	var out []string
	for _, p := range pubs {
		var e todo.Event
		if err := json.Unmarshal(p.Data, &e); err != nil {
			w.t.Fatal(err)
		}
		out = append(out, fmt.Sprint(e.Type, " ", e.Todo.Version, " ", e.Todo.Title))
	}
	return out
}

func TestAWriterThatDiesAnywhereLeavesNothingUnannounced(t *testing.T) {
	for _, first := range steps {
		t.Run("dies "+first, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			user, id := "u-"+uuid.NewString(), uuid.NewString()
			w.write(user, id, "one", first)
			// Another writer comes before the outbox does, and then the outbox, twice: Lambda may deliver a record again.
			w.write(user, id, "two", "never")
			event, n, err := w.stream.Next(t.Context(), 100)
			if err != nil || n == 0 {
				t.Fatalf("%d records, %v", n, err)
			}
			w.deliver(w.out, event)
			w.deliver(w.out, event)

			var want []string
			switch first {
			case "before the write": // nothing was saved
				want = []string{"todo.created 1 two"}
			case "after the write", "before the publish": // the second writer's version was heard first: the first is superseded
				want = []string{"todo.updated 2 two"}
			default:
				want = []string{"todo.created 1 one", "todo.updated 2 two"}
			}
			if got := w.heard(user); !slices.Equal(got, want) {
				t.Errorf("heard %v, want %v", got, want)
			}
		})
		t.Run("the last writer dies "+first, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			user, id := "u-"+uuid.NewString(), uuid.NewString()
			w.write(user, id, "one", "never")
			w.write(user, id, "two", first)
			w.drain(w.out)
			want := []string{"todo.created 1 one", "todo.updated 2 two"}
			if first == "before the write" {
				want = want[:1]
			}
			if got := w.heard(user); !slices.Equal(got, want) {
				t.Errorf("heard %v, want %v", got, want)
			}
		})
	}
}

// deadlines notes until when publications may take. One goroutine may use it.
type deadlines struct {
	outbox.Publisher
	all []time.Time
}

func (d *deadlines) Publish(ctx context.Context, p bus.Publication) (bus.Result, error) {
	at, _ := ctx.Deadline()
	d.all = append(d.all, at)
	return d.Publisher.Publish(ctx, p)
}

func TestTheStreamWaitsForRedisAndLosesNothing(t *testing.T) {
	w := newWorld(t)
	book := todo.NewBook(w.store, nil)
	user := "u-" + uuid.NewString()
	o, err := book.Create(t.Context(), user, todo.Content{Title: "a"}, "key", "digest")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := book.Create(t.Context(), user, todo.Content{Title: "b"}, "", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := book.Delete(t.Context(), user, o.Todo.ID, todo.Match{}); err != nil {
		t.Fatal(err)
	}
	event, _, err := w.stream.Next(t.Context(), 100)
	if err != nil {
		t.Fatal(err)
	}
	w.redis.Stop()
	var e outbox.StreamEvent
	if err := json.Unmarshal(event, &e); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	asked := &deadlines{Publisher: w.bus}
	r := w.handler(asked).Stream(ctx, e)
	cancel()
	if len(r.BatchItemFailures) != 1 {
		t.Errorf("%d failures while Redis is away, want one: the first todo", len(r.BatchItemFailures))
	}
	end, _ := ctx.Deadline()
	if last := end.Add(-2 * time.Second); len(asked.all) == 0 || slices.ContainsFunc(asked.all, last.Before) { // they are kept to answer
		t.Errorf("publishing may take until %v, Lambda ends it at %v", asked.all, end)
	}
	w.redis.Restart()
	w.deliver(w.out, event)
	want := []string{"todo.created 1 a", "todo.created 1 b", "todo.deleted 2 a"}
	if got := w.heard(user); !slices.Equal(got, want) {
		t.Errorf("heard %v, want %v", got, want)
	}
}

func TestOnlyTodosOfPeopleAreAnnounced(t *testing.T) {
	w := newWorld(t)
	user := "u-" + uuid.NewString()
	now := time.Now().UTC().Truncate(time.Millisecond)
	task := todo.TaskRecord{Task: todo.Task{ID: uuid.NewString(), Kind: todo.Import, Version: 1, CreatedAt: now, UpdatedAt: now}, Expires: now.Add(todo.TaskTTL)}
	if err := w.store.WriteTask(t.Context(), user, todo.TaskWrite{Next: task}); err != nil {
		t.Fatal(err)
	}
	row := todo.Todo{ID: uuid.NewString(), Title: "imported", Version: 1, CreatedAt: now, UpdatedAt: now}
	task.Version++
	if err := w.store.WriteTask(t.Context(), user, todo.TaskWrite{Before: 1, Next: task, Rows: []todo.Todo{row}}); err != nil {
		t.Fatal(err)
	}
	w.drain(w.out)
	if got := w.heard(user); len(got) != 0 {
		t.Errorf("heard %v of a task and its rows, want nothing", got)
	}
	// Once a person touches an imported todo it is like any other.
	book := todo.NewBook(w.store, nil)
	if _, err := book.Delete(t.Context(), user, row.ID, todo.Match{}); err != nil {
		t.Fatal(err)
	}
	// A removal by time is no news.
	if _, err := db.Client().DeleteItem(t.Context(), &dynamodb.DeleteItemInput{TableName: &w.table, Key: dynamotest.Key("u#"+user, "t#"+row.ID)}); err != nil {
		t.Fatal(err)
	}
	w.drain(w.out)
	if got := w.heard(user); !slices.Equal(got, []string{"todo.deleted 2 imported"}) {
		t.Errorf("heard %v, want the deletion alone", got)
	}
}

func TestARecordThatIsTooOldAnnouncesWhatIsStoredNow(t *testing.T) {
	w := newWorld(t)
	user := "u-" + uuid.NewString()
	book := todo.NewBook(w.store, nil)
	o, err := book.Create(t.Context(), user, todo.Content{Title: "old"}, "", "")
	if err != nil {
		t.Fatal(err)
	}
	event, _, err := w.stream.Next(t.Context(), 100)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := book.Patch(t.Context(), user, o.Todo.ID, todo.Match{}, func(c todo.Content) todo.Content { c.Title = "new"; return c }); err != nil {
		t.Fatal(err)
	}
	h, err := outbox.NewHandler(outbox.Options{Publisher: w.bus, Store: w.store, Now: func() time.Time { return time.Now().Add(7 * time.Hour) }})
	if err != nil {
		t.Fatal(err)
	}
	w.deliver(h, event)
	if got := w.heard(user); !slices.Equal(got, []string{"todo.updated 2 new"}) {
		t.Errorf("heard %v, want the newest alone", got)
	}
}

// shelf is a bucket of failed records.
type shelf map[string]string

func (s shelf) List(_ context.Context, limit int) ([]string, error) {
	var keys []string
	for k := range s {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys[:min(limit, len(keys))], nil
}
func (s shelf) Read(_ context.Context, key string, _ int64) ([]byte, error) {
	return []byte(s[key]), nil
}
func (s shelf) Delete(_ context.Context, key string) error { delete(s, key); return nil }

func TestReplayPublishesTheCurrentItems(t *testing.T) {
	w := newWorld(t)
	user := "u-" + uuid.NewString()
	book := todo.NewBook(w.store, nil)
	a, err := book.Create(t.Context(), user, todo.Content{Title: "a"}, "", "")
	if err != nil {
		t.Fatal(err)
	}
	b, err := book.Create(t.Context(), user, todo.Content{Title: "b"}, "", "")
	if err != nil {
		t.Fatal(err)
	}
	event, _, err := w.stream.Next(t.Context(), 100)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := book.Patch(t.Context(), user, a.Todo.ID, todo.Match{}, func(c todo.Content) todo.Content { c.Done = true; return c }); err != nil {
		t.Fatal(err)
	}
	if _, err := book.Delete(t.Context(), user, b.Todo.ID, todo.Match{}); err != nil {
		t.Fatal(err)
	}
	quoted, _ := json.Marshal(string(event))
	kept := shelf{"1": `{"version":"1.0","requestContext":{"condition":"RetryAttemptsExhausted"},"payload":` + string(quoted) + `}`,
		"2": `{"payload":` + string(event) + `}`, "3": `not JSON`}
	h, err := outbox.NewHandler(outbox.Options{Publisher: w.bus, Store: w.store, Failures: kept})
	if err != nil {
		t.Fatal(err)
	}
	out, err := h.Handle(t.Context(), json.RawMessage(`{"replay":{}}`))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprintf("%+v", out), "{Objects:2 Todos:4 Failed:1 More:false}"; got != want {
		t.Errorf("replay %s, want %s", got, want)
	}
	got := w.heard(user)
	slices.Sort(got)
	if !slices.Equal(got, []string{"todo.deleted 2 b", "todo.updated 2 a"}) {
		t.Errorf("heard %v", got)
	}
	if len(kept) != 1 || kept["3"] == "" {
		t.Errorf("kept %v, want only what could not be read", kept)
	}
}

func TestForeignEventsAreRefused(t *testing.T) {
	w := newWorld(t)
	for _, bad := range []string{`{}`, `[]`, `"x"`, `{"Records":7}`} {
		if out, err := w.out.Handle(t.Context(), json.RawMessage(bad)); err == nil {
			t.Errorf("%s: answered %v", bad, out)
		}
	}
	// A todo that is not as the layout says is logged and passed over: it must not hold up the shard.
	raw := strings.ReplaceAll(`{"Records":[{"eventName":"INSERT","dynamodb":{"ApproximateCreationDateTime":NOW,"SequenceNumber":"1",
		"NewImage":{"kind":{"S":"todo"},"pk":{"S":"u#x"},"sk":{"S":"t#y"},"v":{"N":"many"}}}}]}`, "NOW", fmt.Sprint(time.Now().Unix()))
	out, err := w.out.Handle(t.Context(), json.RawMessage(raw))
	if err != nil || len(out.(outbox.StreamResponse).BatchItemFailures) != 0 {
		t.Errorf("answered %v, %v", out, err)
	}
}
