package dynamo_test

import (
	"context"
	"testing"
	"time"

	"tideline/functions/session"
	"tideline/functions/session/dynamo"
	"tideline/functions/session/storetest"
	"tideline/test/dynamotest"
)

func TestStore(t *testing.T) {
	server := dynamotest.Start(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := dynamo.CreateTable(ctx, server.Client(), "sessions"); err != nil {
		t.Fatal(err)
	}
	storetest.Run(t, time.Now(), func(*testing.T) session.Store { return dynamo.New(server.Client(), "sessions") })
}
