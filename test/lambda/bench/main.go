// Command bench measures the Lambda functions: zipped size, and the time from the start of the process to its first answer.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tideline/functions/keys"
	sessiontable "tideline/functions/session/dynamo"
	todotable "tideline/shared/todo/dynamo"
	"tideline/shared/token"
	keytable "tideline/shared/token/dynamo"
	"tideline/test/dynamotest"
	lambdatest "tideline/test/lambda"
	"tideline/test/redistest"
)

// What issue and design aim at.
const (
	aimCold = 60 * time.Millisecond
	aimZip  = 15 << 20
)

func main() {
	dir := flag.String("functions", "dist/functions/amd64", "folder of `name/bootstrap`")
	runs := flag.Int("runs", 15, "cold starts of each function")
	flag.Parse()
	if err := run(*dir, *runs); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(dir string, runs int) (err error) {
	scope := &redistest.Scope{}
	defer scope.End()
	defer func() {
		if p := recover(); p != nil { // how a Scope fails
			err = fmt.Errorf("%v", p)
		}
	}()
	env, events, err := surroundings(scope)
	if err != nil {
		return err
	}
	fmt.Printf("%-10s %10s %12s %12s %12s\n", "function", "zip", "cold median", "cold worst", "warm median")
	for _, name := range []string{"session", "todos", "tasks", "outbox", "broadcast", "keys"} {
		zip, err := os.Stat(filepath.Join(dir, name+".zip"))
		if err != nil {
			return err
		}
		bin, err := filepath.Abs(filepath.Join(dir, name, "bootstrap"))
		if err != nil {
			return err
		}
		cold, warm, err := measure(scope, bin, env, events[name], runs)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		note := ""
		if zip.Size() > aimZip || cold[len(cold)/2] > aimCold {
			note = "  past the aim"
		}
		fmt.Printf("%-10s %7.1f MB %12s %12s %12s%s\n", name, float64(zip.Size())/(1<<20), cold[len(cold)/2].Round(100*time.Microsecond),
			cold[len(cold)-1].Round(100*time.Microsecond), warm[len(warm)/2].Round(10*time.Microsecond), note)
	}
	fmt.Printf("aims: cold median below %v, zip below %d MB\n", aimCold, aimZip>>20)
	return nil
}

// measure starts the function anew for each cold time; a warm time follows each.
func measure(scope *redistest.Scope, bin string, env []string, event []byte, runs int) (cold, warm []time.Duration, err error) {
	f := lambdatest.Deploy(scope, bin, env...)
	for range runs {
		f.Kill()
		for _, times := range []*[]time.Duration{&cold, &warm} {
			r := f.Invoke(event)
			if r.Error != nil {
				return nil, nil, fmt.Errorf("%w\n%s", r.Error, f.Logs())
			}
			*times = append(*times, r.Took)
		}
	}
	slices.Sort(cold)
	slices.Sort(warm)
	return cold, warm, nil
}

// surroundings are Redis, DynamoDB Local and a token, and one event for each function that makes it use what it needs.
func surroundings(scope *redistest.Scope) (env []string, events map[string][]byte, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	db, redis := dynamotest.Start(scope), redistest.Start(scope)
	for _, make := range []func() error{
		func() error { return sessiontable.CreateTable(ctx, db.Client(), "sessions") },
		func() error { return keytable.CreateTable(ctx, db.Client(), "keys") },
		func() error { return todotable.CreateTable(ctx, db.Client(), "todos") },
	} {
		if err := make(); err != nil {
			return nil, nil, err
		}
	}
	// Tokens are signed by the key ring, as in a deployment: the first request reads the key table.
	table := keytable.New(db.Client(), "keys")
	if err := keys.NewRotation(table, nil, slog.New(slog.DiscardHandler)).Rotate(ctx); err != nil {
		return nil, nil, err
	}
	bearer, err := token.NewRingSigner(table, token.RingAccess, nil, nil).Sign(token.Claims{User: "bench", Session: "s", Expires: time.Now().Add(time.Hour)})
	if err != nil {
		return nil, nil, err
	}
	files, err := os.MkdirTemp("", "tideline-bench-")
	if err != nil {
		return nil, nil, err
	}
	scope.Cleanup(func() { _ = os.RemoveAll(files) })
	env = append(db.Environment(), "REDIS_URL="+redis.URL(), "SESSION_TABLE=sessions", "KEYS_TABLE=keys", "TODO_TABLE=todos",
		"FILES_DIR="+files, "FILES_SECRET="+strings.Repeat("s", token.MinSecretBytes))
	rest := func(method, path, body string) []byte {
		r := lambdatest.Request(scope, method, path, body)
		r.Header.Set("Authorization", "Bearer "+bearer)
		return lambdatest.ALB(scope, r, true)
	}
	return env, map[string][]byte{
		"session": rest("POST", "/api/session", ""),
		"todos":   rest("POST", "/api/todos", `{"title":"bench"}`),
		"tasks":   rest("GET", "/api/tasks", ""),
		"outbox":  lambdatest.Stream(scope),
		"broadcast": lambdatest.EventBridge(scope, "bench", "bench", "tideline.broadcast",
			map[string]any{"publications": []any{map[string]any{"channel": "system", "data": map[string]any{"n": 1}}}}),
		"keys": lambdatest.EventBridge(scope, "bench", "aws.events", "Scheduled Event", map[string]any{}),
	}, nil
}
