package lambdatest_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"tideline/shared/bus"
	todotable "tideline/shared/todo/dynamo"
	"tideline/shared/token"
	"tideline/shared/trace"
	"tideline/test/dynamotest"
	lambdatest "tideline/test/lambda"
	"tideline/test/redistest"
)

const (
	// invocation is what the sandbox says of each invocation, as W3C has it.
	invocation = "00-5bef4de7ad49b0e87f6ef6c87fc2e700-9a9197af755a6419-01"
	callers    = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
)

// tag reads what tag the last publication of a channel has.
func tag(t *testing.T, redis *redistest.Server, channel string) string {
	t.Helper()
	b, err := bus.Open(t.Context(), bus.Options{URL: redis.URL(), Stage: "dev", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	pubs, _, err := b.History(t.Context(), channel, bus.Page{Limit: 1, Reverse: true})
	if err != nil || len(pubs) != 1 {
		t.Fatalf("%d publications on %s, %v", len(pubs), channel, err)
	}
	return pubs[0].Tags[trace.Tag]
}

// Lambda's own trace of an event: its segment is the parent of what the nodes do.
func TestAnEventsTraceIsPublished(t *testing.T) {
	redis := redistest.Start(t)
	f := lambdatest.Deploy(t, lambdatest.Build(t, "tideline/functions/broadcast/bootstrap"), "REDIS_URL="+redis.URL(), "LOG_LEVEL=debug")
	one := map[string]any{"publications": []any{map[string]any{"channel": "system", "data": map[string]any{"n": 1}}}}
	if r := f.Invoke(lambdatest.EventBridge(t, "1", "test", "tideline.broadcast", one)); r.Error != nil {
		t.Fatalf("%v\n%s", r.Error, f.Logs())
	}
	if got := tag(t, redis, "system"); got != invocation {
		t.Errorf("tag %q, want %q", got, invocation)
	}
	redis.Stop()
	if r := f.Invoke(lambdatest.EventBridge(t, "2", "test", "tideline.broadcast", one)); r.Error == nil {
		t.Error("published without Redis")
	}
	if !strings.Contains(f.Logs(), `"trace_id":"5bef4de7ad49b0e87f6ef6c87fc2e700"`) {
		t.Errorf("no line of the failure has the trace's id:\n%s", f.Logs())
	}
}

// A REST request that Redis missed: the outbox publishes it under the trace of the request, which came through the table and its stream.
func TestTheOutboxPublishesUnderTheRequestsTrace(t *testing.T) {
	db, redis := dynamotest.Start(t), redistest.Start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	if err := todotable.CreateTable(ctx, db.Client(), "todos"); err != nil {
		t.Fatal(err)
	}
	stream, err := db.Stream(ctx, "todos")
	if err != nil {
		t.Fatal(err)
	}
	secret := strings.Repeat("s", token.MinSecretBytes)
	tokens, err := token.NewSecrets([]string{secret}, nil)
	if err != nil {
		t.Fatal(err)
	}
	bearer, err := tokens.Sign(token.Claims{User: "ann", Expires: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	env := append(db.Environment(), "TODO_TABLE=todos", "TOKEN_SECRETS="+secret)
	with := func(redis string) []string { return append(slices.Clone(env), "REDIS_URL="+redis) }
	todos := lambdatest.Deploy(t, lambdatest.Build(t, "tideline/functions/todos/bootstrap"), with(fmt.Sprintf("redis://127.0.0.1:%d", lambdatest.FreePort(t)))...)
	outbox := lambdatest.Deploy(t, lambdatest.Build(t, "tideline/functions/outbox/bootstrap"), with(redis.URL())...)
	for _, c := range []struct{ given, want string }{{callers, callers}, {"", invocation}, {strings.TrimSuffix(callers, "1") + "0", invocation}} {
		r := lambdatest.Request(t, "POST", "/api/todos", `{"title":"followed"}`)
		r.Header.Set("Authorization", "Bearer "+bearer)
		if c.given != "" {
			r.Header.Set("Traceparent", c.given)
		}
		res := todos.Invoke(lambdatest.ALB(t, r, true))
		if res.Error != nil {
			t.Fatalf("%v\n%s", res.Error, todos.Logs())
		}
		if a := lambdatest.Decode(t, res.Payload, true); a.Status != 201 {
			t.Fatalf("%d %s\n%s", a.Status, a.Body, todos.Logs())
		}
		event, n, err := stream.Next(ctx, 10)
		for ; err == nil && n == 0; event, n, err = stream.Next(ctx, 10) {
		}
		if err != nil {
			t.Fatal(err)
		}
		if r := outbox.Invoke(event); r.Error != nil {
			t.Fatalf("%v\n%s", r.Error, outbox.Logs())
		}
		if got := tag(t, redis, "todos:#ann"); got != c.want {
			t.Errorf("%q came, %q was published, want %q", c.given, got, c.want)
		}
	}
	if !strings.Contains(todos.Logs(), `"publishing is left to the outbox"`) || !strings.Contains(todos.Logs(), `"trace_id":"0af7651916cd43dd8448eb211c80319c"`) {
		t.Errorf("the log doesn't say which trace waits for the outbox:\n%s", todos.Logs())
	}
}
