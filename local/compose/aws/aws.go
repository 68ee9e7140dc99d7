// Package aws does for DynamoDB Local what the stack does in AWS: it makes the tables, and carries the todo table's stream to the functions.
//
// The outbox gets every change of a todo, in order, from Lambda's event source; the worker every new task, from the pipe and its queue. Here both are
// calls of the functions' private ports, repeated until they are taken.
package aws

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"tideline/functions/session"
	links "tideline/functions/session/dynamo"
	todos "tideline/shared/todo/dynamo"
)

func open(ctx context.Context) (aws.Config, error) {
	c, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return c, fmt.Errorf("AWS configuration: %w", err)
	}
	return c, nil
}

// Setup makes the tables that are not there.
func Setup(ctx context.Context, todoTable, sessionTable string) error {
	c, err := open(ctx)
	if err != nil {
		return err
	}
	db := dynamodb.NewFromConfig(c)
	for name, create := range map[string]func(context.Context, *dynamodb.Client, string) error{todoTable: todos.CreateTable, sessionTable: links.CreateTable} {
		var exists *types.ResourceInUseException
		if err := create(ctx, db, name); err != nil && !errors.As(err, &exists) {
			return err
		}
	}
	return nil
}

// Links is the session function's store.
func Links(ctx context.Context, table string) (session.Store, error) {
	c, err := open(ctx)
	if err != nil {
		return nil, err
	}
	return links.New(dynamodb.NewFromConfig(c), table), nil
}
