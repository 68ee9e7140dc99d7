package dynamo_test

import (
	"os"
	"testing"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"tideline/shared/todo/dynamo"
	"tideline/shared/todo/storetest"
	"tideline/test/dynamotest"
	"tideline/test/redistest"
)

var server *dynamotest.Server

func TestMain(m *testing.M) {
	scope := &redistest.Scope{}
	server = dynamotest.Start(scope)
	code := m.Run()
	scope.End()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			println(err.Error())
			code = 1
		}
	}
	os.Exit(code)
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
