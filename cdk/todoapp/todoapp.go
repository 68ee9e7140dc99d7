// Package todoapp puts the todo application onto an edge: tables, functions, the pipe to the background worker.
package todoapp

import (
	"github.com/aws/constructs-go/constructs/v10"

	"tideline/cdk/edge"
)

// Builds names the functions that the application needs built.
var Builds = []string{"todos", "tasks", "outbox"}

// Props of New.
type Props struct {
	// TableName and TableStreamARN adopt a table that was retained or restored.
	TableName, TableStreamARN string
}

// App is the declared application.
type App struct {
	constructs.Construct
}

// New declares the application.
func New(scope constructs.Construct, id string, e *edge.Edge, p Props) *App { return &App{} }
