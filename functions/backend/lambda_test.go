package backend_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"tideline/shared/bus"
	"tideline/shared/channel"
	"tideline/shared/todo"
	"tideline/shared/todo/dynamo"
	"tideline/shared/token"
	"tideline/test/dynamotest"
	lambdatest "tideline/test/lambda"
	"tideline/test/leak"
	"tideline/test/redistest"
)

var db *dynamotest.Server

func TestMain(m *testing.M) {
	scope := &redistest.Scope{}
	db = dynamotest.Start(scope)
	leak.Main(m, scope.End, lambdatest.Cleanup)
}

// account is a table with its stream, Redis, and what the deployed binaries are told about them.
type account struct {
	t      *testing.T
	env    []string
	redis  *redistest.Server
	bus    *bus.Bus
	store  *dynamo.Store
	stream *dynamotest.Stream
	sign   *token.Secrets
	user   string
}

const secret = "0123456789abcdef0123456789abcdef"

func newAccount(t *testing.T) *account {
	t.Helper()
	a := &account{t: t, redis: redistest.Start(t), user: "u-" + uuid.NewString()}
	name := "todos-" + uuid.NewString()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(dynamo.CreateTable(t.Context(), db.Client(), name))
	a.store = dynamo.New(db.Client(), name, nil)
	var err error
	a.stream, err = db.Stream(t.Context(), name)
	must(err)
	a.bus, err = bus.Open(t.Context(), bus.Options{URL: a.redis.URL(), Stage: "test"})
	must(err)
	t.Cleanup(func() { a.bus.Close() })
	a.sign, err = token.NewSecrets([]string{secret}, nil)
	must(err)
	a.env = append(db.Environment(), "STAGE=test", "REDIS_URL="+a.redis.URL(), "TODO_TABLE="+name, "FILES_DIR="+t.TempDir(), "FILES_SECRET="+secret)
	return a
}

func (a *account) deploy(name string, more ...string) *lambdatest.Function {
	a.t.Helper()
	return lambdatest.Deploy(a.t, lambdatest.Build(a.t, "tideline/functions/"+name+"/bootstrap"), append(slices.Clone(a.env), more...)...)
}

// call sends a request through the load balancer's event.
func (a *account) call(f *lambdatest.Function, method, path, body string, status int) lambdatest.Response {
	a.t.Helper()
	r := lambdatest.Request(a.t, method, "http://tideline.test"+path, body)
	bearer, err := a.sign.Sign(token.Claims{User: a.user, Expires: time.Now().Add(time.Hour)})
	if err != nil {
		a.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+bearer)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	res := f.Invoke(lambdatest.ALB(a.t, r, true))
	if res.Error != nil {
		a.t.Fatalf("%s %s: %v\n%s", method, path, res.Error, f.Logs())
	}
	answer := lambdatest.Decode(a.t, res.Payload, true)
	if answer.Status != status {
		a.t.Fatalf("%s %s: %d %s, want %d\n%s", method, path, answer.Status, answer.Body, status, f.Logs())
	}
	return answer
}

// event invokes with an event and reads the answer into v.
func (a *account) event(f *lambdatest.Function, payload []byte, v any) {
	a.t.Helper()
	res := f.Invoke(payload)
	if res.Error != nil {
		a.t.Fatalf("%v\n%s", res.Error, f.Logs())
	}
	if v == nil {
		return
	}
	if err := json.Unmarshal(res.Payload, v); err != nil {
		a.t.Fatalf("%s: %v", res.Payload, err)
	}
}

type partial struct {
	BatchItemFailures []struct{ ItemIdentifier string }
}

// changes reads what the stream has, as an event, and each record on its own, as the pipe makes a message of it.
func (a *account) changes() (event []byte, bodies []string) {
	a.t.Helper()
	event, _, err := a.stream.Next(a.t.Context(), 100)
	if err != nil {
		a.t.Fatal(err)
	}
	var e struct{ Records []json.RawMessage }
	if err := json.Unmarshal(event, &e); err != nil {
		a.t.Fatal(err)
	}
	for _, r := range e.Records {
		bodies = append(bodies, string(r))
	}
	return event, bodies
}

func (a *account) heard(namespace string) []string {
	a.t.Helper()
	pubs, _, err := a.bus.History(a.t.Context(), channel.Personal(namespace, a.user), bus.Page{Limit: -1})
	if err != nil {
		a.t.Fatal(err)
	}
	out := []string{}
	for _, p := range pubs {
		var e struct{ Type string }
		if err := json.Unmarshal(p.Data, &e); err != nil {
			a.t.Fatal(err)
		}
		if e.Type != "task.progress" {
			out = append(out, e.Type)
		}
	}
	return out
}

func (a *account) expect(namespace string, want ...string) {
	a.t.Helper()
	if got := a.heard(namespace); !slices.Equal(got, want) {
		a.t.Errorf("heard on %s: %v, want %v", namespace, got, want)
	}
}

func TestTodosAndOutbox(t *testing.T) {
	a := newAccount(t)
	list, out := a.deploy("todos", "TOKEN_SECRETS="+secret), a.deploy("outbox")
	var made todo.Todo
	if err := json.Unmarshal(a.call(list, "POST", "/api/todos", `{"title":"warm é"}`, 201).Body, &made); err != nil {
		t.Fatal(err)
	}
	a.call(list, "GET", "/api/todos?done=false&limit=1", "", 200)
	a.call(list, "PATCH", "/api/todos/"+made.ID, `{"done":true}`, 200)
	a.call(list, "GET", "/api/todos/"+uuid.NewString(), "", 404)
	a.call(list, "GET", "/api/openapi.json", "", 200)
	a.call(list, "GET", "/api/docs", "", 200)
	// Within its budget the API announces by itself; on a machine that stands still for longer than that it leaves it to the outbox, and says so.
	prompt := !strings.Contains(list.Logs(), "publishing is left to the outbox")
	if prompt {
		a.expect("todos", "todo.created", "todo.updated")
	}
	// What the API has announced the outbox does not announce again.
	event, _ := a.changes()
	var p partial
	a.event(out, event, &p)
	if len(p.BatchItemFailures) != 0 {
		t.Errorf("failures %v", p.BatchItemFailures)
	}
	if prompt {
		a.expect("todos", "todo.created", "todo.updated")
	} else if got := a.heard("todos"); len(got) == 0 || got[len(got)-1] != "todo.updated" {
		t.Errorf("heard %v, want the newest last", got)
	}

	// Redis goes. The write is a success all the same, and the outbox announces it when Redis is back.
	a.redis.Stop()
	a.call(list, "DELETE", "/api/todos/"+made.ID, "", 204)
	event, _ = a.changes()
	res := out.Invoke(event, lambdatest.WithTimeout(4*time.Second))
	if res.Error != nil {
		t.Fatal(res.Error)
	}
	if err := json.Unmarshal(res.Payload, &p); err != nil || len(p.BatchItemFailures) != 1 {
		t.Errorf("outbox without Redis: %s, %v", res.Payload, err)
	}
	a.redis.Restart()
	a.event(out, event, &p)
	a.expect("todos", "todo.deleted") // this redis-server keeps nothing over a restart
	for _, want := range []string{`"level":"WARN"`, "publishing is left to the outbox", `"request_id":"`, `"_aws":`, `"publish_failures_total":1`, `"request_latency_seconds"`} {
		if !strings.Contains(list.Logs(), want) {
			t.Errorf("no %s in the function's log", want)
		}
	}
	if n := strings.Count(list.Logs(), `"msg":"request"`); n != 1 { // the 404: successes cost no line
		t.Errorf("%d request lines in the log, want one", n)
	}
}

func TestTasksFromTheAPIThroughStreamAndQueueToTheWorker(t *testing.T) {
	a := newAccount(t)
	apiFunction, worker, out := a.deploy("tasks", "TOKEN_SECRETS="+secret), a.deploy("tasks"), a.deploy("outbox")
	var rows strings.Builder
	for n := range 250 {
		fmt.Fprintf(&rows, "row %d\n", n+1)
	}
	body, _ := json.Marshal(map[string]any{"kind": "import", "format": "csv", "data": "title\n" + rows.String()})
	var task struct {
		todo.Task
		Download *struct{ URL string }
	}
	if err := json.Unmarshal(a.call(apiFunction, "POST", "/api/tasks", string(body), 202).Body, &task); err != nil {
		t.Fatal(err)
	}
	_, bodies := a.changes()
	if len(bodies) != 1 {
		t.Fatalf("%d stream records of a new task", len(bodies))
	}
	var p partial
	for range 2 { // SQS delivers at least once
		a.event(worker, lambdatest.SQS(t, bodies[0]), &p)
		if len(p.BatchItemFailures) != 0 {
			t.Fatalf("failures %v\n%s", p.BatchItemFailures, worker.Logs())
		}
	}
	if err := json.Unmarshal(a.call(apiFunction, "GET", "/api/tasks/"+task.ID, "", 200).Body, &task); err != nil || task.State != todo.Completed || task.Created != 250 {
		t.Errorf("%+v, %v", task.Task, err)
	}
	if strings.Contains(apiFunction.Logs(), "publishing is left to the worker") { // a machine that stands still for longer than the budget
		a.expect("user", "task.completed")
	} else {
		a.expect("user", "task.created", "task.completed")
	}
	a.expect("todos", "todos.changed")
	event, _ := a.changes() // task steps and 250 rows, none of them news
	a.event(out, event, &p)
	a.expect("todos", "todos.changed")

	if err := json.Unmarshal(a.call(apiFunction, "POST", "/api/tasks", `{"kind":"export","format":"json"}`, 202).Body, &task); err != nil {
		t.Fatal(err)
	}
	for len(bodies) > 0 {
		if _, bodies = a.changes(); len(bodies) > 0 && strings.Contains(bodies[len(bodies)-1], task.ID) {
			break
		}
	}
	a.event(worker, lambdatest.SQS(t, bodies[len(bodies)-1], `{"not":"a task"}`), &p)
	if len(p.BatchItemFailures) != 1 || p.BatchItemFailures[0].ItemIdentifier != "m1" {
		t.Errorf("failures %v, want the foreign message", p.BatchItemFailures)
	}
	if err := json.Unmarshal(a.call(apiFunction, "GET", "/api/tasks/"+task.ID, "", 200).Body, &task); err != nil || task.State != todo.Completed || task.Download == nil {
		t.Errorf("%+v, %v", task, err)
	}
	// The worker alone has no keys: HTTP is not served, and nobody can make it verify nothing.
	if res := worker.Invoke(lambdatest.ALB(t, lambdatest.Request(t, "GET", "http://x/api/tasks", ""), true)); res.Error == nil {
		t.Errorf("the worker answered %s", res.Payload)
	}
}

func TestBroadcastByItsFourDoors(t *testing.T) {
	a := newAccount(t)
	f := a.deploy("broadcast")
	request := func(text string) map[string]any {
		return map[string]any{"publications": []map[string]any{{"channel": "system", "data": map[string]string{"text": text}}}}
	}
	encode := func(v any) []byte { b, _ := json.Marshal(v); return b }
	var direct struct{ Published, Failed int }
	a.event(f, encode(request("invoke")), &direct)
	if direct.Published != 1 {
		t.Errorf("invoke: %+v", direct)
	}
	for range 2 {
		a.event(f, lambdatest.EventBridge(t, "ev-1", "tideline.test", "tideline.broadcast", request("event")), nil)
		a.event(f, lambdatest.SNS(t, "m-1", string(encode(request("topic")))), nil)
	}
	post := lambdatest.Request(t, http.MethodPost, "https://x.lambda-url.test/", string(encode(request("url"))))
	post.Header.Set("Content-Type", "application/json")
	res := f.Invoke(lambdatest.FunctionURL(t, post))
	if res.Error != nil {
		t.Fatal(res.Error)
	}
	if answer := lambdatest.Decode(t, res.Payload, false); answer.Status != 200 {
		t.Errorf("URL: %d %s", answer.Status, answer.Body)
	}
	pubs, _, err := a.bus.History(t.Context(), "system", bus.Page{Limit: -1})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range pubs {
		got = append(got, string(p.Data))
	}
	if want := []string{`{"text":"invoke"}`, `{"text":"event"}`, `{"text":"topic"}`, `{"text":"url"}`}; !slices.Equal(got, want) {
		t.Errorf("heard %v, want %v", got, want)
	}
	if res := f.Invoke([]byte(`{"publications":7}`)); res.Error == nil {
		t.Errorf("a malformed invocation was answered %s", res.Payload)
	}
}

func TestMistakesInTheEnvironmentAreReportedTogetherByName(t *testing.T) {
	f := lambdatest.Deploy(t, lambdatest.Build(t, "tideline/functions/tasks/bootstrap"), "TOKEN_SECRETS="+secret, "KEYS_TABLE=keys", "REDIS_IAM_USER=u",
		"ALLOWED_ORIGINS=tideline.test", "FILES_DIR=/tmp", "FILES_SECRET=short", "REDIS_IAM_SERVERLESS=maybe", "CHANNELS_FILE=/nowhere.json")
	res := f.Invoke([]byte(`{}`))
	if res.Error == nil {
		t.Fatalf("answered %s", res.Payload)
	}
	for _, name := range []string{"REDIS_URL: missing", "TODO_TABLE: missing", "TOKEN_SECRETS, KEYS_TABLE: set exactly one", "REDIS_IAM_USER, REDIS_IAM_CACHE", "ALLOWED_ORIGINS",
		"FILES_SECRET", "REDIS_IAM_SERVERLESS", "CHANNELS_FILE"} {
		if !strings.Contains(f.Logs(), name) {
			t.Errorf("no word of %s in\n%s", name, f.Logs())
		}
	}
	if res.Error.Type != lambdatest.ErrorExited {
		t.Errorf("ended with %v", res.Error)
	}
}
