package dynamo_test

import (
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/google/uuid"

	"tideline/shared/todo"
	"tideline/shared/todo/dynamo"
	"tideline/shared/todo/storetest"
	"tideline/test/dynamotest"
	"tideline/test/leak"
	"tideline/test/redistest"
)

var server *dynamotest.Server

func TestMain(m *testing.M) {
	scope := &redistest.Scope{}
	server = dynamotest.Start(scope)
	leak.Main(m, scope.End)
}

func newTable(t *testing.T) string {
	t.Helper()
	name := "todos-" + uuid.NewString()
	if err := dynamo.CreateTable(t.Context(), server.Client(), name); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestStore(t *testing.T) {
	clock := storetest.NewClock()
	storetest.Run(t, dynamo.New(server.Client(), newTable(t), clock.Now), clock)
}

func TestTaskStore(t *testing.T) {
	clock := storetest.NewClock()
	storetest.RunTasks(t, dynamo.New(server.Client(), newTable(t), clock.Now), clock)
}

// deaf loses the answer to one request after the server has acted on it, so that the SDK sends it again.
type deaf struct {
	aws.HTTPClient
	operation string
	lost      atomic.Int32
}

func (d *deaf) Do(r *http.Request) (*http.Response, error) {
	res, err := d.HTTPClient.Do(r)
	if err != nil || !strings.HasSuffix(r.Header.Get("X-Amz-Target"), d.operation) || !d.lost.CompareAndSwap(0, 1) {
		return res, err
	}
	_ = res.Body.Close()
	return nil, errors.New("connection reset by peer")
}

func TestAWriteWhoseAnswerWasLostIsOneWrite(t *testing.T) {
	for _, operation := range []string{"PutItem", "TransactWriteItems"} {
		t.Run(operation, func(t *testing.T) {
			c := server.Config()
			d := &deaf{HTTPClient: c.HTTPClient, operation: operation}
			c.HTTPClient = d
			book := todo.NewBook(dynamo.New(dynamodb.NewFromConfig(c), newTable(t), nil), nil)
			o, err := book.Create(t.Context(), "ann", todo.Content{Title: "a"}, "key", "digest")
			if err != nil {
				t.Fatal(err)
			}
			edit := func(k todo.Content) todo.Content { k.Title += "b"; return k }
			o, err = book.Patch(t.Context(), "ann", o.Todo.ID, todo.Match{Versions: []uint64{1}}, edit)
			if err != nil || o.Todo.Title != "ab" || o.Todo.Version != 2 {
				t.Errorf("changed to %+v, %v", o.Todo, err)
			}
			if d.lost.Load() != 1 {
				t.Fatal("no answer was lost: the test shows nothing")
			}
			if got, err := book.Get(t.Context(), "ann", o.Todo.ID); err != nil || got.Title != "ab" || got.Version != 2 {
				t.Errorf("stored %+v, %v", got, err)
			}
			if p, err := book.List(t.Context(), "ann", todo.Query{Limit: 10}); err != nil || len(p.Items) != 1 {
				t.Errorf("%d todos, %v", len(p.Items), err)
			}
		})
	}
}

func TestATableThatIsAwayIsUnavailable(t *testing.T) {
	c := server.Config()
	c.BaseEndpoint = aws.String("http://127.0.0.1:1")
	c.Retryer = func() aws.Retryer { return aws.NopRetryer{} }
	s := dynamo.New(dynamodb.NewFromConfig(c), "none", nil)
	if _, err := s.Read(t.Context(), "ann", uuid.NewString()); !errors.Is(err, todo.ErrUnavailable) {
		t.Errorf("read: %v", err)
	}
	if _, err := s.List(t.Context(), "ann", todo.Query{Limit: 1}); !errors.Is(err, todo.ErrUnavailable) {
		t.Errorf("list: %v", err)
	}
	// A table that does not exist is a mistake in the settings, and no reason to try again.
	if _, err := dynamo.New(server.Client(), "none", nil).Read(t.Context(), "ann", uuid.NewString()); err == nil || errors.Is(err, todo.ErrUnavailable) {
		t.Errorf("no such table: %v", err)
	}
}
