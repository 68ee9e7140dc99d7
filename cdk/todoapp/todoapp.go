// Package todoapp puts the todo application onto an edge: its table, its functions, and the pipe to the background worker.
package todoapp

import (
	"github.com/aws/aws-cdk-go/awscdk/v2/awsdynamodb"
	"github.com/aws/aws-cdk-go/awscdk/v2/awss3"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssqs"
	"github.com/aws/constructs-go/constructs/v10"

	"tideline/cdk/edge"
)

// Builds names the functions that the application needs built.
var Builds = []string{"todos", "tasks", "outbox"}

// Priorities of the routes; the last takes everything below /api that nobody else does.
const (
	tasksPriority = 100
	todosPriority = 110
	restPriority  = 1000
)

// Props of New.
type Props struct {
	// TableName and TableStreamARN adopt a table that was retained or restored; empty makes a new one.
	TableName, TableStreamARN string
}

// App is the declared application. Its fields are for outputs, widgets and alarms.
type App struct {
	Table    awsdynamodb.ITable
	Files    awss3.Bucket // imports and exports
	Failed   awss3.Bucket // stream records that could not be announced
	Todos    *edge.Function
	Tasks    *edge.Function
	Worker   *edge.Function
	Outbox   *edge.Function
	Work     awssqs.Queue
	WorkDead awssqs.Queue
	// PipeFailed has where in the stream the new tasks are that never reached Work.
	PipeFailed awssqs.Queue

	scope constructs.Construct
	edge  *edge.Edge
}

// New declares the application.
func New(scope constructs.Construct, id string, e *edge.Edge, p Props) *App {
	a := &App{edge: e, scope: constructs.NewConstruct(scope, str(id))}
	a.declareTable(p)
	a.declareTodos()
	a.declareOutbox()
	a.declareTasks()
	return a
}
