// Package document makes the OpenAPI document of all functions from their handlers.
package document

import (
	"tideline/functions/api"
	"tideline/functions/session"
	"tideline/functions/tasks"
	"tideline/functions/todos"
)

// Make describes every operation. Nothing is opened, and the handlers that it makes serve nothing.
func Make() ([]byte, error) {
	a, err := api.New(api.Options{})
	if err != nil {
		return nil, err
	}
	session.Describe(a)
	if err := todos.Register(a, todos.Options{}); err != nil {
		return nil, err
	}
	if err := tasks.Register(a, tasks.Options{}); err != nil {
		return nil, err
	}
	return a.Document()
}
